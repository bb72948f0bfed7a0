//! What is kept, what it costs, and that it is given back. A binary of its own, because it counts every allocation of it.

#![allow(unsafe_code)] // a global allocator can't be had without
#![allow(clippy::unwrap_used)] // as in all tests

use std::{
    alloc::{GlobalAlloc, Layout, System},
    future::pending,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::{Duration, Instant},
};

use futures_util::Stream as _;
use pail::{
    bucket::{Begin, Op, Put, Transact, Values},
    clock::SystemClock,
    limits::{Limits, WATCH_BATCH_BYTES},
    name::{BucketName, Key},
    pb::{self, bucket_service_client::BucketServiceClient, link_request::Request},
    process::Reason,
    registry::{Registry, Target},
    serve::serve,
    server::Options,
    value::Value,
    watch::{Entries, Initial, Kinds, Watch},
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, runtime, sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;

/// The system's allocator, with a count of the bytes that are out: a block has a header and is rounded up, as in glibc.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

fn cost(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call goes to `System` unchanged; the count has no part in it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(cost(layout), Ordering::Relaxed);
        // SAFETY: as the caller promises to this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(cost(layout), Ordering::Relaxed);
        // SAFETY: as the caller promises to this function.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One at a time: they share the count.
static ALONE: Mutex<()> = Mutex::new(());

/// What `keep` allocates and keeps.
fn allocated<T>(keep: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATED.load(Ordering::Relaxed);
    let kept = keep();
    (kept, ALLOCATED.load(Ordering::Relaxed).saturating_sub(before))
}

/// A registry that keeps next to no history, so that what is counted is what lives.
fn registry() -> Registry {
    let limits = Limits { history_events_max: 1, ..Limits::default() };
    Registry::start(limits, Arc::new(SystemClock::default()), "memory".to_owned())
}

fn create(registry: &Registry, text: &str) {
    let life = Begin { ttl: None, idle_ttl: None };
    registry.create(BucketName::parse(text, registry.limits()).unwrap(), life).unwrap();
}

fn stop(registry: &Registry, text: &str) {
    let name = BucketName::parse(text, registry.limits()).unwrap();
    registry.stop(Target { name, id: None }, &Reason::Normal.into()).unwrap();
}

fn put(registry: &Registry, bucket: &str, key: &str, value: Value) {
    let (name, key) = (BucketName::parse(bucket, registry.limits()), Key::parse(key, registry.limits()));
    let put = Put { key: key.unwrap(), value, ttl: None, expected: None };
    registry.ask(Target { name: name.unwrap(), id: None }, put).unwrap();
}

#[allow(clippy::cast_precision_loss)]
fn assert_honest(what: &str, charged: usize, allocated: usize) {
    let ratio = charged as f64 / allocated as f64;
    println!("{what}: charged {charged}, allocated {allocated}, ratio {ratio:.2}");
    assert!((0.8..=1.25).contains(&ratio), "{what}: charged {charged}, allocated {allocated}, ratio {ratio:.2}");
}

#[test]
fn what_a_bucket_is_charged_is_what_it_costs() {
    let _alone = ALONE.lock();
    let registry = registry();
    let ((), allocated) = allocated(|| (0..100_000).for_each(|n| create(&registry, &format!("bucket/{n:06}"))));
    println!("{} bytes a bucket", allocated / 100_000);
    assert_honest("buckets", registry.charged_bytes(), allocated);
}

#[test]
fn what_an_entry_is_charged_is_what_it_costs_whatever_its_size() {
    let _alone = ALONE.lock();
    for size in [0, 16, 64, 512, 4_096] {
        let registry = registry();
        create(&registry, "b");
        let before = registry.charged_bytes();
        let ((), allocated) = allocated(|| {
            for n in 0..10_000 {
                put(&registry, "b", &format!("key/{n:06}"), Value::Text("x".repeat(size).into()));
            }
        });
        assert_honest(&format!("values of {size} bytes"), registry.charged_bytes() - before, allocated);
    }
}

#[test]
fn what_a_small_bucket_is_charged_is_what_it_costs() {
    let _alone = ALONE.lock();
    for entries in [1, 3, 10, 30] {
        let registry = registry();
        let ((), allocated) = allocated(|| {
            for n in 0..10_000 {
                let name = format!("bucket/{n:06}");
                create(&registry, &name);
                for key in 0..entries {
                    put(&registry, &name, &format!("key/{key}"), Value::Integer(1));
                }
            }
        });
        assert_honest(&format!("buckets of {entries} entries"), registry.charged_bytes(), allocated);
    }
}

#[test]
fn a_hundred_thousand_names_that_came_and_went_leave_the_heap_where_it_was() {
    let _alone = ALONE.lock();
    let registry = registry();
    let come_and_go = |names: std::ops::Range<u32>| {
        for n in names {
            let name = format!("a name that is long enough to show if it stays: {n}");
            create(&registry, &name);
            put(&registry, &name, "key", Value::Data(vec![7; 100].into()));
            stop(&registry, &name);
        }
    };
    come_and_go(0..1_000); // tables that grow on first use
    let ((), left) = allocated(|| come_and_go(1_000..101_000));
    assert!(left < 4_096, "{left} bytes are left of a hundred thousand names");
    assert_eq!(registry.charged_bytes(), 0);
}

#[test]
fn a_refused_put_keeps_nothing() {
    let _alone = ALONE.lock();
    let limits = Limits { bucket_bytes_max: 10_000, ..Limits::default() };
    let registry = Registry::start(limits, Arc::new(SystemClock::default()), "memory".to_owned());
    create(&registry, "b");
    let (name, key) = (BucketName::parse("b", registry.limits()), Key::parse("k", registry.limits()));
    let (name, key) = (name.unwrap(), key.unwrap());
    let charged = registry.charged_bytes();
    let (refused, left) = allocated(|| {
        let put = || Put { key, value: Value::Data(vec![7; 20_000].into()), ttl: None, expected: None };
        (0..100).filter(|_| registry.ask(Target { name, id: None }, put()).is_err()).count()
    });
    assert_eq!((refused, registry.charged_bytes()), (100, charged));
    assert!(left < 4_096, "{left} bytes are left of a hundred refusals");
}

/// By how much what is allocated grows; it may be less than nothing.
fn growth(work: impl FnOnce()) -> isize {
    let before = ALLOCATED.load(Ordering::Relaxed);
    work();
    ALLOCATED.load(Ordering::Relaxed).wrapping_sub(before).cast_signed()
}

/// Does some of everything, and goes without a word: its bucket ends with its link.
async fn come_and_go(address: SocketAddr, bucket: String) {
    let mut client = BucketServiceClient::connect(format!("http://{address}")).await.unwrap();
    let watch = pb::WatchRequest { prefix: Some(String::new()), entries: true, ..Default::default() };
    let mut watch = client.watch(watch).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    client.create(pb::CreateRequest { bucket: bucket.clone(), ..Default::default() }).await.unwrap();
    let value = Some(pb::Value { kind: Some(pb::value::Kind::Text("value".to_owned())) });
    let put = pb::PutRequest { bucket: bucket.clone(), key: "key".to_owned(), value, ..Default::default() };
    client.put(put).await.unwrap();
    let (to, requests) = mpsc::channel(1);
    let request = Some(Request::Link(pb::LinkBucket { bucket, ..Default::default() }));
    to.send(pb::LinkRequest { id: 1, request }).await.unwrap();
    let mut link = client.link(ReceiverStream::new(requests)).await.unwrap().into_inner();
    link.message().await.unwrap().unwrap();
}

#[test]
fn clients_that_came_and_went_leave_the_heap_where_it_was() {
    const CLIENTS: usize = 1_000;
    let _alone = ALONE.lock();
    let limits = Limits { history_events_max: 1, ring_bytes_max: 1 << 16, ..Limits::default() };
    runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let registry = Registry::start(limits.clone(), Arc::new(SystemClock::default()), "memory".to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = serve(listener, registry.clone(), Options::new(limits, Duration::ZERO), pending());
        let server = tokio::spawn(server);
        let clients = async |count: usize| {
            for number in 0..count {
                come_and_go(address, format!("the bucket of client {number:06}")).await;
            }
            let deadline = Instant::now() + Duration::from_secs(10);
            let mut least = usize::MAX;
            // What is left once nobody is left: the least there is to be seen for half a second.
            let mut seen = Instant::now();
            while seen.elapsed() < Duration::from_millis(500) || registry.charged_bytes() > 0 {
                assert!(Instant::now() < deadline, "{} bytes of buckets are left", registry.charged_bytes());
                let now = ALLOCATED.load(Ordering::Relaxed);
                if now < least {
                    (least, seen) = (now, Instant::now());
                }
                // The server is on this thread, and has to have it.
                sleep(Duration::from_millis(1)).await;
            }
            least
        };
        let before = clients(100).await; // tables that grow on first use
        let after = clients(CLIENTS).await;
        let left = after.saturating_sub(before);
        println!("{left} bytes are left of {CLIENTS} clients");
        assert!(left < 16 * CLIENTS, "{left} bytes are left of {CLIENTS} clients");
        server.abort();
    });
}

#[test]
fn a_watcher_of_entries_that_does_not_read_keeps_little_besides_the_ring() {
    const WATCHERS: usize = 200;
    /// The response that waits for the client is as large once more: together less than 32 KiB.
    const KEPT_MAX: usize = 32 * 1_024 - WATCH_BATCH_BYTES;
    let _alone = ALONE.lock();
    let registry = registry();
    create(&registry, "b");
    let keys: Vec<String> = (0..1_000).map(|n| format!("key/{n:06}")).collect();
    let fill = |text: &str| keys.iter().for_each(|key| put(&registry, "b", key, Value::Text(text.into())));
    let name = BucketName::parse("b", registry.limits()).unwrap();
    let transact = || {
        let op = |key| Op::Put(Key::parse(key, registry.limits()).unwrap(), Value::Integer(1), None);
        let success = keys.iter().map(|key| op(key)).collect();
        let transact = Transact { checks: vec![], success, failure: vec![], results_bytes_max: 1 << 20 };
        registry.ask(Target { name, id: None }, transact).unwrap();
    };
    fill("there");
    let entries = Entries { put: true, deleted: true, key_prefix: "", values: Values::Included };
    let kinds = Kinds { created: true, down: true, entries: Some(entries) };
    let target = [Target { name, id: None }];
    let ways: [(&str, &dyn Fn() -> Watch); 2] = [
        ("name", &|| Watch::names(registry.clone(), &target, kinds, Initial::Sent).unwrap()),
        ("prefix", &|| Watch::prefix(registry.clone(), "b", kinds, Initial::Sent).unwrap()),
    ];
    for (way, begin) in ways {
        let mut watches = Vec::with_capacity(WATCHERS);
        let mut kept = growth(|| watches.extend((0..WATCHERS).map(|_| begin())));
        let mut most = kept;
        // A client may cease to read after any response; what is in the ring is not allocated here.
        for responses in 1..60 {
            kept += growth(|| {
                for watch in &mut watches {
                    drop(Pin::new(watch).poll_next(&mut Context::from_waker(Waker::noop())));
                }
            });
            most = most.max(kept);
            if responses % 20 == 5 {
                fill("changed");
                transact();
                registry.deliver();
            }
        }
        let most = most.unsigned_abs() / WATCHERS;
        println!("by {way}: {most} bytes a watcher");
        assert!(most < KEPT_MAX, "by {way}: {most} bytes a watcher");
        drop(watches);
        assert_eq!(registry.ring().bytes(), 0);
    }
}
