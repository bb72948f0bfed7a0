//! The error table of the contract: each row with its code, its reason and its facts.

use pail::{
    limits::Limits,
    pb::{self, EventKind},
};
use prost::Message as _;
use tonic::Code;

use super::{
    raw::{Raw, framed},
    support::{Server, incarnations, names, prefix, refused, scan},
};

/// Every RPC that takes the name of a bucket, asked with this one.
macro_rules! every_rpc_with_a_name {
    ($client:expr, $name:expr) => {{
        let (client, name): (_, &str) = ($client, $name);
        [
            ("Create", client.create(name).await.map(drop)),
            ("Lookup", client.lookup(name).await.map(drop)),
            ("Stop", client.stop(name).await.map(drop)),
            ("Put", client.put(name, "k", "v").await.map(drop)),
            ("Get", client.get(name, "k").await.map(drop)),
            ("Delete", client.delete(name, "k").await.map(drop)),
            ("Scan", client.scan(scan(name)).await.map(drop)),
            ("Watch by name", client.watch(names(&["b", name])).await.map(drop)),
            ("Watch by incarnation", client.watch(incarnations(&[("b", 1), (name, 1)])).await.map(drop)),
        ]
    }};
}

#[tokio::test]
async fn a_bad_name_is_refused_by_every_rpc_that_takes_one() {
    let server = Server::start();
    let client = server.client().await;
    let (long, length) = ("n".repeat(256), [("limit", "255"), ("actual", "256")]);
    let rows: [(&str, &[(&str, &str)]); 5] =
        [("", &[("limit", "255"), ("actual", "0")]), (&long, &length), ("a\nb", &[]), ("\u{0}", &[]), ("a\u{85}", &[])];
    for (name, facts) in rows {
        for (rpc, result) in every_rpc_with_a_name!(&client, name) {
            let field = match rpc {
                "Watch by name" => "buckets",
                "Watch by incarnation" => "incarnations",
                _ => "bucket",
            };
            let facts = [&[("field", field)], facts].concat();
            let details = refused(result, Code::InvalidArgument, "INVALID_NAME", &facts);
            let violations = &details.bad_request().unwrap().field_violations;
            assert_eq!((violations.len(), &*violations[0].field), (1, field), "{rpc}");
        }
    }
    assert_eq!((server.registry.charged_bytes(), server.registry.monitors()), (0, 0));
}

#[tokio::test]
async fn any_other_text_is_a_name_and_a_key() {
    let server = Server::start();
    let client = server.client().await;
    for name in [" ", "a/b", "käse", "🧀", "\"", "\u{200b}", &"n".repeat(255)] {
        client.created(name).await;
        assert_eq!(client.lookup(name).await.unwrap().name, name);
    }
    for key in ["\u{0}", "\n", " ", "🧀", &"k".repeat(1_024)] {
        client.put(" ", key, "v").await.unwrap();
        assert_eq!(client.get(" ", key).await.unwrap().entry.unwrap().key, key);
    }
}

#[tokio::test]
async fn a_bad_key_is_refused_by_every_rpc_that_takes_one() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    for (key, actual) in [(String::new(), "0"), ("k".repeat(1_025), "1025")] {
        for result in [
            client.put("b", &key, "v").await.map(drop),
            client.get("b", &key).await.map(drop),
            client.delete("b", &key).await.map(drop),
        ] {
            let facts = [("field", "key"), ("limit", "1024"), ("actual", actual)];
            let details = refused(result, Code::InvalidArgument, "INVALID_KEY", &facts);
            assert_eq!(details.bad_request().unwrap().field_violations[0].field, "key");
        }
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_not_found() {
    let server = Server::start();
    let client = server.client().await;
    let facts = [("bucket", "nobody")];
    for result in [
        client.lookup("nobody").await.map(drop),
        client.stop("nobody").await.map(drop),
        client.scan(scan("nobody")).await.map(drop),
    ] {
        let details = refused(result, Code::NotFound, "BUCKET_NOT_FOUND", &facts);
        let resource = details.resource_info().unwrap();
        assert_eq!((&*resource.resource_type, &*resource.resource_name), ("bucket", "nobody"));
    }
    for result in [
        client.put("nobody", "k", "v").await.map(drop),
        client.get("nobody", "k").await.map(drop),
        client.delete("nobody", "k").await.map(drop),
    ] {
        refused(result, Code::NotFound, "BUCKET_NOT_FOUND", &[facts[0], ("key", "k")]);
    }
}

#[tokio::test]
async fn a_bad_option_names_its_field() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let assert = |result: Result<(), _>, field| {
        let details = refused(result, Code::InvalidArgument, "INVALID_OPTION", &[("field", field)]);
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
    };
    for page_size in [-1, i32::MIN] {
        let list = pb::ListRequest { page_size, ..Default::default() };
        assert(client.list(list).await.map(drop), "page_size");
        assert(client.scan(pb::ScanRequest { page_size, ..scan("b") }).await.map(drop), "page_size");
    }
    for (field, request) in bad_watches() {
        assert(client.watch(request).await.map(drop), field);
    }
}

fn bad_watches() -> Vec<(&'static str, pb::WatchRequest)> {
    let heartbeat =
        |seconds, nanos| pb::WatchRequest { heartbeat: Some(prost_types::Duration { seconds, nanos }), ..prefix("") };
    let kind = |kind| pb::WatchRequest { kinds: vec![kind], ..prefix("") };
    vec![
        ("buckets", pb::WatchRequest::default()),
        ("buckets", pb::WatchRequest { prefix: Some(String::new()), ..names(&["b"]) }),
        ("buckets", pb::WatchRequest { prefix: Some(String::new()), ..incarnations(&[("b", 1)]) }),
        ("buckets", pb::WatchRequest { buckets: vec!["b".into()], ..incarnations(&[("b", 1)]) }),
        ("skip_initial", pb::WatchRequest { skip_initial: true, ..names(&["b"]) }),
        ("skip_initial", pb::WatchRequest { skip_initial: true, ..incarnations(&[("b", 1)]) }),
        ("heartbeat", heartbeat(0, 999_999_999)),
        ("heartbeat", heartbeat(0, 0)),
        ("heartbeat", heartbeat(-1, 0)),
        ("heartbeat", heartbeat(24 * 60 * 60, 1)),
        ("heartbeat", heartbeat(i64::MAX, i32::MAX)),
        ("kinds", kind(EventKind::Unspecified.into())),
        ("kinds", kind(99)),
        ("kinds", kind(-1)),
    ]
}

#[tokio::test]
async fn bytes_that_are_no_message_are_an_invalid_message() {
    let server = Server::start();
    let raw = Raw::connect(&server).await;
    let frame = framed(&pb::CreateRequest { bucket: "b".into(), ..Default::default() });
    let garbage: &[u8] = &[0, 0, 0, 0, 3, 0xff, 0xff, 0xff];
    let not_utf8: &[u8] = &[0, 0, 0, 0, 3, 0x0a, 1, 0xff];
    let rows: [(&str, Vec<u8>); 6] = [
        ("no protobuf", garbage.into()),
        ("a text that is no UTF-8", not_utf8.into()),
        ("a flag that does not exist", [&[2], &frame[1..]].concat()),
        ("an end within the message", frame[..frame.len() - 1].into()),
        ("no message", Vec::new()),
        ("two messages", [&frame[..], &frame[..]].concat()),
    ];
    for (what, body) in rows {
        let answer = raw.call("Create", &[], body).await;
        assert!(answer.messages.is_empty(), "{what}");
        refused(answer.into_result(), Code::InvalidArgument, "INVALID_MESSAGE", &[]);
    }
    assert_eq!(server.registry.charged_bytes(), 0, "what is refused changes nothing");
    let answer = raw.call("Create", &[], frame).await.into_result().unwrap();
    assert!(pb::CreateResponse::decode(&*answer[0]).unwrap().created, "the connection lives on");
}

#[tokio::test]
async fn compressed_messages_and_unknown_methods_are_unimplemented() {
    let server = Server::start();
    let raw = Raw::connect(&server).await;
    let frame = framed(&pb::CreateRequest { bucket: "b".into(), ..Default::default() });

    let compressed = raw.call("Create", &[], [&[1], &frame[1..]].concat()).await;
    refused(compressed.into_result(), Code::Unimplemented, "UNIMPLEMENTED", &[]);
    let encoded = raw.call("Create", &[("grpc-encoding", "gzip")], frame.clone()).await;
    refused(encoded.into_result(), Code::Unimplemented, "UNIMPLEMENTED", &[]);
    refused(raw.call("Destroy", &[], frame).await.into_result(), Code::Unimplemented, "UNIMPLEMENTED", &[]);
    assert_eq!(server.registry.charged_bytes(), 0);
}

#[tokio::test]
async fn a_crash_of_the_registry_is_an_internal_error_of_that_call() {
    let server = Server::start();
    let client = server.client().await;

    let name = format!("{}boom", pail::hooks::PANIC);
    refused(client.create(&name).await, Code::Internal, "PANIC", &[("bucket", &name)]);
}

#[tokio::test]
async fn details_too_long_for_a_header_go_and_the_reason_stays() {
    let server = Server::with(Limits { key_bytes_max: 4_096, ..Limits::default() });
    let client = server.client().await;
    client.created("b").await;
    let longest = "\u{1f9c0}".repeat(256);

    let facts = [("bucket", "b"), ("key", &*longest)];
    refused(client.get("b", &longest).await, Code::NotFound, "KEY_NOT_FOUND", &facts);
    let status = client.get("b", &longest.repeat(4)).await.unwrap_err();
    assert!(status.details().len().div_ceil(3) * 4 <= 4_096);
    refused(Err::<(), _>(status), Code::NotFound, "KEY_NOT_FOUND", &[]);
}
