//! How long to wait before what failed is tried again.

use std::time::Duration;

/// The first wait; each further one is twice as long…
pub(super) const WAIT_MIN: Duration = Duration::from_millis(100);

/// …up to this.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(10);

/// Waits, each twice as long as the one before.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    waits: u32,
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let wait = WAIT_MIN.saturating_mul(1 << self.waits.min(20)).min(WAIT_MAX);
        self.waits += 1;
        wait
    }

    /// It went well: begin anew.
    pub(super) fn reset(&mut self) {
        self.waits = 0;
    }
}
