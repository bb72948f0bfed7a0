//! What a watch has taken from its source and not sent yet, and how much of it one response holds.

use std::{collections::VecDeque, sync::Arc};

use smallvec::SmallVec;

use super::{Notice, NoticeKind};
use crate::{
    bucket::{
        Entry, Values,
        ring::{Change, ChangeKind},
    },
    limits::WATCH_BATCH_BYTES,
    process::MonitorRef,
    value::Value,
};

/// Whom something is for; a name that was given twice has two refs, and a prefix has one that is none.
pub(super) type Refs = SmallVec<[Option<MonitorRef>; 1]>;

/// Something that happened: a notice for each ref.
#[derive(Debug)]
pub(super) struct Happening {
    pub(super) refs: Refs,
    pub(super) name: Arc<str>,
    pub(super) id: Option<u64>,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Kind(NoticeKind),
    /// Its value is copied no earlier than it is sent.
    Change(Arc<Change>),
}

impl Happening {
    pub(super) fn change(change: Arc<Change>, refs: Refs) -> Self {
        Self { refs, name: Arc::clone(&change.name), id: Some(change.id.get()), what: What::Change(change) }
    }

    /// Bytes of one of its notices, at least as many as it will have on the wire.
    fn bytes(&self) -> usize {
        const FIXED: usize = 96;
        match &self.what {
            What::Change(change) => change.bytes(),
            What::Kind(NoticeKind::Created { .. }) => FIXED + self.name.len(),
            What::Kind(NoticeKind::Down { exit, .. }) => FIXED + self.name.len() + exit.detail().len(),
            What::Kind(NoticeKind::Put { entry, .. }) => {
                let value = entry.value.as_ref().map_or(0, Value::heap_bytes);
                FIXED + self.name.len() + entry.key.len() + value
            }
            What::Kind(NoticeKind::Deleted { key, .. }) => FIXED + self.name.len() + key.len(),
        }
    }

    /// Whether nobody is to see it without the next.
    fn more(&self) -> bool {
        matches!(&self.what, What::Change(change) if change.more)
    }

    fn notice(&self, monitor: Option<MonitorRef>, values: Values) -> Notice {
        let kind = match &self.what {
            What::Kind(kind) => kind.clone(),
            What::Change(change) => match &change.kind {
                ChangeKind::Put { value, due } => {
                    let value = (values == Values::Included).then(|| value.clone());
                    let entry = Entry { key: change.key.clone(), value, version: change.version, due: *due };
                    NoticeKind::Put { entry, initial: false }
                }
                kind => NoticeKind::Deleted {
                    key: change.key.clone(),
                    version: change.version,
                    expired: matches!(kind, ChangeKind::Expired),
                },
            },
        };
        Notice { monitor, name: Arc::clone(&self.name), id: self.id, kind }
    }
}

/// What happened, as much as a watch takes in one step.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) happenings: Vec<Happening>,
    bytes: usize,
}

impl Batch {
    pub(super) fn push(&mut self, happening: Happening) {
        self.bytes += happening.bytes();
        self.happenings.push(happening);
    }

    /// How many bytes more make a response.
    pub(super) fn room(&self) -> usize {
        WATCH_BATCH_BYTES.saturating_sub(self.bytes)
    }

    /// Whether it is enough for one response.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > WATCH_BATCH_BYTES
    }
}

/// What waits to be sent.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Happening>,
    /// How many refs of the first have been told.
    told: usize,
    /// Whether the values of entries are sent.
    values: Values,
}

impl Outbox {
    pub(super) fn new(values: Values) -> Self {
        Self { queue: VecDeque::new(), told: 0, values }
    }

    pub(super) fn fill(&mut self, happenings: impl IntoIterator<Item = Happening>) {
        self.queue.extend(happenings);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What the next response holds, if there is something: about [`WATCH_BATCH_BYTES`], and never more than `bytes_max` if it is more than one
    /// notice. What one call has changed is not torn, if it fits.
    pub(super) fn take(&mut self, bytes_max: usize) -> Option<Vec<Notice>> {
        let mut notices = Vec::new();
        let mut bytes = 0;
        // Whether the one before goes with this one.
        let mut more = false;
        while let Some(next) = self.queue.front() {
            let together = more || (self.told > 0 && next.more());
            let room = if together { bytes_max } else { WATCH_BATCH_BYTES.min(bytes_max) };
            bytes += next.bytes();
            if bytes > room && !notices.is_empty() {
                break;
            }
            notices.push(next.notice(next.refs.get(self.told).copied().flatten(), self.values));
            self.told += 1;
            if self.told >= next.refs.len() {
                more = next.more();
                self.queue.pop_front();
                self.told = 0;
            }
        }
        (!notices.is_empty()).then_some(notices)
    }
}
