//! The room that a connection has for operations: each slot holds one at a time.

use std::collections::VecDeque;

use super::{pace::Start, tally::Tally};

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    intended_ns: u64,
    is_counted: bool,
    /// It holds an operation that has not ended yet.
    is_busy: bool,
    freed_ns: u64,
}

/// The slots of a connection.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// The one that is free for longest is first, so that of an operation that is late it is known whether there was
    /// room.
    free: VecDeque<u32>,
    busy: usize,
}

impl Slots {
    /// So many, of which none is free yet.
    pub(super) fn new(count: u32) -> Self {
        Self { slots: vec![Slot::default(); count as usize], free: VecDeque::with_capacity(count as usize), busy: 0 }
    }

    pub(super) fn all(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// How many hold an operation.
    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    /// Puts an operation into the slot that is free for longest; there must be one.
    pub(super) fn take(&mut self, start: Start, now_ns: u64, tally: &mut Tally) -> Option<u32> {
        let number = self.free.pop_front()?;
        let slot = &mut self.slots[number as usize];
        if start.is_counted {
            tally.sent(now_ns - start.intended_ns, slot.freed_ns <= start.intended_ns);
        }
        *slot = Slot { intended_ns: start.intended_ns, is_counted: start.is_counted, is_busy: true, freed_ns: 0 };
        self.busy += 1;
        Some(number)
    }
}

/// What was received at one time, as it changes the slots.
pub(super) struct Round<'a> {
    pub(super) slots: &'a mut Slots,
    pub(super) tally: &'a mut Tally,
    pub(super) now_ns: u64,
}

impl Round<'_> {
    /// What the slot's operation was for has happened once; its latency is from its intended start to now.
    pub(super) fn happened(&mut self, slot: u32, bytes: u64) {
        let slot = &self.slots.slots[slot as usize];
        if slot.is_counted {
            self.tally.done(slot.intended_ns, self.now_ns, bytes);
        }
    }

    /// The slot's operation has failed.
    pub(super) fn failed(&mut self, slot: u32, reason: &str) {
        if self.slots.slots[slot as usize].is_counted {
            self.tally.failed(reason, self.now_ns);
        }
        self.ended(slot);
    }

    /// The slot's operation is over. The slot is not free before it is released.
    pub(super) fn ended(&mut self, slot: u32) {
        let slot = &mut self.slots.slots[slot as usize];
        self.slots.busy -= usize::from(std::mem::take(&mut slot.is_busy));
    }

    /// There is room in the slot again.
    pub(super) fn release(&mut self, slot: u32) {
        self.slots.slots[slot as usize].freed_ns = self.now_ns;
        self.slots.free.push_back(slot);
    }

    /// The slot's operation is over with this answer: its bytes, or the reason for which there is none. The slot is free.
    pub(super) fn answered(&mut self, slot: u32, outcome: Result<u64, String>) {
        match outcome {
            Ok(bytes) => {
                self.happened(slot, bytes);
                self.ended(slot);
            }
            Err(reason) => self.failed(slot, &reason),
        }
        self.release(slot);
    }

    /// Whatever is under way has failed.
    pub(super) fn all_failed(&mut self, reason: &str) {
        for slot in self.slots.all() {
            if self.slots.slots[slot as usize].is_busy {
                self.failed(slot, reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round<'a>(slots: &'a mut Slots, tally: &'a mut Tally, now_ns: u64) -> Round<'a> {
        Round { slots, tally, now_ns }
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn who_is_to_blame_for_a_late_start_is_whoever_there_was_no_room_for() {
        let (mut slots, mut tally) = (Slots::new(2), Tally::new());
        let start = |intended_ns| Start { intended_ns, is_counted: true };
        round(&mut slots, &mut tally, 0).release(0);
        round(&mut slots, &mut tally, 5 * MS).release(1);
        assert_eq!(slots.take(start(2 * MS), 6 * MS, &mut tally), Some(0)); // it was free at 2 ms: nobody came
        assert_eq!(slots.take(start(2 * MS), 6 * MS, &mut tally), Some(1)); // it was not
        assert_eq!((tally.late_for_generator, tally.late_for_streams), (1, 1));
        assert_eq!((slots.take(start(0), 0, &mut tally), slots.busy()), (None, 2));
    }

    #[test]
    fn what_is_not_counted_is_in_no_tally_and_what_is_counted_is_from_its_intended_start() {
        let (mut slots, mut tally) = (Slots::new(1), Tally::new());
        for is_counted in [false, true] {
            round(&mut slots, &mut tally, 0).release(0);
            slots.take(Start { intended_ns: 1_000, is_counted }, 2_000, &mut tally);
            let mut round = round(&mut slots, &mut tally, 301_000);
            round.happened(0, 7);
            round.failed(0, "X");
            round.all_failed("Y"); // nothing is under way any more
        }
        assert_eq!((tally.latencies.len(), tally.bytes, tally.failures(), slots.busy()), (1, 7, 1, 0));
        assert!(tally.latencies.max().abs_diff(300_000) < 300);
    }
}
