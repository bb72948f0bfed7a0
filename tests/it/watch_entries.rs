//! Watch with entries: what is there, then each change once, in order, for as long as the ring holds it.

use pail::{
    limits::Limits,
    pb::{self, EventKind, Reason, WatchRequest, event::Event, transact_op::Op, value::Kind, watch_response::Response},
};
use prost::Message as _;
use tonic::Code;

use super::{
    raw::{Answer, Raw, framed},
    support::{
        Client, Server, Val, Watching, incarnations, length, millis, names, prefix, put, refused, until, value, why,
    },
};

fn entries(request: WatchRequest) -> WatchRequest {
    WatchRequest { entries: true, ..request }
}

fn follow(bucket: &str) -> WatchRequest {
    WatchRequest { follow: true, ..names(&[bucket]) }
}

/// A watch that has begun, and its first ref; 0 for a prefix.
async fn begun(client: &Client, request: WatchRequest) -> (Watching, u64) {
    let mut watching = client.watch(request).await.unwrap();
    let started = watching.started().await;
    (watching, started.monitors.first().map_or(0, |monitor| monitor.r#ref))
}

/// An event in short; its entry's value is for others to look at.
fn short(event: &Event) -> String {
    match event {
        Event::Created(event) if event.initial => format!("INITIAL {}", event.bucket),
        Event::Created(event) => format!("CREATED {}", event.bucket),
        Event::Put(event) => {
            let entry = event.entry.as_ref().unwrap();
            let what = if event.initial { "THERE" } else { "PUT" };
            format!("{what} {} {} {}", event.bucket, entry.key, entry.version)
        }
        Event::Deleted(event) => {
            let what = if event.expired { "EXPIRED" } else { "DELETED" };
            format!("{what} {} {} {}", event.bucket, event.key, event.version)
        }
        Event::Down(event) => format!("DOWN {} {} {}", event.bucket, event.reason().as_str_name(), event.version),
    }
}

/// These events come next, and nothing else in between.
async fn hears(watching: &mut Watching, events: &[&str]) {
    for expected in events {
        assert_eq!(short(&watching.event().await), *expected);
    }
}

async fn put_event(watching: &mut Watching) -> pb::PutEvent {
    match watching.event().await {
        Event::Put(put) => put,
        other => panic!("a PUT comes next, not {other:?}"),
    }
}

async fn deleted_event(watching: &mut Watching) -> pb::DeletedEvent {
    match watching.event().await {
        Event::Deleted(deleted) => deleted,
        other => panic!("a DELETED comes next, not {other:?}"),
    }
}

#[tokio::test]
async fn what_goes_with_entries_is_refused_without() {
    let server = Server::start();
    let client = server.client().await;
    let id = client.created("b").await;
    let kinds = |kind: EventKind| WatchRequest { kinds: vec![kind.into()], ..prefix("") };
    let skipping = |request| WatchRequest { skip_initial: true, ..request };
    for (field, request) in [
        ("key_prefix", WatchRequest { key_prefix: Some("k".into()), ..prefix("") }),
        ("key_prefix", WatchRequest { key_prefix: Some(String::new()), ..names(&["b"]) }),
        ("keys_only", WatchRequest { keys_only: true, ..follow("b") }),
        ("kinds", kinds(EventKind::Put)),
        ("kinds", kinds(EventKind::Deleted)),
        ("skip_initial", skipping(names(&["b"]))),
        ("skip_initial", skipping(incarnations(&[("b", id)]))),
    ] {
        let details = refused(
            client.watch(request).await.map(drop),
            Code::InvalidArgument,
            "INVALID_OPTION",
            &[("field", field)],
        );
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
    }

    client.put("b", "k", "v").await.unwrap();
    for request in [names(&["b"]), incarnations(&[("b", id)])] {
        let (mut watching, _) = begun(&client, skipping(entries(request))).await;
        watching.synced().await;
    }
}

#[tokio::test]
async fn an_entrys_life_is_told_whatever_names_its_bucket() {
    type Request = fn(u64) -> WatchRequest;
    let all: [(&str, Request); 4] = [
        ("name", |_| names(&["b"])),
        ("incarnation", |id| incarnations(&[("b", id)])),
        ("follow", |_| follow("b")),
        ("prefix", |_| prefix("b")),
    ];
    for (way, request) in all {
        let server = Server::start();
        let client = server.client().await;
        let id = client.created("b").await;
        client.put("b", "z", "old").await.unwrap();
        client.put_with(pb::PutRequest { ttl: length(3_600, 0), ..put("b", "a", 7) }).await.unwrap();
        let (mut watching, monitor) = begun(&client, entries(request(id))).await;
        assert_eq!(monitor == 0, way == "prefix");

        if ["follow", "prefix"].contains(&way) {
            hears(&mut watching, &["INITIAL b"]).await;
        }
        for key in ["a", "z"] {
            let event = put_event(&mut watching).await;
            assert_eq!((event.r#ref, &*event.bucket, event.bucket_id, event.initial), (monitor, "b", id, true));
            let there = client.get("b", key).await.unwrap().entry.unwrap();
            assert_eq!(event.entry, Some(there), "{way}");
        }
        watching.synced().await;

        every_kind(&client, &mut watching, monitor, id).await;
        client.delete("b", "z").await.unwrap();
        let event = deleted_event(&mut watching).await;
        assert_eq!((event.r#ref, &*event.bucket, event.bucket_id), (monitor, "b", id));
        assert_eq!((&*event.key, event.version, event.expired), ("z", 10, false));

        client.put_with(pb::PutRequest { ttl: millis(20), ..put("b", "t", "soon gone") }).await.unwrap();
        let event = put_event(&mut watching).await;
        assert!(event.entry.unwrap().expire_time.is_some(), "{way}");
        let event = deleted_event(&mut watching).await;
        assert_eq!((event.r#ref, &*event.bucket, event.bucket_id), (monitor, "b", id));
        assert_eq!((&*event.key, event.version, event.expired), ("t", 12, true));

        client.stop("b").await.unwrap();
        let down = watching.down().await;
        assert_eq!((down.r#ref, down.bucket_id, down.version), (monitor, id, 12));
        assert_eq!(why(&down), ("b", Reason::Normal, ""), "no entry is deleted one by one");
        if ["follow", "prefix"].contains(&way) {
            let again = client.created("b").await;
            client.put("b", "k", "v").await.unwrap();
            assert_eq!(watching.creation().await.bucket_id, again);
            assert_eq!(put_event(&mut watching).await.bucket_id, again);
        } else {
            watching.ends_with_ok().await;
        }
    }
}

/// Each kind of value is told as it is, and so is what an Add leaves.
async fn every_kind(client: &Client, watching: &mut Watching, monitor: u64, id: u64) {
    let quiet_nan = f64::from_bits(0x7ff8_0000_dead_beef);
    let kinds = [
        Kind::Text("ünï".into()),
        Kind::Data(vec![0, 255, 10]),
        Kind::Integer(i64::MIN),
        Kind::Number(quiet_nan),
        Kind::Flag(false),
    ];
    for kind in kinds {
        let version = client.put("b", "v", Val::from(kind)).await.unwrap().version;
        let event = put_event(watching).await;
        assert_eq!((event.r#ref, event.bucket_id, event.initial), (monitor, id, false));
        let there = client.get("b", "v").await.unwrap().entry.unwrap();
        assert_eq!(there.version, version);
        assert_eq!(event.entry.unwrap().encode_to_vec(), there.encode_to_vec(), "to the byte, a NaN included");
    }
    client.add("b", "n", 2).await.unwrap();
    client.add("b", "n", 40).await.unwrap();
    for sum in [2, 42] {
        assert_eq!(put_event(watching).await.entry.unwrap().value, value(sum));
    }
}

#[tokio::test]
async fn a_name_given_twice_hears_of_each_change_twice() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    client.put("b", "k", "v").await.unwrap();
    for request in [names(&["b", "b"]), WatchRequest { follow: true, ..names(&["b", "b"]) }] {
        let follows = request.follow;
        let mut watching = client.watch(entries(request)).await.unwrap();
        let refs: Vec<_> = watching.started().await.monitors.iter().map(|monitor| monitor.r#ref).collect();
        if follows {
            hears(&mut watching, &["INITIAL b", "INITIAL b"]).await;
        }
        let there = [put_event(&mut watching).await.r#ref, put_event(&mut watching).await.r#ref];
        assert_eq!(there.to_vec(), refs);
        watching.synced().await;
        client.put("b", "k", "v").await.unwrap();
        let told = [put_event(&mut watching).await, put_event(&mut watching).await];
        assert_eq!(told.each_ref().map(|event| event.r#ref).to_vec(), refs);
        assert_eq!(told[0].entry, told[1].entry);
    }
}

#[tokio::test]
async fn keys_only_key_prefix_and_kinds_leave_out_what_is_not_wanted() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    for key in ["a", "u/1", "u/2", "v"] {
        client.put("b", key, "text").await.unwrap();
    }
    let few = WatchRequest { key_prefix: Some("u/".into()), keys_only: true, ..entries(prefix("")) };
    let kinds = |kinds: &[EventKind]| WatchRequest {
        kinds: kinds.iter().map(|kind| i32::from(*kind)).collect(),
        ..entries(prefix(""))
    };
    let (mut few, _) = begun(&client, few).await;
    let (mut puts, _) = begun(&client, kinds(&[EventKind::Put])).await;
    let (mut gone, _) = begun(&client, kinds(&[EventKind::Deleted, EventKind::Down])).await;
    let (mut lives, _) = begun(&client, kinds(&[EventKind::Created])).await;
    hears(&mut few, &["INITIAL b"]).await;
    for key in ["u/1", "u/2"] {
        let entry = put_event(&mut few).await.entry.unwrap();
        assert_eq!((&*entry.key, &entry.value), (key, &None), "keys only");
    }
    hears(&mut puts, &["THERE b a 1", "THERE b u/1 2", "THERE b u/2 3", "THERE b v 4"]).await;
    hears(&mut lives, &["INITIAL b"]).await;
    for watching in [&mut few, &mut puts, &mut gone, &mut lives] {
        watching.synced().await;
    }

    client.put("b", "a", "text").await.unwrap();
    client.put("b", "u/3", "text").await.unwrap();
    client.delete("b", "u/1").await.unwrap();
    client.delete("b", "v").await.unwrap();
    client.stop("b").await.unwrap();
    client.created("c").await;

    let entry = put_event(&mut few).await.entry.unwrap();
    assert_eq!((&*entry.key, entry.version, &entry.value), ("u/3", 6, &None));
    hears(&mut few, &["DELETED b u/1 7", "DOWN b REASON_NORMAL 8", "CREATED c"]).await;
    hears(&mut puts, &["PUT b a 5", "PUT b u/3 6"]).await;
    hears(&mut gone, &["DELETED b u/1 7", "DELETED b v 8", "DOWN b REASON_NORMAL 8"]).await;
    hears(&mut lives, &["CREATED c"]).await;
}

#[tokio::test]
async fn a_watch_is_no_use_of_a_bucket_that_is_let_go_when_idle() {
    let server = Server::start();
    let client = server.client().await;
    let idle = pb::CreateRequest { bucket: "b".into(), idle_ttl: millis(200), ..Default::default() };
    client.create_with(idle).await.unwrap();
    let mut deaths = Vec::new();
    for request in [names(&["b"]), follow("b"), prefix("")] {
        deaths.push(begun(&client, entries(request)).await.0);
    }
    let dead = until(async || {
        // New ones all the time: each looks into the bucket.
        drop(begun(&client, entries(prefix(""))).await);
        server.registry.list("", None, 1).unwrap().buckets.is_empty().then_some(())
    });
    dead.await;
    for watching in &mut deaths {
        let down = loop {
            match watching.response().await.unwrap() {
                Some(Response::Events(events)) => {
                    if let Some(Event::Down(down)) = events.events.into_iter().last().and_then(|event| event.event) {
                        break down;
                    }
                }
                Some(Response::Synced(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(why(&down), ("b", Reason::Expired, ""));
    }
}

#[tokio::test]
async fn a_watch_that_is_resumed_tells_the_entries_of_the_living_again() {
    let server = Server::with(Limits { history_events_max: 4, ..Limits::default() });
    let client = server.client().await;
    client.created("old").await;
    client.put("old", "k", "v").await.unwrap();
    let revision = client.create("dead").await.unwrap().revision;
    client.put("dead", "k", "v").await.unwrap();
    client.stop("dead").await.unwrap();
    client.created("new").await;
    client.put("new", "k", "v").await.unwrap();

    let resumed = |request| WatchRequest { after_revision: Some(revision), ..entries(request) };
    let (mut by_prefix, _) = begun(&client, resumed(prefix(""))).await;
    let missed = ["DOWN dead REASON_NORMAL 1", "CREATED new"];
    hears(&mut by_prefix, &missed).await;
    hears(&mut by_prefix, &["THERE new k 1", "THERE old k 1"]).await;
    by_prefix.synced().await;
    let (mut by_name, _) = begun(&client, resumed(names(&["old", "dead", "new"]))).await;
    hears(&mut by_name, &["DOWN dead REASON_NORMAL 1", "DOWN new REASON_NOPROC 0", "THERE old k 1"]).await;
    by_name.synced().await;
    let skipping = WatchRequest { skip_initial: true, ..resumed(prefix("")) };
    let (mut skipping, _) = begun(&client, skipping).await;
    hears(&mut skipping, &missed).await;
    skipping.synced().await;

    client.put("old", "k", "v").await.unwrap();
    for watching in [&mut by_prefix, &mut by_name, &mut skipping] {
        hears(watching, &["PUT old k 2"]).await;
    }

    for bucket in ["x", "y", "z"] {
        client.created(bucket).await;
    }
    for request in [prefix(""), names(&["old"]), follow("old")] {
        let oldest = (revision + 2).to_string();
        refused(
            client.watch(resumed(request)).await.map(drop),
            Code::OutOfRange,
            "REVISION_COMPACTED",
            &[("oldest_revision", &oldest)],
        );
    }
}

fn transaction(bucket: &str, ops: impl Iterator<Item = (String, String)>) -> pb::TransactRequest {
    let op = |(key, text): (String, String)| {
        let put = pb::TransactPut { key, value: value(&*text), ttl: None };
        pb::TransactOp { op: Some(Op::Put(put)) }
    };
    pb::TransactRequest { bucket: bucket.into(), success: ops.map(op).collect(), ..Default::default() }
}

#[tokio::test]
async fn what_a_transaction_changes_is_in_one_response() {
    let server = Server::start();
    let client = server.client().await;
    // A long name, which is in each of its events; and values that nearly fill the response.
    let bucket = "b".repeat(255);
    client.created(&bucket).await;
    let mut all = Vec::new();
    for request in [names(&[&bucket]), follow(&bucket), prefix("b")] {
        // On a connection of its own: what is not read yet must not hold up the answers to those who write.
        let request = WatchRequest { skip_initial: true, ..entries(request) };
        let (mut watching, _) = begun(&server.client().await, request).await;
        watching.synced().await;
        all.push(watching);
    }
    client.put(&bucket, "before", "x".repeat(900_000).as_str()).await.unwrap();
    let ops = (0..1_024).map(|n| (format!("{n:04}"), if n < 3 { "x".repeat(1 << 20) } else { "x".to_owned() }));
    client.transact(transaction(&bucket, ops)).await.unwrap();
    client.put(&bucket, "after", "x").await.unwrap();

    for mut watching in all {
        let mut sizes = Vec::new();
        while sizes.iter().sum::<usize>() < 1_026 {
            match watching.response().await.unwrap() {
                Some(Response::Events(events)) => sizes.push(events.events.len()),
                other => panic!("{other:?}"),
            }
        }
        assert!(sizes.contains(&1_024), "{sizes:?}");
    }
}

#[tokio::test]
async fn a_large_bucket_comes_in_responses_that_clients_accept_in_the_order_of_keys() {
    const ENTRIES: usize = 20_000;
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    for first in (0..ENTRIES).step_by(1_000) {
        let ops = (first..first + 1_000).map(|n| (format!("{n:05}"), "x".repeat(n % 200)));
        client.transact(transaction("b", ops)).await.unwrap();
    }
    // As large as one may be, some of them next to each other.
    let large = "x".repeat(1 << 20);
    for n in [0, 1, 2, 3, 4, 9_000, 19_999] {
        client.put("b", &format!("{n:05}{}", "k".repeat(1_019)), &*large).await.unwrap();
    }
    for request in [names(&["b"]), follow("b"), prefix("")] {
        let mut watching = client.watch(entries(request)).await.unwrap();
        watching.started().await;
        let mut keys = Vec::<String>::new();
        loop {
            // More than 4 MiB would be an error here.
            match watching.response().await.unwrap() {
                Some(Response::Events(events)) => {
                    assert!(events.encoded_len() < (1 << 20) + (32 << 10), "{} bytes", events.encoded_len());
                    keys.extend(events.events.into_iter().filter_map(|event| match event.event {
                        Some(Event::Put(put)) => Some(put.entry.unwrap().key),
                        _ => None,
                    }));
                }
                Some(Response::Synced(_)) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(keys.len(), ENTRIES + 7);
        assert!(keys.is_sorted_by(|a, b| a < b));
    }
}

/// The versions of the PUTs that came, and the last revision.
fn versions(answer: &Answer) -> (Vec<u64>, u64) {
    let (mut versions, mut last) = (Vec::new(), 0);
    for message in &answer.messages {
        let response = pb::WatchResponse::decode(&**message).unwrap();
        last = response.revision;
        if let Some(Response::Events(batch)) = response.response {
            versions.extend(batch.events.into_iter().filter_map(|event| match event.event {
                Some(Event::Put(put)) => Some(put.entry.unwrap().version),
                _ => None,
            }));
        }
    }
    (versions, last)
}

/// Watches without reading while there are so many writes of 1 KiB; what it gets when it reads at last.
async fn unread(server: &mut Server, request: &WatchRequest, writes: usize) -> Answer {
    let client = server.client().await;
    client.created("b").await;
    let raw = Raw::with_window(server, 1_024).await;
    let mut call = raw.begin("Watch", &[]).await;
    call.send(framed(request));
    call.end();
    let unread = call.unread().await;
    for n in 0..writes {
        client.put("b", &format!("{}", n % 10), &*"x".repeat(1_024)).await.unwrap();
    }
    client.stop("b").await.unwrap();
    server.shut_down();
    unread.read().await
}

#[tokio::test]
async fn a_watcher_that_does_not_read_loses_nothing_while_the_ring_holds_it() {
    const WRITES: usize = 400;
    for (request, code) in
        [(prefix(""), Code::Unavailable), (follow("b"), Code::Unavailable), (names(&["b"]), Code::Ok)]
    {
        let mut server = Server::start();
        let answer = unread(&mut server, &entries(request), WRITES).await;
        let expected: Vec<u64> = (1..=WRITES as u64).collect();
        assert_eq!(versions(&answer).0, expected);
        assert_eq!(answer.status.code(), code, "{:?}", answer.status);
    }
}

#[tokio::test]
async fn a_watcher_that_the_ring_has_passed_is_told_where_to_resume() {
    const WRITES: usize = 1_000;
    for request in [prefix(""), follow("b"), names(&["b"])] {
        let mut server = Server::with(Limits { ring_bytes_max: 16 << 10, ..Limits::default() });
        let answer = unread(&mut server, &entries(request.clone()), WRITES).await;
        let (told, last) = versions(&answer);
        assert!(told.len() < WRITES, "there was more than it was sent");
        assert!(told.is_sorted_by(|a, b| a + 1 == *b), "what came has no hole: {told:?}");
        let facts = [("resume_revision", &*last.to_string())];
        refused(answer.into_result(), Code::ResourceExhausted, "WATCHER_LAGGED", &facts);
    }
}

#[tokio::test]
async fn who_resumes_after_a_lag_is_told_of_the_entries_as_they_are() {
    let server = Server::with(Limits { ring_bytes_max: 16 << 10, ..Limits::default() });
    let client = server.client().await;
    client.created("b").await;
    let raw = Raw::with_window(&server, 1_024).await;
    let mut call = raw.begin("Watch", &[]).await;
    call.send(framed(&entries(prefix(""))));
    call.end();
    let unread = call.unread().await;
    for n in 0..1_000 {
        client.put("b", &format!("{}", n % 2), &*"x".repeat(1_024)).await.unwrap();
    }
    let revision = client.create("c").await.unwrap().revision - 1;
    let answer = unread.read().await;
    refused(
        answer.into_result(),
        Code::ResourceExhausted,
        "WATCHER_LAGGED",
        &[("resume_revision", &revision.to_string())],
    );

    let request = WatchRequest { after_revision: Some(revision), ..entries(prefix("")) };
    let (mut watching, _) = begun(&client, request).await;
    hears(&mut watching, &["CREATED c", "THERE b 0 999", "THERE b 1 1000"]).await;
    watching.synced().await;
}
