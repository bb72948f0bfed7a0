//! pail's core: processes for calls, casts and deaths, and buckets of a registry for what goes by name.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _};
use pail::{
    bucket::{Begin, Get, Put, Scan, Values},
    clock::SystemClock,
    limits::Limits,
    name::{BucketName, Key},
    process::{Call, Context, Exit, GenServer, Info, Process, Reason},
    registry::{Registry, Target},
    value::Value,
    watch::{Initial, Kinds, NoticeKind, Update, Watch},
};

use crate::{BUCKETS, Contender, DEATHS, ENTRIES, Op, VALUE, key, names, timed};

/// A process to talk to, and a registry with buckets.
pub struct Pail {
    counter: Process<Counter>,
    registry: Registry,
    limits: Limits,
    names: Vec<String>,
}

struct Counter(u64);

struct Increment;
struct Read;

impl GenServer for Counter {
    type Identity = &'static str;
    type Cast = Increment;

    fn handle_cast(&mut self, _: Increment, _: &mut Context<'_, Self>) {
        self.0 += 1;
    }
}

impl Call<Read> for Counter {
    type Reply = u64;

    fn handle_call(&mut self, _: Read, _: &mut Context<'_, Self>) -> u64 {
        self.0
    }
}

/// Counts the deaths it is told of.
struct Watcher(Arc<AtomicU64>);

impl GenServer for Watcher {
    type Identity = &'static str;
    type Cast = ();

    fn handle_cast(&mut self, (): (), _: &mut Context<'_, Self>) {}

    fn handle_info(&mut self, _: Info, _: &mut Context<'_, Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Contender for Pail {
    const NAME: &str = "pail";

    fn start() -> Self {
        let (registry, limits) = registry();
        let names = names();
        for name in &names {
            let name = BucketName::parse(name, &limits).unwrap();
            registry.create(name, Begin { ttl: None, idle_ttl: None }).unwrap();
            for number in 0..ENTRIES {
                registry.ask(Target { name, id: None }, put(&key(number), &limits)).unwrap();
            }
        }
        Self { counter: Process::start("counter", Counter(0)), registry, limits, names }
    }

    fn time(&self, op: Op, times: u64) -> Duration {
        let key = key(7);
        let each = |work: &dyn Fn(BucketName<'_>)| {
            timed(|| {
                for name in self.names.iter().cycle().take(usize::try_from(times).unwrap()) {
                    work(BucketName::parse(name, &self.limits).unwrap());
                }
            })
        };
        let (registry, limits) = (&self.registry, &self.limits);
        match op {
            Op::Call => timed(|| (0..times).for_each(|_| _ = black_box(self.counter.call(Read).unwrap()))),
            Op::Cast => timed(|| {
                (0..times).for_each(|_| self.counter.cast(Increment).unwrap());
                self.counter.call(Read).unwrap()
            }),
            Op::MonitorDown => monitor_down(times),
            Op::Lookup => each(&|name| _ = black_box(registry.lookup(name).unwrap())),
            Op::Put => each(&|name| _ = registry.ask(Target { name, id: None }, put(&key, limits)).unwrap()),
            Op::Get => each(&|name| {
                let get = Get { key: Key::parse(&key, limits).unwrap() };
                black_box(registry.ask(Target { name, id: None }, get).unwrap());
            }),
            Op::Scan => each(&|name| {
                let (prefix, items_max, bytes_max) = ("", ENTRIES, limits.message_bytes_max);
                let scan = Scan { prefix, after: None, items_max, bytes_max, values: Values::Included };
                assert_eq!(registry.ask(Target { name, id: None }, scan).unwrap().1.entries.len(), ENTRIES);
            }),
        }
    }
}

fn registry() -> (Registry, Limits) {
    let limits = Limits::default();
    (Registry::start(limits.clone(), Arc::new(SystemClock::default()), "bench".to_owned()), limits)
}

fn put<'a>(key: &'a str, limits: &Limits) -> Put<'a> {
    Put { key: Key::parse(key, limits).unwrap(), value: Value::Text(VALUE.into()), ttl: None, expected: None }
}

fn monitor_down(times: u64) -> Duration {
    let deaths = Arc::new(AtomicU64::new(0));
    let watcher = Process::start("watcher", Watcher(Arc::clone(&deaths)));
    let killed = Exit::from(Reason::Killed);
    let mut sum = Duration::ZERO;
    let mut left = times;
    while left > 0 {
        let processes: Vec<_> = (0..left.min(DEATHS)).map(|_| Process::start("mortal", Counter(0))).collect();
        sum += timed(|| {
            for process in &processes {
                watcher.monitor(process);
                process.exit(watcher.pid(), killed.clone());
            }
        });
        left -= processes.len() as u64;
    }
    assert_eq!(deaths.load(Ordering::Relaxed), times, "a watcher is told before the exit returns");
    sum
}

/// From the first of so many Stops of buckets until one who watches their prefix has been told of the last.
///
/// # Panics
/// Where it has not been told of all.
#[must_use]
pub fn kill_and_down(count: u64) -> Duration {
    let (registry, limits) = registry();
    let names: Vec<_> = (0..count).map(|number| format!("mortal-{number:09}")).collect();
    for name in &names {
        let name = BucketName::parse(name, &limits).unwrap();
        registry.create(name, Begin { ttl: None, idle_ttl: None }).unwrap();
    }
    let kinds = Kinds { created: false, down: true, entries: None };
    let mut watch = Watch::prefix(registry.clone(), "", kinds, Initial::Skipped).unwrap();
    let killed = Exit::from(Reason::Killed);
    let mut told = 0;
    let start = Instant::now();
    for some in names.chunks(BUCKETS) {
        for name in some {
            registry.stop(Target { name: BucketName::parse(name, &limits).unwrap(), id: None }, &killed).unwrap();
        }
        while let Some(response) = watch.next().now_or_never() {
            if let Update::Events(notices) = response.expect("it is for ever").unwrap().update {
                told += notices
                    .iter()
                    .filter(|notice| matches!(&notice.kind, NoticeKind::Happened(event) if event.exit().is_some()))
                    .count() as u64;
            }
        }
    }
    let took = start.elapsed();
    assert_eq!(told, count);
    took
}
