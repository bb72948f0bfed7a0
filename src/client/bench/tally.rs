//! What came of the operations: how many, how long each took, and why some failed.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Latencies are told apart to three digits, from a nanosecond to an hour.
const DIGITS: u8 = 3;
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

/// More reasons than a server has; what comes past it is counted under the last.
const REASONS_MAX: usize = 64;
const OTHER: &str = "OTHER";

/// Sent later than this after its time, an operation is late.
pub(super) const LATE_NS: u64 = 1_000_000;

/// One connection's, or all together.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Of what went well.
    pub(super) latencies: Histogram<u64>,
    /// What failed, by reason.
    pub(super) errors: BTreeMap<String, u64>,
    /// Bytes of requests, and of the answers and events that what went well has had.
    pub(super) bytes: u64,
    /// How many were sent.
    pub(super) started: u64,
    /// Sent late, as every stream was taken…
    pub(super) late_for_streams: u64,
    /// …or though one was free: the generator itself was behind.
    pub(super) late_for_generator: u64,
    /// What was to start, and had not when the run ended.
    pub(super) unsent: u64,
    /// When the last one was done.
    pub(super) last_ns: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            latencies: latencies(),
            errors: BTreeMap::new(),
            bytes: 0,
            started: 0,
            late_for_streams: 0,
            late_for_generator: 0,
            unsent: 0,
            last_ns: 0,
        }
    }

    /// One went well.
    pub(super) fn done(&mut self, intended_ns: u64, now_ns: u64, bytes: u64) {
        self.latencies.saturating_record(now_ns.saturating_sub(intended_ns).max(1));
        self.bytes += bytes;
        self.last_ns = self.last_ns.max(now_ns);
    }

    /// One failed.
    pub(super) fn failed(&mut self, reason: &str, now_ns: u64) {
        self.add_errors(reason, 1);
        self.last_ns = self.last_ns.max(now_ns);
    }

    fn add_errors(&mut self, reason: &str, count: u64) {
        let has_room = self.errors.len() < REASONS_MAX || self.errors.contains_key(reason);
        let reason = if has_room { reason } else { OTHER };
        match self.errors.get_mut(reason) {
            Some(there) => *there += count,
            None => drop(self.errors.insert(reason.to_owned(), count)),
        }
    }

    /// One was sent so much after its time.
    pub(super) fn sent(&mut self, late_ns: u64, was_free: bool) {
        self.started += 1;
        if late_ns > LATE_NS {
            *(if was_free { &mut self.late_for_generator } else { &mut self.late_for_streams }) += 1;
        }
    }

    /// Takes another one in.
    pub(super) fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies).ok(); // both have the same bounds
        for (reason, count) in &other.errors {
            self.add_errors(reason, *count);
        }
        self.bytes += other.bytes;
        self.started += other.started;
        self.late_for_streams += other.late_for_streams;
        self.late_for_generator += other.late_for_generator;
        self.unsent += other.unsent;
        self.last_ns = self.last_ns.max(other.last_ns);
    }

    pub(super) fn failures(&self) -> u64 {
        self.errors.values().sum()
    }
}

#[allow(clippy::expect_used)] // the bounds are right, and are these
fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, DIGITS).expect("bounds that a histogram can have")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let (mut one, mut other) = (Tally::new(), Tally::new());
        one.done(1_000, 3_000, 10);
        one.failed("OVERLOADED", 4_000);
        one.sent(LATE_NS, true);
        other.done(0, LATENCY_MAX_NS * 2, 5);
        other.failed("OVERLOADED", 2_000);
        other.failed("DRAINING", 2_000);
        other.sent(LATE_NS + 1, true);
        other.sent(LATE_NS + 1, false);
        one.add(&other);
        assert_eq!((one.latencies.len(), one.bytes, one.last_ns), (2, 15, LATENCY_MAX_NS * 2));
        assert_eq!(one.latencies.max(), one.latencies.highest_equivalent(LATENCY_MAX_NS));
        assert_eq!((one.late_for_generator, one.late_for_streams), (1, 1));
        assert_eq!(one.errors, BTreeMap::from([("DRAINING".to_owned(), 1), ("OVERLOADED".to_owned(), 2)]));
    }

    #[test]
    fn reasons_are_bounded_and_none_goes_uncounted() {
        let mut tally = Tally::new();
        for n in 0..100 {
            tally.failed(&n.to_string(), 0);
        }
        assert_eq!((tally.errors.len(), tally.failures(), tally.errors[OTHER]), (REASONS_MAX + 1, 100, 36));
    }
}
