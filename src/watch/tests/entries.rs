//! What a watch of entries promises, without a socket.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::Wake,
    thread,
};

use super::*;
use crate::{
    bucket::{Add, Delete, Observe, Op, Put, Scan, Tick, Touch, Transact},
    hooks::PANIC,
    name::Key,
    registry::tests::while_held,
    time_to_live::Ttl,
    value::Value,
};

const ENTRIES: Entries<'_> = Entries { put: true, deleted: true, key_prefix: "", values: Values::Included };

const WITH: Kinds<'_> = Kinds { entries: Some(ENTRIES), ..ALL };

fn key(text: &str) -> Key<'_> {
    Key::parse(text, &LIMITS).unwrap()
}

fn target(text: &str) -> Target<'_> {
    Target { name: name(text), id: None }
}

fn put(registry: &Registry, bucket: &str, at: &str) -> u64 {
    put_text(registry, bucket, at, "")
}

fn put_text(registry: &Registry, bucket: &str, at: &str, text: &str) -> u64 {
    let put = Put { key: key(at), value: Value::Text(text.into()), ttl: None, expected: None };
    registry.ask(target(bucket), put).unwrap().1.0
}

fn put_for(registry: &Registry, bucket: &str, at: &str, ttl: Duration) {
    let put = Put { key: key(at), value: Value::Flag(true), ttl: Ttl::new(ttl), expected: None };
    registry.ask(target(bucket), put).unwrap();
}

fn delete(registry: &Registry, bucket: &str, at: &str) {
    registry.ask(target(bucket), Delete { key: key(at), expected: None }).unwrap();
}

fn there(bucket: &str, at: &str, version: u64) -> Said {
    Said::There(bucket.to_owned(), at.to_owned(), version)
}

fn has_put(bucket: &str, at: &str, version: u64) -> Said {
    Said::Put(bucket.to_owned(), at.to_owned(), version)
}

fn has_deleted(bucket: &str, at: &str, version: u64) -> Said {
    Said::Deleted(bucket.to_owned(), at.to_owned(), version)
}

fn has_expired(bucket: &str, at: &str, version: u64) -> Said {
    Said::Expired(bucket.to_owned(), at.to_owned(), version)
}

/// The three ways to watch one bucket.
fn every_way(registry: &Registry, bucket: &str, initial: Initial) -> [Watch; 3] {
    let targets = [target(bucket)];
    [
        Watch::names(registry.clone(), &targets, WITH, initial).unwrap(),
        Watch::follow(registry.clone(), &targets, WITH, initial).unwrap(),
        Watch::prefix(registry.clone(), bucket, WITH, initial).unwrap(),
    ]
}

fn only_entries(said: Vec<Said>) -> Vec<Said> {
    let is_entry = |said: &Said| {
        matches!(said, Said::There(..) | Said::Put(..) | Said::Deleted(..) | Said::Expired(..) | Said::Synced)
    };
    said.into_iter().filter(is_entry).collect()
}

#[test]
fn entries_that_are_there_come_in_the_order_of_keys_and_then_each_change_in_the_order_of_versions() {
    let registry = registry();
    create(&registry, "b");
    put(&registry, "b", "z");
    put(&registry, "b", "a");
    for mut watch in every_way(&registry, "b", Initial::Sent) {
        let last = registry.lookup(name("b")).unwrap().summary.version.0;
        let heard = only_entries(hear(&registry, &mut watch));
        assert!(matches!(&heard[..], [Said::There(_, a, _), Said::There(_, z, _), Said::Synced] if a < z), "{heard:?}");

        put(&registry, "b", "z");
        registry.ask(target("b"), Add { key: key("n"), delta: 1, ttl: None }).unwrap();
        delete(&registry, "b", "n");
        delete(&registry, "b", "n");
        put(&registry, "b", "z");
        let [one, two, three, four] = [1, 2, 3, 4].map(|more| last + more);
        let told =
            [has_put("b", "z", one), has_put("b", "n", two), has_deleted("b", "n", three), has_put("b", "z", four)];
        assert_eq!(hear(&registry, &mut watch), told, "an absent key that is deleted is no change");
    }
}

#[test]
fn a_bucket_is_created_then_changed_then_down_whatever_the_watch() {
    let registry = registry();
    let mut follow = Watch::follow(registry.clone(), &[target("b")], WITH, Initial::Sent).unwrap();
    let mut prefix = Watch::prefix(registry.clone(), "", WITH, Initial::Sent).unwrap();
    hear(&registry, &mut follow);
    hear(&registry, &mut prefix);

    let first = create(&registry, "b");
    put(&registry, "b", "k");
    let mut named = Watch::names(registry.clone(), &[target("b")], WITH, Initial::Sent).unwrap();
    assert_eq!(hear(&registry, &mut named), [Said::Started(vec![first]), there("b", "k", 1), Said::Synced]);
    put(&registry, "b", "k");
    stop(&registry, "b", Reason::Killed);
    let second = create(&registry, "b");
    put(&registry, "b", "k");

    let life = [has_put("b", "k", 2), down("b", first, Reason::Killed)];
    let mut named_life = life.into_iter().collect::<Vec<_>>();
    named_life.push(Said::Over);
    assert_eq!(hear(&registry, &mut named), named_life, "the namesake is another");
    let lives = [
        created("b", first),
        has_put("b", "k", 1),
        has_put("b", "k", 2),
        down("b", first, Reason::Killed),
        created("b", second),
        has_put("b", "k", 1),
    ];
    assert_eq!(hear(&registry, &mut follow), lives);
    assert_eq!(hear(&registry, &mut prefix), lives);
}

#[test]
fn what_expires_is_deleted_with_expired_and_a_touch_is_no_change() {
    let clock = Arc::new(ManualClock::default());
    let registry = Registry::start(Limits::default(), Arc::clone(&clock) as Arc<_>, "test".to_owned());
    create(&registry, "b");
    put_for(&registry, "b", "k", Duration::from_secs(5));
    let mut watches = every_way(&registry, "b", Initial::Skipped);
    for watch in &mut watches {
        hear(&registry, watch);
    }
    registry.ask(target("b"), Touch { key: Some(key("k")), ttl: Ttl::new(Duration::from_secs(9)) }).unwrap();
    clock.advance(Duration::from_secs(6));
    registry.expire();
    put(&registry, "b", "l");
    clock.advance(Duration::from_secs(4));
    registry.expire();
    for watch in &mut watches {
        assert_eq!(hear(&registry, watch), [has_put("b", "l", 2), has_expired("b", "k", 3)]);
    }
    assert!(registry.bucket("b", registry.id_of(name("b")).unwrap()).unwrap().call(Tick).is_ok());
}

#[test]
fn a_transaction_is_told_in_one_response_and_a_failed_one_not_at_all() {
    let registry = registry();
    create(&registry, "b");
    let mut watches = every_way(&registry, "b", Initial::Sent);
    for watch in &mut watches {
        hear(&registry, watch);
    }
    let keys: Vec<String> = (0..600).map(|n| format!("{n:04}")).collect();
    let transact = |last: Op<'static>| {
        let text = Value::Text("x".repeat(99).into());
        let mut success: Vec<Op<'_>> = keys.iter().map(|at| Op::Put(key(at), text.clone(), None)).collect();
        success.push(last);
        let transact = Transact { checks: vec![], success, failure: vec![], results_bytes_max: 1 << 20 };
        registry.ask(target("b"), transact)
    };
    put(&registry, "b", "text");
    transact(Op::Add(key("text"), 1, None)).unwrap_err();
    transact(Op::Delete(key("text"))).unwrap();
    registry.deliver();
    for watch in &mut watches {
        let mut sizes = Vec::new();
        for _ in 0..9 {
            if let Poll::Ready(Some(Ok(Response { update: Update::Events(notices), .. }))) = poll(watch) {
                sizes.push(notices.len());
            }
        }
        assert!(matches!(sizes[..], [602] | [1, 601]), "{sizes:?}");
    }
}

#[test]
fn between_chunks_what_was_told_is_followed_and_what_was_not_is_told_once() {
    let registry = registry();
    create(&registry, "b");
    // More than a response holds: "a" first, then many, "z" last.
    for at in ["a".to_owned()].into_iter().chain((0..40).map(|n| format!("m{n:02}"))).chain(["z".to_owned()]) {
        put_text(&registry, "b", &at, &"x".repeat(1_024));
    }
    for mut watch in every_way(&registry, "b", Initial::Sent) {
        let mut told = BTreeMap::<String, Vec<Said>>::new();
        let mut responses = 0;
        let mut note = |said: Vec<Said>| {
            for said in said {
                match &said {
                    Said::There(_, at, _) | Said::Put(_, at, _) | Said::Deleted(_, at, _) => {
                        told.entry(at.clone()).or_default().push(said);
                    }
                    _ => {}
                }
            }
        };
        // Until the first chunk has come.
        let first = loop {
            match poll(&mut watch) {
                Poll::Ready(Some(Ok(Response { update: Update::Events(notices), .. }))) => {
                    let said: Vec<Said> = notices.into_iter().map(said).collect();
                    if said.iter().any(|said| matches!(said, Said::There(..))) {
                        break said;
                    }
                }
                Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
                other => panic!("{other:?}"),
            }
            responses += 1;
            assert!(responses < 9);
        };
        note(first);
        // While it goes on: a key that was told, one that was not, and a new one of each kind.
        let version = put(&registry, "b", "a");
        put(&registry, "b", "z");
        delete(&registry, "b", "m39");
        put(&registry, "b", "y");
        put(&registry, "b", "aa");
        note(hear(&registry, &mut watch));

        assert_eq!(told["a"][1..], [has_put("b", "a", version)], "it was told, and has changed");
        assert_eq!(told["z"], [there("b", "z", version + 1)], "it had changed before it was told");
        assert_eq!(told.get("m39"), None, "it was gone before it was told");
        assert_eq!(told["y"], [there("b", "y", version + 3)]);
        assert_eq!(told["aa"], [has_put("b", "aa", version + 4)]);
        assert!(told.values().all(|said| said.len() == 1 || said[0] == told["a"][0]), "{told:?}");
        // As it was, for the next one.
        delete(&registry, "b", "aa");
        delete(&registry, "b", "y");
        put_text(&registry, "b", "m39", &"x".repeat(1_024));
        put_text(&registry, "b", "a", &"x".repeat(1_024));
        put_text(&registry, "b", "z", &"x".repeat(1_024));
    }
}

#[test]
fn a_bucket_that_dies_while_its_entries_are_told_is_down_once_and_no_more_is_told() {
    let registry = registry();
    let (b, c) = (create(&registry, "b"), create(&registry, "c"));
    for n in 0..40 {
        put_text(&registry, "b", &format!("{n:02}"), &"x".repeat(1_024));
    }
    put(&registry, "c", "k");
    for way in 0..3 {
        let targets = [target("b"), target("c")];
        let mut watch = match way {
            0 => Watch::names(registry.clone(), &targets, WITH, Initial::Sent).unwrap(),
            1 => Watch::follow(registry.clone(), &targets, WITH, Initial::Sent).unwrap(),
            _ => Watch::prefix(registry.clone(), "", WITH, Initial::Sent).unwrap(),
        };
        if way < 2 {
            // Only the last one sees the death.
            let said = hear(&registry, &mut watch);
            assert_eq!(said.iter().filter(|said| matches!(said, Said::There(..))).count(), 41);
            continue;
        }
        let mut before = Vec::new();
        while !before.iter().any(|said| matches!(said, Said::There(..))) {
            if let Poll::Ready(Some(Ok(Response { update: Update::Events(notices), .. }))) = poll(&mut watch) {
                before.extend(notices.into_iter().map(said));
            }
        }
        put(&registry, "b", "00");
        stop(&registry, "b", Reason::Killed);
        let again = create(&registry, "b");
        put(&registry, "b", "new");
        let after = hear(&registry, &mut watch);
        assert_eq!(
            after,
            [
                initial("c", c),
                has_put("b", "00", 41),
                down("b", b, Reason::Killed),
                created("b", again),
                has_put("b", "new", 1),
                there("c", "k", 1),
                Said::Synced
            ]
        );
    }
}

#[test]
fn a_resumed_watch_replays_lives_and_tells_the_entries_of_the_living_anew() {
    let registry = registry();
    let (old, dead) = (create(&registry, "old"), create(&registry, "dead"));
    put(&registry, "old", "k");
    let after = registry.revision();
    put(&registry, "dead", "k");
    stop(&registry, "dead", Reason::Expired);
    let new = create(&registry, "new");
    put(&registry, "new", "k");

    let mut prefix = Watch::prefix(registry.clone(), "", WITH, Initial::After(after)).unwrap();
    let lives = [down("dead", dead, Reason::Expired), created("new", new)];
    let entries = [there("new", "k", 1), there("old", "k", 1), Said::Synced];
    let heard = hear(&registry, &mut prefix);
    assert_eq!((&heard[1..3], &heard[3..]), (&lives[..], &entries[..]));

    let targets = ["old", "dead", "new"].map(target);
    let mut follow = Watch::follow(registry.clone(), &targets, WITH, Initial::After(after)).unwrap();
    let heard = hear(&registry, &mut follow);
    assert_eq!((&heard[1..3], &heard[3..]), (&lives[..], &entries[..]));

    let mut named = Watch::names(registry.clone(), &targets, WITH, Initial::After(after)).unwrap();
    let heard = hear(&registry, &mut named);
    assert_eq!(
        heard,
        [
            Said::Started(vec![old, dead, 0]),
            down("dead", dead, Reason::Expired),
            down("new", 0, Reason::NoProc),
            there("old", "k", 1),
            Said::Synced
        ],
        "as of that revision there was no bucket \"new\""
    );
    put(&registry, "new", "k");
    put(&registry, "old", "k");
    assert_eq!(hear(&registry, &mut named), [has_put("old", "k", 2)]);
    let both = [has_put("new", "k", 2), has_put("old", "k", 2)];
    assert_eq!(hear(&registry, &mut prefix), both);
    assert_eq!(hear(&registry, &mut follow), both);
}

#[test]
fn kinds_key_prefix_and_keys_only_leave_out_what_is_not_wanted() {
    let registry = registry();
    create(&registry, "b");
    put(&registry, "b", "a/1");
    put(&registry, "b", "b/1");
    let few = Entries { key_prefix: "a/", values: Values::LeftOut, ..ENTRIES };
    let mut keys = Watch::prefix(registry.clone(), "", Kinds { entries: Some(few), ..ALL }, Initial::Sent).unwrap();
    let only = Kinds { created: false, down: false, entries: Some(Entries { deleted: false, ..ENTRIES }) };
    let mut puts = Watch::prefix(registry.clone(), "", only, Initial::Sent).unwrap();
    assert_eq!(only_entries(hear(&registry, &mut keys)), [there("b", "a/1", 1), Said::Synced]);
    assert_eq!(hear(&registry, &mut puts)[1..], [there("b", "a/1", 1), there("b", "b/1", 2), Said::Synced]);

    delete(&registry, "b", "a/1");
    delete(&registry, "b", "b/1");
    put_text(&registry, "b", "a/2", "text");
    stop(&registry, "b", Reason::Normal);
    registry.deliver();
    let Poll::Ready(Some(Ok(Response { update: Update::Events(notices), .. }))) = poll(&mut keys) else {
        panic!("events")
    };
    let put = notices.iter().find_map(|notice| match &notice.kind {
        NoticeKind::Put { entry, .. } => Some(entry),
        _ => None,
    });
    assert!(put.unwrap().value.is_none(), "keys only");
    assert_eq!(notices.len(), 3, "two of the prefix, and the death");
    assert_eq!(hear(&registry, &mut puts), [has_put("b", "a/2", 5)]);
}

#[test]
fn a_watch_that_the_ring_has_passed_is_told_where_to_resume() {
    let registry = registry_with(Limits { ring_bytes_max: 4_096, ..Limits::default() });
    create(&registry, "b");
    let mut watches = every_way(&registry, "b", Initial::Sent);
    for watch in &mut watches {
        hear(&registry, watch);
    }
    for _ in 0..100 {
        put(&registry, "b", "k");
    }
    let resume = registry.revision().get();
    for mut watch in watches {
        assert_eq!(hear(&registry, &mut watch), [Said::Lagged(Some(resume)), Said::Over]);
    }
}

#[test]
fn changes_that_others_watch_push_nobody_out() {
    let registry = registry_with(Limits { ring_bytes_max: 4_096, ..Limits::default() });
    create(&registry, "mine");
    create(&registry, "yours");
    let mut mine = every_way(&registry, "mine", Initial::Sent);
    let _yours = every_way(&registry, "yours", Initial::Sent);
    for watch in &mut mine {
        hear(&registry, watch);
    }
    for _ in 0..100 {
        put(&registry, "yours", "k");
        registry.deliver();
    }
    put(&registry, "mine", "k");
    for mut watch in mine {
        assert_eq!(hear(&registry, &mut watch), [has_put("mine", "k", 1)]);
    }
}

#[test]
fn nothing_is_kept_of_what_nobody_watches() {
    let registry = registry();
    create(&registry, "b");
    create(&registry, "other");
    put(&registry, "b", "k");
    assert_eq!(registry.ring().bytes(), 0);
    let watches = every_way(&registry, "b", Initial::Sent);
    put(&registry, "other", "k");
    assert_eq!(registry.ring().bytes(), 0);
    put(&registry, "b", "k");
    assert!(registry.ring().bytes() > 0);
    drop(watches);
    assert_eq!(registry.ring().bytes(), 0);
    put(&registry, "b", "k");
    assert_eq!(registry.ring().bytes(), 0);
}

#[test]
fn a_name_that_is_followed_very_often_is_told_of_in_responses_that_clients_accept() {
    let registry = registry_with(Limits { message_bytes_max: 256 << 10, ..Limits::default() });
    create(&registry, "b");
    let targets = vec![target("b"); 2_000];
    let mut watch = Watch::follow(registry.clone(), &targets, WITH, Initial::Sent).unwrap();
    hear(&registry, &mut watch);
    let before = watch.heartbeat().revision;
    put_text(&registry, "b", "k", &"x".repeat(1_024));
    stop(&registry, "b", Reason::Killed);
    registry.deliver();
    let mut notices = 0;
    while let Poll::Ready(Some(Ok(Response { update: Update::Events(some), revision }))) = poll(&mut watch) {
        let bytes: usize =
            some.iter().map(|notice| matches!(notice.kind, NoticeKind::Changed(_)) as usize * 1_024).sum();
        assert!(bytes < 256 << 10);
        notices += some.len();
        assert_eq!(revision > before, notices == 4_000, "all of it, or the revision before");
    }
    assert_eq!(notices, 4_000);
}

/// Counts how often it was woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls as a runtime does: anew only where it was woken, and with a waker of its own each time.
fn woken(watch: &mut Watch) -> Poll<Response> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < deadline, "it goes round and round: {watch:?}");
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(Arc::clone(&counter));
        match Pin::new(&mut *watch).poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(response) => return Poll::Ready(response.unwrap().unwrap()),
            Poll::Pending if counter.0.load(Ordering::Relaxed) > 0 => {}
            Poll::Pending => return Poll::Pending,
        }
    }
}

#[test]
fn what_happens_between_a_response_and_the_next_poll_needs_nobody_to_wake_it_again() {
    let registry = registry();
    create(&registry, "b");
    let mut watches = every_way(&registry, "b", Initial::Sent);
    for watch in &mut watches {
        hear(&registry, watch);
    }
    put(&registry, "b", "k");
    registry.deliver();
    for watch in &mut watches {
        assert!(woken(watch).is_ready());
    }
    // Whoever is woken now is the task that was just polled, and it is polled once for it.
    put(&registry, "b", "k");
    registry.deliver();
    for watch in &mut watches {
        assert!(woken(watch).is_ready(), "{watch:?}");
    }
    put(&registry, "b", "k");
    stop(&registry, "b", Reason::Killed);
    registry.deliver();
    for watch in &mut watches {
        assert!(woken(watch).is_ready(), "{watch:?}");
    }
}

/// Keeps what a watch has told of bucket "b": of each key the version.
#[derive(Debug)]
struct Follower {
    watch: Watch,
    entries: BTreeMap<String, u64>,
    last: u64,
    is_synced: bool,
    /// No version is left out any more.
    is_whole: bool,
}

impl Follower {
    fn new(watch: Watch) -> Self {
        Self { watch, entries: BTreeMap::new(), last: 0, is_synced: false, is_whole: false }
    }

    /// Whether there was something.
    fn step(&mut self) -> bool {
        let Poll::Ready(response) = woken(&mut self.watch) else { return false };
        match response.update {
            Update::Events(notices) => notices.into_iter().map(said).for_each(|said| self.take(said)),
            Update::Synced => self.is_synced = true,
            _ => {}
        }
        true
    }

    fn take(&mut self, said: Said) {
        match said {
            Said::There(bucket, key, version) if bucket == "b" => {
                assert_eq!(self.entries.insert(key, version), None, "told twice");
            }
            Said::Put(bucket, key, version) if bucket == "b" => {
                self.follows(version);
                self.entries.insert(key, version);
            }
            Said::Deleted(bucket, key, version) if bucket == "b" => {
                self.follows(version);
                self.entries.remove(&key).expect("it was there");
            }
            _ => {}
        }
    }

    fn follows(&mut self, version: u64) {
        assert!(version > self.last, "{version} after {}", self.last);
        assert!(!self.is_whole || version == self.last + 1, "{version} after {}", self.last);
        // Before, some were left out because they were in a chunk.
        (self.last, self.is_whole) = (version, self.is_synced);
    }
}

#[test]
fn a_watch_that_begins_while_others_write_ends_up_with_what_is_there() {
    const KEYS: u64 = 2_000;
    let start = Instant::now();
    let (enough, deadline) = (start + Duration::from_secs(3), start + Duration::from_secs(60));
    let mut rounds = 0;
    while rounds < 3 || Instant::now() < enough {
        rounds += 1;
        let registry = registry();
        create(&registry, "b");
        (0..KEYS).for_each(|n| _ = put(&registry, "b", &format!("{n:04}")));
        let mut followers = thread::scope(|scope| {
            let writers = [
                // Each key once, so that nothing that gets lost is made good later.
                scope.spawn(|| {
                    for n in 0..KEYS {
                        let key = format!("{:04}", n * 1_231 % KEYS);
                        if n % 5 == 0 { delete(&registry, "b", &key) } else { _ = put(&registry, "b", &key) }
                    }
                }),
                // New buckets all the time, which are changed at once.
                scope.spawn(|| {
                    for n in 0..KEYS / 10 {
                        let name = format!("b/{n}");
                        create(&registry, &name);
                        put(&registry, &name, "k");
                        stop(&registry, &name, Reason::Normal);
                    }
                }),
            ];
            let mut followers = Vec::new();
            while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
                for mut follower in every_way(&registry, "b", Initial::Sent).map(Follower::new) {
                    while !follower.is_synced {
                        assert!(Instant::now() < deadline, "{follower:?}");
                        follower.step();
                    }
                    followers.push(follower);
                }
                registry.deliver();
            }
            followers
        });
        registry.deliver();
        let scan = Scan { prefix: "", after: None, items_max: 9_999, bytes_max: 1 << 20, values: Values::LeftOut };
        let id = registry.id_of(name("b")).unwrap();
        let page = registry.bucket("b", id).unwrap().call(Observe(scan)).unwrap().unwrap().page;
        let there: BTreeMap<String, u64> =
            page.entries.into_iter().map(|entry| (entry.key.into(), entry.version.0)).collect();
        for follower in &mut followers {
            while follower.step() {
                assert!(Instant::now() < deadline, "{follower:?}");
            }
            assert!(follower.entries == there, "{:?}\nis not\n{there:?}", follower.entries);
        }
    }
}

#[test]
fn a_death_is_told_however_fast_others_write() {
    let registry = registry();
    create(&registry, "b");
    let targets = [target("a"), target("b")];
    let begin: [&dyn Fn() -> Watch; 3] = [
        &|| Watch::names(registry.clone(), &targets, WITH, Initial::Sent).unwrap(),
        &|| Watch::follow(registry.clone(), &targets, WITH, Initial::Sent).unwrap(),
        &|| Watch::prefix(registry.clone(), "", WITH, Initial::Sent).unwrap(),
    ];
    for begin in begin {
        let mine = create(&registry, "a");
        let mut watch = begin();
        hear(&registry, &mut watch);
        stop(&registry, "a", Reason::Killed);
        let mut has_told = false;
        for _ in 0..30 {
            // More than it takes in one step.
            (0..400).for_each(|_| _ = put(&registry, "b", "k"));
            registry.deliver();
            if let Poll::Ready(Response { update: Update::Events(notices), .. }) = woken(&mut watch) {
                has_told |= notices.into_iter().any(|notice| said(notice) == down("a", mine, Reason::Killed));
            }
        }
        assert!(has_told, "{watch:?}");
    }
}

#[test]
fn a_resumed_watch_that_skips_what_is_there_tells_what_it_missed_and_what_changes() {
    let registry = registry();
    create(&registry, "b");
    put(&registry, "b", "k");
    let after = registry.revision();
    let mut watches = every_way(&registry, "b", Initial::ChangesAfter(after));
    let c = create(&registry, "bc");
    put(&registry, "b", "k");
    for (way, watch) in watches.iter_mut().enumerate() {
        let heard = hear(&registry, watch);
        let [Said::Started(_), rest @ ..] = &heard[..] else { panic!("{heard:?}") };
        let by_prefix = way == 2;
        let expected = [Said::Synced, created("bc", c), has_put("b", "k", 2)];
        assert_eq!(rest.len(), 2 + usize::from(by_prefix), "{heard:?}");
        assert!(rest.iter().all(|said| expected.contains(said)), "{heard:?}");
    }
}

#[test]
fn who_writes_pays_no_more_for_ten_thousand_watches_than_for_one() {
    const PUTS: u32 = 2_000;
    let registry = registry();
    create(&registry, "b");
    let begin = || Watch::follow(registry.clone(), &[target("b")], WITH, Initial::Sent).unwrap();
    // The best of some: what else the machine does is not what is measured.
    let best = || {
        let time = || {
            let start = Instant::now();
            (0..PUTS).for_each(|_| _ = put(&registry, "b", "k"));
            start.elapsed()
        };
        (0..9).map(|_| time()).min().unwrap()
    };
    let _one = begin();
    let with_one = best();
    let _many: Vec<Watch> = (0..10_000).map(|_| begin()).collect();
    let with_many = best();
    assert!(with_many < 3 * with_one, "{with_many:?} for {PUTS} puts, {with_one:?} with one watch");
}

#[test]
fn of_a_transaction_that_crashes_its_bucket_nothing_is_told_but_the_death() {
    let registry = registry();
    let id = create(&registry, "b");
    put(&registry, "b", "k");
    let mut watches = every_way(&registry, "b", Initial::Skipped);
    for watch in &mut watches {
        hear(&registry, watch);
    }
    let hook = format!("{}in the midst", crate::hooks::PANIC);
    let success = vec![Op::Delete(key("k")), Op::Put(key("l"), Value::Flag(true), None), Op::Get(key(&hook))];
    let transact = Transact { checks: vec![], success, failure: vec![], results_bytes_max: 1 << 20 };
    registry.ask(target("b"), transact).unwrap_err();
    for (way, watch) in watches.iter_mut().enumerate() {
        let heard = hear(&registry, watch);
        assert_eq!(heard[0], down("b", id, Reason::Crashed), "way {way}");
        assert!(heard[1..].iter().all(|said| *said == Said::Over), "{heard:?}");
    }
}

#[test]
fn a_registrar_that_crashes_loses_no_watcher_a_change() {
    let registry = registry();
    create(&registry, "b");
    let mut watches = every_way(&registry, "b", Initial::Sent);
    for watch in &mut watches {
        hear(&registry, watch);
    }
    let crash = || registry.create(name(&format!("{}registrar", crate::hooks::PANIC)), FOR_EVER).unwrap_err();
    put(&registry, "b", "k");
    crash();
    put(&registry, "b", "k");
    for watch in &mut watches {
        assert_eq!(hear(&registry, watch), [has_put("b", "k", 1), has_put("b", "k", 2)]);
    }
    crash();
    for mut watch in every_way(&registry, "b", Initial::Sent) {
        assert!(hear(&registry, &mut watch).contains(&there("b", "k", 2)));
    }
}

#[test]
fn a_change_of_a_bucket_that_was_gone_as_the_watch_began_is_not_told() {
    for (initial, name) in [(Initial::Sent, "sent"), (Initial::Skipped, "skipped")] {
        let registry = registry();
        create(&registry, name);
        let watches = thread::scope(|scope| {
            // It has subscribed to the changes, and waits for the registrar to say who lives.
            let beginning = while_held(&registry, || {
                let beginning = [false, true].map(|by_prefix| {
                    let registry = registry.clone();
                    scope.spawn(move || match by_prefix {
                        true => Watch::prefix(registry, name, WITH, initial),
                        false => Watch::follow(registry, &[target(name)], WITH, initial),
                    })
                });
                let deadline = Instant::now() + Duration::from_secs(10);
                while !format!("{:?}", registry.ring()).contains("subscriptions: 2") {
                    assert!(Instant::now() < deadline);
                    thread::yield_now();
                }
                put(&registry, name, "k");
                let crash = format!("{PANIC}now");
                let crash = Put { key: key(&crash), value: Value::Flag(true), ttl: None, expected: None };
                registry.ask(target(name), crash).unwrap_err();
                beginning
            });
            beginning.map(|watch| watch.join().unwrap().unwrap())
        });
        for mut watch in watches {
            assert_eq!(only_entries(hear(&registry, &mut watch)), [Said::Synced]);
        }
    }
}
