//! What the server counts: calls by method, how they ended and how long they took, and connections.
//!
//! Each worker counts by numbers of its own, which nobody else writes; they are added up when somebody asks.

use std::{
    cell::{Cell, RefCell},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tonic::Code;

use super::guard::Cut;
use crate::service::{allowance::Allowance, streams};

/// How many codes gRPC has.
const CODES: usize = 17;

/// Bounds of the latencies that are told apart, in microseconds.
const BOUNDS_US: [u32; 13] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_500_000];

/// All that one server counts.
#[derive(Debug, Default)]
pub struct Meter {
    methods: Mutex<Vec<Arc<Method>>>,
    allowances: Mutex<Option<[Allowance; 2]>>,
    pub(super) connections: Connections,
}

/// The connections of a server.
#[derive(Debug, Default)]
pub(super) struct Connections {
    accepted: AtomicU64,
    open: AtomicUsize,
    ended: [AtomicU64; Ending::ALL.len()],
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// Its client, or both.
    Closed,
    /// The network, a client that did not answer a ping, or one that does not speak HTTP/2.
    Failed,
    /// No handshake, or not in time.
    NotOpened,
    /// Too many frames that bring no call forward.
    Flood,
    /// Something that began and did not end.
    TooSlow,
    /// Nobody used it.
    Idle,
    /// Its age.
    Age,
    /// The server drained.
    Drained,
}

impl Ending {
    const ALL: [Self; 8] =
        [Self::Closed, Self::Failed, Self::NotOpened, Self::Flood, Self::TooSlow, Self::Idle, Self::Age, Self::Drained];

    fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::NotOpened => "not_opened",
            Self::Flood => "flood",
            Self::TooSlow => "too_slow",
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Drained => "drained",
        }
    }
}

impl From<Cut> for Ending {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Flood => Self::Flood,
            Cut::TooSlow => Self::TooSlow,
        }
    }
}

impl Connections {
    /// One more; it is open until this is dropped.
    pub(super) fn opened(self: &Connections, meter: &Arc<Meter>) -> OpenConnection {
        self.accepted.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        OpenConnection { meter: Arc::clone(meter), ending: Ending::Drained }
    }
}

/// A connection that is counted as open.
#[derive(Debug)]
pub(super) struct OpenConnection {
    meter: Arc<Meter>,
    /// Drained, where nobody says how.
    ending: Ending,
}

impl OpenConnection {
    pub(super) fn ends(&mut self, ending: Ending) {
        self.ending = ending;
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let connections = &self.meter.connections;
        connections.open.fetch_sub(1, Relaxed);
        connections.ended[self.ending as usize].fetch_add(1, Relaxed);
    }
}

/// The calls of one method that one worker has had.
pub(super) struct Method {
    /// `/service/method`.
    pub(super) path: Box<str>,
    is_long: bool,
    started: AtomicU64,
    handled: [AtomicU64; CODES],
    /// How many took no longer than each bound, and longer than the one before; the last is all that took longer.
    latencies: [AtomicU64; BOUNDS_US.len() + 1],
    latency_ns: AtomicU64,
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl Method {
    fn new(path: Box<str>) -> Self {
        Self {
            is_long: streams::is_long(&path),
            path,
            started: AtomicU64::new(0),
            handled: Default::default(),
            latencies: Default::default(),
            latency_ns: AtomicU64::new(0),
        }
    }

    /// One more call, which is under way until this is dropped.
    pub(super) fn starts(self: &Arc<Self>) -> Counted {
        self.started.fetch_add(1, Relaxed);
        Counted { method: Arc::clone(self), since: TURN.get().unwrap_or_else(Instant::now), code: Code::Cancelled }
    }

    fn took(&self, time: Duration) {
        let us = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.latencies[BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(1, Relaxed);
        self.latency_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

thread_local! {
    /// When this thread's turn on a connection began, while there is one.
    static TURN: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Calls that ended in it, and when they began.
    static ENDED: RefCell<Vec<(Arc<Method>, Instant)>> = const { RefCell::new(Vec::new()) };
}

/// A connection's turn on this thread, until this is dropped. What it reads has come at its beginning, and what it
/// answers leaves at its end: so the clock is looked at once more for all its calls, and not for each.
pub(super) struct Turn;

impl Turn {
    pub(super) fn begin(now: Instant) -> Self {
        TURN.set(Some(now));
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TURN.set(None);
        ENDED.with(|ended| {
            let mut ended = ended.borrow_mut();
            if !ended.is_empty() {
                let now = Instant::now();
                ended.drain(..).for_each(|(method, since)| method.took(now.duration_since(since)));
            }
        });
    }
}

/// A call that is counted.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) method: Arc<Method>,
    since: Instant,
    /// CANCELLED, where nobody says how it ended: its client has left.
    code: Code,
}

impl Counted {
    pub(super) fn ends(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Self { method, since, code } = self;
        method.handled[*code as usize].fetch_add(1, Relaxed);
        if method.is_long {
            // How long it is open is up to its client.
        } else if TURN.get().is_some() {
            ENDED.with(|ended| ended.borrow_mut().push((Arc::clone(method), *since)));
        } else {
            method.took(since.elapsed());
        }
    }
}

impl Meter {
    /// The counter of one worker for calls of this path.
    pub(super) fn method(&self, path: String) -> Arc<Method> {
        let method = Arc::new(Method::new(path.into()));
        self.methods.lock().push(Arc::clone(&method));
        method
    }

    /// What the server holds of requests that are not whole, and of answers that are not taken.
    pub(super) fn holds(&self, allowances: &[Allowance; 2]) {
        *self.allowances.lock() = Some(allowances.clone());
    }

    /// What was counted up to now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let mut calls: Vec<Calls> = Vec::new();
        for method in &*self.methods.lock() {
            match calls.iter_mut().find(|calls| *calls.path == *method.path) {
                Some(calls) => calls.add(method),
                None => {
                    let mut of = Calls::new(&method.path);
                    of.add(method);
                    calls.push(of);
                }
            }
        }
        let Connections { accepted, open, ended } = &self.connections;
        let [undecoded_bytes, untaken_bytes] =
            self.allowances.lock().as_ref().map_or([0, 0], |allowances| allowances.each_ref().map(Allowance::taken));
        Reading {
            calls,
            connections: open.load(Relaxed),
            accepted: accepted.load(Relaxed),
            ended: Ending::ALL.map(|ending| (ending.name(), ended[ending as usize].load(Relaxed))),
            undecoded_bytes,
            untaken_bytes,
        }
    }
}

/// What a [`Meter`] has counted.
#[derive(Debug)]
pub struct Reading {
    /// By method.
    pub calls: Vec<Calls>,
    /// Connections that are open.
    pub connections: usize,
    /// Connections that there were.
    pub accepted: u64,
    /// How those ended that have.
    pub ended: [(&'static str, u64); 8],
    /// Bytes of requests that are not whole.
    pub undecoded_bytes: usize,
    /// Bytes of answers that are not taken.
    pub untaken_bytes: usize,
}

/// The calls of one method.
#[derive(Debug)]
pub struct Calls {
    /// `/service/method`.
    pub path: String,
    /// How many began.
    pub started: u64,
    /// How many ended, by code.
    pub handled: [u64; CODES],
    /// For each bound in seconds how many took no longer, and longer than the bound before it; infinity is the last.
    /// None of a method that lives as long as its client likes.
    pub latencies: Vec<(f64, u64)>,
    /// What they took together, in seconds.
    pub latency: f64,
}

impl Calls {
    fn new(path: &str) -> Self {
        let bounds = BOUNDS_US.iter().map(|bound| f64::from(*bound) / 1e6).chain([f64::INFINITY]);
        let latencies = if streams::is_long(path) { Vec::new() } else { bounds.map(|bound| (bound, 0)).collect() };
        Self { path: path.to_owned(), started: 0, handled: [0; CODES], latencies, latency: 0.0 }
    }

    fn add(&mut self, method: &Method) {
        // Read in this order nothing has ended that did not begin.
        for (all, one) in self.handled.iter_mut().zip(&method.handled) {
            *all += one.load(Relaxed);
        }
        self.started += method.started.load(Relaxed);
        for ((_, all), one) in self.latencies.iter_mut().zip(&method.latencies) {
            *all += one.load(Relaxed);
        }
        self.latency += Duration::from_nanos(method.latency_ns.load(Relaxed)).as_secs_f64();
    }

    /// How many are under way.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.started.saturating_sub(self.handled.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_count_is_added_up_and_a_call_that_nobody_ended_was_cancelled() {
        let meter = Meter::default();
        let [one, other] = [0, 1].map(|_| meter.method("/s/Get".to_owned()));
        let stream = meter.method("/s/Watch".to_owned());
        let mut fine = one.starts();
        fine.ends(Code::Ok);
        drop(fine);
        drop(other.starts());
        let (_under_way, _open) = (other.starts(), stream.starts());
        let Reading { calls, .. } = meter.read();
        let [gets, watches] = &*calls else { panic!("{calls:?}") };
        assert_eq!((&*gets.path, gets.started, gets.in_flight()), ("/s/Get", 3, 1));
        assert_eq!((gets.handled[Code::Ok as usize], gets.handled[Code::Cancelled as usize]), (1, 1));
        assert_eq!(gets.latencies.iter().map(|(_, count)| count).sum::<u64>(), 2);
        assert!(gets.latency > 0.0);
        assert_eq!((watches.in_flight(), &*watches.latencies), (1, &[][..]));
    }

    #[test]
    fn a_call_takes_from_the_beginning_of_its_turn_to_the_end_of_that_in_which_it_is_answered() {
        let meter = Meter::default();
        let method = meter.method("/s/Get".to_owned());
        let long_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let taken = || meter.read().calls[0].latencies.iter().map(|(_, count)| count).sum::<u64>();
        let turn = Turn::begin(long_ago);
        let (one, other) = (method.starts(), method.starts());
        drop(one);
        assert_eq!(taken(), 0);
        drop(turn);
        assert_eq!(taken(), 1);
        drop(other);
        assert_eq!(taken(), 2, "its connection is gone, and has no turn");
        assert!(meter.read().calls[0].latency >= 2.0);
    }

    #[test]
    fn a_connection_is_open_until_it_ends_and_for_one_reason() {
        let meter = Arc::new(Meter::default());
        let mut flood = meter.connections.opened(&meter);
        let _open = meter.connections.opened(&meter);
        flood.ends(Cut::Flood.into());
        drop(flood);
        let Reading { connections, accepted, ended, .. } = meter.read();
        assert_eq!((connections, accepted), (1, 2));
        assert!(ended.into_iter().all(|(cause, count)| count == u64::from(cause == "flood")));
    }
}
