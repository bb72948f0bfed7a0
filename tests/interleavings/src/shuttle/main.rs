//! A hundred thousand orders of steps of a registry, its buckets, those who write to them and those who watch: by shuttle, which
//! stands in the place of the locks and atomics, and lets one thread take one step at a time, at random.
//!
//!     cargo run --release --bin shuttle [SCHEDULES]
//!
//! Each is judged by what a Watch promises. It prints its seed; `PAIL_SEED` gives the same run, to the byte. What fails leaves
//! its schedule and what was told in `target/interleavings`. Then bugs are planted, and each must be found.

#![allow(dead_code, unused_imports)] // what is included is used in part

#[path = "../../../../src/bucket/mod.rs"]
mod bucket;
#[path = "../../../../src/budget.rs"]
mod budget;
#[path = "../../../../src/clock.rs"]
mod clock;
mod judge;
#[path = "../../../../src/limits.rs"]
mod limits;
#[path = "../../../../src/memory.rs"]
pub mod memory;
#[path = "../../../../src/name.rs"]
mod name;
#[path = "../../../../src/planted.rs"]
mod planted;
#[path = "../../../../src/process/mod.rs"]
mod process;
#[path = "../../../../src/registry/mod.rs"]
mod registry;
mod story;
#[path = "../locks.rs"]
mod sync;
#[path = "../../../../src/time_to_live.rs"]
mod time_to_live;
#[path = "../../../../src/value.rs"]
mod value;
#[path = "../../../../src/watch/mod.rs"]
mod watch;

mod tool {
    pub use shuttle::{sync, thread, thread_local};
}

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher, DefaultHasher, Hash, Hasher},
    panic::{self, AssertUnwindSafe},
    path::Path,
    process::exit,
    sync::{Arc, Mutex},
    time::Instant,
};

use planted::Bug;
use shuttle::{
    Config, FailurePersistence, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};

/// Bugs, each of which must be found within so many schedules.
const BUGS: [Bug; 5] = [Bug::LostNews, Bug::EarlyWord, Bug::DroppedEvent, Bug::DoubledEvent, Bug::ReorderedEvents];
const FINDS_WITHIN: usize = 400_000;

/// So many schedules of each kind are run twice.
const REPEATED: usize = 2_000;

/// How many changes of priority a schedule of the other kind has: few, at the worst of times. (Burckhardt et al., "A
/// Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", 2010.)
const CHANGES: usize = 3;

/// Runs the story in so many orders: a hash of all that was told, or in which order something was wrong, and what.
fn run(scheduler: impl Scheduler + 'static, leave: Option<&Path>) -> Result<u64, String> {
    let mut config = Config::new();
    config.silence_warnings = true; // that it takes all atomics to be SeqCst: the weaker are loom's
    config.failure_persistence =
        leave.map_or(FailurePersistence::None, |folder| FailurePersistence::File(Some(folder.into())));
    let told = Arc::new(Mutex::new((DefaultHasher::new(), String::new(), 0)));
    let telling = Arc::clone(&told);
    let run = || {
        Runner::new(scheduler, config).run(move || {
            let outcome = story::tell();
            let mut told = telling.lock().unwrap();
            outcome.told.hash(&mut told.0);
            told.1 = outcome.told;
            told.2 += 1;
            drop(told);
            outcome.verdict.unwrap();
        })
    };
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    let told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match outcome {
        Ok(_) => Ok(told.0.finish()),
        Err(payload) => {
            if let Some(folder) = leave {
                fs::write(folder.join("told"), &told.1).unwrap();
            }
            Err(format!("schedule {}: {}", told.2, process::panic_message(&*payload)))
        }
    }
}

fn random(seed: u64, schedules: usize) -> impl Scheduler {
    RandomScheduler::new_from_seed(seed, schedules)
}

fn few_changes(seed: u64, schedules: usize) -> impl Scheduler {
    PctScheduler::new_from_seed(seed, CHANGES, schedules)
}

fn main() {
    let schedules = std::env::args().nth(1).map_or(100_000, |words| words.parse().expect("how many schedules"));
    let seed = match std::env::var("PAIL_SEED") {
        Ok(words) => words.parse().expect("PAIL_SEED is a number"),
        Err(_) => u64::from(RandomState::new().hash_one(()) as u32),
    };
    println!("PAIL_SEED={seed}");
    panic::set_hook(Box::new(|_| ()));
    let mut wrong = 0;
    let mut say = |is_right: bool, words: String| {
        println!("{}  {words}", if is_right { "ok   " } else { "WRONG" });
        wrong += i32::from(!is_right);
    };

    let start = Instant::now();
    let left = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/interleavings");
    let both = |schedules: usize, leave: Option<&Path>| {
        run(random(seed, schedules / 2), leave).and_then(|_| run(few_changes(seed, schedules - schedules / 2), leave))
    };
    match both(schedules, Some(&left)) {
        Ok(_) => say(true, format!("{schedules} schedules, {:.0} s", start.elapsed().as_secs_f64())),
        Err(why) => say(false, why),
    }
    let [one, other] = [(); 2].map(|()| [run(random(seed, REPEATED), None), run(few_changes(seed, REPEATED), None)]);
    say(one.iter().all(Result::is_ok) && one == other, "the same seed tells the same".to_owned());
    for bug in BUGS {
        planted::plant_for_good(bug);
        match both(FINDS_WITHIN, None) {
            Ok(_) => say(false, format!("{bug:?} is not found")),
            Err(why) => say(true, format!("{bug:?} is found: {}", why.lines().next().unwrap_or_default())),
        }
    }
    exit(i32::from(wrong > 0));
}
