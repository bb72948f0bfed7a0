//! What a watch promises, without a socket.

mod entries;

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    task::Waker,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    bucket::{Begin, ring::ChangeKind},
    clock::ManualClock,
    limits::{Limits, SNAPSHOT_PAGE_NAMES, WATCH_BATCH_EVENTS},
    name::{BucketId, BucketName},
    process::Reason,
};

const FOR_EVER: Begin = Begin { ttl: None, idle_ttl: None };

const ALL: Kinds<'_> = Kinds { created: true, down: true, entries: None };

fn registry() -> Registry {
    registry_with(Limits::default())
}

fn registry_with(limits: Limits) -> Registry {
    Registry::start(limits, Arc::new(ManualClock::default()), "test".to_owned())
}

/// The defaults are read from the options of the command line, which takes longer than all else here.
static LIMITS: LazyLock<Limits> = LazyLock::new(Limits::default);

fn name(text: &str) -> BucketName<'_> {
    BucketName::parse(text, &LIMITS).unwrap()
}

fn create(registry: &Registry, text: &str) -> u64 {
    registry.create(name(text), FOR_EVER).unwrap().0.id.get()
}

fn stop(registry: &Registry, text: &str, reason: Reason) -> u64 {
    registry.stop(Target { name: name(text), id: None }, &reason.into()).unwrap().1.get()
}

fn by_name(registry: &Registry, names: &[&str]) -> Watch {
    let targets: Vec<Target<'_>> = names.iter().map(|text| Target { name: name(text), id: None }).collect();
    Watch::names(registry.clone(), &targets, ALL, Initial::Sent).unwrap()
}

fn by_prefix(registry: &Registry, prefix: &str) -> Watch {
    Watch::prefix(registry.clone(), prefix, ALL, Initial::Sent).unwrap()
}

/// What a watch has to say now, in short: the revision counted from `base`, and what it is.
#[derive(Debug, Eq, PartialEq)]
enum Said {
    Started(Vec<u64>),
    Created(String, u64),
    Initial(String, u64),
    Down(String, u64, Reason),
    /// An entry that is there: the bucket, the key, the version.
    There(String, String, u64),
    Put(String, String, u64),
    Deleted(String, String, u64),
    Expired(String, String, u64),
    Synced,
    Draining,
    Drained,
    Lagged(Option<u64>),
    Over,
}

fn poll(watch: &mut Watch) -> Poll<Option<Result<Response, End>>> {
    Pin::new(watch).poll_next(&mut Context::from_waker(Waker::noop()))
}

/// An event, in short.
fn said(notice: Notice) -> Said {
    let (name, id) = (notice.name.to_string(), notice.id.unwrap_or(0));
    match notice.kind {
        NoticeKind::Changed(change) => match &change.kind {
            ChangeKind::Put { .. } => Said::Put(name, (&*change.key).into(), change.version.0),
            ChangeKind::Deleted => Said::Deleted(name, (&*change.key).into(), change.version.0),
            ChangeKind::Expired => Said::Expired(name, (&*change.key).into(), change.version.0),
        },
        NoticeKind::Happened(event) => match event.exit() {
            None => Said::Created(name, id),
            Some(exit) => Said::Down(name, id, exit.reason),
        },
        NoticeKind::Alive { .. } => Said::Initial(name, id),
        NoticeKind::NoProc { .. } => Said::Down(name, id, Reason::NoProc),
        NoticeKind::Put { entry, initial: true } => Said::There(name, entry.key.into(), entry.version.0),
        NoticeKind::Put { entry, .. } => Said::Put(name, entry.key.into(), entry.version.0),
        NoticeKind::Deleted { key, version, expired: true } => Said::Expired(name, key.into(), version.0),
        NoticeKind::Deleted { key, version, .. } => Said::Deleted(name, key.into(), version.0),
    }
}

fn hear(registry: &Registry, watch: &mut Watch) -> Vec<Said> {
    registry.deliver();
    let mut said = Vec::new();
    let mut quiet = 0;
    // A watch may yield before it has looked at everything.
    while quiet < 3 {
        match poll(watch) {
            Poll::Pending => quiet += 1,
            Poll::Ready(None) => {
                said.push(Said::Over);
                return said;
            }
            Poll::Ready(Some(Err(End::Drained))) => said.push(Said::Drained),
            Poll::Ready(Some(Err(End::Lagged { resume }))) => said.push(Said::Lagged(resume.map(Revision::get))),
            Poll::Ready(Some(Err(End::Failed(error)))) => panic!("{error}"),
            Poll::Ready(Some(Ok(response))) => match response.update {
                Update::Started { monitors, .. } => {
                    said.push(Said::Started(monitors.iter().map(|set| set.id.map_or(0, BucketId::get)).collect()));
                }
                Update::Events(notices) => said.extend(notices.into_iter().map(self::said)),
                Update::Synced => said.push(Said::Synced),
                Update::Draining => said.push(Said::Draining),
                Update::Heartbeat => unreachable!("nobody asked for one"),
            },
        }
    }
    said
}

fn created(name: &str, id: u64) -> Said {
    Said::Created(name.to_owned(), id)
}

fn initial(name: &str, id: u64) -> Said {
    Said::Initial(name.to_owned(), id)
}

fn down(name: &str, id: u64, reason: Reason) -> Said {
    Said::Down(name.to_owned(), id, reason)
}

#[test]
fn by_name_there_is_one_down_for_each_ref_and_then_the_stream_is_over() {
    let registry = registry();
    let (a, b) = (create(&registry, "a"), create(&registry, "b"));
    let mut watch = by_name(&registry, &["a", "b", "a"]);
    assert_eq!(hear(&registry, &mut watch), [Said::Started(vec![a, b, a]), Said::Synced]);

    stop(&registry, "a", Reason::Killed);
    create(&registry, "a");
    let twice = [down("a", a, Reason::Killed), down("a", a, Reason::Killed)];
    assert_eq!(hear(&registry, &mut watch), twice, "two monitors, and the namesake is another");

    stop(&registry, "b", Reason::Normal);
    assert_eq!(hear(&registry, &mut watch), [down("b", b, Reason::Normal), Said::Over]);
}

#[test]
fn what_is_not_there_is_noproc_at_once() {
    let registry = registry();
    let a = create(&registry, "a");
    let targets = [Target { name: name("a"), id: Some(a + 1) }, Target { name: name("b"), id: None }];
    let mut watch = Watch::names(registry.clone(), &targets, ALL, Initial::Sent).unwrap();
    assert_eq!(
        hear(&registry, &mut watch),
        [
            Said::Started(vec![0, 0]),
            down("a", a + 1, Reason::NoProc),
            down("b", 0, Reason::NoProc),
            Said::Synced,
            Said::Over
        ]
    );
}

#[test]
fn a_down_comes_after_the_name_is_free() {
    let registry = registry();
    create(&registry, "a");
    let mut watch = by_name(&registry, &["a"]);
    hear(&registry, &mut watch);
    stop(&registry, "a", Reason::Normal);
    assert!(registry.lookup(name("a")).is_err());
    assert_eq!(hear(&registry, &mut watch).len(), 2);
}

#[test]
fn a_watch_that_is_dropped_leaves_no_monitor_behind() {
    let registry = registry();
    create(&registry, "a");
    let watch = by_name(&registry, &["a", "a"]);
    assert_eq!(registry.monitors(), 2);
    drop(watch);
    assert_eq!(registry.monitors(), 0);
}

#[test]
fn watches_that_name_one_bucket_many_times_are_dropped_without_holding_others_up() {
    let registry = registry();
    create(&registry, "a");
    let targets = vec![Target { name: name("a"), id: None }; registry.limits().watch_names_max];
    let watches: Vec<Watch> =
        (0..10).map(|_| Watch::names(registry.clone(), &targets, ALL, Initial::Sent).unwrap()).collect();
    assert_eq!(registry.monitors(), 10 * targets.len());
    let start = Instant::now();
    drop(watches);
    assert_eq!(registry.monitors(), 0);
    // Milliseconds; two minutes where each monitor is looked for among all.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn by_prefix_what_is_there_comes_first_and_then_what_happens() {
    let registry = registry();
    let (a1, b, a2) = (create(&registry, "a/1"), create(&registry, "b"), create(&registry, "a/2"));
    let mut watch = by_prefix(&registry, "a/");
    assert_eq!(
        hear(&registry, &mut watch),
        [Said::Started(vec![]), initial("a/1", a1), initial("a/2", a2), Said::Synced]
    );
    stop(&registry, "a/1", Reason::Expired);
    stop(&registry, "b", Reason::Normal);
    let a1_again = create(&registry, "a/1");
    assert_eq!(hear(&registry, &mut watch), [down("a/1", a1, Reason::Expired), created("a/1", a1_again)]);
    assert_ne!(a1_again, b);
}

#[test]
fn kinds_and_skip_initial_leave_out_what_is_not_wanted() {
    let registry = registry();
    let a = create(&registry, "a");
    let only_down = Kinds { created: false, ..ALL };
    let mut deaths = Watch::prefix(registry.clone(), "", only_down, Initial::Sent).unwrap();
    let mut news = Watch::prefix(registry.clone(), "", ALL, Initial::Skipped).unwrap();
    assert_eq!(hear(&registry, &mut deaths), [Said::Started(vec![]), Said::Synced]);
    assert_eq!(hear(&registry, &mut news), [Said::Started(vec![]), Said::Synced]);
    let b = create(&registry, "b");
    stop(&registry, "a", Reason::Normal);
    assert_eq!(hear(&registry, &mut deaths), [down("a", a, Reason::Normal)]);
    assert_eq!(hear(&registry, &mut news), [created("b", b), down("a", a, Reason::Normal)]);
}

#[test]
fn what_happens_during_a_snapshot_is_told_once_and_in_order() {
    let registry = registry();
    let names: Vec<String> = (0..SNAPSHOT_PAGE_NAMES * 3).map(|n| format!("n{n:04}")).collect();
    let ids: Vec<u64> = names.iter().map(|name| create(&registry, name)).collect();
    let (early, late) = (0, names.len() - 1);
    let mut watch = by_prefix(&registry, "n");
    assert!(matches!(poll(&mut watch), Poll::Ready(Some(Ok(Response { update: Update::Started { .. }, .. })))));
    let Poll::Ready(Some(Ok(Response { update: Update::Events(first), revision }))) = poll(&mut watch) else {
        panic!("the first page")
    };
    assert_eq!((first.len(), revision), (SNAPSHOT_PAGE_NAMES, None), "a snapshot can't be resumed");

    for n in [early, late] {
        stop(&registry, &names[n], Reason::Killed);
    }
    let again = create(&registry, &names[late]);
    let said = hear(&registry, &mut watch);
    assert_eq!(
        said[..4],
        [
            down(&names[early], ids[early], Reason::Killed),
            initial(&names[late], ids[late]),
            down(&names[late], ids[late], Reason::Killed),
            created(&names[late], again),
        ]
    );
    let told = said.iter().filter(|said| matches!(said, Said::Initial(..))).count();
    assert_eq!(told + first.len(), names.len(), "each bucket of the snapshot once");
    assert_eq!(said.last(), Some(&Said::Synced));
}

#[test]
fn a_snapshot_that_meets_much_that_nobody_wants_lets_others_on_its_thread_go_first() {
    let registry = registry();
    for n in 0..=SNAPSHOT_PAGE_NAMES {
        create(&registry, &format!("a{n:03}"));
    }
    let mut watch = by_prefix(&registry, "a");
    for _ in 0..2 {
        assert!(poll(&mut watch).is_ready(), "started, and a page");
    }
    let limits = Limits::default();
    for n in 0..WATCH_BATCH_EVENTS * 2 {
        registry.create(BucketName::parse(&format!("b{n}"), &limits).unwrap(), FOR_EVER).unwrap();
    }
    assert!(poll(&mut watch).is_pending(), "of two batches that are read it has yielded after the first");
    assert_eq!(hear(&registry, &mut watch).len(), 2, "the last of the snapshot, and synced");
}

#[test]
fn a_revision_on_a_response_means_that_all_up_to_it_was_sent() {
    let registry = registry();
    let mut watch = by_prefix(&registry, "a");
    hear(&registry, &mut watch);
    create(&registry, "b"); // of no interest, but the watch has passed it
    let Poll::Pending = poll(&mut watch) else { panic!("nothing to say") };
    assert_eq!(watch.heartbeat().revision, Some(registry.revision()));

    create(&registry, "c");
    let mut names = by_name(&registry, &["c"]);
    hear(&registry, &mut names);
    let before = stop(&registry, "b", Reason::Normal);
    assert!(poll(&mut names).is_pending());
    assert!(names.heartbeat().revision.unwrap().get() < before, "what was not delivered yet is not claimed");
    registry.deliver();
    assert!(poll(&mut names).is_pending());
    assert_eq!(names.heartbeat().revision.unwrap().get(), before);
}

#[test]
fn a_revision_is_not_claimed_while_some_refs_of_its_bucket_are_to_be_told() {
    let registry = registry();
    create(&registry, "a");
    let mut watch = by_name(&registry, &["a"; WATCH_BATCH_EVENTS + 1]);
    hear(&registry, &mut watch);
    let died = stop(&registry, "a", Reason::Normal);
    registry.deliver();
    let mut left = WATCH_BATCH_EVENTS + 1;
    while let Poll::Ready(Some(Ok(Response { revision, update: Update::Events(told) }))) = poll(&mut watch) {
        left -= told.len();
        assert_eq!(revision.unwrap().get() >= died, left == 0, "{left} are left");
    }
    assert_eq!(left, 0);
}

#[test]
fn a_watch_that_starts_after_an_answer_reflects_it_and_one_that_runs_delivers_it() {
    let registry = registry();
    let mut running = by_prefix(&registry, "");
    hear(&registry, &mut running);
    let id = create(&registry, "a");
    let mut later = by_prefix(&registry, "");
    assert_eq!(hear(&registry, &mut running), [created("a", id)]);
    assert_eq!(hear(&registry, &mut later), [Said::Started(vec![]), initial("a", id), Said::Synced]);
}

#[test]
fn a_watch_that_the_log_has_passed_ends_and_says_where_to_resume() {
    let registry = registry_with(Limits { history_events_max: 10, ..Limits::default() });
    let mut slow = by_prefix(&registry, "");
    hear(&registry, &mut slow);
    let seen = registry.revision();
    for n in 0..11 {
        create(&registry, &n.to_string());
    }
    assert_eq!(hear(&registry, &mut slow), [Said::Lagged(Some(seen.get())), Said::Over]);

    let mut by_name = by_name(&registry, &["0"]);
    for n in 0..11 {
        stop(&registry, &n.to_string(), Reason::Normal);
    }
    assert_eq!(hear(&registry, &mut by_name).len(), 4, "a monitor fires whatever the log has forgotten");
}

#[test]
fn a_drain_tells_all_that_dies_then_says_so_and_never_ends_with_ok() {
    let registry = registry();
    let (a, b) = (create(&registry, "a"), create(&registry, "b"));
    let mut prefix = by_prefix(&registry, "");
    let mut one = by_name(&registry, &["a"]);
    hear(&registry, &mut prefix);
    hear(&registry, &mut one);
    assert_eq!(registry.shut_down(|| false), Ok(0));
    registry.end();
    let shut = |name, id| down(name, id, Reason::Shutdown);
    assert_eq!(hear(&registry, &mut prefix), [shut("a", a), shut("b", b), Said::Draining, Said::Drained, Said::Over]);
    assert_eq!(hear(&registry, &mut one), [shut("a", a), Said::Over], "its monitors have fired");
}

#[test]
fn a_drain_without_time_ends_the_watches_with_what_is_left_unsaid() {
    let registry = registry();
    create(&registry, "a");
    let mut watch = by_name(&registry, &["a"]);
    hear(&registry, &mut watch);
    assert_eq!(registry.shut_down(|| true), Ok(1));
    registry.end();
    assert_eq!(hear(&registry, &mut watch), [Said::Draining, Said::Drained, Said::Over]);
}

#[test]
fn a_registrar_that_crashes_loses_no_watcher_an_event() {
    let registry = registry();
    let a = create(&registry, "a");
    let (mut prefix, mut one) = (by_prefix(&registry, ""), by_name(&registry, &["a"]));
    hear(&registry, &mut prefix);
    hear(&registry, &mut one);
    let crash = format!("{}oh", crate::hooks::PANIC);
    assert!(matches!(registry.create(name(&crash), FOR_EVER), Err(Error::RegistryCrashed(_))));
    let b = create(&registry, "b");
    stop(&registry, "a", Reason::Killed);
    assert_eq!(hear(&registry, &mut prefix), [created("b", b), down("a", a, Reason::Killed)]);
    assert_eq!(hear(&registry, &mut one), [down("a", a, Reason::Killed), Said::Over]);
}

#[test]
fn more_events_than_fit_one_response_come_in_several() {
    let registry = registry();
    let mut watch = by_prefix(&registry, "");
    hear(&registry, &mut watch);
    for n in 0..WATCH_BATCH_EVENTS * 2 {
        create(&registry, &n.to_string());
    }
    let Poll::Ready(Some(Ok(Response { update: Update::Events(first), .. }))) = poll(&mut watch) else {
        panic!("events")
    };
    assert!(first.len() <= WATCH_BATCH_EVENTS);
    assert_eq!(first.len() + hear(&registry, &mut watch).len(), WATCH_BATCH_EVENTS * 2);
}

/// The same, of targets by name and id, as of a revision.
fn resumed(registry: &Registry, targets: &[(&str, Option<u64>)], after: u64) -> Result<Watch, BeginError> {
    let targets: Vec<Target<'_>> = targets.iter().map(|(text, id)| Target { name: name(text), id: *id }).collect();
    Watch::names(registry.clone(), &targets, ALL, Initial::After(Revision::new(after)))
}

fn resumed_prefix(registry: &Registry, after: u64) -> Result<Watch, BeginError> {
    Watch::prefix(registry.clone(), "", ALL, Initial::After(Revision::new(after)))
}

#[test]
fn whoever_creates_and_then_watches_from_there_never_loses_the_reason() {
    let registry = registry();
    let a = create(&registry, "a");
    stop(&registry, "a", Reason::Killed);
    create(&registry, "a");
    let mut watch = resumed(&registry, &[("a", Some(a))], a).unwrap();
    assert_eq!(
        hear(&registry, &mut watch),
        [Said::Started(vec![a]), down("a", a, Reason::Killed), Said::Synced, Said::Over]
    );
    assert_eq!(registry.monitors(), 0);
}

#[test]
fn a_monitor_as_of_a_revision_is_decided_by_the_first_event_after_it() {
    let registry = registry();
    let (gone, stays) = (create(&registry, "gone"), create(&registry, "stays"));
    let after = registry.revision().get();
    stop(&registry, "gone", Reason::Expired);
    let namesake = create(&registry, "gone");
    create(&registry, "new");
    let asked = [("gone", None), ("new", None), ("stays", None), ("never", None), ("gone", Some(namesake))];
    let mut watch = resumed(&registry, &asked, after).unwrap();
    assert_eq!(
        hear(&registry, &mut watch),
        [
            Said::Started(vec![gone, 0, stays, 0, 0]),
            down("gone", gone, Reason::Expired),
            down("new", 0, Reason::NoProc),
            down("never", 0, Reason::NoProc),
            down("gone", namesake, Reason::NoProc),
            Said::Synced
        ]
    );
    stop(&registry, "gone", Reason::Normal);
    stop(&registry, "new", Reason::Normal);
    stop(&registry, "stays", Reason::Normal);
    assert_eq!(hear(&registry, &mut watch), [down("stays", stays, Reason::Normal), Said::Over]);
}

#[test]
fn a_prefix_is_resumed_with_what_was_missed_and_each_response_says_how_far_it_is() {
    let registry = registry();
    let a = create(&registry, "a");
    let after = registry.revision().get();
    let b = create(&registry, "b");
    stop(&registry, "a", Reason::Killed);
    let mut watch = resumed_prefix(&registry, after).unwrap();
    assert_eq!(watch.heartbeat().revision.map(Revision::get), Some(after));
    assert_eq!(
        hear(&registry, &mut watch),
        [Said::Started(vec![]), created("b", b), down("a", a, Reason::Killed), Said::Synced]
    );
    assert_eq!(watch.heartbeat().revision, Some(registry.revision()));
    let c = create(&registry, "c");
    assert_eq!(hear(&registry, &mut watch), [created("c", c)]);
}

#[test]
fn what_is_no_longer_kept_or_never_was_can_not_be_resumed() {
    let registry = registry_with(Limits { history_events_max: 3, ..Limits::default() });
    let first = registry.revision().get();
    for n in 0..5 {
        create(&registry, &n.to_string());
    }
    let oldest = Revision::new(first + 3);
    for after in [first, first + 1] {
        assert_eq!(resumed_prefix(&registry, after).unwrap_err(), BeginError::Compacted { oldest });
        assert_eq!(resumed(&registry, &[("0", None)], after).unwrap_err(), BeginError::Compacted { oldest });
    }
    resumed_prefix(&registry, first + 2).unwrap();
    for after in [first - 1, first + 6, 1, u64::MAX] {
        assert_eq!(resumed_prefix(&registry, after).unwrap_err(), BeginError::Unknown);
        assert_eq!(resumed(&registry, &[("0", None)], after).unwrap_err(), BeginError::Unknown);
    }
}

fn follow(registry: &Registry, names: &[&str], initial: Initial) -> Watch {
    let targets: Vec<Target<'_>> = names.iter().map(|text| Target { name: name(text), id: None }).collect();
    Watch::follow(registry.clone(), &targets, ALL, initial).unwrap()
}

#[test]
fn a_name_that_is_followed_is_told_of_for_ever() {
    let registry = registry();
    let a = create(&registry, "a");
    create(&registry, "other");
    let mut watch = follow(&registry, &["b", "a"], Initial::Sent);
    assert_eq!(
        hear(&registry, &mut watch),
        [Said::Started(vec![0, a]), initial("a", a), down("b", 0, Reason::NoProc), Said::Synced]
    );
    stop(&registry, "a", Reason::Killed);
    stop(&registry, "other", Reason::Killed);
    let (again, b) = (create(&registry, "a"), create(&registry, "b"));
    assert_eq!(hear(&registry, &mut watch), [down("a", a, Reason::Killed), created("a", again), created("b", b)]);
    let mut late = follow(&registry, &["a", "a"], Initial::After(Revision::new(again)));
    stop(&registry, "a", Reason::Normal);
    let both = [down("a", again, Reason::Normal), down("a", again, Reason::Normal)];
    let [started, said @ ..] = &hear(&registry, &mut late)[..] else { panic!("nothing said") };
    assert_eq!(*started, Said::Started(vec![again, again]));
    assert!(said.iter().filter(|said| **said != Said::Synced).eq(&both));
}

#[test]
fn what_happens_to_a_followed_name_before_its_page_comes_is_told_once() {
    let registry = registry();
    let texts: Vec<String> = (0..SNAPSHOT_PAGE_NAMES * 2).map(|n| format!("n{n:04}")).collect();
    let (dies, comes) = (&*texts[SNAPSHOT_PAGE_NAMES + 1], &*texts[SNAPSHOT_PAGE_NAMES + 2]);
    let id = create(&registry, dies);
    let names: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut watch = follow(&registry, &names, Initial::Sent);
    for _ in 0..2 {
        assert!(poll(&mut watch).is_ready());
    }
    stop(&registry, dies, Reason::Killed);
    let came = create(&registry, comes);
    stop(&registry, comes, Reason::Killed);
    let said = hear(&registry, &mut watch);
    let of = |name: &str| {
        let is_of =
            |said: &&Said| matches!(said, Said::Initial(n, _) | Said::Created(n, _) | Said::Down(n, ..) if n == name);
        said.iter().filter(is_of).collect::<Vec<_>>()
    };
    assert_eq!(of(dies), [&initial(dies, id), &down(dies, id, Reason::Killed)]);
    assert_eq!(of(comes), [&created(comes, came), &down(comes, came, Reason::Killed)]);
}
