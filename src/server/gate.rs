//! The gate that calls come through: it counts those that are on their way, and closes when the server drains.
//!
//! It promises that no call slips through: every call is either refused, or counted before the wait for the last begins.

use std::sync::{
    Arc,
    atomic::{
        AtomicUsize,
        Ordering::{AcqRel, Acquire},
    },
};

use tokio::sync::Notify;

/// Set in the gate's word once it is closed; the other bits count. One word, so that "count me, unless closed" has no
/// moment in between.
const CLOSED: usize = 1 << (usize::BITS - 1);

#[derive(Debug, Default)]
pub(super) struct Gate {
    word: AtomicUsize,
    /// Told when the last call behind the closed gate is over.
    empty: Notify,
}

impl Gate {
    /// Counts a call until the admission is dropped; none, if the gate is closed.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Admission> {
        let before = self.word.fetch_add(1, AcqRel);
        let admission = Admission(Arc::clone(self));
        // A call that came too late was counted for a moment. That can delay the last good-bye, never lose it.
        (before & CLOSED == 0).then_some(admission)
    }

    /// Lets no more calls in.
    pub(super) fn close(&self) {
        self.word.fetch_or(CLOSED, AcqRel);
    }

    /// How many calls are on their way.
    pub(super) fn count(&self) -> usize {
        self.word.load(Acquire) & !CLOSED
    }

    /// Waits, behind the closed gate, until every call is over.
    pub(super) async fn empty(&self) {
        while self.count() != 0 {
            self.empty.notified().await;
        }
    }
}

/// A call that was let in. It is over when this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Admission(Arc<Gate>);

impl Drop for Admission {
    fn drop(&mut self) {
        if self.0.word.fetch_sub(1, AcqRel) == CLOSED | 1 {
            // notify_one keeps its word for a waiter that is yet to come.
            self.0.empty.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_closed_gate_lets_no_one_in_and_waits_for_those_inside() {
        let gate = Arc::new(Gate::default());
        let (first, second) = (gate.admit().unwrap(), gate.admit().unwrap());

        gate.close();
        assert!(gate.admit().is_none());
        drop(first);
        assert!(gate.empty().now_or_never().is_none());

        drop(second);
        gate.empty().await;
        assert_eq!(gate.count(), 0);
    }

    #[test]
    fn an_admitted_call_is_always_waited_for() {
        for _ in 0..200 {
            let gate = Arc::new(Gate::default());
            let done = Arc::new(AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while let Some(admission) = gate.admit() {
                            done.fetch_add(1, AcqRel);
                            std::hint::spin_loop();
                            done.fetch_sub(1, AcqRel);
                            drop(admission);
                        }
                    });
                }
                gate.close();
                gate.empty().now_or_never();
                while gate.count() != 0 {
                    std::hint::spin_loop();
                }
                assert_eq!(done.load(Acquire), 0, "a call ran behind a gate that was closed and empty");
            });
        }
    }
}
