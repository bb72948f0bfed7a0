//! What a watch sends, and which of it is wanted.

use std::{sync::Arc, time::Duration};

use super::outbox::{Happening, Refs};
use crate::{
    bucket::{
        Entry, Values,
        ring::{Change, ChangeKind},
    },
    name::{BucketId, Revision, Version},
    process::MonitorRef,
    registry::{Event, EventKind},
};

/// Which events are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Kinds<'a> {
    /// Creations.
    pub created: bool,
    /// Deaths.
    pub down: bool,
    /// What is in the buckets, and what changes there; `None` for nothing of it.
    pub entries: Option<Entries<'a>>,
}

/// Which events of entries are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    /// Entries that are there, put or added to.
    pub put: bool,
    /// Entries that are deleted, or whose time runs out.
    pub deleted: bool,
    /// Only of keys that begin with this.
    pub key_prefix: &'a str,
    /// Whether their values are sent.
    pub values: Values,
}

/// The kinds of event that are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    created: bool,
    down: bool,
    put: bool,
    deleted: bool,
}

impl From<Kinds<'_>> for Wanted {
    fn from(Kinds { created, down, entries }: Kinds<'_>) -> Self {
        let (put, deleted) = entries.map_or((false, false), |entries| (entries.put, entries.deleted));
        Self { created, down, put, deleted }
    }
}

impl Wanted {
    pub(super) fn admits(self, happening: &Happening) -> bool {
        match &happening.what {
            NoticeKind::Alive { .. } => self.created,
            NoticeKind::NoProc { .. } => self.down,
            NoticeKind::Happened(event) => match event.kind {
                EventKind::Created => self.created,
                EventKind::Down(_) => self.down,
            },
            NoticeKind::Put { .. } => self.put,
            NoticeKind::Deleted { .. } => self.deleted,
            NoticeKind::Changed(change) => match change.kind {
                ChangeKind::Put { .. } => self.put,
                ChangeKind::Deleted | ChangeKind::Expired => self.deleted,
            },
        }
    }
}

/// What a watch sends.
#[derive(Debug)]
pub struct Response {
    /// Every lifecycle event up to this revision that the watch asked for is in this response or in an earlier one. `None`
    /// while a snapshot is sent.
    pub revision: Option<Revision>,
    /// What is sent.
    pub update: Update,
}

/// What a [`Response`] holds.
#[derive(Debug)]
pub enum Update {
    /// The first.
    Started {
        /// Which registry it is.
        registry_id: String,
        /// The monitors, in the order asked.
        monitors: Vec<Monitored>,
    },
    /// Some events, in order.
    Events(Vec<Notice>),
    /// What was there has been sent.
    Synced,
    /// Nothing happened.
    Heartbeat,
    /// The registry is going; what was not reported yet is down with SHUTDOWN.
    Draining,
}

/// A monitor that was set.
#[derive(Debug)]
pub struct Monitored {
    /// Its ref.
    pub monitor: MonitorRef,
    /// The name that was asked for.
    pub name: Arc<str>,
    /// The bucket, if there was one.
    pub id: Option<BucketId>,
}

/// An event, as one watch sees it.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The monitor that it answers; `None` by prefix.
    pub monitor: Option<MonitorRef>,
    /// The bucket's name.
    pub name: Arc<str>,
    /// The bucket's id; for NOPROC the one asked for, if any.
    pub id: Option<u64>,
    /// What happened.
    pub kind: NoticeKind,
}

/// When a bucket was created, or wasn't there.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The revision of its creation; the present one where it isn't there.
    pub revision: Revision,
    /// The time on the wall clock, since 1970.
    pub time: Duration,
}

/// What a [`Notice`] tells of.
#[derive(Clone, Debug)]
pub enum NoticeKind {
    /// A bucket is alive as the watch begins.
    Alive {
        /// When it was created.
        at: At,
    },
    /// There is no such bucket as the watch begins.
    NoProc {
        /// When that was so.
        at: At,
    },
    /// A bucket was created, or is down: as the log keeps it, for all who are told of it.
    Happened(Arc<Event>),
    /// An entry was put or added to, or is there as the watch begins.
    Put {
        /// The entry.
        entry: Entry,
        /// It was there as the watch began.
        initial: bool,
    },
    /// An entry has changed while it was watched: as the ring keeps it, for all who are told of it.
    Changed(Arc<Change>),
    /// An entry is gone; of a watch that leaves values out, or as it begins.
    Deleted {
        /// Its key.
        key: Box<str>,
        /// The version that the bucket took with it.
        version: Version,
        /// Its time ran out.
        expired: bool,
    },
}

impl Happening {
    pub(super) fn event(event: Arc<Event>, refs: Refs) -> Self {
        Self { refs, name: Arc::clone(&event.name), id: Some(event.id().get()), what: NoticeKind::Happened(event) }
    }
}
