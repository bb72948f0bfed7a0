//! `bench`: how fast a server is, and how long its users wait.

mod channel;
mod generator;
mod ground;
mod http2;
mod lane;
mod load;
mod pace;
mod plot;
mod report;
mod saturation;
mod slots;
mod socket;
mod tally;
mod wire;

use std::{
    io,
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use clap::{Args, value_parser};
use futures_util::future::join_all;
use tokio::{net::lookup_host, time::interval};

use self::{
    channel::Mode,
    generator::{Job, Part, Ready, Shared},
    ground::Ground,
    load::{Op, Requests},
    pace::Share,
    report::Report,
};
use super::{
    error::{EXIT_INTERRUPTED, EXIT_REFUSED, Error},
    options::{Options, duration},
    output::{Format, Output},
    progress::Progress,
};
use crate::signals::shutdown_signal;

const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Loads a server, and tells how many operations it did, and how long they took
///
/// In a closed loop, which is the default, each of --connections keeps --streams operations under way, and a new one
/// starts when one is done: so many users who wait for their answers. That tells how much the server can do. In an open
/// loop operations start by the clock, --rate of them a second over all connections, whatever the server does. Their
/// latency is counted from when they were to start, so that a stall is in the latency of all that it held up. That
/// tells how long users wait at that rate. One that starts more than 1 ms after its time is late, and the report says
/// how many were, and whether all streams were taken or the generator itself was behind; with a rate, give so many
/// streams that none need wait for one. Where less than 99 % of what was due was sent, the report says that the rate
/// was not reached; then latencies tell how long the run was rather than how fast the server is.
///
/// A generator that is busy itself measures itself. So its threads measure which part of the time they ran, or were
/// ready to and had no processor, as where the server takes them all. At 90 % of the busiest one's the report says that
/// the generator was the limit: a server on a machine of its own might do more. It says so too where the generator
/// itself was behind for more than 1 % of the operations. That is no error.
///
/// Everything is in buckets whose names begin with pail-bench/ and a number that no other run has. They have no time to
/// live, which would be work for the server; they are stopped at the end, however it ends, unless this process is
/// killed without a word: then 'pail list pail-bench/' tells what is left. Ctrl-C ends a run early, with a report of
/// what was measured; a second one ends it at once, and leaves the buckets.
///
/// Exits with 1 where operations failed, after the report; with 3 where the server is gone, so that nothing could be
/// stopped in the end; and with 130 after Ctrl-C.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
JSON: one object, with
  op, mode, connections, streams, rate, value_size, keys, buckets
                       what was asked; rate is null in a closed loop
  seconds              from the end of the warm-up to the last answer
  operations           that went well
  ops_per_second       those in a second
  bytes_per_second     of requests, answers and events, as messages
  errors               operations that failed, and connections that were lost
  errors_by_reason     the same by reason: pail's, or gRPC's code, or one of
                       NO_ANSWER         none came within --timeout after the end
                       CONNECTION_LOST, GOAWAY, SHORT_ANSWER, INVALID_ANSWER, INVALID_HTTP2: …
  latency_ns           min, mean, p50, p90, p99, p99_9 and max, in nanoseconds; null where nothing went well
  late                 operations that were sent more than 1 ms after their time, which are the sum of
  late_for_streams     those for which every stream was taken, and
  late_for_generator   those for which the generator was not there
  unsent               operations that were due, and were not sent before the end
  saturated            whether the rate was not reached
  generator            threads, their cpu_seconds, and of the busiest one, as parts of its time: cpu,
                       in which it ran, and starved, in which it had no processor
  generator_limited    whether the generator was the limit
  interrupted          whether the run was ended early

Examples:
  pail bench                                       gets, as fast as they go
  pail bench --op put --value-size 4096
  pail bench --mode pipeline --streams 1000
  pail bench --rate 20000 --streams 500            how long users wait at 20,000 a second
  pail bench --op watch --connections 4 --streams 250
  pail bench --op down --duration 30s -o json")]
pub struct Bench {
    /// What an operation is
    #[arg(long, default_value = "get")]
    op: Op,
    /// How requests are sent
    #[arg(long, default_value = "unary")]
    mode: Mode,
    /// Connections to the server
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Operations under way on each connection, at most; of a watch, how many watches each connection has
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = value_parser!(u32).range(1..=100_000))]
    streams: u32,
    /// Start so many operations a second, in an open loop; of a watch, so many puts
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<NonZeroU64>,
    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = value_parser!(u32).range(0..=64 << 20))]
    value_size: u32,
    /// Entries that are there, and are got or put at random
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=9_999_999))]
    keys: u32,
    /// Buckets that they are spread over
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = value_parser!(u32).range(1..=9_999_999))]
    buckets: u32,
    /// Of 100 operations of a mixed load, so many are puts
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = value_parser!(u8).range(0..=100))]
    puts: u8,
    /// How long to measure [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// Measure so many operations instead; of a watch, whole puts, until so many or more were heard of
    #[arg(long, value_name = "COUNT", conflicts_with = "duration", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Load it so long before that, without counting; 0s for none
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration_or_none)]
    warm_up: Duration,
    /// Threads that make the load [default: one a processor, but no more than connections]
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u32).range(1..=1_024))]
    threads: Option<u32>,
}

fn rate(text: &str) -> Result<NonZeroU64, &'static str> {
    const RATE_MAX: u64 = 100_000_000;
    let rate = text.parse().ok().filter(|rate: &NonZeroU64| rate.get() <= RATE_MAX);
    rate.ok_or("must be 1 to 100000000 operations a second")
}

fn duration_or_none(text: &str) -> Result<Duration, String> {
    if text == "0s" { Ok(Duration::ZERO) } else { duration(text) }
}

impl Bench {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        if (self.op, self.mode) == (Op::Scan, Mode::Pipeline) {
            return Err(Error::Usage("a Pipeline has no scans; leave '--mode pipeline' out".to_owned()));
        }
        let shared = Arc::new(Shared::default());
        let signal = shutdown_signal()?;
        tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                signal.await;
                shared.is_stopped.store(true, Ordering::Relaxed);
            }
        });

        let ground = self.ground()?;
        let measured = self.measure(&ground, options, &shared).await;
        let cleared = ground.clear(options).await;
        let report = measured?;
        match out.format {
            Format::Text => write!(out.to, "{report}")?,
            Format::Json => writeln!(out.to, "{}", serde_json::to_string(&report).map_err(io::Error::from)?)?,
        }
        cleared?;
        match report {
            Report { interrupted: true, .. } => Err(Error::Command(EXIT_INTERRUPTED)),
            Report { errors: 1.., .. } => Err(Error::Command(EXIT_REFUSED)),
            _ => Ok(()),
        }
    }

    /// What must be there for these operations.
    fn ground(&self) -> Result<Ground, Error> {
        let (buckets, keys) = match self.op {
            Op::Get | Op::Put | Op::Mixed | Op::Scan => (self.buckets.min(self.keys), self.keys),
            Op::Watch => (self.connections, self.connections), // an entry in a bucket for each
            Op::Create | Op::Down => (0, 0),
        };
        Ground::new(buckets.into(), keys.into(), self.value_size as usize)
    }

    async fn measure(&self, ground: &Ground, options: &Options, shared: &Arc<Shared>) -> Result<Report, Error> {
        let job = self.job(ground, options).await?;
        ground.lay(options, &shared.is_stopped).await?;
        let threads = self.threads();
        let starts = (0..threads).map(|first| Ready::start(&job, first, threads, shared));
        let ready = join_all(starts).await.into_iter().collect::<Result<Vec<_>, _>>()?;

        let began = Instant::now();
        ready.iter().for_each(|ready| ready.begin(began));
        let parts = self.parts(ready, began, shared).await?;
        Ok(Report::of(self, &parts, shared.is_stopped.load(Ordering::Relaxed)))
    }

    /// Waits for the threads, and shows how far they are.
    async fn parts(&self, ready: Vec<Ready>, began: Instant, shared: &Shared) -> Result<Vec<Part>, Error> {
        let whole = self.duration().map(|duration| (self.warm_up + duration).as_millis());
        let whole = whole.map_or(self.count.unwrap_or_default(), |ms| u64::try_from(ms).unwrap_or(u64::MAX));
        let progress = Progress::of_load(whole);
        let mut ticks = interval(TICK);
        let mut parts = Box::pin(join_all(ready.into_iter().map(Ready::part)));
        loop {
            tokio::select! {
                parts = &mut parts => return parts.into_iter().collect(),
                _ = ticks.tick() => {}
            }
            let (done, passed) = (shared.done.load(Ordering::Relaxed), began.elapsed());
            let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            progress.reach(if self.count.is_some() { done } else { passed_ms }.min(whole));
            let per_second = done as f64 / passed.saturating_sub(self.warm_up).as_secs_f64().max(0.1);
            progress.say(if passed < self.warm_up { "warming up".to_owned() } else { format!("{per_second:.0}/s") });
        }
    }

    async fn job(&self, ground: &Ground, options: &Options) -> Result<Job, Error> {
        let authority = options.addr.to_string();
        let addresses = lookup_host(&authority).await.map_err(|error| Error::unreachable(&error))?.collect();
        let until = self.duration().map(|duration| self.warm_up + duration);
        let streams = if self.op == Op::Watch { self.streams.into() } else { 1 };
        Ok(Job {
            addresses,
            authority,
            tls: options.tls()?,
            authorization: options.authorization()?,
            timeout: options.timeout,
            op: self.op,
            mode: self.mode,
            puts_percent: self.puts,
            connections: self.connections,
            streams: self.streams,
            requests: Arc::new(Requests::new(ground.clone())),
            share: Share {
                rate: self.rate,
                number: 0,
                of: self.connections.into(),
                measure_from_ns: nanoseconds(self.warm_up),
                until_ns: until.map(nanoseconds),
                count: self.count.map(|count| count.div_ceil(streams)),
            },
        })
    }

    /// How long to measure; `None` where a count says how much.
    fn duration(&self) -> Option<Duration> {
        self.count.is_none().then(|| self.duration.unwrap_or(DURATION_DEFAULT))
    }

    fn threads(&self) -> u32 {
        let processors = available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX));
        self.threads.unwrap_or(processors).min(self.connections)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
