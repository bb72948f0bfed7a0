//! What a watch has taken from its source and not sent yet, and how much of it one response holds.

use std::{collections::VecDeque, sync::Arc};

use smallvec::SmallVec;

use super::{Notice, NoticeKind};
use crate::{
    bucket::{
        Entry, Values,
        ring::{Change, ChangeKind},
    },
    limits::{EVENT_FIXED_BYTES, WATCH_BATCH_BYTES},
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
    pub(super) what: NoticeKind,
}

impl Happening {
    pub(super) fn change(change: Arc<Change>, refs: Refs) -> Self {
        Self { refs, name: Arc::clone(&change.name), id: Some(change.id.get()), what: NoticeKind::Changed(change) }
    }

    /// Bytes of one of its notices, at least as many as it will have on the wire.
    fn bytes(&self) -> usize {
        match &self.what {
            NoticeKind::Changed(change) => change.bytes(),
            NoticeKind::Happened(event) => event.bytes(),
            NoticeKind::Alive { .. } | NoticeKind::NoProc { .. } => EVENT_FIXED_BYTES + self.name.len(),
            NoticeKind::Put { entry, .. } => {
                let value = entry.value.as_ref().map_or(0, Value::heap_bytes);
                EVENT_FIXED_BYTES + self.name.len() + entry.key.len() + value
            }
            NoticeKind::Deleted { key, .. } => EVENT_FIXED_BYTES + self.name.len() + key.len(),
        }
    }

    /// Whether nobody is to see it without the next.
    fn more(&self) -> bool {
        matches!(&self.what, NoticeKind::Changed(change) if change.more)
    }

    fn notice(&self, monitor: Option<MonitorRef>, values: Values) -> Notice {
        let kind = match &self.what {
            NoticeKind::Changed(change) if values == Values::LeftOut => match &change.kind {
                ChangeKind::Put { due, .. } => {
                    let entry = Entry { key: change.key.clone(), value: None, version: change.version, due: *due };
                    NoticeKind::Put { entry, initial: false }
                }
                kind => NoticeKind::Deleted {
                    key: change.key.clone(),
                    version: change.version,
                    expired: matches!(kind, ChangeKind::Expired),
                },
            },
            kind => kind.clone(),
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

    /// Whether all that the first of these changes' call has changed is to be in it. An empty one takes any call.
    pub(super) fn has_room_for_call(&self, changes: &[Arc<Change>]) -> bool {
        let Some(last) = changes.iter().position(|change| !change.more) else { return self.happenings.is_empty() };
        let bytes: usize = changes[..=last].iter().map(|change| change.bytes()).sum();
        self.happenings.is_empty() || bytes <= self.room()
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

    /// What the next response holds, if there is something: about [`WATCH_BATCH_BYTES`], and never more than `bytes_max` if it is
    /// more than one notice. What one call has changed is not torn, if that many hold it.
    pub(super) fn take(&mut self, bytes_max: usize) -> Option<Vec<Notice>> {
        let mut notices = Vec::new();
        let (mut bytes, mut room) = (0, 0);
        let mut begins = true;
        while let Some(next) = self.queue.front() {
            if begins {
                let all = next.more().then(|| self.call_bytes());
                if all.is_some_and(|all| !notices.is_empty() && bytes + all > WATCH_BATCH_BYTES) {
                    break;
                }
                room = if all.is_some() { bytes_max } else { WATCH_BATCH_BYTES.min(bytes_max) };
            }
            bytes += next.bytes();
            if bytes > room && !notices.is_empty() {
                break;
            }
            notices.push(next.notice(next.refs.get(self.told).copied().flatten(), self.values));
            self.told += 1;
            begins = false;
            if self.told >= next.refs.len() {
                begins = !next.more();
                self.queue.pop_front();
                self.told = 0;
            }
        }
        // A client may not read for long: what a batch or a large call took is not kept for the few that are left.
        if self.queue.len() < self.queue.capacity() / 4 {
            self.queue.shrink_to_fit();
        }
        (!notices.is_empty()).then_some(notices)
    }

    /// Bytes of all that is of one call, with what is next.
    fn call_bytes(&self) -> usize {
        let mut bytes = 0;
        for happening in &self.queue {
            bytes += happening.bytes() * happening.refs.len().max(1);
            if !happening.more() {
                break;
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use once_cell::race::OnceBox;
    use smallvec::smallvec;

    use super::*;
    use crate::{
        name::{Revision, Version},
        time_to_live::Due,
    };

    /// What one call has changed: so many values of so many bytes.
    fn call(count: u64, bytes: usize) -> impl Iterator<Item = Happening> {
        (1..=count).map(move |version| {
            let value = Value::Text("x".repeat(bytes).into());
            let change = Change {
                name: "b".into(),
                id: Revision::new(7).as_id(),
                key: "k".into(),
                version: Version(version),
                kind: ChangeKind::Put { value, due: Due::NEVER },
                more: version < count,
                wire: OnceBox::new(),
            };
            Happening::change(Arc::new(change), smallvec![None])
        })
    }

    fn sizes(calls: &[(u64, usize)], bytes_max: usize) -> Vec<usize> {
        let mut outbox = Outbox::new(Values::Included);
        calls.iter().for_each(|(count, bytes)| outbox.fill(call(*count, *bytes)));
        std::iter::from_fn(|| outbox.take(bytes_max)).map(|notices| notices.len()).collect()
    }

    #[test]
    fn a_call_is_in_one_response_whatever_came_before_it_and_only_one_that_is_too_large_is_torn() {
        assert_eq!(sizes(&[(1, 0), (2, 0), (1, 0)], 1 << 20), [4], "what is small goes together");
        assert_eq!(sizes(&[(1, 1_000), (20, 1_000), (1, 1_000)], 1 << 20), [1, 20, 1]);
        assert_eq!(sizes(&[(1, 60_000), (5, 10_000)], 70_000), [1, 5], "with the one before it would be torn");
        assert_eq!(sizes(&[(1, 0), (10, 10_000), (1, 0)], 50_000), [1, 4, 4, 2, 1]);
    }

    #[test]
    fn an_outbox_that_is_empty_keeps_no_room() {
        let mut outbox = Outbox::new(Values::Included);
        outbox.fill(call(1_024, 0));
        while outbox.take(1 << 20).is_some() {}
        assert_eq!(outbox.queue.capacity(), 0);
    }
}
