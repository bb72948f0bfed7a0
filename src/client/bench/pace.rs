//! When the next operation starts: as soon as there is room for it, or by the clock.
//!
//! In a *closed loop* an operation starts when one before it is done, so a slow server is asked less, and a stall of a
//! second is one slow answer. In an *open loop* operation `n` starts `n / rate` after the first, whatever the server
//! does, as those of many independent users would; and however late it is sent, its latency counts from there. Else the
//! operations that a stall held up would be missing from the percentiles, or be in them as if they had been fast
//! ("coordinated omission").
//!
//! It knows no clock: times are nanoseconds since the run began, and come from the caller.

use std::num::NonZeroU64;

const SECOND_NS: u128 = 1_000_000_000;

/// One connection's share of what is to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Operations a second of all connections together; `None` is a closed loop.
    pub(super) rate: Option<NonZeroU64>,
    /// Which of how many connections this is.
    pub(super) number: u64,
    pub(super) of: u64,
    /// What starts before is a warm-up, and not counted.
    pub(super) measure_from_ns: u64,
    /// What would start at this time, or later, does not.
    pub(super) until_ns: Option<u64>,
    /// How many start after the warm-up.
    pub(super) count: Option<u64>,
}

/// An operation that is to start now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Start {
    /// When it was to start.
    pub(super) intended_ns: u64,
    pub(super) is_counted: bool,
}

/// Says when.
#[derive(Debug)]
pub(super) struct Pace {
    share: Share,
    /// How many have started.
    started: u64,
    /// How many of them are counted.
    counted: u64,
}

impl Pace {
    pub(super) fn new(share: Share) -> Self {
        Self { share, started: 0, counted: 0 }
    }

    /// The operation that starts now, if one does.
    pub(super) fn next(&mut self, now_ns: u64) -> Option<Start> {
        self.leave_the_warm_up(now_ns);
        let intended_ns = self.due_ns().unwrap_or(now_ns);
        if intended_ns > now_ns || self.is_over(now_ns) {
            return None;
        }
        let is_counted = intended_ns >= self.share.measure_from_ns;
        self.started += 1;
        self.counted += u64::from(is_counted);
        Some(Start { intended_ns, is_counted })
    }

    /// Whether none starts any more.
    pub(super) fn is_over(&self, now_ns: u64) -> bool {
        let is_late = self.share.until_ns.is_some_and(|until| now_ns >= until);
        is_late || self.share.count.is_some_and(|count| self.counted >= count)
    }

    /// When the next one is to start, in an open loop.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.share.rate.map(|rate| self.due_of(self.started, rate))
    }

    /// What the warm-up was to start and could not is dropped at its end: else a server that is asked for too much
    /// would never come to what is measured.
    fn leave_the_warm_up(&mut self, now_ns: u64) {
        let from_ns = self.share.measure_from_ns;
        if let Some(rate) =
            self.share.rate.filter(|&rate| now_ns >= from_ns && self.due_of(self.started, rate) < from_ns)
        {
            self.started = self.due_before(from_ns, rate);
        }
    }

    /// The connections take turns, so that together they are even.
    fn due_of(&self, nth: u64, rate: NonZeroU64) -> u64 {
        let turn = u128::from(nth) * u128::from(self.share.of) + u128::from(self.share.number);
        u64::try_from(turn * SECOND_NS / u128::from(rate.get())).unwrap_or(u64::MAX)
    }

    /// No more than what has started.
    pub(super) fn end(&mut self, now_ns: u64) {
        self.share.until_ns = Some(self.share.until_ns.map_or(now_ns, |until| until.min(now_ns)));
    }

    /// How many were to start before the end, and were not sent.
    pub(super) fn unsent(&self, now_ns: u64) -> u64 {
        let Some(rate) = self.share.rate else { return 0 };
        if self.share.count.is_some_and(|count| self.counted >= count) {
            return 0;
        }
        let until_ns = self.share.until_ns.map_or(now_ns, |until| until.min(now_ns));
        self.due_before(until_ns, rate).saturating_sub(self.started)
    }

    /// How many are due before this time.
    fn due_before(&self, time_ns: u64, rate: NonZeroU64) -> u64 {
        let turns = (u128::from(time_ns) * u128::from(rate.get())).div_ceil(SECOND_NS);
        let due = turns.saturating_sub(self.share.number.into()).div_ceil(self.share.of.into());
        u64::try_from(due).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn share() -> Share {
        Share { rate: None, number: 0, of: 1, measure_from_ns: 0, until_ns: None, count: None }
    }

    fn open(rate: u64) -> Share {
        Share { rate: NonZeroU64::new(rate), ..share() }
    }

    #[test]
    fn a_closed_loop_starts_whenever_there_is_room() {
        let mut pace = Pace::new(Share { measure_from_ns: 10, until_ns: Some(20), ..share() });
        let starts = [3, 3, 10, 19, 20].map(|now| pace.next(now).map(|start| (start.intended_ns, start.is_counted)));
        assert_eq!(starts, [Some((3, false)), Some((3, false)), Some((10, true)), Some((19, true)), None]);
        assert_eq!((pace.due_ns(), pace.unsent(20)), (None, 0));
    }

    #[test]
    fn an_open_loop_starts_by_the_clock_and_catches_up_with_what_a_stall_held_up() {
        let mut pace = Pace::new(open(1_000));
        assert_eq!(pace.next(0).unwrap().intended_ns, 0);
        assert_eq!((pace.next(MS - 1), pace.due_ns()), (None, Some(MS)));
        // There was no room for 3 ms and a half: what was to start meanwhile starts now, and counts from its own time.
        let starts: Vec<_> = std::iter::from_fn(|| pace.next(4 * MS + MS / 2)).map(|start| start.intended_ns).collect();
        assert_eq!(starts, [MS, 2 * MS, 3 * MS, 4 * MS]);
    }

    #[test]
    fn connections_take_turns() {
        let due = |number| {
            let mut pace = Pace::new(Share { number, of: 3, ..open(3_000) });
            std::iter::from_fn(|| pace.next(2 * MS)).map(|start| start.intended_ns).collect::<Vec<_>>()
        };
        assert_eq!(
            (due(0), due(1), due(2)),
            (vec![0, MS, 2 * MS], vec![MS / 3, MS * 4 / 3], vec![MS * 2 / 3, MS * 5 / 3])
        );
    }

    #[test]
    fn a_rate_is_kept_exactly_however_long_it_takes() {
        let mut pace = Pace::new(open(999_983));
        pace.started = 999_983 * 3_600;
        assert_eq!(pace.due_ns(), Some(3_600_000 * MS));
    }

    #[test]
    fn what_the_warm_up_could_not_start_is_not_made_up_for_in_what_is_measured() {
        let mut pace = Pace::new(Share { measure_from_ns: 5 * MS, ..open(1_000) });
        assert_eq!(pace.next(4 * MS).unwrap().intended_ns, 0);
        let starts: Vec<_> = std::iter::from_fn(|| pace.next(6 * MS)).map(|start| start.intended_ns).collect();
        assert_eq!(starts, [5 * MS, 6 * MS]);
    }

    #[test]
    fn a_count_is_of_what_starts_after_the_warm_up() {
        let mut pace = Pace::new(Share { measure_from_ns: 2 * MS, count: Some(2), ..open(1_000) });
        let starts = [0, MS, 2 * MS, 100 * MS, 100 * MS].map(|now| pace.next(now).map(|start| start.is_counted));
        assert_eq!(starts, [Some(false), Some(false), Some(true), Some(true), None]);
        assert!(pace.is_over(0));
        assert_eq!(pace.unsent(100 * MS), 0);
    }

    #[test]
    fn what_was_due_and_not_sent_is_known_at_the_end() {
        let mut pace = Pace::new(Share { until_ns: Some(10 * MS), ..open(1_000) });
        for _ in 0..4 {
            pace.next(9 * MS).unwrap();
        }
        assert_eq!(pace.unsent(20 * MS), 6); // at 4, 5, 6, 7, 8 and 9 ms
        pace.end(5 * MS + 1);
        assert_eq!((pace.unsent(20 * MS), pace.next(20 * MS)), (2, None));
        let second = Pace::new(Share { number: 1, of: 2, until_ns: Some(10 * MS), ..open(1_000) });
        assert_eq!(second.unsent(10 * MS), 5);
    }
}
