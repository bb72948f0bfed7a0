//! The ring: the last changes of entries, in buckets that somebody watches. One for all.
//!
//! A bucket appends what a call of it has changed, at the end of the call and under its own lock; so the changes of a bucket
//! are in the order of its versions, and those of one call are together. Where nobody watches a bucket, its changes cost one
//! look at a number.
//!
//! A reader is a position in the ring. It is woken for what it subscribed to, and goes on at the first of it: what others
//! wrote in between it neither reads nor loses. It has lost something only if that was let go of before it came.

mod interests;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, mem,
    ops::Range,
    sync::Arc,
    task::Context,
};

use futures_util::task::AtomicWaker;
use once_cell::race::OnceBox;
use smallvec::SmallVec;

use self::interests::Interests;
pub use self::interests::Scope;
use super::Value;
use crate::{
    limits::{EVENT_FIXED_BYTES, MONITOR_BATCH, RING_BATCH},
    name::{BucketId, Version},
    sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering, RwLock},
    time_to_live::Due,
};

/// A change of an entry.
#[derive(Debug)]
pub struct Change {
    /// The bucket's name.
    pub name: Arc<str>,
    /// The bucket's id.
    pub id: BucketId,
    /// The key.
    pub key: Box<str>,
    /// The version that the bucket took with it.
    pub version: Version,
    /// What became of the entry.
    pub kind: ChangeKind,
    /// The next change is of the same call, which nobody is to see the middle of.
    pub more: bool,
    /// Its form on the wire, once somebody has told of it, for the next one who does.
    pub(crate) wire: OnceBox<Box<[u8]>>,
}

/// What became of an entry.
#[derive(Debug)]
pub enum ChangeKind {
    /// It was put, or added to.
    Put {
        /// Its value.
        value: Value,
        /// When it falls due.
        due: Due,
    },
    /// It was deleted.
    Deleted,
    /// Its time ran out.
    Expired,
}

impl Change {
    /// Whether the entry is there now.
    pub(crate) fn is_put(&self) -> bool {
        matches!(self.kind, ChangeKind::Put { .. })
    }

    /// More than it has on the wire.
    pub(crate) fn bytes(&self) -> usize {
        EVENT_FIXED_BYTES + self.text_bytes()
    }

    /// What it costs to keep, about, its form on the wire included: it is kept for those who are told of it.
    fn kept_bytes(&self) -> usize {
        mem::size_of::<Self>() + 2 * mem::size_of::<usize>() + EVENT_FIXED_BYTES + 2 * self.text_bytes()
    }

    fn text_bytes(&self) -> usize {
        let value = match &self.kind {
            ChangeKind::Put { value, .. } => value.heap_bytes(),
            ChangeKind::Deleted | ChangeKind::Expired => 0,
        };
        self.name.len() + self.key.len() + value
    }
}

/// The place of a change in the ring: how many were appended before it.
pub type Position = u64;

/// What was subscribed to is not in the ring any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Overrun;

/// The last changes of what is watched.
///
/// Its locks are leaves but for one order: `announcing`, then `interests`, then `changes`. Nobody is woken under the last two.
pub struct Ring {
    bytes_max: usize,
    /// How many subscriptions there are, for those who only want to know whether there is one.
    subscriptions: AtomicUsize,
    interests: RwLock<Interests<Subscriber>>,
    changes: RwLock<Changes>,
    /// Whoever subscribed to a change before this position knows that it is there.
    announced: AtomicU64,
    /// Held by the one who announces, so that `announced` never runs ahead.
    announcing: Mutex<()>,
    news: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Changes {
    /// The position of the oldest.
    first: Position,
    queue: VecDeque<Arc<Change>>,
    bytes: usize,
    lost: Lost,
}

/// What went before it could be announced, since that was last looked at.
#[derive(Default)]
struct Lost {
    names: BTreeMap<Arc<str>, Range<Position>>,
    /// What is past [`RING_BATCH`] names may have been for anybody.
    anyones: Range<Position>,
}

impl Lost {
    fn add(&mut self, name: &Arc<str>, position: Position) {
        if let Some(span) = self.names.get_mut(name) {
            span.end = position + 1;
        } else if self.names.len() < RING_BATCH {
            self.names.insert(Arc::clone(name), position..position + 1);
        } else {
            let start = if self.anyones.is_empty() { position } else { self.anyones.start };
            self.anyones = start..position + 1;
        }
    }
}

impl Changes {
    fn end(&self) -> Position {
        self.first + self.queue.len() as u64
    }

    /// Up to `count` changes from `position` on, as far as they are kept.
    fn from(&self, position: Position, count: usize) -> impl Iterator<Item = &Arc<Change>> {
        let start = usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.queue.len());
        self.queue.range(start..).take(count)
    }
}

/// Someone who waits for changes.
struct Subscriber {
    /// The first change that was announced to it since it last looked; [`NONE`] for none.
    unread: AtomicU64,
    /// All that was ever announced to it is before this. Written before `unread`, and read after it.
    unread_end: AtomicU64,
    waker: AtomicWaker,
}

const NONE: Position = Position::MAX;

impl Ring {
    /// An empty ring, for changes of `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            subscriptions: AtomicUsize::new(0),
            interests: RwLock::default(),
            changes: RwLock::default(),
            announced: AtomicU64::new(0),
            announcing: Mutex::new(()),
            news: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        })
    }

    /// Bytes of the changes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.changes.read().bytes
    }

    /// Whether anyone watches buckets of this name. Whoever subscribed before it took a bucket's lock is seen by those who
    /// take that lock later.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.subscriptions.load(Ordering::Relaxed) > 0 && self.interests.read().covers(name)
    }

    /// Where the next change will be. All changes of a call that has returned are before it.
    pub(super) fn end(&self) -> Position {
        self.changes.read().end()
    }

    /// Appends what one call has changed, and lets go of the oldest past the limit.
    pub(super) fn append(&self, mut call: Vec<Change>) {
        let Some((last, others)) = call.split_last_mut() else { return };
        last.more = false;
        others.iter_mut().for_each(|change| change.more = true);
        let call = call.into_iter().map(Arc::new);
        let mut outdated = SmallVec::<[Arc<Change>; 4]>::new();
        {
            let mut changes = self.changes.write();
            // The last one may have left since this call began, and what it left behind was let go of.
            if self.subscriptions.load(Ordering::Relaxed) == 0 {
                return;
            }
            for change in call {
                changes.bytes += change.kept_bytes();
                changes.queue.push_back(change);
                // The newest is kept whatever its size.
                while changes.bytes > self.bytes_max && changes.queue.len() > 1 {
                    let Some(oldest) = changes.queue.pop_front() else { break };
                    if changes.first >= self.announced.load(Ordering::Acquire) {
                        let position = changes.first;
                        changes.lost.add(&oldest.name, position);
                    }
                    changes.bytes -= oldest.kept_bytes();
                    changes.first += 1;
                    outdated.push(oldest);
                }
            }
        }
        // They may be large: nobody waits while they are freed.
        drop(outdated);
        if !self.news.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Subscribes to what changes from now on.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, scope: Scope) -> Subscription {
        let subscriber = Arc::new(Subscriber {
            unread: AtomicU64::new(NONE),
            unread_end: AtomicU64::new(0),
            waker: AtomicWaker::new(),
        });
        // Some at a time: those who write look at the interests too.
        for part in scope.parts(MONITOR_BATCH) {
            self.interests.write().add(part, &subscriber);
        }
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        let position = self.end();
        Subscription { ring: Arc::clone(self), scope, subscriber, position, contiguous: position }
    }

    fn unsubscribe(&self, scope: &Scope, subscriber: &Arc<Subscriber>) {
        for part in scope.parts(MONITOR_BATCH) {
            self.interests.write().remove(part, subscriber);
        }
        let interests = self.interests.write();
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        if interests.is_empty() {
            // For nobody. One who comes a moment later waits for the lock, and begins after these.
            let mut changes = self.changes.write();
            changes.first = changes.end();
            self.announced.fetch_max(changes.first, Ordering::AcqRel);
            changes.bytes = 0;
            changes.lost = Lost::default();
            let outdated = mem::take(&mut changes.queue);
            drop((changes, interests));
            drop(outdated);
        }
    }

    /// Announces what was appended, and wakes those who subscribed to it.
    pub fn announce(&self) {
        let _one_at_a_time = self.announcing.lock();
        // What comes meanwhile is for the next one: whoever writes without a pause does not keep this one here.
        let end = self.end();
        loop {
            let from = self.announced.load(Ordering::Acquire);
            let (first, batch) = {
                let changes = self.changes.read();
                let first = from.max(changes.first);
                (first, changes.from(first, RING_BATCH).cloned().collect::<Vec<_>>())
            };
            if batch.is_empty() || first >= end {
                return;
            }
            // The first of each name and the last: who is told of these will find the others. In the order of names, so that one
            // run is like another.
            let mut spans = BTreeMap::<&str, Range<Position>>::new();
            for (position, change) in (first..).zip(&batch) {
                spans.entry(&change.name).or_insert(position..position).end = position + 1;
            }
            let lost = if first > from { mem::take(&mut self.changes.write().lost) } else { Lost::default() };
            let tell: Vec<(Range<Position>, Arc<Subscriber>)> = {
                let interests = self.interests.read();
                let known =
                    |(name, span): (_, Range<_>)| interests.of(name).map(move |who| (span.clone(), who.clone()));
                let lost_spans = lost.names.iter().map(|(name, span)| (&**name, span.clone()));
                let mut tell: Vec<_> = lost_spans.chain(spans).flat_map(known).collect();
                if !lost.anyones.is_empty() {
                    tell.extend(interests.all().map(|who| (lost.anyones.clone(), Arc::clone(who))));
                }
                tell
            };
            for (span, who) in &tell {
                who.unread_end.fetch_max(span.end, Ordering::AcqRel);
                who.unread.fetch_min(span.start, Ordering::AcqRel);
            }
            self.announced.fetch_max(first + batch.len() as u64, Ordering::AcqRel);
            tell.iter().for_each(|(_, who)| who.waker.wake());
        }
    }

    /// Announces what there is, and has the task woken when there is more.
    pub(crate) fn poll_announce(&self, cx: &mut Context<'_>) {
        self.waker.register(cx.waker());
        if self.news.swap(false, Ordering::AcqRel) {
            self.announce();
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subscriptions = self.subscriptions.load(Ordering::Relaxed);
        f.debug_struct("Ring").field("bytes", &self.bytes()).field("subscriptions", &subscriptions).finish()
    }
}

/// A reader of the ring, from where it was made. Dropped, it is forgotten.
pub struct Subscription {
    ring: Arc<Ring>,
    scope: Scope,
    subscriber: Arc<Subscriber>,
    /// All that it subscribed to before this was read.
    position: Position,
    /// Up to here everything must be looked at: the last of it was announced.
    contiguous: Position,
}

impl Subscription {
    /// Has the task woken when there is something.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.subscriber.waker.register(cx.waker());
    }

    /// Where the next change will be. All changes of a call that has returned are before it.
    #[must_use]
    pub fn end(&self) -> Position {
        self.ring.end()
    }

    /// Whether all that was subscribed to before `until` was passed.
    #[must_use]
    pub fn has_read(&self, until: Position) -> bool {
        self.position >= until
    }

    /// Some of the changes before `until` that were not passed, oldest first, those of no interest among them; none where all
    /// were, or where it is not known yet whether those that went were of interest.
    ///
    /// # Errors
    /// [`Overrun`].
    pub fn read(&mut self, until: Position) -> Result<Vec<Arc<Change>>, Overrun> {
        if self.position >= self.contiguous {
            // In this order: what is announced before `announced` shows in `unread`, and what that speaks of in `unread_end`.
            let announced = self.ring.announced.load(Ordering::Acquire);
            let unread = self.subscriber.unread.swap(NONE, Ordering::AcqRel);
            if unread != NONE {
                // No further: who stops here has something left that it can lose.
                self.contiguous = self.subscriber.unread_end.load(Ordering::Acquire);
            }
            self.position = self.position.max(unread.min(announced));
        }
        let changes = self.ring.changes.read();
        if self.position >= until {
            return Ok(Vec::new());
        }
        if self.position < changes.first {
            let is_known = self.position < self.contiguous;
            return if is_known { Err(Overrun) } else { Ok(Vec::new()) };
        }
        let count = usize::try_from(until - self.position).unwrap_or(RING_BATCH).min(RING_BATCH);
        Ok(changes.from(self.position, count).cloned().collect())
    }

    /// Passes the first of what was read.
    pub fn pass(&mut self) {
        self.position += 1;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.ring.unsubscribe(&self.scope, &self.subscriber);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("position", &self.position).finish_non_exhaustive()
    }
}
