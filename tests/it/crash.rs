//! Real crashes: a handler panics, and nobody is hurt but the bucket and the one call that did it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
};

use pail::{
    hooks::PANIC,
    pb::{Reason, event::Event},
};
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::support::{Server, delete, get, put, refused, soon, until, why};

const CALLERS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_is_told_to_one_of_a_hundred_callers_and_the_others_meet_nobody_or_the_namesake() {
    let server = Server::start();
    let client = server.client().await;
    client.created("neighbour").await;
    client.put("neighbour", "k", "v").await.unwrap();
    let without = server.registry.charged_bytes();
    let old = client.created("b").await;
    let (mut watching, refs) = client.watch_names(&["b", "b"]).await;
    watching.synced().await;

    let at_work = Arc::new(AtomicUsize::new(0));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(server.client().await);
    }
    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        let client = clients[n % clients.len()].clone();
        let (at_work, acknowledged) = (Arc::clone(&at_work), Arc::clone(&acknowledged));
        callers.spawn(async move {
            let mut first = true;
            loop {
                match client.put("b", &format!("k{n}"), "v").await {
                    Ok(answer) if answer.bucket_id == old => drop(acknowledged.fetch_max(answer.version, SeqCst)),
                    other => break other,
                }
                if std::mem::take(&mut first) {
                    at_work.fetch_add(1, SeqCst);
                }
            }
        });
    }
    until(async || (at_work.load(SeqCst) == CALLERS).then_some(())).await;

    let key = format!("{PANIC}boom");
    let crashed = client.crash("b", "boom").await;
    let new = client.created("b").await;

    let facts = [("bucket", "b"), ("bucket_id", &*old.to_string()), ("key", &*key)];
    refused(crashed, Code::Aborted, "BUCKET_CRASHED", &facts);
    for end in soon(callers.join_all()).await {
        match end {
            Ok(answer) => assert_eq!(answer.bucket_id, new),
            Err(status) => assert_eq!(status.get_details_error_info().unwrap().reason, "BUCKET_NOT_FOUND"),
        }
    }
    for expected in refs {
        let down = watching.down().await;
        assert_eq!((why(&down), down.bucket_id, down.r#ref), (("b", Reason::Crashed, "boom"), old, expected));
        assert!(down.version >= acknowledged.load(SeqCst), "no acknowledged change has a greater version");
    }
    watching.ends_with_ok().await;
    client.stop("b").await.unwrap();
    assert_eq!((server.registry.monitors(), server.registry.charged_bytes()), (0, without));
    client.get("neighbour", "k").await.expect("a neighbour is untouched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_callers_that_would_crash_a_bucket_one_does() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;

    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let client = client.clone();
        callers.spawn(async move { client.crash("b", "boom").await.unwrap_err() });
    }

    let reasons =
        soon(callers.join_all()).await.into_iter().map(|status| status.get_details_error_info().unwrap().reason);
    let (crashed, others): (Vec<_>, Vec<_>) = reasons.partition(|reason| reason == "BUCKET_CRASHED");
    assert_eq!(crashed.len(), 1);
    assert!(others.iter().all(|reason| reason == "BUCKET_NOT_FOUND"), "{others:?}");
    assert_eq!((server.registry.monitors(), server.registry.charged_bytes()), (0, 0));
}

#[tokio::test]
async fn when_a_crash_is_answered_the_name_is_free() {
    let server = Server::start();
    let client = server.client().await;
    let key = format!("{PANIC}boom");
    for rpc in ["Put", "Get", "Delete"] {
        let id = client.created("b").await.to_string();
        let result = match rpc {
            "Put" => client.put_with(put("b", &key, "v")).await.map(drop),
            "Get" => client.get_with(get("b", &key)).await.map(drop),
            _ => client.delete_with(delete("b", &key)).await.map(drop),
        };
        let facts = [("bucket", "b"), ("bucket_id", &*id), ("key", &*key)];
        refused(result, Code::Aborted, "BUCKET_CRASHED", &facts);
        refused(client.lookup("b").await, Code::NotFound, "BUCKET_NOT_FOUND", &[("bucket", "b")]);
    }
}

#[tokio::test]
async fn a_registry_that_crashes_within_its_budget_loses_nothing_and_no_one() {
    let server = Server::start();
    let client = server.client().await;
    let id = client.created("b").await;
    client.put("b", "k", "v").await.unwrap();
    let before = server.registry.charged_bytes();
    let (mut named, refs) = client.watch_names(&["b"]).await;
    named.synced().await;
    let mut watching = client.watch_prefix("").await;
    assert_eq!(watching.creation().await.bucket_id, id);
    watching.synced().await;

    let mut revision = watching.revision;
    for n in 0..3 {
        let name = format!("{PANIC}{n}");
        refused(client.create(&name).await, Code::Internal, "PANIC", &[("bucket", &name)]);
        refused(client.lookup(&name).await, Code::NotFound, "BUCKET_NOT_FOUND", &[("bucket", &name)]);
        client.created("c").await;
        client.stop("c").await.unwrap();
        for expected in ["CREATED", "DOWN"] {
            let (name, told) = match watching.event().await {
                Event::Created(created) => ("CREATED", created.revision),
                Event::Down(down) => ("DOWN", down.revision),
                other => panic!("{other:?}"),
            };
            revision += 1;
            assert_eq!((name, told), (expected, revision), "no event is lost and none is told twice");
        }
    }

    assert_eq!(server.registry.charged_bytes(), before);
    assert_eq!(client.lookup("b").await.unwrap().id, id);
    client.get("b", "k").await.expect("a bucket does not notice");
    client.stop("b").await.unwrap();
    let down = named.down().await;
    assert_eq!(
        (down.r#ref, why(&down)),
        (refs[0], ("b", Reason::Normal, "")),
        "a monitor outlives the registry's state"
    );
    named.ends_with_ok().await;
}
