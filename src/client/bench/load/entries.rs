//! Gets and Puts of entries that are there, at random.

use std::sync::Arc;

use super::{Load, Requests};
use crate::client::bench::{
    channel::{Channel, Method, Told},
    http2::Broken,
    slots::Round,
};

/// An answer that is shorter than the value is none.
const SHORT_ANSWER: &str = "SHORT_ANSWER";

pub(in super::super) struct Entries {
    requests: Arc<Requests>,
    puts_percent: u8,
    random: Random,
    /// What a slot's answer has at least.
    least: Vec<u64>,
    /// A Put, put together.
    put: Vec<u8>,
}

impl Entries {
    pub(super) fn new(requests: Arc<Requests>, puts_percent: u8, connection: u64, slots: u32) -> Self {
        let least = vec![0; slots as usize];
        Self { requests, puts_percent, random: Random::new(connection), least, put: Vec::new() }
    }
}

impl Load for Entries {
    fn start(&mut self, slot: u32, channel: &mut Channel) -> Result<u64, Broken> {
        let Requests { entries, value, ground } = &*self.requests;
        let entry = &entries[self.random.below(entries.len())];
        let is_put = match self.puts_percent {
            0 => false,
            100 => true,
            percent => self.random.below(100) < percent.into(),
        };
        self.least[slot as usize] = if is_put { 1 } else { ground.value.len() as u64 };
        if !is_put {
            return channel.ask(slot, Method::Get, entry);
        }
        self.put.clear();
        self.put.extend_from_slice(entry);
        self.put.extend_from_slice(value);
        channel.ask(slot, Method::Put, &self.put)
    }

    fn hear(&mut self, told: Told<'_>, round: &mut Round<'_>) {
        let Told::Answer(slot, outcome) = told else { return };
        let least = self.least[slot as usize];
        let outcome = outcome.and_then(|bytes| if bytes < least { Err(SHORT_ANSWER.to_owned()) } else { Ok(bytes) });
        round.answered(slot, outcome);
    }
}

/// Numbers that are even enough for keys (xorshift64, Marsaglia 2003), the same in each run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[allow(clippy::cast_possible_truncation)] // less than `end`
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * end as u128) >> 64) as usize
    }
}
