//! What is nearly full, as the server's metrics tell.

use super::{Looked, note, ok};
use crate::client::metrics::Metrics;

/// A part of a limit that is worth a word.
const FULL: f64 = 0.8;

pub(super) fn judge(metrics: &Metrics) -> Looked {
    let limits = metrics.limits();
    if limits.is_empty() {
        return Err("there are no metrics of pail's: is it the port of 'pail serve --admin'?".to_owned());
    }
    let full = limits.iter().filter(|(_, there, max)| *there >= FULL * max);
    let full: Vec<String> =
        full.map(|(what, there, max)| format!("{what} is at {:.0} %", 100.0 * there / max)).collect();
    if full.is_empty() {
        return ok(format!("all {} are below {:.0} %", limits.len(), FULL * 100.0));
    }
    note(format!("{}: raise the limit, or find out who fills it", full.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn what_is_nearly_full_is_named() {
        let metrics = |buckets| {
            Metrics::parse(&format!(
                "pail_buckets {buckets}\npail_buckets_max 10\nprocess_open_fds 1\nprocess_max_fds 4\n"
            ))
        };
        assert_eq!(judge(&metrics(1)), ok("all 2 are below 80 %"));
        let (verdict, words) = judge(&metrics(9)).unwrap();
        assert_eq!(verdict, Verdict::Note);
        assert!(words.starts_with("pail_buckets is at 90 %"), "{words}");
        judge(&Metrics::default()).unwrap_err();
    }
}
