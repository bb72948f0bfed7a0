//! Watching by prefix, or by name for ever: what is there, then a cursor in the lifecycle log, and one in the ring.
//!
//! The snapshot is of the revision at which the watch began. It is read a page at a time, while things go on: between the
//! pages comes what happened meanwhile, so that the log need not be kept for a slow snapshot and no event is left out. A
//! bucket of the snapshot that died before its page came is told of as it dies, and then its death.
//!
//! A watch that is resumed has no snapshot of buckets: its cursor begins where it was, and what was missed is replayed. The
//! entries of those that live come anew after that.

use std::{
    collections::{BTreeMap, HashSet},
    mem,
    sync::Arc,
    task::Context,
};

use super::{
    At, BeginError, End, Entries, Initial, Monitored, News, NoticeKind, Progress, Seat,
    entries::{Moment, Reader, Telling},
    outbox::{Batch, Happening, Refs},
    scope::Scope,
    snapshot::{Snapshot, SnapshotOf},
};
use crate::{
    bucket::{
        Bucket,
        ring::{Change, Overrun},
    },
    limits::WATCH_BATCH_EVENTS,
    name::Revision,
    process::{MonitorRef, Process},
    registry::{Compacted, Error, Event, EventKind, Interest, Registry, Target},
};

#[derive(Debug)]
pub(super) struct HistoryWatch {
    seat: Seat,
    scope: Scope,
    /// Where entries are wanted.
    entries: Option<Reader>,
    /// The snapshot is of this moment: what was created later comes from the log, and its entries from the ring. What is in
    /// the ring before it, of older buckets, is not told: some of them were dead by then, and the others' is in the snapshot.
    began: Moment,
    /// All events up to here have been sent.
    cursor: Revision,
    /// What happens is read up to here before it is asked again how far things are: so neither those who change entries nor
    /// those who create buckets keep the others' events waiting.
    goal: Moment,
    told: Told,
    /// Until they are sent.
    monitors: Vec<Monitored>,
}

/// How much of what was there has been told.
#[derive(Debug)]
enum Told {
    /// Some of it.
    Some(Snapshot),
    /// There is no snapshot of buckets, but what happened up to this moment is replayed.
    Replay {
        until: Moment,
        /// Whether the entries that are there come after it.
        entries: bool,
    },
    All,
}

/// The log or the ring has gone on without this watch.
struct Lost;

impl From<Compacted> for Lost {
    fn from(_: Compacted) -> Self {
        Self
    }
}

impl From<Overrun> for Lost {
    fn from(Overrun: Overrun) -> Self {
        Self
    }
}

impl HistoryWatch {
    pub(super) fn prefixes(
        registry: Registry,
        prefixes: &[impl AsRef<str>],
        entries: Option<Entries<'_>>,
        initial: Initial,
    ) -> Result<Self, BeginError> {
        Self::new(registry, Scope::prefixes(prefixes), entries, initial)
    }

    pub(super) fn names(
        registry: Registry,
        targets: &[Target<'_>],
        entries: Option<Entries<'_>>,
        initial: Initial,
    ) -> Result<Self, BeginError> {
        let mut refs = BTreeMap::<Arc<str>, Refs>::new();
        let mut monitors: Vec<Monitored> = targets
            .iter()
            .map(|target| {
                let (monitor, name) = (MonitorRef::next(), Arc::from(target.name.as_str()));
                refs.entry(Arc::clone(&name)).or_default().push(Some(monitor));
                Monitored { monitor, id: None, name }
            })
            .collect();
        let mut watch = Self::new(registry, Scope::Names { refs, mentioned: HashSet::new() }, entries, initial)?;
        for (monitored, target) in monitors.iter_mut().zip(targets) {
            monitored.id = watch.seat.registry.id_of(target.name);
        }
        watch.monitors = monitors;
        Ok(watch)
    }

    fn new(
        registry: Registry,
        scope: Scope,
        entries: Option<Entries<'_>>,
        initial: Initial,
    ) -> Result<Self, BeginError> {
        let seat = Seat::take(registry, Interest::Log);
        let (entries, now) = match &entries {
            Some(entries) => {
                let (reader, now) = Reader::begin(&seat.registry, scope.of_ring(), entries)?;
                (Some(reader), now)
            }
            None => (None, seat.registry.revision()),
        };
        let position = entries.as_ref().map_or(0, |reader: &Reader| reader.subscription.end());
        let goal = Moment { revision: now, position };
        let replay = |entries| Told::Replay { until: goal, entries };
        let (cursor, told) = match initial {
            Initial::Sent => (now, Told::Some(Snapshot::new(SnapshotOf::Buckets))),
            Initial::Skipped => (now, Told::All),
            Initial::After(revision) => (revision, replay(entries.is_some())),
            Initial::ChangesAfter(revision) => (revision, replay(false)),
        };
        seat.inbox.reached(cursor);
        Ok(Self { seat, scope, entries, began: goal, cursor, goal, told, monitors: Vec::new() })
    }

    pub(super) fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The registry, and the monitors in the order asked.
    pub(super) fn monitors(&mut self) -> (&Registry, Vec<Monitored>) {
        (&self.seat.registry, mem::take(&mut self.monitors))
    }

    /// What it can be resumed after; `None` within a snapshot of buckets.
    pub(super) fn revision(&self) -> Option<Revision> {
        let within = matches!(&self.told, Told::Some(snapshot) if snapshot.of == SnapshotOf::Buckets);
        (!within).then_some(self.cursor)
    }

    /// The next part of the snapshot or the replay, with what happened meanwhile, which may be nothing yet; `None` after the
    /// last.
    pub(super) fn snapshot(&mut self) -> Result<Option<Vec<Happening>>, End> {
        // A snapshot can't be resumed, so neither can a watch that lags within it.
        let resume = self.revision();
        let mut batch = Batch::default();
        let more = match self.told {
            Told::All => return Ok(None),
            Told::Replay { until, .. } if !self.is_at(until) => {
                self.read(until, &mut batch).map_err(|Lost| End::Lagged { resume })?;
                true
            }
            Told::Replay { entries: true, .. } => {
                self.told = Told::Some(Snapshot::new(SnapshotOf::Entries));
                true
            }
            Told::Replay { .. } => {
                self.told = Told::All;
                false
            }
            Told::Some(_) => {
                while self.step(&mut batch, resume)? && !batch.is_full() {}
                true
            }
        };
        Ok(more.then_some(batch.happenings))
    }

    /// Goes on with the snapshot; whether there is more to be told in the same response.
    fn step(&mut self, batch: &mut Batch, resume: Option<Revision>) -> Result<bool, End> {
        if let Some(before) = self.prepare(batch)?
            && !self.is_at(before)
        {
            self.read(before, batch).map_err(|Lost| End::Lagged { resume })?;
            let is_there = self.is_at(before);
            if let (false, Told::Some(Snapshot { telling: Some(telling), .. })) = (is_there, &mut self.told) {
                telling.wait();
            }
            return Ok(is_there);
        }
        Ok(self.tell(batch))
    }

    /// Reads the next part of what is there, and says what is to be told before it.
    fn prepare(&mut self, batch: &Batch) -> Result<Option<Moment>, Error> {
        let Told::Some(snapshot) = &mut self.told else { return Ok(None) };
        let registry = &self.seat.registry;
        if let (Some(telling), Some(reader)) = (&mut snapshot.telling, &self.entries) {
            if let Some(before) = telling.read(registry, reader, batch) {
                return Ok(Some(before));
            }
            // It is dead, and its death is in the log or will be.
            snapshot.told_one();
        }
        let page = match &mut snapshot.page {
            Some(page) => page,
            None => {
                let reader = self.entries.as_ref();
                snapshot.page.insert(self.scope.page(registry, snapshot.after.as_ref(), reader)?)
            }
        };
        let before = page.before;
        Ok((self.cursor < before.revision).then_some(before))
    }

    /// Tells the part that was read; whether there is more for the same response.
    fn tell(&mut self, batch: &mut Batch) -> bool {
        let Told::Some(snapshot) = &mut self.told else { return false };
        if let Some(telling) = &mut snapshot.telling {
            let all = telling.tell(batch);
            if all {
                snapshot.told_one();
            }
            return all;
        }
        let Some(page) = &mut snapshot.page else { return true };
        if let Some(bucket) = page.buckets.pop_front() {
            self.tell_bucket(bucket, batch);
            return true;
        }
        for name in mem::take(&mut page.absent) {
            // Where something of it was told already, that is what became of it.
            if snapshot.of == SnapshotOf::Buckets && !self.scope.is_mentioned(&name) {
                let at = At { revision: page.before.revision, time: self.seat.registry.clock().wall() };
                let what = NoticeKind::NoProc { at };
                batch.push(Happening { refs: self.scope.refs(&name), name, id: None, what });
            }
        }
        snapshot.after = page.last.take().or(snapshot.after.take());
        if page.more {
            snapshot.page = None;
        } else {
            self.told = Told::All;
        }
        false
    }

    /// Tells that a bucket is there, if it was as the watch began: what was created since comes from the log.
    fn tell_bucket(&mut self, bucket: Process<Bucket>, batch: &mut Batch) {
        let Told::Some(snapshot) = &mut self.told else { return };
        let name = Arc::clone(&bucket.identity().name);
        if Revision::from(bucket.identity().id) <= self.began.revision {
            let refs = self.scope.refs(&name);
            if snapshot.of == SnapshotOf::Buckets {
                batch.push(alive(&bucket, refs.clone()));
            }
            if self.entries.is_some() {
                snapshot.telling = Some(Telling::new(bucket, refs));
                return;
            }
        }
        snapshot.after = Some(name);
    }

    /// What has happened since.
    pub(super) fn next(&mut self, cx: &mut Context<'_>) -> Result<Progress, End> {
        self.seat.inbox.waker().register(cx.waker());
        if let Some(reader) = &self.entries {
            reader.subscription.register(cx);
        }
        // Asked before the log: what was written before the end is in it.
        let ended = self.seat.registry.has_ended();
        let is_new = self.is_at(self.goal);
        if is_new {
            self.goal = Moment::now(self.seat.registry.revision(), self.entries.as_ref());
        }
        let mut batch = Batch::default();
        if !self.is_at(self.goal) {
            let resume = Some(self.cursor);
            self.read(self.goal, &mut batch).map_err(|Lost| End::Lagged { resume })?;
        }
        // Only of a new goal can it be said that there was nothing after it.
        let news = if !is_new || !batch.happenings.is_empty() || !self.is_at(self.goal) {
            News::Events(batch.happenings)
        } else if ended {
            News::End
        } else {
            News::None
        };
        Ok(Progress { revision: self.cursor, news })
    }

    fn is_at(&self, moment: Moment) -> bool {
        self.cursor >= moment.revision
            && self.entries.as_ref().is_none_or(|reader| reader.subscription.has_read(moment.position))
    }

    /// Reads on, to a moment or not as far. Of one bucket the creation comes first, then the changes, then the death.
    ///
    /// A change comes after what was in the log before its bucket could be changed: all up to its creation. It comes before all
    /// deaths that are later than that: a bucket that is found in the ring later was created later, or lives longer.
    fn read(&mut self, to: Moment, batch: &mut Batch) -> Result<(), Lost> {
        if let Some(mut reader) = self.entries.take() {
            let is_early = !reader.subscription.has_read(self.began.position);
            let until = if is_early { to.position.min(self.began.position) } else { to.position };
            let read = reader.read(until, batch, |change, batch| self.admit(change, is_early, batch));
            let all = reader.subscription.has_read(to.position);
            self.entries = Some(reader);
            read?;
            if !all {
                return Ok(());
            }
        }
        self.read_log(to.revision, batch)
    }

    /// Whom a change is for, after what comes before it; `None` while that is not there, or the batch is full. The log is read
    /// as far as the change needs it, whatever the moment that is read up to: it may be of a bucket that was created after
    /// the log was looked at, and before the ring was.
    fn admit(&mut self, change: &Change, is_early: bool, batch: &mut Batch) -> Result<Option<Refs>, Lost> {
        let created = Revision::from(change.id);
        if self.cursor < created {
            self.read_log(created, batch)?;
            if self.cursor < created {
                return Ok(None);
            }
        }
        let told = created > self.began.revision
            || match &self.told {
                _ if is_early => false,
                Told::All => true,
                Told::Replay { entries, .. } => !entries,
                Told::Some(snapshot) => snapshot.has_told(change),
            };
        Ok(Some(if told { self.scope.refs(&change.name) } else { Refs::new() }))
    }

    /// Reads the log on, not past `target`.
    fn read_log(&mut self, target: Revision, batch: &mut Batch) -> Result<(), Lost> {
        if self.cursor >= target {
            return Ok(());
        }
        for event in self.seat.registry.events(self.cursor, WATCH_BATCH_EVENTS)? {
            if event.revision > target || batch.is_full() {
                break;
            }
            self.cursor = event.revision;
            self.seat.inbox.reached(self.cursor);
            let refs = self.scope.refs(&event.name);
            if refs.is_empty() {
                continue;
            }
            if let Told::Some(snapshot) = &mut self.told {
                if let (EventKind::Down(_), true) = (&event.kind, Revision::from(event.id()) <= self.began.revision)
                    && snapshot.strike(&event)
                {
                    batch.push(was_alive(&event, refs.clone()));
                }
                if let Scope::Names { mentioned, .. } = &mut self.scope {
                    mentioned.insert(Arc::clone(&event.name));
                }
            }
            batch.push(Happening::event(event, refs));
        }
        Ok(())
    }
}

/// A bucket that is alive as the watch begins.
fn alive(bucket: &Process<Bucket>, refs: Refs) -> Happening {
    let identity = bucket.identity();
    let at = At { revision: identity.id.into(), time: identity.created_at.into() };
    let what = NoticeKind::Alive { at };
    Happening { refs, name: Arc::clone(&identity.name), id: Some(identity.id.get()), what }
}

/// The bucket of a death that was alive as the watch began.
fn was_alive(death: &Event, refs: Refs) -> Happening {
    let time = match &death.kind {
        EventKind::Down(death) => death.created_at,
        EventKind::Created => death.time,
    };
    let at = At { revision: death.id().into(), time: time.into() };
    let what = NoticeKind::Alive { at };
    Happening { refs, name: Arc::clone(&death.name), id: Some(death.id().get()), what }
}
