//! A watch that goes on where another one was, and one that follows names for ever.

use pail::{
    limits::Limits,
    pb::{self, Reason, WatchRequest, event::Event},
};
use tonic::Code;

use super::support::{Client, Server, Watching, incarnations, names, prefix, refused, why};

/// The same watch, as of this revision of this registry.
fn after(revision: u64, request: WatchRequest) -> WatchRequest {
    WatchRequest { after_revision: Some(revision), registry_id: Some("a registry".into()), ..request }
}

fn follow(buckets: &[&str]) -> WatchRequest {
    WatchRequest { follow: true, ..names(buckets) }
}

/// Begun, with the monitors' refs and ids.
async fn begun(client: &Client, request: WatchRequest) -> (Watching, Vec<(u64, u64)>) {
    let mut watching = client.watch(request).await.unwrap();
    let monitors = watching.started().await.monitors;
    (watching, monitors.iter().map(|monitor| (monitor.r#ref, monitor.bucket_id)).collect())
}

async fn kill(client: &Client, bucket: &str, detail: &str) -> pb::StopResponse {
    let request = pb::StopRequest {
        bucket: bucket.into(),
        reason: Reason::Killed.into(),
        detail: detail.into(),
        ..Default::default()
    };
    client.stop_with(request).await.unwrap()
}

/// What a lifecycle event says: its ref, its id, and the reason of a death.
async fn said(watching: &mut Watching) -> (u64, u64, Option<Reason>) {
    match watching.event().await {
        Event::Created(created) => (created.r#ref, created.bucket_id, None),
        Event::Down(down) => (down.r#ref, down.bucket_id, Some(down.reason())),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn by_prefix_what_was_missed_comes_without_a_snapshot_and_then_what_happens() {
    let server = Server::start();
    let client = server.client().await;
    let (a, x) = (client.created("u/a").await, client.created("x").await);
    let seen = client.create("x").await.unwrap().revision;
    kill(&client, "u/a", "why").await;
    client.stop("x").await.unwrap();
    let b = client.created("u/b").await;

    let (mut watching, _) = begun(&client, after(seen, prefix("u/"))).await;
    assert_eq!(watching.revision, seen, "a resumed watch is a bookmark from the start");
    let down = watching.down().await;
    assert_eq!((down.bucket_id, why(&down)), (a, ("u/a", Reason::Killed, "why")));
    let created = watching.creation().await;
    assert_eq!((created.bucket_id, created.initial), (b, false));
    watching.synced().await;
    let stopped = client.stop("u/b").await.unwrap();
    assert_eq!(watching.down().await.bucket_id, b);
    assert!(watching.revision >= stopped.revision && x != b);
}

#[tokio::test]
async fn what_is_resumed_at_the_present_has_missed_nothing() {
    let server = Server::start();
    let client = server.client().await;
    let id = client.created("b").await;
    let now = client.list(pb::ListRequest::default()).await.unwrap().revision;
    for request in [prefix(""), names(&["b"]), incarnations(&[("b", id)]), follow(&["b"])] {
        // The registry_id may be left out.
        let request = WatchRequest { after_revision: Some(now), ..request };
        let (mut watching, _) = begun(&client, request).await;
        watching.synced().await;
        assert_eq!(watching.revision, now);
    }
}

#[tokio::test]
async fn by_name_the_first_event_after_the_revision_decides() {
    let server = Server::start();
    let client = server.client().await;
    let (gone, stays) = (client.created("gone").await, client.created("stays").await);
    let seen = client.list(pb::ListRequest::default()).await.unwrap().revision;
    let killed = kill(&client, "gone", "why").await;
    client.created("gone").await;
    client.created("new").await;

    let (mut watching, set) = begun(&client, after(seen, names(&["gone", "new", "stays", "never"]))).await;

    let ids: Vec<_> = set.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids, [gone, 0, stays, 0]);
    let down = watching.down().await;
    assert_eq!((down.r#ref, down.revision, why(&down)), (set[0].0, killed.revision, ("gone", Reason::Killed, "why")));
    for index in [1, 3] {
        assert_eq!(said(&mut watching).await, (set[index].0, 0, Some(Reason::Noproc)), "it was absent then");
    }
    watching.synced().await;
    client.stop("gone").await.unwrap();
    client.stop("new").await.unwrap();
    client.stop("stays").await.unwrap();
    assert_eq!(said(&mut watching).await, (set[2].0, stays, Some(Reason::Normal)), "each fires once");
    watching.ends_with_ok().await;
}

#[tokio::test]
async fn whoever_creates_and_then_watches_that_id_from_there_never_loses_the_reason() {
    let server = Server::start();
    let (client, other) = (server.client().await, server.client().await);
    for round in 0..20 {
        let created = client.create("b").await.unwrap();
        let id = created.bucket.unwrap().id;
        let detail = format!("round {round}");
        // It dies, and its name is taken, before, while or after the watch begins.
        let killer = tokio::spawn({
            let (other, detail) = (other.clone(), detail.clone());
            async move {
                kill(&other, "b", &detail).await;
                other.created("b").await;
            }
        });
        let mut watching = client.watch(after(created.revision, incarnations(&[("b", id)]))).await.unwrap();
        assert_eq!(watching.started().await.monitors[0].bucket_id, id);
        loop {
            match watching.response().await.unwrap() {
                Some(pb::watch_response::Response::Events(events)) => {
                    let [pb::Event { event: Some(Event::Down(down)) }] = &events.events[..] else {
                        panic!("one DOWN: {events:?}")
                    };
                    assert_eq!((down.bucket_id, why(down)), (id, ("b", Reason::Killed, &*detail)));
                }
                Some(pb::watch_response::Response::Synced(_)) => {}
                None => break,
                other => panic!("{other:?}"),
            }
        }
        killer.await.unwrap();
        client.stop("b").await.unwrap();
    }
    assert_eq!(server.registry.monitors(), 0);
}

#[tokio::test]
async fn a_revision_that_the_registry_has_not_been_at_is_unknown() {
    let server = Server::start();
    let client = server.client().await;
    let first = server.registry.revision().get();
    let id = client.created("b").await;
    let last = client.list(pb::ListRequest::default()).await.unwrap().revision;
    for base in [prefix(""), names(&["b"]), incarnations(&[("b", id)]), follow(&["b"])] {
        let another = WatchRequest { registry_id: Some("another".into()), ..after(last, base.clone()) };
        let revisions = [0, 1, first - 1, last + 1, u64::MAX].map(|revision| after(revision, base.clone()));
        let revisions = revisions.map(|request| ("after_revision", request));
        for (field, request) in revisions.into_iter().chain([("registry_id", another)]) {
            let answer = client.watch(request).await.map(drop);
            refused(answer, Code::OutOfRange, "REVISION_UNKNOWN", &[("field", field)]);
        }
        begun(&client, after(first, base.clone())).await;
        begun(&client, after(last, base)).await;
    }
}

#[tokio::test]
async fn what_is_not_kept_any_more_says_what_is() {
    let server = Server::with(Limits { history_events_max: 3, ..Limits::default() });
    let client = server.client().await;
    let first = server.registry.revision().get();
    for name in ["a", "b", "c", "d", "e"] {
        client.created(name).await;
    }
    let oldest = first + 3;
    for base in [prefix(""), names(&["d"]), incarnations(&[("d", 1)]), follow(&["d"])] {
        for revision in [first, oldest - 2] {
            let answer = client.watch(after(revision, base.clone())).await.map(drop);
            refused(answer, Code::OutOfRange, "REVISION_COMPACTED", &[("oldest_revision", &*oldest.to_string())]);
        }
    }
    let (mut watching, _) = begun(&client, after(oldest - 1, prefix(""))).await;
    assert_eq!(watching.creation().await.revision, oldest, "the oldest is still there");
    assert_eq!(server.registry.monitors(), 0);
}

#[tokio::test]
async fn options_that_do_not_go_together_are_refused() {
    let server = Server::start();
    let client = server.client().await;
    let id = client.created("b").await;
    let registry = |request| WatchRequest { registry_id: Some("a registry".into()), ..request };
    let follow = |request| WatchRequest { follow: true, ..request };
    let rows = [
        ("registry_id", registry(prefix(""))),
        ("registry_id", registry(names(&["b"]))),
        ("registry_id", registry(follow(names(&["b"])))),
        ("follow", follow(prefix(""))),
        ("follow", follow(incarnations(&[("b", id)]))),
        ("skip_initial", WatchRequest { skip_initial: true, ..names(&["b"]) }),
    ];
    for (field, request) in rows {
        let answer = client.watch(request).await.map(drop);
        refused(answer, Code::InvalidArgument, "INVALID_OPTION", &[("field", field)]);
    }
    assert_eq!(server.registry.monitors(), 0);
}

#[tokio::test]
async fn a_name_that_is_followed_is_told_of_for_ever() {
    let server = Server::start();
    let client = server.client().await;
    let a = client.created("a").await;
    client.created("other").await;
    let (mut watching, set) = begun(&client, follow(&["b", "a"])).await;
    let [(of_b, 0), (of_a, id)] = set[..] else { panic!("a ref for each name: {set:?}") };
    assert_eq!(id, a);

    // What is there and what is not come in any order, once each.
    let mut at_start = Vec::new();
    for _ in 0..2 {
        match watching.event().await {
            Event::Created(created) => {
                assert!(created.initial);
                at_start.push((created.r#ref, created.bucket_id, None));
            }
            Event::Down(down) => at_start.push((down.r#ref, down.bucket_id, Some(down.reason()))),
            other => panic!("{other:?}"),
        }
    }
    at_start.sort_unstable_by_key(|(r#ref, ..)| *r#ref);
    let mut expected = [(of_b, 0, Some(Reason::Noproc)), (of_a, a, None)];
    expected.sort_unstable_by_key(|(r#ref, ..)| *r#ref);
    assert_eq!(at_start, expected);
    watching.synced().await;

    client.stop("other").await.unwrap();
    kill(&client, "a", "").await;
    assert_eq!(said(&mut watching).await, (of_a, a, Some(Reason::Killed)));
    for _ in 0..3 {
        for (name, of) in [("a", of_a), ("b", of_b)] {
            let id = client.created(name).await;
            client.stop(name).await.unwrap();
            assert_eq!(said(&mut watching).await, (of, id, None));
            assert_eq!(said(&mut watching).await, (of, id, Some(Reason::Normal)), "and no NOPROC again");
        }
    }
}

#[tokio::test]
async fn a_name_that_is_followed_twice_is_told_of_twice() {
    let server = Server::start();
    let client = server.client().await;
    let id = client.created("b").await;
    let (mut watching, set) = begun(&client, follow(&["b", "b"])).await;
    let refs: Vec<_> = set.iter().map(|(r#ref, _)| *r#ref).collect();
    assert_ne!(refs[0], refs[1]);

    for reason in [None, Some(Reason::Normal)] {
        let mut told = [said(&mut watching).await, said(&mut watching).await];
        told.sort_unstable_by_key(|(r#ref, ..)| *r#ref);
        assert_eq!(told.to_vec(), refs.iter().map(|r#ref| (*r#ref, id, reason)).collect::<Vec<_>>());
        if reason.is_none() {
            watching.synced().await;
            client.stop("b").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_follow_is_resumed_with_what_was_missed_and_without_noproc() {
    let server = Server::start();
    let client = server.client().await;
    let a = client.created("a").await;
    let (mut watching, _) = begun(&client, follow(&["a"])).await;
    assert!(watching.creation().await.initial);
    watching.synced().await;
    let seen = watching.revision;
    drop(watching);
    kill(&client, "a", "why").await;
    client.created("other").await;
    let again = client.created("a").await;

    let (mut watching, set) = begun(&client, after(seen, follow(&["a", "nobody"]))).await;
    assert_eq!(set.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [again, 0], "the ref is the name's");
    assert_eq!(said(&mut watching).await, (set[0].0, a, Some(Reason::Killed)));
    let created = watching.creation().await;
    assert_eq!((created.r#ref, created.bucket_id, created.initial), (set[0].0, again, false));
    watching.synced().await;
    let nobody = client.created("nobody").await;
    assert_eq!(said(&mut watching).await, (set[1].0, nobody, None));
}
