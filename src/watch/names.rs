//! Watching by name or incarnation: a monitor each, and one DOWN each.
//!
//! A watch that is resumed sets its monitors as of the revision that it was at: the first event of a target after that
//! decides. So whoever creates a bucket and then watches it from there on never loses the reason of its death.

use std::{collections::HashMap, mem, sync::Arc, task::Context};

use super::{Monitored, News, Notice, NoticeKind, Progress, Seat};
use crate::{
    limits::{MONITOR_BATCH, SNAPSHOT_PAGE_NAMES, WATCH_BATCH_BYTES, WATCH_BATCH_EVENTS},
    name::{Revision, Version},
    process::{MonitorRef, Reason},
    registry::{Compacted, Error, Event, EventKind, Interest, Registry, Target},
};

#[derive(Debug)]
pub(super) struct NamesWatch {
    seat: Seat,
    /// Until they are sent.
    monitors: Vec<Monitored>,
    /// What fires at once, until it is sent: NOPROC for each that is not there, and what a resumed watch has missed.
    fired: Vec<Notice>,
    /// What is true now is true of this revision.
    since: Revision,
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
    pub(super) fn new(registry: Registry, targets: &[Target<'_>], after: Option<Revision>) -> Result<Self, Refused> {
        let since = registry.revision();
        let seat = Seat::take(registry, Interest::Monitors);
        let mut watch = Self { seat, monitors: Vec::with_capacity(targets.len()), fired: Vec::new(), since };
        let mut sets = Vec::with_capacity(targets.len());
        for targets in targets.chunks(MONITOR_BATCH) {
            let set = watch.seat.registry.monitor(targets, &watch.seat.inbox);
            let (monitors, revision) = set.map_err(Refused::Failed)?;
            if sets.is_empty() {
                watch.since = revision;
            }
            for (target, (monitor, id)) in targets.iter().zip(monitors) {
                if let Some(id) = id {
                    watch.seat.monitors.insert(monitor, id);
                }
                watch.monitors.push(Monitored { monitor, name: target.name.as_str().into(), id });
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
        watch.fired.sort_by_key(|notice| notice.revision);
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
                    let is_meant = set.target.id.is_none_or(|id| id == event.id.get());
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
                if let EventKind::Down { .. } = event.kind {
                    monitored.id = Some(event.id);
                    self.fired.push(Notice::of(event, Some(set.monitor)));
                    return;
                }
            }
        }
        self.fired.push(Notice {
            monitor: Some(set.monitor),
            name: Arc::clone(&monitored.name),
            id: set.target.id,
            revision: set.revision,
            time: self.seat.registry.clock().wall(),
            kind: NoticeKind::Down { exit: Reason::NoProc.into(), version: Version::default() },
        });
    }

    /// What is true as the watch begins is true of this revision.
    pub(super) fn since(&self) -> Revision {
        self.since
    }

    /// The registry, and the monitors in the order asked.
    pub(super) fn monitors(&mut self) -> (&Registry, Vec<Monitored>) {
        (&self.seat.registry, mem::take(&mut self.monitors))
    }

    /// Some of what fires at once.
    pub(super) fn fired(&mut self) -> Option<Vec<Notice>> {
        let count = self.fired.len().min(SNAPSHOT_PAGE_NAMES);
        (count > 0).then(|| self.fired.drain(..count).collect())
    }

    /// Some DOWNs; `None` after the last.
    pub(super) fn next(&mut self, cx: &mut Context<'_>) -> Option<Progress> {
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
        let notices = known.map(|(monitor, event)| Notice::of(event, Some(*monitor))).collect();
        // A death may have several refs here. Those past what is delivered are just being put into the inbox, one by one.
        let parted = match left {
            Some(left) => left == last.revision,
            None => last.revision > delivered && monitors.values().any(|id| *id == last.id),
        };
        let told = if parted { Revision::new(last.revision.get() - 1) } else { last.revision };
        let revision = if left.is_some() { told } else { delivered.max(told) };
        Some(Progress { revision, news: News::Events(notices) })
    }
}
