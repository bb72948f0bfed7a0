//! Who may do what, over gRPC: two tenants who are nothing to each other, and one who watches over both.

use std::{fs, path::PathBuf};

use pail::{
    auth,
    pb::{
        self, bucket_service_client::BucketServiceClient, event::Event, health::health_client::HealthClient,
        pipeline_op::Op, pipeline_result::Result as Answer, watch_response::Response,
    },
};
use tempfile::TempDir;
use tokio_stream::{StreamExt as _, iter, wrappers::ReceiverStream};
use tonic::{
    Code, Request, Status, Streaming,
    metadata::AsciiMetadataValue,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use super::{
    binary::{Served, complaint},
    support::{put, soon, value},
    tls::{Pki, run},
};

const TENANTS: &str = r#"
[[rule]]
who = ["token:a"]
may = ["read", "write", "lifecycle", "watch"]
names = ["a/", "shared/"]

[[rule]]
who = ["token:b"]
may = ["read", "write", "lifecycle", "watch"]
names = ["b/"]

[[rule]]
who = ["token:b"]
may = ["read"]
names = ["shared/"]

[[rule]]
who = ["token:root"]
may = ["admin"]
names = [""]
"#;

/// A server with rules, and its tokens: each is called what its identity is.
struct Tenants {
    served: Served,
    folder: TempDir,
}

type Rpc = BucketServiceClient<InterceptedService<Channel, Shows>>;

/// Shows a token.
#[derive(Clone)]
struct Shows(AsciiMetadataValue);

impl tonic::service::Interceptor for Shows {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl Tenants {
    fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.toml");
        fs::write(&path, rules(&["a", "b", "root"], more)).unwrap();
        Self { served: Served::start(&["--auth", path.to_str().unwrap()]), folder }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.served.address)).unwrap().connect().await.unwrap()
    }

    async fn client(&self, token: &str) -> Rpc {
        let header = format!("Bearer {token}").parse().unwrap();
        BucketServiceClient::with_interceptor(self.channel().await, Shows(header))
    }

    /// The rules are these from now on.
    fn change(&mut self, text: &str) {
        fs::write(self.path("auth.toml"), text).unwrap();
        self.served.running.signal("HUP");
        self.served.running.line("files were read again what=\"who may do what\"");
    }
}

fn rules(tokens: &[&str], more: &str) -> String {
    let token = |identity: &&str| {
        let hash: String = auth::hash(identity.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[token]]\nidentity = \"{identity}\"\nsha256 = \"{hash}\"\n")
    };
    tokens.iter().map(token).collect::<String>() + TENANTS + more
}

/// It was refused for this reason, and at least these facts are told.
#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, reason: &str, facts: &[(&str, &str)]) {
    let status = outcome.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), &*info.reason), (code, reason), "{status:?}");
    for (key, value) in facts {
        assert_eq!(info.metadata.get(*key).map(String::as_str), Some(*value), "{key}: {info:?}");
    }
}

async fn create(client: &mut Rpc, bucket: &str) -> Result<pb::CreateResponse, Status> {
    let request = pb::CreateRequest { bucket: bucket.to_owned(), ..Default::default() };
    Ok(client.create(request).await?.into_inner())
}

async fn stop(client: &mut Rpc, bucket: &str) -> Result<pb::StopResponse, Status> {
    let request = pb::StopRequest { bucket: bucket.to_owned(), ..Default::default() };
    Ok(client.stop(request).await?.into_inner())
}

async fn list(client: &mut Rpc, prefix: &str, page_size: i32) -> Vec<String> {
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListRequest { prefix: prefix.to_owned(), page_size, page_token };
        let page = client.list(request).await.unwrap().into_inner();
        names.extend(page.buckets.into_iter().map(|bucket| bucket.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return names;
        }
    }
}

async fn watch(client: &mut Rpc, request: pb::WatchRequest) -> Streaming<pb::WatchResponse> {
    client.watch(request).await.unwrap().into_inner()
}

fn all() -> pb::WatchRequest {
    pb::WatchRequest { prefix: Some(String::new()), entries: true, ..Default::default() }
}

/// The next events, as `(name, what, who)`.
async fn events(watch: &mut Streaming<pb::WatchResponse>, count: usize) -> Vec<(String, &'static str, String)> {
    let mut told = Vec::new();
    while told.len() < count {
        let response = soon(watch.message()).await.unwrap().expect("it goes on").response;
        let Some(Response::Events(batch)) = response else { continue };
        told.extend(batch.events.into_iter().map(|event| match event.event.unwrap() {
            Event::Created(event) => (event.bucket, "created", String::new()),
            Event::Down(event) => (event.bucket, "down", event.initiator),
            Event::Put(event) => (event.bucket, "put", String::new()),
            Event::Deleted(event) => (event.bucket, "deleted", String::new()),
        }));
    }
    told
}

#[tokio::test]
async fn nobody_is_let_in_without_a_credential_but_to_ask_for_health() {
    let tenants = Tenants::start("");
    let mut nobody = BucketServiceClient::new(tenants.channel().await);
    let status = nobody.get(pb::GetRequest::default()).await.unwrap_err();
    refused::<()>(Err(status), Code::Unauthenticated, "CREDENTIAL_MISSING", &[]);
    let status = nobody.watch(all()).await.unwrap_err();
    refused::<()>(Err(status), Code::Unauthenticated, "CREDENTIAL_MISSING", &[]);
    let status = tenants.client("wrong").await.lookup(pb::LookupRequest::default()).await.unwrap_err();
    refused::<()>(Err(status), Code::Unauthenticated, "CREDENTIAL_UNKNOWN", &[]);
    let mut health = HealthClient::new(tenants.channel().await);
    health.check(pb::health::HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_tenant_sees_and_changes_what_is_its_own_and_hears_nothing_of_others() {
    let tenants = Tenants::start("");
    let (mut a, mut b, mut root) = (tenants.client("a").await, tenants.client("b").await, tenants.client("root").await);
    let mut a_hears = watch(&mut a, all()).await;
    let mut root_hears = watch(&mut root, all()).await;
    for name in ["a/1", "shared/1", "a/2"] {
        create(&mut a, name).await.unwrap();
    }
    for name in ["b/1", "b/2"] {
        create(&mut b, name).await.unwrap();
        b.put(put(name, "k", "v")).await.unwrap();
    }
    create(&mut root, "other").await.unwrap();

    // Whether it is there or not, the answer is the same.
    for bucket in ["b/1", "b/none"] {
        let facts = [("bucket", bucket), ("identity", "token:a")];
        let (lookup, get) = (
            pb::LookupRequest { bucket: bucket.into() },
            pb::GetRequest { bucket: bucket.into(), key: "k".into(), ..Default::default() },
        );
        refused(a.lookup(lookup).await, Code::PermissionDenied, "PERMISSION_DENIED", &facts);
        refused(a.get(get).await, Code::PermissionDenied, "PERMISSION_DENIED", &facts);
        refused(a.put(put(bucket, "k", "v")).await, Code::PermissionDenied, "PERMISSION_DENIED", &facts);
        refused(create(&mut a, bucket).await, Code::PermissionDenied, "PERMISSION_DENIED", &facts);
        refused(stop(&mut a, bucket).await, Code::PermissionDenied, "PERMISSION_DENIED", &facts);
        let names = pb::WatchRequest { buckets: vec![bucket.into()], ..Default::default() };
        refused(a.watch(names).await, Code::PermissionDenied, "PERMISSION_DENIED", &facts);
    }
    for page_size in [0, 1, 2] {
        assert_eq!(list(&mut a, "", page_size).await, ["a/1", "a/2", "shared/1"]);
        assert_eq!(list(&mut b, "", page_size).await, ["b/1", "b/2", "shared/1"]);
        assert_eq!(list(&mut root, "", page_size).await, ["a/1", "a/2", "b/1", "b/2", "other", "shared/1"]);
    }
    let of_b = pb::ListRequest { prefix: "b/".into(), ..Default::default() };
    refused(a.list(of_b).await, Code::PermissionDenied, "PERMISSION_DENIED", &[("field", "prefix")]);

    // One may read what the other shares, and no more.
    b.lookup(pb::LookupRequest { bucket: "shared/1".into() }).await.unwrap();
    refused(b.put(put("shared/1", "k", "v")).await, Code::PermissionDenied, "PERMISSION_DENIED", &[("verb", "write")]);

    stop(&mut root, "a/1").await.unwrap();
    stop(&mut b, "b/1").await.unwrap();
    stop(&mut a, "a/2").await.unwrap();
    let heard = events(&mut a_hears, 5).await;
    let heard: Vec<_> = heard.iter().map(|(name, what, who)| (&**name, *what, &**who)).collect();
    let created = |name| (name, "created", "");
    let expected = [created("a/1"), created("shared/1"), created("a/2"), ("a/1", "down", ""), ("a/2", "down", "")];
    assert_eq!(heard, expected, "and nobody says to it who it was");

    // Who may know is told who it was; and a watch that begins now has what is there of its own.
    let downs = events(&mut root_hears, 11).await.into_iter().filter(|(_, what, _)| *what == "down");
    let downs: Vec<_> = downs.map(|(name, _, who)| format!("{name} by {who}")).collect();
    assert_eq!(downs, ["a/1 by token:root", "b/1 by token:b", "a/2 by token:a"]);
    let mut late = watch(&mut b, all()).await;
    let there = events(&mut late, 2).await;
    assert_eq!(
        there.iter().map(|(name, what, _)| (&**name, *what)).collect::<Vec<_>>(),
        [("b/2", "created"), ("b/2", "put")]
    );
}

#[tokio::test]
async fn a_pipeline_a_transaction_and_a_link_ask_for_each_thing_that_they_do() {
    let tenants = Tenants::start("");
    let (mut a, mut b) = (tenants.client("a").await, tenants.client("b").await);
    create(&mut a, "shared/1").await.unwrap();
    a.put(put("shared/1", "k", "v")).await.unwrap();

    let get = |bucket: &str| Op::Get(pb::GetRequest { bucket: bucket.into(), key: "k".into(), ..Default::default() });
    let ops = [get("shared/1"), Op::Put(put("shared/1", "k", "v")), get("a/1")];
    let ops = ops.into_iter().enumerate().map(|(id, op)| pb::PipelineOp {
        id: id as u64,
        op: Some(op),
        ..Default::default()
    });
    let request = pb::PipelineRequest { ops: ops.collect() };
    let mut answers = b.pipeline(iter([request])).await.unwrap().into_inner();
    let results = answers.next().await.unwrap().unwrap().results;
    let codes: Vec<i32> = results
        .iter()
        .map(|result| match result.result.as_ref().unwrap() {
            Answer::Error(status) => status.code,
            _ => 0,
        })
        .collect();
    assert_eq!(codes, [0, Code::PermissionDenied as i32, Code::PermissionDenied as i32]);

    let transact = |writes: bool| {
        let get = pb::transact_op::Op::Get(pb::TransactGet { key: "k".into() });
        let put = pb::transact_op::Op::Put(pb::TransactPut { key: "k".into(), value: value("w"), ttl: None });
        let ops = [Some(get), writes.then_some(put)].into_iter().flatten();
        let success = ops.map(|op| pb::TransactOp { op: Some(op) }).collect();
        pb::TransactRequest { bucket: "shared/1".into(), success, ..Default::default() }
    };
    b.transact(transact(false)).await.unwrap();
    let facts = [("verb", "read and write")];
    refused(b.transact(transact(true)).await, Code::PermissionDenied, "PERMISSION_DENIED", &facts);

    let (to, requests) = tokio::sync::mpsc::channel(4);
    let mut link = b.link(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let bucket = pb::LinkBucket { bucket: "shared/1".into(), ..Default::default() };
    let request = pb::link_request::Request::Link(bucket);
    to.send(pb::LinkRequest { id: 7, request: Some(request) }).await.unwrap();
    let answer = soon(link.message()).await.unwrap().unwrap();
    let Some(pb::link_response::Response::Error(status)) = answer.response else { panic!("{answer:?}") };
    assert_eq!((answer.id, status.code), (7, Code::PermissionDenied as i32));
}

#[tokio::test]
async fn a_watch_and_a_link_end_when_the_credential_is_taken_back_and_the_links_can_be_taken_over() {
    let mut tenants = Tenants::start("");
    let mut a = tenants.client("a").await;
    let mut watching = watch(&mut a, all()).await;
    let (to, requests) = tokio::sync::mpsc::channel(4);
    let mut link = a.link(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let bucket =
        pb::LinkBucket { bucket: "a/lock".into(), mode: pb::LinkMode::MustCreate.into(), ..Default::default() };
    let request = Some(pb::link_request::Request::Link(bucket));
    to.send(pb::LinkRequest { id: 1, request }).await.unwrap();
    soon(link.message()).await.unwrap().unwrap();
    assert_eq!(events(&mut watching, 1).await[0].1, "created");

    tenants.change(&rules(&["b", "root"], ""));
    let status = soon(async {
        loop {
            if let Err(status) = watching.message().await {
                break status;
            }
        }
    })
    .await;
    refused::<()>(Err(status), Code::Unauthenticated, "CREDENTIAL_UNKNOWN", &[]);
    let answer = soon(link.message()).await.unwrap().unwrap().response;
    assert!(matches!(answer, Some(pb::link_response::Response::Moving(_))), "{answer:?}");
    let status = soon(link.message()).await.unwrap_err();
    refused::<()>(Err(status), Code::Unauthenticated, "CREDENTIAL_UNKNOWN", &[]);
    let mut root = tenants.client("root").await;
    assert_eq!(list(&mut root, "a/", 0).await, ["a/lock"], "its lease is not over");

    // Rights that change end a stream too, which can be opened again.
    let mut b = tenants.client("b").await;
    let mut watching = watch(&mut b, all()).await;
    tenants.change(&rules(
        &["b", "root"],
        "[[rule]]\nwho = [\"token:b\"]\nmay = [\"watch\", \"read\"]\nnames = [\"a/\"]\n",
    ));
    let status = soon(async {
        loop {
            if let Err(status) = watching.message().await {
                break status;
            }
        }
    })
    .await;
    refused::<()>(Err(status), Code::Aborted, "PERMISSIONS_CHANGED", &[]);
    let mut watching = watch(&mut b, all()).await;
    assert_eq!(events(&mut watching, 1).await[0].0, "a/lock");
}

#[tokio::test]
async fn an_identity_has_its_quota_of_buckets_bytes_and_watches_and_gets_back_what_it_frees() {
    let tenants = Tenants::start("[[quota]]\nwho = [\"token:a\"]\nbuckets = 2\nbytes = 4096\nwatches = 1\n");
    let (mut a, mut root) = (tenants.client("a").await, tenants.client("root").await);
    create(&mut a, "a/1").await.unwrap();
    create(&mut a, "a/2").await.unwrap();
    create(&mut a, "a/2").await.unwrap();
    let over = create(&mut a, "a/3").await;
    refused(over, Code::ResourceExhausted, "TOO_MANY_BUCKETS", &[("limit", "2")]);
    create(&mut root, "a/3").await.unwrap();
    stop(&mut root, "a/2").await.unwrap();
    create(&mut a, "a/2").await.unwrap();

    let large = |key: &str| put("a/1", key, &*"x".repeat(2_000));
    a.put(large("1")).await.unwrap();
    let over = a.put(large("2")).await;
    refused(over, Code::ResourceExhausted, "OUT_OF_MEMORY", &[("limit", "4096")]);
    a.put(put("a/3", "k", &*"x".repeat(5_000))).await.unwrap();
    let over = root.put(large("2")).await;
    refused(over, Code::ResourceExhausted, "OUT_OF_MEMORY", &[("limit", "4096")]);
    stop(&mut a, "a/1").await.unwrap();
    a.put(put("a/2", "k", &*"x".repeat(2_000))).await.unwrap();

    let first = watch(&mut a, all()).await;
    let second = a.watch(all()).await;
    refused(second, Code::ResourceExhausted, "TOO_MANY_STREAMS", &[("limit", "1")]);
    drop(first);
    super::support::until(async || a.watch(all()).await.ok()).await;
}

#[tokio::test]
async fn the_command_line_makes_tokens_and_shows_them_and_no_log_does() {
    let mut tenants = Tenants::start("");
    let token = tenants.path("new.token");
    let to = token.to_str().unwrap().to_owned();
    let entry = tenants.served.prints(&["token", "a", "--to", &to, "--expires", "1h"]);
    let (code, line) = complaint(&tenants.served.run(&["token", "a", "--to", &to]));
    assert!(code == 1 && line.contains("can't be written"), "a file that is there is left as it is: {line}");
    let secret = fs::read_to_string(&token).unwrap();
    assert!(!entry.contains(secret.trim()) && secret.len() > 40);
    tenants.change(&(entry + TENANTS));

    let with = ["--token-file", &to];
    tenants.served.prints(&[&with[..], &["create", "a/1"]].concat());
    assert!(tenants.served.prints(&[&with[..], &["list"]].concat()).contains("a/1"));
    let denied = complaint(&tenants.served.run(&[&with[..], &["create", "b/1"]].concat()));
    assert!(
        denied.0 == 1 && denied.1.contains("\"token:a\" is not granted lifecycle of the bucket \"b/1\""),
        "{denied:?}"
    );
    let (code, line) = complaint(&tenants.served.run(&["list"]));
    assert!(code == 1 && line.contains("CREDENTIAL_MISSING"), "{line}");
    tenants.served.prints(&[&with[..], &["link", "a/lock", "--", "true"]].concat());

    tenants.served.running.signal("TERM");
    tenants.served.running.line("drained");
    assert!(!tenants.served.running.seen.iter().any(|line| line.contains(secret.trim())));
}

#[test]
fn a_certificate_is_an_identity_and_a_token_goes_before_it() {
    let pki = Pki::new();
    pki.certify("ca", "billing", "spiffe://example.org/billing");
    pki.certify("ca", "host", "web.example.org");
    pki.certify("ca", "other", "spiffe://example.org/other");
    let rule = |who: &str, names: &str| {
        format!("[[rule]]\nwho = [\"{who}\"]\nmay = [\"read\", \"lifecycle\"]\nnames = [\"{names}\"]\n")
    };
    let text = rule("spiffe://example.org/billing*", "billing/") + &rule("dns:*.example.org", "web/");
    fs::write(pki.path("auth"), rules(&["a"], &text)).unwrap();
    let (ca, auth) = (pki.path("ca"), pki.path("auth"));
    let served = pki.serve(&["--tls-client-ca", ca.to_str().unwrap(), "--auth", auth.to_str().unwrap()]);
    let create = |who: &str, bucket: &str| run(&served, &pki.options("ca", Some(who)), &["create", bucket]);
    create("billing", "billing/1").unwrap();
    create("host", "web/1").unwrap();
    for (who, bucket) in [("billing", "web/2"), ("host", "billing/2"), ("other", "billing/2"), ("other", "web/2")] {
        let (code, line) = create(who, bucket).unwrap_err();
        assert!(code == 1 && line.contains("PERMISSION_DENIED"), "{line}");
    }
    fs::write(pki.path("token"), "a").unwrap();
    let mut options = pki.options("ca", Some("billing"));
    options.extend(["--token-file".to_owned(), pki.path("token").to_str().unwrap().to_owned()]);
    run(&served, &options, &["create", "a/1"]).unwrap();
    run(&served, &options, &["create", "billing/3"]).unwrap_err();
}

#[test]
fn rules_that_are_no_good_are_refused_and_nothing_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.toml");
    fs::write(&path, "[[rule]]\nwho = [\"*\"]\nmay = [\"fly\"]\nnames = []").unwrap();
    let mut command = super::binary::pail(&["serve", "--listen", "127.0.0.1:0", "--auth", path.to_str().unwrap()]);
    let (code, line) = complaint(&command.output().unwrap());
    assert!(code == 2 && line.contains("line 3: unknown variant `fly`"), "{line}");
}
