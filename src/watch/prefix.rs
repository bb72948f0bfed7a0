//! Watching by prefix: what is there, then a cursor in the lifecycle log.
//!
//! The snapshot is of the revision at which the watch began. It is read a page at a time, while things go on: between the
//! pages comes what happened meanwhile, so that the log need not be kept for a slow snapshot and no event is left out. A
//! bucket of the snapshot that died before its page came is told of as it dies, and then its death.

use std::{sync::Arc, task::Context};

use super::{End, Initial, News, Notice, NoticeKind, Progress, Seat};
use crate::{
    bucket::Bucket,
    limits::{SNAPSHOT_PAGE_NAMES, WATCH_BATCH_BYTES, WATCH_BATCH_EVENTS},
    name::Revision,
    process::Process,
    registry::{Compacted, EventKind, Interest, Registry, Snapshot},
};

#[derive(Debug)]
pub(super) struct PrefixWatch {
    seat: Seat,
    prefix: Box<str>,
    /// The snapshot is of this revision: what was created later comes from the log.
    began: Revision,
    /// All events up to here have been sent.
    cursor: Revision,
    told: Told,
}

/// Which buckets of the snapshot have been told of.
#[derive(Debug)]
enum Told {
    /// Those up to this name; none at first. And the next page, if it was read.
    UpTo(Option<Arc<str>>, Option<Snapshot>),
    All,
}

impl PrefixWatch {
    pub(super) fn new(registry: Registry, prefix: &str, initial: Initial) -> Self {
        let seat = Seat::take(registry, Interest::Log);
        let began = seat.registry.revision();
        let told = match initial {
            Initial::Sent => Told::UpTo(None, None),
            Initial::Skipped => Told::All,
        };
        Self { seat, prefix: prefix.into(), began, cursor: began, told }
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.seat.registry
    }

    pub(super) fn cursor(&self) -> Revision {
        self.cursor
    }

    /// The next part of the snapshot, with what happened meanwhile; `None` after the last.
    pub(super) fn snapshot(&mut self) -> Result<Option<Vec<Notice>>, End> {
        let Told::UpTo(after, page) = &mut self.told else { return Ok(None) };
        let registry = &self.seat.registry;
        let page = match page {
            Some(page) => page,
            None => page.insert(registry.snapshot(&self.prefix, after.as_deref(), SNAPSHOT_PAGE_NAMES)?),
        };
        let target = page.revision;
        if self.cursor < target {
            // The snapshot can't be resumed, so neither can a watch that lags within it.
            return self.read(target).map(Some).map_err(|Compacted { .. }| End::Lagged { resume: None });
        }
        let Told::UpTo(after, Some(page)) = std::mem::replace(&mut self.told, Told::All) else { return Ok(None) };
        if page.more {
            let last = page.buckets.last().map(|last| Arc::clone(&last.identity().name));
            self.told = Told::UpTo(last.or(after), None);
        }
        let began = self.began;
        let initial = page.buckets.iter().filter(|bucket| Revision::from(bucket.identity().id) <= began);
        Ok(Some(initial.map(notice_of).collect()))
    }

    /// What has happened since.
    pub(super) fn next(&mut self, cx: &mut Context<'_>) -> Result<Progress, End> {
        self.seat.inbox.waker().register(cx.waker());
        // Asked before the log: what was written before the end is in it.
        let ended = self.seat.registry.has_ended();
        let target = self.seat.registry.revision();
        let news = if self.cursor < target {
            let resume = Some(self.cursor);
            News::Events(self.read(target).map_err(|Compacted { .. }| End::Lagged { resume })?)
        } else if ended {
            News::End
        } else {
            News::None
        };
        Ok(Progress { revision: self.cursor, news })
    }

    /// Reads the log on, not past `target`.
    fn read(&mut self, target: Revision) -> Result<Vec<Notice>, Compacted> {
        let mut notices = Vec::new();
        let mut bytes = 0;
        for event in self.seat.registry.events(self.cursor, WATCH_BATCH_EVENTS)? {
            if event.revision > target || bytes > WATCH_BATCH_BYTES {
                break;
            }
            self.cursor = event.revision;
            if !event.name.starts_with(&*self.prefix) {
                continue;
            }
            if let EventKind::Down { created_at, .. } = event.kind
                && self.is_untold(&event.name, event.id.into())
            {
                notices.push(Notice {
                    revision: event.id.into(),
                    time: created_at,
                    kind: NoticeKind::Created { initial: true },
                    ..Notice::of(&event, None)
                });
            }
            notices.push(Notice::of(&event, None));
            bytes += event.bytes();
        }
        Ok(notices)
    }

    /// Whether a bucket is of the snapshot, and its page has not been sent.
    fn is_untold(&self, name: &str, created: Revision) -> bool {
        match &self.told {
            Told::UpTo(after, _) => created <= self.began && after.as_deref().is_none_or(|after| name > after),
            Told::All => false,
        }
    }
}

fn notice_of(bucket: &Process<Bucket>) -> Notice {
    let identity = bucket.identity();
    Notice {
        monitor: None,
        name: Arc::clone(&identity.name),
        id: Some(identity.id.get()),
        revision: identity.id.into(),
        time: identity.created_at,
        kind: NoticeKind::Created { initial: true },
    }
}
