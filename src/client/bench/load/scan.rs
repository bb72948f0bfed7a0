//! Scans of buckets, one after the other.

use prost::Message as _;

use super::Load;
use crate::{
    client::bench::{
        channel::{Channel, Method, Told},
        ground::Ground,
        http2::Broken,
        slots::Round,
    },
    limits::PAGE_ITEMS_MAX,
    pb::ScanRequest,
};

pub(in super::super) struct Scans {
    /// A page of each bucket.
    requests: Vec<Vec<u8>>,
    next: usize,
}

impl Scans {
    pub(super) fn new(ground: &Ground, connection: u64) -> Self {
        let page_size = i32::try_from(PAGE_ITEMS_MAX).unwrap_or(i32::MAX);
        let request = |n| ScanRequest { bucket: ground.bucket(n), page_size, ..ScanRequest::default() };
        let requests = (0..ground.buckets).map(|n| request(n + connection).encode_to_vec()).collect();
        Self { requests, next: 0 }
    }
}

impl Load for Scans {
    fn start(&mut self, slot: u32, channel: &mut Channel) -> Result<u64, Broken> {
        self.next = (self.next + 1) % self.requests.len();
        channel.ask(slot, Method::Scan, &self.requests[self.next])
    }

    fn hear(&mut self, told: Told<'_>, round: &mut Round<'_>) {
        let Told::Answer(slot, outcome) = told else { return };
        round.answered(slot, outcome);
    }
}
