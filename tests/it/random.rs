//! Randomness that a seed settles: the same seed, the same script.

use std::time::SystemTime;

/// xorshift64.
pub(crate) struct Random(u64);

impl Random {
    /// Another one each time, unless `PAIL_SEED` says which. Prints the seed.
    pub(crate) fn seeded() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
        let seed = std::env::var("PAIL_SEED").map_or(u64::from(now), |seed| seed.parse().unwrap());
        println!("PAIL_SEED={seed}");
        Self::new(seed)
    }

    fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Another one, for someone who goes a way of its own.
    pub(crate) fn split(&mut self) -> Self {
        Self::new(self.below(u64::MAX))
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % end
    }
}
