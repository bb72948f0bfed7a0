//! hyper as it comes, on HTTP/2 alone: it answers each request at once that its type is not supported, as pail answers
//! what is not gRPC. It prints its address, and serves until it is killed.

use std::{convert::Infallible, error::Error};

use http_body_util::Empty;
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

async fn answer(_: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let connection =
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service_fn(answer));
        // How a connection ends is h2spec's affair.
        tokio::spawn(async { drop(connection.await) });
    }
}
