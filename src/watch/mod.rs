//! Watches: from monitors and the lifecycle log to one ordered stream of events, with an explained end.
//!
//! A watch costs those who write nothing: it takes what it asked for at its own pace, from its inbox or from the shared log,
//! and ends with [`End::Lagged`] where the log has gone on without it. It knows no gRPC and no timers: a heartbeat is
//! [`Watch::heartbeat`], whenever its owner finds that it is time.

mod history;
mod names;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;

use self::{
    history::HistoryWatch,
    names::{NamesWatch, Refused},
};
use crate::{
    name::{BucketId, Revision, Version},
    process::{Exit, MonitorRef},
    registry::{Compacted, Error, Event, EventKind, Inbox, Interest, Registry, Target},
};

/// A stream of what happens to some buckets. It begins with [`Update::Started`].
#[derive(Debug)]
pub struct Watch {
    source: Source,
    kinds: Kinds,
    stage: Stage,
    /// Everything up to this revision has been sent.
    revision: Option<Revision>,
}

#[derive(Debug)]
enum Source {
    Names(NamesWatch),
    History(HistoryWatch),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Start,
    /// What is there now, or what was missed, is being sent.
    Snapshot,
    Live,
    /// Said that nothing more will come.
    Draining,
    Over,
}

/// Which events are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    /// Creations.
    pub created: bool,
    /// Deaths.
    pub down: bool,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Initial {
    /// With what is there.
    Sent,
    /// With what happens from now on.
    Skipped,
    /// With what happened after this revision: it is resumed.
    After(Revision),
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
#[derive(Debug)]
pub struct Notice {
    /// The monitor that it answers; `None` by prefix.
    pub monitor: Option<MonitorRef>,
    /// The bucket's name.
    pub name: Arc<str>,
    /// The bucket's id; for NOPROC the one asked for, if any.
    pub id: Option<u64>,
    /// The event's revision; for NOPROC the present one.
    pub revision: Revision,
    /// When, in wall-clock time since 1970.
    pub time: Duration,
    /// What happened.
    pub kind: NoticeKind,
}

/// What a [`Notice`] tells of.
#[derive(Debug)]
pub enum NoticeKind {
    /// A bucket was created, or is alive as the watch begins.
    Created {
        /// It was alive as the watch began.
        initial: bool,
    },
    /// A bucket is down.
    Down {
        /// Why.
        exit: Exit,
        /// Its last version.
        version: Version,
    },
}

impl Notice {
    fn of(event: &Event, monitor: Option<MonitorRef>) -> Self {
        let kind = match &event.kind {
            EventKind::Created => NoticeKind::Created { initial: false },
            EventKind::Down { exit, version, .. } => NoticeKind::Down { exit: exit.clone(), version: *version },
        };
        Self {
            monitor,
            name: Arc::clone(&event.name),
            id: Some(event.id.get()),
            revision: event.revision,
            time: event.time,
            kind,
        }
    }
}

/// Why a watch ended before it was done.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum End {
    /// Its reader was so slow that the log has passed it.
    #[error("the log has gone on without this watch")]
    Lagged {
        /// What it can be resumed after; `None` where its snapshot was not over.
        resume: Option<Revision>,
    },
    /// The registry is gone, after [`Update::Draining`].
    #[error("the registry has ended")]
    Drained,
    /// The registrar failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Why a watch can't begin.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BeginError {
    /// The log does not go back to where it is to be resumed.
    #[error("revisions before {oldest} are not kept")]
    Compacted {
        /// The oldest revision that is kept.
        oldest: Revision,
    },
    /// The registry has not been at that revision: it is of another life, or yet to come.
    #[error("the registry has not been at this revision")]
    Unknown,
    /// The registrar failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<Compacted> for BeginError {
    fn from(Compacted { oldest }: Compacted) -> Self {
        Self::Compacted { oldest }
    }
}

impl Watch {
    /// Watches the buckets that `targets` name: exactly one DOWN for each, and then the stream is over. With `after`, the
    /// monitors are set as of that revision.
    ///
    /// # Errors
    /// [`BeginError`].
    pub fn names(
        registry: Registry,
        targets: &[Target<'_>],
        kinds: Kinds,
        after: Option<Revision>,
    ) -> Result<Self, BeginError> {
        if let Some(after) = after {
            can_resume(&registry, after)?;
        }
        let source = NamesWatch::new(registry, targets, after).map_err(|refused| match refused {
            Refused::Failed(error) => BeginError::Failed(error),
            Refused::Compacted(compacted) => compacted.into(),
        })?;
        let revision = Some(after.unwrap_or_else(|| source.since()));
        Ok(Self { source: Source::Names(source), kinds, stage: Stage::Start, revision })
    }

    /// Watches all buckets whose names begin with `prefix`, for ever.
    ///
    /// # Errors
    /// [`BeginError`].
    pub fn prefix(registry: Registry, prefix: &str, kinds: Kinds, initial: Initial) -> Result<Self, BeginError> {
        // Where creations are not wanted there is nothing to send of what is there.
        let initial = if kinds.created || initial != Initial::Sent { initial } else { Initial::Skipped };
        if let Initial::After(revision) = initial {
            can_resume(&registry, revision)?;
        }
        Ok(Self::history(HistoryWatch::prefix(registry, prefix, initial), kinds))
    }

    /// Watches names for ever, whatever buckets have them.
    ///
    /// # Errors
    /// [`BeginError`].
    pub fn follow(
        registry: Registry,
        targets: &[Target<'_>],
        kinds: Kinds,
        initial: Initial,
    ) -> Result<Self, BeginError> {
        if let Initial::After(revision) = initial {
            can_resume(&registry, revision)?;
        }
        Ok(Self::history(HistoryWatch::names(registry, targets, initial), kinds))
    }

    fn history(source: HistoryWatch, kinds: Kinds) -> Self {
        let revision = source.revision();
        Self { source: Source::History(source), kinds, stage: Stage::Start, revision }
    }

    /// The response that says that the stream is alive, and how far it is. To be sent when there is nothing else.
    #[must_use]
    pub fn heartbeat(&self) -> Response {
        self.respond(Update::Heartbeat)
    }

    fn respond(&self, update: Update) -> Response {
        Response { revision: self.revision, update }
    }

    fn wants(&self, notice: &Notice) -> bool {
        match notice.kind {
            NoticeKind::Created { .. } => self.kinds.created,
            NoticeKind::Down { .. } => self.kinds.down,
        }
    }

    /// Tells of the events that are wanted, if any is.
    fn tell(&self, cx: &Context<'_>, mut notices: Vec<Notice>) -> Poll<Option<Result<Response, End>>> {
        notices.retain(|notice| self.wants(notice));
        if notices.is_empty() {
            // There may be a million more that nobody wants: others on this thread come first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(self.respond(Update::Events(notices)))))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Response, End>>> {
        loop {
            match self.stage {
                Stage::Start => {
                    self.stage = Stage::Snapshot;
                    let (registry, monitors) = match &mut self.source {
                        Source::Names(names) => names.monitors(),
                        Source::History(history) => history.monitors(),
                    };
                    let registry_id = registry.id().to_owned();
                    return Poll::Ready(Some(Ok(self.respond(Update::Started { registry_id, monitors }))));
                }
                Stage::Snapshot => {
                    let (page, revision) = match &mut self.source {
                        // Until all that it has missed is sent, it has to be resumed where it was.
                        Source::Names(names) => match names.fired() {
                            Some(fired) => (Some(fired), self.revision),
                            None => (None, Some(names.since())),
                        },
                        Source::History(history) => (history.snapshot()?, history.revision()),
                    };
                    let Some(notices) = page else {
                        self.stage = Stage::Live;
                        self.revision = self.revision.max(revision);
                        return Poll::Ready(Some(Ok(self.respond(Update::Synced))));
                    };
                    // The last page of a snapshot does not end it: that is for `synced` to say.
                    if self.revision.is_some() {
                        self.revision = revision;
                    }
                    return self.tell(cx, notices);
                }
                Stage::Live => {
                    let Some(progress) = (match &mut self.source {
                        Source::Names(names) => names.next(cx),
                        Source::History(history) => Some(history.next(cx)?),
                    }) else {
                        self.stage = Stage::Over;
                        continue;
                    };
                    self.revision = self.revision.max(Some(progress.revision));
                    match progress.news {
                        News::Events(notices) => return self.tell(cx, notices),
                        News::None => return Poll::Pending,
                        News::End => {
                            self.stage = Stage::Draining;
                            return Poll::Ready(Some(Ok(self.respond(Update::Draining))));
                        }
                    }
                }
                Stage::Draining => {
                    self.stage = Stage::Over;
                    return Poll::Ready(Some(Err(End::Drained)));
                }
                Stage::Over => return Poll::Ready(None),
            }
        }
    }
}

impl Stream for Watch {
    type Item = Result<Response, End>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let response = self.poll(cx);
        if matches!(response, Poll::Ready(Some(Err(_)))) {
            self.stage = Stage::Over;
        }
        response
    }
}

/// Whether the registry has been at this revision. Whether the log goes back to it shows as it is read.
fn can_resume(registry: &Registry, after: Revision) -> Result<(), BeginError> {
    if after < registry.first_revision() || after > registry.revision() {
        return Err(BeginError::Unknown);
    }
    registry.events(after, 0)?;
    Ok(())
}

/// How far a source is, and what it has.
struct Progress {
    /// All up to this revision that was asked for is in `news` or was in earlier ones.
    revision: Revision,
    news: News,
}

enum News {
    Events(Vec<Notice>),
    /// The waker is registered.
    None,
    /// There will never be any.
    End,
}

/// A place among those who are woken, given up on every way out.
#[derive(Debug)]
pub(crate) struct Seat {
    registry: Registry,
    inbox: Arc<Inbox>,
    /// The monitors that have not fired.
    monitors: HashMap<MonitorRef, BucketId>,
    /// Buckets of monitors that were given up.
    taken_back: Vec<BucketId>,
}

impl Seat {
    pub(crate) fn take(registry: Registry, interest: Interest) -> Self {
        let inbox = Arc::new(Inbox::default());
        registry.enroll(&inbox, interest);
        Self { registry, inbox, monitors: HashMap::new(), taken_back: Vec::new() }
    }
}

impl Seat {
    /// Gives a monitor up. One of the same bucket that is wanted would go too, so it stays where it is; what it fires is
    /// not known here any more.
    fn take_back(&mut self, monitor: MonitorRef) {
        self.taken_back.extend(self.monitors.remove(&monitor));
    }

    /// Whether the server drains; who has a seat for [`Interest::Drain`] is woken when it begins to.
    pub(crate) fn is_draining(&self, cx: &Context<'_>) -> bool {
        self.inbox.waker().register(cx.waker());
        self.registry.is_draining()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.registry.forget(&self.inbox, self.monitors.values().chain(&self.taken_back).copied());
    }
}

#[cfg(test)]
mod tests;
