//! Puts into one bucket, and how soon each of many watches of its entries tells of each.
//!
//! Each connection has a bucket, its watches, and one writer, which puts again when all have heard.

use prost::Message as _;

use super::{Load, Requests};
use crate::{
    client::bench::{
        channel::{Channel, Method, Told},
        http2::Broken,
        slots::{Round, Slots},
        wire::{Held, fields},
    },
    pb::{EventKind, WatchRequest},
};

/// The writer's only slot.
const WRITER: u32 = 0;

/// Fields of a `WatchResponse`, of `WatchEvents` and of an `Event`.
const EVENTS: u32 = 3;
const SYNCED: u32 = 4;
const EVENT: u32 = 1;
const PUT: u32 = 3;

pub(in super::super) struct Watches {
    request: Vec<u8>,
    put: Vec<u8>,
    watches: u32,
    synced: u32,
    /// How many have not heard of the last put yet.
    waiting: u32,
    is_answered: bool,
}

impl Watches {
    pub(super) fn new(requests: &Requests, connection: u64, watches: u32) -> Self {
        let request = WatchRequest {
            buckets: vec![requests.ground.bucket(connection)],
            entries: true,
            skip_initial: true,
            kinds: vec![EventKind::Put.into()],
            ..WatchRequest::default()
        };
        // The entries go through the buckets in turn, so the first ones are one of each.
        let entry = &requests.entries[usize::try_from(connection).unwrap_or_default()];
        let put = [entry, &*requests.value].concat();
        Self { request: request.encode_to_vec(), put, watches, synced: 0, waiting: 0, is_answered: true }
    }

    fn release_if_all_have_heard(&self, round: &mut Round<'_>) {
        if self.waiting == 0 && self.is_answered {
            round.ended(WRITER);
            round.release(WRITER);
        }
    }
}

impl Load for Watches {
    fn prepare(&mut self, channel: &mut Channel, round: &mut Round<'_>) -> Result<(), Broken> {
        round.release(WRITER);
        (0..self.watches).try_for_each(|_| channel.watch(&self.request))
    }

    fn is_prepared(&self, _: &Slots) -> bool {
        self.synced == self.watches
    }

    fn start(&mut self, slot: u32, channel: &mut Channel) -> Result<u64, Broken> {
        (self.waiting, self.is_answered) = (self.watches, false);
        channel.ask(slot, Method::Put, &self.put)
    }

    fn hear(&mut self, told: Told<'_>, round: &mut Round<'_>) {
        match told {
            Told::Answer(_, Ok(_)) => self.is_answered = true,
            Told::Answer(slot, Err(reason)) => {
                (self.waiting, self.is_answered) = (0, true);
                round.failed(slot, &reason);
            }
            Told::Watch(message) => {
                let heard = match response(message) {
                    Some(Said::Synced) => {
                        self.synced += 1;
                        return;
                    }
                    Some(Said::Puts(heard)) => heard.min(self.waiting),
                    None => 0,
                };
                if heard == 0 {
                    return;
                }
                for _ in 0..heard {
                    round.happened(WRITER, message.len() as u64);
                }
                self.waiting -= heard;
            }
        }
        self.release_if_all_have_heard(round);
    }
}

/// What a response of a watch says that matters here.
enum Said {
    Synced,
    Puts(u32),
}

fn response(message: &[u8]) -> Option<Said> {
    for field in fields(message) {
        match field? {
            (SYNCED, _) => return Some(Said::Synced),
            (EVENTS, Held::Bytes(events)) => {
                let is_put = |event: &Option<_>| match event {
                    Some((EVENT, Held::Bytes(event))) => matches!(fields(event).next(), Some(Some((PUT, _)))),
                    _ => false,
                };
                let puts = fields(events).filter(is_put).count();
                return Some(Said::Puts(u32::try_from(puts).unwrap_or(u32::MAX)));
            }
            _ => {}
        }
    }
    None
}
