//! How late what falls due is heard of: ten thousand buckets at one instant, with a million others pending that cost nothing.
//!
//! ```sh
//! cargo bench --profile quick --bench expiry
//! ```
//!
//! The server and a client that watches are in this process, with a socket between them. Lateness is that of the event in
//! the client's hands. A build for debugging would measure itself, and says so.

#![allow(clippy::expect_used, clippy::unwrap_used)] // what can't go on says so and stops

use std::{
    fs,
    future::pending,
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use pail::{
    bucket::Begin,
    clock::SystemClock,
    limits::Limits,
    name::BucketName,
    pb::{
        EventKind, Reason, WatchRequest, WatchResponse, bucket_service_client::BucketServiceClient, event::Event,
        watch_response::Response,
    },
    registry::Registry,
    serve::serve,
    server::Options,
    time_to_live::Ttl,
};
use tokio::{net::TcpListener, runtime, time::timeout};
use tonic::Streaming;

const PENDING: usize = 1_000_000;
const AT_ONCE: usize = 10_000;
/// Far from now, and different for each.
const PENDING_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Time enough to create those that fall due.
const LEAD: Duration = Duration::from_secs(1);
/// So many rounds are to be in time…
const ROUNDS: usize = 3;
/// …of so many.
const ROUNDS_MAX: usize = 20;
/// A round may be late only where others than this process had the processors for as long as this, of about a second.
const BUSY_MIN: Duration = Duration::from_millis(100);
/// The promise.
const LATE_MAX: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_secs(5);
/// A look at each of the million a second would take more.
const IDLE_CPU_MAX: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if cfg!(debug_assertions) {
        println!("NOT RUN: this is a build for debugging; use cargo bench --profile quick --bench expiry");
        return ExitCode::SUCCESS;
    }
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure());
    ExitCode::SUCCESS
}

async fn measure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let limits = Limits::default();
    let registry = Registry::start(limits.clone(), Arc::new(SystemClock::default()), "expiry".to_owned());
    let options = Options::new(limits, Duration::ZERO);
    let serving = tokio::spawn(serve(listener, registry.clone(), options, pending()));

    let start = Instant::now();
    for n in 0..PENDING {
        create(&registry, &format!("pending/{n}"), PENDING_TTL + Duration::from_millis(n as u64));
    }
    println!("{PENDING} buckets with a time to live, created in {:?}", start.elapsed());

    let request = WatchRequest {
        prefix: Some("due/".to_owned()),
        kinds: vec![EventKind::Down.into()],
        skip_initial: true,
        ..WatchRequest::default()
    };
    let mut client = BucketServiceClient::connect(address).await.unwrap();
    let mut watching = client.watch(request).await.unwrap().into_inner();
    while !matches!(next(&mut watching).await, Response::Synced(_)) {}

    let cpu = cpu_time();
    thread::sleep(IDLE);
    let cpu = cpu_time() - cpu;
    println!("nothing due for {IDLE:?}: {cpu:?} of CPU time");
    assert!(cpu <= IDLE_CPU_MAX, "what is pending costs nothing: at most {IDLE_CPU_MAX:?} is allowed");

    let mut in_time = 0;
    for round in 0..ROUNDS_MAX {
        let others = others_time();
        let late = fall_due(&registry, &mut watching, round).await;
        let others = others_time().saturating_sub(others);
        let part = |percent: usize| late[AT_ONCE * percent / 100 - 1];
        let (half, most, nearly_all, all) = (part(50), part(90), part(99), part(100));
        println!("{AT_ONCE} due at once, late by: half {half:?}, 90 % {most:?}, 99 % {nearly_all:?}, all {all:?}");
        if all <= LATE_MAX {
            in_time += 1;
        } else {
            println!("that is late, and others had the processors for {others:?}");
            assert!(others >= BUSY_MIN, "an event comes within {LATE_MAX:?} of the due time");
        }
        if in_time == ROUNDS {
            serving.abort();
            return;
        }
    }
    panic!(
        "{in_time} of {ROUNDS_MAX} rounds were in time, {ROUNDS} are required: try again on a machine that is less busy"
    );
}

/// Lets buckets fall due at one instant. How long after it each event came, in order.
async fn fall_due(registry: &Registry, watching: &mut Streaming<WatchResponse>, round: usize) -> Vec<Duration> {
    let due = registry.clock().monotonic() + LEAD;
    for n in 0..AT_ONCE {
        create(registry, &format!("due/{round}/{n}"), due - registry.clock().monotonic());
    }
    assert!(registry.clock().monotonic() < due, "all of them are there before the first is due");

    let mut late = Vec::with_capacity(AT_ONCE);
    while late.len() < AT_ONCE {
        let Response::Events(batch) = next(watching).await else { continue };
        let after = registry.clock().monotonic().checked_sub(due).expect("nothing goes before it is due");
        for event in batch.events {
            let Some(Event::Down(down)) = event.event else { panic!("{event:?}") };
            assert_eq!(down.reason(), Reason::Expired);
            late.push(after);
        }
    }
    late
}

fn create(registry: &Registry, name: &str, ttl: Duration) {
    let name = BucketName::parse(name, registry.limits()).unwrap();
    let (_, created) = registry.create(name, Begin { ttl: Ttl::new(ttl), idle_ttl: None }).unwrap();
    assert!(created);
}

async fn next(watching: &mut Streaming<WatchResponse>) -> Response {
    let message = timeout(DEADLINE, watching.message()).await.expect("the watch is not silent");
    message.unwrap().expect("it does not end").response.unwrap()
}

/// What all threads of this process have run, as the scheduler counts it.
fn cpu_time() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let of = |thread: fs::DirEntry| -> u64 {
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    Duration::from_nanos(threads.map(|thread| of(thread.unwrap())).sum())
}

/// What all processors have done for others than this process, and what was taken from them.
fn others_time() -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let text = fs::read_to_string("/proc/stat").unwrap();
    let ticks: Vec<u32> =
        text.lines().next().unwrap().split_ascii_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
    let [user, nice, system, _idle, _wait, interrupts, soft_interrupts, stolen, ..] = ticks[..] else {
        panic!("{text}")
    };
    (TICK * (user + nice + system + interrupts + soft_interrupts + stolen)).saturating_sub(cpu_time())
}
