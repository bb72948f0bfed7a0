//! Those who watch, go away at random and come back; and what they have seen.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use pail::pb::{self, WatchRequest, event::Event, watch_response::Response};
use tokio::{sync::watch::Sender, time::timeout};

use super::{
    super::{
        random::Random,
        support::{Client, Watching, names},
    },
    writers::{NAMES, name},
};

/// A heartbeat is asked for after a second of silence; the rest is for a machine that is busy with something else.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What writers and watchers know of each other.
#[derive(Default)]
pub(super) struct Stage {
    /// Told when one who watches all hears a heartbeat.
    pub(super) heartbeats: Sender<()>,
    /// The last revision of all; 0: not known yet.
    pub(super) end: AtomicU64,
}

/// What a watcher asks for, and how long its connections last, in milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) request: WatchRequest,
    pub(super) lives_ms: (u64, u64),
}

impl Plan {
    pub(super) fn covers(&self, bucket: &str) -> bool {
        match &self.request.prefix {
            Some(prefix) => bucket.starts_with(&**prefix),
            None => self.request.buckets.iter().any(|name| name == bucket),
        }
    }
}

/// What a watcher saw, over all its connections.
pub(super) struct Seen {
    pub(super) plan: Plan,
    pub(super) events: Vec<Event>,
    pub(super) connections: usize,
    pub(super) heartbeats: usize,
    /// Up to here it was told that it has seen all.
    pub(super) revision: u64,
}

/// An event's bucket, id, ref and revision.
pub(super) fn facts(event: &Event) -> (&str, u64, u64, u64) {
    match event {
        Event::Created(event) => (&event.bucket, event.bucket_id, event.r#ref, event.revision),
        Event::Down(event) => (&event.bucket, event.bucket_id, event.r#ref, event.revision),
        other => panic!("{other:?}"),
    }
}

impl Seen {
    pub(super) fn watches_all(&self) -> bool {
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
pub(super) async fn watch(clients: [Client; 3], plan: Plan, mut random: Random, stage: Arc<Stage>) -> Seen {
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

/// Watches some names for one DOWN each, and again, until the end. What it was told, NOPROC aside.
pub(super) async fn watch_once(client: Client, mut random: Random, stage: Arc<Stage>) -> Vec<pb::DownEvent> {
    let mut seen = Vec::new();
    let mut ended = 0;
    while stage.end.load(SeqCst) == 0 {
        // A name may be asked for twice.
        let asked: Vec<_> = (0..1 + random.below(3)).map(|_| name(random.below(NAMES))).collect();
        let mut watching = client.watch(names(&asked.iter().map(String::as_str).collect::<Vec<_>>())).await.unwrap();
        let mut waiting: Vec<_> = watching.started().await.monitors;
        assert!(waiting.iter().map(|monitor| &monitor.bucket).eq(&asked));
        let life = Duration::from_millis(1 + random.below(400));
        let listen = async {
            while let Some(response) = watching.response().await.expect("it ends with OK") {
                let Response::Events(batch) = response else { continue };
                for event in batch.events {
                    let Some(Event::Down(down)) = event.event else { panic!("unasked: {event:?}") };
                    let place = waiting.iter().position(|monitor| monitor.r#ref == down.r#ref);
                    let monitor = waiting.swap_remove(place.expect("unique: one DOWN a ref"));
                    assert_eq!((&monitor.bucket, monitor.bucket_id), (&down.bucket, down.bucket_id));
                    let is_absent = monitor.bucket_id == 0;
                    assert_eq!(down.reason() == pb::Reason::Noproc, is_absent, "explained: {down:?}");
                    if !is_absent {
                        seen.push(down);
                    }
                }
            }
            assert_eq!(waiting, [], "reliable: it ends when each ref has fired");
            ended += 1;
        };
        timeout(life, listen).await.ok();
    }
    assert!(ended > 0, "there was something to see");
    seen
}
