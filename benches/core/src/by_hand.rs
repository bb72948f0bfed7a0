//! What one would write without a library: a task for each bucket, a bounded channel to it, a oneshot for each reply,
//! and a map of channels under a lock.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{Contender, Entries, Op, VALUE, as_task, entries, in_batches, key, names, scanned};

/// Messages that wait at a bucket at most.
const MAILBOX: usize = 64;

/// Its runtime, with the buckets' tasks.
pub struct ByHand {
    runtime: Runtime,
    buckets: Arc<Buckets>,
    names: Arc<Vec<String>>,
}

type Buckets = RwLock<HashMap<String, mpsc::Sender<Message>>>;

enum Message {
    Read(oneshot::Sender<u64>),
    Increment,
    Put(String, String, oneshot::Sender<u64>),
    Get(String, oneshot::Sender<Option<String>>),
    Scan(oneshot::Sender<Vec<(String, String)>>),
}

async fn bucket(mut entries: Entries, mut mailbox: mpsc::Receiver<Message>) {
    let mut version = 0;
    while let Some(message) = mailbox.recv().await {
        // Who does not wait for the reply any more does not want it.
        match message {
            Message::Read(reply) => _ = reply.send(version),
            Message::Increment => version += 1,
            Message::Put(key, value, reply) => {
                version += 1;
                entries.insert(key, value);
                _ = reply.send(version);
            }
            Message::Get(key, reply) => _ = reply.send(entries.get(&key).cloned()),
            Message::Scan(reply) => _ = reply.send(scanned(&entries)),
        }
    }
}

fn spawn(entries: Entries) -> mpsc::Sender<Message> {
    let (sender, mailbox) = mpsc::channel(MAILBOX);
    tokio::spawn(bucket(entries, mailbox));
    sender
}

async fn ask<R>(bucket: &mpsc::Sender<Message>, message: impl FnOnce(oneshot::Sender<R>) -> Message) -> R {
    let (reply, replied) = oneshot::channel();
    bucket.send(message(reply)).await.ok().unwrap();
    replied.await.unwrap()
}

impl Contender for ByHand {
    const NAME: &str = "tokio by hand";

    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let names = names();
        let _in = runtime.enter();
        let buckets = names.iter().map(|name| (name.clone(), spawn(entries()))).collect();
        drop(_in);
        Self { runtime, buckets: Arc::new(RwLock::new(buckets)), names: Arc::new(names) }
    }

    fn time(&self, op: Op, times: u64) -> Duration {
        let (buckets, names) = (Arc::clone(&self.buckets), Arc::clone(&self.names));
        as_task(&self.runtime, async move {
            if matches!(op, Op::MonitorDown) {
                return in_batches(times, deaths).await;
            }
            let find = |name: &String| buckets.read().unwrap()[name].clone();
            let one = find(&names[0]);
            let start = Instant::now();
            for name in names.iter().cycle().take(usize::try_from(times).unwrap()) {
                match op {
                    Op::Call => _ = ask(&one, Message::Read).await,
                    Op::Cast => one.send(Message::Increment).await.ok().unwrap(),
                    Op::Lookup => _ = find(name),
                    Op::Put => _ = ask(&find(name), |reply| Message::Put(key(7), VALUE.to_owned(), reply)).await,
                    Op::Get => _ = ask(&find(name), |reply| Message::Get(key(7), reply)).await.unwrap(),
                    Op::Scan => _ = ask(&find(name), Message::Scan).await,
                    Op::MonitorDown => unreachable!("timed apart"),
                }
            }
            if matches!(op, Op::Cast) {
                ask(&one, Message::Read).await;
            }
            start.elapsed()
        })
    }
}

/// Tasks of a set are aborted, and the set tells of the end of each.
async fn deaths(count: u64) -> Duration {
    let mut mortal = JoinSet::new();
    let mut senders = Vec::new();
    for _ in 0..count {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        mortal.spawn(bucket(Entries::new(), mailbox));
        senders.push(sender);
    }
    let start = Instant::now();
    mortal.abort_all();
    while mortal.join_next().await.is_some() {}
    start.elapsed()
}
