//! Bytes that the whole server holds because clients are slow, and the most that it does.

use std::{
    cmp::Ordering,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// So many bytes for all. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Allowance {
    taken: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Nothing is left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full {
    pub(super) bytes_max: usize,
}

impl Allowance {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { taken: Arc::default(), bytes_max }
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }
}

/// One's share, given back on drop.
#[derive(Debug)]
pub(super) struct Charge {
    allowance: Arc<Allowance>,
    held: usize,
}

impl Charge {
    /// Nothing yet.
    pub(super) fn of(allowance: Arc<Allowance>) -> Self {
        Self { allowance, held: 0 }
    }

    /// Makes the share what it should be. Who holds nothing and needs nothing touches nothing that is shared.
    pub(super) fn settle(&mut self, bytes: usize) -> Result<(), Full> {
        let Allowance { taken, bytes_max } = &*self.allowance;
        match bytes.cmp(&self.held) {
            Ordering::Equal => {}
            Ordering::Less => {
                taken.fetch_sub(self.held - bytes, Relaxed);
            }
            Ordering::Greater => {
                let more = bytes - self.held;
                taken
                    .fetch_update(Relaxed, Relaxed, |taken| taken.checked_add(more).filter(|sum| sum <= bytes_max))
                    .map_err(|_| Full { bytes_max: *bytes_max })?;
            }
        }
        self.held = bytes;
        Ok(())
    }

    pub(super) fn release(&mut self) {
        if self.held > 0 {
            self.allowance.taken.fetch_sub(std::mem::take(&mut self.held), Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release();
    }
}
