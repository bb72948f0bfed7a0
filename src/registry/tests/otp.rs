//! The cases of OTP's `monitor_SUITE` and `gen_server_SUITE` that are about names.

use super::*;

fn monitor(registry: &Registry, target: Target<'_>, inbox: &Arc<Inbox>) -> Option<BucketId> {
    registry.monitor(&[target], inbox).unwrap().0[0].1
}

fn reasons(registry: &Registry, inbox: &Inbox) -> Vec<Reason> {
    registry.deliver();
    let reason = |event: &Event| match &event.kind {
        EventKind::Down(death) => death.exit.reason,
        EventKind::Created => panic!("a monitor tells of no creation"),
    };
    inbox.take(10, 10_000).0.iter().map(|(_, event)| reason(event)).collect()
}

/// `monitor_SUITE`: a name's monitor fires with the reason of the process; there is none for a name that nobody has.
#[test]
fn mon_1() {
    let (registry, inbox) = (registry(), Arc::new(Inbox::default()));
    for reason in [Reason::Normal, Reason::Crashed] {
        let id = create(&registry, "jeeves");
        assert_eq!(monitor(&registry, at("jeeves"), &inbox), Some(id));
        registry.stop(at("jeeves"), &reason.into()).unwrap();
        assert_eq!(reasons(&registry, &inbox), [reason]);
        assert_eq!(monitor(&registry, at("jeeves"), &inbox), None, "which its caller tells of as NOPROC");
    }
}

/// `monitor_SUITE`: a DOWN comes after the name is free.
#[test]
fn named_down() {
    let (registry, inbox) = (registry(), Arc::new(Inbox::default()));
    for _ in 0..1_000 {
        create(&registry, "a");
        monitor(&registry, at("a"), &inbox);
        thread::scope(|scope| {
            scope.spawn(|| crash(&registry, "a").unwrap_err());
            while reasons(&registry, &inbox).is_empty() {
                thread::yield_now();
            }
            assert!(registry.shared.index.get("a").is_none());
        });
    }
}

/// `monitor_SUITE`: the pid of another life of the node is that of nobody, also while its name is taken.
#[test]
fn otp_5827() {
    let (registry, inbox) = (registry(), Arc::new(Inbox::default()));
    let id = create(&registry, "a").get();
    for id in [id - 1, id + 1] {
        assert_eq!(monitor(&registry, Target { id: Some(id), ..at("a") }, &inbox), None);
    }
    assert_eq!(registry.monitors(), 0);
}

/// `gen_server_SUITE`: who starts what has the name already is told which one it is.
#[test]
fn start() {
    let registry = registry();
    let id = create(&registry, "my_test_name");
    let (again, created) = registry.create(name("my_test_name"), FOR_EVER).unwrap();
    assert_eq!((again.id, created), (id, false));
    stop(&registry, "my_test_name").unwrap();
    assert_eq!(put(&registry, "my_test_name", "milk").unwrap_err(), Error::BucketNotFound);
}

/// `gen_server_SUITE`: `stop4` to `stop7` are one here, since there is one kind of name.
#[test]
fn stop4() {
    let registry = registry();
    let id = create(&registry, "to_stop");
    assert_eq!(stop(&registry, "to_stop").unwrap().0, id);
    assert_eq!(stop(&registry, "to_stop").unwrap_err(), Error::BucketNotFound);
}

/// `gen_server_SUITE`: what fails to start leaves no name.
#[test]
fn otp_7669() {
    let full = registry_with(Limits { buckets_max: 0, ..Limits::default() });
    for _ in 0..100 {
        assert_eq!(full.create(name("a"), FOR_EVER).unwrap_err(), Error::TooManyBuckets { limit: 0 });
        assert!(full.shared.index.get("a").is_none());
    }
    let registry = registry();
    let crashes = format!("{}stop", hooks::PANIC);
    assert!(matches!(registry.create(name(&crashes), FOR_EVER), Err(Error::RegistryCrashed(_))));
    assert!(registry.shared.index.get(&crashes).is_none());
}
