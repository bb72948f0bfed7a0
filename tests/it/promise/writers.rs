//! Those who create, use, stop, crash, expire and link buckets of the same few names; and what they were told of it, which
//! is what is true.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use pail::pb::{self, LinkMode, Reason, link_request::Request as LinkRequest, link_response::Response as LinkResponse};
use prost::Message as _;
use tokio::time::sleep;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::super::{
    random::Random,
    raw::{Raw, Unread, framed},
    support::{Client, Server, millis, put},
};

pub(super) const WRITERS: usize = 8;
pub(super) const NAMES: u64 = 20;
/// The times to live of the buckets that expire, in milliseconds, below this.
const TTL_MS_MAX: u64 = 40;
/// How long a client holds its links, in milliseconds, below this.
const HOLD_MS_MAX: u64 = 10;
/// What a client that stops a bucket gives as its reasons.
const REASONS: [Reason; 4] = [Reason::Normal, Reason::Shutdown, Reason::Killed, Reason::Crashed];

pub(super) fn name(n: u64) -> String {
    format!("b{n}")
}

/// What the server has told the writers.
#[derive(Default)]
pub(super) struct Notes {
    /// Revision to name, id and whether it has a time to live.
    pub(super) created: BTreeMap<u64, (String, u64, bool)>,
    /// Revision to id, reason and detail.
    pub(super) stopped: BTreeMap<u64, (u64, Reason, String)>,
    /// Id to detail.
    pub(super) crashed: HashMap<u64, String>,
    /// Id to the name and the id of what was linked to the same client: their deaths can be its own.
    pub(super) tied: HashMap<u64, Vec<(String, u64)>>,
    /// Ids of what was linked to a client that went without a good-bye.
    pub(super) lost: HashSet<u64>,
    /// Id to the last version.
    pub(super) changed: HashMap<u64, u64>,
}

impl Notes {
    pub(super) fn merge(all: Vec<Self>) -> Self {
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
            merged.tied.extend(notes.tied);
            merged.lost.extend(notes.lost);
            for (id, version) in notes.changed {
                let last = merged.changed.entry(id).or_default();
                *last = version.max(*last);
            }
        }
        merged
    }

    /// Holds the reason of a death against its cause.
    pub(super) fn explain(&self, down: &pb::DownEvent) {
        let id = down.bucket_id;
        let why = (down.reason(), &*down.detail);
        if let Some((_, reason, detail)) = self.stopped.get(&down.revision) {
            assert_eq!(why, (*reason, &**detail), "explained: it was stopped so: {down:?}");
        } else if let Some(detail) = self.crashed.get(&id) {
            assert_eq!(why, (Reason::Crashed, &**detail), "explained: it was crashed so: {down:?}");
        } else if down.reason() == Reason::Noconnection {
            assert_eq!(down.detail, "the client went without a good-bye", "explained: {down:?}");
            assert!(self.lost.contains(&id), "explained: its client went: {down:?}");
        } else if down.reason() == Reason::Linked {
            let causes = self.tied.get(&id).map(Vec::as_slice).unwrap_or_default();
            let is_named = |(name, id): &(String, u64)| down.detail.starts_with(&format!("bucket {name:?} ({id}): "));
            assert!(causes.iter().any(is_named), "explained: it was linked with {causes:?}: {down:?}");
        } else {
            assert_eq!(why, (Reason::Expired, ""), "explained: nobody did it, so it was due: {down:?}");
            let expires = self.created.get(&id).is_some_and(|(.., expires)| *expires);
            assert!(expires, "explained: it had a time to live: {down:?}");
        }
        assert!(down.time.is_some(), "explained: {down:?}");
        let changed = self.changed.get(&id).copied().unwrap_or_default();
        assert!(down.version >= changed, "explained: version {changed} was acknowledged: {down:?}");
    }
}

pub(super) struct Writer {
    client: Client,
    address: SocketAddr,
    random: Random,
    detail_bytes: usize,
    pub(super) notes: Notes,
}

impl Writer {
    /// One who gives details of so many bytes at least.
    pub(super) async fn new(server: &Server, random: Random, detail_bytes: usize) -> Self {
        let (client, address) = (server.client().await, server.address);
        Self { client, address, random, detail_bytes, notes: Notes::default() }
    }

    /// Waits for less than so many milliseconds.
    pub(super) async fn pause(&mut self, millis: u64) {
        // Not for luck: the pace of a writer.
        sleep(Duration::from_millis(self.random.below(millis))).await;
    }

    pub(super) async fn step(&mut self) {
        let bucket = name(self.random.below(NAMES));
        let detail = format!("{:0width$x}", self.random.below(1 << 40), width = self.detail_bytes);
        match self.random.below(9) {
            what @ 0..=3 => self.create(bucket, what == 3).await,
            4 | 5 => self.put(&bucket, &detail).await,
            6 => self.stop(bucket, detail).await,
            7 => self.crash(&bucket, detail).await,
            _ => self.link().await,
        }
    }

    async fn create(&mut self, bucket: String, expires: bool) {
        let ttl = expires.then(|| 1 + self.random.below(TTL_MS_MAX));
        let ttl = ttl.and_then(|ttl| millis(u16::try_from(ttl).unwrap()));
        let request = pb::CreateRequest { bucket, ttl, ..Default::default() };
        let answer = self.client.create_with(request).await.unwrap();
        if answer.created {
            let created = answer.bucket.unwrap();
            self.notes.created.insert(answer.revision, (created.name, created.id, expires));
        }
    }

    async fn put(&mut self, bucket: &str, value: &str) {
        match self.client.put_with(put(bucket, "k", value)).await {
            Ok(answer) => {
                let last = self.notes.changed.entry(answer.bucket_id).or_default();
                *last = answer.version.max(*last);
            }
            Err(status) => is_not_found(&status),
        }
    }

    async fn stop(&mut self, bucket: String, detail: String) {
        let reason = REASONS[usize::try_from(self.random.below(4)).unwrap()];
        let request = pb::StopRequest { bucket, reason: reason.into(), detail: detail.clone(), ..Default::default() };
        match self.client.stop_with(request).await {
            Ok(answer) => drop(self.notes.stopped.insert(answer.revision, (answer.bucket_id, reason, detail))),
            Err(status) => is_not_found(&status),
        }
    }

    async fn crash(&mut self, bucket: &str, detail: String) {
        let status = self.client.crash(bucket, &detail).await.unwrap_err();
        let info = status.get_details_error_info().unwrap();
        match &*info.reason {
            "BUCKET_CRASHED" => drop(self.notes.crashed.insert(info.metadata["bucket_id"].parse().unwrap(), detail)),
            _ => is_not_found(&status),
        }
    }

    /// A client that creates up to two buckets and holds them for a moment. Then it is reset, loses its connection, or says
    /// good-bye, before which the first bucket may be stopped, and take the second with it.
    async fn link(&mut self) {
        let raw = Raw::to(self.address, 1 << 20).await;
        let mut stream = raw.begin("Link", &[]).await.unread().await;
        let mut tied = Vec::new();
        for id in 1..=2 {
            let bucket = name(self.random.below(NAMES));
            let link = pb::LinkBucket { bucket, mode: LinkMode::MustCreate.into(), ..Default::default() };
            stream.send(framed(&pb::LinkRequest { id, request: Some(LinkRequest::Link(link)) }));
            match answer(&mut stream).await {
                Some(Ok(linked)) => tied.push((linked.bucket, linked.bucket_id)),
                Some(Err(status)) => assert_eq!(status.code, i32::from(Code::AlreadyExists), "{status:?}"),
                // It was tied to the first, which has ended badly.
                None => break,
            }
        }
        for (bucket, id) in &tied {
            // The id of a bucket is the revision of its creation.
            self.notes.created.insert(*id, (bucket.clone(), *id, false));
            self.notes.tied.insert(*id, tied.iter().filter(|(_, other)| other != id).cloned().collect());
        }

        self.pause(HOLD_MS_MAX).await;
        let how = self.random.below(4);
        match how {
            0 => raw.cut(),
            1 => drop(stream),
            _ => {
                if let (3, Some((bucket, _))) = (how, tied.first()) {
                    self.stop(bucket.clone(), "a link's".to_owned()).await;
                }
                stream.end();
                let status = stream.read().await.status;
                if status.code() != Code::Ok {
                    assert_eq!(status.get_details_error_info().unwrap().reason, "LINKED_EXIT");
                }
                return;
            }
        }
        self.notes.lost.extend(tied.into_iter().map(|(_, id)| id));
    }
}

fn is_not_found(status: &Status) {
    assert_eq!(status.get_details_error_info().unwrap().reason, "BUCKET_NOT_FOUND", "{status:?}");
}

/// The answer to the one request that has none yet; `None` where the stream is over.
async fn answer(stream: &mut Unread) -> Option<Result<pb::Linked, tonic_types::Status>> {
    loop {
        let message = stream.message().await?;
        match pb::LinkResponse::decode(message).unwrap().response.unwrap() {
            LinkResponse::Linked(linked) => return Some(Ok(linked)),
            LinkResponse::Error(status) => return Some(Err(status)),
            LinkResponse::Exit(_) => {}
            other => panic!("{other:?}"),
        }
    }
}
