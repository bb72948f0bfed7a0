//! Stops of buckets, and how soon a watch by prefix tells of each DOWN.
//!
//! A slot has a bucket. Its operation stops it, and has happened when the watch, which is on the same connection, tells
//! of its end; then the slot gets a new one, which is not a part of any operation.

use prost::Message as _;

use super::{
    Load,
    create::{head, named},
};
use crate::{
    client::bench::{
        channel::{Channel, Method, Told},
        ground::Ground,
        http2::Broken,
        slots::{Round, Slots},
    },
    pb::{EventKind, WatchRequest, WatchResponse, event::Event, watch_response::Response},
};

pub(in super::super) struct Downs {
    prefix: String,
    /// A request about a bucket of this connection, up to where the names differ.
    head: Vec<u8>,
    message: Vec<u8>,
    buckets: Vec<Bucket>,
    count: u64,
    /// Slots that need a new bucket.
    bare: Vec<u32>,
    /// How many creates are not answered.
    creating: usize,
    is_synced: bool,
}

/// The bucket of a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// It is named so.
    number: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Creating,
    Alive,
    /// Neither has the Stop been answered nor the DOWN told.
    Stopping,
    /// One of them has.
    Ending,
}

impl Downs {
    pub(super) fn new(ground: &Ground, connection: u64, slots: u32) -> Self {
        let prefix = format!("{}{connection}/", ground.prefix);
        Self {
            head: head(&prefix),
            prefix,
            message: Vec::new(),
            buckets: vec![Bucket::default(); slots as usize],
            count: 0,
            bare: Vec::new(),
            creating: 0,
            is_synced: false,
        }
    }

    /// The slot whose bucket this is.
    fn slot_of(&self, bucket: &str) -> Option<u32> {
        let (slot, number) = bucket.strip_prefix(&self.prefix)?.split_once('/')?;
        let slot: u32 = slot.parse().ok()?;
        let bucket = self.buckets.get(slot as usize)?;
        (number.parse() == Ok(bucket.number)).then_some(slot)
    }

    /// The Stop was answered, or the DOWN was told.
    fn ended_by_half(&mut self, slot: u32, round: &mut Round<'_>) {
        let bucket = &mut self.buckets[slot as usize];
        if bucket.state == State::Stopping {
            bucket.state = State::Ending;
        } else {
            round.ended(slot);
            self.bare.push(slot);
        }
    }
}

impl Load for Downs {
    fn prepare(&mut self, channel: &mut Channel, round: &mut Round<'_>) -> Result<(), Broken> {
        let kinds = vec![EventKind::Down.into()];
        let request = WatchRequest { prefix: Some(self.prefix.clone()), kinds, ..WatchRequest::default() };
        channel.watch(&request.encode_to_vec())?;
        self.bare = round.slots.all().collect();
        self.follow_up(channel)
    }

    fn is_prepared(&self, _: &Slots) -> bool {
        self.is_synced && self.creating == 0
    }

    fn start(&mut self, slot: u32, channel: &mut Channel) -> Result<u64, Broken> {
        let bucket = &mut self.buckets[slot as usize];
        bucket.state = State::Stopping;
        named(&self.head, format_args!("{slot}/{}", bucket.number), &mut self.message);
        channel.ask(slot, Method::Stop, &self.message)
    }

    fn hear(&mut self, told: Told<'_>, round: &mut Round<'_>) {
        match told {
            Told::Answer(slot, outcome) if self.buckets[slot as usize].state == State::Creating => {
                self.creating -= 1;
                match outcome {
                    Ok(_) => {
                        self.buckets[slot as usize].state = State::Alive;
                        round.release(slot);
                    }
                    // The slot is never free again: who was refused once would be refused again, for nothing.
                    Err(reason) => round.tally.failed(&reason, round.now_ns),
                }
            }
            Told::Answer(slot, Ok(_)) => self.ended_by_half(slot, round),
            Told::Answer(slot, Err(reason)) => {
                round.failed(slot, &reason);
                self.bare.push(slot);
            }
            Told::Watch(message) => {
                let Ok(message) = WatchResponse::decode(message) else { return };
                match message.response {
                    Some(Response::Synced(_)) => self.is_synced = true,
                    Some(Response::Events(events)) => {
                        for event in events.events {
                            let Some(Event::Down(down)) = event.event else { continue };
                            let Some(slot) = self.slot_of(&down.bucket) else { continue };
                            round.happened(slot, down.encoded_len() as u64);
                            self.ended_by_half(slot, round);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn follow_up(&mut self, channel: &mut Channel) -> Result<(), Broken> {
        while let Some(slot) = self.bare.pop() {
            self.buckets[slot as usize] = Bucket { number: self.count, state: State::Creating };
            named(&self.head, format_args!("{slot}/{}", self.count), &mut self.message);
            self.count += 1;
            self.creating += 1;
            channel.ask(slot, Method::Create, &self.message)?;
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.creating == 0
    }
}
