//! A connection's socket as HTTP/2 is given it: corked. What is written to it waits until the connection has said all that it
//! had to say, and leaves in one piece. It also counts the bytes that pass, for whether a client still reads can be told from
//! nothing else.
//!
//! Without it h2 gives each frame of 1 KiB to the socket by itself, and all that it has whenever 16 KiB are together. Here
//! that costs a copy, and no system call.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes that wait, at most. What is more goes to the socket as it comes, and a large frame without a copy.
const CORKED_BYTES_MAX: usize = 16 << 10;

/// Room that is kept while nothing waits: enough for a few small answers, and little for a connection that is idle.
const ROOM_BYTES: usize = 1 << 10;

/// The socket. Clones are the same one: HTTP/2 has one, and who polls it has another, to [uncork](Self::poll_uncork) it.
/// Only the connection's own task takes the lock, so nobody ever waits for it.
#[derive(Clone, Debug)]
pub(super) struct Socket(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    stream: TcpStream,
    corked: Vec<u8>,
    read: u64,
    written: u64,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(Inner { stream, corked: Vec::new(), read: 0, written: 0 })))
    }

    /// How many bytes came by now.
    pub(super) fn read(&self) -> u64 {
        self.0.lock().read
    }

    /// How many came and went by now.
    pub(super) fn passed(&self) -> u64 {
        let inner = self.0.lock();
        inner.read + inner.written
    }

    /// Writes what waits. It is to be called whenever something may have been written: a flush does nothing.
    pub(super) fn poll_uncork(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_send(cx, &[]).map_ok(drop)
    }
}

impl Inner {
    /// Writes what waits, and `bytes` after it; ready with how many of those were taken, of none or of all but nothing.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        while !self.corked.is_empty() || !bytes.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let sent = ready!(if bytes.is_empty() {
                stream.poll_write(cx, &self.corked)
            } else {
                stream.poll_write_vectored(cx, &[IoSlice::new(&self.corked), IoSlice::new(bytes)])
            })?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += u64::try_from(sent).unwrap_or_default();
            let Some(more) = sent.checked_sub(self.corked.len()) else {
                self.corked.drain(..sent);
                continue;
            };
            self.corked.clear();
            self.corked.shrink_to(ROOM_BYTES);
            if more > 0 {
                return Poll::Ready(Ok(more));
            }
        }
        Poll::Ready(Ok(0))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        let before = buffer.filled().len();
        let read = Pin::new(&mut inner.stream).poll_read(cx, buffer);
        inner.read += u64::try_from(buffer.filled().len() - before).unwrap_or_default();
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        if inner.corked.len() + bytes.len() > CORKED_BYTES_MAX {
            return inner.poll_send(cx, bytes);
        }
        inner.corked.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// h2 flushes after each large frame: that is what the cork is against.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_uncork(cx))?;
        Pin::new(&mut self.0.lock().stream).poll_shutdown(cx)
    }

    /// Slices would make h2 write by themselves what it copies otherwise, from 256 bytes on.
    fn is_write_vectored(&self) -> bool {
        false
    }
}
