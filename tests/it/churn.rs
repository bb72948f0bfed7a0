//! Everything at once: writers create, stop and crash the same names, and every watcher sees the one history.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use pail::pb::{Reason, event::Event};
use tokio::task::JoinSet;
use tonic_types::StatusExt as _;

use super::support::{Client, Server, Watching, soon};

const WRITERS: u64 = 4;
const WATCHERS: usize = 4;
const NAMES: u64 = 10;

/// What the server has told a writer.
#[derive(Default)]
struct Acknowledged {
    /// Revision to id.
    created: Vec<(u64, u64)>,
    stopped: Vec<(u64, u64)>,
    crashed: Vec<u64>,
}

async fn write(client: Client, seed: u64) -> Acknowledged {
    let mut told = Acknowledged::default();
    let mut random = seed;
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        // xorshift64: each writer goes its own way, the same in every run.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let name = format!("b{}", random % NAMES);
        match random / NAMES % 4 {
            0 | 1 => {
                let answer = client.create(&name).await.unwrap();
                if answer.created {
                    told.created.push((answer.revision, answer.bucket.unwrap().id));
                }
            }
            2 => match client.stop(&name).await {
                Ok(answer) => told.stopped.push((answer.revision, answer.bucket_id)),
                Err(status) => assert_eq!(status.get_details_error_info().unwrap().reason, "BUCKET_NOT_FOUND"),
            },
            _ => {
                let info = client.crash(&name, "boom").await.unwrap_err().get_details_error_info().unwrap();
                match &*info.reason {
                    "BUCKET_CRASHED" => told.crashed.push(info.metadata["bucket_id"].parse().unwrap()),
                    other => assert_eq!(other, "BUCKET_NOT_FOUND"),
                }
            }
        }
    }
    told
}

/// Every event, until the bucket `end` is created.
async fn watch(mut watching: Watching) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = watching.event().await;
        let is_end = matches!(&event, Event::Created(created) if created.bucket == "end");
        events.push(event);
        if is_end {
            return events;
        }
    }
}

fn revision(event: &Event) -> u64 {
    match event {
        Event::Created(created) => created.revision,
        Event::Down(down) => down.revision,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_sees_the_whole_history_in_order_and_all_that_was_acknowledged() {
    let server = Server::start();
    let first = server.registry.revision().get() + 1;
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let mut watching = server.client().await.watch_prefix("").await;
        watching.synced().await;
        watchers.spawn(watch(watching));
    }
    let mut writers = JoinSet::new();
    for seed in 1..=WRITERS {
        writers.spawn(write(server.client().await, seed));
    }

    let told = soon(writers.join_all()).await;
    server.client().await.created("end").await;
    let histories = soon(watchers.join_all()).await;

    for history in &histories {
        assert!(history.iter().map(revision).eq((first..).take(history.len())), "every revision, without a hole");
        assert_eq!(history, &histories[0], "it is the same for all");
    }
    assert!(histories[0].len() > 20, "there was something to see: {}", histories[0].len());
    alternates(&histories[0]);
    holds(&histories[0], &told);
    assert_eq!(server.registry.monitors(), 0);
}

/// Each name is created, then goes down, then is created again: with one id for each life.
fn alternates(history: &[Event]) {
    let mut living = HashMap::new();
    let mut ids = HashSet::new();
    for event in history {
        match event {
            Event::Created(created) => {
                assert!(ids.insert(created.bucket_id), "an id is never given again: {created:?}");
                let before = living.insert(&created.bucket, created.bucket_id);
                assert_eq!(before, None, "DOWN comes before the CREATED of a namesake: {created:?}");
            }
            Event::Down(down) => assert_eq!(living.remove(&down.bucket), Some(down.bucket_id), "{down:?}"),
            other => panic!("{other:?}"),
        }
    }
}

/// What a writer was told has happened is in the history, at that revision and with that reason.
fn holds(history: &[Event], told: &[Acknowledged]) {
    let mut created = BTreeMap::new();
    let mut down = BTreeMap::new();
    let mut crashed = HashSet::new();
    for event in history {
        match event {
            Event::Created(event) => drop(created.insert(event.revision, event.bucket_id)),
            Event::Down(event) if event.reason() == Reason::Crashed => drop(crashed.insert(event.bucket_id)),
            Event::Down(event) => drop(down.insert(event.revision, event.bucket_id)),
            other => panic!("{other:?}"),
        }
    }
    for told in told {
        assert!(told.created.iter().all(|(revision, id)| created.get(revision) == Some(id)));
        assert!(told.stopped.iter().all(|(revision, id)| down.get(revision) == Some(id)));
        assert!(told.crashed.iter().all(|id| crashed.contains(id)));
    }
    let acknowledged = |count: fn(&Acknowledged) -> usize| told.iter().map(count).sum::<usize>();
    assert_eq!(crashed.len(), acknowledged(|told| told.crashed.len()), "each crash is told to exactly one caller");
    assert_eq!(down.len(), acknowledged(|told| told.stopped.len()));
    assert_eq!(created.len(), acknowledged(|told| told.created.len()) + 1, "and the end");
}
