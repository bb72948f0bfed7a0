//! How far an export, an import or a load is: a bar where a person looks at standard error, and at the end, for everyone, a line.

use std::fmt;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::output::Format;

const ENTRIES: &str = "{wide_bar} {percent}% of {len} entries, {per_sec}, {eta} left";
const BYTES: &str = "{wide_bar} {percent}% of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
const LOAD: &str = "{wide_bar} {msg}";
const ENDLESS: &str = "{spinner} {binary_bytes}, {binary_bytes_per_sec}";

/// A bar; none where standard error is no terminal. It takes itself away when it is dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// No bar at all.
    pub(super) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Of so many entries.
    pub(super) fn of_entries(count: u64) -> Self {
        Self::with(Some(count), ENTRIES)
    }

    /// Of so many bytes, where it is known how many there are.
    pub(super) fn of_bytes(count: Option<u64>) -> Self {
        Self::with(count, if count.is_some() { BYTES } else { ENDLESS })
    }

    /// Of a load that takes so long, or so many operations.
    pub(super) fn of_load(length: u64) -> Self {
        Self::with(Some(length), LOAD)
    }

    fn with(count: Option<u64>, template: &str) -> Self {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::with_draw_target(count, ProgressDrawTarget::stderr()).with_style(style))
    }

    pub(super) fn reach(&self, position: u64) {
        self.0.set_position(position);
    }

    /// Says so beside the bar.
    pub(super) fn say(&self, message: String) {
        self.0.set_message(message);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What was done, for the last line.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub(super) struct Summary {
    /// The verb: "exported".
    #[serde(skip)]
    pub(super) done: &'static str,
    pub(super) buckets: u64,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// Buckets and entries that were left out…
    pub(super) skipped: u64,
    /// …because of this.
    #[serde(skip)]
    pub(super) skipped_because: &'static str,
    /// Buckets that ended while they were exported.
    pub(super) cut_short: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, buckets, entries, bytes, skipped, skipped_because, cut_short } = self;
        write!(f, "{done} {buckets} bucket{}, ", if *buckets == 1 { "" } else { "s" })?;
        write!(f, "{entries} entr{}, {bytes} bytes", if *entries == 1 { "y" } else { "ies" })?;
        if *skipped > 0 {
            write!(f, "; left out {skipped} {skipped_because}")?;
        }
        if *cut_short > 0 {
            write!(f, "; {cut_short} cut short by the bucket's end while it was exported")?;
        }
        Ok(())
    }
}

impl Summary {
    /// The line for standard error.
    pub(super) fn line(&self, format: Format) -> String {
        match format {
            Format::Text => format!("pail: {self}"),
            Format::Json => serde_json::to_string(self).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_is_one_that_can_be_drawn() {
        for template in [ENTRIES, BYTES, LOAD, ENDLESS] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn a_summary_tells_of_what_was_left_out_only_if_something_was() {
        let mut summary = Summary { done: "exported", buckets: 2, entries: 3, bytes: 99, ..Summary::default() };
        assert_eq!(summary.line(Format::Text), "pail: exported 2 buckets, 3 entries, 99 bytes");
        (summary.buckets, summary.entries) = (1, 1);
        assert_eq!(summary.line(Format::Text), "pail: exported 1 bucket, 1 entry, 99 bytes");
        (summary.buckets, summary.entries) = (2, 3);
        (summary.skipped, summary.skipped_because, summary.cut_short) = (1, "that ended meanwhile", 1);
        assert_eq!(
            summary.line(Format::Text),
            "pail: exported 2 buckets, 3 entries, 99 bytes; left out 1 that ended meanwhile; 1 cut short by the bucket's \
             end while it was exported"
        );
        assert_eq!(summary.line(Format::Json), r#"{"buckets":2,"entries":3,"bytes":99,"skipped":1,"cut_short":1}"#);
    }
}
