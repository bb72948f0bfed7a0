//! A bucket: a process that holds entries. Elixir's Agent, with versions and times to live.
//!
//! Every change takes the bucket's next version, which becomes the entry's. What a bucket holds is charged to the budget of
//! all buckets before it is allocated, and the charge goes with the bucket. What is past its time is gone before anything
//! else is done, so nobody reads it. A bucket does not know the registry.

pub mod cost;
pub mod ring;
mod state;
#[cfg(test)]
mod tests;
mod times;
mod transact;

use std::{convert::Infallible, fmt, sync::Arc};

use self::{
    ring::{Change, ChangeKind, Position, Ring},
    state::ENTRY_ENCODED_BYTES,
};
pub use self::{
    state::{Bucket, Slot},
    transact::{Check, Condition, Op, Place, Transact, TransactError, Transacted},
};
use crate::{
    budget::{Budget, OverBudget, OverQuota},
    clock::Stamp,
    limits::Limits,
    name::{BucketId, Key, Version},
    process::{Call, Context, Exit, GenServer, WeakProcess},
    sync::AtomicUsize,
    time_to_live::{Alarms, Due, Timeline, Ttl},
    value::Value,
};

/// What all buckets share.
#[derive(Debug)]
pub struct Env {
    /// The bounds to keep.
    pub limits: Limits,
    /// The account that is charged.
    pub budget: Budget,
    /// How many entries all buckets have.
    pub entries: AtomicUsize,
    /// The time.
    pub timeline: Timeline,
    /// Who is to be woken when; with [`Tick`].
    pub alarms: Alarms<WeakProcess<Bucket>>,
    /// What those who watch are told from.
    pub ring: Arc<Ring>,
}

/// What never changes about a bucket.
#[derive(Debug)]
pub struct Identity {
    /// Its name.
    pub name: Arc<str>,
    /// Its id.
    pub id: BucketId,
    /// When it was created.
    pub created_at: Stamp,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket {:?} ({})", self.name, self.id)
    }
}

/// An entry, as it leaves its bucket.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its key.
    pub key: Box<str>,
    /// Its value; `None` where only keys were asked for.
    pub value: Option<Value>,
    /// The version of its last change.
    pub version: Version,
    /// When it falls due.
    pub due: Due,
}

impl Entry {
    fn new(key: Key<'_>, slot: Slot) -> Self {
        Self { key: key.as_str().into(), value: Some(slot.value), version: slot.version, due: slot.due }
    }

    /// More than it has encoded.
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Value::heap_bytes) + ENTRY_ENCODED_BYTES
    }
}

/// Why a bucket refused; it is as it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// It was past its time, and is down.
    #[error("the bucket has expired")]
    Expired,
    /// There is no such entry.
    #[error("no such key")]
    KeyNotFound,
    /// The entry is not at the expected version.
    #[error("the entry is at version {actual}")]
    VersionMismatch {
        /// Where it is; 0 for absent.
        actual: Version,
    },
    /// The entry is no integer, so nothing can be added to it.
    #[error("the entry is no integer")]
    WrongType,
    /// The sum is no integer of 64 bits.
    #[error("the sum does not fit 64 bits")]
    IntegerOverflow,
    /// It holds as many entries as it may.
    #[error("a bucket may hold {limit} entries")]
    TooManyEntries {
        /// How many that is.
        limit: usize,
    },
    /// It takes as many bytes as it may.
    #[error("a bucket may take {limit} bytes")]
    BucketFull {
        /// How many that is.
        limit: usize,
    },
    /// All buckets together take as many bytes as they may.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// All buckets of the identity that has created it take as many bytes as they may.
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
}

/// What there is to say of a bucket besides its identity.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Summary {
    /// Its version.
    pub version: Version,
    /// How many entries it holds.
    pub entry_count: usize,
    /// How many bytes it is charged for.
    pub byte_size: usize,
    /// When it falls due, unless it is used before.
    pub due: Due,
}

impl GenServer for Bucket {
    type Identity = Identity;
    type Cast = Infallible;

    fn handle_cast(&mut self, cast: Infallible, _: &mut Context<'_, Self>) {
        match cast {}
    }

    fn terminate(&mut self, _: &Exit) {
        self.cancel_alarm();
    }
}

/// Begins the times to live of a bucket that was just started.
#[derive(Clone, Copy, Debug)]
pub struct Begin {
    /// How long it lives.
    pub ttl: Option<Ttl>,
    /// How long it lives unused.
    pub idle_ttl: Option<Ttl>,
}

impl Call<Begin> for Bucket {
    type Reply = Summary;

    fn handle_call(&mut self, Begin { ttl, idle_ttl }: Begin, me: &mut Context<'_, Self>) -> Summary {
        if ttl.is_some() || idle_ttl.is_some() {
            self.live(me, ttl, idle_ttl);
        }
        self.summary()
    }
}

/// Its alarm has gone off: sees to what is due.
#[derive(Clone, Copy, Debug)]
pub struct Tick;

impl Call<Tick> for Bucket {
    type Reply = ();

    fn handle_call(&mut self, _: Tick, me: &mut Context<'_, Self>) {
        self.alarm_went_off();
        // Where it is past its own time it ends, and there is nothing more to see to.
        self.look(me, |_| ()).unwrap_or_default();
    }
}

/// Asks for the [`Summary`], which uses the bucket.
#[derive(Clone, Copy, Debug)]
pub struct Describe;

impl Call<Describe> for Bucket {
    type Reply = Result<Summary, Error>;

    fn handle_call(&mut self, _: Describe, me: &mut Context<'_, Self>) -> Self::Reply {
        self.used(me, |bucket| Ok(bucket.summary()))
    }
}

/// Asks for the [`Summary`] without using the bucket.
#[derive(Clone, Copy, Debug)]
pub struct Peek;

impl Call<Peek> for Bucket {
    type Reply = Result<Summary, Error>;

    fn handle_call(&mut self, _: Peek, me: &mut Context<'_, Self>) -> Self::Reply {
        self.look(me, Self::summary)
    }
}

/// Holds the bucket, by a link: its idle time stands still until as many have released it as hold it.
#[derive(Clone, Copy, Debug)]
pub struct Hold;

impl Call<Hold> for Bucket {
    type Reply = Result<(), Error>;

    fn handle_call(&mut self, _: Hold, me: &mut Context<'_, Self>) -> Self::Reply {
        self.used(me, |bucket| {
            bucket.hold();
            Ok(())
        })
    }
}

/// Takes one [`Hold`] back. With the last one the idle time begins anew.
#[derive(Clone, Copy, Debug)]
pub struct Release;

impl Call<Release> for Bucket {
    type Reply = Result<(), Error>;

    fn handle_call(&mut self, _: Release, me: &mut Context<'_, Self>) -> Self::Reply {
        self.used(me, |bucket| {
            bucket.unhold();
            Ok(())
        })
    }
}

/// Sets an entry.
#[derive(Debug)]
pub struct Put<'a> {
    /// The key.
    pub key: Key<'a>,
    /// The value.
    pub value: Value,
    /// How long it lives; `None` for ever.
    pub ttl: Option<Ttl>,
    /// The version that the entry must have; 0 for absent, `None` for any.
    pub expected: Option<Version>,
}

impl Call<Put<'_>> for Bucket {
    type Reply = Result<Version, Error>;

    fn handle_call(&mut self, put: Put<'_>, me: &mut Context<'_, Self>) -> Self::Reply {
        crash_if_asked(put.key);
        self.change(me, |bucket| {
            bucket.expect(put.key, put.expected)?;
            bucket.put(put.key, put.value, bucket.due(put.ttl))
        })
    }
}

/// Reads an entry.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    /// The key.
    pub key: Key<'a>,
}

impl Call<Get<'_>> for Bucket {
    type Reply = Result<Slot, Error>;

    fn handle_call(&mut self, get: Get<'_>, me: &mut Context<'_, Self>) -> Self::Reply {
        crash_if_asked(get.key);
        self.used(me, |bucket| bucket.get(get.key).ok_or(Error::KeyNotFound))
    }
}

/// Removes an entry, if it is there.
#[derive(Clone, Copy, Debug)]
pub struct Delete<'a> {
    /// The key.
    pub key: Key<'a>,
    /// The version that the entry must have; 0 for absent, `None` for any.
    pub expected: Option<Version>,
}

/// What a [`Delete`] did.
#[derive(Debug)]
pub struct Deleted {
    /// The entry that was removed.
    pub entry: Option<Entry>,
    /// The bucket's version now.
    pub version: Version,
}

impl Call<Delete<'_>> for Bucket {
    type Reply = Result<Deleted, Error>;

    fn handle_call(&mut self, delete: Delete<'_>, me: &mut Context<'_, Self>) -> Self::Reply {
        crash_if_asked(delete.key);
        self.change(me, |bucket| {
            bucket.expect(delete.key, delete.expected)?;
            let entry = bucket.delete(delete.key)?;
            Ok(Deleted { entry, version: bucket.summary().version })
        })
    }
}

/// Adds to an integer entry; an absent one counts as 0.
#[derive(Clone, Copy, Debug)]
pub struct Add<'a> {
    /// The key.
    pub key: Key<'a>,
    /// What to add.
    pub delta: i64,
    /// How long the entry lives from now; `None`: as long as it would have.
    pub ttl: Option<Ttl>,
}

impl Call<Add<'_>> for Bucket {
    type Reply = Result<(i64, Version), Error>;

    fn handle_call(&mut self, add: Add<'_>, me: &mut Context<'_, Self>) -> Self::Reply {
        crash_if_asked(add.key);
        self.change(me, |bucket| bucket.add(add.key, add.delta, add.ttl))
    }
}

/// Sets the time to live of an entry, or of the bucket itself, without rewriting it.
#[derive(Clone, Copy, Debug)]
pub struct Touch<'a> {
    /// The key; `None` for the bucket.
    pub key: Option<Key<'a>>,
    /// How long it lives from now; `None` for ever.
    pub ttl: Option<Ttl>,
}

impl Call<Touch<'_>> for Bucket {
    type Reply = Result<Due, Error>;

    fn handle_call(&mut self, Touch { key, ttl }: Touch<'_>, me: &mut Context<'_, Self>) -> Self::Reply {
        let Some(key) = key else {
            return self.used(me, |bucket| Ok(bucket.touch_self(ttl)));
        };
        crash_if_asked(key);
        self.used(me, |bucket| bucket.touch(key, ttl))
    }
}

/// Whether a [`Scan`] returns values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Values {
    /// It does.
    Included,
    /// Keys and versions only.
    LeftOut,
}

/// Reads entries in the order of their keys.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// Only keys that begin with this.
    pub prefix: &'a str,
    /// Only keys after this one.
    pub after: Option<&'a str>,
    /// How many at most; at least 1.
    pub items_max: usize,
    /// Stop before keys and values exceed this, in bytes; one entry is always returned.
    pub bytes_max: usize,
    /// Whether values are returned.
    pub values: Values,
}

/// A page of entries.
#[derive(Debug)]
pub struct ScanPage {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Whether there are more.
    pub more: bool,
    /// The bucket's version at this page.
    pub version: Version,
}

impl Call<Scan<'_>> for Bucket {
    type Reply = Result<ScanPage, Error>;

    fn handle_call(&mut self, scan: Scan<'_>, me: &mut Context<'_, Self>) -> Self::Reply {
        self.used(me, |bucket| Ok(bucket.scan(scan)))
    }
}

/// A [`Scan`] that does not use the bucket, for those who watch.
#[derive(Clone, Copy, Debug)]
pub struct Observe<'a>(pub Scan<'a>);

/// What an [`Observe`] sees.
#[derive(Debug)]
pub struct Observed {
    /// The entries.
    pub page: ScanPage,
    /// In the ring, the bucket's changes before this are in the page, and those from here on are not.
    pub position: Position,
}

impl Call<Observe<'_>> for Bucket {
    type Reply = Result<Observed, Error>;

    fn handle_call(&mut self, Observe(scan): Observe<'_>, me: &mut Context<'_, Self>) -> Self::Reply {
        let page = self.look(me, |bucket| bucket.scan(scan))?;
        // Looked at before anyone else can change the bucket.
        Ok(Observed { page, position: self.position() })
    }
}

/// The tests of what a crash does need one that is real.
fn crash_if_asked(key: Key<'_>) {
    #[cfg(any(test, feature = "test-hooks"))]
    crate::hooks::trip(key.as_str());
    let _ = key;
}
