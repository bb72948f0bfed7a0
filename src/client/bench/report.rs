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
    saturation::{Generator, Usage, is_saturated},
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
            generator_limited: generator.limited,
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
        if self.generator_limited {
            let (cpu, starved) = (percent(self.generator.cpu), percent(self.generator.starved));
            writeln!(
                lines,
                "The generator was the limit: its busiest thread ran for {cpu} % of the time, and had no processor for \
                 {starved} %.\nThe throughput is a lower bound, and the latency an upper one."
            )
            .ok(); // a string takes everything
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
        let (connections, streams) = (self.connections, self.streams);
        let pace = self.rate.map_or("closed loop".to_owned(), |rate| format!("{}/s", grouped(rate.get())));
        writeln!(f, "{op}, {mode}, {connections} connections x {streams} streams, {pace}, {:.2} s", self.seconds)?;
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
            "generator:   {threads} thread{}, {cpu_seconds:.2} s of CPU; the busiest ran {:.0} %, and waited for a \
             processor {:.0} % of the time",
            if threads == 1 { "" } else { "s" },
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
