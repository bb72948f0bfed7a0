//! `pail bench`: each kind of load is what it says, what goes wrong is told, and nothing is left behind.

use std::{
    net::SocketAddr,
    process::{Command, Output},
    thread,
    time::Duration,
};

use pail::{limits::Limits, pb};
use serde_json::Value as Json;

use super::{
    binary::{Running, Served, complaint, pail},
    support::{Client, Server, until},
};

const OPS: [&str; 6] = ["get", "put", "create", "mixed", "watch", "down"];
const MODES: [&str; 2] = ["unary", "pipeline"];

/// How long a server is frozen here.
const STALL: Duration = Duration::from_millis(500);

/// On two connections, with four streams each unless it is said otherwise.
fn bench(address: SocketAddr, args: &str) -> Command {
    let streams = if args.contains("--streams") { "" } else { "--streams 4" };
    let args = format!("bench --connections 2 --warm-up 0s -o json {streams} {args}");
    let mut command = pail(&args.split_whitespace().collect::<Vec<_>>());
    command.env("PAIL_ADDR", address.to_string());
    command
}

fn run(server: &Server, args: &str) -> Output {
    bench(server.address, args).output().unwrap()
}

/// The report of one that has ended with this code.
#[track_caller]
fn report(output: &Output, code: i32) -> Json {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn of(json: &Json, field: &str) -> u64 {
    json[field].as_u64().unwrap()
}

async fn created(client: &Client) -> usize {
    let request = pb::ListRequest { prefix: "pail-bench/".into(), ..Default::default() };
    client.list(request).await.unwrap().buckets.len()
}

/// A benchmark that goes on until it is told otherwise, and does something already.
async fn under_way(address: SocketAddr, client: &Client, args: &str) -> Running {
    let running = Running::start(bench(address, &format!("--op create {args}")));
    until(async || (created(client).await > 20).then_some(())).await;
    running
}

/// What it has printed, once it has ended with this code.
async fn reported(running: &mut Running, code: i32) -> Json {
    assert_eq!(running.code().await, code);
    serde_json::from_reader(running.child.stdout.take().unwrap()).unwrap()
}

#[tokio::test]
async fn each_load_in_each_mode_does_as_many_operations_as_it_was_asked_for_and_leaves_nothing_behind() {
    let server = Server::start();
    let client = server.client().await;
    client.created("another's").await;
    for op in OPS {
        for mode in MODES {
            let report = report(&run(&server, &format!("--op {op} --mode {mode} --count 200")), 0);
            assert_eq!((&report["op"], &report["mode"]), (&op.into(), &mode.into()));
            assert_eq!((of(&report, "operations"), of(&report, "errors")), (200, 0), "{report}");
            let latency = &report["latency_ns"];
            let order = ["min", "p50", "p90", "p99", "p99_9", "max"].map(|name| of(latency, name));
            assert!(order.is_sorted() && order[0] > 0, "{report}");
            assert!(report["ops_per_second"].as_f64().unwrap() > 0.0);
            assert_eq!(created(&client).await, 0, "{op} has left something");
        }
    }
    client.lookup("another's").await.unwrap();
}

#[tokio::test]
async fn what_is_got_and_put_is_as_large_as_it_was_asked_for_also_beyond_a_frame_and_a_window() {
    let server = Server::start();
    for mode in MODES {
        for (op, value_size) in [("get", 0), ("get", 700_000), ("put", 0), ("put", 700_000)] {
            let args = format!("--op {op} --mode {mode} --count 40 --keys 4 --buckets 9 --value-size {value_size}");
            let report = report(&run(&server, &args), 0);
            assert_eq!(of(&report, "operations"), 40, "{report}");
            let bytes = report["bytes_per_second"].as_f64().unwrap() * report["seconds"].as_f64().unwrap();
            assert!(bytes >= 40.0 * f64::from(value_size), "{report}");
        }
    }
}

#[tokio::test]
async fn an_open_loop_starts_as_many_a_second_as_it_was_asked_for() {
    let server = Server::start();
    for op in OPS {
        let report = report(&run(&server, &format!("--op {op} --rate 400 --count 200")), 0);
        assert_eq!((of(&report, "operations"), of(&report, "errors")), (200, 0), "{report}");
        // Of the watch, 50 puts were each heard four times. The last one is due one step before the time is up.
        let least = if op == "watch" { 49.0 / 400.0 } else { 199.0 / 400.0 };
        assert!(report["seconds"].as_f64().unwrap() >= least, "{report}");
    }
}

#[tokio::test]
async fn what_a_stall_holds_up_is_late_and_its_latency_counts_from_when_it_was_to_start() {
    let served = Served::start(&[]);
    let client = Client::to(served.address).await;
    let args = "--rate 1000 --duration 5s";
    let mut running = under_way(served.address, &client, args).await;
    served.running.signal("STOP");
    // Not for luck: this is the stall.
    thread::sleep(STALL);
    served.running.signal("CONT");

    let report = reported(&mut running, 0).await;
    let (stall_ns, latency) = (u64::try_from(STALL.as_nanos()).unwrap(), &report["latency_ns"]);
    assert!(of(latency, "max") >= stall_ns * 9 / 10, "{report}");
    // 500 were due meanwhile, a tenth of all; eight could be under way, and those alone would be no percentile.
    assert!(of(latency, "p99") >= stall_ns / 5, "{report}");
    assert!(of(&report, "late_for_streams") >= 400, "{report}");
    assert_eq!(of(&report, "late"), of(&report, "late_for_streams") + of(&report, "late_for_generator"));
}

#[tokio::test]
async fn a_rate_that_a_server_does_not_reach_is_told() {
    let server = Server::start();
    let report = report(&run(&server, "--rate 100000000 --duration 200ms"), 0);
    assert_eq!((&report["saturated"], of(&report, "unsent") > 0), (&true.into(), true), "{report}");
    assert!(of(&report, "late") > 0 && of(&report, "operations") > 0, "{report}");
}

#[tokio::test]
async fn what_a_server_refuses_is_an_error_by_its_reason() {
    let server = Server::with(Limits { buckets_max: 50, ..Limits::default() });
    for mode in MODES {
        let report = report(&run(&server, &format!("--op create --mode {mode} --count 200")), 1);
        assert_eq!((of(&report, "operations"), of(&report, "errors")), (50, 150), "{report}");
        assert_eq!(of(&report["errors_by_reason"], "TOO_MANY_BUCKETS"), 150);
        assert_eq!(created(&server.client().await).await, 0);
    }
}

#[tokio::test]
async fn scans_are_of_pages_and_no_pipeline_has_them() {
    let server = Server::start();
    let report = report(&run(&server, "--op scan --keys 300 --buckets 2 --value-size 100 --count 20"), 0);
    assert_eq!((of(&report, "operations"), of(&report, "errors")), (20, 0), "{report}");
    // A bucket has 150 entries.
    let page_bytes = report["bytes_per_second"].as_f64().unwrap() / report["ops_per_second"].as_f64().unwrap();
    assert!((150.0 * 100.0..150.0 * 150.0).contains(&page_bytes), "{report}");

    let refused = run(&server, "--op scan --mode pipeline");
    let (code, words) = complaint(&refused);
    assert!(code == 2 && words.contains("a Pipeline has no scans"), "{refused:?}");
    assert_eq!(created(&server.client().await).await, 0);
}

#[tokio::test]
async fn where_no_slot_gets_a_bucket_the_run_ends() {
    let server = Server::with(Limits { buckets_max: 3, ..Limits::default() });
    let report = report(&run(&server, "--op down --duration 1s"), 1);
    assert_eq!(of(&report["errors_by_reason"], "TOO_MANY_BUCKETS"), 5, "{report}"); // of eight slots
    assert!(of(&report, "operations") > 0);
}

#[tokio::test]
async fn an_interrupt_ends_the_run_with_a_report_and_what_it_created_is_stopped() {
    let server = Server::start();
    let client = server.client().await;
    for signal in ["INT", "TERM"] {
        let mut running = under_way(server.address, &client, "--duration 1h").await;
        running.signal(signal);
        let report = reported(&mut running, 130).await;
        assert_eq!((&report["interrupted"], of(&report, "errors")), (&true.into(), 0), "{report}");
        assert!(of(&report, "operations") > 0, "{report}");
        assert_eq!(created(&client).await, 0);
    }
}

#[tokio::test]
async fn a_server_that_is_killed_ends_the_run_and_the_report_says_what_was_lost() {
    let mut served = Served::start(&[]);
    let client = Client::to(served.address).await;
    let mut running = under_way(served.address, &client, "--duration 1h").await;
    served.running.child.kill().unwrap();
    let report = reported(&mut running, 3).await; // it could not stop its buckets: nobody is there
    assert!(of(&report["errors_by_reason"], "CONNECTION_LOST") >= 2, "{report}"); // at least one a connection
    let line = running.line(&served.address.to_string());
    // The second where the system had taken the connection already, and nobody was left to accept it.
    assert!(["cannot reach", "no answer from"].iter().any(|words| line.contains(words)), "{line}");
}

#[tokio::test]
async fn what_can_not_begin_is_told_in_a_line() {
    let server = Server::start();
    let (code, line) = complaint(&run(&server, "--streams 5000 --count 1"));
    assert!(code == 1 && line.contains("the server allows 2048 calls a connection, and this takes 5000"), "{line}");
    let (code, line) = complaint(&run(&server, "--op put --value-size 2000000 --count 1"));
    assert!(code == 1 && line.contains("TOO_LARGE"), "{line}");
    assert_eq!(created(&server.client().await).await, 0);
    for wrong in ["--count 0", "--rate 0", "--count 1 --duration 1s", "--op eat", "--streams 0"] {
        assert_eq!(complaint(&run(&server, wrong)).0, 2, "{wrong}");
    }
}
