//! What is kept, what it costs, and that it is given back. A binary of its own, because it counts every allocation of it.

#![allow(unsafe_code)] // a global allocator can't be had without
#![allow(clippy::unwrap_used)] // as in all tests

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use pail::{
    bucket::{Begin, Put},
    clock::SystemClock,
    limits::Limits,
    name::{BucketName, Key},
    process::Reason,
    registry::{Registry, Target},
    value::Value,
};
use parking_lot::Mutex;

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
