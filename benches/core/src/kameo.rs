//! Actors of kameo, with its bounded mailboxes and its registry; and links, which are what it has of monitors.

use std::{
    convert::Infallible,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use kameo::prelude::{Actor, ActorId, ActorRef, ActorStopReason, Context, Message, Spawn, WeakActorRef};
use tokio::{runtime::Runtime, sync::Semaphore};

use crate::{Contender, Entries, Op, VALUE, as_task, entries, in_batches, key, names, scanned};

/// Its runtime, with the actors' tasks.
pub struct Kameo {
    runtime: Runtime,
    names: Arc<Vec<String>>,
}

struct Bucket {
    entries: Entries,
    version: u64,
}

struct Read;
struct Increment;
struct Put(String, String);
struct Get(String);
struct Scan;

impl Actor for Bucket {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(bucket: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(bucket)
    }
}

impl Message<Read> for Bucket {
    type Reply = u64;

    async fn handle(&mut self, _: Read, _: &mut Context<Self, u64>) -> u64 {
        self.version
    }
}

impl Message<Increment> for Bucket {
    type Reply = ();

    async fn handle(&mut self, _: Increment, _: &mut Context<Self, ()>) {
        self.version += 1;
    }
}

impl Message<Put> for Bucket {
    type Reply = u64;

    async fn handle(&mut self, Put(key, value): Put, _: &mut Context<Self, u64>) -> u64 {
        self.version += 1;
        self.entries.insert(key, value);
        self.version
    }
}

impl Message<Get> for Bucket {
    type Reply = Option<String>;

    async fn handle(&mut self, Get(key): Get, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        self.entries.get(&key).cloned()
    }
}

impl Message<Scan> for Bucket {
    type Reply = Vec<(String, String)>;

    async fn handle(&mut self, _: Scan, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        scanned(&self.entries)
    }
}

/// A permit for each death it is told of.
struct Watcher(Arc<Semaphore>);

impl Actor for Watcher {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(watcher: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(watcher)
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorId,
        _: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        self.0.add_permits(1);
        Ok(ControlFlow::Continue(()))
    }
}

impl Contender for Kameo {
    const NAME: &str = "kameo";

    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let names = names();
        runtime.block_on(async {
            for name in &names {
                Bucket::spawn(Bucket { entries: entries(), version: 0 }).register(name.clone()).unwrap();
            }
        });
        Self { runtime, names: Arc::new(names) }
    }

    fn time(&self, op: Op, times: u64) -> Duration {
        let names = Arc::clone(&self.names);
        as_task(&self.runtime, async move {
            if matches!(op, Op::MonitorDown) {
                return in_batches(times, deaths).await;
            }
            let find = |name: &str| ActorRef::<Bucket>::lookup(name).unwrap().unwrap();
            let one = find(&names[0]);
            let start = Instant::now();
            for name in names.iter().cycle().take(usize::try_from(times).unwrap()) {
                match op {
                    Op::Call => _ = one.ask(Read).await.unwrap(),
                    Op::Cast => one.tell(Increment).await.unwrap(),
                    Op::Lookup => _ = find(name),
                    Op::Put => _ = find(name).ask(Put(key(7), VALUE.to_owned())).await.unwrap(),
                    Op::Get => _ = find(name).ask(Get(key(7))).await.unwrap().unwrap(),
                    Op::Scan => _ = find(name).ask(Scan).await.unwrap(),
                    Op::MonitorDown => unreachable!("timed apart"),
                }
            }
            if matches!(op, Op::Cast) {
                one.ask(Read).await.unwrap();
            }
            start.elapsed()
        })
    }
}

async fn deaths(count: u64) -> Duration {
    let deaths = Arc::new(Semaphore::new(0));
    let watcher = Watcher::spawn(Watcher(Arc::clone(&deaths)));
    let mortal: Vec<_> = (0..count).map(|_| Bucket::spawn(Bucket { entries: Entries::new(), version: 0 })).collect();
    for each in &mortal {
        each.wait_for_startup().await;
    }
    let start = Instant::now();
    for each in &mortal {
        watcher.link(each).await;
        each.kill();
    }
    deaths.acquire_many(u32::try_from(count).unwrap()).await.unwrap().forget();
    start.elapsed()
}
