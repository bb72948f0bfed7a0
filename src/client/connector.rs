//! How a connection to the server is made: TCP, and TLS over it where that is asked for.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::FutureExt as _;
use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tower_service::Service;

/// A handshake's: what it is made with, and whose certificate the server is to show.
pub(super) type Tls = (Arc<ClientConfig>, ServerName<'static>);

type Connection = TokioIo<Box<dyn Io>>;

/// What a connection is read from and written to.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What tonic connects by.
pub(super) struct Connector {
    source: Source,
    tls: Option<Tls>,
}

/// Where its sockets come from.
enum Source {
    /// The address; all that its name stands for, as they answer.
    Dial(HttpConnector),
    /// This one. There is no other.
    Once(Option<TcpStream>),
}

impl Connector {
    /// Connects whenever it is to.
    pub(super) fn dial(tls: Option<Tls>) -> Self {
        let mut dial = HttpConnector::new();
        dial.set_nodelay(true);
        dial.enforce_http(false);
        Self { source: Source::Dial(dial), tls }
    }

    /// Speaks over this one.
    pub(super) fn over(stream: TcpStream, tls: Option<Tls>) -> Self {
        Self { source: Source::Once(Some(stream)), tls }
    }
}

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Connection>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.source {
            Source::Dial(dial) => dial.poll_ready(cx).map_err(io::Error::other),
            Source::Once(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let tls = self.tls.clone();
        let stream = match &mut self.source {
            Source::Dial(dial) => {
                let stream = dial.call(server);
                async { stream.await.map(TokioIo::into_inner).map_err(io::Error::other) }.left_future()
            }
            Source::Once(stream) => {
                let lost = || io::Error::new(io::ErrorKind::NotConnected, "the connection was lost");
                std::future::ready(stream.take().ok_or_else(lost)).right_future()
            }
        };
        Box::pin(async move {
            let stream = stream.await?;
            let io: Box<dyn Io> = match tls {
                None => Box::new(stream),
                Some((config, name)) => Box::new(TlsConnector::from(config).connect(name, stream).await?),
            };
            Ok(TokioIo::new(io))
        })
    }
}
