//! Traces and the log: which call did what, for who asks; and nothing of what is in it.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use pail::pb::{self, bucket_service_client::BucketServiceClient};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::{
    binary::Served,
    support::{put, soon},
};

/// A collector, which passes on what it is sent.
struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (String, mpsc::Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel(100);
    let service = TraceServiceServer::new(Collector(sender));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    (format!("http://{address}"), receiver)
}

/// Spans that come, until there are so many; and the resource that they are of.
async fn spans(from: &mut mpsc::Receiver<ExportTraceServiceRequest>, count: usize) -> (Vec<Span>, Vec<KeyValue>) {
    let (mut spans, mut resource) = (Vec::new(), Vec::new());
    while spans.len() < count {
        for of in soon(from.recv()).await.unwrap().resource_spans {
            resource = of.resource.unwrap().attributes;
            spans.extend(of.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    (spans, resource)
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traced<T>(message: T, traceparent: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    request.metadata_mut().insert("x-request-id", "r-7".parse().unwrap());
    request
}

#[tokio::test]
async fn a_trace_goes_on_here_and_ends_at_the_collector() {
    let (otlp, mut received) = collector().await;
    // Of those who have not decided none is traced.
    let mut served = Served::start(&["--otlp", &otlp, "--trace-sample", "0", "--log-level", "info,pail=debug"]);
    let mut client = BucketServiceClient::connect(format!("http://{}", served.address)).await.unwrap();
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    let create = pb::CreateRequest { bucket: "b".into(), ..Default::default() };
    client.create(traced(create, &sampled)).await.unwrap();
    client.put(put("b", "k", "secret value")).await.unwrap();
    client.put(traced(put("b", "k", "secret value"), &format!("00-{TRACE}-{PARENT}-00"))).await.unwrap();
    let get = pb::GetRequest { bucket: "b".into(), key: "none".into(), ..Default::default() };
    client.get(traced(get, &sampled)).await.unwrap_err();
    let line = served.running.line("a bucket was created");
    for known in ["request_id=\"r-7\"", TRACE, "/pail.v1.BucketService/Create", "bucket=\"b\""] {
        assert!(line.contains(known), "{known}: {line}");
    }
    served.prints(&["stop", "b", "--detail", "enough"]);
    let line = served.running.line("a bucket is down");
    assert!(line.contains("reason=NORMAL") && line.contains("detail=\"enough\""), "{line}");

    served.running.signal("TERM");
    let (spans, resource) = spans(&mut received, 2).await;
    assert_eq!(served.running.code().await, 0);
    assert!(received.try_recv().is_err(), "two calls were to be traced");
    assert_eq!(attribute(&resource, "service.name").as_deref(), Some("pail"));
    let [create, get] = &*spans else { panic!("{spans:?}") };
    for (span, method, code) in [(create, "Create", "0"), (get, "Get", "5")] {
        assert_eq!(span.name, format!("pail.v1.BucketService/{method}"));
        assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
        assert_eq!(span.kind, SpanKind::Server as i32);
        for (key, value) in [
            ("rpc.system", "grpc"),
            ("rpc.service", "pail.v1.BucketService"),
            ("rpc.method", method),
            ("rpc.grpc.status_code", code),
            ("pail.request_id", "r-7"),
        ] {
            assert_eq!(attribute(&span.attributes, key).as_deref(), Some(value), "{key}");
        }
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
        // Not to be found is an answer.
        assert_ne!(span.status.as_ref().map(|status| status.code), Some(StatusCode::Error as i32));
    }
    let everything = format!("{spans:?}{:?}", served.running.seen);
    assert!(!everything.contains("secret value"), "no value is told of");
}

#[tokio::test]
async fn a_part_of_those_who_have_not_decided_is_traced() {
    let (otlp, mut received) = collector().await;
    let served = Served::start(&["--otlp", &otlp, "--trace-sample", "1"]);
    served.prints(&["create", "b"]);
    let (spans, _) = spans(&mut received, 1).await;
    assert!(spans[0].parent_span_id.is_empty() && spans[0].trace_id.len() == 16);
    assert_eq!(attribute(&spans[0].attributes, "pail.request_id").unwrap().len(), 16);
}

#[tokio::test]
async fn a_collector_that_is_not_there_hurts_nobody() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let otlp = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let mut served = Served::start(&["--otlp", &otlp, "--trace-sample", "1", "--drain-timeout", "1s"]);
    served.prints(&["create", "b"]);
    served.running.signal("TERM");
    assert_eq!(served.running.code().await, 0);
}

#[test]
fn what_is_no_collector_is_refused() {
    for (args, why) in [
        (&["--otlp", "https://x:1"][..], "http://HOST:PORT is allowed"),
        (&["--otlp", "/x"], "http://HOST:PORT is allowed"),
        (&["--trace-sample", "2"], "must be a number from 0 to 1"),
    ] {
        let output = super::binary::pail(&[&["serve", "--listen", "127.0.0.1:0"], args].concat()).output().unwrap();
        let (code, line) = super::binary::complaint(&output);
        assert!(code == 2 && line.contains(why), "{line}");
    }
}
