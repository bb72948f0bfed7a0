//! Every order of steps that threads can take in a process, and every value that a processor may let them see, up to three
//! preemptions: by loom, which stands in the place of the locks and atomics of `src/process` and `src/budget.rs`.
//!
//!     cargo run --release --bin loom [SCENARIO...]
//!
//! Each scenario is a rule; then bugs are planted, and each must be found.

#![allow(dead_code, unused_imports)] // what is included is used in part

#[path = "../../../../src/budget.rs"]
mod budget;
#[path = "../../../../src/clock.rs"]
mod clock;
#[path = "../../../../src/planted.rs"]
mod planted;
#[path = "../../../../src/process/mod.rs"]
mod process;
mod scenarios;
#[path = "../locks.rs"]
mod sync;

mod tool {
    pub use loom::{sync, thread, thread_local};
}

mod limits {
    /// Few, so that a mailbox gets full.
    pub const MAILBOX_CASTS_MAX: usize = 2;
    pub const EXIT_DETAIL_BYTES_MAX: usize = 1 << 10;
}

use std::{
    panic::{self, AssertUnwindSafe},
    process::exit,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

use planted::Bug;

const PREEMPTIONS_MAX: usize = 3;

type Scenario = (&'static str, fn());

/// Goes through all orders of a scenario's steps: how many there are, or what went wrong in one.
fn walk(scenario: Scenario) -> Result<usize, String> {
    let walk = |is_swapped| {
        scenarios::IS_SWAPPED.store(is_swapped, Relaxed);
        walk_once(scenario.1)
    };
    Ok(walk(false)? + walk(true)?)
}

fn walk_once(scenario: fn()) -> Result<usize, String> {
    let orders = AtomicUsize::new(0);
    let orders: &'static AtomicUsize = Box::leak(Box::new(orders));
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS_MAX);
    model.max_branches = 10_000;
    let walk = || {
        model.check(move || {
            orders.fetch_add(1, Relaxed);
            scenario();
        });
    };
    match panic::catch_unwind(AssertUnwindSafe(walk)) {
        Ok(()) => Ok(orders.load(Relaxed)),
        Err(payload) => Err(format!("order {}: {}", orders.load(Relaxed), process::panic_message(&*payload))),
    }
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    // What went wrong is told below.
    panic::set_hook(Box::new(|_| ()));
    let mut wrong = 0;
    for scenario in scenarios::ALL {
        if !asked.is_empty() && !asked.iter().any(|asked| scenario.0.contains(&**asked)) {
            continue;
        }
        let start = Instant::now();
        match walk(scenario) {
            Ok(orders) => println!("ok     {}: {orders} orders, {:.1} s", scenario.0, start.elapsed().as_secs_f64()),
            Err(why) => {
                wrong += 1;
                println!("WRONG  {}: {why}", scenario.0);
            }
        }
    }
    if asked.is_empty() {
        for (bug, scenario) in scenarios::FOUND_BY {
            planted::plant_for_good(bug);
            match walk(scenario) {
                Err(why) => println!("ok     {bug:?} is found: {}: {why}", scenario.0),
                Ok(_) => {
                    wrong += 1;
                    println!("WRONG  {bug:?} is not found");
                }
            }
        }
    }
    exit(i32::from(wrong > 0));
}
