//! Which service a call is for: the first segment of its path says it. Who asks for what is not there is told what is.

use std::{convert::Infallible, fmt, sync::Arc};

use http::{Request, Response};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{body::Body, codegen::BoxFuture, server::NamedService};
use tonic_reflection::{
    pb::{v1, v1alpha},
    server::Builder,
};

use super::{
    health::Health,
    meter::{Meter, Method},
};
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

pub(super) type Handler = Arc<dyn Fn(Request<Body>) -> BoxFuture<Response<Body>, Infallible> + Send + Sync>;

/// The services there are, in the order in which they are looked for.
pub(super) struct Router(Vec<Service>);

struct Service {
    name: &'static str,
    /// Sorted; each with what counts its calls.
    methods: Vec<(String, Arc<Method>)>,
    handler: Handler,
}

/// Where a call goes.
pub(super) struct Route<'a> {
    pub(super) method: &'a Arc<Method>,
    /// The handler behind it runs when the answer is polled.
    pub(super) handler: &'a Handler,
}

impl Router {
    /// The application's service first, then health and both versions of reflection.
    pub(super) fn new(service: impl GrpcService, health: Health, meter: &Meter) -> Self {
        let mut router = Self(Vec::new());
        router.add(service, meter);
        router.add(HealthServer::new(health).max_decoding_message_size(usize::MAX), meter);
        // The set is a part of this program; only a set that can't be read is refused.
        let reflection = || Builder::configure().register_encoded_file_descriptor_set(pb::DESCRIPTOR_SET);
        match (reflection().build_v1(), reflection().build_v1alpha()) {
            (Ok(v1), Ok(v1alpha)) => {
                router.add(v1, meter);
                router.add(v1alpha, meter);
            }
            (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "no reflection"),
        }
        router
    }

    fn add<S: GrpcService>(&mut self, service: S, meter: &Meter) {
        // Generated services are always ready, and made to be cloned: there is nothing to poll first.
        let handler: Handler = Arc::new(move |request| service.clone().call(request));
        let counted = |method: String| (method.clone(), meter.method(format!("/{}/{method}", S::NAME)));
        self.0.push(Service { name: S::NAME, methods: methods(S::NAME).into_iter().map(counted).collect(), handler });
    }

    /// Where a request of this path goes.
    pub(super) fn find(&self, path: &str) -> Result<Route<'_>, Failure> {
        let (name, method) = split(path);
        let Some(service) = self.0.iter().find(|service| service.name == name) else {
            return Err(unknown("service", name, self.0.iter().map(|service| service.name)));
        };
        match service.methods.binary_search_by(|(known, _)| known.as_str().cmp(method)) {
            Ok(at) => Ok(Route { method: &service.methods[at].1, handler: &service.handler }),
            Err(_) => Err(unknown("method", method, service.methods.iter().map(|(known, _)| known.as_str()))),
        }
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let known = known.collect::<Vec<_>>().join(", ");
    Failure::new(Reason::Unimplemented, format!("no {what} has the name {}: there are {known}", quoted(name)))
}

/// The methods of a service, as its descriptor tells. tonic would refuse others itself, but without details.
fn methods(service: &str) -> Vec<String> {
    let (package, name) = service.rsplit_once('.').unwrap_or_default();
    let sets = [pb::DESCRIPTOR_SET, v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];
    let mut methods: Vec<_> = sets
        .into_iter()
        .filter_map(|set| FileDescriptorSet::decode(set).ok())
        .flat_map(|set| set.file)
        .filter(|file| file.package() == package)
        .flat_map(|file| file.service)
        .filter(|service| service.name() == name)
        .flat_map(|service| service.method)
        .map(|method| method.name().to_owned())
        .collect();
    methods.sort_unstable();
    methods
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|service| service.name)).finish()
    }
}

/// The service and the method in a path `/service/method`.
fn split(path: &str) -> (&str, &str) {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default()
}

/// The service in a path.
pub(super) fn service(path: &str) -> &str {
    split(path).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_segment_is_the_service_and_the_rest_the_method() {
        assert_eq!(split("/pail.v1.BucketService/Get"), ("pail.v1.BucketService", "Get"));
        assert_eq!(split("/a/b/c"), ("a", "b/c"));
        for path in ["", "/", "a/b", "/a", "*"] {
            assert_eq!(split(path), ("", ""), "{path:?}");
        }
    }

    #[test]
    fn a_service_has_the_methods_of_its_descriptor() {
        assert_eq!(methods("grpc.health.v1.Health"), ["Check", "List", "Watch"]);
        assert_eq!(methods("grpc.reflection.v1.ServerReflection"), ["ServerReflectionInfo"]);
        assert_eq!(methods("grpc.reflection.v1alpha.ServerReflection"), ["ServerReflectionInfo"]);
        assert_eq!(methods(pb::bucket_service_server::SERVICE_NAME).len(), 14);
    }
}
