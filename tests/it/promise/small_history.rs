//! The same churn over a history that holds next to nothing: who reads too slowly lags, who comes back too late finds what
//! it missed compacted, and both are told. Between what they were told is lost, they lose nothing.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use pail::{
    limits::Limits,
    pb::{WatchRequest, event::Event, watch_response::Response},
    registry::Registry,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{
    super::{
        random::Random,
        support::{Client, DEADLINE, Server, Watching, prefix, refused, soon},
    },
    watchers::facts,
    writers::{Notes, WRITERS, Writer},
};

const HISTORY_EVENTS: usize = 64;
const WATCHERS: usize = 4;
/// Each lags and comes back too late so often.
const CYCLES: usize = 2;
/// What each death takes of the stream…
const DETAIL_BYTES: usize = 800;
/// …so that so many events are more than a stream holds for one who does not read, and than the history does.
const STALL_EVENTS: u64 = 1_000;

/// What a watcher was told from a snapshot on until it lagged.
struct Part {
    /// The revision of the snapshot, and the ids that were alive there.
    from: u64,
    living: HashSet<u64>,
    events: Vec<Event>,
    /// Up to here it was told that it has seen all.
    to: u64,
}

/// Waits until so much has happened that `revision` is long gone.
async fn is_long_gone(registry: &Registry, revision: u64) {
    soon(async {
        while registry.revision().get() < revision + STALL_EVENTS {
            // Not for luck: a pause between two looks.
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// The ids of what lives as the watch is synced; `None` where the history is too small even for that.
async fn snapshot(watching: &mut Watching) -> Option<HashSet<u64>> {
    watching.started().await;
    let mut living = HashSet::new();
    loop {
        match watching.response().await {
            Ok(Some(Response::Events(batch))) => {
                // What lives, and what has happened since the watch began.
                for event in batch.events.into_iter().filter_map(|event| event.event) {
                    let id = facts(&event).1;
                    let is_news = match &event {
                        Event::Created(_) => living.insert(id),
                        _ => living.remove(&id),
                    };
                    assert!(is_news, "a life begins once and ends once: {event:?}");
                }
            }
            Ok(Some(Response::Synced(_))) => return Some(living),
            Ok(other) => panic!("{other:?}"),
            Err(status) => {
                // There is no revision yet to resume from.
                refused(Err::<(), _>(status), Code::ResourceExhausted, "WATCHER_LAGGED", &[]);
                return None;
            }
        }
    }
}

/// Takes a snapshot, reads, stops reading until it lags, comes back too late, and begins anew.
async fn watch(client: Client, registry: Registry) -> Vec<Part> {
    let mut parts = Vec::new();
    while parts.len() < CYCLES {
        let mut watching = client.watch(prefix("")).await.unwrap();
        let Some(living) = snapshot(&mut watching).await else { continue };
        let mut part = Part { from: watching.revision, living, events: Vec::new(), to: watching.revision };

        is_long_gone(&registry, part.from).await;
        let lagged = loop {
            match watching.response().await {
                Ok(Some(Response::Events(batch))) => {
                    part.events.extend(batch.events.into_iter().filter_map(|event| event.event));
                    part.to = watching.revision;
                }
                Ok(Some(Response::Heartbeat(_))) => {}
                Ok(other) => panic!("{other:?}"),
                Err(status) => break status,
            }
        };
        let resume = part.to.to_string();
        refused(Err::<(), _>(lagged), Code::ResourceExhausted, "WATCHER_LAGGED", &[("resume_revision", &resume)]);

        let late = WatchRequest { after_revision: Some(part.to), ..prefix("") };
        let compacted = match client.watch(late).await {
            Ok(mut watching) => watching.response().await.expect_err("it is long gone"),
            Err(status) => status,
        };
        let info = compacted.get_details_error_info().unwrap();
        assert_eq!((compacted.code(), &*info.reason), (Code::OutOfRange, "REVISION_COMPACTED"));
        assert!(info.metadata["oldest_revision"].parse::<u64>().unwrap() > part.to + 1, "{info:?}");
        parts.push(part);
    }
    parts
}

async fn write(mut writer: Writer, enough: Arc<AtomicBool>) -> Notes {
    while !enough.load(SeqCst) {
        writer.step().await;
    }
    writer.notes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_is_too_small_is_told_of_and_what_lies_between_is_whole() {
    let mut random = Random::seeded();
    let server = Server::with(Limits { history_events_max: HISTORY_EVENTS, ..Limits::default() });
    let enough = Arc::new(AtomicBool::default());
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        watchers.spawn(watch(server.narrow_client().await, server.registry.clone()));
    }
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(Writer::new(&server, random.split(), DETAIL_BYTES).await, Arc::clone(&enough)));
    }

    let within = DEADLINE + Duration::from_secs(10) * CYCLES.try_into().unwrap();
    let seen = timeout(within, watchers.join_all()).await.expect("the watchers never end");
    enough.store(true, SeqCst);
    let notes = Notes::merge(timeout(DEADLINE, writers.join_all()).await.expect("the writers never end"));

    let parts: Vec<_> = seen.into_iter().flatten().collect();
    assert_eq!(parts.len(), WATCHERS * CYCLES, "lag and compaction were reached");
    for part in &parts {
        is_whole(part, &notes);
    }
}

/// The snapshot is that of its revision, and what follows it has no hole.
fn is_whole(Part { from, living, events, to }: &Part, notes: &Notes) {
    assert!(events.iter().map(|event| facts(event).3).eq(from + 1..=*to), "no hole from {from} to {to}");
    let ids = |is_born: bool| {
        let chosen = events.iter().filter(move |event| matches!(event, Event::Created(_)) == is_born);
        chosen.map(facts).map(|(_, id, _, revision)| (revision, id)).collect::<BTreeMap<_, _>>()
    };
    let (born, dead) = (ids(true), ids(false));

    let told: BTreeMap<_, _> = notes.created.range(from + 1..=*to).map(|(at, (_, id, _))| (*at, *id)).collect();
    assert_eq!(born, told, "each Create that was acknowledged, and no other");
    // The id of a bucket is the revision of its creation.
    let was_born = |id: &u64| id <= from && notes.created.contains_key(id);
    for (revision, (id, ..)) in &notes.stopped {
        if revision <= from {
            assert!(!living.contains(id), "{id} was stopped before the snapshot of {from}");
        } else if was_born(id) {
            assert!(living.contains(id), "{id} was alive at {from}");
        }
        if (from + 1..=*to).contains(revision) {
            assert_eq!(dead.get(revision), Some(id), "a Stop that was acknowledged");
        }
    }
    assert!(living.iter().all(was_born), "who lives at {from} was created before: {living:?}");
    let lived = |id: &u64| living.contains(id) || born.contains_key(id);
    assert!(dead.values().all(lived), "who died had lived: {dead:?}");
    let deaths: HashSet<_> = dead.values().collect();
    assert_eq!(deaths.len(), dead.len(), "nobody dies twice: {dead:?}");
    for event in events {
        if let Event::Down(down) = event {
            notes.explain(down);
        }
    }
}
