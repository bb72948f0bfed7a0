//! What the registry promises, and a death, step by step.

mod otp;

use std::{
    sync::Barrier,
    thread::{self, sleep},
    time::Instant,
};

use super::*;
use crate::{
    bucket::{self, Begin, Get, Put, cost},
    clock::ManualClock,
    hooks,
    name::{Key, Version},
    process::Context,
    time_to_live::Ttl,
    value::Value,
};

fn registry() -> Registry {
    registry_with(Limits::default())
}

fn registry_with(limits: Limits) -> Registry {
    Registry::start(limits, Arc::new(ManualClock::default()), "test".to_owned())
}

/// A registry whose time is ours.
fn timed() -> (Registry, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    (Registry::start(Limits::default(), Arc::clone(&clock) as _, "test".to_owned()), clock)
}

fn name(text: &str) -> BucketName<'_> {
    BucketName::parse(text, &Limits::default()).unwrap()
}

fn key(text: &str) -> Key<'_> {
    Key::parse(text, &Limits::default()).unwrap()
}

fn at(text: &str) -> Target<'_> {
    Target { name: name(text), id: None }
}

const FOR_EVER: Begin = Begin { ttl: None, idle_ttl: None };

fn create(registry: &Registry, text: &str) -> BucketId {
    let (bucket, created) = registry.create(name(text), FOR_EVER).unwrap();
    assert!(created);
    bucket.id
}

fn stop(registry: &Registry, text: &str) -> Result<(BucketId, Revision), Error> {
    registry.stop(at(text), &Reason::Normal.into())
}

fn put(registry: &Registry, bucket: &str, entry: &str) -> Result<(BucketId, Version), Error> {
    let put = Put { key: key(entry), value: Value::Text("1".into()), ttl: None, expected: None };
    registry.ask(at(bucket), put)
}

/// Makes the handler of a Put panic.
fn crash(registry: &Registry, bucket: &str) -> Result<(BucketId, Version), Error> {
    put(registry, bucket, &format!("{}boom", hooks::PANIC))
}

/// The whole log, in short.
fn log(registry: &Registry) -> Vec<(String, Option<Reason>)> {
    let oldest = Revision::new(registry.revision().get() - registry.shared.log.tally().kept as u64);
    let events = registry.events(oldest, usize::MAX).unwrap();
    events
        .iter()
        .map(|event| match &event.kind {
            EventKind::Created => (event.name.to_string(), None),
            EventKind::Down(death) => (event.name.to_string(), Some(death.exit.reason)),
        })
        .collect()
}

fn names(registry: &Registry) -> Vec<String> {
    let page = registry.list("", None, 1_000).unwrap();
    page.buckets.iter().map(|bucket| bucket.name.to_string()).collect()
}

/// Holds the registrar within a handler: it waits once to say that it is there, and once to go on.
impl Call<&Barrier> for Registrar {
    type Reply = ();

    fn handle_call(&mut self, gate: &Barrier, _: &mut Context<'_, Self>) {
        gate.wait();
        gate.wait();
    }
}

/// Does `act` while the registrar is held.
pub(crate) fn while_held<R>(registry: &Registry, act: impl FnOnce() -> R) -> R {
    let gate = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| registry.registrar(&gate).unwrap());
        gate.wait();
        let result = act();
        gate.wait();
        result
    })
}

#[test]
fn a_list_of_many_prefixes_is_one_list_and_its_pages_end_anywhere() {
    let registry = registry();
    for at in ["a/1", "a/2", "b/1", "c/1", "c/2", "d"] {
        registry.create(name(at), FOR_EVER).unwrap();
    }
    let all = |items_max| {
        let (mut names, mut after) = (Vec::new(), None::<Arc<str>>);
        loop {
            let page = registry.list_among(&["a/", "c/", "d"], after.as_deref(), items_max).unwrap();
            assert!(page.buckets.len() <= items_max);
            names.extend(page.buckets.iter().map(|bucket| bucket.name.to_string()));
            match page.next_after {
                Some(next) => after = Some(next),
                None => return names.join(" "),
            }
        }
    };
    for items_max in 1..7 {
        assert_eq!(all(items_max), "a/1 a/2 c/1 c/2 d", "{items_max} a page");
    }
}

#[test]
fn a_bucket_is_its_creators_for_as_long_as_it_lives() {
    let registry = registry();
    let owner = Arc::<crate::budget::Owner>::default();
    owner.allow(Some(1), None, None);
    registry.create_for(Some(&owner), name("a"), FOR_EVER).unwrap();
    registry.create_for(Some(&owner), name("a"), FOR_EVER).unwrap();
    let over = crate::budget::OverQuota { limit: 1 };
    assert_eq!(registry.create_for(Some(&owner), name("b"), FOR_EVER).unwrap_err(), Error::OverQuota(over));
    let figures = registry.figures();
    assert_eq!((figures.buckets, figures.log.created, owner.bytes.taken()), (1, 1, figures.charged_bytes));
    registry.stop(Target { name: name("a"), id: None }, &Reason::Normal.into()).unwrap();
    assert_eq!((owner.buckets.taken(), owner.bytes.taken()), (0, 0));
    registry.create_for(Some(&owner), name("b"), FOR_EVER).unwrap();
}

#[test]
fn spawns_buckets() {
    let registry = registry();
    assert_eq!(registry.lookup(name("shopping")).unwrap_err(), Error::BucketNotFound);
    let id = create(&registry, "shopping");
    assert_eq!(registry.lookup(name("shopping")).unwrap().id, id);
    let (again, created) = registry.create(name("shopping"), FOR_EVER).unwrap();
    assert_eq!((again.id, created), (id, false), "to create is idempotent");
    put(&registry, "shopping", "milk").unwrap();
    let (_, entry) = registry.ask(at("shopping"), Get { key: key("milk") }).unwrap();
    assert!(matches!(entry.value, Value::Text(text) if &*text == "1"));
    assert_eq!(entry.version, Version(1));
}

#[test]
fn removes_buckets_on_exit() {
    let registry = registry();
    let first = create(&registry, "shopping");
    let (id, revision) = stop(&registry, "shopping").unwrap();
    assert_eq!(id, first);
    assert_eq!(registry.revision(), revision);
    assert_eq!(registry.lookup(name("shopping")).unwrap_err(), Error::BucketNotFound);
    assert_eq!(stop(&registry, "shopping").unwrap_err(), Error::BucketNotFound);
    assert!(create(&registry, "shopping") > first, "the name may be taken again, the id never is");
}

#[test]
fn removes_bucket_on_crash() {
    let registry = registry();
    create(&registry, "neighbour");
    let id = create(&registry, "shopping");
    assert_eq!(
        crash(&registry, "shopping").unwrap_err(),
        Error::BucketCrashed { id, exit: Exit::new(Reason::Crashed, "boom") }
    );
    assert_eq!(registry.lookup(name("shopping")).unwrap_err(), Error::BucketNotFound);
    assert_eq!(put(&registry, "shopping", "milk").unwrap_err(), Error::BucketNotFound);
    put(&registry, "neighbour", "milk").unwrap();
    assert_eq!(names(&registry), ["neighbour"]);
}

#[test]
fn an_id_that_is_not_the_living_bucket_s_reaches_nobody() {
    let registry = registry();
    let id = create(&registry, "a");
    stop(&registry, "a").unwrap();
    create(&registry, "a");
    let old = Target { name: name("a"), id: Some(id.get()) };
    let put = Put { key: key("k"), value: Value::Flag(true), ttl: None, expected: None };
    let not_found = Error::BucketNotFound;
    assert_eq!(registry.ask(old, put).unwrap_err(), not_found);
    assert_eq!(registry.ask(old, Get { key: key("k") }).unwrap_err(), not_found);
    assert_eq!(registry.stop(old, &Reason::Normal.into()).unwrap_err(), not_found);
    assert!(registry.bucket("a", id).is_none());
    assert_eq!(registry.lookup(name("a")).unwrap().summary.version, Version(0));
}

#[test]
fn a_list_is_ordered_bytewise_by_pages_and_survives_the_death_of_its_name() {
    let registry = registry();
    for text in ["b", "a/2", "a/1", "a", "a/10", "é", "Z"] {
        create(&registry, text);
    }
    assert_eq!(names(&registry), ["Z", "a", "a/1", "a/10", "a/2", "b", "é"]);
    let page = registry.list("a/", None, 2).unwrap();
    assert_eq!((page.buckets.len(), page.next_after.as_deref()), (2, Some("a/10")));
    stop(&registry, "a/10").unwrap();
    let page = registry.list("a/", Some("a/10"), 2).unwrap();
    assert_eq!((&*page.buckets[0].name, page.next_after), ("a/2", None));
}

#[test]
fn there_are_as_many_buckets_as_there_may_be_and_a_refused_one_costs_nothing() {
    let registry = registry_with(Limits { buckets_max: 1, ..Limits::default() });
    create(&registry, "a");
    let (before, charged) = (registry.revision(), registry.charged_bytes());
    assert_eq!(registry.create(name("b"), FOR_EVER).unwrap_err(), Error::TooManyBuckets { limit: 1 });
    assert_eq!((registry.revision(), registry.charged_bytes()), (before, charged));
    stop(&registry, "a").unwrap();
    create(&registry, "b");
}

#[test]
fn a_bucket_that_there_is_no_memory_for_is_refused_and_one_that_goes_makes_room() {
    let limit = cost::bucket("a");
    let registry = registry_with(Limits { memory_bytes_max: limit, ..Limits::default() });
    create(&registry, "a");
    let over = Error::Bucket(bucket::Error::OverBudget(crate::budget::OverBudget::Account { limit }));
    assert_eq!(put(&registry, "a", "milk").unwrap_err(), over);
    assert_eq!(registry.create(name("b"), FOR_EVER).unwrap_err(), over);
    stop(&registry, "a").unwrap();
    assert_eq!(registry.charged_bytes(), 0, "a death gives back exactly what was charged");
    create(&registry, "b");
}

#[test]
fn step_1_a_bucket_is_dead_for_all_before_the_registrar_knows() {
    let registry = registry();
    let old = create(&registry, "a");
    while_held(&registry, || {
        assert!(matches!(crash(&registry, "a"), Err(Error::BucketCrashed { .. })));
        assert_eq!(registry.lookup(name("a")).unwrap_err(), Error::BucketNotFound);
        assert_eq!(put(&registry, "a", "milk").unwrap_err(), Error::BucketNotFound);
        assert!(registry.bucket("a", old).is_none());
        assert!(registry.shared.index.get("a").is_some(), "the name is still to be freed");
        assert_eq!(log(&registry), [("a".to_owned(), None)]);
    });
    assert!(create(&registry, "a") > old);
    assert_eq!(
        log(&registry),
        [("a".to_owned(), None), ("a".to_owned(), Some(Reason::Crashed)), ("a".to_owned(), None)]
    );
}

#[test]
fn step_2_whoever_asks_the_registrar_next_sees_the_death_first() {
    let registry = registry();
    create(&registry, "a");
    let gate = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| registry.registrar(&gate).unwrap());
        gate.wait();
        crash(&registry, "a").unwrap_err();
        let list = scope.spawn(|| names(&registry));
        gate.wait();
        assert_eq!(list.join().unwrap(), Vec::<String>::new());
    });
}

/// Holds the registrar, and then looks a name up within the same handler.
impl Call<(&Barrier, &str)> for Registrar {
    type Reply = bool;

    fn handle_call(&mut self, (gate, name): (&Barrier, &str), _: &mut Context<'_, Self>) -> bool {
        gate.wait();
        gate.wait();
        self.living(name, None).is_some()
    }
}

#[test]
fn step_2_a_death_whose_message_has_not_arrived_is_finished_by_whoever_meets_it_and_only_once() {
    let registry = registry();
    create(&registry, "a");
    let gate = Barrier::new(2);
    thread::scope(|scope| {
        let met = scope.spawn(|| registry.registrar((&gate, "a")).unwrap());
        gate.wait();
        crash(&registry, "a").unwrap_err();
        gate.wait();
        assert!(!met.join().unwrap());
    });
    assert_eq!(registry.charged_bytes(), 0);
    assert_eq!(log(&registry), [("a".to_owned(), None), ("a".to_owned(), Some(Reason::Crashed))]);
}

#[test]
fn step_3_when_stop_returns_all_is_settled_though_nobody_was_told_yet() {
    let registry = registry();
    let id = create(&registry, "a");
    let inbox = Arc::new(Inbox::default());
    registry.monitor(&[at("a")], &inbox).unwrap();
    let (_, revision) = stop(&registry, "a").unwrap();

    assert!(registry.shared.index.get("a").is_none());
    assert_eq!(registry.charged_bytes(), 0);
    assert_eq!((registry.revision(), registry.monitors()), (revision, 0));
    assert!(inbox.take(10, 1_000).0.is_empty(), "step 4 is somebody else's");
    registry.deliver();
    let (told, left) = inbox.take(10, 1_000);
    assert_eq!((told.len(), told[0].1.id(), told[0].1.revision, left), (1, id, revision, None));
}

#[test]
fn step_4_a_late_or_doubled_down_is_dropped() {
    let registry = registry();
    create(&registry, "a");
    let bucket = registry.find(at("a")).unwrap();
    stop(&registry, "a").unwrap();
    create(&registry, "a");
    let before = registry.revision();
    let late = Registrar::start(&registry.shared);
    late.monitor(&bucket); // NOPROC, of a bucket whose name is taken again
    assert_eq!((registry.revision(), names(&registry)), (before, vec!["a".to_owned()]));
}

#[test]
fn a_registrar_that_crashes_comes_back_from_the_living() {
    let registry = registry();
    for text in ["c", "a", "b"] {
        create(&registry, text);
        put(&registry, text, "milk").unwrap();
    }
    let charged = registry.charged_bytes();
    let crash_name = format!("{}oh no", hooks::PANIC);
    let crashed = registry.create(name(&crash_name), FOR_EVER).unwrap_err();
    assert_eq!(crashed, Error::RegistryCrashed(Exit::new(Reason::Crashed, "oh no")));

    assert_eq!(names(&registry), ["a", "b", "c"]);
    assert_eq!(registry.charged_bytes(), charged, "what was half created is given back");
    assert_eq!(registry.ask(at("b"), Get { key: key("milk") }).unwrap().1.version, Version(1));
    crash(&registry, "b").unwrap_err();
    assert_eq!(names(&registry), ["a", "c"], "and it monitors them again");
    create(&registry, "b");
}

#[test]
fn a_registrar_that_crashes_too_often_is_given_up() {
    let registry = registry();
    let crash_name = format!("{}oh no", hooks::PANIC);
    for _ in 0..=RESTARTS_MAX {
        assert!(matches!(registry.create(name(&crash_name), FOR_EVER), Err(Error::RegistryCrashed(_))));
    }
    assert_eq!(registry.create(name("a"), FOR_EVER).unwrap_err(), Error::GaveUp);
    assert!(registry.shared.gave_up.load(Ordering::Acquire));
}

#[test]
fn of_a_hundred_callers_of_a_crash_one_is_told_and_the_others_find_no_bucket_or_the_namesake() {
    let registry = registry();
    let old = create(&registry, "a");
    let start = Barrier::new(101);
    let results: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = (0..101)
            .map(|caller| {
                let (registry, start) = (&registry, &start);
                scope.spawn(move || {
                    start.wait();
                    if caller == 50 { crash(registry, "a") } else { put(registry, "a", "milk") }
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let crashed = results.iter().filter(|result| matches!(result, Err(Error::BucketCrashed { .. }))).count();
    let lost = results.iter().filter(|result| matches!(result, Err(Error::BucketNotFound))).count();
    let before = results.iter().filter(|result| matches!(result, Ok((id, _)) if *id == old)).count();
    assert_eq!((crashed, lost + before), (1, 100));
    assert_eq!((registry.charged_bytes(), registry.monitors()), (0, 0));
}

#[test]
fn names_that_are_created_and_stopped_by_many_at_once_stay_consistent() {
    let registry = registry();
    thread::scope(|scope| {
        for worker in 0..8 {
            let registry = &registry;
            scope.spawn(move || {
                for round in 0..500 {
                    let text = format!("n{}", (worker + round) % 5);
                    match round % 3 {
                        0 => drop(registry.create(name(&text), FOR_EVER)),
                        1 => drop(stop(registry, &text)),
                        _ => drop(crash(registry, &text)),
                    }
                }
            });
        }
    });
    let alive = names(&registry);
    for text in &alive {
        stop(&registry, text).unwrap();
    }
    let events = log(&registry);
    for text in (0..5).map(|n| format!("n{n}")) {
        let mut of_name = events.iter().filter(|(name, _)| *name == text).map(|(_, reason)| reason.is_some());
        assert!(of_name.all({
            let mut expected = true;
            move |down| {
                expected = !expected;
                down == expected
            }
        }));
    }
    assert_eq!((registry.charged_bytes(), registry.shared.index.all().len()), (0, 0));
}

#[test]
fn whoever_delivers_is_woken_by_a_death() {
    let registry = registry();
    create(&registry, "a");
    let inbox = Arc::new(Inbox::default());
    registry.enroll(&inbox, Interest::Monitors);
    registry.monitor(&[at("a")], &inbox).unwrap();
    let runner = registry.clone();
    thread::spawn(move || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(runner.run()));
    crash(&registry, "a").unwrap_err();
    let deadline = Instant::now() + Duration::from_secs(10);
    while inbox.take(1, 1_000).0.is_empty() {
        assert!(Instant::now() < deadline, "nobody delivered");
        sleep(Duration::from_millis(1)); // between two looks, not for luck
    }
}

fn ten_seconds() -> Begin {
    Begin { ttl: Ttl::new(Duration::from_secs(10)), idle_ttl: None }
}

#[test]
fn a_bucket_past_its_time_is_found_by_nobody_and_its_down_comes_before_its_namesake() {
    let (registry, clock) = timed();
    for text in ["create", "lookup", "put", "stop", "monitor"] {
        registry.create(name(text), ten_seconds()).unwrap();
    }
    clock.advance(Duration::from_secs(10));
    let (_, created) = registry.create(name("create"), FOR_EVER).unwrap();
    assert!(created);
    assert_eq!(registry.lookup(name("lookup")).unwrap_err(), Error::BucketNotFound);
    assert_eq!(put(&registry, "put", "milk").unwrap_err(), Error::BucketNotFound);
    assert_eq!(stop(&registry, "stop").unwrap_err(), Error::BucketNotFound);
    let inbox = Arc::new(Inbox::default());
    assert_eq!(registry.monitor(&[at("monitor")], &inbox).unwrap().0[0].1, None);
    let expired = |text: &str| (text.to_owned(), Some(Reason::Expired));
    assert_eq!(log(&registry)[5..7], [expired("create"), ("create".to_owned(), None)]);
    assert_eq!(log(&registry)[7..], ["lookup", "put", "stop", "monitor"].map(expired));
    assert_eq!(names(&registry), ["create"]);
}

#[test]
fn the_timer_ends_what_nobody_asks_for() {
    let (registry, clock) = timed();
    for n in 0..1_000 {
        registry.create(name(&n.to_string()), ten_seconds()).unwrap();
    }
    create(&registry, "stays");
    clock.advance(Duration::from_secs(9));
    registry.expire();
    assert_eq!(registry.list("", None, 2_000).unwrap().buckets.len(), 1_001);
    clock.advance(Duration::from_secs(1));
    registry.expire();
    assert_eq!(names(&registry), ["stays"]);
    assert_eq!(log(&registry).len(), 2_001);
}

#[test]
fn a_bucket_that_is_there_keeps_its_times_when_it_is_created_again() {
    let (registry, clock) = timed();
    create(&registry, "a");
    registry.create(name("a"), ten_seconds()).unwrap();
    clock.advance(Duration::from_secs(10));
    registry.expire();
    assert_eq!(names(&registry), ["a"]);
}

#[test]
fn a_shut_down_is_over_as_soon_as_there_is_enough_of_it() {
    let registry = registry();
    for text in ["a", "b", "c"] {
        create(&registry, text);
    }
    let mut looks = 0;
    let left = registry.shut_down(|| {
        looks += 1;
        looks > 2
    });
    assert_eq!((left, names(&registry)), (Ok(2), vec!["b".to_owned(), "c".to_owned()]));
}
