//! Which service a call is for: the first segment of its path says it.

use std::{convert::Infallible, fmt, future, sync::Arc};

use http::{Request, Response};
use tonic::{body::Body, codegen::BoxFuture, server::NamedService};
use tonic_reflection::server::Builder;

use super::health::Health;
use crate::{
    pb::{self, health::health_server::HealthServer},
    service::status::{Failure, Reason, quoted},
};

/// A service as tonic generates it.
///
/// Build it with `max_decoding_message_size(usize::MAX)`: the server's intake has measured a message before the service
/// sees it, with an error that says the limit; tonic's own check would only come first with a worse one.
pub trait GrpcService:
    tower_service::Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future = BoxFuture<Response<Body>, Infallible>,
    > + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcService for S where
    S: tower_service::Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        > + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

type Handler = Box<dyn Fn(Request<Body>) -> BoxFuture<Response<Body>, Infallible> + Send + Sync>;

/// The services there are, in the order in which they are looked for.
pub(super) struct Router(Vec<(&'static str, Handler)>);

impl Router {
    /// The application's service first, then health and both versions of reflection.
    pub(super) fn new(service: impl GrpcService, health: Health) -> Arc<Self> {
        let mut router = Self(Vec::new());
        router.add(service);
        router.add(HealthServer::new(health).max_decoding_message_size(usize::MAX));
        // The set is a part of this program; only a set that can't be read is refused.
        let reflection = || Builder::configure().register_encoded_file_descriptor_set(pb::DESCRIPTOR_SET);
        match (reflection().build_v1(), reflection().build_v1alpha()) {
            (Ok(v1), Ok(v1alpha)) => {
                router.add(v1);
                router.add(v1alpha);
            }
            (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "no reflection"),
        }
        Arc::new(router)
    }

    fn add<S: GrpcService>(&mut self, service: S) {
        // Generated services are always ready, and made to be cloned: there is nothing to poll first.
        self.0.push((S::NAME, Box::new(move |request| service.clone().call(request))));
    }

    /// Hands the request to its service. Its handler runs when the answer is polled.
    pub(super) fn route(&self, request: Request<Body>) -> BoxFuture<Response<Body>, Infallible> {
        let name = service(request.uri().path());
        match self.0.iter().find(|(known, _)| *known == name) {
            Some((_, handler)) => handler(request),
            None => Box::pin(future::ready(Ok(tonic::Status::from(self.unknown(name)).into_http()))),
        }
    }

    fn unknown(&self, name: &str) -> Failure {
        let known = self.0.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
        Failure::new(Reason::Unimplemented, format!("no service has the name {}: there are {known}", quoted(name)))
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// The service in a path `/service/method`.
pub(super) fn service(path: &str) -> &str {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_segment_is_the_service() {
        assert_eq!(service("/pail.v1.BucketService/Get"), "pail.v1.BucketService");
        assert_eq!(service("/a/b/c"), "a");
        for path in ["", "/", "a/b", "/a", "*"] {
            assert_eq!(service(path), "", "{path:?}");
        }
    }
}
