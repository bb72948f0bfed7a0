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
pub struct Allowance {
    taken: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Too little is left.
#[derive(Clone, Copy, Debug)]
pub struct Full {
    /// The most that there may be.
    pub bytes_max: usize,
}

impl Allowance {
    /// At most so many bytes at once.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { taken: Arc::default(), bytes_max }
    }

    /// How many are taken. It may be more than there may be, see [`Charge::take`].
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// # Errors
    ///
    /// If nothing is left.
    pub fn has_room(&self) -> Result<(), Full> {
        if self.taken() < self.bytes_max { Ok(()) } else { Err(Full { bytes_max: self.bytes_max }) }
    }
}

/// One's share, given back on drop.
#[derive(Debug)]
pub struct Charge {
    allowance: Arc<Allowance>,
    held: usize,
}

impl Charge {
    /// Nothing yet.
    #[must_use]
    pub fn of(allowance: Arc<Allowance>) -> Self {
        Self { allowance, held: 0 }
    }

    /// Makes the share what it should be. Who holds nothing and needs nothing touches nothing that is shared.
    ///
    /// # Errors
    ///
    /// If too little is left; the share is what it was.
    pub fn settle(&mut self, bytes: usize) -> Result<(), Full> {
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

    /// So many bytes more, be they there or not: for what can't be refused any more.
    pub fn take(&mut self, bytes: usize) {
        self.allowance.taken.fetch_add(bytes, Relaxed);
        self.held += bytes;
    }

    /// Gives all of it back.
    pub fn release(&mut self) {
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
