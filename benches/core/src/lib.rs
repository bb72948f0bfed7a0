//! The contenders: pail's core, two actor libraries, and what one would write by hand with tokio, each with the same
//! buckets and asked the same things.
//!
//! pail's callers run the handler themselves, on whichever thread they are. The others' wait for a task, so they are
//! asked by a task of the same runtime, tokio's default one: there they are at their best.

#![allow(clippy::expect_used, clippy::unwrap_used)] // what can't go on says so and stops

pub mod by_hand;
pub mod kameo;
pub mod pail;
pub mod ractor;

use std::{
    collections::BTreeMap,
    future::Future,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

/// Named buckets that each contender has.
pub const BUCKETS: usize = 1_000;
/// Entries of each, which are what a Scan returns.
pub const ENTRIES: usize = 100;
/// What all values look like.
pub const VALUE: &str = "sixteen bytes ok";
/// How many processes at once are watched and killed.
pub const DEATHS: u64 = 1_000;

/// What is asked of a contender.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// A message to a process at hand, and its reply.
    Call,
    /// A message that nobody waits for; but the last one has been handled when the time is taken.
    Cast,
    /// A process is monitored and killed, and its watcher has been told.
    MonitorDown,
    /// A process is found by its name.
    Lookup,
    /// An entry is put into a bucket that is found by its name.
    Put,
    /// An entry is got from a bucket that is found by its name.
    Get,
    /// All entries are got from a bucket that is found by its name.
    Scan,
}

impl Op {
    /// All there are, and what they are called.
    pub const ALL: [(Self, &str); 7] = [
        (Self::Call, "call"),
        (Self::Cast, "cast"),
        (Self::MonitorDown, "monitor and DOWN"),
        (Self::Lookup, "by name/lookup"),
        (Self::Put, "by name/put"),
        (Self::Get, "by name/get"),
        (Self::Scan, "by name/scan"),
    ];
}

/// One that can do all of that.
pub trait Contender {
    /// What it is called.
    const NAME: &str;

    /// [`BUCKETS`] buckets of [`ENTRIES`] entries.
    fn start() -> Self;

    /// How long it takes to do `op` so many times, one after the other.
    fn time(&self, op: Op, times: u64) -> Duration;
}

/// The name of each bucket.
#[must_use]
pub fn names() -> Vec<String> {
    (0..BUCKETS).map(|number| format!("bucket-{number:09}")).collect()
}

/// The key of an entry.
#[must_use]
pub fn key(number: usize) -> String {
    format!("key-{number:03}")
}

/// A bucket, for those that are not pail.
pub type Entries = BTreeMap<String, String>;

/// What is in each bucket at first.
#[must_use]
pub fn entries() -> Entries {
    (0..ENTRIES).map(|number| (key(number), VALUE.to_owned())).collect()
}

/// All that a Scan returns.
fn scanned(entries: &Entries) -> Vec<(String, String)> {
    entries.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Runs `work` as a task, and returns how long it says it took.
fn as_task(runtime: &Runtime, work: impl Future<Output = Duration> + Send + 'static) -> Duration {
    runtime.block_on(async { tokio::spawn(work).await.unwrap() })
}

/// The sum of the times of batches of at most [`DEATHS`], `times` in all.
async fn in_batches<F: Future<Output = Duration>>(times: u64, batch: impl Fn(u64) -> F) -> Duration {
    let mut sum = Duration::ZERO;
    let mut left = times;
    while left > 0 {
        let count = left.min(DEATHS);
        sum += batch(count).await;
        left -= count;
    }
    sum
}

/// How long something takes.
fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
