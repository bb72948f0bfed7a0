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
//! of the buckets that were created, by its id. Numbers are taken modulo how many there are; of monitors 0 is the newest.
//! `registrar` crashes it.

use std::iter;

use crate::random::Random;

/// The registrar's supervisor bears so many, and Elixir's too.
const REGISTRAR_CRASHES_MAX: usize = 3;

/// So many slots have processes that trap exits from the beginning, so that there is somebody to hold.
const TRAPPERS: u64 = 2;

/// A script of so many lines.
pub(crate) fn script(random: &mut Random, lines: usize) -> Vec<String> {
    let mut script = Script { random, crashes: 0 };
    let mut all: Vec<String> = (0..5).flat_map(spawn).collect();
    all.extend(["client c0", "client c1", "create b0", "create b1"].map(String::from));
    while all.len() < lines {
        all.extend(script.lines());
    }
    all.truncate(lines);
    all
}

fn spawn(slot: u64) -> Vec<String> {
    let trap = (slot < TRAPPERS).then(|| format!("trap p{slot} on"));
    iter::once(format!("spawn p{slot}")).chain(trap).collect()
}

struct Script<'a> {
    random: &'a mut Random,
    crashes: usize,
}

impl Script<'_> {
    fn lines(&mut self) -> Vec<String> {
        match self.random.below(8) {
            0 => spawn(self.random.below(5)),
            1 if self.random.below(4) == 0 => self.of_one_who_is_held(),
            1..4 => vec![self.of_processes()],
            _ => vec![self.of_buckets()],
        }
    }

    /// Ties that are taken away while the death of the other end waits in the mailbox: by chance alone that is rare.
    fn of_one_who_is_held(&mut self) -> Vec<String> {
        let (held, other) = (self.slot("p", TRAPPERS), format!("p{}", TRAPPERS + self.random.below(5 - TRAPPERS)));
        let mut lines = vec![format!("monitor {held} {other}"), format!("link {held} {other}"), format!("hold {held}")];
        lines.push(format!("stop {other} {}", self.reason()));
        for _ in 0..3 {
            lines.push(match self.random.below(3) {
                0 => format!("unlink {held} {other}"),
                1 => format!("demonitor {} {}", self.random.below(2), self.one_of(&["flush", "keep"])),
                _ => self.of_processes(),
            });
        }
        lines.push(format!("release {held}"));
        lines
    }

    fn of_processes(&mut self) -> String {
        let (p, q) = (self.slot("p", 5), self.slot("p", 5));
        let trapper = self.slot("p", TRAPPERS);
        let number = self.random.below(1_000);
        match self.random.below(100) {
            0..2 => format!("call {p}"),
            2..6 => format!("note {p} {number}"),
            6..10 => format!("stop {p} {}", self.reason()),
            10..12 => format!("quit {p} {}", self.reason()),
            12..14 => format!("crash {p} {}", self.words()),
            14..16 => format!("fall {p} {}", self.words()),
            16..25 => format!("exit {p} {q} {}", self.reason()),
            25..30 => format!("trap {p} {}", self.one_of(&["on", "off"])),
            30..51 => format!("link {p} {q}"),
            51..56 => format!("unlink {p} {q}"),
            56..74 => format!("monitor {p} {q}"),
            74..83 => format!("demonitor {number} {}", self.one_of(&["flush", "keep"])),
            83..90 => format!("hold {trapper}"),
            _ => format!("release {trapper}"),
        }
    }

    fn of_buckets(&mut self) -> String {
        let (name, bucket, client) = (self.slot("b", 3), self.bucket(), self.slot("c", 3));
        let (key, number) = (self.slot("k", 2), self.random.below(1_000));
        match self.random.below(100) {
            0..18 => format!("create {name}"),
            18..20 => format!("lookup {bucket}"),
            20..28 => format!("put {bucket} {key} {number}"),
            28..32 => format!("get {bucket} {key}"),
            32..35 => format!("delete {bucket} {key}"),
            35..41 => format!("b.stop {bucket} {}", self.stop_reason()),
            41..43 => format!("b.crash {bucket} {}", self.words()),
            43..45 => "list".to_owned(),
            45..53 => format!("watch {bucket}"),
            53..56 => format!("unwatch {number}"),
            56..58 if self.crashes < REGISTRAR_CRASHES_MAX => {
                self.crashes += 1;
                format!("registrar {}", self.words())
            }
            56..68 => format!("client {client}"),
            68..72 => format!("c.trap {client} {}", self.one_of(&["on", "on", "off"])),
            72..91 => format!("c.link {client} {bucket} {}", self.one_of(&["must", "create", "create", "new"])),
            91..93 => format!("c.unlink {client} {name}"),
            93..95 => format!("c.links {client}"),
            95..97 => format!("c.bye {client}"),
            _ => format!("c.lose {client}"),
        }
    }

    fn slot(&mut self, kind: &str, count: u64) -> String {
        format!("{kind}{}", self.random.below(count))
    }

    fn bucket(&mut self) -> String {
        if self.random.below(4) == 0 { self.slot("@", 1_000) } else { self.slot("b", 3) }
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
