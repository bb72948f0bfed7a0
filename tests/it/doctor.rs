//! What `pail doctor` says of what is wrong: each fault is made by a server that has it.

use std::{
    convert::Infallible,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::Output,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{body::Frame, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{
    binary::{Served, pail},
    tls::Pki,
};

/// What it printed, and whether it found something wrong.
fn examine(address: &str, more: &[&str]) -> (String, bool) {
    let args = [&["doctor", "--addr", address, "--timeout", "1s", "--quiet", "1s"], more].concat();
    let Output { stdout, stderr, status } = pail(&args).output().unwrap();
    let (told, error) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    match status.code() {
        Some(0) => assert!(error.is_empty() && !told.contains("WRONG"), "{told}{error}"),
        Some(1) => {
            let last = told.lines().last().unwrap();
            assert!(
                last.starts_with("WRONG") && error.contains("is wrong, and what follows was not looked at"),
                "{told}{error}"
            );
        }
        code => panic!("{code:?}: {told}{error}"),
    }
    (told, status.success())
}

/// What was wrong.
#[track_caller]
fn wrong(address: &str, more: &[&str]) -> String {
    let (told, is_well) = examine(address, more);
    assert!(!is_well, "{told}");
    told.lines().last().unwrap().to_owned()
}

#[test]
fn a_server_that_is_well_is_found_well() {
    let mut served = Served::start(&["--admin", "127.0.0.1:0", "--buckets-max", "1"]);
    let admin = served.running.line("listening for operators");
    let admin = format!("http://{}", admin.split("address=").nth(1).unwrap().trim());
    let (told, is_well) = examine(&served.address.to_string(), &["--admin", &admin]);
    assert!(is_well, "{told}");
    let checks: Vec<_> = told.lines().map(|line| line.split_once(": ").unwrap().0).collect();
    let all = [
        "name",
        "connection",
        "tls",
        "protocol",
        "health",
        "credential",
        "streams",
        "quiet streams",
        "clock",
        "limits",
    ];
    assert_eq!(checks, all.map(|check| format!("ok     {check}")), "{told}");

    served.prints(&["create", "b"]);
    let (told, _) = examine(&served.address.to_string(), &["--admin", &admin, "-o", "json"]);
    assert!(
        told.lines().last().unwrap().contains("\"verdict\":\"note\"") && told.contains("pail_buckets is at 100 %"),
        "{told}"
    );
}

#[test]
fn a_name_an_address_and_a_port_that_are_not_there_are_told_apart() {
    assert!(wrong("no.such.host.invalid:1", &[]).contains("is it spelt right?"));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(wrong(&nobody.to_string(), &[]).contains("connection refused: is 'pail serve' running there"));
}

/// A server that says this to whoever comes, whatever is said to it.
fn says(words: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // One that only looked whether it is there says nothing.
            if stream.read(&mut [0; 1_024]).unwrap() > 0 {
                stream.write_all(words).unwrap();
            }
            // It stays, until the client has had enough.
            std::thread::spawn(move || stream.read(&mut [0; 1_024]).unwrap_or_default());
        }
    });
    address.to_string()
}

#[test]
fn what_does_not_speak_this_protocol_is_told() {
    assert!(
        wrong(&says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), &[])
            .contains("it answers in HTTP/1 (HTTP/1.1 400 Bad Request)")
    );
    assert!(wrong(&says(b"\x15\x03\x03\x00\x02\x02\x46"), &[]).contains("it speaks TLS here: use https://"));
    assert!(wrong(&says(b"-ERR unknown command"), &[]).contains("it answers HTTP/2's greeting with [2d, 45"));
    assert!(wrong(&says(b""), &[]).contains("it says nothing to HTTP/2's greeting"));
}

#[test]
fn tls_that_fails_is_explained() {
    let pki = Pki::new();
    pki.authority("other");
    let served = pki.serve(&[]);
    let port = served.address.port();
    let (ca, other) = (pki.path("ca"), pki.path("other"));
    let (ca, other) = (ca.to_str().unwrap(), other.to_str().unwrap());
    let (told, is_well) = examine(&format!("https://localhost:{port}"), &["--ca", ca]);
    assert!(is_well && told.contains("TLSv1_3, HTTP/2; its certificate is good for"), "{told}");
    assert!(
        wrong(&format!("https://localhost:{port}"), &["--ca", other])
            .contains("its authority is not trusted here: name it with --ca")
    );
    assert!(
        wrong(&format!("https://127.0.0.1:{port}"), &["--ca", ca])
            .contains("ask for it by a name that is in its certificate")
    );
    let line = wrong(&format!("localhost:{port}"), &[]);
    assert!(line.contains("it speaks TLS here") || line.contains("try https://"), "{line}");
    let plain = Served::start(&[]);
    assert!(
        wrong(&format!("https://localhost:{}", plain.address.port()), &["--ca", ca]).contains("speaks no TLS here")
    );
}

#[test]
fn a_credential_that_is_not_enough_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.toml");
    let hash: String = pail::auth::hash(b"secret").iter().map(|byte| format!("{byte:02x}")).collect();
    let rules = format!(
        "[[token]]\nidentity = \"me\"\nsha256 = \"{hash}\"\n[[rule]]\nwho = [\"token:me\"]\nmay = [\"read\", \"watch\"]\nnames = [\"mine/\"]\n"
    );
    fs::write(&path, rules).unwrap();
    let served = Served::start(&["--auth", path.to_str().unwrap()]);
    let address = served.address.to_string();
    let token = |text: &str| {
        let path = folder.path().join("token");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    assert!(wrong(&address, &[]).contains("no token was shown, and a credential is needed"));
    // {"exp":1}
    assert!(wrong(&address, &["--token-file", &token("e30.eyJleHAiOjF9.x")]).contains("(it expired "));
    let (told, _) = examine(&address, &["--token-file", &token("secret")]);
    assert!(told.lines().last().unwrap().contains("name a prefix that you may read and watch with --prefix"), "{told}");
    let (told, _) = examine(&address, &["--token-file", &token("secret"), "--prefix", "mine/"]);
    assert!(told.contains("ok     quiet streams"), "{told}");
}

/// A proxy's faults, by a server that has them.
#[derive(Clone, Copy)]
enum Fault {
    NoRoute,
    NoTrailers,
    NotPail,
    Buffers,
    CutsQuietStreams,
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

fn trailers(code: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    Frame::trailers(trailers)
}

/// Frames, and what then: their end, or nothing for a while.
fn body(frames: Vec<Frame<Bytes>>, then: Option<Duration>) -> Body {
    let frames = futures_util::stream::iter(frames.into_iter().map(Ok));
    let end = futures_util::stream::once(async move {
        if let Some(then) = then {
            // What a proxy with a timeout does.
            tokio::time::sleep(then).await;
        }
        Ok(Frame::data(Bytes::new()))
    });
    StreamBody::new(futures_util::StreamExt::chain(frames, end)).boxed_unsync()
}

fn message(bytes: &[u8]) -> Frame<Bytes> {
    Frame::data([&[0, 0, 0, 0, u8::try_from(bytes.len()).unwrap()][..], bytes].concat().into())
}

/// `BUCKET_NOT_FOUND`, as pail says it.
fn not_found() -> HeaderMap {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let details = ErrorDetails::with_error_info("BUCKET_NOT_FOUND", "pail", [("bucket".to_owned(), "b".to_owned())]);
    let status = tonic::Status::with_error_details(tonic::Code::NotFound, "no bucket", details);
    let mut headers = HeaderMap::new();
    status.add_header(&mut headers).unwrap();
    headers
}

fn answer(fault: Fault, path: &str) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed_unsync());
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response.headers_mut().insert("server", "proxy".parse().unwrap());
    const SERVING: &[u8] = &[8, 1];
    const HEARTBEAT: &[u8] = &[0x2a, 0];
    match (fault, path) {
        (Fault::NoRoute, _) => *response.status_mut() = http::StatusCode::BAD_GATEWAY,
        (Fault::NoTrailers, _) => *response.body_mut() = body(vec![message(SERVING)], None),
        (_, "/grpc.health.v1.Health/Check") => *response.body_mut() = body(vec![message(SERVING), trailers("0")], None),
        (Fault::NotPail, _) => drop(response.headers_mut().insert("grpc-status", "12".parse().unwrap())),
        (_, "/pail.v1.BucketService/Lookup") => response.headers_mut().extend(not_found()),
        (Fault::CutsQuietStreams, _) => {
            *response.body_mut() = body(vec![message(HEARTBEAT)], Some(Duration::from_millis(300)));
        }
        (Fault::Buffers, _) => *response.body_mut() = body(vec![], Some(Duration::from_secs(60))),
    }
    response
}

async fn proxy(fault: Fault) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let stream = TokioIo::new(listener.accept().await.unwrap().0);
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let response = answer(fault, request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_does_wrong_is_told() {
    for (fault, why) in [
        (Fault::NoRoute, "proxy answered with HTTP 502 Bad Gateway: a proxy that does not lead to pail"),
        (Fault::NoTrailers, "has no grpc-status: something on the way takes trailers away"),
        (Fault::NotPail, "this is a gRPC server, and no pail"),
        (Fault::Buffers, "something on the way keeps what a stream says"),
        (Fault::CutsQuietStreams, "something on the way cut a stream that was quiet for"),
    ] {
        let address = proxy(fault).await.to_string();
        let line = tokio::task::spawn_blocking(move || wrong(&address, &[])).await.unwrap();
        assert!(line.contains(why), "{line}");
    }
}
