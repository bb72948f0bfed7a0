//! What a connection's bytes come from and go to: TCP, or TLS over it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{auth::Certificate, followed::Followed, tls::Tls};

/// How connections open.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    tls: Option<Arc<Followed<Tls>>>,
    /// One place for each handshake that is under way: each is work, and memory, for who has not said yet who it is.
    handshakes: Arc<Semaphore>,
}

/// What may carry a connection.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    /// In a box: a plain one is to be small.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Opening {
    pub(super) fn new(tls: Option<Arc<Followed<Tls>>>, handshakes_max: usize) -> Self {
        Self { tls, handshakes: Arc::new(Semaphore::new(handshakes_max)) }
    }

    /// Returns once the client has said something, after the handshake where there is one; `None` where it has gone
    /// without a word, as those do who only look whether somebody listens.
    ///
    /// # Cancel safety
    /// Dropping it closes the socket.
    pub(super) async fn open(&self, tcp: TcpStream) -> io::Result<Option<Stream>> {
        // Who says nothing has no place.
        if tcp.peek(&mut [0]).await? == 0 {
            return Ok(None);
        }
        let Some(tls) = &self.tls else { return Ok(Some(Stream::Plain(tcp))) };
        let place = self.handshakes.acquire().await.map_err(io::Error::other)?;
        let mut stream = TlsAcceptor::from(Arc::clone(&tls.get().config)).accept(tcp).await?;
        drop(place);
        // What it holds back: an answer is sent on, and not kept for a client that does not read.
        stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        stream.fill_buf().await?;
        Ok(Some(Stream::Tls(Box::new(stream))))
    }
}

impl Stream {
    /// What the client has shown, where it was asked to.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.peer_certificates()?.first().and_then(Certificate::read),
        }
    }
}

/// Bytes that TLS holds of what was written and is not sent: a record of the largest size.
const TLS_BUFFER_BYTES: usize = 16 << 10;

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    /// TLS holds what the socket did not take yet.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
