//! A supervisor of one process: it starts the process again when it dies, within a budget, as OTP's `intensity` and `period`.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{Call, CallError, Context, Exit, GenServer, Info, Process, Reason};
use crate::{clock::Clock, sync::RwLock};

/// How often a process may be started again before its supervisor gives up.
#[derive(Clone, Copy, Debug)]
pub struct RestartBudget {
    /// Restarts that are allowed within `window`.
    pub restarts_max: usize,
    /// The time that they are counted in.
    pub window: Duration,
}

/// A handle to a process that is started again when it dies. Cheap to clone.
pub struct Supervised<S: GenServer> {
    supervisor: Process<Supervisor<S>>,
    child: Arc<RwLock<Process<S>>>,
}

impl<S: GenServer> Supervised<S> {
    /// Starts a process with `start`, which is called again after each death, until more than `budget` allows. Then
    /// `give_up` is called, once, and the process stays dead.
    pub fn start(
        budget: RestartBudget,
        clock: Arc<dyn Clock>,
        mut start: impl FnMut() -> Process<S> + Send + 'static,
        give_up: impl FnOnce() + Send + 'static,
    ) -> Self {
        let first = start();
        let child = Arc::new(RwLock::new(first.clone()));
        let supervisor = Process::start(
            "supervisor",
            Supervisor {
                budget,
                clock,
                start: Box::new(start),
                give_up: Some(Box::new(give_up)),
                child: Arc::clone(&child),
                restarts: VecDeque::new(),
            },
        );
        supervisor.monitor(&first);
        Self { supervisor, child }
    }

    /// As [`Process::call`], of the process as it is now. One that is being started again is waited for.
    ///
    /// # Errors
    /// [`CallError::Crashed`] where this call has ended it; [`CallError::NoProc`] once the supervisor has given up.
    pub fn call<M: Clone>(&self, message: M) -> Result<S::Reply, CallError>
    where
        S: Call<M>,
    {
        loop {
            let child = self.child.read().clone();
            match child.call(message.clone()) {
                // The supervisor has the DOWN in its mailbox already, so it answers after the restart.
                Err(CallError::NoProc) => self.supervisor.call(Settle)?,
                result => return result,
            }
        }
    }
}

impl<S: GenServer> Clone for Supervised<S> {
    fn clone(&self) -> Self {
        Self { supervisor: self.supervisor.clone(), child: Arc::clone(&self.child) }
    }
}

impl<S: GenServer> fmt::Debug for Supervised<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Supervised({:?})", self.child.read())
    }
}

struct Supervisor<S: GenServer> {
    budget: RestartBudget,
    clock: Arc<dyn Clock>,
    start: Box<dyn FnMut() -> Process<S> + Send>,
    give_up: Option<Box<dyn FnOnce() + Send>>,
    child: Arc<RwLock<Process<S>>>,
    /// When it was started again, within the window.
    restarts: VecDeque<Duration>,
}

impl<S: GenServer> Supervisor<S> {
    /// `None` where the budget is spent. A start that panics is one of the restarts.
    fn restart(&mut self) -> Option<Process<S>> {
        loop {
            let now = self.clock.monotonic();
            while self.restarts.front().is_some_and(|then| now.saturating_sub(*then) > self.budget.window) {
                self.restarts.pop_front();
            }
            if self.restarts.len() >= self.budget.restarts_max {
                return None;
            }
            self.restarts.push_back(now);
            if let Ok(child) = catch_unwind(AssertUnwindSafe(&mut self.start)) {
                return Some(child);
            }
        }
    }
}

impl<S: GenServer> GenServer for Supervisor<S> {
    type Identity = &'static str;
    type Cast = Infallible;

    fn handle_cast(&mut self, cast: Infallible, _: &mut Context<'_, Self>) {
        match cast {}
    }

    fn handle_info(&mut self, info: Info, me: &mut Context<'_, Self>) {
        let Info::Down(down) = info else { return };
        if let Some(child) = self.restart() {
            me.process().monitor(&child);
            *self.child.write() = child;
        } else {
            me.stop(Exit::new(Reason::Shutdown, &format!("restarted too often; the last time: {}", down.exit)));
        }
    }

    fn terminate(&mut self, _: &Exit) {
        if let Some(give_up) = self.give_up.take() {
            give_up();
        }
    }
}

/// Answered once the deaths that the caller knows of have been dealt with.
struct Settle;

impl<S: GenServer> Call<Settle> for Supervisor<S> {
    type Reply = ();

    fn handle_call(&mut self, _: Settle, _: &mut Context<'_, Self>) {}
}
