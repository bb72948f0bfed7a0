//! What waits for a process: casts from anyone, and signals (DOWN, exit) from the processes it is tied to.
//!
//! One queue, so each sender's messages keep their order. Its lock is a leaf: nothing else is locked, woken or run while it
//! is held, so it may be taken from anywhere.

use std::collections::VecDeque;

use super::{CastError, Signal};
use crate::{
    limits::MAILBOX_CASTS_MAX,
    planted::{Bug, strikes},
    sync::{AtomicBool, Mutex, Ordering, fence},
};

/// One message.
pub(super) enum Message<C> {
    Cast(C),
    Signal(Signal),
}

pub(super) struct Mailbox<C> {
    /// Whether something waits; read without the lock by those who are about to leave.
    waiting: AtomicBool,
    /// The process is dead; what comes is refused. Written and read under the lock of the queue, and outside of it because
    /// there it would take eight bytes.
    closed: AtomicBool,
    queue: Mutex<Queue<C>>,
}

/// Boxed when there is something to keep: most processes never have anything, and there are millions of them.
#[allow(clippy::box_collection)]
type Queue<C> = Option<Box<VecDeque<Message<C>>>>;

impl<C> Mailbox<C> {
    pub(super) fn new() -> Self {
        Self { waiting: AtomicBool::new(false), closed: AtomicBool::new(false), queue: Mutex::new(None) }
    }

    /// Leaves a cast. It is refused where too many wait, or where nobody will ever read it.
    pub(super) fn cast(&self, cast: C) -> Result<(), CastError> {
        self.push(Message::Cast(cast), MAILBOX_CASTS_MAX)
    }

    /// Leaves a signal; whether there was somebody to leave it for. Signals are as many as there are monitors and links, so
    /// they need no bound of their own.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        self.push(Message::Signal(signal), usize::MAX).is_ok()
    }

    fn push(&self, message: Message<C>, max: usize) -> Result<(), CastError> {
        {
            let mut queue = self.queue.lock();
            if self.closed.load(Ordering::Relaxed) {
                return Err(CastError::NoProc);
            }
            let messages = queue.get_or_insert_default();
            if messages.len() >= max {
                return Err(CastError::Full);
            }
            messages.push_back(message);
            self.waiting.store(true, Ordering::Relaxed);
        }
        // Pairs with the fence in `is_empty`: either the holder of the process's lock sees this message as it leaves, or we
        // see the lock free and take the message out ourselves.
        if !strikes(Bug::LeftMessage) {
            fence(Ordering::SeqCst);
        }
        Ok(())
    }

    /// Whether nothing waits. To be asked after the process's lock was released, else a message may be left for nobody.
    pub(super) fn is_empty(&self) -> bool {
        fence(Ordering::SeqCst);
        !self.waiting.load(Ordering::Relaxed)
    }

    /// Takes the oldest message out. One at a time: a handler may flush what is behind it.
    pub(super) fn pop(&self) -> Option<Message<C>> {
        if !self.waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = self.queue.lock();
        let messages = queue.as_mut()?;
        let message = messages.pop_front();
        if messages.is_empty() {
            *queue = None;
            self.waiting.store(false, Ordering::Relaxed);
        }
        message
    }

    /// Removes the signals that `matches` picks. They are dropped after the lock: a DOWN may be the last handle of its process,
    /// whose state then goes with it.
    pub(super) fn flush(&self, matches: impl Fn(&Signal) -> bool) {
        let mut removed = Vec::new();
        if let Some(messages) = &mut *self.queue.lock() {
            let picked = |message: &Message<C>| matches!(message, Message::Signal(signal) if matches(signal));
            for message in std::mem::take(&mut **messages) {
                if picked(&message) { removed.push(message) } else { messages.push_back(message) }
            }
        }
        drop(removed);
    }

    /// Refuses all that comes from now on, and hands out what is left.
    #[must_use = "what is left is dropped where no lock is held"]
    pub(super) fn close(&self) -> impl Sized + use<C> {
        let mut queue = self.queue.lock();
        self.waiting.store(false, Ordering::Relaxed);
        self.closed.store(true, Ordering::Relaxed);
        queue.take()
    }
}
