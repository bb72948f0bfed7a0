//! Watching by name or incarnation: a monitor each, and one DOWN each.
//!
//! A watch that is resumed sets its monitors as of the revision that it was at: the first event of a target after that
//! decides. So whoever creates a bucket and then watches it from there on never loses the reason of its death.
//!
//! Where entries are wanted they come first, bucket by bucket, and then what changes; a bucket's DOWN after all its changes.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    ops::Bound,
    sync::Arc,
    task::Context,
};

use smallvec::smallvec;

use super::{
    At, End, Entries, Monitored, News, NoticeKind, Progress, Seat,
    entries::{Reader, Telling},
    outbox::{Batch, Happening, Refs},
};
use crate::{
    bucket::ring::{Change, Overrun, Position, Scope},
    limits::{MONITOR_BATCH, SNAPSHOT_PAGE_NAMES, WATCH_BATCH_BYTES, WATCH_BATCH_EVENTS},
    name::{BucketId, Revision},
    process::MonitorRef,
    registry::{Compacted, Error, Event, EventKind, Interest, Registry, Target},
};

#[derive(Debug)]
pub(super) struct NamesWatch {
    seat: Seat,
    /// Until they are sent.
    monitors: Vec<Monitored>,
    /// What fires at once, until it is sent: NOPROC for each that is not there, and what a resumed watch has missed.
    fired: Vec<(Revision, Happening)>,
    /// What is true now is true of this revision.
    since: Revision,
    /// Where entries are wanted.
    entries: Option<NamedEntries>,
}

/// The entries of the buckets that are monitored.
#[derive(Debug)]
struct NamedEntries {
    reader: Reader,
    /// The buckets whose monitors have not fired.
    lives: BTreeMap<BucketId, (Arc<str>, Refs)>,
    /// The entries of buckets up to this one have been told; `None` once all have.
    told: Option<Bound<BucketId>>,
    telling: Option<Telling>,
    /// Deaths that were taken from the inbox. Changes before this position come first.
    held: Option<(Progress, Position)>,
}

/// A target, while it is being set.
struct Set<'a> {
    target: Target<'a>,
    monitor: MonitorRef,
    /// Its monitor is true of this revision.
    revision: Revision,
}

/// Why a watch by name can't begin.
pub(super) enum Refused {
    Failed(Error),
    Compacted(Compacted),
}

impl NamesWatch {
    /// Sets the monitors, as of `after` or as of now.
    pub(super) fn new(
        registry: Registry,
        targets: &[Target<'_>],
        entries: Option<Entries<'_>>,
        after: Option<Revision>,
    ) -> Result<Self, Refused> {
        let since = registry.revision();
        let seat = Seat::take(registry, Interest::Monitors);
        let (monitors, fired) = (Vec::with_capacity(targets.len()), Vec::new());
        let mut watch = Self { seat, monitors, fired, since, entries: None };
        let names: Vec<Arc<str>> = targets.iter().map(|target| target.name.as_str().into()).collect();
        // Before the monitors, so that what changes in the buckets they find is in the ring.
        let reader = entries.map(|entries| {
            let scope = Scope::Names(names.clone());
            Reader::begin(&watch.seat.registry, scope, &entries)
        });
        let reader = reader.transpose().map_err(Refused::Failed)?;
        let mut sets = Vec::with_capacity(targets.len());
        for (targets, names) in targets.chunks(MONITOR_BATCH).zip(names.chunks(MONITOR_BATCH)) {
            let set = watch.seat.registry.monitor(targets, &watch.seat.inbox);
            let (monitors, revision) = set.map_err(Refused::Failed)?;
            if sets.is_empty() {
                watch.since = revision;
            }
            for ((target, name), (monitor, id)) in targets.iter().zip(names).zip(monitors) {
                if let Some(id) = id {
                    watch.seat.monitors.insert(monitor, id);
                }
                watch.monitors.push(Monitored { monitor, name: Arc::clone(name), id });
                sets.push(Set { target: *target, monitor, revision });
            }
        }
        let missed = match after {
            Some(after) => watch.missed(&sets, after).map_err(Refused::Compacted)?,
            None => HashMap::new(),
        };
        for (index, set) in sets.iter().enumerate() {
            watch.decide(index, set, missed.get(&set.monitor));
        }
        // In the order of what happened; NOPROC is of now.
        watch.fired.sort_by_key(|(revision, _)| *revision);
        watch.entries = reader.map(|(reader, _)| NamedEntries::new(reader, &watch.monitors, &watch.seat));
        Ok(watch)
    }

    /// The first event of each target after `after` and before its monitor was set.
    fn missed(&self, sets: &[Set<'_>], after: Revision) -> Result<HashMap<MonitorRef, Arc<Event>>, Compacted> {
        let mut by_name = HashMap::<&str, Vec<&Set<'_>>>::new();
        for set in sets {
            by_name.entry(set.target.name.as_str()).or_default().push(set);
        }
        let until = sets.iter().map(|set| set.revision).max().unwrap_or(after);
        let (mut cursor, mut first) = (after, HashMap::new());
        while cursor < until {
            for event in self.seat.registry.events(cursor, WATCH_BATCH_EVENTS)? {
                cursor = event.revision;
                for set in by_name.get(&*event.name).into_iter().flatten() {
                    let is_meant = set.target.id.is_none_or(|id| id == event.id().get());
                    if is_meant && event.revision <= set.revision {
                        first.entry(set.monitor).or_insert_with(|| Arc::clone(&event));
                    }
                }
            }
        }
        Ok(first)
    }

    /// Settles a target by the first event that it missed, or by what is there.
    fn decide(&mut self, index: usize, set: &Set<'_>, missed: Option<&Arc<Event>>) {
        let Some(monitored) = self.monitors.get_mut(index) else { return };
        match missed {
            None if monitored.id.is_some() => return,
            None => {}
            Some(event) => {
                // It watches one that came later, which is not meant.
                self.seat.take_back(set.monitor);
                monitored.id = None;
                if let EventKind::Down(_) = event.kind {
                    monitored.id = Some(event.id());
                    self.fired
                        .push((event.revision, Happening::event(Arc::clone(event), smallvec![Some(set.monitor)])));
                    return;
                }
            }
        }
        let at = At { revision: set.revision, time: self.seat.registry.clock().wall() };
        let happening = Happening {
            refs: smallvec![Some(set.monitor)],
            name: Arc::clone(&monitored.name),
            id: set.target.id,
            what: NoticeKind::NoProc { at },
        };
        self.fired.push((set.revision, happening));
    }

    /// What is true as the watch begins is true of this revision.
    pub(super) fn since(&self) -> Revision {
        self.since
    }

    pub(super) fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The registry, and the monitors in the order asked.
    pub(super) fn monitors(&mut self) -> (&Registry, Vec<Monitored>) {
        (&self.seat.registry, mem::take(&mut self.monitors))
    }

    /// Some of what fires at once.
    pub(super) fn fired(&mut self) -> Option<Vec<Happening>> {
        let count = self.fired.len().min(SNAPSHOT_PAGE_NAMES);
        (count > 0).then(|| self.fired.drain(..count).map(|(_, happening)| happening).collect())
    }

    /// Some of the entries that are there, with what has changed meanwhile, which may be nothing yet; `None` after the last.
    pub(super) fn initial(&mut self) -> Result<Option<Vec<Happening>>, Overrun> {
        let Some(entries) = &mut self.entries else { return Ok(None) };
        let mut batch = Batch::default();
        // There may be thousands of buckets with nothing to tell: others on this thread come first.
        for _ in 0..WATCH_BATCH_EVENTS {
            if !entries.step(&self.seat.registry, &mut batch)? || batch.is_full() {
                break;
            }
        }
        Ok((entries.told.is_some() || !batch.happenings.is_empty()).then_some(batch.happenings))
    }

    /// Leaves out the entries that are there.
    pub(super) fn skip_initial(&mut self) {
        if let Some(entries) = &mut self.entries {
            entries.told = None;
        }
    }

    /// What has happened since; `None` once all monitors have fired.
    pub(super) fn next(&mut self, cx: &mut Context<'_>, reached: Option<Revision>) -> Result<Option<Progress>, End> {
        // Put back on every way out.
        let Some(mut entries) = self.entries.take() else { return Ok(self.deaths(cx)) };
        let next = self.next_with(&mut entries, cx, reached);
        self.entries = Some(entries);
        next
    }

    /// The same, where entries are wanted.
    fn next_with(
        &mut self,
        entries: &mut NamedEntries,
        cx: &mut Context<'_>,
        reached: Option<Revision>,
    ) -> Result<Option<Progress>, End> {
        let (deaths, before) = match entries.held.take() {
            Some(held) => held,
            None => {
                entries.reader.subscription.register(cx);
                let Some(deaths) = self.deaths(cx) else { return Ok(None) };
                (deaths, entries.reader.subscription.end())
            }
        };
        let mut batch = Batch::default();
        entries.read(before, &mut batch).map_err(|Overrun| End::Lagged { resume: reached })?;
        if !batch.happenings.is_empty() || !entries.reader.subscription.has_read(before) {
            let mut revision = reached.unwrap_or(self.since);
            match deaths.news {
                // That there was no death is not kept: it is asked again, by one who registers again.
                News::None => revision = revision.max(deaths.revision),
                News::Events(_) | News::End => entries.held = Some((deaths, before)),
            }
            return Ok(Some(Progress { revision, news: News::Events(batch.happenings) }));
        }
        if let News::Events(deaths) = &deaths.news {
            for death in deaths {
                entries.forget(death);
            }
        }
        Ok(Some(deaths))
    }

    /// Some DOWNs; `None` after the last.
    fn deaths(&mut self, cx: &mut Context<'_>) -> Option<Progress> {
        if self.seat.monitors.is_empty() {
            return None;
        }
        let Seat { registry, inbox, monitors, .. } = &mut self.seat;
        inbox.waker().register(cx.waker());
        // Both are asked before the inbox: what they speak of is in it.
        let ended = registry.has_ended();
        let delivered = registry.delivered();
        let (events, left) = inbox.take(WATCH_BATCH_EVENTS, WATCH_BATCH_BYTES);
        let Some((_, last)) = events.last() else {
            return Some(Progress { revision: delivered, news: if ended { News::End } else { News::None } });
        };
        // A monitor that was taken back may have fired all the same.
        let known = events.iter().filter(|(monitor, _)| monitors.remove(monitor).is_some());
        let deaths =
            known.map(|(monitor, event)| Happening::event(Arc::clone(event), smallvec![Some(*monitor)])).collect();
        // A death may have several refs here. Those past what is delivered are just being put into the inbox, one by one.
        let parted = match left {
            Some(left) => left == last.revision,
            None => last.revision > delivered && monitors.values().any(|id| *id == last.id()),
        };
        let told = if parted { Revision::new(last.revision.get() - 1) } else { last.revision };
        let revision = if left.is_some() { told } else { delivered.max(told) };
        Some(Progress { revision, news: News::Events(deaths) })
    }
}

impl NamedEntries {
    fn new(reader: Reader, monitors: &[Monitored], seat: &Seat) -> Self {
        let mut lives = BTreeMap::<BucketId, (Arc<str>, Refs)>::new();
        for Monitored { monitor, name, id } in monitors {
            if let (Some(id), true) = (id, seat.monitors.contains_key(monitor)) {
                lives.entry(*id).or_insert_with(|| (Arc::clone(name), Refs::new())).1.push(Some(*monitor));
            }
        }
        Self { reader, lives, told: Some(Bound::Unbounded), telling: None, held: None }
    }

    /// Goes on with what is there; whether there is more to be told in the same response.
    fn step(&mut self, registry: &Registry, batch: &mut Batch) -> Result<bool, Overrun> {
        let Some(after) = self.told else { return Ok(false) };
        let Some(telling) = &mut self.telling else {
            let next = self.lives.range((after, Bound::Unbounded)).next();
            self.told = next.map(|(id, _)| Bound::Excluded(*id));
            if let Some((id, (name, refs))) = next {
                self.telling = registry.bucket(name, *id).map(|bucket| Telling::new(bucket, refs.clone()));
            }
            return Ok(self.told.is_some());
        };
        match telling.read(registry, &self.reader, batch) {
            // Its death will be in the inbox.
            None => self.telling = None,
            Some(before) if self.reader.subscription.has_read(before.position) => {
                let all = telling.tell(batch);
                if all {
                    self.telling = None;
                }
                return Ok(all);
            }
            Some(before) => {
                self.read(before.position, batch)?;
                let is_there = self.reader.subscription.has_read(before.position);
                if let (false, Some(telling)) = (is_there, &mut self.telling) {
                    telling.wait();
                }
                return Ok(is_there);
            }
        }
        Ok(true)
    }

    /// Reads changes on, not past `until`.
    fn read(&mut self, until: Position, batch: &mut Batch) -> Result<(), Overrun> {
        let (lives, told, telling) = (&self.lives, self.told, &self.telling);
        self.reader.read(until, batch, |change: &Change, _| {
            let is_told = match (told, telling) {
                (None, _) => true,
                (_, Some(telling)) if telling.id() == change.id => telling.has_told(&change.key),
                (Some(Bound::Excluded(last)), _) => change.id <= last,
                (Some(_), _) => false,
            };
            let refs = lives.get(&change.id).filter(|_| is_told).map(|(_, refs)| refs.clone());
            Ok(Some(refs.unwrap_or_default()))
        })
    }

    /// A monitor has fired.
    fn forget(&mut self, death: &Happening) {
        let Some(id) = death.id.map(|id| Revision::new(id).as_id()) else { return };
        if let Some((_, refs)) = self.lives.get_mut(&id) {
            refs.retain(|monitor| !death.refs.contains(monitor));
            if refs.is_empty() {
                self.lives.remove(&id);
            }
        }
    }
}
