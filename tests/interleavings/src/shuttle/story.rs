//! What happens in each schedule: two who write, at random, and three who watch.

use std::{
    fmt::Write as _,
    future::poll_fn,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use futures_util::StreamExt as _;
use shuttle::{
    future::{self, JoinHandle},
    rand::{Rng as _, thread_rng},
    sync::mpsc::{Receiver, channel},
    thread,
};

use crate::{
    bucket::{Begin, Put, Values},
    clock::Clock,
    judge::{self, Heard, Wanted},
    limits::Limits,
    name::{BucketName, Key, Revision},
    process::Reason,
    registry::{Registry, Target},
    value::Value,
    watch::{Entries, Initial, Kinds, Response, Update, Watch},
};

/// They are read from the options of the command line, which takes longer than all else here.
static LIMITS: LazyLock<Limits> = LazyLock::new(Limits::default);

pub(crate) const NAMES: [&str; 2] = ["a", "b"];

const STEPS: usize = 4;

const HEARTBEATS: usize = 100;

const FOR_EVER: Begin = Begin { ttl: None, idle_ttl: None };

/// A Put that was acknowledged.
#[derive(Clone, Copy)]
pub(crate) struct Ack {
    /// When it was asked for.
    pub(crate) asked: usize,
    pub(crate) id: u64,
    pub(crate) version: u64,
}

/// A number that is greater than all before. One thread at a time takes a step, so that is what has happened before.
fn tick() -> usize {
    static TICKS: AtomicUsize = AtomicUsize::new(0);
    TICKS.fetch_add(1, Relaxed)
}

pub(crate) struct Outcome {
    pub(crate) told: String,
    pub(crate) verdict: Result<(), String>,
}

fn target(name: &str) -> Target<'_> {
    Target { name: BucketName::parse(name, &LIMITS).unwrap(), id: None }
}

/// Time is not what this is about.
#[derive(Debug)]
struct StandsStill;

impl Clock for StandsStill {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn wall(&self) -> Duration {
        Duration::from_secs(1_000_000)
    }
}

/// Creates, stops and puts, at random.
fn write(registry: &Registry) -> Vec<Ack> {
    let mut acks = Vec::new();
    for _ in 0..STEPS {
        let name = target(NAMES[thread_rng().gen_range(0..NAMES.len())]);
        // That there is no such bucket is as good an answer.
        match thread_rng().gen_range(0..4) {
            0 => drop(registry.create(name.name, FOR_EVER).unwrap()),
            1 => drop(registry.stop(name, &Reason::Killed.into())),
            _ => {
                let put =
                    Put { key: Key::parse("k", &LIMITS).unwrap(), value: Value::Integer(1), ttl: None, expected: None };
                let asked = tick();
                if let Ok((id, version)) = registry.ask(name, put) {
                    acks.push(Ack { asked, id: id.get(), version: version.0 });
                }
            }
        }
    }
    acks
}

struct Watching {
    wanted: Wanted,
    task: JoinHandle<Heard>,
    /// How far it is.
    progress: Receiver<Option<Revision>>,
}

impl Watching {
    /// Waits until it has told all that there is to tell, now that all buckets are down: where it is not woken for it, for
    /// ever, which is found out. (One that follows a name passes others' events by without a word.)
    fn settle(&self, registry: &Registry) {
        let goal = Some(registry.revision());
        match self.wanted {
            Wanted::All => while self.progress.recv().expect("it goes on") < goal {},
            Wanted::Monitors => while self.progress.recv().is_ok() {},
            Wanted::Follow => {}
        }
    }
}

/// Hears all that a watch has to say, and tells how far it is.
fn watch(registry: &Registry, wanted: Wanted) -> Watching {
    let registry = registry.clone();
    let (progress, heard_of) = channel();
    let task = future::spawn(async move {
        let entries = Entries { put: true, deleted: true, key_prefix: "", values: Values::Included };
        let kinds = Kinds { created: true, down: true, entries: Some(entries) };
        let mut watch = match wanted {
            Wanted::All => Watch::prefix(registry, "", kinds, Initial::Sent),
            Wanted::Monitors => Watch::names(registry, &NAMES.map(target), kinds, Initial::Sent),
            Wanted::Follow => Watch::follow(registry, &[target(NAMES[1])], kinds, Initial::Sent),
        }
        .unwrap();
        let mut heard = Heard::new();
        // It is asked that often how far it is, while it waits. The others are not: they have to be woken.
        let mut heartbeats = if wanted == Wanted::Monitors { HEARTBEATS } else { 0 };
        poll_fn(|cx| {
            let polled = watch.poll_next_unpin(cx);
            let response = match polled {
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Ready(Some(response)) => response,
                Poll::Pending => Ok(watch.heartbeat()),
            };
            // Main may have heard enough.
            if let Ok(Response { revision, .. }) = &response {
                progress.send(*revision).ok();
            }
            let is_pending = matches!(response, Ok(Response { update: Update::Heartbeat, .. }));
            heard.push((tick(), response));
            if is_pending {
                // Who waits for others lets them go first, or one that is always preferred would wait for ever.
                thread::yield_now();
            }
            if !is_pending || heartbeats > 0 {
                heartbeats -= usize::from(is_pending);
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
        heard
    });
    Watching { wanted, task, progress: heard_of }
}

pub(crate) fn tell() -> Outcome {
    let registry = Registry::start(LIMITS.clone(), Arc::new(StandsStill), "story".to_owned());
    let deliverer = {
        let registry = registry.clone();
        future::spawn(async move { registry.run().await })
    };
    let watches = [Wanted::All, Wanted::Monitors, Wanted::Follow].map(|wanted| watch(&registry, wanted));
    let writers = [(); 2].map(|()| {
        let registry = registry.clone();
        thread::spawn(move || write(&registry))
    });
    let acks = writers.map(|writer| writer.join().unwrap()).concat();
    let stoppers = NAMES.map(|name| {
        let registry = registry.clone();
        thread::spawn(move || drop(registry.stop(target(name), &Reason::Shutdown.into())))
    });
    for stopper in stoppers {
        stopper.join().unwrap();
    }
    watches.iter().for_each(|watch| watch.settle(&registry));
    registry.end();
    let heard = watches.map(|Watching { wanted, task, .. }| (wanted, future::block_on(task).unwrap()));
    deliverer.abort();

    let log = registry.events(registry.first_revision(), usize::MAX).unwrap();
    let mut told = String::new();
    for event in &log {
        writeln!(told, "{} {} {:?}", event.revision, event.name, event.exit().map(|exit| exit.reason)).unwrap();
    }
    let mut verdict = judge::acks(&log, &acks);
    for (wanted, heard) in &heard {
        judge::tell(&mut told, *wanted, heard);
        verdict = verdict
            .and_then(|()| judge::judge(&log, &acks, *wanted, heard).map_err(|why| format!("{wanted:?}: {why}")));
    }
    Outcome { told, verdict }
}
