//! The model: random sequences of calls, of time that passes and of watches, on pail's service and on a naive model of it; the
//! answers and all that the watches hear must be equal. With the feature `planted-bugs` it also proves that it finds bugs.
//!
//! ```text
//! cargo test --test model -- [CASES]                               so many cases of 100 steps, else 20,000
//! cargo test --test model --features planted-bugs -- planted       each bug must be found within 20,000
//! ```
//!
//! It prints its `PAIL_SEED`; the same seed makes the same cases. A case that fails is made as short as it gets, and left in
//! `target/model`. Link is left to the oracle, which has another model of it: OTP.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a harness that can't go on says so and stops

mod model;
mod pail;
#[path = "../it/random.rs"]
mod random;
mod script;
mod watch;

use std::{
    fs, panic,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use model::{Model, Transition};
use pail::Pail;
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestError, TestRunner},
};
use proptest_state_machine::ReferenceStateMachine;

const CASES: u32 = 20_000;
const STEPS: usize = 100;

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(model: &Self) -> BoxedStrategy<Transition> {
        script::transition(model)
    }

    fn apply(mut model: Self, transition: &Transition) -> Self {
        model.take(transition);
        model
    }
}

fn main() -> ExitCode {
    // What is compared is compared by asserting, and every try to make a failure shorter fails once more.
    panic::set_hook(Box::new(|_| {}));
    let argument = std::env::args().nth(1);
    let well = match argument.as_deref() {
        None => agree(CASES),
        #[cfg(feature = "planted-bugs")]
        Some("planted") => planted::all_are_found(),
        Some(count) => agree(count.parse().expect("see the top of main.rs for what it takes")),
    };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether pail does what the model says.
fn agree(cases: u32) -> bool {
    let mut random = random::Random::seeded();
    let parts = thread::available_parallelism().map_or(1, |parts| u32::try_from(parts.get()).unwrap_or(1));
    let differences = thread::scope(|scope| {
        let part = |_| {
            let seed = random.split().below(u64::MAX);
            scope.spawn(move || difference(cases.div_ceil(parts), 100_000, seed))
        };
        let parts: Vec<_> = (0..parts).map(part).collect();
        parts.into_iter().map(|part| part.join().unwrap()).collect::<Vec<_>>()
    });
    match differences.into_iter().flatten().next() {
        None => {
            println!("{cases} cases of {STEPS} steps: no difference");
            true
        }
        Some(Difference { why, steps }) => {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/model");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("case"), format!("{why}\n\n{steps:#?}\n")).unwrap();
            println!("{why}\n\nafter\n\n{steps:#?}\n\nThis is in {}", folder.join("case").display());
            false
        }
    }
}

/// A case in which pail does something else.
struct Difference {
    why: String,
    steps: Vec<Transition>,
}

/// The first one there is in so many cases, made shorter in at most so many tries.
fn difference(cases: u32, shrink: u32, seed: u64) -> Option<Difference> {
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: shrink,
        ..Config::default()
    };
    let run = |(_, steps, seen): (Model, Vec<Transition>, Option<Arc<AtomicUsize>>)| {
        let (mut model, mut pail) = (Model::default(), Pail::start());
        for step in steps {
            // What comes after the step that fails is not part of the case.
            seen.iter().for_each(|seen| _ = seen.fetch_add(1, Relaxed));
            model.take(&step);
            pail.take(step, &model.outcome);
        }
        Ok(())
    };
    match TestRunner::new(config).run(&Model::sequential_strategy(STEPS), run) {
        Ok(()) => None,
        Err(TestError::Fail(why, (_, steps, _))) => Some(Difference { why: why.to_string(), steps }),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use ::pail::planted::{Bug, plant};

    use super::{CASES, Difference, agree, difference};

    /// Whether there is no difference without a bug, and one with each.
    pub(super) fn all_are_found() -> bool {
        let bugs = [
            Bug::StaleRead,
            Bug::LostPut,
            Bug::DoubleCreate,
            Bug::ResurrectedBucket,
            Bug::AckAfterDown,
            Bug::ReorderedVersions,
            Bug::DroppedEvent,
            Bug::DoubledEvent,
            Bug::ReorderedEvents,
        ];
        let mut random = crate::random::Random::seeded();
        plant(None);
        let sound = agree(100);
        let found = bugs.map(|bug| {
            plant(Some(bug));
            // It strikes now and then, so that a case that is made shorter is another one.
            let difference = difference(CASES, 50, random.below(u64::MAX));
            match &difference {
                Some(Difference { why, .. }) => {
                    println!("{bug:?} is found: {}", why.lines().next().unwrap_or_default());
                }
                None => println!("{bug:?} is not found by {CASES} cases"),
            }
            difference.is_some()
        });
        plant(None);
        sound && found.into_iter().all(|found| found)
    }
}
