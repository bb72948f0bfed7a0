//! Processes as in Erlang: a state, a mailbox and a life.
//!
//! A [`GenServer`] says what a process does; [`Process`] is a handle to a running one. [`call`](Process::call) runs a
//! handler and returns its reply, [`cast`](Process::cast) leaves a message, and an [`Info`] tells of the death of a process
//! that is monitored or linked. One message is handled at a time, each sender's in the order sent. A panic in a handler ends
//! this process alone, with [`Reason::Crashed`].
//!
//! A process has **no task and no channel of its own**. The caller runs the handler under the process's lock (a serial
//! queue; "flat combining" in the papers), and whoever holds the lock empties the mailbox before giving it up. So handlers
//! are short, never wait and never do I/O; and a process may `call` only what lies below it: one that is called may answer
//! upwards by `cast`, never by `call`. Then there is no deadlock to have.
//!
//! This layer knows no gRPC and no async runtime.
//!
//! ```
//! use pail::process::{Call, Context, GenServer, Info, Process, Reason};
//!
//! struct Stack(Vec<String>);
//!
//! struct Push(String);
//! struct Pop;
//!
//! impl GenServer for Stack {
//!     type Identity = &'static str;
//!     type Cast = Push;
//!
//!     fn handle_cast(&mut self, Push(item): Push, _: &mut Context<'_, Self>) {
//!         self.0.push(item);
//!     }
//! }
//!
//! impl Call<Pop> for Stack {
//!     type Reply = Option<String>;
//!
//!     fn handle_call(&mut self, _: Pop, _: &mut Context<'_, Self>) -> Option<String> {
//!         self.0.pop()
//!     }
//! }
//!
//! let stack = Process::start("stack", Stack(vec!["hello".into()]));
//! assert_eq!(stack.call(Pop), Ok(Some("hello".into())));
//!
//! stack.cast(Push("world".into()))?;
//! assert_eq!(stack.call(Pop), Ok(Some("world".into())));
//!
//! stack.stop(&Reason::Normal.into())?;
//! assert!(stack.call(Pop).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod exit;
mod link;
mod mailbox;
mod monitor;
mod supervisor;
#[cfg(test)]
mod tests;
mod turn;

use std::{
    any::Any,
    fmt,
    num::NonZeroU64,
    sync::{Arc, Weak, atomic::AtomicU64},
};

pub(crate) use self::exit::panic_message;
pub use self::{
    exit::{Exit, Reason},
    monitor::{Down, Flush, Monitor, MonitorRef},
    supervisor::{RestartBudget, Supervised},
};
use self::{link::Bonds, mailbox::Mailbox, turn::Turn};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// What a process does.
///
/// Handlers must be short, must not wait, and must not `call` their own process or one above it.
pub trait GenServer: Sized + Send + 'static {
    /// What anyone may read of the process without a call, and that never changes. Its `Display` names the process where
    /// others are told of it.
    type Identity: fmt::Display + Send + Sync + 'static;

    /// The messages that nobody waits for.
    type Cast: Send + 'static;

    /// Handles a cast.
    fn handle_cast(&mut self, cast: Self::Cast, me: &mut Context<'_, Self>);

    /// Handles news of another process. One that it does not expect is normal (a late message), and dropped by default.
    fn handle_info(&mut self, info: Info, me: &mut Context<'_, Self>) {
        let _ = (info, me);
    }

    /// Comes last, whatever the reason, before anybody is told. After a panic the state may be half changed.
    fn terminate(&mut self, exit: &Exit) {
        let _ = exit;
    }
}

/// Handles calls with the message `M`: one implementation for each message, each with its own reply.
pub trait Call<M>: GenServer {
    /// What the caller gets.
    type Reply;

    /// Handles a call.
    fn handle_call(&mut self, message: M, me: &mut Context<'_, Self>) -> Self::Reply;
}

/// News of another process.
#[derive(Debug)]
pub enum Info {
    /// A monitored process is down.
    Down(Down),
    /// A linked process has ended, or somebody sent an exit signal, and this process traps exits.
    Exit {
        /// Who ended, or who sent the signal.
        from: Pid,
        /// Why.
        exit: Exit,
    },
}

/// What a handler may do besides changing its state.
#[derive(Debug)]
pub struct Context<'a, S: GenServer> {
    process: &'a Process<S>,
    exit: Option<Exit>,
}

impl<S: GenServer> Context<'_, S> {
    /// The process whose handler this is.
    #[must_use]
    pub fn process(&self) -> &Process<S> {
        self.process
    }

    /// Ends the process once this handler has returned; its reply still reaches the caller.
    pub fn stop(&mut self, exit: Exit) {
        self.exit = Some(exit);
    }
}

/// Which process: unique among all that a program starts.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Pid(NonZeroU64);

impl Pid {
    /// A pid that the caller has made sure is unique, and above 2^32 so that it is none of those [`Process::start`] takes.
    #[must_use]
    pub fn new(id: NonZeroU64) -> Self {
        debug_assert!(id.get() > 1 << 32);
        Self(id)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    fn next() -> Self {
        Self(unique())
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number that no other call returns: `make_ref()`. The one thing that is global here.
pub(crate) fn unique() -> NonZeroU64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU64::MIN)
}

/// A call had no reply.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The process is dead; the message was not handled.
    #[error("no such process")]
    NoProc,
    /// The handler of this very message panicked, which has ended the process.
    #[error("the call crashed its process: {0}")]
    Crashed(Exit),
}

/// A cast was refused; it is not and will not be handled.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CastError {
    /// The process is dead.
    #[error("no such process")]
    NoProc,
    /// [`MAILBOX_CASTS_MAX`](crate::limits::MAILBOX_CASTS_MAX) messages wait already.
    #[error("the mailbox is full")]
    Full,
}

/// The process is dead.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no such process")]
pub struct NoProc;

/// A handle to a running process; cheap to clone. The process lives until it is stopped, or until its last handle is gone.
pub struct Process<S: GenServer>(Arc<Inner<S>>);

/// Locks are taken in the order `state`, `bonds`, the mailbox's; of two processes' `bonds` that of the lower pid
/// first; of two `state`s the one of the process above first (the rule of [`GenServer`]).
struct Inner<S: GenServer> {
    pid: Pid,
    /// False from the moment that everyone who monitors this process has its DOWN in the mailbox.
    alive: AtomicBool,
    traps_exit: AtomicBool,
    mailbox: Mailbox<S::Cast>,
    /// Whom the life of this process concerns. Held for a few instructions; messages are left under it, none is handled.
    bonds: Mutex<Bonds>,
    /// The state, held while a handler runs. Once dead it is what the process left behind.
    state: Mutex<Option<S>>,
    identity: S::Identity,
}

impl<S: GenServer> Process<S> {
    /// Starts a process.
    pub fn start(identity: S::Identity, state: S) -> Self {
        Self::start_as(Pid::next(), identity, state)
    }

    /// Starts a process under a pid that the caller has chosen.
    pub fn start_as(pid: Pid, identity: S::Identity, state: S) -> Self {
        Self(Arc::new(Inner {
            pid,
            alive: AtomicBool::new(true),
            traps_exit: AtomicBool::new(false),
            mailbox: Mailbox::new(),
            bonds: Mutex::new(Bonds::default()),
            state: Mutex::new(Some(state)),
            identity,
        }))
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.0.pid
    }

    /// What it is called.
    #[must_use]
    pub fn identity(&self) -> &S::Identity {
        &self.0.identity
    }

    /// Whether it lives, at this moment. Once false it stays false, and all who monitor it find its DOWN in their mailbox
    /// before anything that is sent to them from now on.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.0.alive.load(Ordering::Acquire)
    }

    /// Handles `message` now, after all that this caller has cast before, and returns the reply.
    ///
    /// # Errors
    /// [`CallError::NoProc`] where the process is dead, [`CallError::Crashed`] where this call has ended it.
    pub fn call<M>(&self, message: M) -> Result<S::Reply, CallError>
    where
        S: Call<M>,
    {
        let mut turn = Turn::begin(self);
        turn.drain();
        turn.handle(|state, me| state.handle_call(message, me))
    }

    /// Leaves `cast` in the mailbox, where it is handled after all that this sender has left before: now, if nobody is busy
    /// with this process, else by the one who is.
    ///
    /// # Errors
    /// [`CastError`], where it will not be handled.
    pub fn cast(&self, cast: S::Cast) -> Result<(), CastError> {
        self.0.mailbox.cast(cast)?;
        turn::wake(Arc::clone(&self.0) as Arc<dyn Peer>);
        Ok(())
    }

    /// Ends the process after what is in its mailbox: when this returns it is dead, and its monitors have their DOWN.
    ///
    /// # Errors
    /// [`NoProc`] where it was dead already, or died of what was in its mailbox.
    pub fn stop(&self, exit: &Exit) -> Result<(), NoProc> {
        let mut turn = Turn::begin(self);
        turn.drain();
        if !self.is_alive() {
            return Err(NoProc);
        }
        turn.die(exit);
        Ok(())
    }

    /// Sends an exit signal on behalf of `from`, as Erlang's `exit/2`: [`Reason::Killed`] ends the process whatever it traps;
    /// any other reason is an [`Info::Exit`] where it traps exits, is nothing where it is [`Reason::Normal`] from another
    /// process, and ends it otherwise.
    pub fn exit(&self, from: Pid, exit: Exit) {
        self.0.mailbox.signal(Signal::Exit { from, exit });
        turn::wake(Arc::clone(&self.0) as Arc<dyn Peer>);
    }

    /// Whether exits of linked processes come as [`Info::Exit`] instead of ending this process too. Off at first.
    pub fn trap_exit(&self, trap: bool) {
        self.0.traps_exit.store(trap, Ordering::Release);
    }

    /// Why it ended; `None` while it lives.
    #[must_use]
    pub fn why(&self) -> Option<Exit> {
        match &*self.0.bonds.lock() {
            Bonds::Dead(exit) => Some(exit.clone()),
            Bonds::Alive { .. } => None,
        }
    }

    /// The state of a dead process, for whoever settles its affairs; once. Without that, it goes with the last handle.
    #[must_use]
    pub fn take_remains(&self) -> Option<S> {
        let mut state = self.0.state.lock();
        if self.is_alive() { None } else { state.take() }
    }

    /// A handle that does not keep the process alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakProcess<S> {
        WeakProcess(Arc::downgrade(&self.0))
    }

    fn peer(&self) -> Arc<dyn Peer> {
        Arc::clone(&self.0) as Arc<dyn Peer>
    }
}

impl<S: GenServer> Clone for Process<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: GenServer> fmt::Debug for Process<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({}, {})", self.0.pid, self.0.identity)
    }
}

/// A handle to a process that does not keep it alive.
pub struct WeakProcess<S: GenServer>(Weak<Inner<S>>);

impl<S: GenServer> WeakProcess<S> {
    /// The process, unless all its handles are gone.
    #[must_use]
    pub fn upgrade(&self) -> Option<Process<S>> {
        self.0.upgrade().map(Process)
    }
}

impl<S: GenServer> fmt::Debug for WeakProcess<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakProcess")
    }
}

/// What one process leaves in the mailbox of another.
enum Signal {
    Down(Down),
    /// Sent by `exit`.
    Exit {
        from: Pid,
        exit: Exit,
    },
    /// A linked process has ended.
    LinkExit {
        from: Pid,
        name: Arc<str>,
        exit: Exit,
    },
}

/// A process as another one sees it, whatever its state.
trait Peer: Any + Send + Sync {
    fn pid(&self) -> Pid;
    fn bonds(&self) -> &Mutex<Bonds>;
    /// Leaves a signal without waking anybody; whether the process lives.
    fn signal(&self, signal: Signal) -> bool;
    /// Removes the signals that `matches` picks from the mailbox.
    fn flush(&self, matches: &dyn Fn(&Signal) -> bool);
    /// Handles what waits in the mailbox, unless somebody is at it.
    fn run(self: Arc<Self>);
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<S: GenServer> Peer for Inner<S> {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn bonds(&self) -> &Mutex<Bonds> {
        &self.bonds
    }

    fn signal(&self, signal: Signal) -> bool {
        self.mailbox.signal(signal)
    }

    fn flush(&self, matches: &dyn Fn(&Signal) -> bool) {
        self.mailbox.flush(matches);
    }

    fn run(self: Arc<Self>) {
        drop(Turn::try_begin(&Process(self)));
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
