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
mod tests;

use std::{
    fmt,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_util::task::AtomicWaker;

use self::{
    delivery::Delivery,
    index::Index,
    log::Log,
    reaper::Reaper,
    registrar::{Create, Monitor, MonitorsSet, PageOfNames, Registrar, Stop},
};
pub(crate) use self::{
    delivery::{Inbox, Interest},
    registrar::Page as Snapshot,
};
pub use self::{
    error::Error,
    log::{Compacted, Event, EventKind},
};
use crate::{
    bucket::{Bucket, Delete, Deleted, Describe, Get, Put, Scan, ScanPage, Summary},
    budget::Budget,
    clock::Clock,
    limits::{Limits, RESTART_WINDOW, RESTARTS_MAX, STOP_BATCH},
    name::{BucketId, BucketName, Key, Revision, Version},
    process::{Call, CallError, Exit, Process, Reason, RestartBudget, Supervised},
    value::Value,
};

/// A handle to the registry; cheap to clone.
///
/// # Cancel safety
/// Nothing here waits, but for [`run`](Self::run) and [`gave_up`](Self::gave_up), which may be dropped and called again.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    registrar: Supervised<Registrar>,
}

/// What outlives the registrar.
struct Shared {
    id: String,
    limits: Limits,
    clock: Arc<dyn Clock>,
    budget: Arc<Budget>,
    index: Index,
    log: Log,
    delivery: Delivery,
    reaper: Reaper,
    /// The registrar crashed too often.
    gave_up: AtomicBool,
    gave_up_waker: AtomicWaker,
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
    /// The rest.
    pub summary: Summary,
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

/// A bucket that a watcher asks for.
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
            budget: Budget::new(limits.memory_bytes_max),
            index: Index::default(),
            log: Log::new(first, &limits),
            delivery: Delivery::new(first),
            reaper: Reaper::default(),
            gave_up: AtomicBool::new(false),
            gave_up_waker: AtomicWaker::new(),
            ended: AtomicBool::new(false),
            limits,
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
        &self.shared.limits
    }

    /// The last lifecycle event's revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.shared.log.revision()
    }

    /// Bytes that all buckets are charged for.
    #[must_use]
    pub fn charged_bytes(&self) -> usize {
        self.shared.budget.used()
    }

    /// How many monitors wait for a death.
    #[must_use]
    pub fn monitors(&self) -> usize {
        self.shared.delivery.monitors()
    }

    /// The time, for those who need the registry's.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    /// Creates a bucket; or returns the one that lives under this name, and false. When this returns, everyone finds it.
    ///
    /// # Errors
    /// [`Error::TooManyBuckets`], or [`Error::Bucket`] where there is no memory for it.
    pub fn create(&self, name: BucketName<'_>) -> Result<(Description, bool), Error> {
        match self.lookup(name) {
            Ok(living) => Ok((living, false)),
            Err(_) => self.registrar(Create { name })?,
        }
    }

    /// Describes a living bucket.
    ///
    /// # Errors
    /// [`Error::BucketNotFound`].
    pub fn lookup(&self, name: BucketName<'_>) -> Result<Description, Error> {
        let bucket = self.find(name, None)?;
        describe(&bucket).ok_or(Error::BucketNotFound)
    }

    /// Describes the living buckets whose names begin with `prefix` and come after `after`; at most `items_max`.
    ///
    /// # Errors
    /// None of a caller's making.
    pub fn list(&self, prefix: &str, after: Option<&str>, items_max: usize) -> Result<ListPage, Error> {
        let page = self.registrar(PageOfNames { prefix, after, items_max })?;
        // Described outside the registrar, which has more to do; who dies in between is left out, as it might have been.
        let next_after = page.more.then(|| page.buckets.last().map(|last| Arc::clone(&last.identity().name))).flatten();
        Ok(ListPage {
            buckets: page.buckets.iter().filter_map(describe).collect(),
            next_after,
            revision: page.revision,
        })
    }

    /// Ends a bucket; with `id`, only that very one. When this returns the name is free.
    ///
    /// # Errors
    /// [`Error::BucketNotFound`].
    pub fn stop(&self, name: BucketName<'_>, id: Option<u64>, exit: &Exit) -> Result<(BucketId, Revision), Error> {
        self.registrar(Stop { name: name.as_str(), id, exit })?
    }

    /// Sets an entry; where `expected` is given, only if it has that version, 0 for absent.
    ///
    /// # Errors
    /// [`Error::BucketNotFound`], [`Error::Bucket`], [`Error::BucketCrashed`].
    pub fn put(
        &self,
        name: BucketName<'_>,
        id: Option<u64>,
        key: Key<'_>,
        value: Value,
        expected: Option<Version>,
    ) -> Result<(BucketId, Version), Error> {
        let (id, version) = self.enter(name, id, Put { key, value, expected, limits: self.limits() })?;
        Ok((id, version?))
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn get(
        &self,
        name: BucketName<'_>,
        id: Option<u64>,
        key: Key<'_>,
    ) -> Result<(BucketId, (Value, Version)), Error> {
        let (id, entry) = self.enter(name, id, Get { key })?;
        Ok((id, entry?))
    }

    /// Removes an entry, if it is there; where `expected` is given, only if it has that version, 0 for absent.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete(
        &self,
        name: BucketName<'_>,
        id: Option<u64>,
        key: Key<'_>,
        expected: Option<Version>,
    ) -> Result<(BucketId, Deleted), Error> {
        let (id, deleted) = self.enter(name, id, Delete { key, expected })?;
        Ok((id, deleted?))
    }

    /// Reads a page of entries.
    ///
    /// # Errors
    /// [`Error::BucketNotFound`], [`Error::BucketCrashed`].
    pub fn scan(&self, name: BucketName<'_>, id: Option<u64>, scan: Scan<'_>) -> Result<(BucketId, ScanPage), Error> {
        self.enter(name, id, scan)
    }

    /// Moves what the registrar has handed over to those who watch, for ever. Somebody must run this, or they hear nothing.
    pub async fn run(&self) {
        self.shared.delivery.run().await;
    }

    /// Moves what there is now, once: what [`run`](Self::run) does whenever there is something.
    pub fn deliver(&self) {
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
                    return Ok(self.shared.index.all().len());
                }
                let identity = bucket.identity();
                // One that died meanwhile needs no stop.
                drop(self.registrar(Stop { name: &identity.name, id: Some(identity.id.get()), exit: &exit })?);
            }
        }
        Ok(self.shared.index.all().len())
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

    /// Notes a watcher, to be woken for what it is interested in until it is forgotten.
    pub(crate) fn enroll(&self, inbox: &Arc<Inbox>, interest: Interest) {
        self.shared.delivery.enroll(inbox, interest);
    }

    /// Takes a watcher out, with its monitors of these buckets.
    pub(crate) fn forget(&self, inbox: &Arc<Inbox>, buckets: impl Iterator<Item = BucketId>) {
        self.shared.delivery.forget(inbox, buckets);
    }

    /// Sets monitors, whose DOWNs go to `inbox`: for each target its ref, and the bucket if it lives. And the revision as of
    /// which they are set.
    pub(crate) fn monitor(&self, targets: &[Target<'_>], inbox: &Arc<Inbox>) -> Result<(MonitorsSet, Revision), Error> {
        self.registrar(Monitor { targets, inbox })
    }

    /// The living buckets whose names begin with `prefix` and come after `after`, and the revision that this is true of.
    pub(crate) fn snapshot(&self, prefix: &str, after: Option<&str>, items_max: usize) -> Result<Snapshot, Error> {
        self.registrar(PageOfNames { prefix, after, items_max })
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
    fn find(&self, name: BucketName<'_>, id: Option<u64>) -> Result<Process<Bucket>, Error> {
        let found = self.shared.index.get(name.as_str()).filter(Process::is_alive);
        found.filter(|bucket| id.is_none_or(|id| id == bucket.identity().id.get())).ok_or(Error::BucketNotFound)
    }

    fn enter<M>(
        &self,
        name: BucketName<'_>,
        id: Option<u64>,
        message: M,
    ) -> Result<(BucketId, <Bucket as Call<M>>::Reply), Error>
    where
        Bucket: Call<M>,
    {
        let bucket = self.find(name, id)?;
        let id = bucket.identity().id;
        match bucket.call(message) {
            Ok(reply) => Ok((id, reply)),
            Err(CallError::NoProc) => Err(Error::BucketNotFound),
            Err(CallError::Crashed(exit)) => {
                self.shared.delivery.announce();
                Err(Error::BucketCrashed { id, exit })
            }
        }
    }

    /// Asks the registrar, and then has those told whom the answer, or what it found in its mailbox, concerns.
    fn registrar<M: Clone>(&self, message: M) -> Result<<Registrar as Call<M>>::Reply, Error>
    where
        Registrar: Call<M>,
    {
        let reply = self.registrar.call(message);
        self.shared.delivery.announce();
        reply.map_err(|error| match error {
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

fn describe(bucket: &Process<Bucket>) -> Option<Description> {
    let summary = bucket.call(Describe).ok()?;
    Some(description(bucket, summary))
}

fn description(bucket: &Process<Bucket>, summary: Summary) -> Description {
    let identity = bucket.identity();
    Description { name: Arc::clone(&identity.name), id: identity.id, created_at: identity.created_at, summary }
}
