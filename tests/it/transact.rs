//! Transact: all or nothing, and nobody sees the middle.

use pail::pb::{self, transact_check::Condition, transact_op::Op, value::Kind};
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::support::{Client, Server, length, refused, scan, soon, value};

const OPS_MAX: usize = 1_024;

fn op(op: Op) -> pb::TransactOp {
    pb::TransactOp { op: Some(op) }
}

fn put(key: &str, text: &str) -> pb::TransactOp {
    op(Op::Put(pb::TransactPut { key: key.into(), value: value(text), ttl: None }))
}

fn delete(key: &str) -> pb::TransactOp {
    op(Op::Delete(pb::TransactDelete { key: key.into() }))
}

fn add(key: &str, delta: i64) -> pb::TransactOp {
    op(Op::Add(pb::TransactAdd { key: key.into(), delta, ttl: None }))
}

fn get(key: &str) -> pb::TransactOp {
    op(Op::Get(pb::TransactGet { key: key.into() }))
}

fn check(key: &str, condition: Condition) -> pb::TransactCheck {
    pb::TransactCheck { key: key.into(), condition: Some(condition) }
}

fn transaction(
    checks: Vec<pb::TransactCheck>,
    success: Vec<pb::TransactOp>,
    failure: Vec<pb::TransactOp>,
) -> pb::TransactRequest {
    pb::TransactRequest { bucket: "b".into(), bucket_id: None, checks, success, failure }
}

/// Every entry of the bucket, and its version.
async fn content(client: &Client) -> (Vec<(String, Kind, u64)>, u64) {
    let page = client.scan(scan("b")).await.unwrap();
    let entry = |entry: pb::Entry| (entry.key, entry.value.unwrap().kind.unwrap(), entry.version);
    (page.entries.into_iter().map(entry).collect(), page.version)
}

fn integers(results: &[pb::TransactResult]) -> Vec<i64> {
    let integer = |result: &pb::TransactResult| match result.entry.as_ref()?.value.as_ref()?.kind {
        Some(Kind::Integer(integer)) => Some(integer),
        _ => None,
    };
    results.iter().filter_map(integer).collect()
}

#[tokio::test]
async fn ops_run_in_order_and_see_the_earlier_ones() {
    let server = Server::start();
    let client = server.client().await;
    let id = client.created("b").await;

    let ops = vec![add("n", 1), add("n", 2), get("n"), delete("n"), get("n"), add("n", 7)];
    let answer = client.transact(transaction(vec![], ops, vec![put("n", "no")])).await.unwrap();

    assert!(answer.succeeded && answer.bucket_id == id, "no checks: success");
    assert_eq!(integers(&answer.results), [1, 3, 3, 3, 7]);
    assert_eq!((answer.results.len(), &answer.results[4].entry), (6, &None), "a Get of an absent key is empty");
    assert_eq!(content(&client).await, (vec![("n".into(), Kind::Integer(7), 4)], 4));
    assert_eq!(answer.version, 4, "each change takes a version");
}

#[tokio::test]
async fn the_checks_choose_what_is_done() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    client.put("b", "n", 1).await.unwrap();
    let rows = [
        (check("n", Condition::VersionEquals(1)), true),
        (check("n", Condition::VersionEquals(2)), false),
        (check("n", Condition::VersionEquals(0)), false),
        (check("x", Condition::VersionEquals(0)), true),
        (check("n", Condition::ValueEquals(value(1).unwrap())), true),
        (check("n", Condition::ValueEquals(value("1").unwrap())), false),
        (check("n", Condition::ValueEquals(value(Kind::Number(1.0)).unwrap())), false),
        (check("x", Condition::ValueEquals(value(1).unwrap())), false),
        (check("n", Condition::Present(true)), true),
        (check("n", Condition::Present(false)), false),
        (check("x", Condition::Present(false)), true),
    ];
    for (check, holds) in rows {
        let request = transaction(vec![check.clone()], vec![get("n"), get("n")], vec![get("n")]);
        let answer = client.transact(request).await.unwrap();
        assert_eq!((answer.succeeded, answer.results.len()), (holds, if holds { 2 } else { 1 }), "{check:?}");
        assert_eq!(answer.version, 1, "a look changes nothing");
    }
    let request = transaction(
        vec![check("n", Condition::Present(true)), check("x", Condition::Present(true))],
        vec![],
        vec![put("x", "x")],
    );
    assert!(!client.transact(request).await.unwrap().succeeded, "all have to hold");
    assert_eq!(client.get("b", "x").await.unwrap().entry.unwrap().version, 2);
}

#[tokio::test]
async fn an_op_that_fails_fails_the_whole_and_names_its_place() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    client.put("b", "full", i64::MAX).await.unwrap();
    client.put("b", "text", "t").await.unwrap();
    let before = content(&client).await;
    let never = || vec![check("text", Condition::Present(false))];
    let changes = |last| vec![put("new", "v"), delete("full"), put("text", "u"), add("n", 1), last];
    let overflow = || vec![add("full", -1), add("full", 2)];

    let answer = client.transact(transaction(vec![], changes(add("text", 1)), vec![])).await;
    let facts = [("bucket", "b"), ("key", "text"), ("field", "success[4].add")];
    let details = refused(answer, Code::FailedPrecondition, "WRONG_TYPE", &facts);
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "success[4].add");
    assert_eq!(content(&client).await, before, "nothing was changed");

    let answer = client.transact(transaction(never(), vec![], overflow())).await;
    let facts = [("bucket", "b"), ("key", "full"), ("field", "failure[1].add")];
    refused(answer, Code::OutOfRange, "INTEGER_OVERFLOW", &facts);
    assert_eq!(content(&client).await, before, "nothing was changed");

    let answer = client.transact(transaction(never(), overflow(), vec![])).await.unwrap();
    assert!(!answer.succeeded, "what is not chosen can't fail");
    let next = client.put("b", "after", "v").await.unwrap().version;
    assert_eq!(next, before.1 + 1, "and no version was taken");
}

#[tokio::test]
async fn what_is_wrong_in_a_request_is_named_by_its_place() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let unset = || pb::TransactOp { op: None };
    let no_time = |key: &str| op(Op::Put(pb::TransactPut { key: key.into(), value: value("v"), ttl: length(0, 0) }));
    let no_condition = pb::TransactCheck { key: "k".into(), condition: None };
    let no_value = check("k", Condition::ValueEquals(pb::Value { kind: None }));
    let put_nothing = op(Op::Put(pb::TransactPut { key: "k".into(), value: None, ttl: None }));
    let ok = || put("k", "v");
    let rows = [
        (transaction(vec![no_condition], vec![], vec![]), "INVALID_OPTION", "checks[0]"),
        (transaction(vec![no_value], vec![], vec![]), "INVALID_VALUE", "checks[0]"),
        (transaction(vec![], vec![ok(), unset()], vec![]), "INVALID_OPTION", "success[1].op"),
        (transaction(vec![], vec![ok()], vec![ok(), no_time("k")]), "INVALID_OPTION", "failure[1].put"),
        (transaction(vec![], vec![put_nothing], vec![]), "INVALID_VALUE", "success[0].put"),
    ];
    for (request, reason, field) in rows {
        refused(client.transact(request).await, Code::InvalidArgument, reason, &[("field", field)]);
    }
    let facts = [("field", "success[1].get"), ("limit", "1024"), ("actual", "0")];
    let answer = client.transact(transaction(vec![], vec![ok(), get("")], vec![])).await;
    refused(answer, Code::InvalidArgument, "INVALID_KEY", &facts);
    assert_eq!(content(&client).await, (vec![], 0), "nothing was changed");
}

#[tokio::test]
async fn a_transaction_has_at_most_1_024_checks_and_ops() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;

    let answer = client.transact(transaction(vec![], vec![add("n", 1); OPS_MAX], vec![])).await.unwrap();
    assert_eq!(integers(&answer.results).last(), Some(&1_024));

    let checks = || vec![check("n", Condition::Present(true))];
    for request in [
        transaction(vec![], vec![add("n", 1); OPS_MAX + 1], vec![]),
        transaction(checks(), vec![add("n", 1); 1_000], vec![add("n", 1); 24]),
    ] {
        let facts = [("limit", "1024"), ("actual", "1025")];
        refused(client.transact(request).await, Code::InvalidArgument, "TOO_LARGE", &facts);
    }
    assert_eq!(content(&client).await, (vec![("n".into(), Kind::Integer(1_024), 1_024)], 1_024));
}

#[tokio::test]
async fn results_that_fit_no_message_are_too_large_and_nothing_was_done() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    client.put("b", "large", vec![0; 1 << 20]).await.unwrap();

    let ops = vec![add("n", 1), get("large"), get("large"), get("large"), get("large")];
    let status = client.transact(transaction(vec![], ops, vec![])).await.unwrap_err();

    assert_eq!(
        (status.code(), &*status.get_details_error_info().unwrap().reason),
        (Code::InvalidArgument, "TOO_LARGE")
    );
    refused(client.get("b", "n").await, Code::NotFound, "KEY_NOT_FOUND", &[("bucket", "b"), ("key", "n")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_the_middle_of_a_transfer() {
    const SUM: i64 = 1_000;
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    client.transact(transaction(vec![], vec![add("a", SUM), add("c", 0)], vec![])).await.unwrap();

    let mut clients = JoinSet::new();
    for n in 0..8 {
        let client = server.client().await;
        clients.spawn(async move {
            for _ in 0..60 {
                let transfer = transaction(vec![], vec![add("a", -n), add("c", n)], vec![]);
                let left = integers(&client.transact(transfer).await.unwrap().results);
                assert_eq!(left.iter().sum::<i64>(), SUM, "in its own answer: {left:?}");

                let look = transaction(vec![], vec![get("a"), get("c")], vec![]);
                let seen = integers(&client.transact(look).await.unwrap().results);
                assert_eq!(seen.iter().sum::<i64>(), SUM, "by Transact: {seen:?}");

                let (entries, version) = content(&client).await;
                let integer = |kind: &Kind| if let Kind::Integer(integer) = kind { *integer } else { 0 };
                assert_eq!(entries.iter().map(|(_, kind, _)| integer(kind)).sum::<i64>(), SUM, "by Scan");
                assert_eq!(version % 2, 0, "two changes each");
            }
        });
    }
    soon(clients.join_all()).await;

    let moved: i64 = (0..8).map(|n| n * 60).sum();
    let (entries, _) = content(&client).await;
    let kinds: Vec<_> = entries.into_iter().map(|(_, kind, _)| kind).collect();
    assert_eq!(kinds, [Kind::Integer(SUM - moved), Kind::Integer(moved)], "and none is lost");
}
