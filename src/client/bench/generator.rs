//! The threads that make the load, each with its share of the connections.
//!
//! A thread is a loop: send what is to be sent now, wait until something arrives or is due, take what has arrived. It
//! has no runtime and no tasks: they would cost more than what they carry.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::{
    channel::Mode,
    http2::Origin,
    lane::{Hands, Lane, READ_BYTES},
    load::{Op, Requests, load},
    pace::{Pace, Share},
    saturation::Usage,
    socket::Socket,
    tally::Tally,
};
use crate::client::{
    connector::Tls,
    error::{EXIT_REFUSED, Error},
};

/// It looks up from its sockets at least this often.
const TICK_NS: u64 = 50_000_000;

/// What was under way at the end, and had no answer within the timeout.
const NO_ANSWER: &str = "NO_ANSWER";

/// What all threads do.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) authority: String,
    pub(super) tls: Option<Tls>,
    pub(super) authorization: Option<String>,
    pub(super) timeout: Duration,
    pub(super) op: Op,
    pub(super) mode: Mode,
    pub(super) puts_percent: u8,
    pub(super) connections: u32,
    pub(super) streams: u32,
    pub(super) requests: Arc<Requests>,
    /// The first connection's; that of the others differs by their number, and by what is left of the count.
    pub(super) share: Share,
}

impl Job {
    /// How many calls of a connection are under way at once.
    fn calls(&self) -> u32 {
        match (self.op, self.mode) {
            (Op::Watch, _) | (Op::Down, Mode::Unary) => self.streams + 1,
            (Op::Down, Mode::Pipeline) => 2,
            (_, Mode::Pipeline) => 1,
            (_, Mode::Unary) => self.streams,
        }
    }
}

/// What the threads and the one who waits for them have in common.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Operations that were done, for the bar.
    pub(super) done: AtomicU64,
    /// Somebody has asked for an end before the end.
    pub(super) is_stopped: AtomicBool,
}

/// What one thread has to tell in the end.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) tally: Tally,
    pub(super) usage: Usage,
    /// When it started nothing any more.
    pub(super) ended_ns: u64,
}

/// One thread that is ready, and waits for the word.
pub(super) struct Ready {
    begin: mpsc::Sender<Instant>,
    part: oneshot::Receiver<Part>,
    thread: JoinHandle<()>,
}

impl Ready {
    /// Starts a thread with every `of`th connection from this one on, and waits until all of them can begin.
    pub(super) async fn start(job: &Job, first: u32, of: u32, shared: &Arc<Shared>) -> Result<Self, Error> {
        let (ready, is_ready) = oneshot::channel();
        let (begin, begins) = mpsc::channel();
        let (end, part) = oneshot::channel();
        let (job, shared) = (job.clone(), Arc::clone(shared));
        let work = move || {
            let mut thread = match Thread::prepare(&job, first, of, shared) {
                Ok(thread) => thread,
                Err(error) => return drop(ready.send(Err(error))),
            };
            ready.send(Ok(())).ok(); // who does not wait any more does not begin either
            if let Ok(began) = begins.recv() {
                end.send(thread.run(began)).ok();
            }
        };
        let spawned = thread::Builder::new().name(format!("bench-{first}")).spawn(work);
        let thread = spawned.map_err(|error| aborted(format!("no thread: {error}")))?;
        match is_ready.await {
            Ok(outcome) => outcome.map(|()| Self { begin, part, thread }),
            Err(_) => Err(aborted("a thread of the generator ended early".to_owned())),
        }
    }

    /// Lets it begin; the time counts from there.
    pub(super) fn begin(&self, began: Instant) {
        self.begin.send(began).ok(); // one that has ended says so in its part
    }

    /// Waits until it is done.
    pub(super) async fn part(self) -> Result<Part, Error> {
        let part = self.part.await.map_err(|_| aborted("a thread of the generator ended early".to_owned()));
        self.thread.join().ok(); // its sockets are closed then
        part
    }
}

struct Thread {
    lanes: Vec<Lane>,
    tally: Tally,
    shared: Arc<Shared>,
    timeout: Duration,
    share: Share,
    buffer: Vec<u8>,
}

impl Thread {
    /// Connects, and asks for what must be there.
    fn prepare(job: &Job, first: u32, of: u32, shared: Arc<Shared>) -> Result<Self, Error> {
        sleep_to_the_point();
        let lanes = (first..job.connections).step_by(of as usize).map(|number| lane(job, number));
        let mut thread = Self {
            lanes: lanes.collect::<io::Result<_>>().map_err(|error| Error::unreachable(&error))?,
            tally: Tally::new(),
            shared,
            timeout: job.timeout,
            share: job.share,
            buffer: vec![0; READ_BYTES],
        };
        let started = Instant::now();
        loop {
            let mut hands = Hands { tally: &mut thread.tally, now_ns: 0 };
            let mut is_prepared = true;
            for lane in &mut thread.lanes {
                lane.prepare(job.calls(), &mut hands);
                is_prepared &= lane.is_prepared().map_err(|reason| aborted(format!("cannot begin: {reason}")))?;
            }
            if is_prepared {
                return Ok(thread);
            }
            if thread.shared.is_stopped.load(Ordering::Relaxed) {
                return Ok(thread); // it will start nothing
            }
            if started.elapsed() > job.timeout {
                return Err(Error::Unreachable(format!("no answer within {:?}", job.timeout)));
            }
            thread.wait(TICK_NS, || 0);
        }
    }

    /// Does its part, from the beginning to the end.
    fn run(&mut self, began: Instant) -> Part {
        let now = || u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let usage = |now_ns| Usage::now(Duration::from_nanos(now_ns));
        let measure_from_ns = self.share.measure_from_ns;
        let mut before = (measure_from_ns == 0).then(|| usage(0));
        let mut after = None;
        loop {
            let now_ns = now();
            let mut hands = Hands { tally: &mut self.tally, now_ns };
            if before.is_none() && now_ns >= measure_from_ns {
                before = Some(usage(now_ns));
            }
            if self.shared.is_stopped.load(Ordering::Relaxed) {
                self.lanes.iter_mut().for_each(|lane| lane.end(now_ns));
            }
            self.lanes.iter_mut().for_each(|lane| lane.step(&mut hands));

            let is_over = self.lanes.iter().all(|lane| lane.is_over(now_ns));
            if is_over && after.is_none() {
                after = Some((now_ns, usage(now_ns)));
            }
            let is_done = self.lanes.iter().all(|lane| lane.is_done(now_ns));
            let gave_up = after.is_some_and(|(ended_ns, _)| u128::from(now_ns - ended_ns) > self.timeout.as_nanos());
            if is_done || gave_up {
                break;
            }

            let due_ns = self.lanes.iter().filter_map(|lane| lane.due_ns(now_ns)).min().unwrap_or(u64::MAX);
            let until_ns = self.share.until_ns.filter(|&until| until > now_ns).unwrap_or(u64::MAX);
            self.wait(due_ns.min(until_ns).saturating_sub(now_ns).min(TICK_NS), now);
        }
        self.finish(now(), before, after)
    }

    fn finish(&mut self, now_ns: u64, before: Option<Usage>, after: Option<(u64, Usage)>) -> Part {
        let mut hands = Hands { tally: &mut self.tally, now_ns };
        self.lanes.iter_mut().for_each(|lane| lane.give_up(NO_ANSWER, &mut hands));
        let (ended_ns, after) = after.unwrap_or_else(|| (now_ns, Usage::now(Duration::from_nanos(now_ns))));
        self.lanes.clear(); // closes the connections
        let tally = std::mem::replace(&mut self.tally, Tally::new());
        Part { tally, usage: before.map(|before| after.since(before)).unwrap_or_default(), ended_ns }
    }

    /// Waits so long at most, and takes what has arrived.
    fn wait(&mut self, limit_ns: u64, now: impl Fn() -> u64) {
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::try_from(limit_ns.min(TICK_NS)).unwrap_or_default() };
        // One that is lost would always be ready to say so.
        let numbered = self.lanes.iter().enumerate().filter(|(_, lane)| !lane.is_lost());
        let (numbers, mut sockets): (SmallVec<[usize; 64]>, SmallVec<[PollFd<'_>; 64]>) = numbered
            .map(|(number, lane)| {
                let wanted = if lane.is_full() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
                (number, PollFd::new(&lane.socket, wanted))
            })
            .unzip();
        match poll(&mut sockets, Some(&limit)) {
            Ok(0) | Err(_) => return, // interrupted, at worst: there will be another look
            Ok(_) => {}
        }
        let is_ready = |(socket, number): (&PollFd<'_>, usize)| (!socket.revents().is_empty()).then_some(number);
        let ready: SmallVec<[usize; 64]> = sockets.iter().zip(numbers).filter_map(is_ready).collect();
        drop(sockets);
        let before = self.tally.latencies.len();
        for number in ready {
            let mut hands = Hands { tally: &mut self.tally, now_ns: now() };
            self.lanes[number].read(&mut self.buffer, &mut hands);
        }
        self.shared.done.fetch_add(self.tally.latencies.len() - before, Ordering::Relaxed);
    }
}

fn aborted(words: String) -> Error {
    Error::Aborted { words, exit_code: EXIT_REFUSED }
}

/// The connection of this number, with its part of the count.
fn lane(job: &Job, number: u32) -> io::Result<Lane> {
    let socket = Socket::connect(&job.addresses, job.tls.as_ref(), job.timeout)?;
    let origin = Origin {
        authority: job.authority.clone(),
        is_https: job.tls.is_some(),
        authorization: job.authorization.clone(),
    };
    let (nth, of) = (u64::from(number), u64::from(job.connections));
    let count = job.share.count.map(|count| count / of + u64::from(nth < count % of));
    let pace = Pace::new(Share { number: nth, of, count, ..job.share });
    let load = load(job.op, job.puts_percent, &job.requests, nth, job.streams);
    let slots = if job.op == Op::Watch { 1 } else { job.streams };
    Ok(Lane::new(socket, (origin, job.mode), slots, load, pace))
}

/// A thread of Linux oversleeps by 50 µs unless it asks for better, which would be in each latency of an open loop.
fn sleep_to_the_point() {
    #[cfg(target_os = "linux")]
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).ok(); // else it is 50 µs
}
