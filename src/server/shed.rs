//! Whom a worker turns away when more is asked of it than it can do.
//!
//! Who waits in a queue that only grows waits for nothing: its client has gone by the time it is served, and so have all
//! behind it. So a worker that hardly rested for [`WINDOW`], and whose rounds are long, takes no more from its connections in
//! one round than two fifths of `--queue-time-max`, less what refusing takes. The rest it refuses at once, from its headers,
//! before its body is decoded: OVERLOADED, with the time to try again. A burst that is shorter is done, and so is any number
//! of calls that one round can hold; what one connection asks for at once is cut off where it has lasted for [`WINDOW`] and
//! for a round. (Controlled delay, as in "Fail at Scale", Maurer 2015.) A window is one of work: who has no processor, for
//! others have it, does not refuse on their account.
//!
//! Each connection has the same share of a round, whatever it asks for: who asks for much is refused much, and takes
//! nothing from who asks for little. What a call took beyond the share is paid for in rounds to come. (Deficit round
//! robin, Shreedhar and Varghese 1995.) Who owes nothing has one call at least, however little a share is: ten thousand
//! connections that come back at once, with a call each, are a long round and no queue.
//!
//! A worker is one thread, and so its state is the thread's.

use std::{
    cell::Cell,
    mem,
    sync::LazyLock,
    time::{Duration, Instant},
};

use http::{HeaderMap, Response};
use rustix::time::{ClockId, clock_gettime};
use tonic::{Status, body::Body};

use crate::{
    planted::{self, Bug},
    service::status::{Failure, Reason},
};

/// How long a worker must have been at work before it refuses: what is over sooner is a burst. One that has rested is as
/// it was after as long.
const WINDOW: Duration = Duration::from_millis(100);

/// It has rested if it did for this part of the time.
const REST: u32 = 10;

/// So much of a window it must have had a processor: one that has to wait for that itself, on a machine that is busy with other things,
/// has not too much to do.
const WORK: Duration = Duration::from_millis(90);

/// While a worker is not full, its clock is read for one in so many calls: the others take less time than that.
const CALLS_A_LOOK: u32 = 16;

thread_local! {
    static WORKER: Worker = const { Worker::new() };
}

#[derive(Debug)]
struct Worker {
    /// Which window this is. 0 has not begun.
    window: Cell<u64>,
    began: Cell<Option<Instant>>,
    /// When it may be over: nobody looks before.
    due: Cell<Option<Instant>>,
    /// What the thread had had of a processor then.
    cpu_began: Cell<Duration>,
    /// Since when it rests.
    asleep: Cell<Option<Instant>>,
    /// How long it rested in this window. `None` where it never did.
    rest: Cell<Option<Duration>>,
    /// Turns of all connections in this window.
    turns: Cell<u32>,
    /// Connections that had one.
    connections: Cell<u32>,
    /// And in the one before.
    connections_before: Cell<u32>,
    is_full: Cell<bool>,
    /// In the window before.
    has_rested: Cell<bool>,
    /// What all calls of a round may take, where it is full.
    room: Cell<Duration>,
    /// A call in this window.
    has_refused: Cell<bool>,
    /// What the connection whose turn it is may still take. `None` where nobody counts.
    turn: Cell<Option<Allotted>>,
}

/// What a connection may take in its turn: its share of a round, or a burst where the worker is not full.
#[derive(Debug, Clone, Copy)]
struct Allotted {
    /// Its share is over then.
    until: Instant,
    /// The worker is full: the clock is read for each call.
    is_full: bool,
    /// A first call has room however small the share is: it owes nothing, and had none yet.
    has_first: bool,
    calls: u32,
    /// A call was refused: what came after is not what it took.
    refused: Option<Instant>,
}

impl Worker {
    const fn new() -> Self {
        Self {
            window: Cell::new(0),
            began: Cell::new(None),
            due: Cell::new(None),
            cpu_began: Cell::new(Duration::ZERO),
            asleep: Cell::new(None),
            rest: Cell::new(None),
            turns: Cell::new(0),
            connections: Cell::new(0),
            connections_before: Cell::new(0),
            is_full: Cell::new(false),
            has_rested: Cell::new(false),
            room: Cell::new(Duration::ZERO),
            has_refused: Cell::new(false),
            turn: Cell::new(None),
        }
    }

    /// Ends the window if it is over.
    fn look(&self, now: Instant, cpu: impl FnOnce() -> Duration, round_max: Duration) {
        if self.due.get().is_some_and(|due| now < due) {
            return;
        }
        let window = self.began.get().map(|began| now.saturating_duration_since(began));
        let cpu = cpu();
        let work = cpu.saturating_sub(self.cpu_began.get());
        let rest = self.rest.get();
        let has_rested = window.zip(rest).is_none_or(|(window, rest)| rest >= window / REST);
        if !has_rested && work < WORK {
            // Not at each turn, since to ask for the thread's time is a system call.
            self.due.set(Some(now + (WORK - work)));
            return;
        }
        let (turns, connections) = (self.turns.take(), self.connections.take());
        let round = work * connections / turns.max(1);
        // Those who wait for their answers keep a worker busy too: it is full where they wait for long, and then for as long as
        // somebody is refused.
        let has_refused = self.has_refused.take();
        let was_full = self.is_full.get();
        // One rest is not the end of it: those who asked may have had no processor for a moment.
        let has_rested_before = self.has_rested.replace(has_rested);
        let is_full = if was_full {
            has_refused && !(has_rested && has_rested_before)
        } else {
            !has_rested && round >= round_max
        };
        self.is_full.set(is_full && !planted::strikes(Bug::OpenGate));
        // What else a round takes, refusals above all, is time that those in it wait, too.
        let beside = if was_full { round.saturating_sub(self.room.get()) } else { Duration::ZERO };
        self.room.set(round_max.saturating_sub(beside).max(round_max / 2));
        self.rest.set(rest.map(|_| Duration::ZERO));
        self.connections_before.set(connections);
        self.window.set(self.window.get() + 1);
        self.began.set(Some(now));
        self.due.set(Some(now + WINDOW));
        self.cpu_began.set(cpu);
    }

    /// Whether it has been at work for a window.
    fn has_worked(&self) -> bool {
        cpu_time().saturating_sub(self.cpu_began.get()) >= WINDOW
    }
}

/// What this thread has had of a processor.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

impl Allotted {
    /// Whether one more call may begin.
    fn has_room(&mut self, worker: &Worker) -> bool {
        if self.refused.is_some() {
            return false;
        }
        let looks = !mem::take(&mut self.has_first) && (self.is_full || self.calls.is_multiple_of(CALLS_A_LOOK));
        self.refused =
            looks.then(Instant::now).filter(|now| *now >= self.until && (self.is_full || worker.has_worked()));
        self.calls += u32::from(self.refused.is_none());
        self.refused.is_none()
    }
}

/// The thread goes to sleep for want of work. To be called by its runtime; a thread that never does refuses nobody.
pub(super) fn rests() {
    WORKER.with(|worker| worker.asleep.set(Some(Instant::now())));
}

/// The thread has woken up. Returns for how long it has slept.
pub(super) fn is_back() -> Duration {
    WORKER.with(|worker| {
        let slept = worker.asleep.take().map(|since| since.elapsed()).unwrap_or_default();
        worker.rest.set(Some(worker.rest.get().unwrap_or_default() + slept));
        slept
    })
}

/// A connection's share of its worker.
#[derive(Debug)]
pub(super) struct Share {
    /// What a round of all connections may take.
    round_max: Duration,
    /// What it owes, having taken more.
    debt: Duration,
    /// When it last had a turn.
    last: Instant,
    /// In which window.
    window: u64,
}

impl Share {
    /// Who has just missed its connection's turn waits for a whole round, and then for those before it: two rounds and what
    /// comes in between are `queue_time_max`.
    pub(super) fn new(queue_time_max: Duration) -> Self {
        Self { round_max: queue_time_max * 2 / 5, debt: Duration::ZERO, last: Instant::now(), window: 0 }
    }

    /// Begins a turn of the connection, and says when that is: [`has_room`] is about it from here on.
    pub(super) fn begin(&mut self) -> Instant {
        let now = Instant::now();
        self.begin_at(now, cpu_time);
        now
    }

    fn begin_at(&mut self, now: Instant, cpu: impl FnOnce() -> Duration) {
        WORKER.with(|worker| {
            worker.look(now, cpu, self.round_max);
            worker.turns.set(worker.turns.get() + 1);
            if self.window != worker.window.get() {
                self.window = worker.window.get();
                worker.connections.set(worker.connections.get() + 1);
            }
            let since = now.saturating_duration_since(mem::replace(&mut self.last, now));
            // The turn before may have ended with its connection.
            worker.turn.set(None);
            if worker.rest.get().is_none() {
                return;
            }
            let connections = worker.connections_before.get().max(1);
            let share = worker.room.get() / connections;
            let is_full = worker.is_full.get();
            let share_now = if is_full {
                share.saturating_sub(self.debt)
            } else {
                self.debt = Duration::ZERO;
                WINDOW.max(self.round_max)
            };
            let (until, has_first) = (now + share_now, self.debt.is_zero());
            worker.turn.set(Some(Allotted { until, is_full, has_first, calls: 0, refused: None }));
            // A debt is paid by turns, or by time where others have many more.
            self.debt = self.debt.saturating_sub(share.max(since / connections));
        });
    }

    /// Ends the turn.
    pub(super) fn end(&mut self) {
        if let Some(turn) = WORKER.with(|worker| worker.turn.take()) {
            self.end_at(turn, Instant::now());
        }
    }

    fn end_at(&mut self, turn: Allotted, now: Instant) {
        if turn.calls > 0 {
            self.debt += turn.refused.unwrap_or(now).saturating_duration_since(turn.until);
        }
    }
}

/// Whether a call may begin.
pub(super) fn has_room() -> bool {
    WORKER.with(|worker| {
        let Some(mut turn) = worker.turn.get() else { return true };
        let has_room = turn.has_room(worker);
        worker.has_refused.set(worker.has_refused.get() || !has_room);
        worker.turn.set(Some(turn));
        has_room
    })
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

    const ROUND: Duration = Duration::from_millis(10);
    const QUEUE: Duration = Duration::from_millis(25);
    const MS: Duration = Duration::from_millis(1);

    static EPOCH: LazyLock<Instant> = LazyLock::new(|| Instant::now() - Duration::from_secs(60));

    /// Of one that always has a processor.
    fn cpu(now: Instant) -> impl FnOnce() -> Duration {
        move || now - *EPOCH
    }

    /// A thread of its own is a worker of its own.
    fn on_a_worker(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    /// Turns of connections, one every 10 ms, of a worker that rests as long before each, until it has judged.
    fn windows(shares: &mut [Share], rest: Duration) -> Instant {
        let end = Instant::now();
        let begin = end - WINDOW;
        for ms in (0..=100).step_by(10) {
            let now = begin + Duration::from_millis(ms);
            WORKER.with(|worker| worker.rest.set(Some(worker.rest.get().unwrap_or_default() + rest)));
            for share in &mut *shares {
                share.begin_at(now, cpu(now));
                WORKER.with(|worker| worker.turn.take());
            }
        }
        end
    }

    /// A turn of a connection, whose calls take so much time: how much it had.
    fn turn(share: &mut Share, now: Instant, takes: Duration) -> Option<Duration> {
        share.begin_at(now, cpu(now));
        let turn = WORKER.with(|worker| worker.turn.take())?;
        share.end_at(Allotted { calls: 1, ..turn }, now + takes);
        Some(turn.until - now)
    }

    #[test]
    fn a_worker_that_rests_refuses_nobody() {
        on_a_worker(|| {
            let mut shares = [Share::new(QUEUE)];
            let now = windows(&mut shares, Duration::from_millis(2));
            assert_eq!([0; 2].map(|_| turn(&mut shares[0], now, ROUND)), [Some(WINDOW); 2], "a burst");
        });
    }

    #[test]
    fn a_thread_that_is_not_known_to_rest_refuses_nobody() {
        on_a_worker(|| {
            let (begin, mut share) = (Instant::now(), Share::new(QUEUE));
            share.begin_at(begin, cpu(begin));
            assert_eq!(turn(&mut share, begin + WINDOW, WINDOW), None);
        });
    }

    #[test]
    fn one_that_waits_for_a_processor_itself_refuses_nobody() {
        on_a_worker(|| {
            let (mut share, now) = (Share::new(QUEUE), Instant::now());
            share.begin_at(now - 2 * WINDOW, || MS);
            WORKER.with(|worker| worker.rest.set(Some(Duration::ZERO)));
            share.begin_at(now - WINDOW, || MS + WORK - MS);
            assert!(!WORKER.with(|worker| worker.is_full.get()), "it had too little of one");
            share.begin_at(now, || MS + WORK);
            assert!(WORKER.with(|worker| worker.is_full.get()), "and now enough");
        });
    }

    #[test]
    fn one_that_waits_for_a_processor_is_not_asked_at_each_turn_what_it_had() {
        on_a_worker(|| {
            let (mut share, now, asked) = (Share::new(QUEUE), Instant::now(), Cell::new(0));
            WORKER.with(|worker| worker.rest.set(Some(Duration::ZERO)));
            share.begin_at(now, || Duration::ZERO);
            let mut turn = |after, work| {
                share.begin_at(now + after, || {
                    asked.set(asked.get() + 1);
                    work
                });
                asked.get()
            };
            assert_eq!([WINDOW - MS, WINDOW].map(|after| turn(after, WORK / 2)), [0, 1], "when the window is over");
            assert_eq!(
                [1, 44, 45].map(|ms| turn(WINDOW + MS * ms, WORK - MS)),
                [1, 1, 2],
                "when it can have had the rest"
            );
            assert_eq!([45, 46, 47].map(|ms| turn(WINDOW + MS * ms, WORK)), [2, 3, 3], "and then a window begins");
        });
    }

    #[test]
    fn one_whose_rounds_are_short_refuses_nobody() {
        on_a_worker(|| {
            let mut shares = [Share::new(QUEUE * 3)];
            let now = windows(&mut shares, Duration::ZERO);
            assert_eq!(turn(&mut shares[0], now, WINDOW), Some(WINDOW), "a burst");
        });
    }

    #[test]
    fn a_burst_is_cut_off_where_it_is_overload_by_itself() {
        on_a_worker(|| {
            let mut shares = [Share::new(QUEUE)];
            let now = windows(&mut shares, WINDOW / REST);
            shares[0].begin_at(now - WINDOW, cpu(now));
            assert!((0..100).all(|_| has_room()), "it had no processor for as long");
            shares[0].begin_at(now - WINDOW, cpu(now));
            WORKER.with(|worker| worker.cpu_began.set(Duration::ZERO));
            while cpu_time() < WINDOW {}
            let taken = (0..100).take_while(|_| has_room()).count();
            assert_eq!(taken, CALLS_A_LOOK as usize, "so often is the clock read");
            assert!(!has_room());
        });
    }

    #[test]
    fn a_burst_may_last_as_long_as_calls_may_wait() {
        on_a_worker(|| {
            let mut shares = [Share::new(QUEUE * 100)];
            let now = windows(&mut shares, WINDOW / REST);
            assert_eq!(turn(&mut shares[0], now, WINDOW), Some(ROUND * 100));
        });
    }

    #[test]
    fn one_is_full_for_as_long_as_somebody_is_refused() {
        on_a_worker(|| {
            let mut shares = [Share::new(QUEUE)];
            let mut now = windows(&mut shares, Duration::ZERO);
            for is_refused in [true, true, false] {
                WORKER.with(|worker| worker.has_refused.set(is_refused));
                now += WINDOW;
                assert_eq!(turn(&mut shares[0], now, Duration::ZERO) == Some(ROUND / 2), is_refused);
            }
        });
    }

    #[test]
    fn one_rest_does_not_end_what_two_do() {
        on_a_worker(|| {
            let mut shares = [Share::new(QUEUE)];
            let mut now = windows(&mut shares, Duration::ZERO);
            for (rest, is_full) in [(WINDOW, true), (Duration::ZERO, true), (WINDOW, true), (WINDOW, false)] {
                WORKER.with(|worker| worker.has_refused.set(true));
                WORKER.with(|worker| worker.rest.set(Some(rest)));
                now += WINDOW;
                assert_eq!(turn(&mut shares[0], now, Duration::ZERO) == Some(ROUND / 2), is_full);
            }
        });
    }

    #[test]
    fn a_turn_that_ended_with_its_connection_refuses_nobody_after_it() {
        on_a_worker(|| {
            let mut shares = [Share::new(QUEUE)];
            let now = windows(&mut shares, Duration::ZERO);
            shares[0].begin_at(now - 2 * ROUND, cpu(now));
            assert_eq!([(); 2].map(|()| has_room()), [true, false]);
            WORKER.with(|worker| worker.is_full.set(false));
            Share::new(QUEUE).begin_at(now, cpu(now));
            assert!(has_room());
        });
    }

    #[test]
    fn rest_is_what_is_between_sleep_and_waking() {
        on_a_worker(|| {
            rests();
            std::thread::sleep(10 * MS);
            is_back();
            assert!(WORKER.with(|worker| worker.rest.get()) >= Some(10 * MS));
        });
    }

    #[test]
    fn one_that_never_rests_takes_what_a_round_holds_and_no_more() {
        on_a_worker(|| {
            let mut shares = [Share::new(QUEUE)];
            let now = windows(&mut shares, Duration::from_micros(100));
            assert_eq!([0; 3].map(|_| turn(&mut shares[0], now, ROUND)), [Some(ROUND); 3]);
        });
    }

    #[test]
    fn each_connection_has_its_share_and_pays_its_debts() {
        on_a_worker(|| {
            let mut shares = [(); 10].map(|()| Share::new(QUEUE));
            let now = windows(&mut shares, Duration::from_micros(100));
            let [one, other, ..] = &mut shares;
            assert_eq!(turn(one, now, 3 * MS + MS / 2), Some(MS));
            assert_eq!(turn(other, now, MS), Some(MS), "others have theirs");
            let zero = Duration::ZERO;
            assert_eq!([0; 4].map(|_| turn(one, now, zero).unwrap()), [zero, zero, MS / 2, MS]);
        });
    }

    #[test]
    fn what_refusing_takes_is_taken_from_the_calls_of_the_round() {
        on_a_worker(|| {
            let mut shares = [Share::new(QUEUE)];
            // Ten turns a window, of 10 ms each.
            let now = windows(&mut shares, Duration::ZERO);
            let room = |ms| WORKER.with(|worker| worker.room.replace(MS * ms));
            assert_eq!(room(8), ROUND, "nobody was refused");
            let mut window = |from: Instant| {
                for ms in (10..=100).step_by(10) {
                    WORKER.with(|worker| worker.has_refused.set(true));
                    turn(&mut shares[0], from + MS * ms, Duration::ZERO);
                }
                from + WINDOW
            };
            let now = window(now);
            assert_eq!(room(1), 8 * MS, "2 ms were refusals");
            window(now);
            assert_eq!(room(0), ROUND / 2, "and never more than half");
        });
    }

    #[test]
    fn a_crowd_has_a_call_each_and_pays_for_it() {
        on_a_worker(|| {
            let mut shares = [(); 1_000].map(|()| Share::new(QUEUE));
            let now = windows(&mut shares, Duration::from_micros(100));
            for share in &mut shares {
                share.begin_at(now - ROUND, cpu(now));
                assert_eq!([(); 2].map(|()| has_room()), [true, false]);
                share.end();
                share.begin_at(now - ROUND, cpu(now));
                assert!(!has_room(), "it owes for its first");
                share.end();
            }
        });
    }

    #[test]
    fn what_is_no_call_costs_nothing() {
        on_a_worker(|| {
            let mut shares = [Share::new(QUEUE)];
            let now = windows(&mut shares, Duration::ZERO);
            shares[0].begin_at(now, cpu(now));
            let turn = WORKER.with(|worker| worker.turn.take()).unwrap();
            shares[0].end_at(turn, now + WINDOW);
            assert_eq!(shares[0].debt, Duration::ZERO, "a handshake");
            shares[0].end_at(Allotted { calls: 1, refused: Some(turn.until + MS), ..turn }, now + WINDOW);
            assert_eq!(shares[0].debt, MS, "refusals");
        });
    }

    #[test]
    fn time_pays_too() {
        on_a_worker(|| {
            let mut shares = [(); 10].map(|()| Share::new(QUEUE));
            let now = windows(&mut shares, Duration::from_micros(100));
            let ms = Duration::from_millis;
            assert_eq!(turn(&mut shares[0], now, ms(10)), Some(ms(1)));
            assert_eq!(turn(&mut shares[0], now + ms(90), ms(0)), Some(ms(0)));
            assert_eq!(turn(&mut shares[0], now + ms(90), ms(0)), Some(ms(1)), "its tenth of 90 ms has paid for 9");
        });
    }

    #[test]
    fn a_share_is_over_when_its_time_is() {
        on_a_worker(|| {
            let mut shares = [Share::new(QUEUE)];
            let now = windows(&mut shares, Duration::from_micros(100));
            shares[0].begin_at(now, cpu(now));
            let until = WORKER.with(|worker| worker.turn.get()).unwrap().until;
            while Instant::now() < until {}
            assert_eq!([(); 2].map(|()| has_room()), [true, false], "but for its first call");
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
