//! When a holder that hears nothing gives up.
//!
//! The server counts a client as dead one lease after the last request that it *read*. The client knows when it *sent*
//! each request, and an answer proves that the server read it after that. So not before one lease after the sending of
//! the last request that was answered may the server give the bucket's name to another. By then the command must be
//! dead:
//!
//! ```text
//! sent, and answered later                       the server may give the name away
//! │                 ping              ping     SIGKILL  │
//! │                 │                 SIGTERM  │        │
//! ├────────┼────────┼────────┼────────┼────────┼────────┤
//! 0                1/3               2/3      5/6       1 lease
//! ```
//!
//! SIGKILL comes at 5/6 of the lease, and SIGTERM before it, by the grace, though not before 2/3: so a ping, sent each
//! third, has a third of the lease for its way and back. The last sixth is for what lies between a signal and the end
//! of a process, and for clocks that do not run at the same rate.
//!
//! It rests on this process being run. One that is stopped (SIGSTOP) can signal nobody: its command runs on while
//! another gets the name, until it is run again and finds that it is too late. So does one on a machine that was
//! asleep, for a third of the lease at most. Only what the command writes to can tell the two holders apart, by the
//! bucket's id, which is greater for the later one.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Goes on while the machine sleeps, as the server's does meanwhile.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// A moment, as the time since the machine was started.
pub(super) fn now() -> Duration {
    clock_gettime(CLOCK).try_into().unwrap_or_default() // it is never before the start
}

/// The moments at which a holder acts.
#[derive(Debug)]
pub(super) struct Fence {
    lease: Duration,
    grace: Duration,
    proven: Duration,
}

impl Fence {
    /// A fence for this lease. `proven` is when a request was sent that has been answered.
    pub(super) fn new(lease: Duration, grace: Duration, proven: Duration) -> Self {
        Self { lease, grace, proven }
    }

    /// A request that was sent then has been answered.
    pub(super) fn prove(&mut self, sent: Duration) {
        self.proven = self.proven.max(sent);
    }

    /// When the last request was sent that has been answered.
    pub(super) fn proven(&self) -> Duration {
        self.proven
    }

    /// How long after a ping the next one is sent.
    pub(super) fn ping_interval(&self) -> Duration {
        self.lease / 3
    }

    /// When the command is asked to end.
    pub(super) fn term_at(&self) -> Duration {
        self.kill_at() - self.grace.min(self.lease / 6)
    }

    /// When it must be dead.
    pub(super) fn kill_at(&self) -> Duration {
        self.proven + self.lease * 5 / 6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_command_is_dead_a_sixth_of_the_lease_before_another_may_have_the_name() {
        let fence = Fence::new(SECOND * 6, SECOND * 60, SECOND * 100);
        assert_eq!((fence.term_at(), fence.kill_at()), (SECOND * 104, SECOND * 105));
        assert_eq!(fence.ping_interval(), SECOND * 2, "the first ping's answer has as long again");
    }

    #[test]
    fn a_short_grace_leaves_the_command_more_time() {
        let fence = Fence::new(SECOND * 6, SECOND / 2, SECOND * 100);
        assert_eq!(fence.kill_at() - fence.term_at(), SECOND / 2);
    }

    #[test]
    fn what_counts_is_when_the_latest_request_with_an_answer_was_sent() {
        let mut fence = Fence::new(SECOND * 6, SECOND, SECOND * 100);
        fence.prove(SECOND * 102);
        fence.prove(SECOND * 101);
        assert_eq!(fence.kill_at(), SECOND * 107);
    }
}
