//! The limits table of the contract: each row at its limit and one past it. What is refused changes nothing.

use pail::{limits::Limits, pb};
use tonic::Code;

use super::{
    raw::{Raw, framed},
    support::{Server, incarnations, names, prefix, put, refused, scan, until, value},
};

const TOO_LARGE: (Code, &str) = (Code::InvalidArgument, "TOO_LARGE");

#[tokio::test]
async fn a_name_has_255_bytes_at_most() {
    let server = Server::start();
    let client = server.client().await;
    // Bytes, not letters.
    client.created(&format!("{}n", "ä".repeat(127))).await;

    let facts = [("field", "bucket"), ("limit", "255"), ("actual", "256")];
    refused(client.create(&"ä".repeat(128)).await, Code::InvalidArgument, "INVALID_NAME", &facts);
}

#[tokio::test]
async fn a_key_has_1024_bytes_at_most() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    client.put("b", &"ä".repeat(512), "v").await.unwrap();

    let facts = [("field", "key"), ("limit", "1024"), ("actual", "1025")];
    let key = format!("{}k", "ä".repeat(512));
    refused(client.put("b", &key, "v").await, Code::InvalidArgument, "INVALID_KEY", &facts);
}

#[tokio::test]
async fn a_value_has_1_mib_at_most() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    client.put("b", "text", &*"v".repeat(1 << 20)).await.unwrap();
    client.put("b", "data", vec![0; 1 << 20]).await.unwrap();
    assert_eq!(client.get("b", "data").await.unwrap().entry.unwrap().value.unwrap().kind, Some(data(1 << 20)));
    let before = server.registry.charged_bytes();

    let facts = [("field", "value"), ("limit", "1048576"), ("actual", "1048577")];
    for result in
        [client.put("b", "new", &*"v".repeat((1 << 20) + 1)).await, client.put("b", "data", data((1 << 20) + 1)).await]
    {
        let details = refused(result, TOO_LARGE.0, TOO_LARGE.1, &facts);
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "value");
    }
    assert_eq!(server.registry.charged_bytes(), before);
}

fn data(bytes: usize) -> pb::value::Kind {
    pb::value::Kind::Data(vec![0; bytes])
}

#[tokio::test]
async fn a_message_has_4_mib_at_most() {
    let server = Server::start();
    let raw = Raw::connect(&server).await;
    // A prefix has no limit of its own; its tag and its length take 5 bytes.
    let list = |bytes: usize| framed(&pb::ListRequest { prefix: "p".repeat(bytes - 5), ..Default::default() });
    assert_eq!(list(4 << 20).len(), 5 + (4 << 20));

    raw.call("List", &[], list(4 << 20)).await.into_result().unwrap();

    let facts = [("limit", "4194304"), ("actual", "4194305")];
    let answer = raw.call("List", &[], list((4 << 20) + 1)).await;
    refused(answer.into_result(), TOO_LARGE.0, TOO_LARGE.1, &facts);
}

#[tokio::test]
async fn a_message_too_large_is_refused_before_it_is_sent_whole() {
    let server = Server::start();
    let raw = Raw::connect(&server).await;
    let mut call = raw.begin("List", &[]).await;

    call.send(&[0, 0xff, 0xff, 0xff, 0xff][..]);

    let facts = [("limit", "4194304"), ("actual", "4294967295")];
    refused(call.answer().await.into_result(), TOO_LARGE.0, TOO_LARGE.1, &facts);
}

#[tokio::test]
async fn a_detail_has_1_kib_at_most() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let stop = |bytes| pb::StopRequest { bucket: "b".into(), detail: "d".repeat(bytes), ..Default::default() };

    let facts = [("field", "detail"), ("limit", "1024"), ("actual", "1025")];
    refused(client.stop_with(stop(1_025)).await, TOO_LARGE.0, TOO_LARGE.1, &facts);
    let (mut watching, _) = client.watch_names(&["b"]).await;
    watching.synced().await;
    client.stop_with(stop(1_024)).await.unwrap();
    assert_eq!(watching.down().await.detail, "d".repeat(1_024));
}

#[tokio::test]
async fn there_are_so_many_buckets_at_most() {
    let server = Server::with(Limits { buckets_max: 2, ..Limits::default() });
    let client = server.client().await;
    client.created("a").await;
    client.created("b").await;
    let before = server.registry.charged_bytes();

    let facts = [("bucket", "c"), ("limit", "2")];
    let details = refused(client.create("c").await, Code::ResourceExhausted, "TOO_MANY_BUCKETS", &facts);
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "buckets");
    assert_eq!(server.registry.charged_bytes(), before);
    assert!(!client.create("b").await.unwrap().created, "one that lives is found");

    client.stop("a").await.unwrap();
    client.created("c").await;
}

#[tokio::test]
async fn a_bucket_has_so_many_entries_at_most() {
    let server = Server::with(Limits { entries_max: 2, ..Limits::default() });
    let client = server.client().await;
    client.created("b").await;
    client.put("b", "k1", "v").await.unwrap();
    client.put("b", "k2", "v").await.unwrap();
    let before = server.registry.charged_bytes();

    let facts = [("bucket", "b"), ("key", "k3"), ("limit", "2")];
    let details = refused(client.put("b", "k3", "v").await, Code::ResourceExhausted, "TOO_MANY_ENTRIES", &facts);
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "entries");
    assert_eq!(server.registry.charged_bytes(), before);
    client.put("b", "k2", "w").await.expect("one that is there may change");

    client.delete("b", "k1").await.unwrap();
    client.put("b", "k3", "v").await.unwrap();
}

/// What a bucket with a name of one byte is charged, with one entry of this text; without any for none.
async fn what_it_costs(text: &str) -> usize {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    if !text.is_empty() {
        client.put("b", "k", text).await.unwrap();
    }
    server.registry.charged_bytes()
}

#[tokio::test]
async fn a_bucket_takes_so_many_bytes_at_most() {
    // An empty bucket, and an entry with a key of one byte and a value of 100.
    let bucket_bytes_max = what_it_costs(&"v".repeat(100)).await;
    let server = Server::with(Limits { bucket_bytes_max, ..Limits::default() });
    let client = server.client().await;
    client.created("b").await;
    client.created("c").await;
    client.put("b", "k", &*"v".repeat(100)).await.unwrap();
    assert_eq!(client.lookup("b").await.unwrap().byte_size, u64::try_from(bucket_bytes_max).unwrap());
    let before = server.registry.charged_bytes();

    let limit = bucket_bytes_max.to_string();
    for (key, value) in [("k", "v".repeat(150)), ("l", String::new())] {
        let facts = [("bucket", "b"), ("key", key), ("limit", &*limit)];
        let details = refused(client.put("b", key, &*value).await, Code::ResourceExhausted, "OUT_OF_MEMORY", &facts);
        assert_eq!(details.quota_failure().unwrap().violations[0].subject, "bucket_bytes");
    }
    assert_eq!(server.registry.charged_bytes(), before);
    client.put("c", "k", &*"v".repeat(100)).await.expect("another bucket has room of its own");
    client.put("b", "k", "").await.expect("what takes less is let in");
}

#[tokio::test]
async fn all_buckets_together_take_so_many_bytes_at_most() {
    let (bucket, full) = (what_it_costs("").await, what_it_costs(&"v".repeat(1_000)).await);
    let memory_bytes_max = bucket + full;
    let server = Server::with(Limits { memory_bytes_max, ..Limits::default() });
    let client = server.client().await;
    client.created("b").await;
    client.created("c").await;
    client.put("b", "k", &*"v".repeat(1_000)).await.unwrap();
    assert_eq!(server.registry.charged_bytes(), memory_bytes_max);

    let limit = memory_bytes_max.to_string();
    let facts = [("bucket", "c"), ("key", "k"), ("limit", &*limit)];
    for _ in 0..10 {
        let details = refused(client.put("c", "k", "").await, Code::ResourceExhausted, "OUT_OF_MEMORY", &facts);
        assert_eq!(details.quota_failure().unwrap().violations[0].subject, "memory_bytes");
    }
    let facts = [("bucket", "d"), ("limit", &*limit)];
    refused(client.create("d").await, Code::ResourceExhausted, "OUT_OF_MEMORY", &facts);
    assert_eq!(server.registry.charged_bytes(), memory_bytes_max, "what is refused charges nothing");

    client.get("b", "k").await.expect("Get goes on");
    client.scan(scan("b")).await.expect("Scan goes on");
    client.delete("b", "k").await.expect("Delete goes on");
    client.put("c", "k", &*"v".repeat(1_000)).await.expect("what was given back is there for others");
    client.stop("c").await.expect("Stop goes on");
    assert_eq!(server.registry.charged_bytes(), bucket);
}

#[tokio::test]
async fn a_watch_names_so_many_buckets_at_most() {
    let server = Server::start();
    let client = server.client().await;
    let request = |count| names(&vec!["nobody"; count]);

    let facts = [("field", "buckets"), ("limit", "10000"), ("actual", "10001")];
    refused(client.watch(request(10_001)).await.map(drop), TOO_LARGE.0, TOO_LARGE.1, &facts);
    let lives = incarnations(&[("nobody", 1); 10_001]);
    let facts = [("field", "incarnations"), facts[1], facts[2]];
    refused(client.watch(lives).await.map(drop), TOO_LARGE.0, TOO_LARGE.1, &facts);

    let mut watching = client.watch(request(10_000)).await.unwrap();
    assert_eq!(watching.started().await.monitors.len(), 10_000);
    for _ in 0..10_000 {
        watching.down().await;
    }
    watching.synced().await;
    watching.ends_with_ok().await;
}

#[tokio::test]
async fn a_connection_has_so_many_long_streams_at_most_and_its_unary_calls_go_on() {
    let server = Server::with(Limits { long_streams_max: 2, ..Limits::default() });
    let (client, other) = (server.client().await, server.client().await);
    let first = client.watch_prefix("").await;
    let _second = client.watch_prefix("").await;

    let details = refused(
        client.watch(prefix("")).await.map(drop),
        Code::ResourceExhausted,
        "TOO_MANY_STREAMS",
        &[("limit", "2")],
    );
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "connection");
    client.created("b").await;
    let _others = other.watch_prefix("").await;

    drop(first);
    until(async || client.watch(prefix("")).await.ok()).await;
}

#[tokio::test]
async fn the_server_has_so_many_long_streams_at_most() {
    let server = Server::with(Limits { long_streams_total_max: 2, ..Limits::default() });
    let (one, other, third) = (server.client().await, server.client().await, server.client().await);
    let _first = one.watch_prefix("").await;
    let second = other.watch_prefix("").await;

    let details = refused(
        third.watch(prefix("")).await.map(drop),
        Code::ResourceExhausted,
        "TOO_MANY_STREAMS",
        &[("limit", "2")],
    );
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "server");

    // The whole connection goes, and its streams with it.
    drop((second, other));
    until(async || third.watch(prefix("")).await.ok()).await;
}

#[tokio::test]
async fn a_stream_past_those_of_a_connection_waits_at_the_client() {
    let server = Server::with(Limits { streams_max: 2, ..Limits::default() });
    let client = server.client().await;
    let mut first = client.watch_prefix("").await;
    let second = client.watch_prefix("").await;
    first.synced().await;

    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.lookup("b").await }
    });
    server.client().await.created("b").await;
    first.creation().await;
    assert!(!waiting.is_finished());

    drop(second);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_server_holds_so_many_undecoded_bytes_at_most() {
    let server = Server::with(Limits { undecoded_bytes_max: 1 << 20, ..Limits::default() });
    let client = server.client().await;
    client.created("b").await;
    let raw = Raw::connect(&server).await;
    let frame = framed(&put("b", "k", vec![7; 900 << 10]));
    let (sent, rest) = (frame.slice(..600 << 10), frame.slice(600 << 10..));

    // Either has room alone. Two that meet at the limit in the same moment are both refused, and told to try again.
    let refusal = until(async || {
        let (mut one, mut other) = (raw.begin("Put", &[]).await, raw.begin("Put", &[]).await);
        one.send(sent.clone());
        other.send(sent.clone());
        let (refusal, mut admitted) = one.first_answer_of(other).await;
        assert_eq!(client.lookup("b").await.unwrap().version, 0, "what is refused was not executed");
        admitted.send(rest.clone());
        admitted.end();
        let finished = admitted.answer().await.status.code() == Code::Ok;
        finished.then_some(refusal)
    });

    let facts = [("limit", "1048576")];
    let details = refused(refusal.await.into_result(), Code::Unavailable, "OVERLOADED", &facts);
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    raw.call("Put", &[], frame).await.into_result().expect("what is over makes room");
}

#[tokio::test]
async fn where_there_is_no_room_for_answers_a_large_one_is_refused_and_a_change_before_it_is_made() {
    let server = Server::with(Limits { untaken_bytes_max: 0, ..Limits::default() });
    let client = server.client().await;
    client.created("b").await;
    client.put("b", "large", &*"v".repeat(65 << 10)).await.unwrap();
    client.put("b", "small", "v").await.unwrap();

    refused(client.get("b", "large").await, Code::Unavailable, "OVERLOADED", &[("limit", "0")]);
    client.get("b", "small").await.expect("what is small needs no room");

    let put = pb::TransactPut { key: "new".into(), value: value("v"), ttl: None };
    let success = vec![pb::TransactOp { op: Some(pb::transact_op::Op::Put(put)) }];
    let transaction = pb::TransactRequest { bucket: "b".into(), success, ..Default::default() };
    refused(client.transact(transaction).await, Code::Unavailable, "OVERLOADED", &[("limit", "0")]);
    assert_eq!(client.lookup("b").await.unwrap().entry_count, 2, "nothing was changed");
}

#[tokio::test]
async fn where_the_process_has_as_much_memory_as_it_may_nothing_is_created() {
    let server = Server::with(Limits { resident_bytes_max: 1, ..Limits::default() });
    let client = server.client().await;
    let facts = [("bucket", "b"), ("limit", "1")];
    let details = refused(client.create("b").await, Code::ResourceExhausted, "OUT_OF_MEMORY", &facts);
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "resident_bytes");
    assert_eq!(server.registry.charged_bytes(), 0);
}
