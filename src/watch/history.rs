//! Watching by prefix, or by name for ever: what is there, then a cursor in the lifecycle log.
//!
//! The snapshot is of the revision at which the watch began. It is read a page at a time, while things go on: between the
//! pages comes what happened meanwhile, so that the log need not be kept for a slow snapshot and no event is left out. A
//! bucket of the snapshot that died before its page came is told of as it dies, and then its death.
//!
//! A watch that is resumed has no snapshot: its cursor begins where it was, and what was missed is replayed.

use std::{
    collections::{BTreeMap, HashSet},
    mem,
    ops::Bound,
    sync::Arc,
    task::Context,
};

use smallvec::{SmallVec, smallvec};

use super::{End, Initial, Monitored, News, Notice, NoticeKind, Progress, Seat};
use crate::{
    bucket::Bucket,
    limits::{SNAPSHOT_PAGE_NAMES, WATCH_BATCH_BYTES, WATCH_BATCH_EVENTS},
    name::{Revision, Version},
    process::{MonitorRef, Process, Reason},
    registry::{Compacted, Error, Event, EventKind, Interest, Registry, Target},
};

#[derive(Debug)]
pub(super) struct HistoryWatch {
    seat: Seat,
    scope: Scope,
    /// The snapshot is of this revision: what was created later comes from the log.
    began: Revision,
    /// All events up to here have been sent.
    cursor: Revision,
    told: Told,
    /// Until they are sent.
    monitors: Vec<Monitored>,
}

/// Whom it is about.
#[derive(Debug)]
enum Scope {
    Prefix(Box<str>),
    Names {
        /// The refs of each name.
        refs: BTreeMap<Arc<str>, Refs>,
        /// Names of which something was told before their page came.
        mentioned: HashSet<Arc<str>>,
    },
}

/// A name that is given twice has two.
type Refs = SmallVec<[Option<MonitorRef>; 1]>;

/// How much of what was there has been told.
#[derive(Debug)]
enum Told {
    /// Buckets up to this name; none at first. And the next page, if it was read.
    UpTo(Option<Arc<str>>, Option<Page>),
    /// There is no snapshot, but what happened up to this revision is replayed.
    Replay(Revision),
    All,
}

/// A part of what is there, in the order of names.
#[derive(Debug)]
struct Page {
    buckets: Vec<Process<Bucket>>,
    /// Names that were asked for and are not there.
    absent: Vec<Arc<str>>,
    /// The last name that the page is about.
    last: Option<Arc<str>>,
    more: bool,
    /// What it is true of.
    revision: Revision,
}

impl HistoryWatch {
    pub(super) fn prefix(registry: Registry, prefix: &str, initial: Initial) -> Self {
        Self::new(Seat::take(registry, Interest::Log), Scope::Prefix(prefix.into()), initial)
    }

    pub(super) fn names(registry: Registry, targets: &[Target<'_>], initial: Initial) -> Self {
        let seat = Seat::take(registry, Interest::Log);
        let mut refs = BTreeMap::<Arc<str>, Refs>::new();
        let monitors = targets
            .iter()
            .map(|target| {
                let (monitor, name) = (MonitorRef::next(), Arc::from(target.name.as_str()));
                refs.entry(Arc::clone(&name)).or_default().push(Some(monitor));
                Monitored { monitor, id: seat.registry.id_of(target.name), name }
            })
            .collect();
        Self { monitors, ..Self::new(seat, Scope::Names { refs, mentioned: HashSet::new() }, initial) }
    }

    fn new(seat: Seat, scope: Scope, initial: Initial) -> Self {
        let now = seat.registry.revision();
        let (began, told) = match initial {
            Initial::Sent => (now, Told::UpTo(None, None)),
            Initial::Skipped => (now, Told::All),
            Initial::After(revision) => (revision, Told::Replay(now)),
        };
        Self { seat, scope, began, cursor: began, told, monitors: Vec::new() }
    }

    /// The registry, and the monitors in the order asked.
    pub(super) fn monitors(&mut self) -> (&Registry, Vec<Monitored>) {
        (&self.seat.registry, mem::take(&mut self.monitors))
    }

    /// What it can be resumed after; `None` within a snapshot.
    pub(super) fn revision(&self) -> Option<Revision> {
        (!matches!(self.told, Told::UpTo(..))).then_some(self.cursor)
    }

    /// The next part of the snapshot or the replay, with what happened meanwhile; `None` after the last.
    pub(super) fn snapshot(&mut self) -> Result<Option<Vec<Notice>>, End> {
        match &mut self.told {
            Told::All => Ok(None),
            Told::Replay(until) => {
                let (until, resume) = (*until, Some(self.cursor));
                if self.cursor < until {
                    return self.read(until).map(Some).map_err(|Compacted { .. }| End::Lagged { resume });
                }
                self.told = Told::All;
                Ok(None)
            }
            Told::UpTo(after, page) => {
                let page = match page {
                    Some(page) => page,
                    None => page.insert(self.scope.page(&self.seat.registry, after.as_ref())?),
                };
                let target = page.revision;
                if self.cursor < target {
                    // A snapshot can't be resumed, so neither can a watch that lags within it.
                    return self.read(target).map(Some).map_err(|Compacted { .. }| End::Lagged { resume: None });
                }
                Ok(Some(self.tell_page()))
            }
        }
    }

    /// The notices of the page that was read.
    fn tell_page(&mut self) -> Vec<Notice> {
        let Told::UpTo(after, Some(page)) = mem::replace(&mut self.told, Told::All) else { return Vec::new() };
        if page.more {
            self.told = Told::UpTo(page.last.or(after), None);
        }
        let mut notices = Vec::new();
        let of_snapshot = page.buckets.iter().filter(|bucket| Revision::from(bucket.identity().id) <= self.began);
        for bucket in of_snapshot {
            let refs = self.scope.refs(&bucket.identity().name);
            notices.extend(refs.into_iter().map(|monitor| alive(bucket, monitor)));
        }
        for name in page.absent {
            // Where something of it was told already, that is what became of it.
            if self.scope.is_mentioned(&name) {
                continue;
            }
            let (revision, time) = (page.revision, self.seat.registry.clock().wall());
            notices.extend(self.scope.refs(&name).into_iter().map(|monitor| {
                let kind = NoticeKind::Down { exit: Reason::NoProc.into(), version: Version::default() };
                Notice { monitor, name: Arc::clone(&name), id: None, revision, time, kind }
            }));
        }
        notices
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
            let refs = self.scope.refs(&event.name);
            if refs.is_empty() {
                continue;
            }
            let untold = self.is_untold(&event);
            for monitor in refs {
                notices.extend(untold.then(|| was_alive(&event, monitor)));
                notices.push(Notice::of(&event, monitor));
                bytes += event.bytes();
            }
            if let (Scope::Names { mentioned, .. }, Told::UpTo(..)) = (&mut self.scope, &self.told) {
                mentioned.insert(Arc::clone(&event.name));
            }
        }
        Ok(notices)
    }

    /// Whether an event is the death of a bucket of the snapshot whose page has not been sent.
    fn is_untold(&self, event: &Event) -> bool {
        let Told::UpTo(after, _) = &self.told else { return false };
        matches!(event.kind, EventKind::Down { .. })
            && Revision::from(event.id) <= self.began
            && after.as_ref().is_none_or(|after| event.name > *after)
    }
}

impl Scope {
    /// For whom an event of this name is: nobody, or one for each ref.
    fn refs(&self, name: &str) -> Refs {
        match self {
            Self::Prefix(prefix) if name.starts_with(&**prefix) => smallvec![None],
            Self::Prefix(_) => Refs::new(),
            Self::Names { refs, .. } => refs.get(name).cloned().unwrap_or_default(),
        }
    }

    fn is_mentioned(&self, name: &str) -> bool {
        matches!(self, Self::Names { mentioned, .. } if mentioned.contains(name))
    }

    /// Reads the next page of what is there.
    fn page(&self, registry: &Registry, after: Option<&Arc<str>>) -> Result<Page, Error> {
        match self {
            Self::Prefix(prefix) => {
                let page = registry.snapshot(prefix, after.map(|after| &**after), SNAPSHOT_PAGE_NAMES)?;
                let last = page.buckets.last().map(|last| Arc::clone(&last.identity().name));
                Ok(Page { buckets: page.buckets, absent: Vec::new(), last, more: page.more, revision: page.revision })
            }
            Self::Names { refs, .. } => {
                let after = after.map_or(Bound::Unbounded, |after| Bound::Excluded(Arc::clone(after)));
                let mut names = refs.range((after, Bound::Unbounded)).map(|(name, _)| Arc::clone(name));
                let batch: Vec<Arc<str>> = names.by_ref().take(SNAPSHOT_PAGE_NAMES).collect();
                let more = names.next().is_some();
                let (living, revision) = registry.living(&batch)?;
                let gone = batch.iter().zip(&living).filter(|(_, bucket)| bucket.is_none());
                let absent = gone.map(|(name, _)| Arc::clone(name)).collect();
                let last = batch.last().cloned();
                Ok(Page { buckets: living.into_iter().flatten().collect(), absent, last, more, revision })
            }
        }
    }
}

/// A bucket that is alive as the watch begins.
fn alive(bucket: &Process<Bucket>, monitor: Option<MonitorRef>) -> Notice {
    let identity = bucket.identity();
    Notice {
        monitor,
        name: Arc::clone(&identity.name),
        id: Some(identity.id.get()),
        revision: identity.id.into(),
        time: identity.created_at,
        kind: NoticeKind::Created { initial: true },
    }
}

/// The bucket of a death that was alive as the watch began.
fn was_alive(death: &Event, monitor: Option<MonitorRef>) -> Notice {
    let time = match death.kind {
        EventKind::Down { created_at, .. } => created_at,
        EventKind::Created => death.time,
    };
    let kind = NoticeKind::Created { initial: true };
    Notice { revision: death.id.into(), time, kind, ..Notice::of(death, monitor) }
}
