//! Streams that are polled beside their connection: no task is woken for one, and none is queued elsewhere.
//!
//! hyper hands the future of each stream to an executor as it accepts it. This one keeps it until the connection has read all
//! that there is; then each is polled once, and the connection after them, so that all their answers leave in one write. Nearly every
//! unary call is over by then. What is not, waits beside the connection: of the watches that an event is for, all of one
//! connection are polled in one go.

use std::{
    error::Error,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{FutureExt as _, StreamExt as _, future::CatchUnwind, stream::FuturesUnordered};
use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::task::coop::{Unconstrained, unconstrained};

use super::{
    bell::{Bell, Rope},
    socket::Socket,
};

/// In one turn the connection is polled so often at most, then others on its thread have theirs.
const ROUNDS_MAX: usize = 4;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Without tokio's budget, which is one task's: a hundred streams would take it from each other, and be polled for nothing.
type Waiting = Unconstrained<CatchUnwind<AssertUnwindSafe<Stream>>>;

/// The streams of one connection that have begun and were not polled yet.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<Mutex<Vec<Stream>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begun {
    fn execute(&self, stream: F) {
        // Not polled here: hyper is in the midst of accepting, and would flush for each.
        self.0.lock().push(Box::pin(stream));
    }
}

/// The streams of one connection, in the order of their lives.
struct Streams {
    begun: Begun,
    /// Kept for its room.
    round: Vec<Stream>,
    waiting: FuturesUnordered<Waiting>,
}

impl Streams {
    /// Polls those that have begun, for the first time.
    fn poll_begun(&mut self, cx: &mut Context<'_>) {
        mem::swap(&mut self.round, &mut *self.begun.0.lock());
        for mut stream in self.round.drain(..) {
            // A panic ends its stream alone; a call has caught its own before.
            match catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll(cx))) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => self.waiting.push(unconstrained(AssertUnwindSafe(stream).catch_unwind())),
                Err(_) => log_panic(),
            }
        }
    }

    /// Polls those that wait and were woken.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(ended)) = self.waiting.poll_next_unpin(cx) {
            ended.unwrap_or_else(|_| log_panic());
        }
    }
}

/// A connection with its streams beside it, which end with it.
pub(super) struct WithStreams<C> {
    connection: C,
    streams: Streams,
    socket: Socket,
    bell: Arc<Bell>,
    /// For the connection: its streams pull it too, where they have something to send.
    rope: Rope,
    /// For the streams that wait.
    waiting_rope: Rope,
}

impl<C> WithStreams<C> {
    pub(super) fn new(connection: C, begun: Begun, socket: Socket) -> Self {
        let streams = Streams { begun, round: Vec::new(), waiting: FuturesUnordered::new() };
        let bell = Arc::<Bell>::default();
        let (rope, waiting_rope) = (Rope::of(&bell), Rope::of(&bell));
        Self { connection, streams, socket, bell, rope, waiting_rope }
    }

    /// Has all its streams polled once more, for something that none of them is woken for.
    pub(super) fn poll_all(self: Pin<&mut Self>)
    where
        C: Unpin,
    {
        let waiting = &mut self.get_mut().streams.waiting;
        // Those that are new there are polled.
        *waiting = mem::take(waiting).into_iter().collect();
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
        let Self { connection, streams, socket, bell, rope, waiting_rope } = self.get_mut();
        bell.muffle(cx.waker());
        for _ in 0..ROUNDS_MAX {
            rope.let_go();
            if let Poll::Ready(ended) = Pin::new(&mut *connection).poll(&mut rope.context()) {
                // It has waited for its last words to be written, unless it is the socket that has ended it.
                return Poll::Ready(ended.map_err(io::Error::other));
            }
            streams.poll_begun(&mut rope.context());
            waiting_rope.let_go();
            streams.poll_waiting(&mut waiting_rope.context());
            if !rope.is_pulled() {
                break;
            }
        }
        let uncorked = socket.poll_uncork(&mut rope.context());
        bell.unmuffle();
        if rope.is_pulled() || waiting_rope.is_pulled() {
            cx.waker().wake_by_ref();
        }
        match uncorked {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }
}

fn log_panic() {
    tracing::error!("a stream panicked");
}
