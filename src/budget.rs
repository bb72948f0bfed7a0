//! The memory account: what is allocated is reserved before, and given back exactly, once.
//!
//! What is counted is an estimate of what an allocation really costs; the constants were measured, and a test holds them to
//! 0.8 to 1.25 of the truth.

use crate::{
    planted::{Bug, strikes},
    sync::{AtomicUsize, Ordering},
};

/// The account of all buckets together.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

/// There is not enough left in the account.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("all buckets together may take {limit} bytes")]
pub struct OverBudget {
    /// What the account allows, in bytes.
    pub limit: usize,
}

impl Budget {
    /// An account of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    /// Bytes that are reserved now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Reserves `bytes` more, which whoever reserves them gives back.
    ///
    /// # Errors
    /// [`OverBudget`]; then nothing more is reserved.
    pub fn reserve(&self, bytes: usize) -> Result<(), OverBudget> {
        self.reserve_within(bytes, self.limit)
    }

    fn reserve_within(&self, bytes: usize, limit: usize) -> Result<(), OverBudget> {
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= limit);
        if strikes(Bug::Overdraft) && fits(self.used()).is_some() {
            self.used.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        }
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(_) => Err(OverBudget { limit }),
        }
    }

    /// Gives `bytes` back, which were reserved.
    pub fn give_back(&self, bytes: usize) {
        // Most calls free nothing, and the account is one for all cores.
        if bytes > 0 {
            let used = self.used.fetch_sub(bytes, Ordering::Relaxed);
            debug_assert!(bytes <= used, "more is given back than was reserved");
        }
    }
}

/// What one identity has of the server, within what all have together; and what it may have, which can change.
#[derive(Debug, Default)]
pub struct Owner {
    /// Living buckets that it has created.
    pub buckets: Quota,
    /// Bytes that those are charged for.
    pub bytes: Quota,
    /// Watch and Link streams that it has open.
    pub watches: Quota,
}

impl Owner {
    /// Allows so much from now on; `None` is without a bound. What it has more than that stays.
    pub fn allow(&self, buckets: Option<usize>, bytes: Option<usize>, watches: Option<usize>) {
        for (quota, limit) in [(&self.buckets, buckets), (&self.bytes, bytes), (&self.watches, watches)] {
            quota.limit.store(limit.unwrap_or(usize::MAX), Ordering::Relaxed);
        }
    }
}

/// A part of an identity's account.
#[derive(Debug)]
pub struct Quota {
    taken: Budget,
    limit: AtomicUsize,
}

impl Default for Quota {
    fn default() -> Self {
        Self { taken: Budget::new(usize::MAX), limit: AtomicUsize::new(usize::MAX) }
    }
}

/// An identity has as much as it may.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the quota of the identity is {limit}")]
pub struct OverQuota {
    /// How much that is.
    pub limit: usize,
}

impl Quota {
    /// Takes so much more, which whoever takes it gives back.
    ///
    /// # Errors
    /// [`OverQuota`]; then nothing more is taken.
    pub fn take(&self, count: usize) -> Result<(), OverQuota> {
        let taken = self.taken.reserve_within(count, self.limit.load(Ordering::Relaxed));
        taken.map_err(|OverBudget { limit }| OverQuota { limit })
    }

    /// Gives back what was taken.
    pub fn give_back(&self, count: usize) {
        self.taken.give_back(count);
    }

    /// How much is taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_past_the_limit_changes_nothing() {
        let budget = Budget::new(100);
        budget.reserve(60).unwrap();
        assert_eq!(budget.reserve(41), Err(OverBudget { limit: 100 }));
        assert_eq!(budget.reserve(usize::MAX), Err(OverBudget { limit: 100 }));
        assert_eq!(budget.used(), 60);
        budget.reserve(40).unwrap();
        budget.give_back(100);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_quota_may_change_and_what_is_taken_stays() {
        let owner = Owner::default();
        owner.bytes.take(60).unwrap();
        owner.allow(None, Some(50), None);
        assert_eq!(owner.bytes.take(1), Err(OverQuota { limit: 50 }));
        owner.bytes.give_back(20);
        owner.bytes.take(10).unwrap();
        owner.buckets.take(usize::MAX).unwrap();
        assert_eq!(owner.bytes.taken(), 50);
    }
}
