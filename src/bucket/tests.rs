//! What a bucket promises, without a registry.

use std::{cell::Cell, thread, time::Duration};

use super::*;
use crate::{
    budget::{Owner, Resident},
    clock::{Clock, ManualClock},
    name::Revision,
    process::{CallError, Process, Reason},
    sync::Ordering,
};

// Whether the process has all the memory that it may have.
thread_local!(static IS_FULL: Cell<bool> = const { Cell::new(false) });

/// A bucket, and what it is made of.
struct Fixture {
    bucket: Process<Bucket>,
    env: Arc<Env>,
    clock: Arc<ManualClock>,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        let clock = Arc::new(ManualClock::default());
        let env = Arc::new(Env {
            budget: Budget::new(limits.memory_bytes_max).beside(Resident::new(0, || usize::from(IS_FULL.get()), || ())),
            entries: AtomicUsize::new(0),
            timeline: Timeline::new(Arc::clone(&clock) as Arc<dyn Clock>),
            alarms: Alarms::default(),
            ring: Ring::new(limits.ring_bytes_max),
            limits,
        });
        let id = Revision::new(1 << 40).as_id();
        let identity = Identity { name: "b".into(), id, created_at: Stamp::default() };
        let bucket = Process::start_as(id.into(), identity, Bucket::new("b", &env, None).unwrap());
        Self { bucket, env, clock }
    }

    fn put(&self, at: &str, text: &str, expected: Option<u64>) -> Result<Version, Error> {
        let value = Value::Text(text.into());
        self.bucket.call(Put { key: key(at), value, ttl: None, expected: expected.map(Version) }).unwrap()
    }

    fn put_for(&self, at: &str, ttl: u64) {
        let value = Value::Integer(1);
        self.bucket.call(Put { key: key(at), value, ttl: seconds(ttl), expected: None }).unwrap().unwrap();
    }

    fn get(&self, at: &str) -> Result<Slot, Error> {
        self.bucket.call(Get { key: key(at) }).unwrap()
    }

    fn delete(&self, at: &str, expected: Option<u64>) -> Result<Deleted, Error> {
        self.bucket.call(Delete { key: key(at), expected: expected.map(Version) }).unwrap()
    }

    fn add(&self, at: &str, delta: i64) -> Result<(i64, Version), Error> {
        self.bucket.call(Add { key: key(at), delta, ttl: None }).unwrap()
    }

    fn transact(&self, checks: Vec<Check<'_>>, success: Vec<Op<'_>>, failure: Vec<Op<'_>>) -> TransactReply {
        self.bucket.call(Transact { checks, success, failure, results_bytes_max: 1_000 }).unwrap()
    }

    fn summary(&self) -> (u64, usize, usize) {
        let summary = self.bucket.call(Peek).unwrap().unwrap();
        (summary.version.0, summary.entry_count, summary.byte_size)
    }

    fn keys(&self) -> Vec<String> {
        let scan = Scan { prefix: "", after: None, items_max: 100, bytes_max: 10_000, values: Values::LeftOut };
        let page = self.bucket.call(scan).unwrap().unwrap();
        page.entries.into_iter().map(|entry| entry.key.into_string()).collect()
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// What the timer does.
    fn tick(&self) -> usize {
        let due = self.env.alarms.take(self.env.timeline.now(), 100);
        due.iter().filter_map(WeakProcess::upgrade).for_each(|bucket| drop(bucket.call(Tick)));
        due.len()
    }
}

type TransactReply = Result<Transacted, TransactError>;

fn fixture() -> Fixture {
    Fixture::new(Limits { entries_max: 20, bucket_bytes_max: 10_000, ..Limits::default() })
}

fn key(text: &str) -> Key<'_> {
    Key::parse(text, &Limits::default()).unwrap()
}

fn seconds(seconds: u64) -> Option<Ttl> {
    Ttl::new(Duration::from_secs(seconds))
}

fn put(at: &str, text: &str) -> Op<'static> {
    Op::Put(key(at.to_owned().leak()), Value::Text(text.into()), None)
}

#[test]
fn each_change_takes_the_next_version_also_a_put_of_an_equal_value() {
    let fixture = fixture();
    assert_eq!(fixture.put("a", "1", None), Ok(Version(1)));
    assert_eq!(fixture.put("a", "1", None), Ok(Version(2)));
    assert_eq!(fixture.put("b", "1", None), Ok(Version(3)));
    let deleted = fixture.delete("a", None).unwrap();
    assert_eq!((deleted.version, deleted.entry.unwrap().version), (Version(4), Version(2)));
    let deleted = fixture.delete("a", None).unwrap();
    assert!(deleted.entry.is_none() && deleted.version == Version(4), "what is absent changes nothing");
}

#[test]
fn an_expected_version_is_kept_or_nothing_changes() {
    let fixture = fixture();
    let mismatch = |actual| Error::VersionMismatch { actual: Version(actual) };
    assert_eq!(fixture.put("a", "1", Some(7)), Err(mismatch(0)));
    assert_eq!(fixture.put("a", "1", Some(0)), Ok(Version(1)));
    assert_eq!(fixture.put("a", "2", Some(0)), Err(mismatch(1)));
    assert_eq!(fixture.put("a", "2", Some(1)), Ok(Version(2)));
    let delete = |at, version| fixture.delete(at, Some(version)).map(|deleted| deleted.version);
    assert_eq!(delete("a", 1), Err(mismatch(2)));
    assert_eq!(delete("absent", 1), Err(mismatch(0)));
    assert_eq!(delete("absent", 0), Ok(Version(2)));
    assert_eq!(delete("a", 2), Ok(Version(3)));
}

#[test]
fn what_somebody_has_is_counted_for_him_too_and_given_back_once() {
    let slot = |text: &str| {
        let value = Value::Text(text.into());
        Some(Slot { value, version: Version(1), due: Due::NEVER })
    };
    let fixture = Fixture::new(Limits { memory_bytes_max: 10_000, ..Limits::default() });
    let (owner, all) = (Arc::new(Owner::default()), fixture.env.budget.used());
    owner.buckets.take(1).unwrap();
    let mut bucket = Bucket::new("o", &fixture.env, Some(Arc::clone(&owner))).unwrap();
    bucket.exchange("k", slot("v")).unwrap();
    let has = bucket.summary().byte_size;
    assert_eq!((owner.bytes.taken(), fixture.env.budget.used() - all), (has, has));
    let entries = || fixture.env.entries.load(Ordering::Relaxed);
    assert_eq!(entries(), 1);

    // Where all together have too much, or he has, neither is charged.
    assert!(matches!(bucket.exchange("l", slot(&"x".repeat(20_000))), Err(Error::OverBudget(_))));
    owner.allow(None, Some(has + 10), None);
    let over = OverQuota { limit: has + 10 };
    assert_eq!(bucket.exchange("l", slot(&"x".repeat(100))).unwrap_err(), over.into());
    assert_eq!((owner.bytes.taken(), fixture.env.budget.used() - all, entries()), (has, has, 1));

    assert_eq!(bucket.release(), has);
    assert_eq!((bucket.release(), owner.bytes.taken(), owner.buckets.taken(), entries()), (0, 0, 0, 0));
    drop(bucket);
    assert_eq!((fixture.env.budget.used(), entries()), (all, 0));
    owner.allow(None, Some(1), None);
    owner.buckets.take(1).unwrap();
    assert!(matches!(Bucket::new("o", &fixture.env, Some(Arc::clone(&owner))), Err(Error::OverQuota(_))));
    assert_eq!(owner.buckets.taken(), 0);
}

#[test]
fn where_the_process_has_no_memory_left_nothing_is_put_and_the_rest_goes_on() {
    let fixture = Fixture::new(Limits::default());
    let first = fixture.put("k", "value", None).unwrap();
    let before = fixture.summary();
    IS_FULL.set(true);
    let full = Error::OverBudget(OverBudget::Process { limit: 0 });
    assert_eq!(fixture.put("k", "v", None).unwrap_err(), full, "however small, and in the place of what is there");
    assert_eq!(fixture.put("l", "v", None).unwrap_err(), full);
    assert_eq!(Bucket::new("c", &fixture.env, None).unwrap_err(), full);
    let ops = vec![Op::Delete(key("k")), Op::Put(key("l"), Value::Flag(true), None)];
    let failed = fixture.transact(vec![], ops, vec![]);
    assert!(failed.is_err(), "{failed:?}");
    assert_eq!(fixture.summary(), before, "nothing of it is done");
    assert_eq!(fixture.get("k").unwrap().version, first);
    fixture.delete("k", None).unwrap();
    assert_eq!(fixture.summary().1, 0);
}

#[test]
fn a_refused_put_charges_nothing_and_a_death_gives_back_what_was_charged() {
    let entry = |text: &str| cost::key("k") + cost::value(&Value::Text(text.into()));
    let (small, large) = ("x".repeat(100), "x".repeat(2_000));
    let one = cost::bucket("b") + cost::map(1) + entry(&small);
    let limit = cost::bucket("b") + cost::map(2) + 2 * entry(&small);
    let limits = Limits { entries_max: 2, bucket_bytes_max: 2_000, memory_bytes_max: limit, ..Limits::default() };
    let fixture = Fixture::new(limits);
    let used = || fixture.env.budget.used();
    fixture.put("a", &small, None).unwrap();
    assert_eq!(fixture.summary(), (1, 1, one));

    assert_eq!(fixture.put("b", &"x".repeat(200), None), Err(OverBudget::Account { limit }.into()));
    assert_eq!(fixture.put("a", &large, None), Err(Error::BucketFull { limit: 2_000 }));
    assert_eq!((fixture.summary(), used()), ((1, 1, one), one));

    fixture.put("b", &small, None).unwrap();
    assert_eq!(used(), limit, "to the last byte");
    fixture.put("a", "", None).unwrap();
    assert_eq!(fixture.put("c", "", None), Err(Error::TooManyEntries { limit: 2 }));
    fixture.delete("b", None).unwrap();
    assert_eq!(fixture.summary(), (4, 1, one - cost::value(&Value::Text(small.into()))));
    fixture.delete("a", None).unwrap();
    assert_eq!(used(), cost::bucket("b"));

    fixture.put("a", "1", None).unwrap();
    fixture.bucket.stop(&Reason::Normal.into()).unwrap();
    drop(fixture.bucket.take_remains());
    assert_eq!(used(), 0);
}

#[test]
fn an_alarm_of_a_bucket_without_a_time_is_nothing() {
    let fixture = fixture();
    fixture.put("k", "v", None).unwrap();
    fixture.bucket.call(Tick).unwrap();
    assert_eq!((fixture.keys(), fixture.summary().0), (vec!["k".to_owned()], 1));
}

#[test]
fn a_scan_is_ordered_bytewise_by_pages_and_survives_the_deletion_of_its_key() {
    let fixture = fixture();
    for at in ["b", "a/2", "a/1", "a", "a/10", "é", "Z"] {
        fixture.put(at, "1", None).unwrap();
    }
    let scan = |prefix, after, items_max| {
        let scan = Scan { prefix, after, items_max, bytes_max: 1_000, values: Values::Included };
        let page = fixture.bucket.call(scan).unwrap().unwrap();
        (page.entries.into_iter().map(|entry| entry.key.into_string()).collect::<Vec<_>>(), page.more)
    };
    let page = |keys: &[&str], more| (keys.iter().map(ToString::to_string).collect::<Vec<_>>(), more);
    assert_eq!(scan("", None, 10), page(&["Z", "a", "a/1", "a/10", "a/2", "b", "é"], false));
    assert_eq!(scan("a/", None, 2), page(&["a/1", "a/10"], true));
    fixture.delete("a/10", None).unwrap();
    assert_eq!(scan("a/", Some("a/10"), 2), page(&["a/2"], false));
    assert_eq!(scan("c", None, 2), page(&[], false));
}

#[test]
fn a_page_ends_before_it_is_too_large_but_has_one_entry() {
    let fixture = fixture();
    fixture.put("a", &"x".repeat(300), None).unwrap();
    fixture.put("b", &"x".repeat(300), None).unwrap();
    let page = |bytes_max, values| {
        let scan = Scan { prefix: "", after: None, items_max: 10, bytes_max, values };
        let page = fixture.bucket.call(scan).unwrap().unwrap();
        (page.entries.len(), page.more)
    };
    assert_eq!(page(1, Values::Included), (1, true));
    assert_eq!(page(500, Values::Included), (1, true));
    assert_eq!(page(500, Values::LeftOut), (2, false));
    assert_eq!(page(1_000, Values::Included), (2, false));
}

#[test]
fn a_number_comes_back_with_all_its_bits() {
    let fixture = fixture();
    let nan = f64::from_bits(0x7ff8_dead_beef_0001);
    let value = Value::Number(nan);
    fixture.bucket.call(Put { key: key("nan"), value, ttl: None, expected: None }).unwrap().unwrap();
    assert!(fixture.get("nan").unwrap().value.is(&Value::Number(nan)));
}

#[test]
fn an_add_counts_from_0_and_one_that_fails_changes_nothing() {
    let fixture = fixture();
    assert_eq!(fixture.add("n", 5), Ok((5, Version(1))));
    assert_eq!(fixture.add("n", -7), Ok((-2, Version(2))));
    assert_eq!(fixture.add("n", i64::MIN), Err(Error::IntegerOverflow));
    fixture.put("text", "5", None).unwrap();
    assert_eq!(fixture.add("text", 1), Err(Error::WrongType));
    assert_eq!(fixture.summary().0, 3);
    assert_eq!(fixture.add("n", 2), Ok((0, Version(4))));
}

#[test]
fn a_transaction_does_the_one_list_or_the_other_and_sees_what_it_did() {
    let fixture = fixture();
    fixture.put("a", "1", None).unwrap();
    let check = |condition| vec![Check { key: key("a"), condition }];
    let done = fixture.transact(
        check(Condition::Value(Value::Text("1".into()))),
        vec![put("b", "2"), Op::Get(key("b")), Op::Add(key("n"), 3, None), Op::Delete(key("a")), Op::Get(key("a"))],
        vec![],
    );
    let done = done.unwrap();
    let versions = |done: &Transacted| {
        done.results.iter().map(|entry| entry.as_ref().map_or(0, |entry| entry.version.0)).collect::<Vec<_>>()
    };
    assert_eq!((done.succeeded, done.version, versions(&done)), (true, Version(4), vec![2, 2, 3, 1, 0]));

    let conditions = [Condition::Present(true), Condition::Version(Version(1)), Condition::Value(Value::Flag(true))];
    for condition in conditions {
        let done = fixture.transact(check(condition), vec![put("a", "no")], vec![Op::Get(key("b"))]).unwrap();
        assert_eq!((done.succeeded, versions(&done)), (false, vec![2]));
    }
    for condition in [Condition::Present(false), Condition::Version(Version(0))] {
        assert!(fixture.transact(check(condition), vec![], vec![]).unwrap().succeeded);
    }
    assert_eq!(fixture.keys(), ["b", "n"]);
}

#[test]
fn a_transaction_that_fails_changes_nothing_not_even_a_charge_or_a_time() {
    let fixture = Fixture::new(Limits { entries_max: 3, bucket_bytes_max: 3_000, ..Limits::default() });
    fixture.put("a", &"x".repeat(700), None).unwrap();
    fixture.put_for("t", 10);
    let before = fixture.summary();
    let due = fixture.get("t").unwrap().due;
    let place = |index| Place { success: true, index };
    let op = |index, error| TransactError::Op { place: place(index), error };
    for (ops, error) in [
        (vec![Op::Delete(key("a")), put("b", "1"), Op::Add(key("b"), 1, None)], op(2, Error::WrongType)),
        (vec![put("t", "1"), put("b", "1"), put("c", "1")], op(2, Error::TooManyEntries { limit: 3 })),
        (vec![put("a", ""), put("b", &"x".repeat(2_500))], op(1, Error::BucketFull { limit: 3_000 })),
        (
            vec![Op::Delete(key("t")), Op::Get(key("a")), Op::Get(key("a"))],
            TransactError::ResultsTooLarge { limit: 1_000 },
        ),
    ] {
        assert_eq!(fixture.transact(vec![], ops, vec![]).unwrap_err(), error);
        assert_eq!((fixture.summary(), fixture.env.budget.used()), (before, before.2));
        assert_eq!(fixture.get("t").unwrap().due, due);
    }
    assert_eq!(fixture.get("a").unwrap().version, Version(1));
}

#[test]
fn what_is_past_its_time_is_read_by_nobody_and_takes_a_version() {
    let fixture = fixture();
    fixture.put_for("a", 10);
    fixture.put("b", "1", None).unwrap();
    let charged = fixture.summary().2;
    fixture.advance(9);
    assert!(fixture.get("a").is_ok());
    fixture.advance(1);
    assert_eq!(fixture.get("a").unwrap_err(), Error::KeyNotFound);
    assert_eq!(fixture.summary().0, 3, "its end is a change like any other");
    assert!(fixture.summary().2 < charged);
    assert_eq!(fixture.put("a", "again", Some(0)), Ok(Version(4)));
}

#[test]
fn a_put_without_a_ttl_clears_an_old_one_and_an_add_keeps_it() {
    let fixture = fixture();
    fixture.put_for("put", 10);
    fixture.put_for("add", 10);
    fixture.put_for("longer", 10);
    fixture.put("put", "1", None).unwrap();
    fixture.add("add", 1).unwrap();
    fixture.bucket.call(Add { key: key("longer"), delta: 1, ttl: seconds(20) }).unwrap().unwrap();
    fixture.advance(15);
    assert_eq!(fixture.keys(), ["longer", "put"]);
    fixture.delete("longer", None).unwrap();
    fixture.put("longer", "1", None).unwrap();
    fixture.advance(15);
    assert_eq!(fixture.keys(), ["longer", "put"], "an entry that was deleted leaves no time behind");
}

#[test]
fn a_touch_sets_the_time_of_an_entry_or_of_the_bucket_and_no_version() {
    let fixture = fixture();
    fixture.put("a", "1", None).unwrap();
    let touch = |at: Option<&'static str>, ttl| fixture.bucket.call(Touch { key: at.map(key), ttl }).unwrap();
    assert_eq!(touch(Some("absent"), None), Err(Error::KeyNotFound));
    touch(Some("a"), seconds(10)).unwrap();
    touch(None, seconds(60)).unwrap();
    assert_eq!(fixture.summary().0, 1);
    assert_eq!(touch(Some("a"), None), Ok(Due::NEVER));
    fixture.advance(59);
    assert_eq!(fixture.keys(), ["a"]);
    fixture.advance(1);
    assert_eq!(fixture.get("a").unwrap_err(), Error::Expired);
    assert_eq!(fixture.bucket.why(), Some(Reason::Expired.into()));
    assert_eq!(fixture.bucket.call(Peek), Err(CallError::NoProc));
}

#[test]
fn an_idle_bucket_ends_and_each_use_starts_its_time_anew_also_a_refused_one() {
    let fixture = fixture();
    fixture.bucket.call(Begin { ttl: None, idle_ttl: seconds(10) }).unwrap();
    for _ in 0..5 {
        fixture.advance(9);
        assert_eq!(fixture.get("absent").unwrap_err(), Error::KeyNotFound);
        fixture.tick();
        fixture.bucket.call(Describe).unwrap().unwrap();
    }
    fixture.advance(9);
    fixture.bucket.call(Peek).unwrap().unwrap();
    fixture.advance(1);
    fixture.tick();
    assert!(!fixture.bucket.is_alive(), "to be looked at is no use");
}

#[test]
fn who_holds_a_bucket_stops_its_idle_time_and_no_other() {
    for (begin, lives) in [
        (Begin { ttl: None, idle_ttl: seconds(10) }, true),
        (Begin { ttl: seconds(10), idle_ttl: None }, false),
        (Begin { ttl: seconds(10), idle_ttl: seconds(10) }, false),
    ] {
        let fixture = fixture();
        fixture.bucket.call(begin).unwrap();
        for _ in 0..2 {
            fixture.bucket.call(Hold).unwrap().unwrap();
        }
        fixture.bucket.call(Release).unwrap().unwrap();
        fixture.advance(10);
        fixture.tick();
        assert_eq!(fixture.bucket.is_alive(), lives, "{begin:?}");
        let released = fixture.bucket.call(Release);
        fixture.advance(10);
        fixture.tick();
        assert_eq!((released.is_ok(), fixture.bucket.is_alive()), (lives, false), "{begin:?}");
    }
}

#[test]
fn the_alarm_ends_what_nobody_asks_for_and_goes_with_the_bucket() {
    let fixture = fixture();
    for (at, ttl) in [("a", 30), ("b", 10), ("c", 20)] {
        fixture.put_for(at, ttl);
    }
    fixture.advance(10);
    assert_eq!(fixture.tick(), 1);
    assert_eq!(fixture.bucket.call(Peek).unwrap().unwrap().entry_count, 2);
    fixture.advance(20);
    assert_eq!((fixture.tick(), fixture.bucket.call(Peek).unwrap().unwrap().version), (1, Version(6)));
    assert_eq!(fixture.tick(), 0);

    fixture.put_for("d", 10);
    fixture.bucket.stop(&Reason::Normal.into()).unwrap();
    assert_eq!(format!("{:?}", fixture.env.alarms), "Alarms(0)");
}

#[test]
fn an_observer_knows_which_changes_it_has_seen_however_many_write_meanwhile() {
    let f = Fixture::new(Limits::default());
    let mut reader = f.env.ring.subscribe(ring::Scope::Names(vec!["b".into()]));
    let k = key("k");
    let scan = Scan { prefix: "", after: None, items_max: 1, bytes_max: 1, values: Values::LeftOut };
    let mut seen = Version::default();
    thread::scope(|scope| {
        let write = || {
            for _ in 0..20_000 {
                let put = Put { key: k, value: Value::Flag(true), ttl: None, expected: None };
                f.bucket.call(put).unwrap().unwrap();
            }
        };
        let writers = [scope.spawn(write), scope.spawn(write)];
        while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
            let Observed { page, position } = f.bucket.call(Observe(scan)).unwrap().unwrap();
            while !reader.has_read(position) {
                for change in reader.read(position).unwrap() {
                    seen = change.version;
                    reader.pass();
                }
            }
            assert_eq!(seen, page.version);
        }
    });
}
