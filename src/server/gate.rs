//! The gate that calls come through: it counts those that are on their way, and closes when the server drains.
//!
//! It promises that no call slips through: every call is either refused, or counted before the wait for the last begins. Each
//! worker has a door of its own, so that the counting of one core costs the others nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Arc<State>,
    doors: Mutex<Vec<Arc<Door>>>,
}

#[derive(Debug, Default)]
struct State {
    closed: AtomicBool,
    /// Told when a door behind the closed gate is empty.
    empty: Notify,
}

/// A way in.
#[derive(Debug)]
pub(super) struct Door {
    state: Arc<State>,
    /// Those who came by it and are on their way.
    inside: AtomicUsize,
}

impl Gate {
    /// One more door.
    pub(super) fn door(&self) -> Arc<Door> {
        let door = Arc::new(Door { state: Arc::clone(&self.state), inside: AtomicUsize::new(0) });
        self.doors.lock().push(Arc::clone(&door));
        door
    }

    /// Lets no more calls in.
    pub(super) fn close(&self) {
        self.state.closed.store(true, SeqCst);
    }

    /// How many calls are on their way.
    pub(super) fn count(&self) -> usize {
        self.doors.lock().iter().map(|door| door.inside.load(SeqCst)).sum()
    }

    /// Waits, behind the closed gate, until every call is over.
    pub(super) async fn empty(&self) {
        while self.count() != 0 {
            self.state.empty.notified().await;
        }
    }
}

impl Door {
    /// Counts a call until the admission is dropped; none, if the gate is closed.
    ///
    /// A call is counted first and then looks whether the gate is closed; who closes it looks at the count after that. All
    /// four are in one order (`SeqCst`), so one of the two sees the other.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Admission> {
        self.inside.fetch_add(1, SeqCst);
        let admission = Admission(Arc::clone(self));
        // A call that came too late was counted for a moment. That can delay the last good-bye, never lose it.
        (!self.state.closed.load(SeqCst)).then_some(admission)
    }
}

/// A call that was let in. It is over when this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Admission(Arc<Door>);

impl Drop for Admission {
    fn drop(&mut self) {
        let Door { state, inside } = &*self.0;
        if inside.fetch_sub(1, SeqCst) == 1 && state.closed.load(SeqCst) {
            // notify_one keeps its word for a waiter that is yet to come.
            state.empty.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_closed_gate_lets_no_one_in_and_waits_for_those_inside() {
        let gate = Gate::default();
        let (one, other) = (gate.door(), gate.door());
        let (first, second) = (one.admit().unwrap(), other.admit().unwrap());

        gate.close();
        assert!(one.admit().is_none() && other.admit().is_none());
        drop(first);
        assert!(gate.empty().now_or_never().is_none());

        drop(second);
        gate.empty().await;
        assert_eq!(gate.count(), 0);
    }

    #[test]
    fn an_admitted_call_is_always_waited_for() {
        for _ in 0..200 {
            let gate = Gate::default();
            let done = Arc::new(AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for door in [gate.door(), gate.door()] {
                    let done = &done;
                    scope.spawn(move || {
                        while let Some(admission) = door.admit() {
                            done.fetch_add(1, SeqCst);
                            std::hint::spin_loop();
                            done.fetch_sub(1, SeqCst);
                            drop(admission);
                        }
                    });
                }
                gate.close();
                gate.empty().now_or_never();
                while gate.count() != 0 {
                    std::hint::spin_loop();
                }
                assert_eq!(done.load(SeqCst), 0, "a call ran behind a gate that was closed and empty");
            });
        }
    }
}
