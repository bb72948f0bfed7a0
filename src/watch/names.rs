//! Watching by name or incarnation: a monitor each, and one DOWN each.

use std::{mem, sync::Arc, task::Context};

use super::{Monitored, News, Notice, NoticeKind, Progress, Seat};
use crate::{
    limits::{MONITOR_BATCH, SNAPSHOT_PAGE_NAMES, WATCH_BATCH_BYTES, WATCH_BATCH_EVENTS},
    name::{Revision, Version},
    process::Reason,
    registry::{Error, Interest, Registry, Target},
};

#[derive(Debug)]
pub(super) struct NamesWatch {
    seat: Seat,
    /// Until they are sent.
    monitors: Vec<Monitored>,
    /// A NOPROC for each that was not there, until they are sent.
    absent: Vec<Notice>,
}

impl NamesWatch {
    /// Sets the monitors; and the revision that they are true of.
    pub(super) fn new(registry: Registry, targets: &[Target<'_>]) -> Result<(Self, Revision), Error> {
        let mut since = registry.revision();
        let seat = Seat::take(registry, Interest::Monitors);
        let mut watch = Self { seat, monitors: Vec::with_capacity(targets.len()), absent: Vec::new() };
        for (step, targets) in targets.chunks(MONITOR_BATCH).enumerate() {
            let (monitors, revision) = watch.seat.registry.monitor(targets, &watch.seat.inbox)?;
            if step == 0 {
                since = revision;
            }
            for (target, (monitor, id)) in targets.iter().zip(monitors) {
                let name: Arc<str> = target.name.as_str().into();
                match id {
                    Some(id) => drop(watch.seat.monitors.insert(monitor, id)),
                    None => watch.absent.push(Notice {
                        monitor: Some(monitor),
                        name: Arc::clone(&name),
                        id: target.id,
                        revision,
                        time: watch.seat.registry.clock().wall(),
                        kind: NoticeKind::Down { exit: Reason::NoProc.into(), version: Version::default() },
                    }),
                }
                watch.monitors.push(Monitored { monitor, name, id });
            }
        }
        Ok((watch, since))
    }

    /// The registry, and the monitors in the order asked.
    pub(super) fn monitors(&mut self) -> (&Registry, Vec<Monitored>) {
        (&self.seat.registry, mem::take(&mut self.monitors))
    }

    /// Some of those that were not there.
    pub(super) fn absent(&mut self) -> Option<Vec<Notice>> {
        let count = self.absent.len().min(SNAPSHOT_PAGE_NAMES);
        (count > 0).then(|| self.absent.drain(..count).collect())
    }

    /// Some DOWNs; `None` after the last.
    pub(super) fn next(&mut self, cx: &mut Context<'_>) -> Option<Progress> {
        if self.seat.monitors.is_empty() {
            return None;
        }
        let Seat { registry, inbox, monitors } = &mut self.seat;
        inbox.waker().register(cx.waker());
        // Both are asked before the inbox: what they speak of is in it.
        let ended = registry.has_ended();
        let delivered = registry.delivered();
        let (events, left) = inbox.take(WATCH_BATCH_EVENTS, WATCH_BATCH_BYTES);
        let Some((_, last)) = events.last() else {
            return Some(Progress { revision: delivered, news: if ended { News::End } else { News::None } });
        };
        let notices = events.iter().map(|(monitor, event)| {
            monitors.remove(monitor);
            Notice::of(event, Some(*monitor))
        });
        let notices = notices.collect();
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
