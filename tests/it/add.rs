//! Add: a counter that many share.

use pail::pb::{self, value::Kind};
use tokio::task::JoinSet;
use tonic::Code;

use super::support::{Client, Server, refused, soon};

const CLIENTS: i64 = 8;
const ADDS: i64 = 100;

async fn integer(client: &Client, key: &str) -> (i64, u64) {
    let entry = client.get("b", key).await.unwrap().entry.unwrap();
    match entry.value.unwrap().kind.unwrap() {
        Kind::Integer(integer) => (integer, entry.version),
        other => panic!("no integer: {other:?}"),
    }
}

#[tokio::test]
async fn an_absent_entry_counts_as_0_and_each_sum_takes_a_version() {
    let server = Server::start();
    let client = server.client().await;
    let id = client.created("b").await;

    for (version, (delta, sum)) in (1..).zip([(5, 5), (-7, -2), (0, -2), (i64::MAX, i64::MAX - 2)]) {
        let answer = client.add("b", "n", delta).await.unwrap();
        assert_eq!(answer, pb::AddResponse { value: sum, version, bucket_id: id });
        assert_eq!(integer(&client, "n").await, (sum, version));
    }
}

#[tokio::test]
async fn nothing_is_added_to_what_is_no_integer() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    for kind in [Kind::Text("1".into()), Kind::Data(vec![1]), Kind::Number(1.0), Kind::Flag(true)] {
        let version = client.put("b", "n", kind.clone()).await.unwrap().version;

        let answer = client.add("b", "n", 0).await;

        refused(answer, Code::FailedPrecondition, "WRONG_TYPE", &[("bucket", "b"), ("key", "n")]);
        let entry = client.get("b", "n").await.unwrap().entry.unwrap();
        assert_eq!((entry.value.unwrap().kind.unwrap(), entry.version), (kind, version), "as it was");
    }
}

#[tokio::test]
async fn a_sum_that_does_not_fit_changes_nothing() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    for (full, delta) in [(i64::MAX, 1), (i64::MIN, -1), (-1, i64::MIN), (i64::MAX, i64::MAX)] {
        let version = client.put("b", "n", full).await.unwrap().version;

        let answer = client.add("b", "n", delta).await;

        refused(answer, Code::OutOfRange, "INTEGER_OVERFLOW", &[("bucket", "b"), ("key", "n")]);
        assert_eq!(integer(&client, "n").await, (full, version), "as it was");
    }
    assert_eq!(client.add("b", "least", i64::MIN).await.unwrap().value, i64::MIN);
}

#[tokio::test]
async fn an_id_that_is_given_must_be_the_living_buckets() {
    let server = Server::start();
    let client = server.client().await;
    let id = client.created("b").await;
    let add = |bucket_id| pb::AddRequest {
        bucket: "b".into(),
        key: "n".into(),
        delta: 1,
        bucket_id: Some(bucket_id),
        ..Default::default()
    };
    assert_eq!(client.add_with(add(id)).await.unwrap().value, 1);

    client.stop("b").await.unwrap();
    client.created("b").await;

    let facts = [("bucket", "b"), ("key", "n"), ("bucket_id", &*id.to_string())];
    refused(client.add_with(add(id)).await, Code::NotFound, "BUCKET_NOT_FOUND", &facts);
    refused(client.get("b", "n").await, Code::NotFound, "KEY_NOT_FOUND", &[("bucket", "b"), ("key", "n")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_clients_add_at_once_is_all_there() {
    let server = Server::start();
    server.client().await.created("b").await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = server.client().await;
        clients.spawn(async move {
            let mut sums = Vec::new();
            for _ in 0..ADDS {
                sums.push(client.add("b", "n", 1).await.unwrap().value);
            }
            assert!(sums.is_sorted(), "a client sees what it has added");
            sums
        });
    }

    let mut sums = soon(clients.join_all()).await.concat();

    sums.sort_unstable();
    assert!(sums.into_iter().eq(1..=CLIENTS * ADDS), "each sum is told to exactly one");
    let (sum, version) = integer(&server.client().await, "n").await;
    assert_eq!((sum, version), (CLIENTS * ADDS, (CLIENTS * ADDS).unsigned_abs()));
}
