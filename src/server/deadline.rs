//! A call's deadline, as its client sends it: `grpc-timeout` by the letter of gRPC over HTTP/2.
//!
//! A deadline is measured from the moment when the request's headers are read. Until a call has to wait, a deadline costs
//! a look at the clock; only then it takes a timer.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::HeaderMap;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::service::status::{Failure, Reason};

const HEADER: &str = "grpc-timeout";

#[derive(Debug)]
pub(super) struct Deadline {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// The deadline that the headers ask for. One too far away to be reckoned with is none.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Failure> {
        let Some(value) = headers.get(HEADER) else { return Ok(None) };
        let timeout = parse(value.as_bytes()).ok_or_else(|| {
            let words = format!("{HEADER} is {value:?}: 1 to 8 digits and one of H, M, S, m, u, n are allowed");
            Failure::new(Reason::InvalidOption, words).field(HEADER)
        })?;
        Ok(Instant::now().checked_add(timeout).map(|at| Self { at, timer: None }))
    }

    pub(super) fn has_passed(&self) -> bool {
        self.at <= Instant::now()
    }

    /// Wakes the task when the deadline passes.
    pub(super) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(self.at))).as_mut().poll(cx)
    }
}

/// `TimeoutValue TimeoutUnit`: a positive integer of at most 8 ASCII digits, and a unit. Zero is let in: clients send it
/// when their time has run out on the way.
fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(value * 3_600)),
        b'M' => Some(Duration::from_secs(value * 60)),
        b'S' => Some(Duration::from_secs(value)),
        b'm' => Some(Duration::from_millis(value)),
        b'u' => Some(Duration::from_micros(value)),
        b'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        assert_eq!(parse(b"2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(parse(b"3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse(b"00000001S"), Some(Duration::from_secs(1)));
        assert_eq!(parse(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(parse(b"7m"), Some(Duration::from_millis(7)));
        assert_eq!(parse(b"8u"), Some(Duration::from_micros(8)));
        assert_eq!(parse(b"0n"), Some(Duration::ZERO));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "S", "1", "100000000S", "-1S", "+1S", "1.5S", " 1S", "1s", "1 S", "1SS", "\u{661}S"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_malformed_timeout_names_its_field() {
        let headers = HeaderMap::from_iter([(http::HeaderName::from_static(HEADER), "soon".parse().unwrap())]);
        let failure = Deadline::of(&headers).unwrap_err();
        assert_eq!(failure.reason(), Reason::InvalidOption);
    }
}
