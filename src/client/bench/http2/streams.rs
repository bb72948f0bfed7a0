//! The calls of a connection that are not answered yet.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::{Last, STREAM_ID_MAX};

/// One call that is not answered yet.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) tag: u32,
    /// What we may send on it.
    pub(super) window: i64,
    /// What we would send if we might; empty nearly always.
    pub(super) unsent: Vec<u8>,
    pub(super) last: Last,
    /// The beginning of a message; empty nearly always.
    pub(super) partial: Vec<u8>,
    pub(super) received: u32,
}

/// The calls by their numbers, which are odd and go up.
#[derive(Debug, Default)]
pub(super) struct Streams {
    live: HashMap<u32, Stream, BuildHasherDefault<Spread>>,
    /// How many were opened.
    opened: u32,
}

impl Streams {
    /// Gives a call the next number; `None` where there is none any more.
    pub(super) fn open(&mut self, tag: u32, window: i64) -> Option<u32> {
        let id = self.opened.checked_mul(2)?.checked_add(1).filter(|&id| id < STREAM_ID_MAX)?;
        let stream = Stream { tag, window, unsent: Vec::new(), last: Last::No, partial: Vec::new(), received: 0 };
        self.opened += 1;
        self.live.insert(id, stream);
        Some(id)
    }

    pub(super) fn get(&mut self, id: u32) -> Option<&mut Stream> {
        self.live.get_mut(&id)
    }

    pub(super) fn close(&mut self, id: u32) -> Option<Stream> {
        self.live.remove(&id)
    }

    pub(super) fn live(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.live.values_mut()
    }
}

/// Spreads numbers that go up over a table. They are our own: nobody can choose some that collide.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(byte.into());
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26) // the table looks at the low bits, where the product has little of the number
    }
}
