//! Whether a run says something of the server, or only of the one who asked.
//!
//! A generator that never waits for answers is the limit itself: a faster server would have had no more to do. So each
//! of its threads measures for which part of the run it ran, and for which part it was ready to run and had to wait for
//! a processor (as it must where it shares them with the server). The rest of the time it waited for the server. Where
//! no thread did so for a tenth of its time, the throughput is a lower bound, and the report says so.

use std::{fs, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// As a part of the time.
const LIMITED: f64 = 0.9;
/// A generator that was late by its own fault for more than this part of what it sent was the limit too.
const BEHIND: f64 = 0.01;
/// An open loop that has sent less than this part of what was due has not reached its rate.
const REACHED: f64 = 0.99;

/// What a thread has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// It ran.
    pub(super) cpu: Duration,
    /// It waited for a processor. Only Linux tells.
    pub(super) waited: Duration,
    /// All the time that passed.
    pub(super) wall: Duration,
}

impl Usage {
    /// Of the thread that asks, after so much time.
    pub(super) fn now(wall: Duration) -> Self {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        Self { cpu: cpu.try_into().unwrap_or_default(), waited: waited().unwrap_or_default(), wall }
    }

    /// Between two times.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            waited: self.waited.saturating_sub(before.waited),
            wall: self.wall.saturating_sub(before.wall),
        }
    }

    fn part(self, of: Duration) -> f64 {
        if self.wall.is_zero() { 0.0 } else { of.as_secs_f64() / self.wall.as_secs_f64() }
    }
}

/// The second number in this file, in nanoseconds (Documentation/scheduler/sched-stats.rst).
fn waited() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split_ascii_whitespace().nth(1)?.parse().ok()?))
}

/// The generator, as parts of one thread's time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Generator {
    pub(super) threads: usize,
    /// Seconds of processor time of all threads.
    pub(super) cpu_seconds: f64,
    /// Of the busiest thread: it ran…
    pub(super) cpu: f64,
    /// …or was ready to, and had no processor.
    pub(super) starved: f64,
    #[serde(skip)]
    pub(super) limited: bool,
}

impl Generator {
    pub(super) fn of(threads: &[Usage]) -> Self {
        let busy = |usage: &Usage| usage.part(usage.cpu) + usage.part(usage.waited);
        let busiest = threads.iter().copied().max_by(|a, b| busy(a).total_cmp(&busy(b))).unwrap_or_default();
        Self {
            threads: threads.len(),
            cpu_seconds: threads.iter().map(|usage| usage.cpu.as_secs_f64()).sum(),
            cpu: busiest.part(busiest.cpu),
            starved: busiest.part(busiest.waited),
            limited: busy(&busiest) >= LIMITED,
        }
    }
}

/// Whether the generator was late so often that the latencies are its own.
pub(super) fn is_behind(late: u64, sent: u64) -> bool {
    late as f64 > BEHIND * sent as f64
}

/// Whether so little of what was due was sent that the rate is not what was asked for.
pub(super) fn is_saturated(sent: u64, unsent: u64) -> bool {
    unsent > 1 && (sent as f64) < REACHED * (sent + unsent) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu_ms: u64, waited_ms: u64) -> Usage {
        let [cpu, waited, wall] = [cpu_ms, waited_ms, 1_000].map(Duration::from_millis);
        Usage { cpu, waited, wall }
    }

    #[test]
    fn a_generator_that_hardly_ever_waits_for_the_server_is_the_limit() {
        let limited = |threads: &[Usage]| Generator::of(threads).limited;
        assert!(limited(&[usage(900, 0)]) && limited(&[usage(10, 0), usage(950, 0)]));
        assert!(!limited(&[usage(899, 0)]) && !limited(&[usage(0, 0)]) && !limited(&[]));
    }

    #[test]
    fn a_generator_without_a_processor_is_the_limit_too() {
        let generator = Generator::of(&[usage(500, 450), usage(600, 0)]);
        assert!(generator.limited);
        assert_eq!((generator.threads, generator.cpu_seconds, generator.cpu), (2, 1.1, 0.5));
        assert_eq!(generator.starved, 0.45);
    }

    #[test]
    fn a_generator_that_is_late_for_one_in_a_hundred_is_behind() {
        assert!(!is_behind(10, 1_000) && is_behind(11, 1_000) && !is_behind(0, 0));
    }

    #[test]
    fn a_rate_is_reached_where_next_to_all_was_sent() {
        assert!(!is_saturated(9_900, 100) && is_saturated(9_899, 101));
        assert!(!is_saturated(10, 1) && !is_saturated(0, 0) && is_saturated(0, 2));
    }

    #[test]
    fn a_thread_knows_what_it_has_used() {
        let before = Usage::now(Duration::ZERO);
        while Usage::now(Duration::ZERO).since(before).cpu < Duration::from_millis(2) {
            std::hint::black_box((0..1_000).sum::<u64>());
        }
    }
}
