//! A line of the log that anybody could cause: at most one every five seconds, with how often it would have been there.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const EVERY: Duration = Duration::from_secs(5);

/// How often something happened since it was told of.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<(u64, Option<Instant>)>);

impl Seldom {
    /// It has happened. Where it is time to tell, how often it has since that was told before.
    pub(super) fn count(&self) -> Option<u64> {
        let (count, told) = &mut *self.0.lock();
        *count += 1;
        let now = Instant::now();
        if told.is_some_and(|told| now.duration_since(told) < EVERY) {
            return None;
        }
        *told = Some(now);
        Some(std::mem::take(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_once_and_then_not_for_a_while_and_nothing_is_left_out_of_the_count() {
        let seldom = Seldom::default();
        assert_eq!(seldom.count(), Some(1));
        assert_eq!((seldom.count(), seldom.count()), (None, None));
        seldom.0.lock().1 = Instant::now().checked_sub(EVERY);
        assert_eq!(seldom.count(), Some(3));
    }
}
