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
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit);
        if strikes(Bug::Overdraft) && fits(self.used()).is_some() {
            self.used.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        }
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(_) => Err(OverBudget { limit: self.limit }),
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
}
