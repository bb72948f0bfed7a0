//! Whom a worker turns away when more is asked of it than it can do.
//!
//! Who waits in a queue that only grows waits for nothing: its client has gone by the time it is served, and so have all
//! behind it. So a worker that hardly rested for [`WINDOW`] takes no more from its connections in one round than
//! `--queue-time-max`, and refuses the rest at once, from its headers, before its body is decoded: OVERLOADED, with the
//! time to try again. A burst that is shorter is done, and so is any number of calls that one round can hold. (Controlled
//! delay, as in "Fail at Scale", Maurer 2015.)
//!
//! Each connection has the same share of a round, whatever it asks for: who asks for much is refused much, and takes
//! nothing from who asks for little. What a call took beyond the share is paid for in rounds to come. (Deficit round
//! robin, Shreedhar and Varghese 1995.)
//!
//! A worker is one thread, and so its state is the thread's.

use std::{
    cell::Cell,
    sync::LazyLock,
    time::{Duration, Instant},
};

use http::{HeaderMap, Response};
use tokio::runtime::{Handle, RuntimeFlavor};
use tonic::{Status, body::Body};

use crate::service::status::{Failure, Reason};

/// How long a worker must have been at work before it refuses: what is over sooner is a burst. One that has rested is as
/// it was after as long.
const WINDOW: Duration = Duration::from_millis(100);

/// Of a window, as much work is no rest: nine tenths. What it refuses, a worker can't rest in between.
const BUSY_TENTHS: u32 = 9;

thread_local! {
    static WORKER: Worker = const { Worker::new() };
}

#[derive(Debug)]
struct Worker {
    /// Which window this is. 0 has not begun.
    window: Cell<u64>,
    began: Cell<Option<Instant>>,
    /// How long the worker had been at work by then, in all its life.
    worked: Cell<Duration>,
    /// Connections that had a turn in this window.
    connections: Cell<u32>,
    /// And in the one before.
    connections_before: Cell<u32>,
    is_full: Cell<bool>,
    /// When the connection whose turn it is has had its share. `None` where nobody counts.
    until: Cell<Option<Instant>>,
}

impl Worker {
    const fn new() -> Self {
        Self {
            window: Cell::new(0),
            began: Cell::new(None),
            worked: Cell::new(Duration::ZERO),
            connections: Cell::new(0),
            connections_before: Cell::new(0),
            is_full: Cell::new(false),
            until: Cell::new(None),
        }
    }

    /// Ends the window if it is over; `worked` says how long the worker has been at work in all.
    fn look(&self, now: Instant, worked: impl FnOnce() -> Duration) {
        let window = self.began.get().map(|began| now.saturating_duration_since(began));
        if window.is_some_and(|window| window < WINDOW) {
            return;
        }
        let worked = worked();
        let work = worked.saturating_sub(self.worked.replace(worked));
        self.is_full.set(window.is_some_and(|window| work * 10 >= window * BUSY_TENTHS));
        self.connections_before.set(self.connections.replace(0));
        self.window.set(self.window.get() + 1);
        self.began.set(Some(now));
    }
}

/// How long this thread's runtime has been at work; nothing where it is one of many threads, each of which takes from the others.
fn worked() -> Duration {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread => {
            runtime.metrics().worker_total_busy_duration(0)
        }
        _ => Duration::ZERO,
    }
}

/// A connection's share of its worker.
#[derive(Debug)]
pub(super) struct Share {
    /// What a round may take of all connections.
    round_max: Duration,
    /// What it owes, having taken more.
    debt: Duration,
    /// When it last had a turn.
    last: Instant,
    /// In which window.
    window: u64,
}

impl Share {
    pub(super) fn new(round_max: Duration) -> Self {
        Self { round_max, debt: Duration::ZERO, last: Instant::now(), window: 0 }
    }

    /// Begins a turn of the connection: [`has_room`] is about it from here on.
    pub(super) fn begin(&mut self) {
        self.begin_at(Instant::now(), worked);
    }

    fn begin_at(&mut self, now: Instant, worked: impl FnOnce() -> Duration) {
        WORKER.with(|worker| {
            worker.look(now, worked);
            if self.window != worker.window.get() {
                self.window = worker.window.get();
                worker.connections.set(worker.connections.get() + 1);
            }
            let since = now.saturating_duration_since(std::mem::replace(&mut self.last, now));
            if !worker.is_full.get() {
                self.debt = Duration::ZERO;
                return;
            }
            let connections = worker.connections_before.get().max(1);
            let share = self.round_max / connections;
            // A debt is paid by turns, and by time where others have many more.
            let debt = self.debt.saturating_sub(since / connections);
            self.debt = debt.saturating_sub(share);
            worker.until.set(Some(now + share.saturating_sub(debt)));
        });
    }

    /// Ends the turn.
    pub(super) fn end(&mut self) {
        if let Some(until) = WORKER.with(|worker| worker.until.take()) {
            self.end_at(until, Instant::now());
        }
    }

    fn end_at(&mut self, until: Instant, now: Instant) {
        self.debt += now.saturating_duration_since(until);
    }
}

/// Whether a call may begin.
pub(super) fn has_room() -> bool {
    WORKER.with(|worker| worker.until.get().is_none_or(|until| Instant::now() < until))
}

/// The answer to a call that may not. It is always the same, and made once: it is to cost little.
pub(super) fn overloaded() -> Response<Body> {
    static HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| {
        let words = "the server has more to do than it can: nothing was done; try again after a while";
        Status::from(Failure::new(Reason::Overloaded, words)).into_http::<Body>().into_parts().0.headers
    });
    let mut response = Response::new(Body::empty());
    response.headers_mut().clone_from(&HEADERS);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_secs(10);

    /// A thread of its own is a worker of its own.
    fn on_a_worker(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    /// Turns of connections, one each ms, of a worker that works for so many tenths of the time, until it has judged.
    fn windows(shares: &mut [Share], tenths: u32) -> Instant {
        let end = Instant::now();
        let begin = end - 2 * WINDOW;
        for ms in 0..=200 {
            let now = begin + Duration::from_millis(ms);
            for share in &mut *shares {
                share.begin_at(now, || (now - begin) * tenths / 10);
                share.end_at(now, now);
                WORKER.with(|worker| worker.until.take());
            }
        }
        end
    }

    /// A turn of a connection, which takes so much time: how much it had.
    fn turn(share: &mut Share, now: Instant, takes: Duration) -> Option<Duration> {
        share.begin_at(now, || unreachable!("the window is not over"));
        let until = WORKER.with(|worker| worker.until.take())?;
        share.end_at(until, now + takes);
        Some(until - now)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_worker_that_rests_refuses_nobody() {
        on_a_worker(|| {
            let mut shares = [Share::new(ROUND)];
            let now = windows(&mut shares, 8);
            assert_eq!(turn(&mut shares[0], now, SECOND), None);
        });
    }

    #[test]
    fn a_burst_is_done_whole() {
        on_a_worker(|| {
            let begin = Instant::now();
            let mut share = Share::new(ROUND);
            for ms in [0, 99] {
                share.begin_at(begin + Duration::from_millis(ms), || Duration::from_millis(ms));
                assert!(has_room());
            }
        });
    }

    #[test]
    fn one_that_never_rests_takes_what_a_round_holds_and_no_more() {
        on_a_worker(|| {
            let mut shares = [Share::new(ROUND)];
            let now = windows(&mut shares, 10);
            assert_eq!([0; 3].map(|_| turn(&mut shares[0], now, ROUND)), [Some(ROUND); 3]);
        });
    }

    #[test]
    fn each_connection_has_its_share_and_pays_its_debts() {
        on_a_worker(|| {
            let mut shares = [(); 10].map(|()| Share::new(ROUND));
            let now = windows(&mut shares, 10);
            let [one, other, third, ..] = &mut shares;
            assert_eq!(turn(one, now, 3 * SECOND + SECOND / 2), Some(SECOND));
            assert_eq!(turn(other, now, SECOND), Some(SECOND), "others have theirs");
            let zero = Duration::ZERO;
            assert_eq!([0; 4].map(|_| turn(one, now, zero).unwrap()), [zero, zero, SECOND / 2, SECOND]);
            assert_eq!(turn(third, now, 4 * SECOND), Some(SECOND));
            let later = now + 99 * WINDOW / 100;
            let paid = (later - now) / 10;
            assert_eq!(turn(third, later, zero), Some(zero));
            assert_eq!(third.debt, 2 * SECOND - paid, "time pays too");
        });
    }

    #[test]
    fn a_share_is_over_when_its_time_is() {
        on_a_worker(|| {
            let mut shares = [Share::new(Duration::from_millis(20))];
            let now = windows(&mut shares, 10);
            shares[0].begin_at(now, || unreachable!("the window is not over"));
            let until = WORKER.with(|worker| worker.until.get()).unwrap();
            while Instant::now() < until {}
            assert!(!has_room());
            shares[0].end();
            assert!(has_room(), "it is nobody's turn");
        });
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_again() {
        let status = Status::from_header_map(overloaded().headers()).unwrap();
        let details = tonic_types::StatusExt::get_error_details(&status);
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
        assert!(details.retry_info().is_some());
    }
}
