//! What the ring promises.

use std::{
    sync::atomic::AtomicUsize,
    task::{Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use once_cell::race::OnceBox;

use super::*;
use crate::name::Revision;

fn change(name: &str, version: u64) -> Change {
    let value = Value::Integer(1);
    Change {
        name: name.into(),
        id: Revision::new(7).as_id(),
        key: "k".into(),
        version: Version(version),
        kind: ChangeKind::Put { value, due: Due::NEVER },
        more: false,
        wire: OnceBox::new(),
    }
}

fn named(names: &[&str]) -> Scope {
    Scope::Names(names.iter().map(|name| Arc::from(*name)).collect())
}

/// The versions of what a reader finds up to now, of one name.
fn read(reader: &mut Subscription, name: &str) -> Result<Vec<u64>, Overrun> {
    let until = reader.end();
    let mut versions = Vec::new();
    while !reader.has_read(until) {
        for change in reader.read(until)? {
            reader.pass();
            if &*change.name == name {
                versions.push(change.version.0);
            }
        }
    }
    Ok(versions)
}

/// Counts how often it was woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_reader_goes_on_where_it_was_whether_or_not_it_was_announced() {
    let ring = Ring::new(1 << 20);
    let mut reader = ring.subscribe(named(&["a"]));
    for round in 0..3 {
        ring.append(vec![change("a", 2 * round + 1)]);
        ring.append(vec![change("b", 9), change("a", 2 * round + 2)]);
        if round == 1 {
            ring.announce();
        }
        assert_eq!(read(&mut reader, "a"), Ok(vec![2 * round + 1, 2 * round + 2]));
        assert_eq!(read(&mut reader, "a"), Ok(vec![]));
    }
}

#[test]
fn a_reader_leaps_over_what_was_not_for_it_and_loses_only_what_was() {
    let ring = Ring::new(10_000);
    let (mut a, mut b) = (ring.subscribe(named(&["a"])), ring.subscribe(Scope::Prefix("b".into())));
    ring.append(vec![change("a", 1)]);
    for version in 1..1_000 {
        ring.append(vec![change("bb", version)]);
        ring.announce();
    }
    assert_eq!(read(&mut a, "a"), Err(Overrun), "it had one, and it is gone");
    assert_eq!(read(&mut b, "bb"), Err(Overrun));

    let mut a = ring.subscribe(named(&["a"]));
    for version in 1..1_000 {
        ring.append(vec![change("bb", version)]);
        ring.announce();
    }
    ring.append(vec![change("a", 2)]);
    assert_eq!(read(&mut a, "a"), Ok(vec![2]), "what has gone was not for it");
}

#[test]
fn what_goes_before_it_was_announced_is_lost_for_who_has_not_read_it() {
    let ring = Ring::new(10_000);
    let (mut late, mut early) = (ring.subscribe(named(&["a"])), ring.subscribe(named(&["a"])));
    ring.append(vec![change("a", 1)]);
    assert_eq!(read(&mut early, "a"), Ok(vec![1]));
    for version in 1..1_000 {
        ring.append(vec![change("b", version)]);
        assert_eq!(read(&mut early, "a"), Ok(vec![]));
    }
    ring.announce();
    assert_eq!(read(&mut late, "a"), Err(Overrun));
    assert_eq!(read(&mut early, "a"), Ok(vec![]));
}

#[test]
fn only_those_who_subscribed_are_woken() {
    let ring = Ring::new(1 << 20);
    let [mut a, b] = [named(&["a"]), Scope::Prefix("b".into())].map(|scope| ring.subscribe(scope));
    let counters = [&a, &b].map(|reader| {
        let counter = Arc::new(Counter::default());
        reader.register(&Context::from_waker(&Waker::from(Arc::clone(&counter))));
        counter
    });
    let woken = || counters.each_ref().map(|counter| counter.0.load(Ordering::Relaxed));
    ring.append(vec![change("c", 1)]);
    ring.announce();
    assert_eq!(woken(), [0, 0]);
    ring.append(vec![change("a", 1)]);
    assert_eq!(woken(), [0, 0], "who writes wakes nobody who reads");
    ring.announce();
    assert_eq!(woken(), [1, 0]);
    assert_eq!(read(&mut a, "a"), Ok(vec![1]));
}

#[test]
fn the_oldest_go_past_the_limit_and_the_newest_stays_whatever_its_size() {
    let ring = Ring::new(1);
    let mut reader = ring.subscribe(named(&["a"]));
    ring.append(vec![change("a", 1)]);
    assert_eq!(read(&mut reader, "a"), Ok(vec![1]));
    ring.append(vec![change("a", 2)]);
    assert_eq!(read(&mut reader, "a"), Ok(vec![2]));
    assert_eq!(ring.bytes(), change("a", 2).kept_bytes());
    drop(reader);
    assert_eq!(ring.bytes(), 0);
}

#[test]
fn readers_that_come_and_go_under_load_read_each_change_once_and_in_order() {
    const CHANGES: u64 = 20_000;
    let ring = Ring::new(1 << 30);
    let stay = ring.subscribe(named(&["a"]));
    thread::scope(|scope| {
        scope.spawn(|| (1..=CHANGES).for_each(|version| ring.append(vec![change("a", version), change("b", version)])));
        scope.spawn(|| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !stay.has_read(2 * CHANGES) && ring.announced.load(Ordering::Acquire) < 2 * CHANGES {
                ring.announce();
                assert!(Instant::now() < deadline);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let deadline = Instant::now() + Duration::from_secs(60);
                let mut last = 0;
                while last < CHANGES {
                    assert!(Instant::now() < deadline);
                    let mut reader = ring.subscribe(Scope::Prefix("a".into()));
                    // Between two readers something may be missed.
                    let mut is_first = true;
                    for _ in 0..100 {
                        for version in read(&mut reader, "a").unwrap() {
                            assert!(version == last + 1 || is_first && version > last, "{version} after {last}");
                            (last, is_first) = (version, false);
                        }
                    }
                    if ring.changes.read().end() == 2 * CHANGES {
                        break;
                    }
                }
            });
        }
    });
}

#[test]
fn a_reader_that_stops_before_the_end_loses_nothing_of_what_is_not_for_it() {
    let ring = Ring::new(10_000);
    let mut reader = ring.subscribe(named(&["a"]));
    ring.append(vec![change("a", 1), change("b", 1)]);
    ring.announce();
    let until = reader.end();
    // While it reads up to there, others go on.
    ring.append(vec![change("b", 2)]);
    while !reader.has_read(until) {
        let count = reader.read(until).unwrap().len();
        (0..count).for_each(|_| reader.pass());
    }
    for version in 3..1_000 {
        ring.append(vec![change("b", version)]);
        ring.announce();
    }
    ring.append(vec![change("a", 2)]);
    assert_eq!(read(&mut reader, "a"), Ok(vec![2]));
}

#[test]
fn what_a_call_appends_after_the_last_reader_has_left_is_not_kept() {
    let ring = Ring::new(10_000);
    let reader = ring.subscribe(named(&["a"]));
    assert!(ring.wants("a"), "so it begins to keep a record");
    drop(reader);
    ring.append(vec![change("a", 1)]);
    assert_eq!(ring.bytes(), 0);
}

#[test]
fn what_goes_before_it_was_announced_is_lost_for_those_only_whose_it_was() {
    let ring = Ring::new(10_000);
    let [mut a, mut b] = [named(&["a"]), Scope::Prefix("b".into())].map(|scope| ring.subscribe(scope));
    (1..1_000).for_each(|version| ring.append(vec![change("b", version)]));
    let until = a.end();
    assert!(a.read(until).unwrap().is_empty() && !a.has_read(until), "nobody has said yet whose it was");
    ring.announce();
    ring.append(vec![change("a", 1)]);
    assert_eq!(read(&mut a, "a"), Ok(vec![1]));
    assert_eq!(read(&mut b, "b"), Err(Overrun));
}

#[test]
fn what_goes_before_it_was_announced_is_lost_for_everyone_where_it_has_too_many_names() {
    let ring = Ring::new(10_000);
    let [mut a, _all] = [named(&["a"]), Scope::Prefix("".into())].map(|scope| ring.subscribe(scope));
    (1..1_000).for_each(|n| ring.append(vec![change(&format!("b{n}"), 1)]));
    ring.announce();
    assert_eq!(read(&mut a, "a"), Err(Overrun));
}
