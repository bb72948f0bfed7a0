//! What holds in every order of steps. Each scenario is run again for each.

use std::sync::{
    Arc, Mutex as Plain,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use loom::thread;

use crate::{
    Bug, Scenario,
    budget::Budget,
    process::{Call, CastError, Context, Exit, Flush, GenServer, Info, Process, Reason},
};

pub(crate) const ALL: [Scenario; 15] = [
    ("every cast is handled, once, by somebody", every_cast_is_handled),
    ("a sender's casts come in order, and before its call", casts_come_in_order),
    ("a mailbox takes what it can hold, and no more", a_full_mailbox_refuses),
    ("a cast that is taken is handled, or the process died of what came before", a_cast_meets_a_stop),
    ("a monitor fires once, whenever it was set", a_monitor_meets_an_exit),
    ("who finds a process dead finds that its watcher knows", the_dead_are_known),
    ("a demonitor takes the monitor away, or its DOWN has come", a_demonitor_meets_an_exit),
    ("after a demonitor with flush no DOWN comes", a_flush_meets_an_exit),
    ("a link takes both, whenever it was made", a_link_meets_an_exit),
    ("after an unlink the end of one is nothing to the other", an_unlink_meets_an_exit),
    ("a kill goes over a link that both make at once", links_meet_a_kill),
    ("two that are linked and end at once each end once", two_ends_meet),
    ("a normal end does not go over a link", a_normal_end_stays),
    ("one watcher comes and one goes, and a third is told", watchers_come_and_go),
    ("no more is reserved than there is, and all is given back", a_charge_meets_a_release),
];

/// Bugs, and the scenario that is to find each.
pub(crate) const FOUND_BY: [(Bug, Scenario); 5] = [
    (Bug::LeftMessage, ALL[0]),
    (Bug::DeafDemonitor, ALL[6]),
    (Bug::TrappedKill, ALL[10]),
    (Bug::ContagiousNormal, ALL[12]),
    (Bug::Overdraft, ALL[14]),
];

/// What a process was told. No step of loom's is taken while this is locked, so nobody ever waits for it.
#[derive(Default)]
struct Told {
    casts: Vec<u32>,
    downs: Vec<Reason>,
    exits: Vec<Reason>,
    /// Why it ended, each time that it did.
    ends: Vec<Reason>,
}

#[derive(Clone, Default)]
struct Log(Arc<Plain<Told>>);

impl Log {
    fn read<R>(&self, read: impl FnOnce(&mut Told) -> R) -> R {
        read(&mut self.0.lock().unwrap())
    }

    fn downs(&self) -> Vec<Reason> {
        self.read(|told| told.downs.clone())
    }

    fn ends(&self) -> Vec<Reason> {
        self.read(|told| told.ends.clone())
    }
}

struct Witness(Log);

impl GenServer for Witness {
    type Identity = &'static str;
    type Cast = u32;

    fn handle_cast(&mut self, cast: u32, _: &mut Context<'_, Self>) {
        self.0.read(|told| told.casts.push(cast));
    }

    fn handle_info(&mut self, info: Info, _: &mut Context<'_, Self>) {
        self.0.read(|told| match info {
            Info::Down(down) => told.downs.push(down.exit.reason),
            Info::Exit { exit, .. } => told.exits.push(exit.reason),
        });
    }

    fn terminate(&mut self, exit: &Exit) {
        self.0.read(|told| told.ends.push(exit.reason));
    }
}

/// Reads what it was told by a call of its own.
struct Read;

impl Call<Read> for Witness {
    type Reply = Vec<u32>;

    fn handle_call(&mut self, _: Read, _: &mut Context<'_, Self>) -> Vec<u32> {
        self.0.read(|told| told.casts.clone())
    }
}

fn witness() -> (Process<Witness>, Log) {
    let log = Log::default();
    (Process::start("witness", Witness(log.clone())), log)
}

/// Whether the first of a [`race`] is on the thread that goes on until it has to wait, or the second. Loom keeps one access to
/// each atomic in mind, the last, so what it walks through differs.
pub(crate) static IS_SWAPPED: AtomicBool = AtomicBool::new(false);

/// Does two things at once.
fn race<A: 'static, B: 'static>(one: impl FnOnce() -> A + 'static, two: impl FnOnce() -> B + 'static) -> (A, B) {
    if IS_SWAPPED.load(Relaxed) {
        let (two, one) = beside(two, one);
        return (one, two);
    }
    beside(one, two)
}

fn beside<A: 'static, B>(there: impl FnOnce() -> A + 'static, here: impl FnOnce() -> B) -> (A, B) {
    let there = thread::spawn(there);
    let here = here();
    (there.join().unwrap(), here)
}

/// Ends the process, for this reason.
fn stop(process: &Process<Witness>, reason: Reason) -> impl FnOnce() + 'static {
    let process = process.clone();
    move || process.stop(&reason.into()).unwrap()
}

fn every_cast_is_handled() {
    let (process, log) = witness();
    let (one, two) = (process.clone(), process.clone());
    race(move || one.cast(1).unwrap(), move || two.cast(2).unwrap());
    let mut casts = log.read(|told| told.casts.clone());
    casts.sort_unstable();
    assert_eq!(casts, [1, 2], "nobody asked for them: who came too late to handle them left them to the other");
    assert_eq!(process.call(Read).unwrap().len(), 2);
}

fn casts_come_in_order() {
    let (process, _) = witness();
    let (one, two) = (process.clone(), process);
    let (casts, others) = race(
        move || {
            one.cast(1).unwrap();
            one.cast(2).unwrap();
            one.call(Read).unwrap()
        },
        move || two.call(Read).unwrap(),
    );
    assert_eq!(casts, [1, 2]);
    assert!(casts.starts_with(&others));
}

fn a_full_mailbox_refuses() {
    let (process, log) = witness();
    let (one, two) = (process.clone(), process);
    let cast =
        |process: &Process<Witness>, casts: &[u32]| casts.iter().filter(|cast| process.cast(**cast).is_ok()).count();
    let (ones, twos) = race(move || cast(&one, &[1, 2, 3]), move || cast(&two, &[4]));
    assert!(ones + twos >= 2);
    assert_eq!(log.read(|told| told.casts.len()), ones + twos, "what was taken is handled, and nothing else");
}

fn a_cast_meets_a_stop() {
    let (process, log) = witness();
    let caster = process.clone();
    let ((), cast) = race(stop(&process, Reason::Shutdown), move || caster.cast(1));
    let casts = log.read(|told| told.casts.len());
    match cast {
        Err(CastError::NoProc) => assert_eq!(casts, 0),
        Err(CastError::Full) => unreachable!(),
        Ok(()) => assert!(casts <= 1),
    }
    assert_eq!(log.ends(), [Reason::Shutdown]);
    assert_eq!(process.cast(2), Err(CastError::NoProc));
}

fn a_monitor_meets_an_exit() {
    let (target, _) = witness();
    let (watcher, log) = witness();
    let (watched, who) = (target.clone(), watcher.clone());
    race(stop(&target, Reason::Shutdown), move || drop(who.monitor(&watched)));
    assert!(matches!(*log.downs(), [Reason::Shutdown | Reason::NoProc]), "{:?}", log.downs());
    assert!(watcher.is_alive());
}

fn the_dead_are_known() {
    let (target, _) = witness();
    let (watcher, log) = witness();
    watcher.monitor(&target);
    race(stop(&target, Reason::Shutdown), move || {
        if !target.is_alive() {
            watcher.call(Read).unwrap();
            assert_eq!(log.downs(), [Reason::Shutdown]);
        }
    });
}

/// What demonitor said, and the DOWNs when it had said so and in the end.
fn demonitored(flush: Flush) -> (bool, usize, usize) {
    let (target, _) = witness();
    let (watcher, log) = witness();
    let monitor = watcher.monitor(&target);
    let (who, told) = (watcher.clone(), log.clone());
    let ((), (was_there, then)) = race(stop(&target, Reason::Shutdown), move || {
        let was_there = who.demonitor(&monitor, flush);
        // One that is being handled has come before.
        who.call(Read).unwrap();
        (was_there, told.downs().len())
    });
    assert!(watcher.is_alive());
    (was_there, then, log.downs().len())
}

fn a_demonitor_meets_an_exit() {
    let (was_there, _, in_the_end) = demonitored(Flush::No);
    assert_eq!(in_the_end, usize::from(!was_there));
}

fn a_flush_meets_an_exit() {
    let (was_there, then, in_the_end) = demonitored(Flush::Yes);
    assert!(in_the_end <= usize::from(!was_there));
    assert_eq!(in_the_end, then);
}

fn a_link_meets_an_exit() {
    let (one, log) = witness();
    let (two, _) = witness();
    let (linking, linked) = (one.clone(), two.clone());
    let ((), linked) = race(stop(&two, Reason::Crashed), move || linking.link(&linked));
    assert_eq!(linked, Ok(()));
    assert_eq!(log.ends(), [Reason::Linked]);
    let why = one.why().unwrap();
    assert!(why.detail().starts_with("witness: "), "{why}");
}

fn an_unlink_meets_an_exit() {
    let (one, log) = witness();
    let (two, _) = witness();
    one.trap_exit(true);
    one.link(&two).unwrap();
    let (told, linked) = (log.clone(), two.clone());
    let ((), then) = race(stop(&two, Reason::Crashed), move || {
        one.unlink(&linked);
        // What is being handled has come before; what has not begun is taken back.
        one.call(Read).unwrap();
        told.read(|told| told.exits.len())
    });
    assert_eq!(log.read(|told| told.exits.len()), then);
    assert!(log.ends().is_empty());
}

fn links_meet_a_kill() {
    let (one, one_s) = witness();
    let (two, two_s) = witness();
    one.trap_exit(true);
    let (first, second) = (one.clone(), two.clone());
    let (_, linked) = race(
        move || {
            second.link(&first).unwrap();
            first.exit(second.pid(), Reason::Killed.into());
        },
        {
            let (one, two) = (one.clone(), two.clone());
            move || one.link(&two)
        },
    );
    assert!(linked.is_ok() || !one.is_alive());
    assert_eq!((one_s.ends(), two_s.ends()), (vec![Reason::Killed], vec![Reason::Linked]));
}

fn two_ends_meet() {
    let (one, one_s) = witness();
    let (two, two_s) = witness();
    one.link(&two).unwrap();
    let end = |process: Process<Witness>| move || process.stop(&Reason::Crashed.into()).is_ok();
    let (first, second) = race(end(one), end(two));
    assert!(first || second);
    for (log, stopped) in [(one_s, first), (two_s, second)] {
        assert_eq!(log.ends(), [if stopped { Reason::Crashed } else { Reason::Linked }]);
    }
}

fn a_normal_end_stays() {
    let (one, log) = witness();
    let (two, _) = witness();
    one.link(&two).unwrap();
    let caster = one.clone();
    race(stop(&two, Reason::Normal), move || caster.cast(1).unwrap());
    assert!(one.is_alive() && log.ends().is_empty());
}

fn watchers_come_and_go() {
    let (target, _) = witness();
    let [(goes, _), (comes, told), (stays, too)] = [(); 3].map(|()| witness());
    let monitor = goes.monitor(&target);
    stays.monitor(&target);
    let (who, watched) = (comes.clone(), target.clone());
    let third = thread::spawn(move || drop(who.monitor(&watched)));
    let goer = goes.clone();
    race(stop(&target, Reason::Shutdown), move || goer.demonitor(&monitor, Flush::Yes));
    third.join().unwrap();
    assert!(matches!(*told.downs(), [Reason::Shutdown | Reason::NoProc]), "{:?}", told.downs());
    assert_eq!(too.downs(), [Reason::Shutdown]);
    assert!([goes, comes, stays].iter().all(Process::is_alive));
}

fn a_charge_meets_a_release() {
    let budget = Arc::new(Budget::new(10));
    budget.reserve(6).unwrap();
    let [one, two, three] = [(); 3].map(|()| Arc::clone(&budget));
    let charge = |budget: &Budget| {
        let reserved = budget.reserve(4).is_ok();
        assert!(budget.used() <= 10);
        usize::from(reserved)
    };
    let third = thread::spawn(move || three.give_back(6));
    let (first, second) = race(move || charge(&one), move || charge(&two));
    third.join().unwrap();
    let reserved = first + second;
    assert!(reserved >= 1, "there was room for one all the time");
    assert_eq!(budget.used(), reserved * 4);
    budget.give_back(reserved * 4);
    assert_eq!(budget.used(), 0);
}
