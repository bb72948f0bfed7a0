//! Times to live, and the one timer that all of them share.
//!
//! Due times are on the monotonic clock, in microseconds. A bucket has at most one alarm in [`Alarms`], for whatever falls due
//! in it first; so a million entries with a time to live are a million numbers in their buckets, and nothing runs while
//! nothing is due.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};

use crate::{
    clock::Clock,
    limits::{TTL_MAX, TTL_MIN},
    name::BucketId,
};

/// How long something lives: [`TTL_MIN`] to [`TTL_MAX`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ttl(Duration);

impl Ttl {
    /// Checks a time to live; `None` where it is none.
    #[must_use]
    pub fn new(length: Duration) -> Option<Self> {
        (TTL_MIN..=TTL_MAX).contains(&length).then_some(Self(length))
    }

    /// How long it is.
    #[must_use]
    pub fn length(self) -> Duration {
        self.0
    }
}

/// A moment on the monotonic clock, in microseconds; [`Due::NEVER`] for none.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Due(u64);

impl Due {
    /// It never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// As a time on the monotonic clock; `None` for never.
    #[must_use]
    pub fn at(self) -> Option<Duration> {
        (self != Self::NEVER).then_some(Duration::from_micros(self.0))
    }
}

/// Reads a clock as due times are kept.
#[derive(Clone, Debug)]
pub struct Timeline {
    clock: Arc<dyn Clock>,
    /// Wall-clock time where the monotonic clock was 0, as of the start: so that a due time always reads the same.
    epoch: Duration,
}

impl Timeline {
    /// A timeline of `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let epoch = clock.wall().saturating_sub(clock.monotonic());
        Self { clock, epoch }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Due {
        Due(micros(self.clock.monotonic()))
    }

    /// When something that is given so long from now falls due.
    #[must_use]
    pub fn due(&self, ttl: Option<Ttl>) -> Due {
        ttl.map_or(Due::NEVER, |ttl| Due(self.now().0 + micros(ttl.length())))
    }

    /// A due time on the wall clock, since 1970.
    #[must_use]
    pub fn wall(&self, due: Due) -> Option<Duration> {
        due.at().map(|at| self.epoch + at)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 2)
}

/// Which buckets are to be woken, and when. `T` is a handle to one.
///
/// The lock is a leaf: buckets set their alarms from within a handler.
pub struct Alarms<T> {
    state: Mutex<State<T>>,
    /// Told when something comes first that did not, and at the end.
    earlier: Condvar,
}

struct State<T> {
    alarms: BTreeMap<(Due, BucketId), T>,
    closed: bool,
}

impl<T> Default for Alarms<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { alarms: BTreeMap::new(), closed: false }), earlier: Condvar::new() }
    }
}

impl<T> Alarms<T> {
    /// Moves the alarm of a bucket from `old` to `new`; either may be [`Due::NEVER`], for none.
    pub fn set(&self, id: BucketId, old: Due, new: Due, bucket: impl FnOnce() -> T) {
        let mut state = self.state.lock();
        let removed = if old == Due::NEVER { None } else { state.alarms.remove(&(old, id)) };
        if new != Due::NEVER {
            let first = state.alarms.first_key_value().is_none_or(|((due, _), _)| new < *due);
            state.alarms.insert((new, id), bucket());
            if first {
                self.earlier.notify_one();
            }
        }
        drop(state);
        drop(removed);
    }

    /// Takes those that are due by `now`, at most `max`.
    pub fn take(&self, now: Due, max: usize) -> Vec<T> {
        let mut state = self.state.lock();
        let mut due = Vec::new();
        while due.len() < max
            && let Some(entry) = state.alarms.first_entry()
            && entry.key().0 <= now
        {
            due.push(entry.remove());
        }
        due
    }

    /// Waits until something is due by the time that `timeline` shows; false when it is over.
    pub fn wait(&self, timeline: &Timeline) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return false;
            }
            match state.alarms.first_key_value().and_then(|((due, _), _)| due.at()) {
                None => self.earlier.wait(&mut state),
                Some(at) => {
                    let left = at.saturating_sub(timeline.clock.monotonic());
                    if left.is_zero() {
                        return true;
                    }
                    self.earlier.wait_for(&mut state, left);
                }
            }
        }
    }

    /// Ends the waiting, for good.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.earlier.notify_all();
    }
}

impl<T> fmt::Debug for Alarms<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alarms({})", self.state.lock().alarms.len())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{clock::SystemClock, name::Revision};

    fn id(n: u64) -> BucketId {
        Revision::new(n).as_id()
    }

    #[test]
    fn what_is_due_is_taken_in_order_and_the_rest_stays() {
        let alarms = Alarms::default();
        for (n, due) in [(1, 30), (2, 10), (3, 20)] {
            alarms.set(id(n), Due::NEVER, Due(due), || n);
        }
        alarms.set(id(2), Due(10), Due(25), || 2);
        assert_eq!(alarms.take(Due(9), 9), Vec::<u64>::new());
        assert_eq!(alarms.take(Due(29), 1), [3]);
        assert_eq!(alarms.take(Due(29), 9), [2]);
        alarms.set(id(1), Due(30), Due::NEVER, || 1);
        assert_eq!(alarms.take(Due(99), 9), Vec::<u64>::new());
    }

    #[test]
    fn a_waiter_is_woken_by_an_earlier_alarm_and_by_the_end() {
        let timeline = Timeline::new(Arc::new(SystemClock::default()));
        let alarms = Alarms::default();
        thread::scope(|scope| {
            let waiter =
                scope.spawn(|| (alarms.wait(&timeline), alarms.take(timeline.now(), 9), alarms.wait(&timeline)));
            let hour = Ttl::new(Duration::from_secs(3_600));
            alarms.set(id(1), Due::NEVER, timeline.due(hour), || 1);
            alarms.set(id(2), Due::NEVER, timeline.due(Ttl::new(Duration::from_millis(1))), || 2);
            alarms.set(id(3), Due::NEVER, timeline.due(hour), || 3);
            while format!("{alarms:?}") != "Alarms(2)" {
                thread::yield_now();
            }
            alarms.close();
            assert_eq!(waiter.join().unwrap(), (true, vec![2], false));
        });
    }

    #[test]
    fn a_ttl_is_a_millisecond_to_ten_years() {
        assert_eq!(Ttl::new(Duration::from_micros(999)), None);
        assert!(Ttl::new(Duration::from_millis(1)).is_some());
        assert!(Ttl::new(TTL_MAX).is_some());
        assert_eq!(Ttl::new(TTL_MAX + Duration::from_nanos(1)), None);
    }
}
