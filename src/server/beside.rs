//! Streams that are polled beside their connection: no task is woken for one, and none is queued elsewhere.
//!
//! hyper hands the future of each stream to an executor as it accepts it. This one keeps it until the connection has read all
//! that there is; then each is polled once, and the connection after them, so that all their answers leave in one write. Nearly every
//! unary call is over by then. What is not, waits beside the connection: of the watches that an event is for, all of one
//! connection are polled in one go. What waits too long for its client is ended.

use std::{
    error::Error,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::{
    task::coop::unconstrained,
    time::{Sleep, sleep},
};

use super::{
    bell::{Bell, Rope},
    meter,
    shed::Share,
    socket::Socket,
    turn::{self, BYTES_A_LOOK, LOOK, Turn},
};

/// In one turn the connection is polled so often at most, then others on its thread have theirs.
const ROUNDS_MAX: usize = 4;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One stream, and whose turn it is on it.
struct Stream {
    future: Boxed,
    turn: Turn,
}

impl Future for Stream {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { future, turn } = self.get_mut();
        if turn.is_over() {
            return Poll::Ready(());
        }
        // Without tokio's budget, which is one task's: a hundred streams would take it from each other, and be polled for
        // nothing. A panic ends its stream alone; a call has caught its own before.
        let poll = || catch_unwind(AssertUnwindSafe(|| pin!(unconstrained(future)).poll(cx)));
        turn.follow(poll).unwrap_or_else(|_| {
            tracing::error!("a stream panicked");
            Poll::Ready(())
        })
    }
}

/// The streams of one connection that have begun and were not polled yet.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<Mutex<Vec<Stream>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begun {
    fn execute(&self, stream: F) {
        // Not polled here: hyper is in the midst of accepting, and would flush for each.
        self.0.lock().push(Stream { future: Box::pin(stream), turn: Turn::new() });
    }
}

/// The streams of one connection, in the order of their lives.
struct Streams {
    begun: Begun,
    /// Kept for its room.
    round: Vec<Stream>,
    waiting: FuturesUnordered<Stream>,
}

impl Streams {
    /// Polls those that have begun, for the first time.
    fn poll_begun(&mut self, cx: &mut Context<'_>) {
        mem::swap(&mut self.round, &mut *self.begun.0.lock());
        for mut stream in self.round.drain(..) {
            if Pin::new(&mut stream).poll(cx).is_pending() {
                self.waiting.push(stream);
            }
        }
    }

    /// Polls those that wait and were woken.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) {
        while self.waiting.poll_next_unpin(cx) == Poll::Ready(Some(())) {}
    }

    /// Has all that wait polled once more, for something that none of them is woken for.
    fn poll_all(&mut self) {
        // Those that are new there are polled.
        self.waiting = mem::take(&mut self.waiting).into_iter().collect();
    }

    /// Ends those whose clients are too slow.
    fn look(&mut self, is_busy: bool) {
        let mut is_any_slow = false;
        for stream in &mut self.waiting {
            is_any_slow |= stream.turn.look(is_busy);
        }
        if is_any_slow {
            self.poll_all();
        }
    }
}

/// When a connection is looked at: [`LOOK`] after there was something to look at. One that rests is left alone.
struct Looks {
    timer: Option<Pin<Box<Sleep>>>,
    rope: Rope,
    /// How many bytes had passed when it was armed.
    passed: u64,
}

impl Looks {
    /// Whether it is time; it is only once.
    fn poll_due(&mut self) -> bool {
        self.rope.is_pulled() && self.poll_timer()
    }

    fn poll_timer(&mut self) -> bool {
        self.rope.let_go();
        let is_due = self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(&mut self.rope.context()).is_ready());
        if is_due {
            self.timer = None;
        }
        is_due
    }

    /// There will be one.
    fn arm(&mut self, socket: &Socket) {
        if self.timer.is_none() {
            self.timer = Some(Box::pin(sleep(LOOK)));
            self.passed = socket.passed();
            self.poll_timer();
        }
    }

    /// Whether much has passed since it was armed.
    fn is_busy(&self, socket: &Socket) -> bool {
        socket.passed() - self.passed >= BYTES_A_LOOK
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
    looks: Looks,
    share: Share,
}

impl<C> WithStreams<C> {
    pub(super) fn new(connection: C, begun: Begun, socket: Socket, share: Share) -> Self {
        let streams = Streams { begun, round: Vec::new(), waiting: FuturesUnordered::new() };
        let bell = Arc::<Bell>::default();
        let (rope, waiting_rope) = (Rope::of(&bell), Rope::of(&bell));
        let looks = Looks { timer: None, rope: Rope::of(&bell), passed: 0 };
        Self { connection, streams, socket, bell, rope, waiting_rope, looks, share }
    }

    /// Has all its streams polled once more, for something that none of them is woken for.
    pub(super) fn poll_all(self: Pin<&mut Self>)
    where
        C: Unpin,
    {
        self.get_mut().streams.poll_all();
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
        let Self { connection, streams, socket, bell, rope, waiting_rope, looks, share } = self.get_mut();
        bell.muffle(cx.waker());
        if looks.poll_due() {
            streams.look(looks.is_busy(socket));
            socket.look()?;
        }
        let _turn = meter::Turn::begin(share.begin());
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
        share.end();
        let is_calm = socket.calls_took(turn::take_parts());
        if !is_calm || !streams.waiting.is_empty() {
            looks.arm(socket);
        }
        let uncorked = socket.poll_uncork(&mut rope.context());
        bell.unmuffle();
        if rope.is_pulled() || waiting_rope.is_pulled() || looks.rope.is_pulled() {
            cx.waker().wake_by_ref();
        }
        match uncorked {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }
}
