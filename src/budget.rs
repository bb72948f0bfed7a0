//! The memory account: what is allocated is reserved before, and given back exactly, once.
//!
//! What is counted is an estimate of what an allocation really costs; the constants were measured, and a test holds them to
//! 0.8 to 1.25 of the truth.

use std::time::{Duration, Instant};

use crate::{
    planted::{Bug, strikes},
    sync::{AtomicU64, AtomicUsize, Ordering},
};

/// The account of all buckets together.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    resident: Option<Resident>,
}

/// There is not enough left.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OverBudget {
    /// In the account.
    #[error("all buckets together may take {limit} bytes")]
    Account {
        /// What it allows, in bytes.
        limit: usize,
    },
    /// Of the memory that the process may have: see [`Resident`].
    #[error("the process may have {limit} bytes of memory while more is put")]
    Process {
        /// How many bytes.
        limit: usize,
    },
}

impl Budget {
    /// An account of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0), resident: None }
    }

    /// The same account, by which nothing is admitted while the process has more memory than that.
    #[must_use]
    pub fn beside(self, resident: Resident) -> Self {
        Self { resident: Some(resident), ..self }
    }

    /// Bytes that are reserved now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether as much may be allocated now, be it in the place of something else.
    ///
    /// # Errors
    /// [`OverBudget::Process`].
    pub fn admit(&self, bytes: usize) -> Result<(), OverBudget> {
        self.resident.as_ref().map_or(Ok(()), |resident| resident.admit(bytes))
    }

    /// Reserves `bytes` more, which whoever reserves them gives back.
    ///
    /// # Errors
    /// [`OverBudget::Account`]; then nothing more is reserved.
    pub fn reserve(&self, bytes: usize) -> Result<(), OverBudget> {
        self.reserve_within(bytes, self.limit).map_err(|Over| OverBudget::Account { limit: self.limit })
    }

    fn reserve_within(&self, bytes: usize, limit: usize) -> Result<(), Over> {
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= limit);
        if strikes(Bug::Overdraft) && fits(self.used()).is_some() {
            self.used.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        }
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(_) => Err(Over),
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

/// The limit that was asked for would be passed.
struct Over;

/// A bound on what the process has of the machine's memory. That is more than what is charged: an allocator keeps what was freed for
/// others of its size, up to twice as much where values of all sizes take each other's places; and connections, history and
/// answers have theirs.
///
/// To look costs some 20 µs, so it is done once for each 64th part of the bound that is asked for. While it is passed, who asks
/// has the allocator give back what it can, every 10 ms at most, and for a twentieth of the time.
#[derive(Debug)]
pub struct Resident {
    limit: usize,
    measure: fn() -> usize,
    relieve: fn(),
    /// What was asked for since the last look.
    unseen: AtomicUsize,
    /// Where the bound was passed, until when that is believed: in milliseconds since `began`; else 0.
    past_until: AtomicU64,
    began: Instant,
}

/// How long what was seen past the bound is believed, at least.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Resident {
    /// A bound of `limit` bytes on what `measure` says, and what makes that less where it can.
    #[must_use]
    pub fn new(limit: usize, measure: fn() -> usize, relieve: fn()) -> Self {
        let (unseen, past_until) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { limit, measure, relieve, unseen, past_until, began: Instant::now() }
    }

    fn admit(&self, bytes: usize) -> Result<(), OverBudget> {
        let unseen = self.unseen.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let is_past = match self.past_until.load(Ordering::Relaxed) {
            0 => unseen > self.limit / 64 && self.look(),
            until => self.since_begin(Duration::ZERO) < until || self.look(),
        };
        if is_past { Err(OverBudget::Process { limit: self.limit }) } else { Ok(()) }
    }

    /// Whether the bound is passed, whatever can be done about it.
    fn look(&self) -> bool {
        self.unseen.store(0, Ordering::Relaxed);
        let begin = Instant::now();
        let mut is_past = (self.measure)() > self.limit;
        if is_past {
            (self.relieve)();
            is_past = (self.measure)() > self.limit;
        }
        let until = if is_past { self.since_begin(LOOK_AGAIN + 20 * begin.elapsed()) } else { 0 };
        self.past_until.store(until, Ordering::Relaxed);
        is_past
    }

    fn since_begin(&self, more: Duration) -> u64 {
        u64::try_from((self.began.elapsed() + more).as_millis()).unwrap_or(u64::MAX)
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
        let limit = self.limit.load(Ordering::Relaxed);
        self.taken.reserve_within(count, limit).map_err(|Over| OverQuota { limit })
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
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_past_the_limit_changes_nothing() {
        let budget = Budget::new(100);
        budget.reserve(60).unwrap();
        assert_eq!(budget.reserve(41), Err(OverBudget::Account { limit: 100 }));
        assert_eq!(budget.reserve(usize::MAX), Err(OverBudget::Account { limit: 100 }));
        assert_eq!(budget.used(), 60);
        budget.reserve(40).unwrap();
        budget.give_back(100);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn nothing_is_admitted_while_the_process_has_too_much_memory() {
        thread_local!(static HAS: Cell<usize> = const { Cell::new(0) });
        let relieve = || HAS.set(HAS.get() - 1);
        let budget = Budget::new(1_000).beside(Resident::new(640, || HAS.get(), relieve));
        HAS.set(642);
        assert_eq!(budget.admit(10), Ok(()), "it has not looked yet");
        assert_eq!(budget.admit(1), Err(OverBudget::Process { limit: 640 }));
        assert_eq!(HAS.get(), 641, "it was relieved once, which was not enough");
        let deadline = Instant::now() + Duration::from_secs(10);
        while budget.admit(1).is_err() {
            assert!(Instant::now() < deadline, "it does not look again");
        }
        assert_eq!(HAS.get(), 640);
        assert_eq!(Budget::new(0).admit(usize::MAX), Ok(()), "there is no such bound");
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
