//! A connection's socket as HTTP/2 is given it: corked. What is written to it waits until the connection has said all that it
//! had to say, and leaves in one piece. It also counts the bytes that pass, for whether a client still reads can be told from
//! nothing else, and has a guard look at them.
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
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    guard::{Cut, Guard},
    stream::Stream,
};
use crate::planted::{self, Bug};

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
    stream: Stream,
    corked: Vec<u8>,
    guard: Guard,
    /// How many bytes came and went.
    passed: u64,
}

impl Socket {
    pub(super) fn new(stream: Stream) -> Self {
        Self(Arc::new(Mutex::new(Inner { stream, corked: Vec::new(), guard: Guard::new(), passed: 0 })))
    }

    /// How many bytes came and went by now.
    pub(super) fn passed(&self) -> u64 {
        self.0.lock().passed
    }

    /// Calls took so many frames of data since this was told before. Whether there is nothing to [look](Self::look) at.
    pub(super) fn calls_took(&self, frames: usize) -> bool {
        let guard = &mut self.0.lock().guard;
        guard.calls_took(frames);
        guard.is_calm()
    }

    /// To be called now and then while there is something to look at; an error ends the connection.
    pub(super) fn look(&self) -> io::Result<()> {
        self.0.lock().guard.look().map_err(io::Error::other)
    }

    /// Writes what waits. It is to be called whenever something may have been written: a flush does nothing.
    pub(super) fn poll_uncork(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_send(cx, &[]))?;
        Pin::new(&mut inner.stream).poll_flush(cx)
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
            self.passed += u64::try_from(sent).unwrap_or_default();
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

    /// Says why the connection is cut, as far as that can be said without a wait, and returns the error that cuts it.
    fn cut(&mut self, cx: &mut Context<'_>, cut: Cut) -> io::Error {
        if let Some(frame) = self.guard.go_away(cut) {
            self.corked.extend_from_slice(&frame);
            // Whoever floods may not read either.
            drop(self.poll_send(cx, &[]));
        }
        io::Error::other(cut)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut inner.stream).poll_read(cx, buffer))?;
        let read = &buffer.filled()[before..];
        inner.passed += u64::try_from(read.len()).unwrap_or_default();
        Poll::Ready(inner.guard.received(read).map_err(|cut| inner.cut(cx, cut)))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        if planted::strikes(Bug::LostWrite) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let taken = if inner.corked.len() + bytes.len() > CORKED_BYTES_MAX {
            ready!(inner.poll_send(cx, bytes))?
        } else {
            inner.corked.extend_from_slice(bytes);
            bytes.len()
        };
        inner.guard.sent(&bytes[..taken]);
        Poll::Ready(Ok(taken))
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
