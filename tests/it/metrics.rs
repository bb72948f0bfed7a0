//! What operators are told: on a port of its own, in numbers that are right.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{
    binary::{Running, Served, complaint, pail},
    support::{DEADLINE, until},
};

/// A server with an admin port.
struct Watched {
    served: Served,
    admin: String,
}

impl Watched {
    fn start(args: &[&str]) -> Self {
        let mut served = Served::start(&[&["--admin", "127.0.0.1:0"], args].concat());
        let line = served.running.line("listening for operators");
        let admin = line.split("address=").nth(1).unwrap().trim().to_owned();
        Self { served, admin }
    }

    fn ask(&self, method: &str, path: &str) -> String {
        self.ask_with(method, path, &format!("host: {}", self.admin), b"")
    }

    fn ask_with(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\n{headers}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Each line's number, by its name and labels.
    fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = self.ask("GET", "/metrics");
        let lines = answer.lines().filter(|line| line.starts_with(|char: char| char.is_ascii_lowercase()));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, n)| Some((name.to_owned(), n.parse().ok()?)))
            .collect()
    }
}

fn calls(what: &str, kind: &str, method: &str, more: &str) -> String {
    format!("{what}{{grpc_type=\"{kind}\",grpc_service=\"pail.v1.BucketService\",grpc_method=\"{method}\"{more}}}")
}

#[tokio::test]
async fn what_is_done_is_counted_and_what_there_is_is_told() {
    let watched = Watched::start(&[]);
    let served = &watched.served;
    for bucket in ["a", "b", "c"] {
        served.prints(&["create", bucket]);
    }
    served.prints(&["put", "a", "k", "v"]);
    served.prints(&["put", "a", "l", "v"]);
    served.prints(&["put", "a", "l", "w"]);
    served.prints(&["put", "c", "k", "v"]);
    served.prints(&["delete", "a", "k"]);
    served.prints(&["stop", "b", "--reason", "killed"]);
    served.prints(&["stop", "c"]);
    complaint(&served.run(&["get", "a", "none"]));
    let mut watch = Running::start(served.command(&["watch", "--prefix", ""]));
    let now = until(async || {
        let metrics = watched.metrics();
        (metrics[&calls("pail_calls_in_flight", "server_stream", "Watch", "")] == 1.0).then_some(metrics)
    })
    .await;
    for (name, value) in [
        ("pail_buckets".to_owned(), 1.0),
        ("pail_entries".to_owned(), 1.0),
        ("pail_buckets_created_total".to_owned(), 3.0),
        ("pail_buckets_down_total{reason=\"KILLED\"}".to_owned(), 1.0),
        ("pail_buckets_down_total{reason=\"NORMAL\"}".to_owned(), 1.0),
        ("pail_history_events".to_owned(), 5.0),
        ("pail_watchers".to_owned(), 1.0),
        ("pail_watch_lag_events".to_owned(), 0.0),
        ("pail_long_streams".to_owned(), 1.0),
        ("pail_errors_total{reason=\"KEY_NOT_FOUND\"}".to_owned(), 1.0),
        (calls("grpc_server_started_total", "unary", "Put", ""), 4.0),
        (calls("grpc_server_handled_total", "unary", "Put", ",grpc_code=\"OK\""), 4.0),
        (calls("grpc_server_handled_total", "unary", "Get", ",grpc_code=\"NotFound\""), 1.0),
        (calls("grpc_server_handling_seconds_count", "unary", "Put", ""), 4.0),
        (calls("pail_calls_in_flight", "unary", "Put", ""), 0.0),
    ] {
        assert_eq!(now.get(&name), Some(&value), "{name}");
    }
    assert!(now["pail_charged_bytes"] > 100.0 && now["process_resident_memory_bytes"] > 1e6);
    assert!(now["pail_resident_bytes"] > 1e6 && now.contains_key("pail_allocator_bytes"));
    assert!(!now.keys().any(|name| name.starts_with("pail_tls")));
    let slowest = watched.ask("GET", "/watches.json");
    assert!(slowest.contains(r#"[{"behind":0,"peer":"127.0.0.1:"#), "{slowest}");

    // One whose client leaves is a call that was cancelled, and its connection has ended.
    watch.child.kill().unwrap();
    watch.child.wait().unwrap();
    let cancelled = calls("grpc_server_handled_total", "server_stream", "Watch", ",grpc_code=\"Canceled\"");
    until(async || watched.metrics().get(&cancelled).filter(|count| **count == 1.0).copied()).await;
    let after = until(async || Some(watched.metrics()).filter(|metrics| metrics["pail_connections"] == 0.0)).await;
    assert_eq!(after["pail_watchers"], 0.0);
    let ended: f64 = after.iter().filter(|(name, _)| name.starts_with("pail_connections_ended")).map(|(_, n)| n).sum();
    assert_eq!(ended, after["pail_connections_accepted_total"]);
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_is_counted_and_logged_seldom() {
    let pki = super::tls::Pki::new();
    let (cert, key) = (pki.path("server"), pki.key("server"));
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let mut watched = Watched::start(&["--tls-cert", cert, "--tls-key", key]);
    for _ in 0..5 {
        let mut stream = TcpStream::connect(watched.served.address).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap_or_default();
    }
    let is_counted = |now: &BTreeMap<_, _>| now["pail_connections_ended_total{cause=\"not_opened\"}"] == 5.0;
    let now = until(async || Some(watched.metrics()).filter(is_counted)).await;
    assert!(now["pail_tls_certificate_expires_seconds"] > 1.7e9);
    watched.served.running.line("clients were sent away count=1");
    watched.served.running.signal("TERM");
    watched.served.running.line("drained");
    assert!(!watched.served.running.seen.iter().any(|line| line.contains("sent away")), "once in five seconds");
}

#[test]
fn a_browser_calls_the_same_api_and_only_from_a_page_of_this_port() {
    let watched = Watched::start(&[]);
    watched.served.prints(&["create", "b"]);
    let admin = &watched.admin;
    // bucket = "b"
    let lookup = |bucket: u8, headers: &str| {
        let headers = format!("{headers}\r\ncontent-type: application/grpc-web+proto");
        watched.ask_with("POST", "/pail.v1.BucketService/Lookup", &headers, &[0, 0, 0, 0, 3, 0x0a, 1, bucket])
    };
    let found = lookup(b'b', &format!("host: {admin}\r\norigin: http://{admin}"));
    assert!(
        found.starts_with("HTTP/1.1 200")
            && found.contains("application/grpc-web+proto")
            && found.contains("grpc-status:0"),
        "{found}"
    );
    let missing = lookup(b'c', &format!("host: {admin}"));
    assert!(missing.contains("grpc-status: 5"), "{missing}");
    for headers in [
        format!("host: {admin}\r\norigin: https://evil.example"),
        format!("host: {admin}\r\norigin: null"),
        "host: evil.example".to_owned(),
        "host: evil.example\r\norigin: http://evil.example".to_owned(),
    ] {
        let refused = lookup(b'b', &headers);
        assert!(refused.starts_with("HTTP/1.1 403"), "{headers}: {refused}");
    }
    let gone = watched.ask_with(
        "POST",
        "/pail.v1.BucketService/Lookup",
        &format!("host: {admin}\r\ncontent-type: text/plain"),
        b"x",
    );
    assert!(gone.starts_with("HTTP/1.1 400"), "{gone}");
    assert_eq!(watched.metrics()[&calls("grpc_server_started_total", "unary", "Lookup", "")], 2.0, "calls are calls");
}

#[test]
fn the_admin_port_says_what_it_has_and_waits_for_nobody() {
    let watched = Watched::start(&[]);
    assert!(
        watched.ask("GET", "/metrics").starts_with("HTTP/1.1 200 OK\r\ncontent-type: application/openmetrics-text")
    );
    let page = watched.ask("GET", "/");
    assert!(page.contains("<title>pail</title>") && page.contains("content-security-policy: default-src 'none'"));
    assert!(watched.ask("GET", "/x").starts_with("HTTP/1.1 404"));
    assert!(watched.ask("POST", "/metrics").starts_with("HTTP/1.1 405"));
    let start = Instant::now();
    let mut slow = TcpStream::connect(&watched.admin).unwrap();
    slow.set_read_timeout(Some(DEADLINE)).unwrap();
    slow.write_all(b"GET /metr").unwrap();
    slow.read_to_end(&mut Vec::new()).unwrap();
    assert!(start.elapsed() < Duration::from_secs(9), "five seconds are enough to say what one wants");

    let taken = pail(&["serve", "--listen", "127.0.0.1:0", "--admin", &watched.admin]).output().unwrap();
    let (code, line) = complaint(&taken);
    assert!(code == 2 && line.contains("choose another with --admin"), "{line}");
}
