//! The percentiles as a picture: the slower the rarer, so each line is for a tenth of those of the line before.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// How much of all is faster than what a line shows.
const PERCENTILES: [f64; 10] = [10.0, 25.0, 50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0];

/// What stands before a bar.
const LABEL_COLUMNS: usize = 20;
const BAR_COLUMNS_MIN: usize = 10;

/// A line for each percentile that so many operations have, no wider than so many columns; the longest bar is the
/// greatest latency.
///
/// Bars are on a logarithmic scale from the least latency, for latencies are: a linear one shows the worst alone.
pub(super) fn plot(latencies: &Histogram<u64>, columns: usize) -> String {
    let mut plot = String::new();
    if latencies.is_empty() {
        return plot;
    }
    let room = columns.saturating_sub(LABEL_COLUMNS).max(BAR_COLUMNS_MIN);
    let (least, most) = ((latencies.min().max(1) as f64).ln(), (latencies.max().max(1) as f64).ln());
    for percentile in PERCENTILES {
        let beyond = latencies.len() as f64 * (100.0 - percentile) / 100.0;
        if beyond < 1.0 - 1e-6 && percentile < 100.0 {
            continue; // fewer than one is slower: it would be the greatest once more
        }
        let latency = latencies.value_at_percentile(percentile);
        let part = if most > least { ((latency.max(1) as f64).ln() - least) / (most - least) } else { 1.0 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 1 to the number of columns
        let bar = "#".repeat((part.clamp(0.0, 1.0) * room as f64).round().max(1.0) as usize);
        let name = if percentile == 100.0 { "max".to_owned() } else { format!("p{percentile}") };
        writeln!(plot, "{name:<8}{:>10}  {bar}", Time(latency).to_string()).ok(); // a string takes everything
    }
    plot
}

/// A time in the unit that suits it, to three digits.
pub(super) struct Time(pub(super) u64);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit_ns, unit) = match self.0 {
            0..1_000 => return write!(f, "{} ns", self.0),
            1_000..999_500 => (1e3, "µs"), // what would be rounded to 1000 is 1 of the next
            999_500..999_500_000 => (1e6, "ms"),
            _ => (1e9, "s"),
        };
        let time = self.0 as f64 / unit_ns;
        let decimals = if time < 9.995 { 2 } else { usize::from(time < 99.95) };
        write!(f, "{time:.decimals$} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut latencies = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        values.into_iter().for_each(|value| latencies.record(value).unwrap());
        latencies
    }

    #[test]
    fn a_bar_for_each_percentile_that_there_is_on_a_logarithmic_scale() {
        // 9,000 of 100 µs, 995 of 1 ms, five of 10 ms: a decade each is half of the 20 columns.
        let decades = [(100_000, 9_000), (1_000_000, 995), (10_000_000, 5)];
        let values = decades.into_iter().flat_map(|(value, count)| std::iter::repeat_n(value, count));
        let expected = "\
p10         100 µs  #
p25         100 µs  #
p50         100 µs  #
p75         100 µs  #
p90         100 µs  #
p99        1.00 ms  ##########
p99.9      1.00 ms  ##########
p99.99     10.0 ms  ####################
max        10.0 ms  ####################
";
        assert_eq!(plot(&latencies(values), LABEL_COLUMNS + 20), expected);
    }

    #[test]
    fn nothing_and_little_can_be_drawn_and_no_line_is_too_wide() {
        assert_eq!(plot(&latencies([]), 80), "");
        let one = plot(&latencies([5_000]), 80);
        assert_eq!(one.lines().count(), 1);
        assert!(one.starts_with("max        5.00 µs  #####"));
        let many = plot(&latencies((0..100_000).map(|n| n * n + 1)), 80);
        assert_eq!(many.lines().map(|line| line.chars().count()).max(), Some(80));
        assert_eq!(many.lines().count(), 10);
    }

    #[test]
    fn a_time_has_three_digits_and_a_unit() {
        let times = [0, 999, 1_000, 99_940, 99_960, 999_000, 999_936, 1_234_567, 12_345_678, 3_600_000_000_000]
            .map(|t| Time(t).to_string());
        assert_eq!(
            times,
            ["0 ns", "999 ns", "1.00 µs", "99.9 µs", "100 µs", "999 µs", "1.00 ms", "1.23 ms", "12.3 ms", "3600 s"]
        );
    }
}
