//! The registry: names to buckets, what became of them, and who wants to know.
//!
//! ```text
//! Create, Stop, List, monitors ──► registrar   a supervised process, the only writer of names
//! Lookup, Put, Get, …          ──► index       the names of the living, for readers
//!                                  log         what was created and what went down
//!                                  delivery    from the registrar to those who watch
//! ```
//!
//! The index, the log, the monitors and the budget outlive the registrar: when it crashes, the next one starts from them,
//! and no bucket and no watcher is lost. Nothing here knows gRPC or a runtime.

mod delivery;
mod error;
mod index;
mod log;
mod reaper;
mod registrar;
#[cfg(test)]
pub(crate) mod tests;

use std::{fmt, future::poll_fn, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use futures_util::task::AtomicWaker;

use self::{
    delivery::Delivery,
    index::Index,
    log::Log,
    reaper::Reaper,
    registrar::{Create, Living, LivingBuckets, Monitor, MonitorsSet, PageOfNames, Registrar, Stop, Tie},
};
pub(crate) use self::{
    delivery::{Inbox, Interest},
    registrar::Page as Snapshot,
};
pub use self::{
    error::Error,
    log::{Compacted, Death, Event, EventKind, Tally},
    registrar::Mode,
};
use crate::{
    bucket::{
        self, Begin, Bucket, Describe, Env, Peek, Summary, Tick,
        ring::{Ring, Scope, Subscription},
    },
    budget::{Budget, Owner, Resident},
    clock::Clock,
    limits::{ALARM_BATCH, Limits, RESTART_WINDOW, RESTARTS_MAX, STOP_BATCH},
    memory,
    name::{BucketId, BucketName, Revision},
    planted::{Bug, strikes},
    process::{Call, CallError, Exit, Process, Reason, RestartBudget, Supervised, WeakProcess},
    sync::{AtomicBool, AtomicUsize, Ordering},
    time_to_live::{Alarms, Due, Timeline},
};

/// A handle to the registry; cheap to clone.
///
/// # Cancel safety
/// Nothing here awaits, but for [`run`](Self::run) and [`gave_up`](Self::gave_up), which may be dropped and called again.
/// [`run_timer`](Self::run_timer) blocks its thread.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    registrar: Supervised<Registrar>,
}

/// What outlives the registrar.
struct Shared {
    id: String,
    first: Revision,
    env: Arc<Env>,
    clock: Arc<dyn Clock>,
    index: Index,
    log: Log,
    delivery: Delivery,
    reaper: Reaper,
    /// The registrar crashed too often.
    gave_up: AtomicBool,
    gave_up_waker: AtomicWaker,
    /// The server drains: soon all buckets will be down.
    draining: AtomicBool,
    /// All buckets are down, and no more will come.
    ended: AtomicBool,
}

/// A living bucket, as it was a moment ago.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name.
    pub name: Arc<str>,
    /// Its id.
    pub id: BucketId,
    /// When it was created, in wall-clock time since 1970.
    pub created_at: Duration,
    /// How many links it has: of these Link streams it shares the life.
    pub link_count: usize,
    /// The rest.
    pub summary: Summary,
}

/// A watch, as those see it who ask which is slow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Watcher {
    /// Where its reader is; `None` where nobody said.
    pub peer: Option<SocketAddr>,
    /// By how many revisions it is behind.
    pub lag: u64,
}

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Living buckets.
    pub buckets: usize,
    /// What is in them.
    pub entries: usize,
    /// Bytes that they are charged for.
    pub charged_bytes: usize,
    /// Watches.
    pub watchers: usize,
    /// By how many revisions the slowest of them is behind.
    pub lag: u64,
    /// Monitors that wait for a death.
    pub monitors: usize,
    /// Bytes of changes that are kept for those who watch entries.
    pub ring_bytes: usize,
    /// What has happened, and how much of it is kept.
    pub log: Tally,
}

/// A page of buckets.
#[derive(Debug)]
pub struct ListPage {
    /// The buckets, in the order of their names.
    pub buckets: Vec<Description>,
    /// The name to go on after; `None` at the end.
    pub next_after: Option<Arc<str>>,
    /// The registry's revision at this page.
    pub revision: Revision,
}

/// A bucket that somebody asks for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its name.
    pub name: BucketName<'a>,
    /// Its id, if that very one is meant.
    pub id: Option<u64>,
}

impl Registry {
    /// Starts an empty registry, with an `id` that no other one has: revisions compare only within it.
    #[must_use]
    pub fn start(limits: Limits, clock: Arc<dyn Clock>, id: String) -> Self {
        // Revisions and ids begin at the clock, so that a restart never reuses one (below 2^53 until the year 2255).
        let first = Revision::new(u64::try_from(clock.wall().as_micros()).unwrap_or_default());
        let shared = Arc::new(Shared {
            id,
            first,
            index: Index::default(),
            log: Log::new(first, &limits),
            delivery: Delivery::new(first),
            reaper: Reaper::default(),
            gave_up: AtomicBool::new(false),
            gave_up_waker: AtomicWaker::new(),
            draining: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            env: Arc::new(Env {
                budget: Budget::new(limits.memory_bytes_max).beside(Resident::new(
                    limits.resident_bytes_max,
                    memory::resident,
                    memory::give_back,
                )),
                entries: AtomicUsize::new(0),
                timeline: Timeline::new(Arc::clone(&clock)),
                alarms: Alarms::default(),
                ring: Ring::new(limits.ring_bytes_max),
                limits,
            }),
            clock: Arc::clone(&clock),
        });
        let budget = RestartBudget { restarts_max: RESTARTS_MAX, window: RESTART_WINDOW };
        let (survivor, witness) = (Arc::clone(&shared), Arc::clone(&shared));
        let give_up = move || {
            tracing::error!("the registry crashed {RESTARTS_MAX} times in {RESTART_WINDOW:?}, and once more");
            witness.gave_up.store(true, Ordering::Release);
            witness.gave_up_waker.wake();
        };
        let registrar = Supervised::start(budget, clock, move || Registrar::start(&survivor), give_up);
        Self { shared, registrar }
    }

    /// Which registry this is.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// The bounds that it keeps.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.env.limits
    }

    /// The last lifecycle event's revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.shared.log.revision()
    }

    /// Bytes that all buckets are charged for.
    #[must_use]
    pub fn charged_bytes(&self) -> usize {
        self.shared.env.budget.used()
    }

    /// What those who watch entries are told from.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.shared.env.ring
    }

    /// How many monitors wait for a death.
    #[must_use]
    pub fn monitors(&self) -> usize {
        self.shared.delivery.monitors()
    }

    /// All watches, in no order.
    #[must_use]
    pub fn watchers(&self) -> Vec<Watcher> {
        self.shared.delivery.watchers(self.revision())
    }

    /// How much there is of everything.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let Env { budget, entries, ring, .. } = &*self.shared.env;
        let watchers = self.watchers();
        Figures {
            buckets: self.shared.index.len(),
            entries: entries.load(Ordering::Relaxed),
            charged_bytes: budget.used(),
            watchers: watchers.len(),
            lag: watchers.iter().map(|watcher| watcher.lag).max().unwrap_or_default(),
            monitors: self.monitors(),
            ring_bytes: ring.bytes(),
            log: self.shared.log.tally(),
        }
    }

    /// A due time on the wall clock, since 1970; `None` for never.
    #[must_use]
    pub fn wall(&self, due: Due) -> Option<Duration> {
        self.shared.env.timeline.wall(due)
    }

    /// The time, for those who need the registry's.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    /// Creates a bucket, with these times to live; or returns the one that lives under this name as it is, and false. When
    /// this returns, everyone finds it.
    ///
    /// # Errors
    /// [`Error::TooManyBuckets`], or [`Error::Bucket`] where there is no memory for it.
    pub fn create(&self, name: BucketName<'_>, life: Begin) -> Result<(Description, bool), Error> {
        self.create_for(None, name, life)
    }

    /// The same, for somebody, whose quota it is charged to for as long as it lives.
    ///
    /// # Errors
    /// Those, and [`Error::OverQuota`] or [`bucket::Error::OverQuota`].
    pub fn create_for(
        &self,
        owner: Option<&Arc<Owner>>,
        name: BucketName<'_>,
        life: Begin,
    ) -> Result<(Description, bool), Error> {
        match self.lookup(name) {
            Ok(living) => Ok((living, strikes(Bug::DoubleCreate))),
            Err(_) => self.registrar(Create { name, life, owner })?,
        }
    }

    /// Describes a living bucket.
    ///
    /// # Errors
    /// [`Error::BucketNotFound`].
    pub fn lookup(&self, name: BucketName<'_>) -> Result<Description, Error> {
        let bucket = self.find(Target { name, id: None })?;
        describe(&bucket, Describe).ok_or(Error::BucketNotFound)
    }

    /// Describes the living buckets whose names begin with `prefix` and come after `after`; at most `items_max`.
    ///
    /// # Errors
    /// None of a caller's making.
    pub fn list(&self, prefix: &str, after: Option<&str>, items_max: usize) -> Result<ListPage, Error> {
        self.list_among(&[prefix], after, items_max)
    }

    /// The same, of names that begin with one of these, which are in order, and none of which begins with another.
    ///
    /// # Errors
    /// None of a caller's making.
    pub fn list_among(
        &self,
        prefixes: &[impl AsRef<str>],
        after: Option<&str>,
        items_max: usize,
    ) -> Result<ListPage, Error> {
        let mut prefixes = prefixes.iter().map(AsRef::as_ref);
        let of = |prefix, items_max| self.registrar(PageOfNames { prefix, after, items_max });
        let mut page = of(prefixes.next().unwrap_or_default(), items_max)?;
        for prefix in prefixes {
            if page.more {
                break;
            }
            let next = of(prefix, items_max - page.buckets.len())?;
            page.buckets.extend(next.buckets);
            page.more = next.more;
        }
        // Described outside the registrar, which has more to do; who dies in between is left out, as it might have been.
        let next_after = page.more.then(|| page.buckets.last().map(|last| Arc::clone(&last.identity().name))).flatten();
        Ok(ListPage {
            buckets: page.buckets.iter().filter_map(|bucket| describe(bucket, Peek)).collect(),
            next_after,
            revision: page.revision,
        })
    }

    /// Ends a bucket; with an id in `target`, only that very one. When this returns the name is free.
    ///
    /// # Errors
    /// [`Error::BucketNotFound`].
    pub fn stop(&self, target: Target<'_>, exit: &Exit) -> Result<(BucketId, Revision), Error> {
        self.registrar(Stop { name: target.name.as_str(), id: target.id, exit })?
    }

    /// Finds a bucket, or creates it with these times to live, and has `tie` tie it to somebody in the same step: nobody sees
    /// it created and not tied. `tie` answers false where the bucket is dead.
    ///
    /// # Errors
    /// [`Error::BucketNotFound`], [`Error::BucketExists`], and those of [`create`](Self::create).
    pub(crate) fn tie(
        &self,
        target: Target<'_>,
        mode: Mode,
        (life, owner): (Begin, Option<&Arc<Owner>>),
        tie: &dyn Fn(&Process<Bucket>) -> bool,
    ) -> Result<Process<Bucket>, Error> {
        self.registrar(Tie { target, mode, life, owner, tie })?
    }

    /// Asks a living bucket; with an id in `target`, only that very one. And which bucket it was.
    ///
    /// # Errors
    /// [`Error::BucketNotFound`], [`Error::BucketCrashed`], and what the bucket itself refuses.
    pub fn ask<M, R, E>(&self, target: Target<'_>, message: M) -> Result<(BucketId, R), Error>
    where
        Bucket: Call<M, Reply = Result<R, E>>,
        E: Into<Error>,
    {
        let bucket = self.find(target)?;
        let id = bucket.identity().id;
        match bucket.call(message) {
            Ok(Ok(reply)) => Ok((id, reply)),
            Ok(Err(error)) => Err(error.into()),
            Err(CallError::NoProc) => Err(Error::BucketNotFound),
            Err(CallError::Crashed(exit)) => Err(Error::BucketCrashed { id, exit }),
        }
    }

    /// Ends what is past its time, for ever: buckets, and entries of buckets. Somebody must run this on a thread of its own,
    /// or nothing expires but what is asked for. Returns once [`close`](Self::close) was called.
    pub fn run_timer(&self) {
        let Env { alarms, timeline, .. } = &*self.shared.env;
        while alarms.wait(timeline) {
            self.expire();
        }
    }

    /// Ends what is past its time now.
    pub fn expire(&self) {
        let Env { alarms, timeline, .. } = &*self.shared.env;
        loop {
            let due = alarms.take(timeline.now(), ALARM_BATCH);
            if due.is_empty() {
                return;
            }
            self.shared.delivery.at_the_end_of(|| {
                for bucket in due.iter().filter_map(WeakProcess::upgrade) {
                    // One that died meanwhile needs nothing more.
                    drop(bucket.call(Tick));
                }
            });
        }
    }

    /// Ends [`run_timer`](Self::run_timer).
    pub fn close(&self) {
        self.shared.env.alarms.close();
    }

    /// Moves what the registrar has handed over to those who watch, for ever. Somebody must run this, or they hear nothing.
    pub async fn run(&self) {
        poll_fn(|cx| {
            self.shared.env.ring.poll_announce(cx);
            self.shared.delivery.poll_deliver(cx);
            Poll::<()>::Pending
        })
        .await;
    }

    /// Moves what there is now, once: what [`run`](Self::run) does whenever there is something.
    pub fn deliver(&self) {
        self.shared.env.ring.announce();
        self.shared.delivery.deliver();
    }

    /// Returns once the registrar has crashed too often to be started again. For one caller.
    pub async fn gave_up(&self) {
        poll_fn(|cx| {
            self.shared.gave_up_waker.register(cx.waker());
            if self.shared.gave_up.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Tells those who work for as long as a client likes that it is time to end. To be called before
    /// [`shut_down`](Self::shut_down), so that they are not at work on buckets that go.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.delivery.wake(Interest::Drain);
    }

    /// Whether [`drain`](Self::drain) was called.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Ends buckets with [`Reason::Shutdown`], until there is none or `enough` says so; how many are left.
    ///
    /// # Errors
    /// [`Error::GaveUp`] where the registrar is gone for good.
    pub fn shut_down(&self, mut enough: impl FnMut() -> bool) -> Result<usize, Error> {
        let exit = Exit::from(Reason::Shutdown);
        while !enough() {
            let page = self.registrar(PageOfNames { prefix: "", after: None, items_max: STOP_BATCH })?;
            if page.buckets.is_empty() {
                return Ok(0);
            }
            for bucket in &page.buckets {
                // Asked each time: a bucket may take its time to go.
                if enough() {
                    return Ok(self.shared.index.len());
                }
                let identity = bucket.identity();
                // One that died meanwhile needs no stop.
                drop(self.registrar(Stop { name: &identity.name, id: Some(identity.id.get()), exit: &exit })?);
            }
        }
        Ok(self.shared.index.len())
    }

    /// Subscribes to what changes in buckets of these names, in those that live and those that come; and the revision up to
    /// which buckets may have changed before.
    pub(crate) fn subscribe(&self, scope: Scope) -> Result<(Subscription, Revision), Error> {
        let subscription = self.shared.env.ring.subscribe(scope);
        // Asked of the registrar, which is not in the middle of a creation then: a bucket with a greater id is not in the
        // index yet, so nobody has changed it.
        let page = self.registrar(PageOfNames { prefix: "", after: None, items_max: 0 })?;
        Ok((subscription, page.revision))
    }

    /// Tells everyone who watches that nothing more will come.
    pub fn end(&self) {
        self.deliver();
        let delivery = &self.shared.delivery;
        self.shared.ended.store(true, Ordering::Release);
        delivery.wake(Interest::Monitors);
        delivery.wake(Interest::Log);
    }

    /// Whether nothing more will come than what is in the log and the inboxes.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Whether more than one watcher hears of events: what is made for one of them may serve the next.
    pub(crate) fn has_many_listeners(&self) -> bool {
        self.shared.delivery.has_many_listeners()
    }

    /// Notes a watcher, to be woken for what it is interested in until it is forgotten.
    pub(crate) fn enroll(&self, inbox: &Arc<Inbox>, interest: Interest) {
        self.shared.delivery.enroll(inbox, interest);
    }

    /// Takes a watcher out, with its monitors of these buckets.
    pub(crate) fn forget(&self, inbox: &Arc<Inbox>, buckets: impl Iterator<Item = BucketId>) {
        self.shared.delivery.forget(inbox, buckets);
    }

    /// Sets monitors, whose DOWNs go to `inbox`, which was [enrolled](Self::enroll) or may have to wait for them: for each target its ref, and the bucket if it lives. And the revision as of
    /// which they are set.
    pub(crate) fn monitor(&self, targets: &[Target<'_>], inbox: &Arc<Inbox>) -> Result<(MonitorsSet, Revision), Error> {
        self.registrar(Monitor { targets, inbox })
    }

    /// The living buckets whose names begin with `prefix` and come after `after`, and the revision that this is true of.
    pub(crate) fn snapshot(&self, prefix: &str, after: Option<&str>, items_max: usize) -> Result<Snapshot, Error> {
        self.registrar(PageOfNames { prefix, after, items_max })
    }

    /// The living bucket of each of these names, and the revision that this is true of.
    pub(crate) fn living(&self, names: &[Arc<str>]) -> Result<(LivingBuckets, Revision), Error> {
        self.registrar(Living { names })
    }

    /// The id of the living bucket of this name.
    pub(crate) fn id_of(&self, name: BucketName<'_>) -> Option<BucketId> {
        self.find(Target { name, id: None }).ok().map(|bucket| bucket.identity().id)
    }

    /// The bucket of this name and id, if it lives.
    pub(crate) fn bucket(&self, name: &str, id: BucketId) -> Option<Process<Bucket>> {
        self.shared.index.get(name).filter(|bucket| bucket.is_alive() && bucket.identity().id == id)
    }

    /// The revision that the registry began with, before its first event.
    pub(crate) fn first_revision(&self) -> Revision {
        self.shared.first
    }

    /// Reads the log.
    pub(crate) fn events(&self, after: Revision, events_max: usize) -> Result<Vec<Arc<Event>>, Compacted> {
        self.shared.log.read(after, events_max)
    }

    /// Up to this revision, what was monitored is in the inboxes.
    pub(crate) fn delivered(&self) -> Revision {
        self.shared.delivery.delivered()
    }

    /// The living bucket of this name, and of this id if one is given.
    fn find(&self, Target { name, id }: Target<'_>) -> Result<Process<Bucket>, Error> {
        let found = self.shared.index.get(name.as_str()).filter(Process::is_alive);
        found.filter(|bucket| id.is_none_or(|id| id == bucket.identity().id.get())).ok_or(Error::BucketNotFound)
    }

    fn registrar<M: Clone>(&self, message: M) -> Result<<Registrar as Call<M>>::Reply, Error>
    where
        Registrar: Call<M>,
    {
        self.registrar.call(message).map_err(|error| match error {
            CallError::NoProc => Error::GaveUp,
            CallError::Crashed(exit) => Error::RegistryCrashed(exit),
        })
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({}, {:?})", self.shared.id, self.revision())
    }
}

/// Asks for the summary, by [`Describe`] or [`Peek`]; `None` where the bucket is dead, maybe because of it.
fn describe<M>(bucket: &Process<Bucket>, message: M) -> Option<Description>
where
    Bucket: Call<M, Reply = Result<Summary, bucket::Error>>,
{
    let summary = bucket.call(message).ok()?.ok()?;
    Some(description(bucket, summary))
}

fn description(bucket: &Process<Bucket>, summary: Summary) -> Description {
    let identity = bucket.identity();
    Description {
        name: Arc::clone(&identity.name),
        id: identity.id,
        created_at: identity.created_at.into(),
        link_count: bucket.link_count(),
        summary,
    }
}
