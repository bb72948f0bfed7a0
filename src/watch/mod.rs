//! Watches: from monitors, the lifecycle log and the ring of changes to one ordered stream of events, with an explained end.
//!
//! A watch costs those who write nothing: it takes what it asked for at its own pace, from its inbox, the shared log and the
//! shared ring, and ends with [`End::Lagged`] where one of these has gone on without it. It knows no gRPC and no timers: a heartbeat is
//! [`Watch::heartbeat`], whenever its owner finds that it is time.

mod entries;
mod event;
mod history;
mod names;
mod outbox;
mod scope;
mod seat;
mod snapshot;

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;

pub use self::event::{At, Entries, Kinds, Monitored, Notice, NoticeKind, Response, Update};
pub(crate) use self::seat::Seat;
use self::{
    event::Wanted,
    history::HistoryWatch,
    names::{NamesWatch, Refused},
    outbox::{Happening, Outbox},
};
use crate::{
    bucket::{Values, ring::Overrun},
    name::Revision,
    planted::{Bug, strikes},
    registry::{Compacted, Error, Registry, Target},
};

/// A stream of what happens to some buckets. It begins with [`Update::Started`].
#[derive(Debug)]
pub struct Watch {
    source: Source,
    wanted: Wanted,
    stage: Stage,
    /// Everything up to this revision has been sent.
    revision: Option<Revision>,
    outbox: Outbox,
    /// The revision once the outbox is empty.
    reached: Option<Revision>,
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

/// Where a watch begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Initial {
    /// With what is there.
    Sent,
    /// With what happens from now on.
    Skipped,
    /// With what happened after this revision: it is resumed. Then, where entries are wanted, with those that are there.
    After(Revision),
    /// With what happened after this revision, and then with what happens from now on.
    ChangesAfter(Revision),
}

impl Initial {
    /// The revision that is resumed after.
    fn after(self) -> Option<Revision> {
        match self {
            Self::After(revision) | Self::ChangesAfter(revision) => Some(revision),
            Self::Sent | Self::Skipped => None,
        }
    }
}

/// Why a watch ended before it was done.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum End {
    /// Its reader was so slow that the log or the ring has passed it.
    #[error("the log or the ring has gone on without this watch")]
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
    /// Watches the buckets that `targets` name: exactly one DOWN for each, and then the stream is over. Resumed, the monitors
    /// are set as of the revision that it is resumed after.
    ///
    /// # Errors
    /// [`BeginError`].
    pub fn names(
        registry: Registry,
        targets: &[Target<'_>],
        kinds: Kinds<'_>,
        initial: Initial,
    ) -> Result<Self, BeginError> {
        can_resume(&registry, initial)?;
        let after = initial.after();
        let mut source = NamesWatch::new(registry, targets, kinds.entries, after).map_err(|refused| match refused {
            Refused::Failed(error) => BeginError::Failed(error),
            Refused::Compacted(compacted) => compacted.into(),
        })?;
        if matches!(initial, Initial::Skipped | Initial::ChangesAfter(_)) {
            source.skip_initial();
        }
        let revision = Some(after.unwrap_or_else(|| source.since()));
        Ok(Self::new(Source::Names(source), kinds, revision))
    }

    /// Watches all buckets whose names begin with `prefix`, for ever.
    ///
    /// # Errors
    /// [`BeginError`].
    pub fn prefix(registry: Registry, prefix: &str, kinds: Kinds<'_>, initial: Initial) -> Result<Self, BeginError> {
        Self::prefixes(registry, &[prefix], kinds, initial)
    }

    /// The same, of names that begin with one of these.
    ///
    /// # Errors
    /// [`BeginError`].
    pub fn prefixes(
        registry: Registry,
        prefixes: &[impl AsRef<str>],
        kinds: Kinds<'_>,
        initial: Initial,
    ) -> Result<Self, BeginError> {
        can_resume(&registry, initial)?;
        let wants_initial = kinds.created || kinds.entries.is_some_and(|entries| entries.put);
        let initial = if initial == Initial::Sent && !wants_initial { Initial::Skipped } else { initial };
        Ok(Self::history(HistoryWatch::prefixes(registry, prefixes, kinds.entries, initial)?, kinds))
    }

    /// Watches names for ever, whatever buckets have them.
    ///
    /// # Errors
    /// [`BeginError`].
    pub fn follow(
        registry: Registry,
        targets: &[Target<'_>],
        kinds: Kinds<'_>,
        initial: Initial,
    ) -> Result<Self, BeginError> {
        can_resume(&registry, initial)?;
        Ok(Self::history(HistoryWatch::names(registry, targets, kinds.entries, initial)?, kinds))
    }

    fn history(source: HistoryWatch, kinds: Kinds<'_>) -> Self {
        let revision = source.revision();
        Self::new(Source::History(source), kinds, revision)
    }

    fn new(source: Source, kinds: Kinds<'_>, revision: Option<Revision>) -> Self {
        let outbox = Outbox::new(kinds.entries.map_or(Values::Included, |entries| entries.values));
        Self { source, wanted: kinds.into(), stage: Stage::Start, revision, outbox, reached: revision }
    }

    /// The response that says that the stream is alive, and how far it is. To be sent when there is nothing else.
    #[must_use]
    pub fn heartbeat(&self) -> Response {
        self.respond(Update::Heartbeat)
    }

    fn respond(&self, update: Update) -> Response {
        Response { revision: self.revision, update }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Response, End>>> {
        loop {
            if let Some(mut notices) = self.outbox.take(self.registry().limits().message_bytes_max - ENVELOPE_BYTES) {
                spoil(&mut notices);
                if self.outbox.is_empty() {
                    self.revision = self.reached;
                }
                return Poll::Ready(Some(Ok(self.respond(Update::Events(notices)))));
            }
            let (happenings, reached) = match self.stage {
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
                    let (part, revision) = match &mut self.source {
                        // Until all that it has missed is sent, it has to be resumed where it was.
                        Source::Names(names) => {
                            let resume = self.revision;
                            let part = match names.fired() {
                                Some(fired) => Some(fired),
                                None => names.initial().map_err(|Overrun| End::Lagged { resume })?,
                            };
                            let revision = if part.is_some() { resume } else { Some(names.since()) };
                            (part, revision)
                        }
                        Source::History(history) => (history.snapshot()?, history.revision()),
                    };
                    let Some(happenings) = part else {
                        self.stage = Stage::Live;
                        self.revision = self.revision.max(revision);
                        return Poll::Ready(Some(Ok(self.respond(Update::Synced))));
                    };
                    // The last page of a snapshot does not end it: that is for `synced` to say.
                    (happenings, if self.revision.is_some() { revision } else { None })
                }
                Stage::Live => {
                    let progress = match (&mut self.source, self.revision) {
                        (Source::Names(names), reached) => names.next(cx, reached)?,
                        (Source::History(history), _) => Some(history.next(cx)?),
                    };
                    let Some(progress) = progress else {
                        self.stage = Stage::Over;
                        continue;
                    };
                    let reached = self.revision.max(Some(progress.revision));
                    match progress.news {
                        News::Events(happenings) => (happenings, reached),
                        News::None => {
                            self.revision = reached;
                            return Poll::Pending;
                        }
                        News::End => {
                            (self.revision, self.stage) = (reached, Stage::Draining);
                            return Poll::Ready(Some(Ok(self.respond(Update::Draining))));
                        }
                    }
                }
                Stage::Draining => {
                    self.stage = Stage::Over;
                    return Poll::Ready(Some(Err(End::Drained)));
                }
                Stage::Over => return Poll::Ready(None),
            };
            self.reached = reached;
            self.outbox.fill(happenings.into_iter().filter(|happening| self.wanted.admits(happening)));
            if self.outbox.is_empty() {
                self.revision = reached;
                // There may be a million more that nobody wants: others on this thread come first.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Says where its reader is, for those who ask [which watch is slow](Registry::watchers).
    #[must_use]
    pub fn read_by(self, peer: Option<SocketAddr>) -> Self {
        if let Some(peer) = peer {
            self.seat().inbox.is_read_by(peer);
        }
        self
    }

    /// What is watched.
    pub(crate) fn registry(&self) -> &Registry {
        &self.seat().registry
    }

    fn seat(&self) -> &Seat {
        match &self.source {
            Source::Names(names) => names.seat(),
            Source::History(history) => history.seat(),
        }
    }
}

/// Does to what is told what the bugs do that are planted here; nothing, without them.
fn spoil(notices: &mut Vec<Notice>) {
    if strikes(Bug::DroppedEvent) {
        notices.pop();
    }
    if strikes(Bug::DoubledEvent) {
        notices.extend(notices.last().cloned());
    }
    if notices.len() > 1 && strikes(Bug::ReorderedEvents) {
        notices.swap(0, 1);
    }
}

/// A response has this many bytes besides its events, at most.
const ENVELOPE_BYTES: usize = 64;

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

/// Whether the registry has been at the revision that is resumed after, if one is, and the log goes back to it.
fn can_resume(registry: &Registry, initial: Initial) -> Result<(), BeginError> {
    let Some(after) = initial.after() else { return Ok(()) };
    if after < registry.first_revision() || after > registry.revision() {
        return Err(BeginError::Unknown);
    }
    registry.events(after, 0)?;
    Ok(())
}

/// How far a source is, and what it has.
#[derive(Debug)]
struct Progress {
    /// All up to this revision that was asked for is in `news` or was in earlier ones.
    revision: Revision,
    news: News,
}

#[derive(Debug)]
enum News {
    Events(Vec<Happening>),
    /// The waker is registered.
    None,
    /// There will never be any.
    End,
}

#[cfg(test)]
mod tests;
