//! A turn: the time in which one thread holds a process's lock and handles messages for it.
//!
//! A turn may end its process, which leaves messages for others. They are not woken in the middle of it: a process that is
//! woken runs handlers, and those must not run under the lock of another process, nor on top of an ever deeper stack where
//! deaths travel along a chain of links. So wake-ups are kept for the end of the thread's outermost turn, and done there one
//! by one.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{CallError, Context, Exit, GenServer, Info, Peer, Process, Reason, Signal, mailbox::Message};
use crate::{
    planted::{Bug, strikes},
    sync::{MutexGuard, Ordering, thread_local},
};

thread_local! {
    /// Turns that this thread is in the middle of, or 1 while it wakes others.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Processes that have messages from this thread, to be woken when it holds no lock.
    static TO_WAKE: RefCell<VecDeque<Arc<dyn Peer>>> = const { RefCell::new(VecDeque::new()) };
}

/// Sees to it that what is in `peer`'s mailbox is handled: now, or at the end of this thread's turn.
pub(super) fn wake(peer: Arc<dyn Peer>) {
    TO_WAKE.with_borrow_mut(|peers| peers.push_back(peer));
    if DEPTH.get() == 0 {
        wake_all();
    }
}

fn wake_all() {
    DEPTH.set(1);
    while let Some(peer) = TO_WAKE.with_borrow_mut(VecDeque::pop_front) {
        // The last handle may go with this. A state that panics as it is dropped must not cost the others their wake-up, nor
        // this thread the way back to depth 0: it would never wake anybody again.
        drop(catch_unwind(AssertUnwindSafe(|| peer.run())));
    }
    DEPTH.set(0);
}

pub(super) struct Turn<'a, S: GenServer> {
    process: &'a Process<S>,
    /// `None` only while the turn ends.
    state: Option<MutexGuard<'a, Option<S>>>,
}

impl<'a, S: GenServer> Turn<'a, S> {
    /// Waits for the process's lock.
    pub(super) fn begin(process: &'a Process<S>) -> Self {
        Self::new(process, process.0.state.lock())
    }

    /// `None` where somebody else holds the lock: who does handles what is in the mailbox before leaving.
    pub(super) fn try_begin(process: &'a Process<S>) -> Option<Self> {
        Some(Self::new(process, process.0.state.try_lock()?))
    }

    fn new(process: &'a Process<S>, state: MutexGuard<'a, Option<S>>) -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self { process, state: Some(state) }
    }

    /// Handles what is in the mailbox.
    pub(super) fn drain(&mut self) {
        while let Some(message) = self.process.0.mailbox.pop() {
            // A crash is not this thread's affair: those whom it concerns are told.
            drop(match message {
                Message::Cast(cast) => self.handle(|state, me| state.handle_cast(cast, me)),
                Message::Signal(signal) => self.handle_signal(signal),
            });
        }
    }

    fn handle_signal(&mut self, signal: Signal) -> Result<(), CallError> {
        let traps = self.process.0.traps_exit.load(Ordering::Acquire);
        let (info, death) = match signal {
            Signal::Down(down) => (Info::Down(down), None),
            Signal::Exit { from, exit } => {
                let death = match exit.reason {
                    Reason::Killed if !(traps && strikes(Bug::TrappedKill)) => Some(exit.clone()),
                    Reason::Normal if from != self.process.pid() => None,
                    _ => (!traps).then(|| exit.clone()),
                };
                (Info::Exit { from, exit }, death)
            }
            Signal::LinkExit { from, name, exit } => {
                let travels = exit.reason != Reason::Normal || strikes(Bug::ContagiousNormal);
                let death = (!traps && travels).then(|| exit.over_link(&name));
                (Info::Exit { from, exit }, death)
            }
        };
        match (death, info) {
            (Some(exit), _) => {
                self.die(&exit);
                Ok(())
            }
            (None, Info::Exit { .. }) if !traps => Ok(()),
            (None, info) => self.handle(|state, me| state.handle_info(info, me)),
        }
    }

    /// Runs one handler, and ends the process where it panicked or asked for it.
    pub(super) fn handle<R>(&mut self, handler: impl FnOnce(&mut S, &mut Context<'_, S>) -> R) -> Result<R, CallError> {
        let process = self.process;
        let Some(state) = self.living() else { return Err(CallError::NoProc) };
        let mut me = Context { process, exit: None };
        // Unwind safe: a state whose handler panicked is never handed to another.
        match catch_unwind(AssertUnwindSafe(|| handler(state, &mut me))) {
            Ok(reply) => {
                if let Some(exit) = me.exit {
                    self.die(&exit);
                }
                Ok(reply)
            }
            Err(payload) => {
                let exit = Exit::crashed(payload.as_ref());
                self.die(&exit);
                Err(CallError::Crashed(exit))
            }
        }
    }

    fn living(&mut self) -> Option<&mut S> {
        self.state.as_mut()?.as_mut().filter(|_| self.process.is_alive())
    }

    /// Ends the process: `terminate`, then everyone whom it concerns has the news in the mailbox, then it is dead. Who finds
    /// it dead and then asks one of those finds that they know.
    pub(super) fn die(&mut self, exit: &Exit) {
        let Some(state) = self.living() else { return };
        // The process ends either way, and for the reason that it had: a panic in its last words changes nothing.
        drop(catch_unwind(AssertUnwindSafe(|| state.terminate(exit))));

        let process = self.process;
        let concerned = process.sever(exit);
        process.0.alive.store(false, Ordering::Release);
        let unread = process.0.mailbox.close();
        for peer in concerned {
            wake(peer);
        }
        drop(catch_unwind(AssertUnwindSafe(|| drop(unread))));
    }
}

impl<S: GenServer> Drop for Turn<'_, S> {
    /// Handles what is in the mailbox and gives the lock up; again if something came meanwhile and nobody else took it.
    fn drop(&mut self) {
        loop {
            self.drain();
            self.state = None;
            if self.process.0.mailbox.is_empty() {
                break;
            }
            match self.process.0.state.try_lock() {
                Some(state) => self.state = Some(state),
                None => break,
            }
        }
        match DEPTH.get() {
            1 if TO_WAKE.with_borrow(|peers| !peers.is_empty()) => wake_all(),
            depth => DEPTH.set(depth - 1),
        }
    }
}
