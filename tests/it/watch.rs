//! Watch: by name, by incarnation and by prefix; what comes first, what comes once, and how it ends.

use std::time::Duration;

use pail::pb::{self, EventKind, Reason, event::Event, watch_response::Response};

use super::{
    raw::{Raw, framed},
    support::{Server, incarnations, names, prefix, timed, until, why},
};

#[tokio::test]
async fn a_watch_begins_with_its_monitors_in_the_order_asked() {
    let server = Server::start();
    let client = server.client().await;
    let (b, a) = (client.created("b").await, client.created("a").await);

    let mut watching = client.watch(names(&["b", "nobody", "a", "b"])).await.unwrap();
    let started = watching.started().await;

    assert_eq!(started.registry_id, "a registry");
    let monitors: Vec<_> = started.monitors.iter().map(|set| (&*set.bucket, set.bucket_id)).collect();
    assert_eq!(monitors, [("b", b), ("nobody", 0), ("a", a), ("b", b)]);
    let mut refs: Vec<_> = started.monitors.iter().map(|set| set.r#ref).collect();
    refs.sort_unstable();
    refs.dedup();
    assert!(refs.len() == 4 && refs[0] > 0, "each has a ref of its own: {refs:?}");
}

#[tokio::test]
async fn a_monitor_fires_once_after_the_name_is_free_and_after_the_last_the_stream_ends_with_ok() {
    let server = Server::start();
    let client = server.client().await;
    let (a, b) = (client.created("a").await, client.created("b").await);
    client.put("b", "k", "v").await.unwrap();
    let (mut watching, refs) = client.watch_names(&["a", "b"]).await;
    watching.synced().await;

    let stopped = client.stop("b").await.unwrap();
    let down = watching.down().await;
    assert_eq!((down.r#ref, down.bucket_id, down.revision, down.version), (refs[1], b, stopped.revision, 1));
    assert_eq!(why(&down), ("b", Reason::Normal, ""));
    assert!(down.time.is_some() && watching.revision >= down.revision);
    client.created("b").await;

    client.created("c").await;
    client.stop("b").await.unwrap();
    client.stop("a").await.unwrap();
    let down = watching.down().await;
    assert_eq!((down.r#ref, down.bucket_id, why(&down)), (refs[0], a, ("a", Reason::Normal, "")));
    watching.ends_with_ok().await;
}

#[tokio::test]
async fn a_name_given_twice_makes_two_monitors() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let (mut watching, refs) = client.watch_names(&["b", "b"]).await;
    watching.synced().await;
    assert_eq!(server.registry.monitors(), 2);

    client.stop("b").await.unwrap();

    let fired = [watching.down().await.r#ref, watching.down().await.r#ref];
    assert_eq!(fired.to_vec(), refs);
    assert_ne!(fired[0], fired[1]);
    watching.ends_with_ok().await;
    assert_eq!(server.registry.monitors(), 0);
}

#[tokio::test]
async fn a_monitor_of_what_does_not_exist_fires_at_once_with_noproc() {
    let server = Server::start();
    let client = server.client().await;
    let revision = client.create("b").await.unwrap().revision;
    let (mut watching, refs) = client.watch_names(&["nobody", "b", "nobody"]).await;

    for expected in [refs[0], refs[2]] {
        let down = watching.down().await;
        assert_eq!((down.r#ref, why(&down)), (expected, ("nobody", Reason::Noproc, "")));
        assert_eq!((down.bucket_id, down.version, down.revision), (0, 0, revision), "the present revision");
    }
    watching.synced().await;

    client.stop("b").await.unwrap();
    assert_eq!(watching.down().await.r#ref, refs[1]);
    watching.ends_with_ok().await;
}

#[tokio::test]
async fn a_watch_of_nobody_ends_at_once() {
    let server = Server::start();
    let client = server.client().await;
    let (mut watching, _) = client.watch_names(&["nobody"]).await;

    assert_eq!(why(&watching.down().await), ("nobody", Reason::Noproc, ""));
    watching.synced().await;
    watching.ends_with_ok().await;
}

#[tokio::test]
async fn a_watch_of_an_incarnation_is_not_of_its_namesake() {
    let server = Server::start();
    let client = server.client().await;
    let old = client.created("b").await;
    client.stop("b").await.unwrap();
    let id = client.created("b").await;

    let mut watching = client.watch(incarnations(&[("b", old), ("b", id)])).await.unwrap();
    let monitors = watching.started().await.monitors;
    assert_eq!(monitors.iter().map(|set| set.bucket_id).collect::<Vec<_>>(), [0, id]);
    let down = watching.down().await;
    assert_eq!((down.r#ref, down.bucket_id, down.reason()), (monitors[0].r#ref, old, Reason::Noproc));
    watching.synced().await;

    client.stop("b").await.unwrap();
    let down = watching.down().await;
    assert_eq!((down.r#ref, down.bucket_id, down.reason()), (monitors[1].r#ref, id, Reason::Normal));
    watching.ends_with_ok().await;
}

#[tokio::test]
async fn a_watch_by_prefix_begins_with_what_is_alive_and_goes_on_with_what_happens() {
    let server = Server::start();
    let client = server.client().await;
    let other = client.created("other").await;
    let (b, a) = (client.create("user/b").await.unwrap(), client.create("user/a").await.unwrap());
    let mut watching = client.watch_prefix("user/").await;
    assert_eq!(watching.revision, 0, "a snapshot can't be resumed");

    for expected in [a, b] {
        let bucket = expected.bucket.unwrap();
        let created = watching.creation().await;
        let CreatedFacts { name, id, revision } = facts(&created);
        assert_eq!((name, id, revision), (&*bucket.name, bucket.id, expected.revision));
        assert!(created.initial && created.r#ref == 0 && created.time == bucket.create_time);
        assert_eq!(watching.revision, 0);
    }
    watching.synced().await;
    assert_eq!(watching.revision, client.list(pb::ListRequest::default()).await.unwrap().revision);

    let c = client.created("user/c").await;
    client.stop("other").await.unwrap();
    client.stop("user/b").await.unwrap();
    client.created("other").await;
    let created = watching.creation().await;
    assert_eq!((facts(&created).id, created.initial), (c, false));
    let down = watching.down().await;
    assert_eq!((why(&down), down.r#ref), (("user/b", Reason::Normal, ""), 0));
    assert!(watching.revision >= down.revision);
    assert_ne!(other, c);
}

struct CreatedFacts<'a> {
    name: &'a str,
    id: u64,
    revision: u64,
}

fn facts(created: &pb::CreatedEvent) -> CreatedFacts<'_> {
    CreatedFacts { name: &created.bucket, id: created.bucket_id, revision: created.revision }
}

#[tokio::test]
async fn an_empty_prefix_is_every_bucket_also_more_than_fit_a_page() {
    let server = Server::start();
    let client = server.client().await;
    let expected: Vec<_> = (0..300).map(|n| format!("{n:03}")).collect();
    for name in &expected {
        client.created(name).await;
    }

    let mut watching = client.watch_prefix("").await;

    for name in &expected {
        let created = watching.creation().await;
        assert_eq!((&created.bucket, created.initial, watching.revision), (name, true, 0));
    }
    watching.synced().await;
}

#[tokio::test]
async fn skip_initial_leaves_out_what_is_there_and_nothing_else() {
    let server = Server::start();
    let client = server.client().await;
    client.created("a").await;

    let mut watching = client.watch(pb::WatchRequest { skip_initial: true, ..prefix("") }).await.unwrap();
    watching.started().await;
    assert_eq!(watching.revision, client.lookup("a").await.unwrap().create_revision, "without a snapshot it is set");
    client.created("b").await;
    client.stop("a").await.unwrap();

    watching.synced().await;
    assert_eq!(watching.creation().await.bucket, "b");
    assert_eq!(watching.down().await.bucket, "a");
}

#[tokio::test]
async fn kinds_leave_out_what_is_not_wanted() {
    let server = Server::start();
    let client = server.client().await;
    client.created("a").await;
    let kinds = |kind: EventKind| pb::WatchRequest { kinds: vec![kind.into()], ..prefix("") };
    let mut births = client.watch(kinds(EventKind::Created)).await.unwrap();
    let mut deaths = client.watch(kinds(EventKind::Down)).await.unwrap();
    births.started().await;
    deaths.started().await;

    assert_eq!(births.creation().await.bucket, "a");
    births.synced().await;
    deaths.synced().await;
    client.stop("a").await.unwrap();
    client.created("b").await;
    client.stop("b").await.unwrap();
    client.created("c").await;

    assert_eq!(births.creation().await.bucket, "b");
    assert_eq!(births.creation().await.bucket, "c");
    assert_eq!(deaths.down().await.bucket, "a");
    assert_eq!(deaths.down().await.bucket, "b");
}

#[tokio::test]
async fn a_watch_by_name_that_wants_no_downs_still_ends_after_the_last_of_them() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let request = pb::WatchRequest { kinds: vec![EventKind::Created.into()], ..names(&["b", "nobody"]) };
    let mut watching = client.watch(request).await.unwrap();
    watching.started().await;
    watching.synced().await;

    client.stop("b").await.unwrap();

    watching.ends_with_ok().await;
}

#[tokio::test]
async fn the_down_of_a_bucket_comes_before_the_created_of_its_namesake() {
    let server = Server::start();
    let client = server.client().await;
    let mut watching = client.watch_prefix("").await;
    watching.synced().await;
    for _ in 0..50 {
        let id = client.created("b").await;
        client.stop("b").await.unwrap();
        assert_eq!(watching.creation().await.bucket_id, id);
        assert_eq!(watching.down().await.bucket_id, id);
    }
}

#[tokio::test]
async fn a_watch_that_starts_after_an_answer_reflects_it() {
    let server = Server::start();
    let (one, other) = (server.client().await, server.client().await);
    for n in 0..20 {
        let name = format!("b{n}");
        one.created(&name).await;
        let mut watching = other.watch_prefix(&name).await;
        assert_eq!(watching.creation().await.bucket, name);

        one.stop(&name).await.unwrap();
        let (mut watching, _) = other.watch_names(&[&name]).await;
        assert_eq!(watching.down().await.reason(), Reason::Noproc);
    }
}

#[tokio::test]
async fn a_quiet_watch_proves_itself_with_heartbeats() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let mut watching = client.watch(pb::WatchRequest { heartbeat: second, ..names(&["b"]) }).await.unwrap();
    watching.started().await;
    watching.synced().await;
    let other = client.create("other").await.unwrap();

    let (response, silence) = timed(watching.response()).await;

    assert!(matches!(response, Ok(Some(Response::Heartbeat(_)))), "{response:?}");
    assert!(silence >= Duration::from_millis(900), "only when it was quiet: {silence:?}");
    assert!(watching.revision >= other.revision, "a heartbeat is a bookmark");
    let again = watching.response().await;
    assert!(matches!(again, Ok(Some(Response::Heartbeat(_)))), "{again:?}");
}

#[tokio::test]
async fn a_watch_that_has_news_needs_no_heartbeat() {
    let server = Server::start();
    let client = server.client().await;
    let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let mut watching = client.watch(pb::WatchRequest { heartbeat: second, ..prefix("") }).await.unwrap();
    watching.started().await;
    watching.synced().await;

    let start = std::time::Instant::now();
    for n in 0.. {
        client.created(&format!("{n}")).await;
        let event = watching.event().await;
        assert!(matches!(event, Event::Created(_)), "{event:?}");
        if start.elapsed() > Duration::from_millis(1_500) {
            break;
        }
    }
}

#[tokio::test]
async fn a_dropped_watch_takes_its_monitors_with_it() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let (kept, _) = client.watch_names(&["b"]).await;
    let (dropped, _) = client.watch_names(&["b", "b", "nobody"]).await;
    assert_eq!(server.registry.monitors(), 3);

    drop(dropped);

    until(async || (server.registry.monitors() == 1).then_some(())).await;
    drop(kept);
    until(async || (server.registry.monitors() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_client_that_is_gone_takes_its_watches_with_it() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let doomed = server.client().await;
    let watches = [doomed.watch_names(&["b"]).await, doomed.watch_names(&["b"]).await];
    assert_eq!(server.registry.monitors(), 2);

    // The connection itself goes, with everything that holds it.
    drop((doomed, watches));

    until(async || (server.registry.monitors() == 0).then_some(())).await;
    client.stop("b").await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_cut_takes_its_watches_with_it() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let raw = Raw::connect(&server).await;
    let mut call = raw.begin("Watch", &[]).await;
    call.send(framed(&names(&["b", "b"])));
    call.end();
    let unread = call.unread().await;
    until(async || (server.registry.monitors() == 2).then_some(())).await;

    raw.cut();

    until(async || (server.registry.monitors() == 0).then_some(())).await;
    drop(unread);
}
