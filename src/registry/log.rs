//! The lifecycle log: what was created and what went down, in the order of revisions, as far back as the limits allow.
//!
//! One log for all. An event is stored once, whoever watches; a reader is a revision to go on from.

use std::{collections::VecDeque, mem, sync::Arc};

use once_cell::race::OnceBox;

use crate::{
    clock::Stamp,
    limits::{EVENT_FIXED_BYTES, Limits},
    name::{BucketId, Revision, Version},
    process::{Exit, Reason},
    sync::RwLock,
};

/// A lifecycle event.
#[derive(Debug)]
pub struct Event {
    /// Its number.
    pub revision: Revision,
    /// When.
    pub time: Stamp,
    /// The bucket's name.
    pub name: Arc<str>,
    /// What happened.
    pub kind: EventKind,
    /// Its form on the wire, once somebody has told of it, for the next one who does. Two thin pointers deep, since most are
    /// never told of.
    pub(crate) wire: OnceBox<Box<[u8]>>,
}

/// What happened to a bucket.
#[derive(Debug)]
pub enum EventKind {
    /// It was created.
    Created,
    /// It is down, and its name is free. Boxed: of what is kept most are creations.
    Down(Box<Death>),
}

/// How a bucket ended.
#[derive(Debug)]
pub struct Death {
    /// The bucket's id.
    pub id: BucketId,
    /// Why.
    pub exit: Exit,
    /// Its last version.
    pub version: Version,
    /// When it was created.
    pub created_at: Stamp,
}

impl Event {
    /// The bucket's id, which is the revision of its creation.
    #[must_use]
    pub fn id(&self) -> BucketId {
        match &self.kind {
            EventKind::Created => self.revision.as_id(),
            EventKind::Down(death) => death.id,
        }
    }

    /// Why the bucket is down; `None` of a creation.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match &self.kind {
            EventKind::Created => None,
            EventKind::Down(death) => Some(&death.exit),
        }
    }

    /// More than it has on the wire.
    pub(crate) fn bytes(&self) -> usize {
        EVENT_FIXED_BYTES + self.text_bytes()
    }

    /// What it costs to keep, about, its form on the wire included: it is kept for those who are told of it.
    fn kept_bytes(&self) -> usize {
        let death = self.exit().map_or(0, |_| mem::size_of::<Death>());
        // The two counts of what is shared, and the two words of the inner box.
        let pointers = 4 * mem::size_of::<usize>();
        mem::size_of::<Self>() + death + pointers + WIRE_BYTES + 2 * self.text_bytes()
    }

    fn text_bytes(&self) -> usize {
        self.name.len() + self.exit().map_or(0, |exit| exit.detail().len() + exit.initiator().map_or(0, str::len))
    }
}

/// What its form on the wire has besides its texts, about, where no number is very large.
const WIRE_BYTES: usize = 48;

/// What has happened since the registry began, and how much of it is kept.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// Events that are kept.
    pub kept: usize,
    /// Bytes that those take, about.
    pub kept_bytes: usize,
    /// Buckets that were created.
    pub created: u64,
    /// Buckets that are down, by reason.
    pub down: [(Reason, u64); 8],
}

/// The log does not go back that far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Compacted {
    /// The oldest revision that is kept.
    pub oldest: Revision,
}

pub(super) struct Log {
    events_max: usize,
    bytes_max: usize,
    /// Written by the registrar only. Readers hold it for the time of some hundred reference counts.
    history: RwLock<History>,
}

struct History {
    /// The last event's revision, or the one that the registry began with.
    revision: Revision,
    /// Contiguous, up to `revision`.
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    created: u64,
    /// By reason.
    down: [u64; Reason::ALL.len()],
}

impl Log {
    /// An empty log, whose first event has the revision after `first`.
    pub(super) fn new(first: Revision, limits: &Limits) -> Self {
        Self {
            events_max: limits.history_events_max,
            bytes_max: limits.history_bytes_max,
            history: RwLock::new(History {
                revision: first,
                events: VecDeque::new(),
                bytes: 0,
                created: 0,
                down: [0; 8],
            }),
        }
    }

    /// What was written, and how much of it is kept.
    pub(super) fn tally(&self) -> Tally {
        let History { events, bytes, created, down, .. } = &*self.history.read();
        let down = Reason::ALL.map(|reason| (reason, down[reason as usize]));
        Tally { kept: events.len(), kept_bytes: *bytes, created: *created, down }
    }

    /// The last event's revision.
    pub(super) fn revision(&self) -> Revision {
        self.history.read().revision
    }

    /// Appends the event that `make` makes of its revision, and lets go of the oldest past the limits.
    pub(super) fn append(&self, make: impl FnOnce(Revision) -> Event) -> Arc<Event> {
        let mut history = self.history.write();
        let event = Arc::new(make(history.revision.next()));
        history.revision = event.revision;
        history.bytes += event.kept_bytes();
        match event.exit() {
            None => history.created += 1,
            Some(exit) => history.down[exit.reason as usize] += 1,
        }
        history.events.push_back(Arc::clone(&event));
        // The newest is kept whatever its size.
        while history.events.len() > self.events_max.max(1)
            || (history.bytes > self.bytes_max && history.events.len() > 1)
        {
            history.bytes -= history.events.pop_front().map_or(0, |oldest| oldest.kept_bytes());
        }
        event
    }

    /// Up to `events_max` events after `after`, oldest first; none where there are none yet.
    pub(super) fn read(&self, after: Revision, events_max: usize) -> Result<Vec<Arc<Event>>, Compacted> {
        let history = self.history.read();
        let behind = usize::try_from(history.revision.get().saturating_sub(after.get())).unwrap_or(usize::MAX);
        let kept = history.events.len();
        match kept.checked_sub(behind) {
            Some(start) => Ok(history.events.range(start..).take(events_max).cloned().collect()),
            None => Err(Compacted {
                oldest: history.events.front().map_or(history.revision.next(), |event| event.revision),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(events_max: usize, bytes_max: usize) -> Log {
        let limits = Limits { history_events_max: events_max, history_bytes_max: bytes_max, ..Limits::default() };
        Log::new(Revision::new(100), &limits)
    }

    fn append(log: &Log) {
        log.append(|revision| Event {
            revision,
            time: Stamp::default(),
            name: "name".into(),
            kind: EventKind::Created,
            wire: OnceBox::new(),
        });
    }

    fn read(log: &Log, after: u64) -> Result<Vec<u64>, Compacted> {
        Ok(log.read(Revision::new(after), 3)?.iter().map(|event| event.revision.get()).collect())
    }

    #[test]
    fn a_reader_goes_on_from_the_revision_it_has() {
        let log = log(10, 1 << 20);
        assert_eq!(read(&log, 100), Ok(vec![]));
        (0..5).for_each(|_| append(&log));
        assert_eq!(log.revision(), Revision::new(105));
        assert_eq!(read(&log, 100), Ok(vec![101, 102, 103]));
        assert_eq!(read(&log, 103), Ok(vec![104, 105]));
        assert_eq!(read(&log, 105), Ok(vec![]));
    }

    #[test]
    fn the_oldest_go_where_there_are_too_many_or_they_are_too_large() {
        let one = log(1, 0);
        append(&one);
        let bytes = one.history.read().bytes;
        for log in [log(4, 1 << 20), log(100, 4 * bytes)] {
            (0..10).for_each(|_| append(&log));
            assert_eq!(read(&log, 106), Ok(vec![107, 108, 109]));
            assert_eq!(read(&log, 105), Err(Compacted { oldest: Revision::new(107) }));
            assert_eq!(read(&log, 1), Err(Compacted { oldest: Revision::new(107) }));
        }
    }
}
