//! The seven words of the promise, under churn: ordered, unique, reliable, resumable, bookmarkable, explained, alive.
//!
//! Writers create, use, stop, crash and expire buckets of the same few names, and note what the server answers. Watchers go
//! away at random and come back with the last revision they were given. What they have seen is held against the writers'
//! notes, which know nothing of the log that feeds the watchers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use pail::pb::{self, Reason, WatchRequest, event::Event, watch_response::Response};
use tokio::{sync::watch::Sender, task::JoinSet, time::timeout};
use tonic_types::StatusExt as _;

use super::support::{Client, Random, Server, Watching, length, millis, names, prefix, put, soon, until};

const WRITERS: u64 = 6;
const NAMES: u64 = 20;
/// They write for so long, are silent until a heartbeat is heard, and write for so long again.
const CHURN: Duration = Duration::from_millis(1_300);
/// A heartbeat is asked for after a second of silence; the rest is for a machine that is busy with something else.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The times to live of the buckets that expire, in milliseconds, below this.
const TTL_MS_MAX: u64 = 40;
/// What a client that stops a bucket gives as its reasons.
const REASONS: [Reason; 4] = [Reason::Normal, Reason::Shutdown, Reason::Killed, Reason::Crashed];

fn name(n: u64) -> String {
    format!("b{n}")
}

/// What the server has told the writers.
#[derive(Default)]
struct Notes {
    /// Revision to name, id and whether it has a time to live.
    created: BTreeMap<u64, (String, u64, bool)>,
    /// Revision to id, reason and detail.
    stopped: BTreeMap<u64, (u64, Reason, String)>,
    /// Id to detail.
    crashed: HashMap<u64, String>,
    /// Id to the last version.
    changed: HashMap<u64, u64>,
}

impl Notes {
    fn merge(all: Vec<Self>) -> Self {
        let mut merged = Self::default();
        for notes in all {
            let count = merged.created.len() + notes.created.len();
            merged.created.extend(notes.created);
            assert_eq!(merged.created.len(), count, "unique: a revision was given to two Creates");
            let count = merged.stopped.len() + notes.stopped.len();
            merged.stopped.extend(notes.stopped);
            assert_eq!(merged.stopped.len(), count, "unique: a revision was given to two Stops");
            let count = merged.crashed.len() + notes.crashed.len();
            merged.crashed.extend(notes.crashed);
            assert_eq!(merged.crashed.len(), count, "unique: a crash was told to two callers");
            for (id, version) in notes.changed {
                let last = merged.changed.entry(id).or_default();
                *last = version.max(*last);
            }
        }
        merged
    }
}

/// One step of a writer.
async fn step(client: &Client, random: &mut Random, notes: &mut Notes) {
    let bucket = name(random.below(NAMES));
    let detail = format!("{:x}", random.below(1 << 40));
    match random.below(8) {
        what @ 0..=3 => {
            let ttl = (what == 3).then(|| 1 + random.below(TTL_MS_MAX));
            let ttl = ttl.and_then(|ttl| millis(u16::try_from(ttl).unwrap()));
            let request = pb::CreateRequest { bucket, ttl, ..Default::default() };
            let answer = client.create_with(request).await.unwrap();
            if answer.created {
                let created = answer.bucket.unwrap();
                notes.created.insert(answer.revision, (created.name, created.id, ttl.is_some()));
            }
        }
        4 | 5 => {
            if let Ok(answer) = client.put_with(put(&bucket, "k", &*detail)).await {
                let last = notes.changed.entry(answer.bucket_id).or_default();
                *last = answer.version.max(*last);
            }
        }
        6 => {
            let reason = REASONS[usize::try_from(random.below(4)).unwrap()];
            let request =
                pb::StopRequest { bucket, reason: reason.into(), detail: detail.clone(), ..Default::default() };
            match client.stop_with(request).await {
                Ok(answer) => drop(notes.stopped.insert(answer.revision, (answer.bucket_id, reason, detail))),
                Err(status) => assert_eq!(status.get_details_error_info().unwrap().reason, "BUCKET_NOT_FOUND"),
            }
        }
        _ => {
            let info = client.crash(&bucket, &detail).await.unwrap_err().get_details_error_info().unwrap();
            match &*info.reason {
                "BUCKET_CRASHED" => drop(notes.crashed.insert(info.metadata["bucket_id"].parse().unwrap(), detail)),
                other => assert_eq!(other, "BUCKET_NOT_FOUND"),
            }
        }
    }
}

async fn write(client: Client, mut random: Random, stage: Arc<Stage>) -> Notes {
    let mut notes = Notes::default();
    for last in [false, true] {
        let end = Instant::now() + CHURN;
        while Instant::now() < end {
            step(&client, &mut random, &mut notes).await;
        }
        if !last {
            // A revision that a heartbeat claims too early shows by the first event after the silence.
            soon(stage.heartbeats.subscribe().changed()).await.unwrap();
        }
    }
    notes
}

/// What writers and watchers know of each other.
#[derive(Default)]
struct Stage {
    /// Told when one who watches all hears a heartbeat.
    heartbeats: Sender<()>,
    /// The last revision of all; 0: not known yet.
    end: AtomicU64,
}

/// What a watcher asks for, and how long its connections last, in milliseconds.
#[derive(Clone, Debug)]
struct Plan {
    request: WatchRequest,
    lives_ms: (u64, u64),
}

impl Plan {
    fn covers(&self, bucket: &str) -> bool {
        match &self.request.prefix {
            Some(prefix) => bucket.starts_with(&**prefix),
            None => self.request.buckets.iter().any(|name| name == bucket),
        }
    }
}

/// What a watcher saw, over all its connections.
struct Seen {
    plan: Plan,
    events: Vec<Event>,
    connections: usize,
    heartbeats: usize,
    /// Up to here it was told that it has seen all.
    revision: u64,
}

/// An event's bucket, id, ref and revision.
fn facts(event: &Event) -> (&str, u64, u64, u64) {
    match event {
        Event::Created(event) => (&event.bucket, event.bucket_id, event.r#ref, event.revision),
        Event::Down(event) => (&event.bucket, event.bucket_id, event.r#ref, event.revision),
        other => panic!("{other:?}"),
    }
}

impl Seen {
    fn watches_all(&self) -> bool {
        self.plan.request.prefix.as_deref() == Some("")
    }

    fn is_over(&self, stage: &Stage) -> bool {
        let end = stage.end.load(SeqCst);
        end > 0 && self.revision >= end
    }

    /// Takes a response, and holds it to what can be said of it at once. `revision` is what it carries.
    fn take(&mut self, response: Response, revision: u64) {
        assert!(revision >= self.revision, "bookmarkable: a revision never goes back");
        match response {
            Response::Events(batch) => {
                let mut last = self.revision;
                for event in batch.events.into_iter().filter_map(|event| event.event) {
                    let (.., at) = facts(&event);
                    assert!(
                        at > self.revision,
                        "bookmarkable: revision {} had claimed what comes only now: {event:?}",
                        self.revision
                    );
                    assert!(at > last, "ordered, unique: revision {last} came before: {event:?}");
                    assert!(at <= revision, "bookmarkable: revision {revision} does not claim what comes with it");
                    last = at;
                    self.events.push(event);
                }
            }
            Response::Heartbeat(_) => self.heartbeats += 1,
            Response::Synced(_) => {}
            other => panic!("{other:?}"),
        }
        self.revision = revision;
    }
}

/// Watches, goes away, and comes back, until it has seen all up to the end.
async fn watch(clients: [Client; 3], plan: Plan, mut random: Random, stage: Arc<Stage>) -> Seen {
    let mut seen = Seen {
        revision: plan.request.after_revision.unwrap(),
        plan: plan.clone(),
        events: Vec::new(),
        connections: 0,
        heartbeats: 0,
    };
    while !seen.is_over(&stage) {
        let client = &clients[usize::try_from(random.below(3)).unwrap()];
        let request = WatchRequest { after_revision: Some(seen.revision), ..plan.request.clone() };
        let mut watching = client.watch(request).await.expect("resumable: what is kept can be resumed");
        seen.connections += 1;
        let started = watching.started().await;
        assert_eq!(started.registry_id, "a registry");
        assert_eq!(watching.revision, seen.revision, "resumable: it begins where it was");

        let (least, most) = plan.lives_ms;
        let life = Duration::from_millis(least + random.below(most - least));
        // Whatever it is waiting for as the time is up is lost with it; what it has taken is not.
        timeout(life, listen(&mut watching, &mut seen, &stage)).await.ok();
    }
    seen
}

async fn listen(watching: &mut Watching, seen: &mut Seen, stage: &Stage) {
    while !seen.is_over(stage) {
        let start = Instant::now();
        let response = watching.response().await.expect("reliable: no watch ends").expect("reliable: no watch ends");
        assert!(start.elapsed() < SILENCE_MAX, "alive: it was silent for {:?}", start.elapsed());
        if seen.watches_all() && matches!(response, Response::Heartbeat(_)) {
            stage.heartbeats.send_replace(());
        }
        seen.take(response, watching.revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seven_words_hold_under_churn() {
    let mut seeds = Random::seed();
    let server = Server::start();
    let first = server.registry.revision().get();
    let stage = Arc::new(Stage::default());

    let all: Vec<_> = (0..NAMES).map(name).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let often = (1, 150);
    let requests = [
        (prefix(""), often),
        (prefix(""), often),
        (prefix(""), (1_500, 2_500)),
        (prefix("b1"), often),
        (prefix("b7"), often),
        (WatchRequest { follow: true, ..names(&all) }, often),
        (WatchRequest { follow: true, ..names(&["b3", "b4"]) }, (1_200, 1_600)),
        // Nothing happens here: all it ever hears are heartbeats.
        (prefix("quiet"), (2_200, 2_600)),
    ];
    let mut watchers = JoinSet::new();
    for (request, lives_ms) in requests {
        let request = WatchRequest {
            after_revision: Some(first),
            registry_id: Some("a registry".into()),
            heartbeat: length(1, 0),
            ..request
        };
        let clients = [server.client().await, server.client().await, server.client().await];
        let random = seeds.split();
        let plan = Plan { request, lives_ms };
        watchers.spawn(watch(clients, plan, random, Arc::clone(&stage)));
    }
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(server.client().await, seeds.split(), Arc::clone(&stage)));
    }
    let mut notes = soon(writers.join_all()).await;

    // What has a time to live goes; what is left is the oracle's last word.
    let client = server.client().await;
    let list = pb::ListRequest { page_size: 1_000, ..Default::default() };
    let left = until(async || {
        let buckets = client.list(list.clone()).await.unwrap().buckets;
        buckets.iter().all(|bucket| bucket.expire_time.is_none()).then_some(buckets)
    })
    .await;
    let last = client.create("end").await.unwrap();
    let id = last.bucket.unwrap().id;
    notes.push(Notes { created: [(last.revision, ("end".into(), id, false))].into(), ..Notes::default() });
    stage.end.store(last.revision, SeqCst);

    let notes = Notes::merge(notes);
    let mut living: HashSet<u64> = left.iter().map(|bucket| bucket.id).collect();
    living.insert(id);
    for seen in soon(watchers.join_all()).await {
        println!("{:?}: {} events, {} connections", seen.plan.request, seen.events.len(), seen.connections);
        ordered(&seen);
        unique(&seen);
        reliable(&seen, &notes, &living, first..last.revision);
        explained(&seen, &notes);
        assert!(seen.connections > 1, "resumable: {:?} was never put to the test", seen.plan);
        if seen.plan.lives_ms.0 > 2_000 {
            assert!(seen.heartbeats >= 2, "alive: the quiet one heard {} heartbeats", seen.heartbeats);
        }
    }
    assert!(notes.created.len() > 100, "there was something to see: {}", notes.created.len());
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
fn reliable(seen: &Seen, notes: &Notes, living: &HashSet<u64>, revisions: std::ops::Range<u64>) {
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
    for id in notes.crashed.keys().filter(|id| ours.contains(id)) {
        assert!(dead.contains(id), "reliable: the crash of {id} that was acknowledged");
    }
    for id in &ours {
        assert_ne!(dead.contains(id), living.contains(id), "reliable: {id} has one DOWN or is alive in the end");
    }
}

/// Each death has the reason that its cause was told of, and those without a cause were due.
fn explained(seen: &Seen, notes: &Notes) {
    let expiring: HashSet<u64> =
        notes.created.values().filter(|(.., expires)| *expires).map(|(_, id, _)| *id).collect();
    for event in &seen.events {
        let Event::Down(down) = event else { continue };
        let id = down.bucket_id;
        let why = (down.reason(), &*down.detail);
        if let Some((_, reason, detail)) = notes.stopped.get(&down.revision) {
            assert_eq!(why, (*reason, &**detail), "explained: it was stopped so: {down:?}");
        } else if let Some(detail) = notes.crashed.get(&id) {
            assert_eq!(why, (Reason::Crashed, &**detail), "explained: it was crashed so: {down:?}");
        } else {
            assert_eq!(why, (Reason::Expired, ""), "explained: nobody did it, so it was due: {down:?}");
            assert!(expiring.contains(&id), "explained: it had a time to live: {down:?}");
        }
        assert!(down.time.is_some(), "explained: {down:?}");
        let changed = notes.changed.get(&id).copied().unwrap_or_default();
        assert!(down.version >= changed, "explained: version {changed} was acknowledged: {down:?}");
    }
}
