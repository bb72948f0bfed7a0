//! Buckets come and go: the tests of Elixir's guide by name, and what Create, Lookup and Stop promise.

use pail::pb::{self, Reason};
use tonic::Code;

use super::support::{Server, refused, why};

#[tokio::test]
async fn spawns_buckets() {
    let server = Server::start();
    let client = server.client().await;
    refused(client.lookup("shopping").await, Code::NotFound, "BUCKET_NOT_FOUND", &[("bucket", "shopping")]);

    client.create("shopping").await.unwrap();
    client.lookup("shopping").await.unwrap();

    client.put("shopping", "milk", "1").await.unwrap();
    let milk = client.get("shopping", "milk").await.unwrap().entry.unwrap();
    assert_eq!(milk.value.unwrap().kind, Some(pb::value::Kind::Text("1".to_owned())));
}

#[tokio::test]
async fn removes_buckets_on_exit() {
    let server = Server::start();
    let client = server.client().await;
    client.create("shopping").await.unwrap();

    client.stop("shopping").await.unwrap();

    refused(client.lookup("shopping").await, Code::NotFound, "BUCKET_NOT_FOUND", &[("bucket", "shopping")]);
}

#[tokio::test]
async fn removes_bucket_on_crash() {
    let server = Server::start();
    let client = server.client().await;
    client.create("shopping").await.unwrap();
    let (mut watching, _) = client.watch_names(&["shopping"]).await;
    watching.synced().await;

    let request = pb::StopRequest { bucket: "shopping".into(), reason: Reason::Crashed.into(), ..Default::default() };
    client.stop_with(request).await.unwrap();

    refused(client.lookup("shopping").await, Code::NotFound, "BUCKET_NOT_FOUND", &[("bucket", "shopping")]);
    assert_eq!(why(&watching.down().await), ("shopping", Reason::Crashed, ""));
}

#[tokio::test]
async fn creating_again_returns_the_same_bucket() {
    let server = Server::start();
    let client = server.client().await;

    let first = client.create("b").await.unwrap();
    client.put("b", "k", "v").await.unwrap();
    let again = client.create("b").await.unwrap();

    assert_eq!((first.created, again.created), (true, false));
    assert_eq!(first.revision, again.revision);
    let (first, again) = (first.bucket.unwrap(), again.bucket.unwrap());
    assert_eq!((first.id, first.create_revision), (again.id, again.create_revision));
    assert_eq!((first.version, again.version, again.entry_count), (0, 1, 1));
}

#[tokio::test]
async fn a_bucket_is_described_by_what_it_is_and_holds() {
    let server = Server::start();
    let client = server.client().await;
    let before = std::time::SystemTime::now();
    let created = client.create("b").await.unwrap();
    let empty = created.bucket.unwrap();
    client.put("b", "k", "vvv").await.unwrap();

    let bucket = client.lookup("b").await.unwrap();

    assert_eq!((&*bucket.name, bucket.id, bucket.create_revision), ("b", empty.id, created.revision));
    assert_eq!((bucket.version, bucket.entry_count, bucket.expire_time), (1, 1, None));
    assert!(bucket.byte_size >= empty.byte_size + 4, "{bucket:?}");
    let time = std::time::SystemTime::try_from(bucket.create_time.unwrap()).unwrap();
    let age = time.duration_since(before).unwrap_or_else(|early| early.duration());
    assert!(age < super::support::DEADLINE, "{bucket:?}");
}

#[tokio::test]
async fn when_create_answers_every_client_finds_the_bucket() {
    let server = Server::start();
    let (one, other) = (server.client().await, server.client().await);
    for n in 0..100 {
        let name = format!("b{n}");
        let id = one.created(&name).await;
        assert_eq!(other.lookup(&name).await.unwrap().id, id);
    }
}

#[tokio::test]
async fn when_stop_answers_the_name_is_free_for_a_bucket_with_another_id() {
    let server = Server::start();
    let (one, other) = (server.client().await, server.client().await);
    let mut ids = vec![one.created("b").await];
    for _ in 0..100 {
        assert_eq!(one.stop("b").await.unwrap().bucket_id, *ids.last().unwrap());
        ids.push(other.created("b").await);
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "an id is never given again: {ids:?}");
}

#[tokio::test]
async fn create_and_stop_take_the_next_revision_each() {
    let server = Server::start();
    let client = server.client().await;
    let created = client.create("b").await.unwrap().revision;
    let other = client.create("c").await.unwrap().revision;
    let stopped = client.stop("b").await.unwrap().revision;
    client.create("c").await.unwrap();

    assert_eq!([other, stopped], [created + 1, created + 2]);
    assert_eq!(client.create("d").await.unwrap().revision, stopped + 1);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
    assert!(u128::from(created) <= now + 1 && now - u128::from(created) < 60_000_000, "it begins at the wall clock");
}

#[tokio::test]
async fn a_stop_with_an_id_ends_that_bucket_only() {
    let server = Server::start();
    let client = server.client().await;
    let first = client.created("b").await;
    client.stop("b").await.unwrap();
    let second = client.created("b").await;

    let stop = |id| pb::StopRequest { bucket: "b".into(), bucket_id: Some(id), ..Default::default() };
    let facts = [("bucket", "b"), ("bucket_id", &*first.to_string())];
    refused(client.stop_with(stop(first)).await, Code::NotFound, "BUCKET_NOT_FOUND", &facts);
    assert_eq!(client.lookup("b").await.unwrap().id, second);
    assert_eq!(client.stop_with(stop(second)).await.unwrap().bucket_id, second);
}

#[tokio::test]
async fn a_client_stops_with_the_reasons_that_it_may_give() {
    let server = Server::start();
    let client = server.client().await;
    for (asked, told) in [
        (Reason::Unspecified, Reason::Normal),
        (Reason::Normal, Reason::Normal),
        (Reason::Shutdown, Reason::Shutdown),
        (Reason::Killed, Reason::Killed),
        (Reason::Crashed, Reason::Crashed),
    ] {
        client.created("b").await;
        let (mut watching, _) = client.watch_names(&["b"]).await;
        watching.synced().await;

        let (bucket, reason, detail) = ("b".into(), asked.into(), "said so".into());
        client.stop_with(pb::StopRequest { bucket, bucket_id: None, reason, detail }).await.unwrap();

        assert_eq!(why(&watching.down().await), ("b", told, "said so"));
    }
    client.created("b").await;
    for asked in
        [Reason::Expired, Reason::Noproc, Reason::Noconnection, Reason::Linked].map(i32::from).into_iter().chain([99])
    {
        let request = pb::StopRequest { bucket: "b".into(), reason: asked, ..Default::default() };
        refused(client.stop_with(request).await, Code::InvalidArgument, "INVALID_OPTION", &[("field", "reason")]);
    }
    client.lookup("b").await.expect("what is refused changes nothing");
}

#[tokio::test]
async fn a_name_that_is_gone_costs_nothing() {
    let server = Server::start();
    let client = server.client().await;
    for n in 0..200 {
        let name = format!("b{n}");
        client.created(&name).await;
        client.put(&name, "k", "v").await.unwrap();
        client.stop(&name).await.unwrap();
    }
    assert_eq!((server.registry.charged_bytes(), server.registry.monitors()), (0, 0));
}
