//! Deadlines: a call that takes longer than its client waits is told so, and a stream is too.

use pail::pb;
use prost::Message as _;
use tonic::Code;

use super::{
    raw::{Raw, framed},
    support::{Server, names, prefix, put, refused, until},
};

#[tokio::test]
async fn a_unary_call_ends_at_its_deadline_and_changes_nothing() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let raw = Raw::connect(&server).await;
    let frame = framed(&put("b", "k", "v"));

    // Its message never comes whole.
    let mut call = raw.begin("Put", &[("grpc-timeout", "50m")]).await;
    call.send(frame.slice(..frame.len() - 1));

    refused(call.answer().await.into_result(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED", &[]);
    assert_eq!(client.lookup("b").await.unwrap().version, 0);
}

#[tokio::test]
async fn a_deadline_that_has_passed_already_changes_nothing() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let raw = Raw::connect(&server).await;

    let answer = raw.call("Put", &[("grpc-timeout", "0n")], framed(&put("b", "k", "v"))).await;

    refused(answer.into_result(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED", &[]);
    assert_eq!(client.lookup("b").await.unwrap().version, 0);
}

#[tokio::test]
async fn a_watch_ends_at_its_deadline_with_what_was_sent_before_and_frees_its_monitors() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let raw = Raw::connect(&server).await;
    for request in [names(&["b"]), prefix("")] {
        let answer = raw.call("Watch", &[("grpc-timeout", "200m")], framed(&request)).await;

        assert!(answer.messages.len() >= 2, "started and synced came: {answer:?}");
        let first = pb::WatchResponse::decode(&*answer.messages[0]).unwrap().response;
        assert!(matches!(first, Some(pb::watch_response::Response::Started(_))), "{first:?}");
        refused(answer.into_result(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED", &[]);
    }
    until(async || (server.registry.monitors() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_timeout_that_is_none_is_refused() {
    let server = Server::start();
    let raw = Raw::connect(&server).await;
    for timeout in ["", "S", "1", "-1S", "1s", "123456789S", "1.5S"] {
        let answer = raw.call("List", &[("grpc-timeout", timeout)], framed(&pb::ListRequest::default())).await;
        refused(answer.into_result(), Code::InvalidArgument, "INVALID_OPTION", &[("field", "grpc-timeout")]);
    }
}
