//! pail, as the one who is asked: a script's processes, buckets and clients, on its own layers, in this process.
//!
//! The trace is that of `oracle.exs`, and where pail differs from OTP on purpose, this is where it is made equal:
//!
//! - LINKED is the reason of a process that died of another's death, whose own reason is in the detail. OTP hands the reason
//!   on as it is, so here the one in the detail counts.
//! - A client is told of each end of a bucket that it is linked to. To OTP's processes a normal end is nothing, unless they
//!   trap exits.
//! - A monitor of oneself is one that can be taken away again, and in OTP none. Neither ever fires.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context as TaskContext, Poll, Waker},
    thread::{self, JoinHandle},
};

use futures_util::StreamExt as _;
use pail::{
    bucket::{Begin, Delete, Entry, Get, Put},
    clock::ManualClock,
    hooks,
    limits::Limits,
    link::{Life, LinkError, News, Trap},
    name::{BucketId, BucketName, Key, Version},
    process::{Call, CallError, Context, Exit, Flush, GenServer, Info, Monitor, MonitorRef, Pid, Process, Reason},
    registry::{Error, Mode, Registry, Target},
    value::Value,
    watch::{Initial, Kinds, NoticeKind, Update, Watch},
};

const FOR_EVER: Begin = Begin { ttl: None, idle_ttl: None };

/// What a process was told.
#[derive(Default)]
struct Actor {
    notes: Vec<String>,
    downs: Vec<(MonitorRef, Exit)>,
    exits: Vec<(Pid, Exit)>,
}

enum Act {
    Note(String),
    Fall(String),
    /// Say so, and wait within the handler.
    Hold(Sender<()>, Receiver<()>),
}

impl GenServer for Actor {
    type Identity = String;
    type Cast = Act;

    fn handle_cast(&mut self, act: Act, _: &mut Context<'_, Self>) {
        match act {
            Act::Note(number) => self.notes.push(number),
            Act::Fall(words) => panic!("{words}"),
            Act::Hold(holds, release) => {
                holds.send(()).expect("who holds it waits");
                release.recv().unwrap_or_default();
            }
        }
    }

    fn handle_info(&mut self, info: Info, _: &mut Context<'_, Self>) {
        match info {
            Info::Down(down) => self.downs.push((down.monitor, down.exit)),
            Info::Exit { from, exit } => self.exits.push((from, exit)),
        }
    }
}

impl<R, F: FnOnce(&mut Actor, &mut Context<'_, Actor>) -> R> Call<F> for Actor {
    type Reply = R;

    fn handle_call(&mut self, work: F, me: &mut Context<'_, Self>) -> R {
        work(self, me)
    }
}

/// Something that was born in a script, and whether its death was told of.
enum Born {
    Process { process: Process<Actor>, traps: bool, told: bool },
    Client { life: Life, traps: bool, told: bool },
}

struct Held {
    release: Sender<()>,
    handler: JoinHandle<()>,
}

/// One script's.
pub(crate) struct World {
    registry: Registry,
    limits: Limits,
    /// All there ever were, by their number.
    born: Vec<Born>,
    /// Who was the last in a slot.
    slots: HashMap<String, usize>,
    held: HashMap<usize, Held>,
    /// Who watches whom.
    monitors: Vec<(usize, usize, Monitor)>,
    buckets: Vec<(String, BucketId)>,
    watches: Vec<Option<Watch>>,
    deaths: Watch,
}

/// The trace of a script, a line for each of its lines.
pub(crate) fn run(script: &[String]) -> Vec<String> {
    let mut world = World::new();
    let step = |line: &String| {
        let words: Vec<&str> = line.split(' ').collect();
        let result = world.act(&words);
        world.registry.deliver();
        let mut parts = vec![format!("{line} => {result}")];
        parts.extend(world.news());
        parts.join(" | ")
    };
    script.iter().map(step).collect()
}

impl Drop for World {
    fn drop(&mut self) {
        let held: Vec<usize> = self.held.keys().copied().collect();
        held.into_iter().for_each(|number| self.release(number));
    }
}

impl World {
    fn new() -> Self {
        let limits = Limits::default();
        let registry = Registry::start(limits.clone(), Arc::<ManualClock>::default(), "oracle".to_owned());
        let deaths =
            Watch::prefix(registry.clone(), "", DOWNS, Initial::Skipped).expect("a new registry can be watched");
        Self {
            registry,
            limits,
            born: Vec::new(),
            slots: HashMap::new(),
            held: HashMap::new(),
            monitors: Vec::new(),
            buckets: Vec::new(),
            watches: Vec::new(),
            deaths,
        }
    }

    fn act(&mut self, words: &[&str]) -> String {
        match *words {
            ["spawn" | "client", slot] => self.spawn(words[0], slot),
            ["demonitor", number, flush] => self.demonitor(number, flush),
            ["create", name] => match self.registry.create(self.name(name), FOR_EVER) {
                Ok((bucket, created)) => {
                    self.know(name, bucket.id);
                    format!("{} {created}", self.bucket_label(bucket.id.get()))
                }
                Err(error) => format!("{error}"),
            },
            ["registrar", words] => {
                let name = format!("{}{words}", hooks::PANIC);
                match self.registry.create(self.name(&name), FOR_EVER) {
                    Err(Error::RegistryCrashed(exit)) => reason(&exit),
                    other => format!("{other:?}"),
                }
            }
            ["list"] => {
                let page = self.registry.list("", None, 1_000).expect("the registrar lives");
                let label = |id: BucketId| self.bucket_label(id.get());
                let names = page.buckets.iter().map(|bucket| format!("{}{}", bucket.name, label(bucket.id)));
                names.collect::<Vec<_>>().join(" ")
            }
            ["watch", target] => self.watch(target),
            ["unwatch", number] => match place(number, self.watches.len()) {
                Some(place) => {
                    self.watches[place] = None;
                    "ok".to_owned()
                }
                None => "none".to_owned(),
            },
            ["lookup" | "put" | "get" | "delete" | "b.stop" | "b.crash", target, ..] => {
                self.bucket(words[0], target, &words[2..])
            }
            [verb, slot, ..] => match self.slots.get(slot).copied().filter(|number| self.lives(*number)) {
                None => "noproc".to_owned(),
                Some(number) => match verb.strip_prefix("c.") {
                    Some(verb) => self.client(verb, number, &words[2..]),
                    None => self.process(verb, number, &words[2..]),
                },
            },
            _ => panic!("no such line: {words:?}"),
        }
    }

    fn spawn(&mut self, what: &str, slot: &str) -> String {
        if self.slots.get(slot).is_some_and(|number| self.lives(*number)) {
            return "lives".to_owned();
        }
        let number = self.born.len();
        let (traps, told) = (false, false);
        self.born.push(if what == "client" {
            Born::Client { life: Life::begin(self.registry.clone(), Arc::default()), traps, told }
        } else {
            Born::Process { process: Process::start(format!("n{number}"), Actor::default()), traps, told }
        });
        self.slots.insert(slot.to_owned(), number);
        format!("n{number}")
    }

    fn lives(&self, number: usize) -> bool {
        match &self.born[number] {
            Born::Process { process, .. } => process.is_alive(),
            Born::Client { told, .. } => !told,
        }
    }

    fn process_of(&self, number: usize) -> Process<Actor> {
        match &self.born[number] {
            Born::Process { process, .. } => process.clone(),
            Born::Client { .. } => panic!("n{number} is a client"),
        }
    }

    fn process(&mut self, verb: &str, number: usize, rest: &[&str]) -> String {
        let process = self.process_of(number);
        let held = self.held.contains_key(&number);
        if held && matches!(verb, "call" | "stop" | "quit" | "crash" | "trap" | "hold") {
            return "busy".to_owned();
        }
        match (verb, rest) {
            ("call", []) => return answer(process.call(|_: &mut Actor, _: &mut Context<'_, Actor>| "pong".to_owned())),
            ("note", [note]) => process.cast(Act::Note((*note).to_owned())).expect("it lives"),
            ("stop", [reason]) => process.stop(&exit(reason)).expect("it lives"),
            ("quit", [reason]) => {
                let exit = exit(reason);
                let quit = |_: &mut Actor, me: &mut Context<'_, Actor>| {
                    me.stop(exit);
                    "quits".to_owned()
                };
                return answer(process.call(quit));
            }
            ("crash", [words]) => {
                let crash = |_: &mut Actor, _: &mut Context<'_, Actor>| panic!("{words}");
                return answer(process.call(crash));
            }
            ("fall", [words]) => process.cast(Act::Fall((*words).to_owned())).expect("it lives"),
            ("trap", [on]) => {
                process.trap_exit(*on == "on");
                self.set_trap(number, *on == "on");
            }
            ("exit", [to, reason]) => {
                let to = self.slots[*to];
                if self.held.contains_key(&to) {
                    return "busy".to_owned();
                }
                self.process_of(to).exit(process.pid(), exit(reason));
            }
            ("link", [to]) => process.link(&self.process_of(self.slots[*to])).expect("it lives"),
            ("unlink", [from]) => process.unlink(&self.process_of(self.slots[*from])),
            ("monitor", [to]) => {
                let to = self.slots[*to];
                self.monitors.push((number, to, process.monitor(&self.process_of(to))));
                return format!("m{}", self.monitors.len() - 1);
            }
            ("hold", []) => return self.hold(number, process),
            ("release", []) if held => self.release(number),
            ("release", []) => return "free".to_owned(),
            _ => panic!("no such line: {verb} {rest:?}"),
        }
        "ok".to_owned()
    }

    fn set_trap(&mut self, number: usize, on: bool) {
        let (Born::Process { traps, .. } | Born::Client { traps, .. }) = &mut self.born[number];
        *traps = on;
    }

    fn hold(&mut self, number: usize, process: Process<Actor>) -> String {
        let Born::Process { traps: true, .. } = self.born[number] else { return "no".to_owned() };
        let ((says, holds), (release, released)) = (channel(), channel());
        let handler = thread::spawn(move || process.cast(Act::Hold(says, released)).expect("it lives"));
        holds.recv().expect("it holds");
        self.held.insert(number, Held { release, handler });
        "ok".to_owned()
    }

    fn release(&mut self, number: usize) {
        let Held { release, handler } = self.held.remove(&number).expect("it is held");
        release.send(()).expect("it waits");
        handler.join().expect("what the script crashes is caught");
    }

    fn demonitor(&mut self, number: &str, flush: &str) -> String {
        let Some(back) = place(number, self.monitors.len()) else { return "none".to_owned() };
        let (owner, target, monitor) = &self.monitors[self.monitors.len() - 1 - back];
        if !self.lives(*owner) {
            return "noproc".to_owned();
        }
        let flush = if flush == "flush" { Flush::Yes } else { Flush::No };
        let removed = self.process_of(*owner).demonitor(monitor, flush);
        if owner == target { "oneself".to_owned() } else { removed.to_string() }
    }

    fn name<'a>(&self, name: &'a str) -> BucketName<'a> {
        BucketName::parse(name, &self.limits).expect("a script's names are names")
    }

    /// A bucket's name and, where the script means a certain one, its id; `None` where there never was any.
    fn aim(&self, target: &str) -> Option<(String, Option<u64>)> {
        match target.strip_prefix('@') {
            None => Some((target.to_owned(), None)),
            Some(number) => {
                let (name, id) = &self.buckets[place(number, self.buckets.len())?];
                Some((name.clone(), Some(id.get())))
            }
        }
    }

    fn know(&mut self, name: &str, id: BucketId) {
        if !self.buckets.iter().any(|(_, known)| *known == id) {
            self.buckets.push((name.to_owned(), id));
        }
    }

    fn bucket_label(&self, id: u64) -> String {
        let place = self.buckets.iter().position(|(_, known)| known.get() == id);
        place.map_or("#unknown".to_owned(), |place| format!("#{place}"))
    }

    fn bucket(&mut self, verb: &str, target: &str, rest: &[&str]) -> String {
        let Some((name, id)) = self.aim(target) else { return "not-found".to_owned() };
        let target = Target { name: self.name(&name), id };
        let key = |text| Key::parse(text, &self.limits).expect("a script's keys are keys");
        let done = match (verb, rest) {
            ("lookup", []) => match (self.registry.lookup(target.name), id) {
                (Ok(bucket), Some(id)) if bucket.id.get() != id => Err(Error::BucketNotFound),
                (found, _) => found.map(|bucket| (bucket.id, bucket.summary.version.0.to_string())),
            },
            ("put", [name, value]) => {
                let put = Put { key: key(name), value: Value::Text((*value).into()), ttl: None, expected: None };
                self.registry.ask(target, put).map(|(id, version)| (id, version.0.to_string()))
            }
            ("get", [name]) => match self.registry.ask(target, Get { key: key(name) }) {
                Ok((id, entry)) => Ok((id, shown(Some(&entry.value), entry.version))),
                // As an entry RPC it answers with the bucket, were it a success.
                Err(Error::Bucket(pail::bucket::Error::KeyNotFound)) => {
                    self.registry.lookup(target.name).map(|bucket| (bucket.id, "none".to_owned()))
                }
                Err(error) => Err(error),
            },
            ("delete", [name]) => {
                let deleted = self.registry.ask(target, Delete { key: key(name), expected: None });
                let old = deleted.map(|(id, deleted)| (id, deleted.entry));
                let shown = |old: Entry| shown(old.value.as_ref(), old.version);
                old.map(|(id, old)| (id, old.map_or("none".to_owned(), shown)))
            }
            ("b.stop", [reason]) => self.registry.stop(target, &exit(reason)).map(|(id, _)| (id, "ok".to_owned())),
            ("b.crash", [words]) => {
                let name = format!("{}{words}", hooks::PANIC);
                match self.registry.ask(target, Get { key: key(&name) }) {
                    Err(Error::BucketCrashed { id, exit }) => Ok((id, reason(&exit))),
                    other => other.map(|(id, entry)| (id, format!("{entry:?}"))),
                }
            }
            _ => panic!("no such line: {verb} {rest:?}"),
        };
        match done {
            Ok((id, result)) => format!("{} {result}", self.bucket_label(id.get())),
            Err(Error::BucketNotFound) => "not-found".to_owned(),
            Err(error) => format!("{error}"),
        }
    }

    fn watch(&mut self, target: &str) -> String {
        // A bucket that never was has no name either.
        let (name, id) = self.aim(target).unwrap_or_else(|| ("nobody".to_owned(), None));
        let target = Target { name: self.name(&name), id };
        let mut watch =
            Watch::names(self.registry.clone(), &[target], DOWNS, Initial::Skipped).expect("the registrar lives");
        let started = next(&mut watch).expect("it begins");
        let Update::Started { monitors, .. } = started else { panic!("it begins with {started:?}") };
        self.watches.push(Some(watch));
        let label = monitors[0].id.map_or("none".to_owned(), |id| self.bucket_label(id.get()));
        format!("w{} {label}", self.watches.len() - 1)
    }

    fn client(&mut self, verb: &str, number: usize, rest: &[&str]) -> String {
        let Born::Client { life, .. } = &self.born[number] else { panic!("n{number} is a process") };
        match (verb, rest) {
            ("trap", [on]) => {
                life.trap(if *on == "on" { Trap::Exits } else { Trap::Nothing }).expect("it lives");
                self.set_trap(number, *on == "on");
            }
            ("link", [target, mode]) => {
                let Some((name, id)) = self.aim(target) else { return "not-found".to_owned() };
                let mode = match *mode {
                    "must" => Mode::MustExist,
                    "create" => Mode::CreateIfAbsent,
                    _ => Mode::MustCreate,
                };
                let linked = life.link(Target { name: self.name(&name), id }, mode, FOR_EVER).expect("it lives");
                return match linked {
                    Ok(linked) => {
                        let id = self.registry.lookup(self.name(&name)).expect("it is linked to it").id;
                        self.know(&name, id);
                        format!("linked {}", self.bucket_label(linked.id))
                    }
                    Err(LinkError::Registry(Error::BucketExists { id })) => {
                        format!("exists {}", self.bucket_label(id.get()))
                    }
                    Err(LinkError::Registry(Error::BucketNotFound)) => "not-found".to_owned(),
                    Err(error) => format!("{error}"),
                };
            }
            ("unlink", [name]) => life.unlink(name, None).expect("it lives"),
            ("links", []) => {
                let mut links: Vec<String> = life.links().iter().map(|link| self.bucket_label(link.id)).collect();
                links.sort();
                return links.join(" ");
            }
            ("bye", []) => life.good_bye(),
            ("lose", []) => life.lose("gone"),
            _ => panic!("no such line: c.{verb} {rest:?}"),
        }
        "ok".to_owned()
    }

    /// Who died, and what the living were told.
    fn news(&mut self) -> Vec<String> {
        let (mut deaths, mut mail) = (Vec::new(), Vec::new());
        for (id, why) in downs(&mut self.deaths) {
            deaths.push(format!("{} dead {why}", self.bucket_label(id)));
        }
        for number in 0..self.born.len() {
            if let Some(why) = self.death(number, &mut mail) {
                deaths.push(format!("n{number} dead {why}"));
            } else if self.lives(number) && !self.held.contains_key(&number) {
                self.mail(number, &mut mail);
            }
        }
        let mut watched = Vec::new();
        for (number, watch) in self.watches.iter_mut().enumerate() {
            for (_, why) in watch.iter_mut().flat_map(downs) {
                watched.push(format!("w{number} DOWN {why}"));
            }
        }
        for part in [&mut deaths, &mut mail, &mut watched] {
            part.sort();
        }
        [deaths, mail, watched].concat()
    }

    /// Why it died, once. A client that lives has its mail taken on the way: the end is the last of its news.
    fn death(&mut self, number: usize, mail: &mut Vec<String>) -> Option<String> {
        let (why, told) = match &mut self.born[number] {
            Born::Process { told: true, .. } | Born::Client { told: true, .. } => return None,
            Born::Process { process, told, .. } => (process.why()?, told),
            Born::Client { life, traps, told } => {
                let mut exits = Vec::new();
                let end = loop {
                    match life.poll_news(&mut TaskContext::from_waker(Waker::noop())) {
                        Poll::Ready(News::Exit(gone)) => exits.push(gone),
                        Poll::Ready(News::End(end)) => break Some(end.exit),
                        Poll::Pending => break None,
                    }
                };
                let Some(end) = end else {
                    exits.retain(|gone| *traps || gone.exit.reason != Reason::Normal);
                    for gone in exits {
                        mail.push(format!("n{number} EXIT {} {}", self.bucket_label(gone.id), reason(&gone.exit)));
                    }
                    return None;
                };
                (end, told)
            }
        };
        *told = true;
        Some(reason(&why))
    }

    fn mail(&self, number: usize, mail: &mut Vec<String>) {
        let Born::Process { process, .. } = &self.born[number] else { return };
        let Actor { notes, downs, exits } =
            process.call(|actor: &mut Actor, _: &mut Context<'_, Actor>| std::mem::take(actor)).expect("it lives");
        if !notes.is_empty() {
            mail.push(format!("n{number} notes {}", notes.join(",")));
        }
        for (monitor, exit) in downs {
            let place = self.monitors.iter().position(|(_, _, known)| known.monitor == monitor);
            let place = place.map_or("unknown".to_owned(), |place| place.to_string());
            mail.push(format!("n{number} DOWN m{place} {}", reason(&exit)));
        }
        let is = |born: &Born, pid| matches!(born, Born::Process { process, .. } if process.pid() == pid);
        for (from, exit) in exits {
            let from = self.born.iter().position(|born| is(born, from)).expect("only processes send exits");
            mail.push(format!("n{number} EXIT n{from} {}", reason(&exit)));
        }
    }
}

const DOWNS: Kinds<'static> = Kinds { created: false, down: true, entries: None };

/// What the watch has to say now.
fn next(watch: &mut Watch) -> Option<Update> {
    match watch.poll_next_unpin(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(Some(response)) => Some(response.expect("a watch that is read does not lag").update),
        Poll::Ready(None) | Poll::Pending => None,
    }
}

/// The ids of those who went down, and why.
fn downs(watch: &mut Watch) -> Vec<(u64, String)> {
    let mut downs = Vec::new();
    while let Some(update) = next(watch) {
        let Update::Events(notices) = update else { continue };
        for notice in notices {
            let exit = match &notice.kind {
                NoticeKind::Happened(event) => event.exit().cloned(),
                NoticeKind::NoProc { .. } => Some(Reason::NoProc.into()),
                _ => None,
            };
            let Some(exit) = exit else { panic!("only deaths were asked for: {notice:?}") };
            downs.push((notice.id.unwrap_or_default(), reason(&exit)));
        }
    }
    downs
}

fn answer(result: Result<String, CallError>) -> String {
    match result {
        Ok(reply) => reply,
        Err(CallError::NoProc) => "noproc".to_owned(),
        Err(CallError::Crashed(exit)) => reason(&exit),
    }
}

fn shown(value: Option<&Value>, Version(version): Version) -> String {
    match value {
        Some(Value::Text(text)) => format!("{text}@{version}"),
        other => panic!("nobody has put {other:?}"),
    }
}

/// The one that a number picks among so many.
fn place(number: &str, count: usize) -> Option<usize> {
    number.parse::<usize>().expect("a number").checked_rem(count)
}

/// `name` or `name:words`, of the first death of a chain.
fn reason(exit: &Exit) -> String {
    let cause = match exit.reason {
        Reason::Linked => exit.detail().split_once(": ").map_or(exit.detail(), |(_, cause)| cause).to_owned(),
        _ => exit.to_string(),
    };
    match cause.split_once(": ") {
        Some((name, words)) => format!("{}:{words}", name.to_lowercase()),
        None => cause.to_lowercase(),
    }
}

/// The other way round.
fn exit(text: &str) -> Exit {
    let (name, words) = text.split_once(':').unwrap_or((text, ""));
    let reason = match name {
        "normal" => Reason::Normal,
        "shutdown" => Reason::Shutdown,
        "killed" => Reason::Killed,
        "expired" => Reason::Expired,
        "crashed" => Reason::Crashed,
        "noconnection" => Reason::NoConnection,
        _ => panic!("no such reason: {text}"),
    };
    Exit::new(reason, words)
}
