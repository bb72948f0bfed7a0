//! What is done, at random: little of everything, so that it meets.

use pail::{
    hooks,
    pb::{self, EventKind, Reason, pipeline_op::Op, transact_check::Condition, transact_op::Op as Step, value::Kind},
};
use proptest::{option, prelude::*, sample::select};

use crate::model::{BEGIN, LAST_TOKEN, Model, Transition, VALUE_BYTES_MAX};

/// What may come next.
pub(crate) fn transition(model: &Model) -> BoxedStrategy<Transition> {
    prop_oneof![
        20 => op(model).prop_map(Transition::Call),
        2 => pipeline(model),
        3 => (1..15_u64, prop::bool::ANY).prop_map(|(millis, timer)| Transition::Pass { millis, timer }),
        3 => watch(model).prop_map(Transition::Watch),
    ]
    .boxed()
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![30 => select(vec!["a", "ab", "b", "ba", "c"]), 1 => select(vec!["", "\u{1}"])].prop_map(str::to_owned)
}

fn key() -> impl Strategy<Value = String> {
    let crash = format!("{}boom", hooks::PANIC);
    prop_oneof![
        40 => select(vec!["k", "ka", "l", "m"]).prop_map(str::to_owned),
        1 => select(vec![String::new(), "\u{7f}".to_owned()]),
        1 => Just(crash),
    ]
}

/// A key that crashes nothing: a transaction tells of a crash in its middle what it had done.
fn calm_key() -> impl Strategy<Value = String> {
    prop_oneof![40 => select(vec!["k", "ka", "l", "m"]), 1 => Just("")].prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Option<pb::Value>> {
    let kind = prop_oneof![
        10 => (0..5_i64).prop_map(Kind::Integer),
        1 => select(vec![i64::MAX, i64::MIN]).prop_map(Kind::Integer),
        4 => select(vec!["", "milk"]).prop_map(|text| Kind::Text(text.to_owned())),
        2 => select(vec![0.0, -0.0, f64::NAN]).prop_map(Kind::Number),
        1 => prop::bool::ANY.prop_map(Kind::Flag),
        1 => (VALUE_BYTES_MAX..VALUE_BYTES_MAX + 2).prop_map(|length| Kind::Data(vec![7; length])),
    ];
    option::weighted(0.97, kind.prop_map(|kind| pb::Value { kind: Some(kind) }))
}

fn ttl() -> impl Strategy<Value = Option<prost_types::Duration>> {
    let millis = prop_oneof![20 => 1..20_i32, 1 => -1..1_i32];
    let ttl = millis.prop_map(|millis| prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 });
    option::weighted(0.2, ttl)
}

/// Of a bucket that was created lately, not always the one that is named.
fn id(model: &Model) -> impl Strategy<Value = Option<u64>> + use<> {
    let mut ids: Vec<u64> = model.ids.iter().rev().take(6).copied().collect();
    ids.push(1);
    option::weighted(0.3, select(ids))
}

fn expected() -> impl Strategy<Value = Option<u64>> {
    option::weighted(0.3, 0..6_u64)
}

fn prefix() -> impl Strategy<Value = String> {
    select(vec!["", "", "a", "b", "z"]).prop_map(str::to_owned)
}

fn key_prefix() -> impl Strategy<Value = String> {
    select(vec!["", "", "k", "z"]).prop_map(str::to_owned)
}

fn page_size() -> impl Strategy<Value = i32> {
    prop_oneof![10 => 0..4_i32, 1 => Just(-1)]
}

fn page_token() -> impl Strategy<Value = String> {
    select(vec!["", LAST_TOKEN, LAST_TOKEN, "nonsense"]).prop_map(str::to_owned)
}

fn op(model: &Model) -> BoxedStrategy<Op> {
    let create = (name(), ttl(), ttl())
        .prop_map(|(bucket, ttl, idle_ttl)| Op::Create(pb::CreateRequest { bucket, ttl, idle_ttl }));
    let lookup = name().prop_map(|bucket| Op::Lookup(pb::LookupRequest { bucket }));
    let list = (prefix(), page_size(), page_token())
        .prop_map(|(prefix, page_size, page_token)| Op::List(pb::ListRequest { prefix, page_size, page_token }));
    let reasons: Vec<i32> = (0..9).collect();
    let stop = (name(), id(model), select(reasons), select(vec!["", "enough milk"])).prop_map(
        |(bucket, bucket_id, reason, detail)| {
            Op::Stop(pb::StopRequest { bucket, bucket_id, reason, detail: detail.to_owned() })
        },
    );
    let put = (name(), id(model), key(), value(), ttl(), expected()).prop_map(
        |(bucket, bucket_id, key, value, ttl, expected_version)| {
            Op::Put(pb::PutRequest { bucket, bucket_id, key, value, ttl, expected_version })
        },
    );
    let get = (name(), id(model), key())
        .prop_map(|(bucket, bucket_id, key)| Op::Get(pb::GetRequest { bucket, bucket_id, key }));
    let delete = (name(), id(model), key(), expected()).prop_map(|(bucket, bucket_id, key, expected_version)| {
        Op::Delete(pb::DeleteRequest { bucket, bucket_id, key, expected_version })
    });
    let add = (name(), id(model), key(), -2..3_i64, ttl()).prop_map(|(bucket, bucket_id, key, delta, ttl)| {
        Op::Add(pb::AddRequest { bucket, bucket_id, key, delta, ttl })
    });
    let touch = (name(), id(model), option::of(key()), ttl())
        .prop_map(|(bucket, bucket_id, key, ttl)| Op::Touch(pb::TouchRequest { bucket, bucket_id, key, ttl }));
    let scan = (name(), id(model), key_prefix(), page_size(), page_token(), prop::bool::ANY).prop_map(
        |(bucket, bucket_id, prefix, page_size, page_token, keys_only)| {
            Op::Scan(pb::ScanRequest { bucket, bucket_id, prefix, page_size, page_token, keys_only })
        },
    );
    prop_oneof![
        6 => create, 2 => lookup, 2 => list, 2 => stop, 8 => put, 3 => get, 3 => delete, 3 => add, 2 => touch, 2 => scan,
        4 => transact(model),
    ]
    .boxed()
}

fn transact(model: &Model) -> impl Strategy<Value = Op> + use<> {
    let condition = prop_oneof![
        (0..6_u64).prop_map(Condition::VersionEquals),
        value().prop_map(|value| Condition::ValueEquals(value.unwrap_or_default())),
        prop::bool::ANY.prop_map(Condition::Present),
    ];
    let check = (calm_key(), option::weighted(0.97, condition))
        .prop_map(|(key, condition)| pb::TransactCheck { key, condition });
    let ops = || prop::collection::vec(step(), 0..4);
    let checks = prop::collection::vec(check, 0..3);
    (name(), id(model), checks, ops(), ops()).prop_map(|(bucket, bucket_id, checks, success, failure)| {
        Op::Transact(pb::TransactRequest { bucket, bucket_id, checks, success, failure })
    })
}

fn step() -> impl Strategy<Value = pb::TransactOp> {
    let op = prop_oneof![
        (calm_key(), value(), ttl()).prop_map(|(key, value, ttl)| Step::Put(pb::TransactPut { key, value, ttl })),
        calm_key().prop_map(|key| Step::Delete(pb::TransactDelete { key })),
        (calm_key(), -2..3_i64, ttl()).prop_map(|(key, delta, ttl)| Step::Add(pb::TransactAdd { key, delta, ttl })),
        calm_key().prop_map(|key| Step::Get(pb::TransactGet { key })),
    ];
    option::weighted(0.98, op).prop_map(|op| pb::TransactOp { op })
}

fn pipeline(model: &Model) -> impl Strategy<Value = Transition> + use<> {
    // All is sent at once: no op can use a token that another one is given.
    let op = op(model).prop_map(|mut op| {
        match &mut op {
            Op::List(request) => request.page_token.clear(),
            Op::Scan(request) => request.page_token.clear(),
            _ => {}
        }
        op
    });
    let op = (1..4_u64, option::weighted(0.2, 1..4_u64), option::weighted(0.97, op))
        .prop_map(|(id, bucket_id_from, op)| pb::PipelineOp { id, bucket_id_from, op });
    prop::collection::vec(op, 1..6).prop_map(Transition::Pipeline)
}

fn watch(model: &Model) -> impl Strategy<Value = pb::WatchRequest> + use<> {
    let mut ids: Vec<(String, u64)> = model.buckets.iter().map(|(name, bucket)| (name.clone(), bucket.id)).collect();
    ids.extend(model.ids.iter().rev().take(3).map(|id| ("a".to_owned(), *id)));
    ids.push(("a".to_owned(), 1));
    let names = || prop::collection::vec(select(vec!["a", "ab", "b", "c"]).prop_map(str::to_owned), 1..4);
    let life = select(ids).prop_map(|(bucket, bucket_id)| pb::Incarnation { bucket, bucket_id });
    let lives = prop::collection::vec(life, 1..3);
    let targets = prop_oneof![
        4 => prefix().prop_map(|prefix| (Vec::new(), Vec::new(), Some(prefix), false)),
        3 => names().prop_map(|names| (names, Vec::new(), None, false)),
        3 => names().prop_map(|names| (names, Vec::new(), None, true)),
        2 => lives.prop_map(|lives| (Vec::new(), lives, None, false)),
        1 => (names(), prop::bool::ANY).prop_map(|(names, follow)| (names, Vec::new(), Some(String::new()), follow)),
        1 => Just((Vec::new(), Vec::new(), None, true)),
    ];
    let all = vec![EventKind::Created, EventKind::Down, EventKind::Put, EventKind::Deleted];
    let kinds = prop_oneof![
        Just(Vec::new()),
        prop::sample::subsequence(all, 1..=4).prop_map(|kinds| kinds.into_iter().map(i32::from).collect()),
    ];
    // A revision of before is nearly always one that is still kept.
    let back = prop_oneof![10 => 0..20_u64, 1 => 20..40_u64];
    let revision = model.revision;
    let after = prop_oneof![
        10 => back.prop_map(move |back| revision.saturating_sub(back).max(BEGIN)),
        1 => Just(revision + 1),
        1 => Just(1),
    ];
    let entries = prop_oneof![
        2 => Just((false, None, false)),
        3 => (option::of(key_prefix()), prop::bool::ANY).prop_map(|(prefix, keys_only)| (true, prefix, keys_only)),
        1 => Just((false, Some("k".to_owned()), false)),
    ];
    (targets, kinds, entries, prop::bool::ANY, option::weighted(0.4, after)).prop_map(
        |(
            (buckets, incarnations, prefix, follow),
            kinds,
            (entries, key_prefix, keys_only),
            skip_initial,
            after_revision,
        )| {
            pb::WatchRequest {
                buckets,
                incarnations,
                prefix,
                entries,
                key_prefix,
                keys_only,
                kinds,
                skip_initial,
                follow,
                after_revision,
                registry_id: None,
                heartbeat: None,
            }
        },
    )
}

/// The reasons that a Stop may have are among these.
const _: () = assert!(Reason::Linked as i32 == 8);
