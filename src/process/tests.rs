//! Erlang's rules, one test each; and the cases of OTP's own suites, by their names there.

mod gen_server_suite;
mod monitor_suite;

use std::{
    convert::Infallible,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::*;
use crate::clock::ManualClock;

/// A process that remembers what it was told, and does what it is asked.
#[derive(Default)]
struct Witness {
    casts: Vec<u32>,
    downs: Vec<(MonitorRef, Reason)>,
    exits: Vec<(Pid, Exit)>,
}

enum Act {
    Note(u32),
    /// Wait at the barrier, within the handler.
    Hold(Arc<Barrier>),
}

impl GenServer for Witness {
    type Identity = &'static str;
    type Cast = Act;

    fn handle_cast(&mut self, act: Act, _: &mut Context<'_, Self>) {
        match act {
            Act::Note(number) => self.casts.push(number),
            Act::Hold(barrier) => {
                barrier.wait();
                barrier.wait();
            }
        }
    }

    fn handle_info(&mut self, info: Info, _: &mut Context<'_, Self>) {
        match info {
            Info::Down(down) => self.downs.push((down.monitor, down.exit.reason)),
            Info::Exit { from, exit } => self.exits.push((from, exit)),
        }
    }
}

/// Reads the state, as an Agent's `get`.
impl<R, F: FnOnce(&mut Witness) -> R> Call<F> for Witness {
    type Reply = R;

    fn handle_call(&mut self, read: F, _: &mut Context<'_, Self>) -> R {
        read(self)
    }
}

fn witness() -> Process<Witness> {
    Process::start("witness", Witness::default())
}

fn downs(process: &Process<Witness>) -> Vec<(MonitorRef, Reason)> {
    process.call(|state: &mut Witness| state.downs.clone()).unwrap()
}

fn exits(process: &Process<Witness>) -> Vec<Reason> {
    process.call(|state: &mut Witness| state.exits.iter().map(|(_, exit)| exit.reason).collect()).unwrap()
}

fn stop(process: &Process<Witness>, reason: Reason) {
    process.stop(&reason.into()).unwrap();
}

/// Does `act` while the process is busy with a handler, on another thread.
fn while_busy<R>(process: &Process<Witness>, act: impl FnOnce() -> R) -> R {
    let barrier = Arc::new(Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| process.cast(Act::Hold(Arc::clone(&barrier))).unwrap());
        barrier.wait();
        let result = act();
        barrier.wait();
        result
    })
}

#[test]
fn a_sender_s_casts_are_handled_in_order_and_before_its_next_call() {
    let process = witness();
    for number in 0..100 {
        process.cast(Act::Note(number)).unwrap();
    }
    assert_eq!(process.call(|state: &mut Witness| state.casts.clone()).unwrap(), (0..100).collect::<Vec<_>>());
}

#[test]
fn each_of_eight_senders_keeps_its_order_while_all_of_them_are_at_it() {
    let process = witness();
    thread::scope(|scope| {
        for sender in 0..8 {
            let process = &process;
            scope.spawn(move || (0..1_000).for_each(|n| process.cast(Act::Note(sender * 1_000 + n)).unwrap()));
        }
    });
    let casts = process.call(|state: &mut Witness| state.casts.clone()).unwrap();
    assert_eq!(casts.len(), 8_000, "no cast is left for nobody");
    for sender in 0..8 {
        assert!(casts.iter().filter(|n| *n / 1_000 == sender).is_sorted());
    }
}

#[test]
fn a_cast_to_a_busy_process_does_not_wait_and_is_handled_by_whoever_is_busy_with_it() {
    let process = witness();
    while_busy(&process, || process.cast(Act::Note(7)).unwrap());
    assert_eq!(process.call(|state: &mut Witness| state.casts.clone()).unwrap(), [7]);
}

#[test]
fn a_mailbox_that_is_full_refuses_a_cast_and_takes_a_signal() {
    let (process, other) = (witness(), witness());
    process.monitor(&other);
    while_busy(&process, || {
        for _ in 0..crate::limits::MAILBOX_CASTS_MAX {
            process.cast(Act::Note(1)).unwrap();
        }
        assert_eq!(process.cast(Act::Note(2)), Err(CastError::Full));
        stop(&other, Reason::Normal);
    });
    assert_eq!(downs(&process).len(), 1);
}

#[test]
fn a_panic_ends_its_process_alone_and_its_caller_is_told() {
    let (process, neighbour) = (witness(), witness());
    let result = process.call(|_: &mut Witness| panic!("boom"));
    assert_eq!(result, Err(CallError::Crashed(Exit::new(Reason::Crashed, "boom"))) as Result<(), _>);
    assert_eq!(process.call(|_: &mut Witness| ()), Err(CallError::NoProc));
    assert_eq!(process.why(), Some(Exit::new(Reason::Crashed, "boom")));
    assert!(neighbour.is_alive());
}

#[test]
fn a_process_that_stops_itself_still_replies() {
    struct Once;
    impl GenServer for Once {
        type Identity = &'static str;
        type Cast = Infallible;
        fn handle_cast(&mut self, cast: Infallible, _: &mut Context<'_, Self>) {
            match cast {}
        }
    }
    impl Call<()> for Once {
        type Reply = &'static str;
        fn handle_call(&mut self, (): (), me: &mut Context<'_, Self>) -> &'static str {
            me.stop(Reason::Normal.into());
            "bye"
        }
    }
    let process = Process::start("once", Once);
    assert_eq!(process.call(()), Ok("bye"));
    assert_eq!(process.call(()), Err(CallError::NoProc));
}

#[test]
fn a_monitor_of_a_dead_process_fires_at_once_with_noproc() {
    let (watcher, target) = (witness(), witness());
    stop(&target, Reason::Normal);
    let monitor = watcher.monitor(&target).monitor;
    assert_eq!(downs(&watcher), [(monitor, Reason::NoProc)]);
}

#[test]
fn two_monitors_of_one_process_are_two_refs_and_two_downs() {
    let (watcher, target) = (witness(), witness());
    let (first, second) = (watcher.monitor(&target).monitor, watcher.monitor(&target).monitor);
    assert_ne!(first, second);
    stop(&target, Reason::Shutdown);
    assert_eq!(downs(&watcher), [(first, Reason::Shutdown), (second, Reason::Shutdown)]);
}

#[test]
fn a_demonitor_before_the_down_means_that_none_comes() {
    for flush in [Flush::Yes, Flush::No] {
        let (watcher, target) = (witness(), witness());
        let monitor = watcher.monitor(&target);
        assert!(watcher.demonitor(&monitor, flush));
        stop(&target, Reason::Normal);
        assert_eq!(downs(&watcher), []);
    }
}

/// The watcher is busy while its target dies, so that the DOWN waits in its mailbox; then it is demonitored.
fn demonitor_after_the_down(flush: Flush) -> (bool, usize) {
    let (watcher, target) = (witness(), witness());
    let monitor = watcher.monitor(&target);
    let removed = while_busy(&watcher, || {
        stop(&target, Reason::Normal);
        watcher.demonitor(&monitor, flush)
    });
    (removed, downs(&watcher).len())
}

#[test]
fn a_demonitor_after_the_down_has_come_says_so_and_flush_takes_it_back() {
    assert_eq!(demonitor_after_the_down(Flush::No), (false, 1));
    assert_eq!(demonitor_after_the_down(Flush::Yes), (false, 0));
}

#[test]
fn who_finds_a_process_dead_and_asks_its_watcher_finds_that_it_knows() {
    for _ in 0..1_000 {
        let (watcher, target) = (witness(), witness());
        watcher.monitor(&target);
        thread::scope(|scope| {
            scope.spawn(|| stop(&target, Reason::Normal));
            scope.spawn(|| {
                while target.is_alive() {
                    std::hint::spin_loop();
                }
                assert_eq!(downs(&watcher).len(), 1);
            });
        });
    }
}

#[test]
fn a_link_is_idempotent_and_one_a_pair() {
    let (one, two) = (witness(), witness());
    two.trap_exit(true);
    one.link(&two).unwrap();
    one.link(&two).unwrap();
    two.link(&one).unwrap();
    assert_eq!([&one, &two].map(Process::link_count), [1, 1]);
    stop(&one, Reason::Shutdown);
    assert_eq!(exits(&two), [Reason::Shutdown]);
    assert_eq!([&one, &two].map(Process::link_count), [0, 0]);
}

#[test]
fn a_link_to_oneself_is_none() {
    let one = witness();
    one.link(&one).unwrap();
    one.trap_exit(true);
    assert_eq!((exits(&one), one.is_alive()), (vec![], true));
    stop(&one, Reason::Crashed);
    assert_eq!(one.link(&one), Ok(()), "nor has a dead one a tie to itself");
}

#[test]
fn normal_does_not_travel_over_a_link() {
    let (one, two) = (witness(), witness());
    one.link(&two).unwrap();
    stop(&one, Reason::Normal);
    assert!(two.is_alive());
}

#[test]
fn any_other_reason_travels_over_a_link_and_names_who_died() {
    for reason in [Reason::Shutdown, Reason::Killed, Reason::Expired, Reason::Crashed] {
        let (one, two) = (Process::start("the first", Witness::default()), witness());
        one.link(&two).unwrap();
        stop(&one, reason);
        assert_eq!(two.why(), Some(Exit::new(Reason::Linked, &format!("the first: {reason}"))));
    }
}

#[test]
fn a_lost_connection_travels_over_links_as_what_it_is() {
    let (one, two, three) = (witness(), witness(), witness());
    one.link(&two).unwrap();
    two.link(&three).unwrap();
    one.stop(&Exit::new(Reason::NoConnection, "gone")).unwrap();
    assert_eq!((two.why(), three.why()), (one.why(), one.why()));
}

#[test]
fn a_death_travels_along_a_chain_of_links_however_long() {
    let chain: Vec<Process<Witness>> = (0..100_000).map(|_| witness()).collect();
    for pair in chain.windows(2) {
        pair[0].link(&pair[1]).unwrap();
    }
    stop(&chain[0], Reason::Crashed);
    assert!(chain.iter().all(|process| !process.is_alive()));
    assert_eq!(chain[99_999].why().unwrap().detail(), "witness: CRASHED", "and names the first");
}

#[test]
fn a_process_that_traps_exits_is_told_instead_of_ended_also_of_a_normal_end() {
    let (trapper, one, two) = (witness(), witness(), witness());
    trapper.trap_exit(true);
    trapper.link(&one).unwrap();
    trapper.link(&two).unwrap();
    stop(&one, Reason::Normal);
    stop(&two, Reason::Killed);
    assert_eq!(exits(&trapper), [Reason::Normal, Reason::Killed]);
}

#[test]
fn a_kill_can_not_be_trapped_and_is_an_ordinary_reason_to_the_linked() {
    let (victim, linked) = (witness(), witness());
    victim.trap_exit(true);
    linked.trap_exit(true);
    victim.link(&linked).unwrap();
    victim.exit(linked.pid(), Reason::Killed.into());
    assert_eq!(victim.why().map(|exit| exit.reason), Some(Reason::Killed));
    assert_eq!(exits(&linked), [Reason::Killed]);
}

#[test]
fn an_exit_signal_ends_a_process_that_does_not_trap_unless_it_is_normal() {
    let (process, sender) = (witness(), witness());
    process.exit(sender.pid(), Reason::Normal.into());
    assert!(process.is_alive());
    process.exit(sender.pid(), Exit::new(Reason::Shutdown, "go"));
    assert_eq!(process.why(), Some(Exit::new(Reason::Shutdown, "go")));
}

#[test]
fn a_normal_exit_signal_to_oneself_ends_a_process_that_does_not_trap() {
    let (process, trapper) = (witness(), witness());
    process.exit(process.pid(), Reason::Normal.into());
    assert_eq!(process.why(), Some(Reason::Normal.into()));
    trapper.trap_exit(true);
    trapper.exit(trapper.pid(), Reason::Normal.into());
    assert_eq!(exits(&trapper), [Reason::Normal]);
}

#[test]
fn a_link_to_a_dead_process_is_its_exit_signal_with_noproc() {
    let (process, trapper, dead) = (witness(), witness(), witness());
    stop(&dead, Reason::Normal);
    trapper.trap_exit(true);
    trapper.link(&dead).unwrap();
    assert_eq!(exits(&trapper), [Reason::NoProc]);
    process.link(&dead).unwrap();
    assert_eq!(process.why().map(|exit| exit.reason), Some(Reason::Linked));
    assert_eq!(process.link(&trapper), Err(NoProc), "the dead link to nobody");
}

#[test]
fn after_unlink_the_end_of_one_is_nothing_to_the_other_even_if_its_signal_was_on_the_way() {
    let (process, other, late) = (witness(), witness(), witness());
    process.link(&other).unwrap();
    process.unlink(&other);
    stop(&other, Reason::Crashed);

    process.link(&late).unwrap();
    while_busy(&process, || {
        stop(&late, Reason::Crashed);
        process.unlink(&late);
    });
    assert!(process.is_alive());
}

#[test]
fn an_unlink_takes_back_the_signal_of_that_link_alone() {
    let (process, one, other) = (witness(), witness(), witness());
    process.trap_exit(true);
    process.link(&one).unwrap();
    process.link(&other).unwrap();
    while_busy(&process, || {
        stop(&one, Reason::Crashed);
        stop(&other, Reason::Shutdown);
        process.unlink(&one);
    });
    assert_eq!(exits(&process), [Reason::Shutdown]);
}

#[test]
fn two_linked_processes_that_die_at_once_each_die_once() {
    for _ in 0..1_000 {
        let (one, two, watcher) = (witness(), witness(), witness());
        one.link(&two).unwrap();
        watcher.monitor(&one);
        watcher.monitor(&two);
        thread::scope(|scope| {
            for process in [&one, &two] {
                scope.spawn(|| process.exit(watcher.pid(), Reason::Crashed.into()));
            }
        });
        assert_eq!(downs(&watcher).len(), 2);
    }
}

#[test]
fn terminate_comes_last_and_what_it_does_changes_no_reason() {
    struct Last(Arc<AtomicUsize>);
    impl GenServer for Last {
        type Identity = &'static str;
        type Cast = Infallible;
        fn handle_cast(&mut self, cast: Infallible, _: &mut Context<'_, Self>) {
            match cast {}
        }
        fn terminate(&mut self, _: &Exit) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("famous last words");
        }
    }
    let terminated = Arc::new(AtomicUsize::new(0));
    let process = Process::start("last", Last(Arc::clone(&terminated)));
    process.stop(&Reason::Expired.into()).unwrap();
    assert_eq!(process.stop(&Reason::Normal.into()), Err(NoProc));
    assert_eq!(terminated.load(Ordering::Relaxed), 1);
    assert_eq!(process.why(), Some(Reason::Expired.into()));
}

#[test]
fn a_death_leaves_its_remains_to_one_who_asks() {
    let process = witness();
    assert!(process.take_remains().is_none(), "the living are not robbed");
    stop(&process, Reason::Normal);
    assert!(process.take_remains().is_some());
    assert!(process.take_remains().is_none());
}

/// A supervised process, how often it was started, and how often its supervisor gave up.
fn supervised(clock: &Arc<ManualClock>) -> (Supervised<Witness>, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (starts, give_ups) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let budget = RestartBudget { restarts_max: 3, window: Duration::from_secs(5) };
    let start = {
        let starts = Arc::clone(&starts);
        move || {
            starts.fetch_add(1, Ordering::Relaxed);
            witness()
        }
    };
    let give_up = {
        let give_ups = Arc::clone(&give_ups);
        move || {
            give_ups.fetch_add(1, Ordering::Relaxed);
        }
    };
    (Supervised::start(budget, Arc::clone(clock) as _, start, give_up), starts, give_ups)
}

fn crash(process: &Supervised<Witness>) {
    let crashed = process.call(|_: &mut Witness| panic!("again")).map(|()| unreachable!());
    assert!(matches!(crashed, Err::<(), _>(CallError::Crashed(_))));
}

#[test]
fn a_supervised_process_is_there_again_for_the_next_caller() {
    let (process, starts, _) = supervised(&Arc::default());
    process.call(|state: &mut Witness| state.casts.push(1)).unwrap();
    crash(&process);
    assert_eq!(process.call(|state: &mut Witness| state.casts.len()), Ok(0), "with a new state");
    assert_eq!(starts.load(Ordering::Relaxed), 2);
}

#[test]
fn a_supervisor_gives_up_once_when_its_budget_is_spent_and_not_while_the_deaths_are_far_apart() {
    let clock = Arc::new(ManualClock::default());
    let (process, starts, give_ups) = supervised(&clock);
    for _ in 0..10 {
        crash(&process);
        clock.advance(Duration::from_secs(2)); // three in six seconds
    }
    assert_eq!((starts.load(Ordering::Relaxed), give_ups.load(Ordering::Relaxed)), (11, 0));

    clock.advance(Duration::from_secs(6));
    for _ in 0..4 {
        crash(&process);
    }
    assert_eq!(process.call(|_: &mut Witness| ()), Err(CallError::NoProc));
    assert_eq!((starts.load(Ordering::Relaxed), give_ups.load(Ordering::Relaxed)), (14, 1));
}

#[test]
fn a_start_that_panics_is_one_of_the_restarts() {
    let starts = Arc::new(AtomicUsize::new(0));
    let start = {
        let starts = Arc::clone(&starts);
        move || match starts.fetch_add(1, Ordering::Relaxed) {
            1 | 2 | 4.. => panic!("not yet"),
            _ => witness(),
        }
    };
    let budget = RestartBudget { restarts_max: 4, window: Duration::from_secs(5) };
    let process = Supervised::start(budget, Arc::<ManualClock>::default(), start, || ());
    crash(&process);
    assert_eq!(process.call(|_: &mut Witness| ()), Ok(()), "the third restart");
    crash(&process);
    assert_eq!(process.call(|_: &mut Witness| ()), Err(CallError::NoProc));
    assert_eq!(starts.load(Ordering::Relaxed), 5);
}

#[test]
fn a_hundred_callers_meet_one_crash_and_all_others_the_next_life() {
    let (process, _, give_ups) = supervised(&Arc::default());
    let start = Barrier::new(101);
    let crashed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for caller in 0..101 {
            let (process, start, crashed) = (&process, &start, &crashed);
            scope.spawn(move || {
                start.wait();
                match process.call(move |_: &mut Witness| assert_ne!(caller, 50)) {
                    Err(CallError::Crashed(_)) => drop(crashed.fetch_add(1, Ordering::Relaxed)),
                    other => other.unwrap(),
                }
            });
        }
    });
    assert_eq!((crashed.load(Ordering::Relaxed), give_ups.load(Ordering::Relaxed)), (1, 0));
}

/// Counts its casts, and panics as it is dropped, if it is to.
struct Fragile {
    /// Given up at the first info, where this is the last of its handles that a test holds.
    me: Arc<Mutex<Option<Process<Fragile>>>>,
    casts: Arc<AtomicUsize>,
    breaks: bool,
}

impl GenServer for Fragile {
    type Identity = &'static str;
    type Cast = ();

    fn handle_cast(&mut self, (): (), _: &mut Context<'_, Self>) {
        self.casts.fetch_add(1, Ordering::Relaxed);
    }

    fn handle_info(&mut self, _: Info, _: &mut Context<'_, Self>) {
        drop(self.me.lock().take());
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!self.breaks, "a drop that panics");
    }
}

#[test]
fn a_state_that_panics_as_it_is_dropped_costs_nobody_a_wake_up() {
    let casts = Arc::new(AtomicUsize::new(0));
    let fragile = |breaks| {
        let me = Arc::new(Mutex::new(None));
        let process = Process::start("fragile", Fragile { me: Arc::clone(&me), casts: Arc::clone(&casts), breaks });
        (process, me)
    };
    let target = witness();
    let ((first, me), watcher) = (fragile(true), witness());
    first.monitor(&target);
    watcher.monitor(&target);
    *me.lock() = Some(first);
    stop(&target, Reason::Normal); // wakes the first, whose last handle goes with that
    assert!(me.lock().is_none());

    fragile(false).0.cast(()).unwrap();
    assert_eq!(casts.load(Ordering::Relaxed), 1, "this thread still wakes whom it has a message for");
}

/// Casts as it is dropped.
struct Last(Process<Witness>);

impl GenServer for Last {
    type Identity = &'static str;
    type Cast = Infallible;

    fn handle_cast(&mut self, cast: Infallible, _: &mut Context<'_, Self>) {
        match cast {}
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        self.0.cast(Act::Note(9)).unwrap();
    }
}

#[test]
fn what_is_flushed_is_dropped_when_no_lock_is_held() {
    let watcher = witness();
    let target = Process::start("last", Last(watcher.clone()));
    let monitor = watcher.monitor(&target);
    let barrier = Arc::new(Barrier::new(2));
    let (sender, flushed) = std::sync::mpsc::channel();
    thread::spawn({
        let (watcher, barrier) = (watcher.clone(), Arc::clone(&barrier));
        move || watcher.cast(Act::Hold(barrier)).unwrap()
    });
    barrier.wait();
    target.stop(&Reason::Normal.into()).unwrap();
    drop(target); // its DOWN, in the mailbox of the busy watcher, has the last handle
    thread::spawn({
        let watcher = watcher.clone();
        move || sender.send(watcher.demonitor(&monitor, Flush::Yes)).unwrap()
    });
    assert_eq!(flushed.recv_timeout(Duration::from_secs(10)), Ok(false));
    barrier.wait();
    assert_eq!(watcher.call(|state: &mut Witness| state.casts.clone()).unwrap(), [9]);
}
