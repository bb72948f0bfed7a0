//! Time, as a parameter: so that tests own it.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What time it is.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Time that never goes back, since some fixed moment. Due times follow it.
    fn monotonic(&self) -> Duration;

    /// Wall-clock time since 1970, for those who read it.
    fn wall(&self) -> Duration;
}

/// A moment on the wall clock, to the microsecond: half as large as a [`Duration`], for what is kept in millions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stamp(u64);

impl From<Duration> for Stamp {
    fn from(since_1970: Duration) -> Self {
        Self(u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX))
    }
}

impl From<Stamp> for Duration {
    fn from(Stamp(micros): Stamp) -> Self {
        Self::from_micros(micros)
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> Duration {
        // A clock before 1970 is no clock; ids then count from 1.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// A clock that stands still until it is moved.
#[cfg(any(test, feature = "test-hooks"))]
#[derive(Debug, Default)]
pub struct ManualClock(parking_lot::Mutex<Duration>);

#[cfg(any(test, feature = "test-hooks"))]
impl ManualClock {
    /// Moves both times on.
    pub fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }
}

#[cfg(any(test, feature = "test-hooks"))]
impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        *self.0.lock()
    }

    fn wall(&self) -> Duration {
        Duration::from_secs(1_800_000_000) + *self.0.lock()
    }
}
