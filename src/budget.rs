//! Memory accounts: a charge is reserved before anything is allocated, and given back exactly, once.
//!
//! What is counted is an estimate of what an allocation really costs; the constants were measured, and a test holds them to
//! 0.8 to 1.25 of the truth.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
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
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// Bytes that are charged now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Opens a charge of `bytes`.
    ///
    /// # Errors
    /// [`OverBudget`]; then nothing is charged.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, OverBudget> {
        let mut charge = Charge { budget: Arc::clone(self), bytes: 0 };
        charge.grow(bytes)?;
        Ok(charge)
    }
}

/// Part of a [`Budget`], which it returns to when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// Bytes that are charged.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges `bytes` more.
    ///
    /// # Errors
    /// [`OverBudget`]; then nothing more is charged.
    pub fn grow(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let Budget { limit, used } = &*self.budget;
        let fits = |used: usize| used.checked_add(bytes).filter(|used| used <= limit);
        match used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => {
                self.bytes += bytes;
                Ok(())
            }
            Err(_) => Err(OverBudget { limit: *limit }),
        }
    }

    /// Gives `bytes` back, which must be charged.
    pub fn shrink(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.bytes, "more is given back than was charged");
        let bytes = bytes.min(self.bytes);
        if bytes == 0 {
            // Most calls free nothing, and the account is one for all cores.
            return;
        }
        self.bytes -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Gives everything back before the drop.
    pub fn release(&mut self) {
        self.shrink(self.bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_past_the_limit_changes_nothing() {
        let budget = Budget::new(100);
        let mut charge = budget.charge(60).unwrap();
        assert_eq!(charge.grow(41), Err(OverBudget { limit: 100 }));
        assert_eq!(budget.charge(usize::MAX).unwrap_err(), OverBudget { limit: 100 });
        assert_eq!((charge.bytes(), budget.used()), (60, 60));
        charge.grow(40).unwrap();
        assert_eq!(budget.used(), 100);
    }

    #[test]
    fn what_was_charged_is_given_back_once() {
        let budget = Budget::new(100);
        let mut charge = budget.charge(60).unwrap();
        charge.shrink(10);
        charge.release();
        assert_eq!(budget.used(), 0);
        drop(charge);
        assert_eq!(budget.used(), 0);
    }
}
