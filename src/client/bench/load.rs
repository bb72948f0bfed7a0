//! Who sends what: for each kind of operation, what a connection asks, and when an operation has happened.

mod create;
mod down;
mod entries;
mod scan;
mod watch;

use std::sync::Arc;

use clap::ValueEnum;
use serde::Serialize;

pub(super) use self::{create::Creates, down::Downs, entries::Entries, scan::Scans, watch::Watches};
use super::{
    channel::{Channel, Told},
    ground::Ground,
    http2::Broken,
    slots::{Round, Slots},
};

/// What an operation is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Op {
    /// Gets an entry
    Get,
    /// Puts an entry
    Put,
    /// Reads a bucket's first entries, 1,000 at most: a small request that is much work
    Scan,
    /// Creates a bucket, each with a name of its own
    Create,
    /// Gets, and puts as --puts says
    Mixed,
    /// A put, heard of by a watch of the bucket's entries: --streams watches for each connection, each heard is an
    /// operation
    Watch,
    /// Stops a bucket; done when a watch by prefix has told of its DOWN
    Down,
}

/// What a connection does.
pub(super) trait Load: Send {
    /// Asks for what must be there before the first operation. A slot is released when it can take one.
    fn prepare(&mut self, channel: &mut Channel, round: &mut Round<'_>) -> Result<(), Broken> {
        let _ = channel;
        round.slots.all().for_each(|slot| round.release(slot));
        Ok(())
    }

    /// Whether all that is there.
    fn is_prepared(&self, _: &Slots) -> bool {
        true
    }

    /// Starts the operation of a slot, and returns how many bytes it asks with.
    fn start(&mut self, slot: u32, channel: &mut Channel) -> Result<u64, Broken>;

    /// Hears of an answer.
    fn hear(&mut self, told: Told<'_>, round: &mut Round<'_>);

    /// Asks for what is needed for the next operations.
    fn follow_up(&mut self, _: &mut Channel) -> Result<(), Broken> {
        Ok(())
    }

    /// Whether nothing that it has asked for is unanswered, operations aside.
    fn is_idle(&self) -> bool {
        true
    }
}

/// What all connections of a run send, encoded once.
#[derive(Debug)]
pub(super) struct Requests {
    ground: Ground,
    entries: Vec<Box<[u8]>>,
    value: Vec<u8>,
}

impl Requests {
    pub(super) fn new(ground: Ground) -> Self {
        Self { entries: ground.entries(), value: ground.value(), ground }
    }
}

/// The load of one connection.
pub(super) fn load(op: Op, puts_percent: u8, requests: &Arc<Requests>, connection: u64, streams: u32) -> Box<dyn Load> {
    let requests = Arc::clone(requests);
    match op {
        Op::Get => Box::new(Entries::new(requests, 0, connection, streams)),
        Op::Put => Box::new(Entries::new(requests, 100, connection, streams)),
        Op::Mixed => Box::new(Entries::new(requests, puts_percent, connection, streams)),
        Op::Scan => Box::new(Scans::new(&requests.ground, connection)),
        Op::Create => Box::new(Creates::new(&requests.ground, connection)),
        Op::Watch => Box::new(Watches::new(&requests, connection, streams)),
        Op::Down => Box::new(Downs::new(&requests.ground, connection, streams)),
    }
}
