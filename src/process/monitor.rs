//! Monitors: one-way interest in the death of a process.

use std::{
    fmt,
    num::NonZeroU64,
    sync::{Arc, Weak},
};

use super::{Exit, GenServer, Inner, Peer, Pid, Process, Reason, Signal, link::Bonds, turn, unique};
use crate::planted::{Bug, strikes};

/// Which monitor: unique among all of a program. Each monitor has its own, also two of one process.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MonitorRef(NonZeroU64);

impl MonitorRef {
    /// One that no other monitor has.
    #[must_use]
    pub fn next() -> Self {
        Self(unique())
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// A monitored process is down. Comes once for each monitor.
pub struct Down {
    /// The monitor that it answers.
    pub monitor: MonitorRef,
    /// Which process it was.
    pub pid: Pid,
    /// Why; [`Reason::NoProc`] where it was dead when the monitor was set.
    pub exit: Exit,
    process: Arc<dyn Peer>,
}

impl Down {
    /// The process that is down, if it is a `T`.
    #[must_use]
    pub fn process<T: GenServer>(&self) -> Option<Process<T>> {
        Arc::clone(&self.process).into_any().downcast::<Inner<T>>().ok().map(Process)
    }
}

impl fmt::Debug for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Down({:?}, {}, {})", self.monitor, self.pid, self.exit)
    }
}

/// A monitor that was set. Dropping it does not take the monitor away: see [`Process::demonitor`].
#[derive(Clone)]
pub struct Monitor {
    /// Its ref, which its [`Down`] names.
    pub monitor: MonitorRef,
    target: Weak<dyn Peer>,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.monitor.fmt(f)
    }
}

/// What becomes of a DOWN that has come, but was not handled yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flush {
    /// It is taken back: after [`Process::demonitor`] none of that monitor comes.
    Yes,
    /// It is handled.
    No,
}

/// What the monitored process keeps. The watcher is held weakly: being watched keeps nobody alive.
pub(super) struct Watcher {
    pub(super) monitor: MonitorRef,
    pub(super) process: Weak<dyn Peer>,
}

impl<S: GenServer> Process<S> {
    /// Lets this process have a [`Down`] when `target` ends, or at once where it is dead.
    pub fn monitor<T: GenServer>(&self, target: &Process<T>) -> Monitor {
        let monitor = MonitorRef::next();
        let me = self.peer();
        let dead = match &mut *target.0.bonds.lock() {
            Bonds::Alive { watchers, .. } => {
                watchers.retain(|watcher| watcher.process.strong_count() > 0);
                watchers.push(Watcher { monitor, process: Arc::downgrade(&me) });
                false
            }
            Bonds::Dead(_) => true,
        };
        if dead {
            me.signal(target.down(monitor, Reason::NoProc.into()));
            turn::wake(me);
        }
        Monitor { monitor, target: Arc::downgrade(&target.peer()) }
    }

    /// Takes a monitor that this process has set away. True: it was there, and no DOWN of it ever comes. False: its DOWN has
    /// come, and unless it was handled already, `flush` says what becomes of it; or it is another process's, and stays.
    pub fn demonitor(&self, monitor: &Monitor, flush: Flush) -> bool {
        let Monitor { monitor, target } = monitor;
        let me = Arc::downgrade(&self.peer());
        let removed = target.upgrade().is_some_and(|target| match &mut *target.bonds().lock() {
            Bonds::Alive { .. } if strikes(Bug::DeafDemonitor) => true,
            Bonds::Alive { watchers, .. } => {
                let mine = |watcher: &Watcher| watcher.monitor == *monitor && Weak::ptr_eq(&watcher.process, &me);
                let index = watchers.iter().position(mine);
                index.map(|index| watchers.swap_remove(index)).is_some()
            }
            Bonds::Dead(_) => false,
        });
        if !removed && flush == Flush::Yes {
            self.0.mailbox.flush(|signal| matches!(signal, Signal::Down(down) if down.monitor == *monitor));
        }
        removed
    }

    pub(super) fn down(&self, monitor: MonitorRef, exit: Exit) -> Signal {
        Signal::Down(Down { monitor, pid: self.pid(), exit, process: self.peer() })
    }
}
