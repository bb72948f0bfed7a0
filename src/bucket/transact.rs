//! Transact: checks, then several operations, all or nothing. Nobody sees the middle, because it is one call.

use super::{
    Bucket, Entry, Error, crash_if_asked,
    state::{ENTRY_ENCODED_BYTES, Slot},
};
use crate::{
    name::{Key, Version},
    process::{Call, Context},
    time_to_live::Ttl,
    value::Value,
};

/// A condition on one entry.
#[derive(Clone, Debug)]
pub struct Check<'a> {
    /// The key.
    pub key: Key<'a>,
    /// What must hold.
    pub condition: Condition,
}

/// What must hold of an entry.
#[derive(Clone, Debug)]
pub enum Condition {
    /// It has this version; 0: it is absent.
    Version(Version),
    /// It is this value, in kind and in bits.
    Value(Value),
    /// It is there, or it is absent.
    Present(bool),
}

/// One operation.
#[derive(Clone, Debug)]
pub enum Op<'a> {
    /// Sets an entry.
    Put(Key<'a>, Value, Option<Ttl>),
    /// Removes an entry, if it is there.
    Delete(Key<'a>),
    /// Adds to an integer entry.
    Add(Key<'a>, i64, Option<Ttl>),
    /// Reads an entry, if it is there.
    Get(Key<'a>),
}

impl<'a> Op<'a> {
    fn key(&self) -> Key<'a> {
        match self {
            Self::Put(key, ..) | Self::Delete(key) | Self::Add(key, ..) | Self::Get(key) => *key,
        }
    }
}

/// Checks, then does `success` where all checks hold, else `failure`. No checks: they hold.
#[derive(Clone, Debug)]
pub struct Transact<'a> {
    /// What must hold.
    pub checks: Vec<Check<'a>>,
    /// What is done if it does.
    pub success: Vec<Op<'a>>,
    /// What is done if it does not.
    pub failure: Vec<Op<'a>>,
    /// How many bytes the results may have, about as they are encoded.
    pub results_bytes_max: usize,
}

/// What became of a [`Transact`].
#[derive(Debug)]
pub struct Transacted {
    /// Whether the checks held.
    pub succeeded: bool,
    /// For each operation that ran, the entry that it found, removed or left.
    pub results: Vec<Option<Entry>>,
    /// The bucket's version now.
    pub version: Version,
}

/// Why a [`Transact`] failed; nothing was changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TransactError {
    /// The call as a whole.
    #[error(transparent)]
    Bucket(#[from] Error),
    /// One operation.
    #[error("operation {} of {}: {error}", place.index, if place.success { "success" } else { "failure" })]
    Op {
        /// Which one.
        place: Place,
        /// Why.
        error: Error,
    },
    /// The results are larger than a message may be.
    #[error("the results would have more than {limit} bytes")]
    ResultsTooLarge {
        /// What is allowed.
        limit: usize,
    },
}

/// An operation's place in its request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// In the list `success`, rather than in `failure`.
    pub success: bool,
    /// Its index there.
    pub index: usize,
}

impl Call<Transact<'_>> for Bucket {
    type Reply = Result<Transacted, TransactError>;

    fn handle_call(&mut self, transact: Transact<'_>, me: &mut Context<'_, Self>) -> Self::Reply {
        let mut outcome = None;
        self.change(me, |bucket| {
            outcome = Some(bucket.transact(transact));
            Ok(())
        })?;
        outcome.unwrap_or(Err(TransactError::Bucket(Error::Expired)))
    }
}

/// What was under a key before an operation changed it.
type Undo<'a> = (Key<'a>, Option<Slot>);

impl Bucket {
    fn transact(&mut self, transact: Transact<'_>) -> Result<Transacted, TransactError> {
        let succeeded = transact.checks.iter().all(|check| self.holds(check));
        let ops = if succeeded { transact.success } else { transact.failure };
        let before = self.summary().version;
        let mut undo = Vec::new();
        let results = self.run(ops, succeeded, transact.results_bytes_max, &mut undo);
        if results.is_err() {
            self.undo(undo, before);
        }
        Ok(Transacted { succeeded, results: results?, version: self.summary().version })
    }

    fn run<'a>(
        &mut self,
        ops: Vec<Op<'a>>,
        success: bool,
        results_bytes_max: usize,
        undo: &mut Vec<Undo<'a>>,
    ) -> Result<Vec<Option<Entry>>, TransactError> {
        let mut results = Vec::with_capacity(ops.len());
        let mut bytes = 0;
        for (index, op) in ops.into_iter().enumerate() {
            crash_if_asked(op.key());
            let place = Place { success, index };
            let entry = self.step(op, undo).map_err(|error| TransactError::Op { place, error })?;
            bytes += entry.as_ref().map_or(ENTRY_ENCODED_BYTES, Entry::encoded_bytes);
            if bytes > results_bytes_max {
                return Err(TransactError::ResultsTooLarge { limit: results_bytes_max });
            }
            results.push(entry);
        }
        Ok(results)
    }

    fn step<'a>(&mut self, op: Op<'a>, undo: &mut Vec<Undo<'a>>) -> Result<Option<Entry>, Error> {
        let key = op.key();
        if let Op::Get(key) = op {
            return Ok(self.entry(key));
        }
        let old = self.get(key);
        let left = match op {
            Op::Put(_, value, ttl) => {
                self.put(key, value, self.due(ttl))?;
                self.entry(key)
            }
            Op::Add(_, delta, ttl) => {
                self.add(key, delta, ttl)?;
                self.entry(key)
            }
            Op::Delete(_) | Op::Get(_) => self.delete(key)?,
        };
        undo.push((key, old));
        Ok(left)
    }

    fn entry(&self, key: Key<'_>) -> Option<Entry> {
        self.get(key).map(|slot| Entry::new(key, slot))
    }

    /// Puts everything back, the last change first.
    fn undo(&mut self, undo: Vec<Undo<'_>>, version: Version) {
        for (key, old) in undo.into_iter().rev() {
            // What was there has its room: nothing that a call frees is given back before its end.
            let restored = self.exchange(key.as_str(), old);
            debug_assert!(restored.is_ok(), "{restored:?}");
        }
        self.rewind(version);
    }

    fn holds(&self, check: &Check<'_>) -> bool {
        match &check.condition {
            Condition::Version(version) => self.version_of(check.key) == *version,
            Condition::Present(present) => self.value_of(check.key).is_some() == *present,
            Condition::Value(value) => self.value_of(check.key).is_some_and(|there| there.is(value)),
        }
    }
}
