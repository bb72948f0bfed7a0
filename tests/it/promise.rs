//! The seven words of the promise, under churn: ordered, unique, reliable, resumable, bookmarkable, explained, alive.
//!
//! Writers create, use, stop, crash, expire and link buckets of the same few names, and note what the server answers.
//! Watchers go away at random and come back with the last revision they were given. What they have seen is held against the
//! writers' notes, which know nothing of the log that feeds the watchers.
//!
//! `PAIL_CHURN_SECONDS` says for how long; `PAIL_SEED`, which is printed, runs the same script again.

mod small_history;
mod watchers;
mod writers;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use pail::pb::{self, WatchRequest, event::Event};
use tokio::{task::JoinSet, time::timeout};

use self::{
    watchers::{Plan, Seen, Stage, facts, watch, watch_once},
    writers::{NAMES, Notes, WRITERS, Writer, name},
};
use super::{
    random::Random,
    support::{DEADLINE, Server, length, names, prefix, soon, until},
};

const CHURN_SECONDS: u64 = 30;
/// So often the writers fall silent until a heartbeat is heard.
const SILENCES: u32 = 3;
/// Between two steps a writer takes a breath, in milliseconds, below this.
const BREATH_MS_MAX: u64 = 10;

fn churn() -> Duration {
    let seconds = std::env::var("PAIL_CHURN_SECONDS").map_or(CHURN_SECONDS, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
}

async fn write(mut writer: Writer, stage: Arc<Stage>) -> Notes {
    for silences in 0..=SILENCES {
        if silences > 0 {
            // A revision that a heartbeat claims too early shows by the first event after the silence.
            soon(stage.heartbeats.subscribe().changed()).await.unwrap();
        }
        let end = Instant::now() + churn() / (SILENCES + 1);
        while Instant::now() < end {
            writer.step().await;
            writer.pause(BREATH_MS_MAX).await;
        }
    }
    writer.notes
}

/// Fourteen who resume; two more watch for one DOWN each.
fn requests() -> Vec<(WatchRequest, (u64, u64))> {
    let all: Vec<_> = (0..NAMES).map(name).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let follow = |buckets: &[&str]| WatchRequest { follow: true, ..names(buckets) };
    let (often, now_and_then, rarely) = ((1, 150), (200, 1_000), (1_500, 2_500));
    vec![
        (prefix(""), often),
        (prefix(""), often),
        (prefix(""), now_and_then),
        (prefix(""), rarely),
        (prefix(""), rarely),
        (prefix("b1"), often),
        (prefix("b1"), now_and_then),
        (prefix("b7"), often),
        (follow(&all), often),
        (follow(&all), often),
        (follow(&all), rarely),
        (follow(&["b3", "b4"]), now_and_then),
        (follow(&["b3", "b4"]), rarely),
        // Nothing happens here: all it ever hears are heartbeats.
        (prefix("quiet"), (2_200, 2_600)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seven_words_hold_under_churn() {
    let mut random = Random::seeded();
    let server = Server::start();
    let first = server.registry.revision().get();
    let stage = Arc::new(Stage::default());

    let mut watchers = JoinSet::new();
    for (request, lives_ms) in requests() {
        let request = WatchRequest {
            after_revision: Some(first),
            registry_id: Some("a registry".into()),
            heartbeat: length(1, 0),
            ..request
        };
        let clients = [server.client().await, server.client().await, server.client().await];
        watchers.spawn(watch(clients, Plan { request, lives_ms }, random.split(), Arc::clone(&stage)));
    }
    let mut once = JoinSet::new();
    for _ in 0..2 {
        once.spawn(watch_once(server.client().await, random.split(), Arc::clone(&stage)));
    }
    assert_eq!(watchers.len() + once.len(), 16);
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(Writer::new(&server, random.split(), 1).await, Arc::clone(&stage)));
    }
    let written = timeout(churn() + DEADLINE * (SILENCES + 1), writers.join_all()).await;
    let mut notes = Notes::merge(written.expect("the writers never end"));

    // What has a time to live goes, and what a client took with it; what is left is the oracle's last word.
    let client = server.client().await;
    let list = pb::ListRequest { page_size: 1_000, ..Default::default() };
    let goes = |bucket: &pb::Bucket| bucket.expire_time.is_some() || notes.lost.contains(&bucket.id);
    let left = until(async || {
        let buckets = client.list(list.clone()).await.unwrap().buckets;
        (!buckets.iter().any(goes)).then_some(buckets)
    })
    .await;
    let last = client.create("end").await.unwrap();
    let id = last.bucket.unwrap().id;
    notes.created.insert(last.revision, ("end".into(), id, false));
    stage.end.store(last.revision, SeqCst);

    let mut living: HashSet<u64> = left.iter().map(|bucket| bucket.id).collect();
    living.insert(id);
    let mut deaths = HashSet::new();
    for seen in soon(watchers.join_all()).await {
        println!("{:?}: {} events, {} connections", seen.plan.request, seen.events.len(), seen.connections);
        ordered(&seen);
        unique(&seen);
        reliable(&seen, &notes, &living, first..last.revision);
        resumable(&seen);
        bookmarkable(&seen, last.revision);
        explained(&seen, &notes);
        alive(&seen);
        deaths.extend(seen.events.iter().filter_map(|event| match event {
            Event::Down(down) => Some(down.reason()),
            _ => None,
        }));
    }
    for down in soon(once.join_all()).await.into_iter().flatten() {
        notes.explain(&down);
    }
    for reason in ["NORMAL", "SHUTDOWN", "KILLED", "CRASHED", "EXPIRED", "NOCONNECTION", "LINKED"] {
        let reason = pb::Reason::from_str_name(&format!("REASON_{reason}")).unwrap();
        assert!(deaths.contains(&reason), "there was something to see of each kind: {deaths:?}");
    }
    // The last streams end when the server has seen that their readers are gone.
    until(async || (server.registry.monitors() == 0).then_some(())).await;
}

/// Each name is created, then goes down, then is created again, with one id for each life.
fn ordered(seen: &Seen) {
    let mut living = HashMap::new();
    for event in &seen.events {
        let (bucket, id, ..) = facts(event);
        let (before, expected) = match event {
            Event::Created(_) => (living.insert(bucket, id), None),
            _ => (living.remove(bucket), Some(id)),
        };
        assert_eq!(before, expected, "ordered: DOWN of one id comes before CREATED of the next: {event:?}");
    }
}

/// Nothing comes twice, on one stream or on those that resumed it.
fn unique(seen: &Seen) {
    let mut revisions = HashSet::new();
    let mut births = HashSet::new();
    let mut deaths = HashSet::new();
    for event in &seen.events {
        let (_, id, _, revision) = facts(event);
        assert!(revisions.insert(revision), "unique: a revision comes once: {event:?}");
        let lives = if matches!(event, Event::Created(_)) { &mut births } else { &mut deaths };
        assert!(lives.insert(id), "unique: a life begins once and ends once: {event:?}");
    }
}

/// What was acknowledged is there, and on the prefix of all there is no hole.
fn reliable(seen: &Seen, notes: &Notes, living: &HashSet<u64>, revisions: Range<u64>) {
    let mut created = BTreeMap::new();
    let mut down = BTreeMap::new();
    for event in &seen.events {
        let (bucket, id, _, revision) = facts(event);
        assert!(seen.plan.covers(bucket), "reliable: only what was asked for: {event:?}");
        let kind = if matches!(event, Event::Created(_)) { &mut created } else { &mut down };
        kind.insert(revision, (bucket, id));
    }
    if seen.watches_all() {
        let all = seen.events.iter().map(|event| facts(event).3);
        assert!(all.eq(revisions.start + 1..=revisions.end), "reliable: every revision, without a hole");
    }

    let told: BTreeMap<_, _> = notes.created.iter().filter(|(_, (bucket, ..))| seen.plan.covers(bucket)).collect();
    let ours: HashSet<u64> = told.values().map(|(_, id, _)| *id).collect();
    let births: BTreeMap<_, _> = told.iter().map(|(at, (bucket, id, _))| (**at, (&**bucket, *id))).collect();
    assert_eq!(created, births, "reliable: each Create that was acknowledged, and no other");
    for (revision, (id, ..)) in notes.stopped.iter().filter(|(_, (id, ..))| ours.contains(id)) {
        let seen = down.get(revision).map(|(_, id)| id);
        assert_eq!(seen, Some(id), "reliable: a Stop that was acknowledged with revision {revision}");
    }
    let dead: HashSet<u64> = down.values().map(|(_, id)| *id).collect();
    for id in notes.crashed.keys().chain(&notes.lost).filter(|id| ours.contains(id)) {
        assert!(dead.contains(id), "reliable: the crash of {id}, or of its client");
    }
    for id in &ours {
        assert_ne!(dead.contains(id), living.contains(id), "reliable: {id} has one DOWN or is alive in the end");
    }
}

/// It went on where it was, again and again; that each time it began there is held where it did.
fn resumable(seen: &Seen) {
    assert!(seen.connections > 1, "resumable: {:?} was never put to the test", seen.plan);
}

/// In the end it was told that it has seen all; that no revision claimed too much is held where it came.
fn bookmarkable(seen: &Seen, last: u64) {
    assert!(seen.revision >= last, "bookmarkable: it was told of {} and {last} was the last", seen.revision);
}

/// Each death has the reason that its cause was told of, and those without a cause were due.
fn explained(seen: &Seen, notes: &Notes) {
    for event in &seen.events {
        if let Event::Down(down) = event {
            notes.explain(down);
        }
    }
}

/// Who has nothing to hear hears that; that nobody waited for long is held where they waited.
fn alive(seen: &Seen) {
    if seen.plan.request.prefix.as_deref() == Some("quiet") {
        assert!(seen.heartbeats >= 2, "alive: the quiet one heard {} heartbeats", seen.heartbeats);
        assert!(seen.events.is_empty());
    }
}
