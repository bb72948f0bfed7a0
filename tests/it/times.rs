//! Times to live: what is refused, what is told of them, and that what is due goes, in time, also where nobody asks.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use pail::pb::{self, Reason, event::Event, transact_op::Op};
use prost_types::Timestamp;
use tonic::Code;

use super::support::{Client, Server, length, millis, names, prefix, put, refused, scan, soon, until, value};

const TEN_YEARS: i64 = 10 * 365 * 24 * 60 * 60;
const HOUR: i64 = 60 * 60;

/// What a watcher may wait for past the due time.
const LATE_MAX: Duration = Duration::from_secs(1);
/// Due times are on another clock than those that are compared with them here.
const CLOCKS_DIFFER: Duration = Duration::from_millis(5);

fn create(bucket: &str, ttl: Option<prost_types::Duration>) -> pb::CreateRequest {
    pb::CreateRequest { bucket: bucket.into(), ttl, ..Default::default() }
}

fn idle(bucket: &str, idle_ttl: Option<prost_types::Duration>) -> pb::CreateRequest {
    pb::CreateRequest { bucket: bucket.into(), idle_ttl, ..Default::default() }
}

fn touch(key: Option<&str>, ttl: Option<prost_types::Duration>) -> pb::TouchRequest {
    pb::TouchRequest { bucket: "b".into(), bucket_id: None, key: key.map(Into::into), ttl }
}

fn at(time: Option<Timestamp>) -> SystemTime {
    time.expect("a time").try_into().unwrap()
}

/// It is due in about an hour.
#[track_caller]
fn in_an_hour(time: Option<Timestamp>) {
    let left = at(time).duration_since(SystemTime::now()).unwrap().as_secs();
    assert!((3_500..=3_600).contains(&left), "{left} s are left");
}

/// This death came when it was due: neither before nor long after, and is heard of now.
#[track_caller]
fn in_time(down: &pb::DownEvent, due: SystemTime) {
    assert_eq!((down.reason(), &*down.detail), (Reason::Expired, ""));
    for (what, when) in [("it died", at(down.time)), ("it is heard of", SystemTime::now())] {
        assert!(when + CLOCKS_DIFFER >= due, "{what} before it was due: {down:?}");
        assert!(when <= due + LATE_MAX, "{what} late: {down:?}, due at {due:?}");
    }
}

async fn entry(client: &Client, key: &str) -> pb::Entry {
    client.get("b", key).await.unwrap().entry.unwrap()
}

#[tokio::test]
async fn what_is_no_time_to_live_is_an_invalid_option_and_changes_nothing() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    client.add("b", "n", 1).await.unwrap();
    let none = [(0, 0), (-1, 0), (0, -1), (0, 999_999), (TEN_YEARS, 1), (i64::MIN, 0), (i64::MIN, i32::MIN)];
    for (seconds, nanos) in none.into_iter().chain([(i64::MAX, 0), (i64::MAX, i32::MAX), (TEN_YEARS + 1, 0)]) {
        let ttl = length(seconds, nanos);
        let op = |op| pb::TransactRequest {
            bucket: "b".into(),
            success: vec![pb::TransactOp { op: Some(op) }],
            ..Default::default()
        };
        let in_put = Op::Put(pb::TransactPut { key: "n".into(), value: value("v"), ttl });
        let in_add = Op::Add(pb::TransactAdd { key: "n".into(), delta: 1, ttl });
        let add = pb::AddRequest { bucket: "b".into(), key: "n".into(), delta: 1, ttl, ..Default::default() };
        let rows = [
            ("ttl", client.create_with(create("new", ttl)).await.map(drop)),
            ("idle_ttl", client.create_with(idle("new", ttl)).await.map(drop)),
            ("ttl", client.put_with(pb::PutRequest { ttl, ..put("b", "n", "v") }).await.map(drop)),
            ("ttl", client.add_with(add).await.map(drop)),
            ("ttl", client.touch(touch(None, ttl)).await.map(drop)),
            ("ttl", client.touch(touch(Some("n"), ttl)).await.map(drop)),
            ("success[0].put", client.transact(op(in_put)).await.map(drop)),
            ("success[0].add", client.transact(op(in_add)).await.map(drop)),
        ];
        for (field, result) in rows {
            refused(result, Code::InvalidArgument, "INVALID_OPTION", &[("field", field)]);
        }
    }
    refused(client.lookup("new").await, Code::NotFound, "BUCKET_NOT_FOUND", &[("bucket", "new")]);
    assert_eq!(client.lookup("b").await.unwrap().expire_time, None);
    assert_eq!((entry(&client, "n").await.version, entry(&client, "n").await.expire_time), (1, None));
}

#[tokio::test]
async fn a_millisecond_and_ten_years_are_times_to_live() {
    let server = Server::start();
    let client = server.client().await;
    let mut watching = client.watch_prefix("").await;
    watching.synced().await;

    client.create_with(create("brief", length(0, 1_000_000))).await.unwrap();
    assert_eq!(watching.creation().await.bucket, "brief");
    assert_eq!(watching.down().await.reason(), Reason::Expired);

    client.create_with(create("b", length(TEN_YEARS, 0))).await.unwrap();
    let left = at(client.lookup("b").await.unwrap().expire_time).duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(TEN_YEARS.unsigned_abs() - 60));
}

#[tokio::test]
async fn the_time_a_bucket_has_is_in_every_answer_that_describes_it() {
    let server = Server::start();
    let client = server.client().await;
    let created = client.create_with(create("b", length(HOUR, 0))).await.unwrap();
    let due = created.bucket.unwrap().expire_time;
    in_an_hour(due);
    assert_eq!(client.lookup("b").await.unwrap().expire_time, due);
    assert_eq!(client.list(pb::ListRequest::default()).await.unwrap().buckets[0].expire_time, due);
    let again = client.create_with(create("b", length(1, 0))).await.unwrap();
    assert!(!again.created && again.bucket.unwrap().expire_time == due, "the options of what is there stay");

    let touched = client.touch(touch(None, length(2 * HOUR, 0))).await.unwrap().expire_time;
    assert!(at(touched) > at(due));
    assert_eq!(client.lookup("b").await.unwrap().expire_time, touched);
    assert_eq!(client.touch(touch(None, None)).await.unwrap().expire_time, None);
    assert_eq!(client.lookup("b").await.unwrap().expire_time, None, "for ever");
}

#[tokio::test]
async fn the_time_an_entry_has_is_in_every_answer_that_holds_it() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let hour = length(HOUR, 0);
    client.put_with(pb::PutRequest { ttl: hour, ..put("b", "k", 1_i64) }).await.unwrap();
    let due = entry(&client, "k").await.expire_time;
    in_an_hour(due);
    assert_eq!(client.scan(scan("b")).await.unwrap().entries[0].expire_time, due);

    client.add("b", "k", 1).await.unwrap();
    assert_eq!(entry(&client, "k").await.expire_time, due, "an Add without a ttl keeps it");
    let add = pb::AddRequest { bucket: "b".into(), key: "k".into(), ttl: length(2 * HOUR, 0), ..Default::default() };
    client.add_with(add).await.unwrap();
    assert!(at(entry(&client, "k").await.expire_time) > at(due), "one with a ttl sets it");
    let touched = client.touch(touch(Some("k"), hour)).await.unwrap().expire_time;
    in_an_hour(touched);
    let touched_entry = entry(&client, "k").await;
    assert_eq!((touched_entry.expire_time, touched_entry.version), (touched, 3), "a Touch is no change");
    client.put("b", "k", "v").await.unwrap();
    assert_eq!(entry(&client, "k").await.expire_time, None, "a Put without a ttl clears it");

    let touched = client.touch(touch(Some("k"), hour)).await.unwrap().expire_time;
    assert_eq!(client.delete("b", "k").await.unwrap().entry.unwrap().expire_time, touched);
    let facts = [("bucket", "b"), ("key", "k")];
    refused(client.touch(touch(Some("k"), hour)).await, Code::NotFound, "KEY_NOT_FOUND", &facts);
}

#[tokio::test]
async fn a_bucket_that_nobody_asks_for_is_heard_to_expire() {
    let server = Server::start();
    let client = server.client().await;
    let created = client.create_with(create("b", millis(100))).await.unwrap().bucket.unwrap();
    let mut watches = [
        client.watch(names(&["b"])).await.unwrap(),
        client.watch(prefix("")).await.unwrap(),
        client.watch(pb::WatchRequest { follow: true, skip_initial: true, ..names(&["b"]) }).await.unwrap(),
    ];
    watches[0].started().await;
    watches[0].synced().await;
    watches[1].started().await;
    assert_eq!(watches[1].creation().await.bucket_id, created.id);
    watches[1].synced().await;
    watches[2].started().await;
    watches[2].synced().await;

    for watching in &mut watches {
        let down = watching.down().await;
        in_time(&down, at(created.expire_time));
        assert_eq!(down.bucket_id, created.id);
    }
    refused(client.lookup("b").await, Code::NotFound, "BUCKET_NOT_FOUND", &[("bucket", "b")]);
    client.created("b").await;
}

#[tokio::test]
async fn an_idle_bucket_expires_and_one_that_is_used_does_not() {
    let server = Server::start();
    let client = server.client().await;
    let mut watching = client.watch_prefix("").await;
    watching.synced().await;
    let created = client.create_with(idle("b", millis(1_000))).await.unwrap().bucket.unwrap();
    assert_eq!(watching.creation().await.bucket_id, created.id);

    // A refused call that reached the bucket is a use as well; each answers in far less than the second.
    let mut due = at(created.expire_time);
    while SystemTime::now() < at(created.expire_time) + Duration::from_millis(200) {
        refused(client.get("b", "k").await, Code::NotFound, "KEY_NOT_FOUND", &[("bucket", "b"), ("key", "k")]);
        let used = at(client.list(pb::ListRequest::default()).await.unwrap().buckets[0].expire_time);
        assert!(used > due, "a use puts it off");
        let listed = at(client.list(pb::ListRequest::default()).await.unwrap().buckets[0].expire_time);
        assert_eq!(listed, used, "List is no use");
        due = at(client.lookup("b").await.unwrap().expire_time);
        assert!(due > used, "a Lookup is one");
    }

    let down = watching.down().await;
    in_time(&down, due);
    assert_eq!(down.bucket_id, created.id);
}

#[tokio::test]
async fn a_touch_moves_the_time_of_a_bucket_either_way() {
    let server = Server::start();
    let client = server.client().await;
    client.create_with(create("b", millis(500))).await.unwrap();
    client.touch(touch(None, None)).await.unwrap();
    let marker = client.create_with(create("marker", millis(600))).await.unwrap().bucket.unwrap();
    let mut watching = client.watch(pb::WatchRequest { skip_initial: true, ..prefix("") }).await.unwrap();
    watching.started().await;
    watching.synced().await;

    let down = watching.down().await;
    assert_eq!(down.bucket_id, marker.id, "what was due before it is not due any more");

    let due = client.touch(touch(None, millis(100))).await.unwrap().expire_time;
    let down = watching.down().await;
    assert_eq!(down.bucket, "b");
    in_time(&down, at(due));
}

#[tokio::test]
async fn nobody_reads_an_entry_past_its_time_or_misses_it_before() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    client.put_with(pb::PutRequest { ttl: millis(100), ..put("b", "k", "v") }).await.unwrap();
    let due = at(entry(&client, "k").await.expire_time);

    until(async || {
        let asked = SystemTime::now();
        let answer = client.get("b", "k").await;
        match answer {
            Ok(_) => {
                assert!(asked <= due + CLOCKS_DIFFER, "read past its time");
                None
            }
            Err(_) => {
                assert!(SystemTime::now() + CLOCKS_DIFFER >= due, "gone before its time");
                refused(answer, Code::NotFound, "KEY_NOT_FOUND", &[("bucket", "b"), ("key", "k")]);
                Some(())
            }
        }
    })
    .await;
    let page = client.scan(scan("b")).await.unwrap();
    assert_eq!((page.entries, page.version), (vec![], 2), "that it is gone took a version");
}

#[tokio::test]
async fn a_name_is_taken_again_after_the_down_of_what_was_due() {
    let server = Server::start();
    let client = server.client().await;
    let mut watching = client.watch_prefix("").await;
    watching.synced().await;
    let first = client.create_with(create("b", millis(50))).await.unwrap().bucket.unwrap();

    let second = until(async || {
        let answer = client.create("b").await.unwrap();
        answer.created.then_some(answer.bucket.unwrap().id)
    })
    .await;

    assert!(SystemTime::now() + CLOCKS_DIFFER >= at(first.expire_time));
    assert_eq!(watching.creation().await.bucket_id, first.id);
    let down = watching.down().await;
    assert_eq!((down.bucket_id, down.reason()), (first.id, Reason::Expired));
    assert_eq!(watching.creation().await.bucket_id, second);
}

/// Creates a thousand buckets that fall due then.
fn thousand(which: usize, due: Instant) -> pb::PipelineRequest {
    let left = due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let ttl = Some(left.try_into().unwrap());
    let op = |n: usize| pb::PipelineOp {
        op: Some(pb::pipeline_op::Op::Create(create(&format!("{which}/{n}"), ttl))),
        ..Default::default()
    };
    pb::PipelineRequest { ops: (0..1_000).map(op).collect() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_buckets_that_fall_due_at_once_are_all_heard_of() {
    let server = Server::start();
    let client = server.client().await;
    let mut watching = client.watch(pb::WatchRequest { skip_initial: true, ..prefix("") }).await.unwrap();
    watching.started().await;
    watching.synced().await;
    let due = Instant::now() + Duration::from_secs(2);
    let requests = tokio_stream::iter((0..10).map(move |which| thousand(which, due)));
    let mut results = soon(client.rpc().pipeline(requests)).await.unwrap().into_inner();
    // Each bucket's id, and when it is due.
    let mut living = HashMap::new();
    while let Some(response) = soon(results.message()).await.unwrap() {
        for result in response.results {
            let Some(pb::pipeline_result::Result::Create(created)) = result.result else { panic!("{result:?}") };
            let bucket = created.bucket.unwrap();
            living.insert(bucket.id, at(bucket.expire_time));
        }
    }
    assert_eq!(living.len(), 10_000);
    assert!(Instant::now() < due, "they were all there before the first was due");

    let mut births = 0;
    while !living.is_empty() {
        match watching.event().await {
            Event::Created(_) => births += 1,
            Event::Down(down) => in_time(&down, living.remove(&down.bucket_id).expect("one DOWN each")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(births, 10_000);
    assert_eq!(client.list(pb::ListRequest::default()).await.unwrap().buckets, []);
}
