//! Streams that are polled beside their connection: where one has just begun, nothing is woken and nothing is queued elsewhere.
//!
//! hyper hands the future of each stream to an executor as it accepts it. This one keeps it until the connection has read all
//! that there is; then each is polled once, and the connection after them, so that all their answers leave in one write. Nearly every
//! unary call is over by then. What is not, goes on as a task of the same runtime.

use std::{
    error::Error,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::rt::Executor;
use parking_lot::Mutex;

use super::socket::Socket;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The streams of one connection that have begun and were not polled yet.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<Mutex<Vec<Stream>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begun {
    fn execute(&self, stream: F) {
        // Not polled here: hyper is in the midst of accepting, and would flush for each.
        self.0.lock().push(Box::pin(stream));
    }
}

/// A connection with its streams beside it.
pub(super) struct WithStreams<C> {
    connection: C,
    begun: Begun,
    socket: Socket,
    /// Kept for its room.
    round: Vec<Stream>,
}

impl<C> WithStreams<C> {
    pub(super) fn new(connection: C, begun: Begun, socket: Socket) -> Self {
        Self { connection, begun, socket, round: Vec::new() }
    }

    pub(super) fn connection(self: Pin<&mut Self>) -> Pin<&mut C>
    where
        C: Unpin,
    {
        Pin::new(&mut self.get_mut().connection)
    }
}

impl<C, E> Future for WithStreams<C>
where
    C: Future<Output = Result<(), E>> + Unpin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut this.connection).poll(cx) {
                // It has waited for its last words to be written, unless it is the socket that has ended it.
                return Poll::Ready(ended.map_err(io::Error::other));
            }
            mem::swap(&mut this.round, &mut *this.begun.0.lock());
            if this.round.is_empty() {
                ready!(this.socket.poll_uncork(cx))?;
                return Poll::Pending;
            }
            for stream in this.round.drain(..) {
                first_poll(stream, cx);
            }
        }
    }
}

/// Polls a stream once. Where it waits for something it goes on as a task, which has a waker of its own.
fn first_poll(mut stream: Stream, cx: &mut Context<'_>) {
    // A panic ends its stream alone; a call has caught its own before.
    match catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll(cx))) {
        Ok(Poll::Ready(())) => {}
        Ok(Poll::Pending) => drop(tokio::spawn(stream)),
        Err(_) => tracing::error!("a stream panicked"),
    }
}
