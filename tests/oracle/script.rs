//! Scripts: what is done to processes, buckets and clients, a line each. The same seed makes the same scripts.
//!
//! ```text
//! spawn P, call P, note P NUMBER, stop P REASON, quit P REASON, crash P WORDS, fall P WORDS, exit P TO REASON, trap P on|off,
//! link P TO, unlink P FROM, monitor P TO, demonitor NUMBER flush|keep, hold P, release P
//!
//! create NAME, lookup B, put B KEY VALUE, get B KEY, delete B KEY, b.stop B REASON, b.crash B WORDS, list,
//! watch B, unwatch NUMBER, registrar WORDS
//!
//! client C, c.trap C on|off, c.link C B must|create|new, c.unlink C NAME, c.links C, c.bye C, c.lose C
//! ```
//!
//! P and C are slots, in which one process after the other lives. `quit` is a stop out of a handler, `fall` a crash in a
//! cast. `hold` keeps a process in a handler, so that its mail waits, until `release`. B is a name, or `@` and a number: one
//! of the buckets that were created, by its id. Numbers are taken modulo how many there are. `registrar` crashes it.

use crate::random::Random;

/// The registrar's supervisor bears so many, and Elixir's too.
const REGISTRAR_CRASHES_MAX: usize = 3;

/// A script of so many lines.
pub(crate) fn script(random: &mut Random, lines: usize) -> Vec<String> {
    let mut script = Script { random, crashes: 0 };
    let mut all: Vec<String> = (0..5).map(|slot| format!("spawn p{slot}")).collect();
    all.extend(["client c0", "client c1", "create b0", "create b1"].map(String::from));
    all.truncate(lines);
    while all.len() < lines {
        all.push(script.line());
    }
    all
}

struct Script<'a> {
    random: &'a mut Random,
    crashes: usize,
}

impl Script<'_> {
    fn line(&mut self) -> String {
        if self.random.below(2) == 0 { self.of_processes() } else { self.of_buckets() }
    }

    fn of_processes(&mut self) -> String {
        let (p, q) = (self.slot("p", 5), self.slot("p", 5));
        let number = self.random.below(1_000);
        match self.random.below(100) {
            0..10 => format!("spawn {p}"),
            10..13 => format!("call {p}"),
            13..18 => format!("note {p} {number}"),
            18..23 => format!("stop {p} {}", self.reason()),
            23..25 => format!("quit {p} {}", self.reason()),
            25..28 => format!("crash {p} {}", self.words()),
            28..31 => format!("fall {p} {}", self.words()),
            31..39 => format!("exit {p} {q} {}", self.reason()),
            39..46 => format!("trap {p} {}", self.one_of(&["on", "on", "off"])),
            46..61 => format!("link {p} {q}"),
            61..66 => format!("unlink {p} {q}"),
            66..81 => format!("monitor {p} {q}"),
            81..89 => format!("demonitor {number} {}", self.one_of(&["flush", "keep"])),
            89..95 => format!("hold {p}"),
            _ => format!("release {p}"),
        }
    }

    fn of_buckets(&mut self) -> String {
        let (name, bucket, client) = (self.slot("b", 4), self.bucket(), self.slot("c", 3));
        let (key, number) = (self.slot("k", 3), self.random.below(1_000));
        match self.random.below(100) {
            0..15 => format!("create {name}"),
            15..18 => format!("lookup {bucket}"),
            18..26 => format!("put {bucket} {key} {number}"),
            26..31 => format!("get {bucket} {key}"),
            31..35 => format!("delete {bucket} {key}"),
            35..44 => format!("b.stop {bucket} {}", self.stop_reason()),
            44..48 => format!("b.crash {bucket} {}", self.words()),
            48..50 => "list".to_owned(),
            50..60 => format!("watch {bucket}"),
            60..63 => format!("unwatch {number}"),
            63..66 if self.crashes < REGISTRAR_CRASHES_MAX => {
                self.crashes += 1;
                format!("registrar {}", self.words())
            }
            63..71 => format!("client {client}"),
            71..76 => format!("c.trap {client} {}", self.one_of(&["on", "on", "off"])),
            76..90 => format!("c.link {client} {bucket} {}", self.one_of(&["must", "create", "create", "new"])),
            90..93 => format!("c.unlink {client} {name}"),
            93..96 => format!("c.links {client}"),
            96..98 => format!("c.bye {client}"),
            _ => format!("c.lose {client}"),
        }
    }

    fn slot(&mut self, kind: &str, count: u64) -> String {
        format!("{kind}{}", self.random.below(count))
    }

    fn bucket(&mut self) -> String {
        if self.random.below(4) == 0 { self.slot("@", 1_000) } else { self.slot("b", 4) }
    }

    /// With this a crash of the harness's own is told from one of the script's: see `main`.
    fn words(&mut self) -> String {
        format!("boom{}", self.random.below(1_000))
    }

    fn stop_reason(&mut self) -> String {
        let words = self.words();
        match self.random.below(5) {
            0 | 1 => "normal".to_owned(),
            2 => "shutdown".to_owned(),
            3 => "killed".to_owned(),
            _ => format!("crashed:{words}"),
        }
    }

    fn reason(&mut self) -> String {
        let words = self.words();
        match self.random.below(4) {
            0 => format!("shutdown:{words}"),
            1 => self.one_of(&["expired", "noconnection"]).to_owned(),
            _ => self.stop_reason(),
        }
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[usize::try_from(self.random.below(choices.len() as u64)).unwrap_or_default()]
    }
}
