//! The binary as a process: `pail serve`, the commands against it, their exit codes, and signals.

use std::{
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use pail::hooks::PANIC;

use super::{
    binary::{Running, Served, complaint, pail},
    raw::{Raw, framed},
    support::put,
};

#[test]
fn the_session_of_the_guide_runs_from_a_pipe() {
    let served = Served::start(&[]);
    let session = b"\
CREATE shopping
PUT shopping milk 1
PUT shopping eggs 3
GET shopping milk
GET shopping eggs
DELETE shopping eggs
GET shopping eggs
GET nobody milk
get shopping milk
PUT shopping note 'a b'
GET shopping note

BOGUS
PUT shopping
CREATE shopping
";
    let output = served.run_with(&["shell"], session);

    let answers = "OK\nOK\nOK\n1\nOK\n3\nOK\nOK\nNOT FOUND\nNOT FOUND\n1\nOK\nOK\na b\nOK\nUNKNOWN COMMAND\nUNKNOWN COMMAND\nOK\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), answers);
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[test]
fn a_value_is_of_the_kind_that_was_asked_for_and_get_prints_it_bare() {
    let served = Served::start(&[]);
    served.prints(&["create", "b"]);
    let rows: [(&[&str], &str); 6] = [
        (&["1"], r#"{"text":"1"}"#),
        (&["-5", "--int"], r#"{"integer":"-5"}"#),
        (&["-1.5", "--num"], r#"{"number":-1.5}"#),
        (&["true", "--bool"], r#"{"flag":true}"#),
        (&["raw", "--data"], r#"{"data":"cmF3"}"#),
        (&["--", "--text"], r#"{"text":"--text"}"#),
    ];
    for (args, json) in rows {
        served.prints(&[&["put", "b", "k"], args].concat());
        let got = served.prints(&["get", "b", "k", "-o", "json"]);
        assert!(got.contains(json), "{args:?}: {got}");
    }
    served.prints(&["put", "b", "k", "-5", "--int"]);
    assert_eq!(served.prints(&["get", "b", "k"]), "-5\n");
}

#[test]
fn bytes_go_in_and_come_out_as_they_are() {
    let served = Served::start(&[]);
    served.prints(&["create", "b"]);
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();

    served.prints(&["put", "b", "file", "--file", file.path().to_str().unwrap()]);
    assert!(served.run_with(&["put", "b", "stdin", "-"], &bytes).status.success());

    assert!(served.run(&["get", "b", "file"]).stdout == bytes);
    assert!(served.run(&["get", "b", "stdin"]).stdout == bytes);
}

#[test]
fn exit_codes_tell_a_script_what_happened() {
    let served = Served::start(&[]);
    served.prints(&["create", "b"]);
    served.prints(&["put", "b", "k", "v"]);

    let (code, line) = complaint(&served.run(&["get", "nobody", "k"]));
    assert_eq!((code, line.contains("BUCKET_NOT_FOUND")), (1, true), "{line}");
    let (code, line) = complaint(&served.run(&["get", "b", "nothing"]));
    assert_eq!((code, line.contains("KEY_NOT_FOUND")), (1, true), "{line}");
    let (code, line) = complaint(&served.run(&["put", "b", "k", "w", "--expect", "7"]));
    assert_eq!((code, line.contains("VERSION_MISMATCH")), (1, true), "{line}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![0; 2 << 20]).unwrap();
    let (code, line) = complaint(&served.run(&["put", "b", "k", "--file", file.path().to_str().unwrap()]));
    assert_eq!((code, line.contains("TOO_LARGE")), (1, true), "{line}");

    for wrong in [&["put", "b", "k", "x", "--int"][..], &["get", "b"], &["frobnicate"], &["watch"]] {
        assert_eq!(complaint(&served.run(wrong)).0, 2, "{wrong:?}");
    }

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, line) = complaint(&served.run(&["get", "b", "k", "--addr", &free]));
    assert_eq!((code, line.contains(&free)), (3, true), "{line}");
}

#[test]
fn a_watch_prints_the_end_of_its_bucket_and_ends() {
    let served = Served::start(&[]);
    let created = served.prints(&["create", "b"]);
    let id = created.split('\t').nth(1).unwrap();
    let mut watching = Running::start(served.command(&["watch", "b", "--verbose"]));
    watching.line("up to date");

    served.prints(&["stop", "b", "--reason", "killed", "--detail", "too large"]);

    let mut printed = String::new();
    watching.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    let fields: Vec<_> = printed.trim_end().split('\t').collect();
    assert_eq!(fields[1..], ["DOWN", "b", id, "KILLED", "too large"], "{printed:?}");
    assert!(watching.child.wait().unwrap().success());
}

#[test]
fn a_watch_of_a_server_that_goes_says_so_and_is_refused() {
    let served = Served::start(&[]);
    let mut watching = Running::start(served.command(&["watch", "--prefix", "", "--verbose"]));
    watching.line("up to date");

    served.running.signal("TERM");

    watching.line("DRAINING");
    let mut printed = String::new();
    watching.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!((printed.as_str(), watching.child.wait().unwrap().code()), ("-\tDRAINING\n", Some(1)));
}

#[tokio::test]
async fn the_first_signal_drains_and_the_process_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let mut served = Served::start(&[]);
        served.prints(&["create", "b"]);

        served.running.signal(signal);

        assert_eq!(served.running.code().await, 0, "SIG{signal}");
        served.running.line("drained");
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut served = Served::start(&["--drain-timeout", "60s"]);
        served.prints(&["create", "b"]);
        // An admitted call whose message is not whole holds the drain up.
        let raw = Raw::to(served.address, 1 << 20).await;
        let mut call = raw.begin("Put", &[]).await;
        call.send(framed(&put("b", "k", "v")).slice(..4));
        raw.call("List", &[], framed(&pail::pb::ListRequest::default())).await.into_result().unwrap();

        served.running.signal("TERM");
        served.running.line("draining");
        assert!(served.running.child.try_wait().unwrap().is_none(), "it waits for the call");
        served.running.signal(signal);

        assert_eq!(served.running.code().await, code, "SIG{signal}");
    }
}

#[tokio::test]
async fn the_process_is_gone_within_its_drain_timeout_though_a_client_holds_on() {
    let mut served = Served::start(&["--drain-timeout", "500ms"]);
    let _silent = std::net::TcpStream::connect(served.address).unwrap();
    let raw = Raw::to(served.address, 1 << 20).await;
    let _call = raw.begin("Put", &[]).await;
    raw.call("List", &[], framed(&pail::pb::ListRequest::default())).await.into_result().unwrap();

    let start = Instant::now();
    served.running.signal("TERM");

    assert_eq!(served.running.code().await, 0);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_registry_that_gives_up_ends_the_process_with_1() {
    let mut served = Served::start(&[]);
    for n in 0..4 {
        let (code, line) = complaint(&served.run(&["create", &format!("{PANIC}{n}")]));
        assert_eq!((code, line.contains("PANIC")), (1, true), "{line}");
    }
    assert_eq!(served.running.code().await, 1);
}

#[test]
fn a_port_in_use_is_one_line_and_exit_code_2() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let (code, line) = complaint(&pail(&["serve", "--listen", &address]).output().unwrap());

    assert_eq!((code, line.contains(&address) && line.contains("in use")), (2, true), "{line}");
}

#[test]
fn a_bad_option_is_one_line_and_exit_code_2() {
    for args in [
        &["serve", "--listen", "nowhere"][..],
        &["serve", "--listen", "127.0.0.1:0", "--buckets-max", "0"],
        &["serve", "--listen", "127.0.0.1:0", "--value-bytes-max", "4194304"],
        &["serve", "--listen", "127.0.0.1:0", "--log-level", "pail=loud"],
        &["serve", "--listen", "127.0.0.1:0", "--drain-timeout", "soon"],
        &["serve", "--bogus"],
    ] {
        let (code, line) = complaint(&pail(args).output().unwrap());
        assert_eq!(code, 2, "{args:?}: {line}");
    }
}

#[test]
fn a_log_in_json_is_an_object_a_line() {
    let mut running = Running::start(pail(&["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]));
    let line = running.line("listening");
    assert!(line.starts_with('{') && line.ends_with('}') && line.contains("\"address\""), "{line}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_takes_no_huge_pages() {
    let served = Served::start(&[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", served.running.child.id())).unwrap();
    let huge = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    assert!(huge.is_none_or(|huge| huge.trim() == "0"), "{huge:?}");
}

#[test]
fn a_watch_of_entries_prints_a_line_for_each_or_runs_a_command_with_it() {
    let served = Served::start(&[]);
    served.prints(&["create", "b"]);
    served.prints(&["put", "b", "k", "1"]);
    let mut printing = Running::start(served.command(&["watch", "b", "--entries", "--verbose"]));
    let run = "cut -d '{' -f 2; exit 3";
    let mut running = Running::start(served.command(&["watch", "b", "--entries", "--verbose", "--exec", run]));
    printing.line("up to date");
    running.line("up to date");

    served.prints(&["put", "b", "k", "2", "--int"]);
    served.prints(&["delete", "b", "k"]);
    served.prints(&["stop", "b"]);

    let printed = |watching: &mut Running| {
        let mut printed = String::new();
        watching.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        assert!(watching.child.wait().unwrap().success(), "a command that fails is its own affair");
        printed
    };
    let lines = printed(&mut printing);
    let lines: Vec<Vec<_>> = lines.lines().map(|line| line.split('\t').collect()).collect();
    let id = lines[0][3];
    assert_eq!(lines[0], ["-", "PUT", "b", id, "k", "1", "text", "1", "initial"]);
    assert_eq!(lines[1], ["-", "PUT", "b", id, "k", "2", "integer", "2"]);
    assert_eq!(lines[2], ["-", "DELETED", "b", id, "k", "3"]);
    assert_eq!((lines[3][1], lines.len()), ("DOWN", 4));
    assert_eq!(printed(&mut running), "\"put\":\n\"put\":\n\"deleted\":\n\"down\":\n");
    running.line("the command failed (exit 3) for {\"put\"");
}

#[test]
fn a_server_whose_log_nobody_reads_any_more_serves_on_and_drains() {
    let mut served = Served::start(&[]);
    served.running.stop_listening();

    let crash = format!("{PANIC}x");
    served.prints(&["create", "b"]);
    assert!(!served.run(&["put", "b", &crash, "v"]).status.success(), "a panic, which is logged");
    served.prints(&["create", "b"]);
    served.running.signal("TERM");

    assert_eq!(served.running.child.wait().unwrap().code(), Some(0));
}
