//! Watches of entries under churn: whoever has caught up has in hand exactly what a Scan shows.
//!
//! Writers change, stop and crash a handful of buckets. Watchers go away at random and come back, and rebuild the buckets
//! from nothing but what they are told. What they are held against is what the server answers to those who ask and to those
//! who write, which knows nothing of the ring that feeds the watchers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use pail::pb::{self, Reason, WatchRequest, event::Event, transact_op::Op, watch_response::Response};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tonic_types::StatusExt as _;

use super::{
    random::Random,
    support::{Client, Server, Watching, millis, names, prefix, put, scan, soon, until, value},
};

const WRITERS: usize = 5;
const BUCKETS: [&str; 5] = ["b0", "b1", "b2", "b3", "c0"];
const KEYS: u64 = 60;
const CHURN: Duration = Duration::from_secs(8);
/// The last entry that is put into each bucket.
const END: &str = "k99/end";
/// The times to live of the entries that expire, in milliseconds, below this.
const TTL_MS_MAX: u64 = 30;

fn bucket(random: &mut Random) -> String {
    BUCKETS[usize::try_from(random.below(BUCKETS.len() as u64)).unwrap()].to_owned()
}

fn key(random: &mut Random) -> String {
    format!("k{:02}/{}", random.below(KEYS), "x".repeat(usize::try_from(random.below(2)).unwrap()))
}

/// What the server has told the writers: of each id the last version that was acknowledged.
type Acknowledged = HashMap<u64, u64>;

async fn write(client: Client, mut random: Random) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    let end = Instant::now() + CHURN;
    while Instant::now() < end {
        match step(&client, &mut random).await {
            Ok(Some((id, version))) => {
                let last = acknowledged.entry(id).or_default();
                *last = version.max(*last);
            }
            Ok(None) => {}
            Err(status) => {
                let reason = status.get_details_error_info().unwrap().reason;
                // It is an Add to what is no integer, or the bucket was gone.
                assert!(["BUCKET_NOT_FOUND", "BUCKET_CRASHED", "WRONG_TYPE"].contains(&&*reason), "{status:?}");
            }
        }
    }
    acknowledged
}

/// One step of a writer; the version that was acknowledged, and of which id.
async fn step(client: &Client, random: &mut Random) -> Result<Option<(u64, u64)>, tonic::Status> {
    let (bucket, key) = (bucket(random), key(random));
    let text = "v".repeat(usize::try_from(random.below(120)).unwrap());
    Ok(match random.below(100) {
        0..40 => client.put(&bucket, &key, &*text).await.map(|done| Some((done.bucket_id, done.version)))?,
        40..50 => {
            let ttl = millis(u16::try_from(1 + random.below(TTL_MS_MAX)).unwrap());
            let done = client.put_with(pb::PutRequest { ttl, ..put(&bucket, &key, &*text) }).await?;
            Some((done.bucket_id, done.version))
        }
        50..62 => client.add(&bucket, &key, 1).await.map(|done| Some((done.bucket_id, done.version)))?,
        62..78 => client.delete(&bucket, &key).await.map(|done| Some((done.bucket_id, done.version)))?,
        78..92 => {
            let done = client.transact(transaction(bucket, random)).await?;
            Some((done.bucket_id, done.version))
        }
        92..94 => {
            client.stop(&bucket).await?;
            None
        }
        94 => {
            client.crash(&bucket, "at once").await?;
            None
        }
        _ => {
            client.create(&bucket).await?;
            None
        }
    })
}

/// Some operations, some of them on one key; and now and then a crash in their midst.
fn transaction(bucket: String, random: &mut Random) -> pb::TransactRequest {
    let ops = 1 + random.below(12);
    let crashes = random.below(40) == 0;
    let success = (0..ops).map(|n| {
        let key = if crashes && n + 1 == ops { format!("{}in the midst", pail::hooks::PANIC) } else { key(random) };
        let op = match random.below(3) {
            0 => Op::Delete(pb::TransactDelete { key }),
            1 => Op::Put(pb::TransactPut { key, value: value(i64::try_from(n).unwrap()), ttl: None }),
            _ => Op::Put(pb::TransactPut { key, value: value("text"), ttl: None }),
        };
        pb::TransactOp { op: Some(op) }
    });
    pb::TransactRequest { success: success.collect(), bucket, ..Default::default() }
}

/// The entries of a bucket by key: their versions, and their values as they are encoded.
type Entries = BTreeMap<String, (u64, Option<Vec<u8>>)>;

fn kept(entry: pb::Entry) -> (String, (u64, Option<Vec<u8>>)) {
    (entry.key, (entry.version, entry.value.map(|value| prost::Message::encode_to_vec(&value))))
}

/// A life, as one watch has been told of it.
#[derive(Clone, Debug, Default)]
struct Life {
    entries: Entries,
    /// The version of the last change that was told.
    last: u64,
    /// From `last` on no version is left out.
    is_whole: bool,
}

/// What a watcher has in hand.
struct Seen {
    request: WatchRequest,
    lives: BTreeMap<u64, Life>,
    /// Ids that were alive at `revision`, which a watch that is resumed knows of.
    known: BTreeSet<u64>,
    revision: u64,
    is_synced: bool,
    /// Of each id that died the version.
    down: HashMap<u64, u64>,
    /// Of each id the greatest version that was told.
    told: HashMap<u64, u64>,
    events: usize,
    connections: usize,
}

impl Seen {
    fn new(request: WatchRequest) -> Self {
        Self {
            request,
            lives: BTreeMap::new(),
            known: BTreeSet::new(),
            revision: 0,
            is_synced: false,
            down: HashMap::new(),
            told: HashMap::new(),
            events: 0,
            connections: 0,
        }
    }

    /// By name: what it is told of is what lived as it began.
    fn is_monitor(&self) -> bool {
        !self.request.buckets.is_empty() && !self.request.follow
    }

    fn is_filtered(&self) -> bool {
        self.request.key_prefix.is_some()
    }

    /// Begins a watch, anew or where it was.
    async fn begin(&mut self, client: &Client, random: &mut Random) -> Watching {
        let resumes = self.revision > 0 && !self.is_monitor() && random.below(2) == 0;
        let after_revision = resumes.then_some(self.revision);
        let mut watching = client.watch(WatchRequest { after_revision, ..self.request.clone() }).await.unwrap();
        let started = watching.started().await;
        self.connections += 1;
        self.is_synced = false;
        self.lives =
            if resumes { self.known.iter().map(|id| (*id, Life::default())).collect() } else { BTreeMap::new() };
        if self.is_monitor() {
            self.lives.extend(started.monitors.iter().map(|monitor| (monitor.bucket_id, Life::default())));
        }
        watching
    }

    fn take(&mut self, response: Response, revision: u64) {
        match response {
            Response::Events(events) => {
                for event in events.events {
                    self.events += 1;
                    self.tell(event.event.unwrap());
                }
            }
            Response::Synced(_) => self.is_synced = true,
            Response::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
        if revision > 0 {
            self.revision = revision;
            self.known = self.lives.keys().copied().collect();
        }
    }

    fn tell(&mut self, event: Event) {
        let is_synced = self.is_synced;
        match event {
            Event::Created(event) => {
                let life = Life { is_whole: is_synced && !event.initial, ..Life::default() };
                let before = self.lives.insert(event.bucket_id, life);
                assert!(before.is_none(), "created once: {event:?}");
            }
            Event::Put(pb::PutEvent { bucket_id, entry, initial, .. }) => {
                let (key, (version, value)) = kept(entry.unwrap());
                let life = self.life(bucket_id, version);
                assert!(!(initial && is_synced), "initial after synced: {key} {version}");
                if initial {
                    let before = life.entries.insert(key.clone(), (version, value));
                    assert!(before.is_none(), "told once: {key} {version} and {before:?}");
                } else {
                    self.change(bucket_id, version);
                    self.life(bucket_id, version).entries.insert(key, (version, value));
                }
            }
            Event::Deleted(pb::DeletedEvent { bucket_id, key, version, .. }) => {
                self.change(bucket_id, version);
                let before = self.life(bucket_id, version).entries.remove(&key);
                assert!(before.is_some() || !is_synced, "what is deleted was there: {key} {version}");
            }
            Event::Down(down) if down.bucket_id == 0 => assert_eq!(down.reason(), Reason::Noproc),
            Event::Down(down) => {
                let life = self.lives.remove(&down.bucket_id).expect("it was created before it goes down");
                let told = self.told.get(&down.bucket_id).copied().unwrap_or_default();
                assert!(down.version >= told, "version {told} was told before {down:?}");
                if life.is_whole && down.reason() != Reason::Crashed && !self.is_filtered() {
                    assert_eq!(down.version, life.last, "nothing is left untold: {down:?}");
                }
                let before = self.down.insert(down.bucket_id, down.version);
                assert!(before.is_none_or(|version| version == down.version), "{down:?} and {before:?}");
            }
        }
    }

    fn life(&mut self, id: u64, version: u64) -> &mut Life {
        let told = self.told.entry(id).or_default();
        *told = version.max(*told);
        self.lives.get_mut(&id).expect("no event before CREATED, none after DOWN")
    }

    /// A change comes after those that were told, and none is left out.
    fn change(&mut self, id: u64, version: u64) {
        let (is_filtered, is_synced) = (self.is_filtered(), self.is_synced);
        let life = self.life(id, version);
        assert!(version > life.last, "version {version} after {}", life.last);
        assert!(is_filtered || !life.is_whole || version == life.last + 1, "version {version} after {}", life.last);
        life.last = version;
        life.is_whole |= is_synced;
    }

    /// Whether it has heard of all that there is in the end, of those that it watches.
    fn is_over(&self, end: Option<&Truth>) -> bool {
        let Some(truth) = end else { return false };
        let has_heard = |id: &u64| match self.lives.get(id) {
            Some(life) => life.entries.contains_key(END),
            None => self.is_monitor(),
        };
        self.is_synced && truth.iter().filter(|(_, (name, _))| self.covers(name)).all(|(id, _)| has_heard(id))
    }

    fn covers(&self, name: &str) -> bool {
        match &self.request.prefix {
            Some(prefix) => name.starts_with(&**prefix),
            None => self.request.buckets.iter().any(|bucket| bucket == name),
        }
    }
}

/// What there is in the end: of each id its name and its entries.
type Truth = BTreeMap<u64, (String, Entries)>;

/// Watches, goes away, and comes back, until it has heard of all that there is in the end.
async fn watch_on(
    client: Client,
    mut seen: Seen,
    mut random: Random,
    end: watch::Receiver<Option<Arc<Truth>>>,
) -> Seen {
    loop {
        let mut watching = seen.begin(&client, &mut random).await;
        let life = Duration::from_millis(1 + random.below(400));
        let listening = listen(&mut watching, &mut seen, end.clone());
        // In the end it has all the time it needs.
        let is_over =
            if end.borrow().is_some() { soon(listening).await } else { timeout(life, listening).await == Ok(true) };
        if is_over {
            return seen;
        }
    }
}

/// Listens until all is heard; false where the stream is over before.
async fn listen(watching: &mut Watching, seen: &mut Seen, end: watch::Receiver<Option<Arc<Truth>>>) -> bool {
    loop {
        if seen.is_over(end.borrow().as_deref()) {
            return true;
        }
        match watching.response().await.expect("no watch lags, none is refused") {
            Some(response) => seen.take(response, watching.revision),
            None => {
                assert!(seen.is_monitor() && seen.lives.keys().all(|id| *id == 0), "{:?}", seen.lives.keys());
                return false;
            }
        }
    }
}

/// Every bucket is there and has its last entry, and nothing is about to expire.
async fn settle(client: &Client) -> Truth {
    let mut truth = Truth::new();
    for name in BUCKETS {
        let id = client.create(name).await.unwrap().bucket.unwrap().id;
        until(async || {
            let page = client.scan(pb::ScanRequest { page_size: 1_000, ..scan(name) }).await.unwrap();
            page.entries.iter().all(|entry| entry.expire_time.is_none()).then_some(())
        })
        .await;
        client.put(name, END, "the end").await.unwrap();
        let page = client.scan(pb::ScanRequest { page_size: 1_000, ..scan(name) }).await.unwrap();
        assert_eq!((page.bucket_id, &*page.next_page_token), (id, ""));
        truth.insert(id, (name.to_owned(), page.entries.into_iter().map(kept).collect()));
    }
    truth
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_caught_up_has_what_a_scan_shows() {
    let mut seeds = Random::seeded();
    let server = Server::start();
    let (end, ended) = watch::channel(None);
    let entries = |request| WatchRequest { entries: true, ..request };
    let requests = [
        prefix(""),
        prefix("b"),
        WatchRequest { follow: true, ..names(&BUCKETS) },
        WatchRequest { follow: true, ..names(&["b1", "c0"]) },
        names(&BUCKETS),
        names(&["b2", "b3"]),
        WatchRequest { key_prefix: Some("k".into()), ..prefix("") },
        WatchRequest { key_prefix: Some("k".into()), keys_only: true, ..names(&BUCKETS) },
    ];
    let mut watchers = JoinSet::new();
    for request in requests {
        let seen = Seen::new(entries(request));
        watchers.spawn(watch_on(server.client().await, seen, seeds.split(), ended.clone()));
    }
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(server.client().await, seeds.split()));
    }
    let mut acknowledged = Acknowledged::new();
    for written in soon(writers.join_all()).await {
        for (id, version) in written {
            let last = acknowledged.entry(id).or_default();
            *last = version.max(*last);
        }
    }
    let truth = Arc::new(settle(&server.client().await).await);
    end.send_replace(Some(Arc::clone(&truth)));

    let all = soon(watchers.join_all()).await;
    for seen in &all {
        println!("{} events, {} connections: {:?}", seen.events, seen.connections, seen.request);
        for (id, (name, there)) in truth.iter().filter(|(_, (name, _))| seen.covers(name)) {
            let Some(life) = seen.lives.get(id) else { continue };
            let has = &life.entries;
            let is_same = has.keys().eq(there.keys())
                && has.iter().zip(there.values()).all(|((_, (version, value)), (there, kept))| {
                    version == there && (seen.request.keys_only || value == kept)
                });
            assert!(is_same, "{name}: {has:?}\nis not what a Scan shows:\n{there:?}");
        }
        for (id, version) in &seen.down {
            let acknowledged = acknowledged.get(id).copied().unwrap_or_default();
            assert!(acknowledged <= *version, "version {acknowledged} of {id} was acknowledged, {version} is its last");
        }
        assert!(seen.connections > 3 && seen.events > 100, "there was something to see");
    }
    assert!(all.iter().map(|seen| seen.down.len()).max() > Some(5), "lives came and went");
    drop(all);
    until(async || (server.registry.ring().bytes() == 0).then_some(())).await;
}
