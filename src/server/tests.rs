//! The server from outside: each test is a promise to clients or to the operator.

mod support;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use self::support::{Server, create, framed, reason, soon, told, watch};
use crate::{
    frame,
    limits::Limits,
    pb::{
        self,
        health::{
            HealthCheckRequest, HealthListRequest, health_check_response::ServingStatus, health_client::HealthClient,
        },
    },
};

const CREATE: &str = "/pail.v1.BucketService/Create";
const WATCH: &str = "/pail.v1.BucketService/Watch";
const PIPELINE: &str = "/pail.v1.BucketService/Pipeline";

#[track_caller]
fn assert_status(status: &Status, code: Code, why: &str) {
    assert_eq!((status.code(), reason(status).as_str()), (code, why), "{status:?}");
}

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

// Deadlines.

#[tokio::test]
async fn a_call_that_takes_longer_than_its_deadline_is_told_so_and_its_handler_is_dropped() {
    let server = Server::start().await;
    let answer = server.raw().await.call(CREATE, &[("grpc-timeout", "50m")], &[framed(&create("wait"))]).await;

    assert_status(&answer.status.unwrap(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    assert!(answer.trailers_only);
    told(&server.stage.dropped).await;
}

#[tokio::test]
async fn a_deadline_that_has_passed_already_starts_no_handler() {
    let server = Server::start().await;
    let status = server.raw().await.failure(CREATE, &[("grpc-timeout", "0n")], &[framed(&create("b"))]).await;

    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    assert_eq!(server.stage.begun.load(Relaxed), 0);
}

#[tokio::test]
async fn a_deadline_ends_a_stream_with_trailers_after_what_was_sent() {
    let server = Server::start().await;
    let answer = server.raw().await.call(WATCH, &[("grpc-timeout", "100m")], &[framed(&watch("wait"))]).await;

    assert_eq!(answer.body, framed(&pb::WatchResponse::default()));
    assert!(!answer.trailers_only);
    assert_status(&answer.status.unwrap(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    told(&server.stage.dropped).await;
}

#[tokio::test]
async fn a_malformed_timeout_is_an_invalid_option() {
    let server = Server::start().await;
    let status = server.raw().await.failure(CREATE, &[("grpc-timeout", "soon")], &[framed(&create("b"))]).await;

    assert_status(&status, Code::InvalidArgument, "INVALID_OPTION");
    assert_eq!(status.get_details_error_info().unwrap().metadata["field"], "grpc-timeout");
}

// Panics.

#[tokio::test]
async fn a_panic_in_a_handler_is_one_callers_affair() {
    let server = Server::start().await;
    let (mut client, mut other) = {
        let client = server.client().await;
        (client.clone(), client)
    };
    let waiting = tokio::spawn(async move { other.create(create("wait")).await });
    told(&server.stage.entered).await;

    assert_status(&client.create(create("panic")).await.unwrap_err(), Code::Internal, "PANIC");

    server.stage.leave.add_permits(1);
    soon(waiting).await.unwrap().expect("another call of the same connection goes on");
    client.create(create("b")).await.expect("the connection lives on");
}

#[tokio::test]
async fn a_panic_in_a_stream_never_looks_like_a_good_end() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut stream = client.watch(watch("panic")).await.unwrap().into_inner();

    assert!(stream.message().await.unwrap().is_some());
    server.stage.leave.add_permits(1);
    assert_status(&soon(stream.message()).await.unwrap_err(), Code::Internal, "PANIC");
    client.create(create("b")).await.expect("the connection lives on");
}

// What comes in.

#[tokio::test]
async fn a_message_too_large_is_refused_before_its_bytes_are_sent() {
    let server = Server::start().await;
    let announced = Bytes::from_static(&[0, 0x7f, 0xff, 0xff, 0xff]);
    let status = server.raw().await.failure(CREATE, &[], &[announced]).await;

    assert_status(&status, Code::InvalidArgument, "TOO_LARGE");
    let metadata = status.get_details_error_info().unwrap().metadata;
    assert_eq!((metadata["limit"].as_str(), metadata["actual"].as_str()), ("4194304", "2147483647"));
}

#[tokio::test]
async fn a_message_as_large_as_allowed_is_taken() {
    let server = Server::start().await;
    // A tag and a length of 4 bytes come before the name.
    let largest = create(&"x".repeat(Limits::default().message_bytes_max - 5));
    server.client().await.create(largest).await.unwrap();

    let larger = create(&"x".repeat(Limits::default().message_bytes_max - 4));
    assert_status(&server.client().await.create(larger).await.unwrap_err(), Code::InvalidArgument, "TOO_LARGE");
}

#[tokio::test]
async fn a_unary_call_takes_exactly_one_message() {
    let server = Server::start().await;
    let raw = server.raw().await;
    for body in [vec![], vec![framed(&create("b")); 2], vec![framed(&create("b")).slice(..6)]] {
        assert_status(&raw.failure(CREATE, &[], &body).await, Code::InvalidArgument, "INVALID_MESSAGE");
    }
    assert_eq!(server.stage.begun.load(Relaxed), 0);
}

#[tokio::test]
async fn a_stream_takes_many_messages_and_passes_on_those_before_a_fault() {
    let server = Server::start().await;
    let message = framed(&pb::PipelineRequest::default());
    let answer = server.raw().await.call(PIPELINE, &[], &[message.clone(), message.clone(), message.slice(..3)]).await;

    assert_eq!(answer.body, framed(&pb::PipelineResponse::default()).repeat(2));
    assert_status(&answer.status.unwrap(), Code::InvalidArgument, "INVALID_MESSAGE");
}

#[tokio::test]
async fn bytes_that_are_no_message_are_an_invalid_message() {
    let server = Server::start().await;
    let garbage = Bytes::from_static(&[0, 0, 0, 0, 2, 0xff, 0xff]);
    assert_status(&server.raw().await.failure(CREATE, &[], &[garbage]).await, Code::InvalidArgument, "INVALID_MESSAGE");
}

#[tokio::test]
async fn compression_is_refused_in_words() {
    let server = Server::start().await;
    let status = server.raw().await.failure(CREATE, &[("grpc-encoding", "gzip")], &[framed(&create("b"))]).await;

    assert_status(&status, Code::Unimplemented, "UNIMPLEMENTED");
    assert!(status.message().contains("compressed"), "{status:?}");
}

#[tokio::test]
async fn what_is_not_grpc_is_told_so_in_http() {
    let server = Server::start().await;
    let answer = server.raw().await.call("/", &[("content-type", "text/html")], &[]).await;
    assert_eq!(answer.http, http::StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn an_unknown_service_is_told_which_there_are() {
    let server = Server::start().await;
    let status = server.raw().await.failure("/pail.v2.BucketService/Get", &[], &[]).await;

    assert_status(&status, Code::Unimplemented, "UNIMPLEMENTED");
    for name in ["pail.v1.BucketService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(status.message().contains(name), "{status:?}");
    }
}

#[tokio::test]
async fn an_unknown_method_is_told_which_there_are() {
    let server = Server::start().await;
    let status = server.raw().await.failure("/pail.v1.BucketService/Destroy", &[], &[]).await;

    assert_status(&status, Code::Unimplemented, "UNIMPLEMENTED");
    assert!(status.message().contains("Create, Delete"), "{status:?}");
}

// Health and reflection.

#[tokio::test]
async fn health_knows_the_server_and_its_service() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel().await);

    for service in ["", "pail.v1.BucketService"] {
        assert_eq!(health.check(check(service)).await.unwrap().into_inner().status(), ServingStatus::Serving);
    }
    assert_status(&health.check(check("other")).await.unwrap_err(), Code::NotFound, "SERVICE_UNKNOWN");
    let mut names: Vec<_> =
        health.list(HealthListRequest {}).await.unwrap().into_inner().statuses.into_keys().collect();
    names.sort();
    assert_eq!(names, ["", "pail.v1.BucketService"]);
}

#[tokio::test]
async fn health_watchers_hear_of_the_drain_and_do_not_hold_it_up() {
    let mut server = Server::start().await;
    let mut health = HealthClient::new(server.channel().await);
    let mut known = health.watch(check("")).await.unwrap().into_inner();
    let mut unknown = health.watch(check("other")).await.unwrap().into_inner();
    assert_eq!(soon(known.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(soon(unknown.message()).await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);

    server.stop();
    assert_eq!(soon(known.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_status(&soon(known.message()).await.unwrap_err(), Code::Unavailable, "DRAINING");
    assert_status(&soon(unknown.message()).await.unwrap_err(), Code::Unavailable, "DRAINING");
    server.stopped().await;
}

#[tokio::test]
async fn reflection_of_both_versions_lists_the_service() {
    macro_rules! services {
        ($channel:expr, $version:ident) => {{
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let message_request = Some(MessageRequest::ListServices(String::new()));
            let request = ServerReflectionRequest { host: String::new(), message_request };
            let requests = futures_util::stream::iter([request]);
            let responses = ServerReflectionClient::new($channel).server_reflection_info(requests).await.unwrap();
            match responses.into_inner().message().await.unwrap().unwrap().message_response.unwrap() {
                MessageResponse::ListServicesResponse(list) => {
                    list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
                }
                other => panic!("{other:?}"),
            }
        }};
    }
    let server = Server::start().await;
    for names in [services!(server.channel().await, v1), services!(server.channel().await, v1alpha)] {
        assert!(names.iter().any(|name| name == "pail.v1.BucketService"), "{names:?}");
    }
}

// The drain.

#[tokio::test]
async fn an_admitted_call_finishes_while_later_ones_are_told_that_the_server_drains() {
    let mut server = Server::start().await;
    let mut client = server.client().await;
    let mut health = HealthClient::new(server.channel().await);
    let mut news = health.watch(check("")).await.unwrap().into_inner();
    let mut admitted = client.clone();
    let admitted = tokio::spawn(async move { admitted.create(create("wait")).await });
    told(&server.stage.entered).await;

    server.stop();
    // Health turns before the gate closes, in one step of one task: by the stream's end both have happened.
    while soon(news.next()).await.is_some_and(|news| news.is_ok()) {}
    assert_status(&soon(client.create(create("late"))).await.unwrap_err(), Code::Unavailable, "DRAINING");
    assert_status(&soon(client.watch(watch("late"))).await.unwrap_err(), Code::Unavailable, "DRAINING");
    let health = soon(health.check(check(""))).await.unwrap().into_inner();
    assert_eq!(health.status(), ServingStatus::NotServing);
    assert_eq!(server.stage.begun.load(Relaxed), 1, "what is refused is not executed");

    server.stage.leave.add_permits(1);
    soon(admitted).await.unwrap().expect("an admitted call finishes");
    let stage = server.stage.clone();
    server.stopped().await;
    assert_eq!(stage.waiting_at_drain.load(Relaxed), 0, "the application is drained after the calls");
}

#[tokio::test]
async fn an_answer_that_is_read_slowly_arrives_whole_though_the_server_drains() {
    let mut server = Server::with(Limits::default(), Duration::from_secs(20)).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async { drop(connection.await) });
    let request = http::Request::post(format!("http://server{CREATE}")).header("content-type", "application/grpc");
    let (response, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(framed(&create("large")), true).unwrap();
    let mut answer = soon(response).await.unwrap().into_body();
    let mut bytes = soon(answer.data()).await.unwrap().unwrap().len();

    server.stop();
    // Windows of 64 KiB, a frame of 16 KiB in a while: a client far away, which takes well over GOODBYE twice.
    let mut held = bytes;
    loop {
        tokio::time::sleep(Duration::from_millis(25)).await;
        answer.flow_control().release_capacity(std::mem::take(&mut held)).unwrap();
        let Some(chunk) = soon(answer.data()).await else { break };
        held = chunk.expect("the answer is not cut").len();
        bytes += held;
    }
    assert!(bytes > 1 << 20);
    assert!(soon(answer.trailers()).await.unwrap().is_some_and(|trailers| trailers["grpc-status"] == "0"));
    drop(send);
    server.stopped().await;
}

#[tokio::test]
async fn an_open_stream_is_told_by_the_application_and_does_not_hold_the_drain_up() {
    let mut server = Server::start().await;
    let mut stream = server.client().await.watch(watch("drain")).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());

    server.stop();
    assert_status(&soon(stream.message()).await.unwrap_err(), Code::Unavailable, "DRAINING");
    server.stopped().await;
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_hold_the_drain_up() {
    const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, frame::SETTINGS, 0, 0, 0, 0, 0];
    let mut server = Server::start().await;
    let mut clients = Vec::new();
    for said in [&[][..], b"PRI", frame::PREFACE, &[frame::PREFACE, EMPTY_SETTINGS].concat()] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(said).await.unwrap();
        clients.push(client);
    }
    // A whole exchange after them, so that they have been accepted.
    server.client().await.create(create("b")).await.unwrap();

    server.stop();
    server.stopped().await;
    for mut client in clients {
        // What the server said, and then the end; or a reset, where it had not read what the client said.
        drop(soon(client.read_to_end(&mut Vec::new())).await);
    }
}

/// Time runs by itself wherever all wait for it.
#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_half_a_greeting_is_let_go_after_ten_seconds() {
    let server = Server::here().await;
    for said in [&b""[..], b"PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(said).await.unwrap();
        let since = tokio::time::Instant::now();
        let mut answer = Vec::new();
        drop(client.read_to_end(&mut answer).await);
        let waited = since.elapsed();
        assert!((9..=11).contains(&waited.as_secs()), "{said:?}: {waited:?}");
    }
}

#[tokio::test]
async fn a_stream_that_does_not_end_is_cut_at_the_drain_timeout() {
    let mut server = Server::with(Limits::default(), Duration::from_millis(400)).await;
    let mut stream = server.client().await.watch(watch("wait")).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    told(&server.stage.entered).await;

    server.stop();
    let stage = server.stage.clone();
    server.stopped().await;
    assert!(soon(stream.message()).await.is_err(), "a cut is no good end");
    told(&stage.dropped).await;
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_at_the_drain_timeout() {
    let mut server = Server::with(Limits::default(), Duration::from_millis(400)).await;
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.create(create("wait")).await });
    told(&server.stage.entered).await;

    server.stop();
    let stage = server.stage.clone();
    server.stopped().await;
    assert!(soon(call).await.unwrap().is_err());
    assert_eq!(stage.waiting_at_drain.load(Relaxed), 1, "the application is drained all the same");
    told(&stage.dropped).await;
}

// Connections.

#[tokio::test]
async fn a_connection_past_the_bound_waits_for_one_to_end() {
    let server = Server::with(Limits { connections_max: 1, ..Limits::default() }, Duration::from_secs(60)).await;
    let mut first = server.client().await;
    first.create(create("b")).await.unwrap();

    let mut stream = first.watch(watch("wait")).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let second = tokio::spawn({
        let channel =
            tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect_lazy();
        async move { HealthClient::new(channel).check(check("")).await }
    });
    first.create(create("b")).await.unwrap();
    assert!(!second.is_finished());

    drop((first, stream));
    soon(second).await.unwrap().expect("it is its turn");
}

#[tokio::test]
async fn a_connection_without_a_call_is_closed_in_time_and_one_with_a_stream_is_kept() {
    let idle_max = Duration::from_secs(1);
    let server =
        Server::with(Limits { connection_idle_max: idle_max, ..Limits::default() }, Duration::from_secs(60)).await;
    let mut busy = server.client().await.watch(watch("wait")).await.unwrap().into_inner();
    assert!(busy.message().await.unwrap().is_some());

    let stream = TcpStream::connect(server.address).await.unwrap();
    let (_send, connection) = h2::client::handshake(stream).await.unwrap();
    let since = std::time::Instant::now();
    // GOAWAY and then the end, which is no error.
    soon(connection).await.unwrap();
    assert!(since.elapsed() >= idle_max, "{:?}", since.elapsed());

    server.stage.leave.add_permits(1);
    assert!(soon(busy.message()).await.unwrap().is_some(), "it outlived the other");
}
