//! The port for operators: HTTP/1.1, apart from the API, so that whoever may reach one need not reach the other.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::metrics::{CONTENT_TYPE, Metrics};

/// Connections at once; others wait.
const CONNECTIONS_MAX: usize = 64;

/// A client has so long to say what it wants…
const HEADERS_IN: Duration = Duration::from_secs(5);

/// …and to have done with a connection.
const CONNECTION_IN: Duration = Duration::from_secs(300);

/// After an accept that failed, as where there is no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

const INDEX: &str = "pail: /metrics has metrics, for Prometheus\n";

/// Serves operators, for ever.
///
/// # Cancel safety
/// Dropping it leaves the connections that are open to end by themselves.
pub async fn serve(listener: TcpListener, metrics: Metrics) -> Infallible {
    let metrics = Arc::new(metrics);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = serve_connection(stream, Arc::clone(&metrics));
                tokio::spawn(async move {
                    connection.await;
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

async fn serve_connection(stream: TcpStream, metrics: Arc<Metrics>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &metrics);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_IN);
    match timeout(CONNECTION_IN, http.serve_connection(TokioIo::new(stream), service)).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection of an operator ended"),
    }
}

fn answer<B>(request: &Request<B>, metrics: &Metrics) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, CONTENT_TYPE, metrics.text()),
        (&Method::GET | &Method::HEAD, "/") => (StatusCode::OK, TEXT, INDEX.to_owned()),
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, TEXT, format!("no such page. {INDEX}")),
        _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET and HEAD are allowed\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
