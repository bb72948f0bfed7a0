//! The oracle: random scripts run on pail's processes, registry, watches and links, and on those of OTP, which pail's are
//! modelled on; the traces must be equal. With the feature `planted-bugs` it also proves that it finds bugs.
//!
//! ```text
//! cargo test --test oracle -- [SCRIPTS]                            so many scripts, else 2,000; prints its PAIL_SEED
//! cargo test --test oracle -- FILE                                 prints both traces of one script
//! cargo test --test oracle --features planted-bugs -- planted      each bug must be found within 2,000
//! ```

#![allow(clippy::expect_used, clippy::unwrap_used)] // a harness that can't go on says so and stops

mod beam;
#[path = "../it/random.rs"]
mod random;
mod script;
mod world;

use std::{fs, panic, path::Path, process::ExitCode};

use beam::Beam;
use random::Random;

const SCRIPTS: usize = 2_000;
const LINES: usize = 50;

fn main() -> ExitCode {
    silence_the_script_s_crashes();
    let Ok(mut beam) = Beam::start() else {
        eprintln!("there is no elixir here, so nothing was compared");
        return ExitCode::FAILURE;
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let count = |text: &str| text.parse().ok();
    let well = match *arguments {
        [] => agree(&mut beam, SCRIPTS),
        #[cfg(feature = "planted-bugs")]
        ["planted"] => planted::all_are_found(&mut beam),
        [argument] if count(argument).is_some() => agree(&mut beam, count(argument).unwrap_or_default()),
        [file] => show(&mut beam, Path::new(file)),
        _ => panic!("see the top of main.rs for what it takes"),
    };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether all traces are equal.
fn agree(beam: &mut Beam, scripts: usize) -> bool {
    match difference(beam, scripts) {
        None => {
            println!("{scripts} scripts of {LINES} lines: no difference");
            true
        }
        Some(difference) => {
            difference.tell();
            false
        }
    }
}

/// A script whose traces are not equal.
struct Difference {
    number: usize,
    script: Vec<String>,
    pail: Vec<String>,
    beam: Vec<String>,
}

fn difference(beam: &mut Beam, scripts: usize) -> Option<Difference> {
    let mut random = Random::seeded();
    (0..scripts).find_map(|number| {
        let script = script::script(&mut random.split(), LINES);
        let (pail, beam) = (world::run(&script), beam.run(&script));
        (pail != beam).then_some(Difference { number, script, pail, beam })
    })
}

impl Difference {
    /// The first line that differs, as pail and as OTP have it.
    fn first(&self) -> (&str, &str) {
        let mut pairs = self.pail.iter().zip(&self.beam);
        pairs.find(|(pail, beam)| pail != beam).map_or(("", ""), |(pail, beam)| (pail, beam))
    }

    /// Says what differs, and leaves the script and both traces.
    fn tell(&self) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/oracle");
        fs::create_dir_all(&folder).unwrap();
        for (name, lines) in [("script", &self.script), ("pail", &self.pail), ("beam", &self.beam)] {
            fs::write(folder.join(name), lines.join("\n") + "\n").unwrap();
        }
        let (pail, beam) = self.first();
        println!("script {} differs; it and both traces are in {}", self.number, folder.display());
        println!("pail: {pail}\nOTP:  {beam}");
    }
}

fn show(beam: &mut Beam, file: &Path) -> bool {
    let script: Vec<String> = fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    let (pail, beam) = (world::run(&script), beam.run(&script));
    for (pail, beam) in pail.iter().zip(&beam) {
        println!("{pail}");
        if pail != beam {
            println!("{beam}  <= OTP");
        }
    }
    pail == beam
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use pail::planted::{Bug, plant};

    use super::{Beam, SCRIPTS, agree, difference};

    /// Whether there is no difference without a bug, and one with each.
    pub(super) fn all_are_found(beam: &mut Beam) -> bool {
        let bugs = [Bug::DeafDemonitor, Bug::ContagiousNormal, Bug::TrappedKill];
        plant(None);
        let sound = agree(beam, 100);
        let found = bugs.map(|bug| {
            plant(Some(bug));
            let difference = difference(beam, SCRIPTS);
            match &difference {
                Some(difference) => {
                    let (pail, beam) = difference.first();
                    println!("{bug:?} is found by script {}:\npail: {pail}\nOTP:  {beam}", difference.number);
                }
                None => println!("{bug:?} is not found by {SCRIPTS} scripts"),
            }
            difference.is_some()
        });
        plant(None);
        sound && found.into_iter().all(|found| found)
    }
}

/// The script crashes handlers on purpose; what else panics is heard.
fn silence_the_script_s_crashes() {
    let loud = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let words = info.payload_as_str().unwrap_or_default();
        if !words.starts_with("boom") {
            loud(info);
        }
    }));
}
