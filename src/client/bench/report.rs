//! What a run has shown, as text with a picture, or as an object.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    num::NonZeroU64,
};

use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    Bench,
    channel::Mode,
    generator::Part,
    load::Op,
    nanoseconds,
    plot::{Time, plot},
    saturation::{Generator, Usage, is_behind, is_saturated},
    tally::Tally,
};
use crate::client::output::one_line;

const SECOND_NS: f64 = 1e9;

/// No wider, however wide the terminal is.
const COLUMNS: usize = 80;

/// The fields of the JSON, in their order.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    op: Op,
    mode: Mode,
    connections: u32,
    streams: u32,
    rate: Option<NonZeroU64>,
    value_size: u32,
    keys: u32,
    buckets: u32,
    seconds: f64,
    operations: u64,
    ops_per_second: f64,
    bytes_per_second: f64,
    pub(super) errors: u64,
    errors_by_reason: BTreeMap<String, u64>,
    latency_ns: Option<Latency>,
    late: u64,
    late_for_streams: u64,
    late_for_generator: u64,
    unsent: u64,
    saturated: bool,
    generator: Generator,
    generator_limited: bool,
    pub(super) interrupted: bool,
    /// Operations that were sent in a second.
    #[serde(skip)]
    sent_per_second: f64,
    #[serde(skip)]
    latencies: Histogram<u64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    min: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    max: u64,
}

impl Latency {
    fn of(latencies: &Histogram<u64>) -> Option<Self> {
        let at = |percentile| latencies.value_at_percentile(percentile);
        (!latencies.is_empty()).then(|| Self {
            min: latencies.min(),
            mean: latencies.mean(),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            max: latencies.max(),
        })
    }
}

impl Report {
    pub(super) fn of(bench: &Bench, parts: &[Part], interrupted: bool) -> Self {
        let mut all = Tally::new();
        parts.iter().for_each(|part| all.add(&part.tally));
        let usages: Vec<Usage> = parts.iter().map(|part| part.usage).collect();
        let ended_ns = parts.iter().map(|part| part.ended_ns.max(part.tally.last_ns)).max().unwrap_or_default();
        let seconds = ended_ns.saturating_sub(nanoseconds(bench.warm_up)) as f64 / SECOND_NS;
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let generator = Generator::of(&usages);
        Self {
            op: bench.op,
            mode: bench.mode,
            connections: bench.connections,
            streams: bench.streams,
            rate: bench.rate,
            value_size: bench.value_size,
            keys: bench.keys,
            buckets: bench.buckets,
            seconds,
            operations: all.latencies.len(),
            ops_per_second: per_second(all.latencies.len()),
            bytes_per_second: per_second(all.bytes),
            errors: all.failures(),
            latency_ns: Latency::of(&all.latencies),
            late: all.late_for_streams + all.late_for_generator,
            late_for_streams: all.late_for_streams,
            late_for_generator: all.late_for_generator,
            unsent: all.unsent,
            saturated: bench.rate.is_some() && is_saturated(all.started, all.unsent),
            generator_limited: generator.limited || is_behind(all.late_for_generator, all.started),
            generator,
            interrupted,
            sent_per_second: per_second(all.started),
            errors_by_reason: all.errors,
            latencies: all.latencies,
        }
    }

    /// What must be known before the numbers are believed.
    fn reservations(&self) -> String {
        let mut lines = String::new();
        let percent = |part: f64| (part * 100.0).round();
        if self.generator.limited {
            let (cpu, starved) = (percent(self.generator.cpu), percent(self.generator.starved));
            writeln!(
                lines,
                "The generator was the limit: its busiest thread ran for {cpu} % of the time, and had no processor for \
                 {starved} %.\nThe throughput is a lower bound, and the latency an upper one."
            )
            .ok(); // a string takes everything
        } else if self.generator_limited {
            let late = grouped(self.late_for_generator);
            writeln!(lines, "The generator was the limit: it was late for {late}. The latency is an upper bound.").ok();
        }
        if let Some(rate) = self.rate.filter(|_| self.saturated) {
            let (sent, rate) = (grouped(rounded(self.sent_per_second)), grouped(rate.get()));
            writeln!(lines, "The rate was not reached: {sent} of {rate}/s.").ok();
        }
        if self.interrupted {
            writeln!(lines, "The run was ended early.").ok();
        }
        lines
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op, mode) = (name(&self.op), name(&self.mode));
        let (connections, streams) = (counted(self.connections, "connection"), counted(self.streams, "stream"));
        let pace = self.rate.map_or("closed loop".to_owned(), |rate| format!("{}/s", grouped(rate.get())));
        writeln!(f, "{op}, {mode}, {connections} x {streams}, {pace}, {:.2} s", self.seconds)?;
        writeln!(f)?;
        writeln!(f, "operations:  {}", grouped(self.operations))?;
        writeln!(f, "per second:  {}", grouped(rounded(self.ops_per_second)))?;
        writeln!(f, "bytes/s:     {}", grouped(rounded(self.bytes_per_second)))?;
        writeln!(f, "errors:      {}", grouped(self.errors))?;
        for (reason, count) in &self.errors_by_reason {
            writeln!(f, "             {} {}", grouped(*count), one_line(reason))?;
        }
        if self.rate.is_some() {
            let (streams, generator) = (grouped(self.late_for_streams), grouped(self.late_for_generator));
            write!(f, "late:        {}", grouped(self.late))?;
            writeln!(f, " ({streams} as all streams were taken, {generator} by the generator's own fault)")?;
            writeln!(f, "unsent:      {}", grouped(self.unsent))?;
        }
        let Generator { threads, cpu_seconds, cpu, starved, .. } = self.generator;
        writeln!(
            f,
            "generator:   {}, {cpu_seconds:.2} s of CPU; the busiest ran {:.0} %, and waited for a \
             processor {:.0} % of the time",
            counted(threads as u64, "thread"),
            cpu * 100.0,
            starved * 100.0
        )?;
        if let Some(Latency { min, mean, .. }) = self.latency_ns {
            writeln!(f, "latency:     min {}, mean {}", Time(min), Time(rounded(mean)))?;
            writeln!(f, "\n{}", plot(&self.latencies, COLUMNS).trim_end())?;
        }
        let reservations = self.reservations();
        if !reservations.is_empty() {
            write!(f, "\n{reservations}")?;
        }
        Ok(())
    }
}

fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // none here is negative, or that large
fn rounded(number: f64) -> u64 {
    number.round() as u64
}

fn counted(count: impl Into<u64>, of: &str) -> String {
    let count = count.into();
    format!("{} {of}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A number with commas, as one reads it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;
    use serde_json::{Value as Json, json};

    use super::*;

    const MS: u64 = 1_000_000;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    fn bench(args: &str) -> Bench {
        Line::parse_from(["bench"].into_iter().chain(args.split_whitespace())).bench
    }

    /// 100 operations of 1 ms in a second after the warm-up, by a thread that ran for so much of it.
    fn part(cpu_ms: u64) -> Part {
        let mut tally = Tally::new();
        for _ in 0..100 {
            tally.sent(0, true);
            tally.done(1_000 * MS, 1_001 * MS, 20);
        }
        let usage =
            Usage { cpu: Duration::from_millis(cpu_ms), waited: Duration::ZERO, wall: Duration::from_millis(1_000) };
        Part { tally, usage, ended_ns: 2_000 * MS }
    }

    #[test]
    fn the_json_has_these_fields() {
        let mut part = part(250);
        part.tally.failed("OVERLOADED", 1_500 * MS);
        part.tally.sent(2 * MS, false);
        let report = Report::of(&bench("--op put --rate 100 --keys 5"), &[part], true);
        let mut json: Json = serde_json::to_value(&report).unwrap();
        let latency = json.as_object_mut().unwrap().remove("latency_ns").unwrap();
        let expected = json!({
            "op": "put", "mode": "unary", "connections": 8, "streams": 32, "rate": 100, "value_size": 64, "keys": 5,
            "buckets": 16, "seconds": 1.0, "operations": 100, "ops_per_second": 100.0, "bytes_per_second": 2000.0,
            "errors": 1, "errors_by_reason": {"OVERLOADED": 1}, "late": 1, "late_for_streams": 1,
            "late_for_generator": 0, "unsent": 0, "saturated": false,
            "generator": {"threads": 1, "cpu_seconds": 0.25, "cpu": 0.25, "starved": 0.0},
            "generator_limited": false, "interrupted": true,
        });
        assert_eq!(json, expected);
        let fields: Vec<_> = latency.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, ["max", "mean", "min", "p50", "p90", "p99", "p99_9"]);
        assert!(latency["p99"].as_u64().unwrap().abs_diff(MS) < MS / 1_000);
    }

    #[test]
    fn where_nothing_went_well_there_is_no_latency() {
        let part = Part { tally: Tally::new(), usage: Usage::default(), ended_ns: 0 };
        let report = Report::of(&bench(""), &[part], false);
        assert_eq!(serde_json::to_value(&report).unwrap()["latency_ns"], Json::Null);
        assert_eq!((report.seconds, report.ops_per_second), (0.0, 0.0));
        assert!(!report.to_string().contains("latency"));
    }

    #[test]
    fn the_text_has_a_picture() {
        let text = Report::of(&bench("--connections 1 --count 100"), &[part(250)], false).to_string();
        let expected = "\
get, unary, 1 connection x 32 streams, closed loop, 1.00 s

operations:  100
per second:  100
bytes/s:     2,000
errors:      0
generator:   1 thread, 0.25 s of CPU; the busiest ran 25 %, and waited for a processor 0 % of the time
latency:     min 1.00 ms, mean 1.00 ms

p10        1.00 ms  ##########";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.lines().last().unwrap().starts_with("max        1.00 ms  ####"), "{text}");
    }

    #[test]
    fn a_run_in_which_the_generator_was_the_limit_says_so() {
        let report = Report::of(&bench(""), &[part(250), part(950)], false);
        assert!(
            report.to_string().contains("\nThe generator was the limit: its busiest thread ran for 95 % of the time")
        );
        assert!(report.generator_limited);
        assert!(!Report::of(&bench(""), &[part(250), part(850)], false).to_string().contains("limit"));
    }

    #[test]
    fn a_generator_that_is_behind_says_so() {
        let mut part = part(250);
        (0..2).for_each(|_| part.tally.sent(2 * MS, true));
        let report = Report::of(&bench("--rate 100"), &[part], false);
        assert!(report.generator_limited);
        assert!(report.to_string().contains("\nThe generator was the limit: it was late for 2. "), "{report}");
    }

    #[test]
    fn a_rate_that_was_not_reached_is_told() {
        let mut part = part(250);
        part.tally.unsent = 23;
        let report = Report::of(&bench("--rate 123"), &[part], false);
        assert!(report.saturated);
        assert!(report.to_string().ends_with("\nThe rate was not reached: 100 of 123/s.\n"), "{report}");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
