//! Between the core's types and the contract's messages: one function for each pair.

use std::time::Duration;

use prost_types::Timestamp;

use super::{
    status::{Failure, Reason, quoted},
    wire,
};
use crate::{
    auth::{Caller, Verb},
    bucket::{
        self,
        ring::{Change, ChangeKind},
    },
    budget::{OverBudget, OverQuota},
    limits::{Limits, TTL_MIN},
    link, name, pb, process,
    registry::{self, Description, Error, EventKind, Registry},
    time_to_live::Ttl,
    value::Value,
    watch,
};

/// Wall-clock time since 1970, as a timestamp.
pub(super) fn timestamp(since_1970: Duration) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since_1970.subsec_nanos()).unwrap_or_default(),
    }
}

/// A duration of a request; `None` where it is negative, or not as the format says: 0 to 999,999,999 nanos. prost's own
/// conversion overflows at the least number of seconds, and so does its `Display`.
pub(super) fn duration(asked: prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(asked.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(asked.seconds).ok()?, nanos))
}

pub(super) fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The value of a Put, checked.
pub(super) fn value(value: Option<pb::Value>, limits: &Limits) -> Result<Value, Failure> {
    use pb::value::Kind;
    let Some(kind) = value.and_then(|value| value.kind) else {
        let words = "the value is unset: text, data, integer, number or flag is required";
        return Err(Failure::new(Reason::InvalidValue, words).field("value"));
    };
    let value = match kind {
        Kind::Text(text) => Value::Text(text.into_boxed_str()),
        Kind::Data(data) => Value::Data(data.into_boxed_slice()),
        Kind::Integer(integer) => Value::Integer(integer),
        Kind::Number(number) => Value::Number(number),
        Kind::Flag(flag) => Value::Flag(flag),
    };
    let (limit, actual) = (limits.value_bytes_max, value.heap_bytes());
    if actual > limit {
        let words = format!("the value has {actual} bytes; {limit} are allowed");
        return Err(Failure::new(Reason::TooLarge, words).field("value").limit(limit, actual));
    }
    Ok(value)
}

pub(super) fn to_value(value: Value) -> pb::Value {
    use pb::value::Kind;
    let kind = match value {
        Value::Text(text) => Kind::Text(text.into_string()),
        Value::Data(data) => Kind::Data(data.into_vec()),
        Value::Integer(integer) => Kind::Integer(integer),
        Value::Number(number) => Kind::Number(number),
        Value::Flag(flag) => Kind::Flag(flag),
    };
    pb::Value { kind: Some(kind) }
}

/// A time to live, checked; `field` is its name in the request.
pub(super) fn ttl(field: &str, ttl: Option<prost_types::Duration>) -> Result<Option<Ttl>, Failure> {
    let Some(asked) = ttl else { return Ok(None) };
    duration(asked).and_then(Ttl::new).map(Some).ok_or_else(|| {
        let prost_types::Duration { seconds, nanos } = asked;
        let words = format!(
            "{field} is {seconds} seconds and {nanos} nanos: {TTL_MIN:?} to ten years is allowed, and unset is for ever"
        );
        Failure::new(Reason::InvalidOption, words).field(field)
    })
}

pub(super) fn to_entry(entry: bucket::Entry, registry: &Registry) -> pb::Entry {
    pb::Entry {
        key: entry.key.into_string(),
        value: entry.value.map(to_value),
        version: entry.version.0,
        expire_time: registry.wall(entry.due).map(timestamp),
    }
}

pub(super) fn to_bucket(bucket: &Description, registry: &Registry) -> pb::Bucket {
    pb::Bucket {
        name: bucket.name.to_string(),
        id: bucket.id.get(),
        create_revision: name::Revision::from(bucket.id).get(),
        version: bucket.summary.version.0,
        entry_count: count(bucket.summary.entry_count),
        byte_size: count(bucket.summary.byte_size),
        create_time: Some(timestamp(bucket.created_at)),
        expire_time: registry.wall(bucket.summary.due).map(timestamp),
        link_count: count(bucket.link_count),
    }
}

fn to_reason(reason: process::Reason) -> pb::Reason {
    match reason {
        process::Reason::Normal => pb::Reason::Normal,
        process::Reason::Shutdown => pb::Reason::Shutdown,
        process::Reason::Killed => pb::Reason::Killed,
        process::Reason::Expired => pb::Reason::Expired,
        process::Reason::Crashed => pb::Reason::Crashed,
        process::Reason::NoProc => pb::Reason::Noproc,
        process::Reason::NoConnection => pb::Reason::Noconnection,
        process::Reason::Linked => pb::Reason::Linked,
    }
}

/// A response, as this caller may see it.
pub(super) fn to_watch_response(
    response: watch::Response,
    registry: &Registry,
    caller: &Caller,
) -> wire::WatchResponse {
    use pb::watch_response::Response;
    let revision = response.revision.map_or(0, name::Revision::get);
    let response = match response.update {
        watch::Update::Started { registry_id, monitors } => {
            Response::Started(pb::WatchStarted { registry_id, monitors: monitors.iter().map(to_monitor).collect() })
        }
        watch::Update::Events(notices) => {
            let events = notices.into_iter().map(|notice| to_event(notice, registry, caller)).collect();
            return wire::WatchResponse::Events { revision, events };
        }
        watch::Update::Synced => Response::Synced(pb::WatchSynced {}),
        watch::Update::Heartbeat => Response::Heartbeat(pb::WatchHeartbeat {}),
        watch::Update::Draining => Response::Draining(pb::WatchDraining {}),
    };
    pb::WatchResponse { revision, response: Some(response) }.into()
}

/// A linked bucket that has ended.
pub(super) fn to_exit(gone: &link::Gone) -> pb::LinkExit {
    pb::LinkExit {
        bucket: gone.name.to_string(),
        bucket_id: gone.id,
        reason: to_reason(gone.exit.reason).into(),
        detail: gone.exit.detail().to_owned(),
    }
}

fn to_monitor(set: &watch::Monitored) -> pb::Monitor {
    pb::Monitor {
        r#ref: set.monitor.get(),
        bucket: set.name.to_string(),
        bucket_id: set.id.map_or(0, name::BucketId::get),
    }
}

fn to_event(notice: watch::Notice, registry: &Registry, caller: &Caller) -> wire::Event {
    use pb::event::Event;
    let r#ref = notice.monitor.map_or(0, process::MonitorRef::get);
    let bucket_id = notice.id.unwrap_or_default();
    let bucket = || notice.name.to_string();
    let event = match notice.kind {
        watch::NoticeKind::Happened(event) if event.exit().is_some_and(|exit| exit.initiator().is_some()) => {
            let mut event = to_lifecycle(r#ref, &event);
            if let Event::Down(down) = &mut event
                && !caller.may(Verb::Admin.into(), &notice.name)
            {
                down.initiator.clear();
            }
            event
        }
        watch::NoticeKind::Happened(event) => return told(r#ref, wire::Fact::Lifecycle(event), registry),
        watch::NoticeKind::Changed(change) => return told(r#ref, wire::Fact::Change(change), registry),
        watch::NoticeKind::Alive { at } => {
            let (revision, time) = (at.revision.get(), Some(timestamp(at.time)));
            Event::Created(pb::CreatedEvent { r#ref, bucket: bucket(), bucket_id, revision, time, initial: true })
        }
        watch::NoticeKind::NoProc { at } => {
            let exit = process::Exit::from(process::Reason::NoProc);
            let (reason, detail) = (to_reason(exit.reason).into(), exit.detail().to_owned());
            let (version, revision, time) = (0, at.revision.get(), Some(timestamp(at.time)));
            let (bucket, initiator) = (bucket(), String::new());
            Event::Down(pb::DownEvent { r#ref, bucket, bucket_id, reason, detail, version, revision, time, initiator })
        }
        watch::NoticeKind::Put { entry, initial } => {
            let entry = Some(to_entry(entry, registry));
            Event::Put(pb::PutEvent { r#ref, bucket: bucket(), bucket_id, entry, initial })
        }
        watch::NoticeKind::Deleted { key, version, expired } => {
            let (key, version) = (key.into_string(), version.0);
            Event::Deleted(pb::DeletedEvent { r#ref, bucket: bucket(), bucket_id, key, version, expired })
        }
    };
    wire::Event::Own(pb::Event { event: Some(event) })
}

/// What all who watch are told alike, but for the ref. Where there is one who listens, its bytes are not kept for others:
/// memory that is touched for each event costs more than to encode it.
fn told(r#ref: u64, fact: wire::Fact, registry: &Registry) -> wire::Event {
    let event = |r#ref, fact: &wire::Fact| match fact {
        wire::Fact::Lifecycle(event) => to_lifecycle(r#ref, event),
        wire::Fact::Change(change) => to_change(r#ref, change, registry),
    };
    if registry.has_many_listeners() {
        wire::Event::shared(r#ref, fact, |fact| event(0, fact))
    } else {
        wire::Event::Own(pb::Event { event: Some(event(r#ref, &fact)) })
    }
}

/// A creation or a death.
fn to_lifecycle(r#ref: u64, event: &registry::Event) -> pb::event::Event {
    use pb::event::Event;
    let (bucket, bucket_id, revision) = (event.name.to_string(), event.id().get(), event.revision.get());
    let time = Some(timestamp(event.time.into()));
    match &event.kind {
        EventKind::Created => {
            Event::Created(pb::CreatedEvent { r#ref, bucket, bucket_id, revision, time, initial: false })
        }
        EventKind::Down(death) => {
            let (reason, detail) = (to_reason(death.exit.reason).into(), death.exit.detail().to_owned());
            let (version, initiator) = (death.version.0, death.exit.initiator().unwrap_or_default().to_owned());
            Event::Down(pb::DownEvent { r#ref, bucket, bucket_id, reason, detail, version, revision, time, initiator })
        }
    }
}

/// A change of an entry.
fn to_change(r#ref: u64, change: &Change, registry: &Registry) -> pb::event::Event {
    use pb::event::Event;
    let (bucket, bucket_id, key, version) =
        (change.name.to_string(), change.id.get(), change.key.to_string(), change.version.0);
    match &change.kind {
        ChangeKind::Put { value, due } => {
            let expire_time = registry.wall(*due).map(timestamp);
            let entry = pb::Entry { key, value: Some(to_value(value.clone())), version, expire_time };
            Event::Put(pb::PutEvent { r#ref, bucket, bucket_id, entry: Some(entry), initial: false })
        }
        kind => {
            let expired = matches!(kind, ChangeKind::Expired);
            Event::Deleted(pb::DeletedEvent { r#ref, bucket, bucket_id, key, version, expired })
        }
    }
}

/// What a request was about, for the words and the facts of its errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) bucket: &'a str,
    pub(super) bucket_id: Option<u64>,
    pub(super) key: &'a str,
}

impl Subject<'_> {
    /// The error, as the client sees it.
    pub(super) fn failure(self, error: Error) -> Failure {
        let bucket = quoted(self.bucket);
        let failure = match error {
            Error::BucketNotFound => {
                let words = match self.bucket_id {
                    None => format!("no bucket {bucket}"),
                    Some(id) => format!("no bucket {bucket} with the id {id}"),
                };
                Failure::new(Reason::BucketNotFound, words).resource("bucket", self.bucket)
            }
            Error::BucketExists { id } => {
                let words = format!("bucket {bucket} lives, with the id {id}: it was to be created");
                Failure::new(Reason::BucketExists, words).resource("bucket", self.bucket).with("bucket_id", id)
            }
            Error::TooManyBuckets { limit } => {
                let words = format!("there are {limit} buckets, and no more are allowed");
                Failure::new(Reason::TooManyBuckets, words).quota("buckets", limit)
            }
            Error::OverQuota(OverQuota { limit }) => {
                let words = format!("this identity has {limit} buckets, and no more are allowed");
                Failure::new(Reason::TooManyBuckets, words).quota("identity", limit)
            }
            Error::Bucket(error) => self.refusal(error),
            // Its own handler says more.
            Error::Transact(error) => Failure::new(Reason::Panic, error.to_string()),
            Error::BucketCrashed { id, exit } => {
                let words = format!("this call crashed bucket {bucket}, which is gone: {}", exit.detail());
                Failure::new(Reason::BucketCrashed, words).with("bucket_id", id)
            }
            Error::RegistryCrashed(exit) => {
                Failure::new(Reason::Panic, format!("this call met a fault of the server's: {}", exit.detail()))
            }
            Error::GaveUp => Failure::new(Reason::Draining, "the server ends after too many faults: nothing was done"),
        };
        self.facts(failure)
    }

    fn refusal(self, error: bucket::Error) -> Failure {
        let (bucket, key) = (quoted(self.bucket), quoted(self.key));
        match error {
            bucket::Error::KeyNotFound => {
                Failure::new(Reason::KeyNotFound, format!("no key {key} in bucket {bucket}")).resource("key", self.key)
            }
            bucket::Error::VersionMismatch { actual } => {
                let words = match actual.0 {
                    0 => format!("key {key} is absent, which is version 0: another was expected"),
                    actual => format!("key {key} is at version {actual}: another was expected"),
                };
                Failure::new(Reason::VersionMismatch, words).with("actual_version", actual)
            }
            bucket::Error::Expired => Failure::new(Reason::BucketNotFound, format!("no bucket {bucket}")),
            bucket::Error::WrongType => {
                Failure::new(Reason::WrongType, format!("key {key} is no integer: nothing can be added to it"))
            }
            bucket::Error::IntegerOverflow => {
                Failure::new(Reason::IntegerOverflow, format!("the sum for key {key} would not fit 64 bits"))
            }
            bucket::Error::TooManyEntries { limit } => {
                let words = format!("bucket {bucket} has {limit} entries, and no more are allowed");
                Failure::new(Reason::TooManyEntries, words).quota("entries", limit)
            }
            bucket::Error::BucketFull { limit } => {
                let words = format!("bucket {bucket} would take more than {limit} bytes");
                Failure::new(Reason::OutOfMemory, words).quota("bucket_bytes", limit)
            }
            bucket::Error::OverBudget(OverBudget::Account { limit }) => {
                let words = format!("all buckets together would take more than {limit} bytes");
                Failure::new(Reason::OutOfMemory, words).quota("memory_bytes", limit)
            }
            bucket::Error::OverBudget(OverBudget::Process { limit }) => {
                let words =
                    format!("the server has {limit} bytes in memory, and takes nothing more until something is gone");
                Failure::new(Reason::OutOfMemory, words).quota("resident_bytes", limit)
            }
            bucket::Error::OverQuota(OverQuota { limit }) => {
                let words =
                    format!("the buckets of the identity that created this one would take more than {limit} bytes");
                Failure::new(Reason::OutOfMemory, words).quota("identity", limit)
            }
        }
    }

    fn facts(self, mut failure: Failure) -> Failure {
        if !self.bucket.is_empty() {
            failure = failure.with("bucket", self.bucket);
        }
        if !self.key.is_empty() {
            failure = failure.with("key", self.key);
        }
        match self.bucket_id {
            Some(id) => failure.with("bucket_id", id),
            None => failure,
        }
    }
}
