//! The cases of OTP's `monitor_SUITE` that have a meaning here; those of names are in the registry's tests. Left out are those
//! of other nodes (`demon_3`, `mon_2`, `remote_remove_monitor`), of ill-typed arguments (`mon_e_1`) and of the time offset.

use super::*;

/// Of how many monitors a process keeps note.
fn watchers(process: &Process<Witness>) -> usize {
    match &*process.0.bonds.lock() {
        Bonds::Alive { watchers, .. } => watchers.len(),
        Bonds::Dead(_) => 0,
    }
}

/// A monitors B; B ends A, and then itself: its DOWN finds nobody.
#[test]
fn case_1() {
    let (a, b) = (witness(), witness());
    a.monitor(&b);
    a.exit(b.pid(), Exit::new(Reason::Crashed, "foo"));
    stop(&b, Reason::Normal);
    assert_eq!(a.why(), Some(Exit::new(Reason::Crashed, "foo")));
}

/// A monitors B; B demonitors A's monitor: it is not B's, so A has its DOWN.
#[test]
fn case_2() {
    for flush in [Flush::Yes, Flush::No] {
        let (a, b) = (witness(), witness());
        let monitor = a.monitor(&b);
        assert!(!b.demonitor(&monitor, flush));
        stop(&b, Reason::Normal);
        assert_eq!(downs(&a), [(monitor.monitor, Reason::Normal)]);
    }
}

/// To demonitor at the wrong end takes nothing away.
#[test]
fn demon_e_1() {
    let (one, other) = (witness(), witness());
    let monitor = other.monitor(&one);
    assert!(!one.demonitor(&monitor, Flush::No));
    assert!(other.demonitor(&monitor, Flush::No), "it was still there");
}

/// To demonitor what is long gone does nothing.
#[test]
fn demon_1() {
    let watcher = witness();
    let monitor = watcher.monitor(&witness());
    assert!(!watcher.demonitor(&monitor, Flush::Yes));
    assert_eq!(downs(&watcher), []);
}

#[test]
fn demon_2() {
    let watcher = witness();
    let of_itself = watcher.monitor(&watcher);
    watcher.demonitor(&of_itself, Flush::No);
    assert!(!watcher.demonitor(&of_itself, Flush::No), "an extra demonitor");
    assert_eq!(downs(&watcher), []);

    let (ends, stays) = (witness(), witness());
    let normal = watcher.monitor(&ends).monitor;
    stop(&ends, Reason::Normal);
    assert_eq!(downs(&watcher), [(normal, Reason::Normal)]);

    let before_the_down = watcher.monitor(&stays);
    assert!(watcher.demonitor(&before_the_down, Flush::No));
    stays.exit(watcher.pid(), Reason::Crashed.into());
    assert_eq!(downs(&watcher), [(normal, Reason::Normal)]);
}

/// Of four monitors one is flushed before the death, one is left, one is flushed after it, and one is only demonitored.
#[test]
fn demonitor_flush() {
    let (watcher, target) = (witness(), witness());
    let [before, left, flushed, late] = std::array::from_fn(|_| watcher.monitor(&target));
    assert!(watcher.demonitor(&before, Flush::Yes));
    let barrier = Arc::new(Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| watcher.cast(Act::Hold(Arc::clone(&barrier))).unwrap());
        barrier.wait();
        target.exit(watcher.pid(), Reason::Crashed.into());
        assert!(!watcher.demonitor(&flushed, Flush::Yes));
        assert!(!watcher.demonitor(&late, Flush::No));
        barrier.wait();
    });
    let mut told = downs(&watcher);
    told.sort_by_key(|(monitor, _)| *monitor);
    assert_eq!(told, [left, late].map(|monitor| (monitor.monitor, Reason::Crashed)), "in any order");
}

/// 100 groups of 100 monitors, which are demonitored while those they are of end: each is either taken away or fires, never
/// both, never neither.
#[test]
fn local_remove_monitor() {
    for _ in 0..100 {
        let watcher = witness();
        let targets: Vec<_> = (0..10).map(|_| witness()).collect();
        let monitors: Vec<_> = targets.iter().flat_map(|target| (0..10).map(|_| watcher.monitor(target))).collect();
        let start = Barrier::new(2);
        let removed: Vec<MonitorRef> = thread::scope(|scope| {
            let demonitors = scope.spawn(|| {
                start.wait();
                let removed = monitors.iter().filter(|monitor| watcher.demonitor(monitor, Flush::No));
                removed.map(|monitor| monitor.monitor).collect()
            });
            start.wait();
            targets.iter().for_each(|target| stop(target, Reason::Normal));
            demonitors.join().unwrap()
        });
        let mut answered: Vec<MonitorRef> = downs(&watcher).into_iter().map(|(monitor, _)| monitor).collect();
        answered.extend(removed);
        answered.sort();
        let all: Vec<MonitorRef> = monitors.iter().map(|monitor| monitor.monitor).collect();
        assert_eq!(answered, all);
    }
}

#[test]
fn mon_1() {
    let watcher = witness();
    let (done, shot) = (witness(), witness());
    let normal = watcher.monitor(&done).monitor;
    let other = watcher.monitor(&shot).monitor;
    stop(&done, Reason::Normal);
    shot.exit(watcher.pid(), Exit::new(Reason::Crashed, "frop"));
    let dead = watcher.monitor(&shot).monitor;
    assert_eq!(downs(&watcher), [(normal, Reason::Normal), (other, Reason::Crashed), (dead, Reason::NoProc)]);
}

/// A reason that is as large as there may be comes whole.
#[test]
fn large_exit() {
    struct Reader(Option<Exit>);
    impl GenServer for Reader {
        type Identity = &'static str;
        type Cast = Infallible;
        fn handle_cast(&mut self, cast: Infallible, _: &mut Context<'_, Self>) {
            match cast {}
        }
        fn handle_info(&mut self, info: Info, _: &mut Context<'_, Self>) {
            let Info::Down(down) = info else { panic!("{info:?}") };
            self.0 = Some(down.exit);
        }
    }
    impl Call<()> for Reader {
        type Reply = Option<Exit>;
        fn handle_call(&mut self, (): (), _: &mut Context<'_, Self>) -> Option<Exit> {
            self.0.take()
        }
    }
    let large = Exit::new(Reason::Crashed, &"x".repeat(crate::limits::EXIT_DETAIL_BYTES_MAX));
    let reader = Process::start("reader", Reader(None));
    for _ in 0..100 {
        let target = witness();
        reader.monitor(&target);
        target.exit(reader.pid(), large.clone());
        assert_eq!(reader.call(()), Ok(Some(large.clone())));
    }
}

/// A demonitor leaves nothing behind, nor do watchers that are gone: not more than the last of them.
#[test]
fn list_cleanup() {
    let (watcher, target) = (witness(), witness());
    let monitor = watcher.monitor(&target);
    assert_eq!(watchers(&target), 1);
    watcher.demonitor(&monitor, Flush::No);
    assert_eq!(watchers(&target), 0);

    for _ in 0..100 {
        let crashes = witness();
        crashes.monitor(&target);
        assert!(crashes.call(|state: &mut Witness| state.casts[0]).is_err());
    }
    assert_eq!(watchers(&target), 1);
}

/// Those who watch each other: all monitors there are; those of one side taken away; those of both.
#[test]
fn mixer() {
    for demonitored in 0..=2 {
        let hub = witness();
        let others: Vec<_> = (0..10).map(|_| witness()).collect();
        let inwards: Vec<_> = others.iter().map(|other| other.monitor(&hub)).collect();
        let outwards: Vec<_> = others.iter().map(|other| hub.monitor(other)).collect();
        assert_eq!(watchers(&hub), 10);
        if demonitored > 0 {
            assert!(others.iter().zip(&inwards).all(|(other, monitor)| other.demonitor(monitor, Flush::No)));
            assert_eq!(watchers(&hub), 0);
        }
        if demonitored > 1 {
            assert!(outwards.iter().all(|monitor| hub.demonitor(monitor, Flush::No)));
        }
        assert!(others.iter().all(|other| watchers(other) == usize::from(demonitored < 2)));
        others[..5].iter().for_each(|other| stop(other, Reason::Crashed));
        assert_eq!(downs(&hub).len(), if demonitored < 2 { 5 } else { 0 });
        stop(&hub, Reason::Crashed);
        assert!(others[5..].iter().all(|other| downs(other).len() == usize::from(demonitored < 1)));
    }
}
