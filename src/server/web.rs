//! The port for operators, over HTTP/1.1: pages, and gRPC-Web, with which a browser calls the same API as everyone.
//!
//! It is a port of its own, so that whoever may reach one need not reach the other. Calls are let in, identified and
//! bounded as those of other clients are.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, uri::Authority};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower_layer::Layer as _;
use tower_service::Service;

use super::call::{Call, CallBody, Calls, Open};
use crate::service::streams;

/// Connections at once; others wait.
const CONNECTIONS_MAX: usize = 64;

/// A client has so long to say what it wants.
const HEADERS_IN: Duration = Duration::from_secs(5);

/// After an accept that failed, as where there is no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";

/// What is served there besides calls.
pub struct Web {
    /// Where it listens.
    pub listener: TcpListener,
    /// The page of this path.
    pub pages: Pages,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Web").field(&self.listener).finish()
    }
}

/// The page of a path, if there is one.
pub type Pages = Arc<dyn Fn(&str) -> Option<Page> + Send + Sync>;

/// A page.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its content type.
    pub kind: &'static str,
    /// What is in it.
    pub body: Bytes,
}

/// Serves operators, for ever.
///
/// # Cancel safety
/// Dropping it cuts every connection.
pub(super) async fn serve(Web { listener, pages }: Web, calls: Arc<Calls>) -> Infallible {
    let local = listener.local_addr().ok();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let front = Front { pages: Arc::clone(&pages), local, calls: Arc::clone(&calls) };
                connections.spawn(async move {
                    front.serve(stream).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no connection of an operator can be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// What a connection is answered from.
struct Front {
    pages: Pages,
    local: Option<SocketAddr>,
    calls: Arc<Calls>,
}

impl Front {
    async fn serve(self, stream: TcpStream) {
        let open = Arc::new(self.calls.open(None));
        let streams = streams::Connection::new(stream.peer_addr().ok(), Arc::clone(&open.untaken));
        let calls = Grpc { calls: Arc::clone(&self.calls), open, streams };
        let service = service_fn(|request: Request<Incoming>| {
            let answer = match self.refuse(request.headers()).or_else(|| self.page(&request)) {
                Some(page) => futures_util::future::ready(Ok(page)).left_future(),
                None => GrpcWebLayer::new().layer(calls.clone()).call(request).right_future(),
            };
            async move { answer.await.map(guarded) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADERS_IN);
        if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "a connection of an operator ended");
        }
    }

    /// A browser may be led here by somebody else's page: under a name that leads to this machine for a moment, or
    /// from elsewhere.
    fn refuse(&self, headers: &HeaderMap) -> Option<Response<Body>> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        let is_inside = self.local.is_some_and(|local| local.ip().is_loopback());
        if is_inside && !host.as_ref().is_some_and(|host| is_loopback(host.host())) {
            return Some(said(
                StatusCode::FORBIDDEN,
                "this port is for this machine: ask for localhost or 127.0.0.1\n",
            ));
        }
        let origin =
            headers.get(header::ORIGIN)?.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1.to_owned()));
        let is_same = origin.is_some_and(|origin| host.is_some_and(|host| origin == host.as_str()));
        (!is_same).then(|| said(StatusCode::FORBIDDEN, "calls come from pages of this port\n"))
    }

    /// What is no call.
    fn page(&self, request: &Request<Incoming>) -> Option<Response<Body>> {
        match (request.method(), (self.pages)(request.uri().path())) {
            (&Method::GET | &Method::HEAD, Some(Page { kind, body })) => Some(told(StatusCode::OK, kind, body)),
            (&Method::GET | &Method::HEAD, None) => Some(said(StatusCode::NOT_FOUND, "there is no such page\n")),
            (&Method::POST, None) => None,
            _ => Some(said(StatusCode::METHOD_NOT_ALLOWED, "pages are for GET and HEAD, calls for POST\n")),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn said(status: StatusCode, words: &'static str) -> Response<Body> {
    told(status, TEXT, Bytes::from_static(words.as_bytes()))
}

fn told(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// What a browser may do with it: nothing that is not of this port.
fn guarded(mut response: Response<Body>) -> Response<Body> {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                          form-action 'none'; frame-ancestors 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The calls of one connection, as a service.
#[derive(Clone)]
struct Grpc {
    calls: Arc<Calls>,
    open: Arc<Open>,
    streams: streams::Connection,
}

impl Service<Request<Body>> for Grpc {
    type Response = Response<CallBody>;
    type Error = Infallible;
    type Future = Pin<Box<Call>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if streams::is_long(request.uri().path()) {
            request.extensions_mut().insert(self.streams.clone());
        }
        Box::pin(self.calls.call(request, Arc::clone(&self.open)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_this_machine_is_asked_for_by_its_name() {
        for (host, is_it) in
            [("localhost", true), ("127.0.0.1", true), ("[::1]", true), ("evil.example", false), ("10.0.0.1", false)]
        {
            assert_eq!(is_loopback(host), is_it, "{host}");
        }
    }
}
