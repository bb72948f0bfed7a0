//! Actors of ractor, with its unbounded mailboxes, its registry and its monitors.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent, call, cast, registry::where_is};
use tokio::{runtime::Runtime, sync::Semaphore};

use crate::{Contender, Entries, Op, VALUE, as_task, entries, in_batches, key, names, scanned};

/// Its runtime, with the actors' tasks.
pub struct Ractor {
    runtime: Runtime,
    names: Arc<Vec<String>>,
}

struct Bucket;

struct State {
    entries: Entries,
    version: u64,
}

enum Message {
    Read(RpcReplyPort<u64>),
    Increment,
    Put(String, String, RpcReplyPort<u64>),
    Get(String, RpcReplyPort<Option<String>>),
    Scan(RpcReplyPort<Vec<(String, String)>>),
}

impl Actor for Bucket {
    type Msg = Message;
    type State = State;
    type Arguments = Entries;

    async fn pre_start(&self, _: ActorRef<Message>, entries: Entries) -> Result<State, ActorProcessingErr> {
        Ok(State { entries, version: 0 })
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Read(reply) => reply.send(state.version)?,
            Message::Increment => state.version += 1,
            Message::Put(key, value, reply) => {
                state.version += 1;
                state.entries.insert(key, value);
                reply.send(state.version)?;
            }
            Message::Get(key, reply) => reply.send(state.entries.get(&key).cloned())?,
            Message::Scan(reply) => reply.send(scanned(&state.entries))?,
        }
        Ok(())
    }
}

/// A permit for each death it is told of.
struct Watcher;

impl Actor for Watcher {
    type Msg = ();
    type State = Arc<Semaphore>;
    type Arguments = Arc<Semaphore>;

    async fn pre_start(&self, _: ActorRef<()>, deaths: Self::State) -> Result<Self::State, ActorProcessingErr> {
        Ok(deaths)
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        deaths: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if matches!(event, SupervisionEvent::ActorTerminated(..)) {
            deaths.add_permits(1);
        }
        Ok(())
    }
}

impl Contender for Ractor {
    const NAME: &str = "ractor";

    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let names = names();
        runtime.block_on(async {
            for name in &names {
                Actor::spawn(Some(name.clone()), Bucket, entries()).await.unwrap();
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
            let find = |name: &str| ActorRef::<Message>::from(where_is(name).unwrap());
            let one = find(&names[0]);
            let start = Instant::now();
            for name in names.iter().cycle().take(usize::try_from(times).unwrap()) {
                match op {
                    Op::Call => _ = call!(one, Message::Read).unwrap(),
                    Op::Cast => cast!(one, Message::Increment).unwrap(),
                    Op::Lookup => _ = find(name),
                    Op::Put => _ = call!(find(name), Message::Put, key(7), VALUE.to_owned()).unwrap(),
                    Op::Get => _ = call!(find(name), Message::Get, key(7)).unwrap().unwrap(),
                    Op::Scan => _ = call!(find(name), Message::Scan).unwrap(),
                    Op::MonitorDown => unreachable!("timed apart"),
                }
            }
            if matches!(op, Op::Cast) {
                call!(one, Message::Read).unwrap();
            }
            start.elapsed()
        })
    }
}

async fn deaths(count: u64) -> Duration {
    let deaths = Arc::new(Semaphore::new(0));
    let (watcher, _) = Actor::spawn(None, Watcher, Arc::clone(&deaths)).await.unwrap();
    let mut mortal = Vec::new();
    for _ in 0..count {
        mortal.push(Actor::spawn(None, Bucket, Entries::new()).await.unwrap().0);
    }
    let start = Instant::now();
    for each in &mortal {
        watcher.monitor(each.get_cell());
        each.kill();
    }
    deaths.acquire_many(u32::try_from(count).unwrap()).await.unwrap().forget();
    let took = start.elapsed();
    watcher.stop(None);
    took
}
