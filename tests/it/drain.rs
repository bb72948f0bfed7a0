//! The end of a server: nobody is left without an answer, and nobody holds it up.

use std::time::Duration;

use pail::{
    hooks::PANIC,
    limits::Limits,
    pb::{
        self, Reason,
        health::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient},
        watch_response::Response,
    },
    serve::Ended,
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tonic::Code;

use super::{
    raw::{Raw, RawCall, framed},
    support::{Server, Watching, ends_refused, prefix, put, refused, soon, timed, until, why},
};

/// A Put that is let in and whose message is not whole: the drain waits for it.
async fn admitted(raw: &Raw) -> (RawCall, bytes::Bytes) {
    let frame = framed(&put("b", "k", "v"));
    let mut call = raw.begin("Put", &[]).await;
    call.send(frame.slice(..4));
    // The server takes the calls of a connection in their order: this one is answered, so that one is in.
    raw.call("List", &[], framed(&pb::ListRequest::default())).await.into_result().unwrap();
    (call, frame.slice(4..))
}

#[tokio::test]
async fn while_it_drains_admitted_calls_finish_and_new_ones_are_refused() {
    let mut server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let raw = Raw::connect(&server).await;
    let (mut call, rest) = admitted(&raw).await;
    let before = server.registry.revision();
    let mut health = HealthClient::new(client.channel());
    let mut news = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(soon(news.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);

    server.shut_down();

    assert_eq!(soon(news.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    soon(news.message()).await.unwrap_err();
    // Health turns first, so that nobody is sent here any more; the gate closes a moment later.
    until(async || client.lookup("b").await.err()).await;
    let status = soon(health.check(HealthCheckRequest::default())).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::NotServing);
    for result in [
        client.create("c").await.map(drop),
        client.lookup("b").await.map(drop),
        client.put("b", "other", "v").await.map(drop),
        client.watch(prefix("")).await.map(drop),
        server.client().await.stop("b").await.map(drop),
    ] {
        let details = refused(result, Code::Unavailable, "DRAINING", &[]);
        assert!(details.retry_info().unwrap().retry_delay.is_some());
    }
    assert_eq!(server.registry.revision(), before, "what is refused is not executed");

    call.send(rest);
    call.end();
    call.answer().await.into_result().expect("what was let in finishes");
    assert_eq!(server.ended().await, Ended::Asked);
}

#[tokio::test]
async fn watchers_hear_of_every_death_and_then_that_the_server_goes() {
    let mut server = Server::start();
    let client = server.client().await;
    for name in ["a", "b", "c"] {
        client.created(name).await;
    }
    let mut watching = client.watch_prefix("").await;
    for _ in 0..3 {
        watching.creation().await;
    }
    watching.synced().await;
    let mut of_nobody = client.watch_prefix("nobody/").await;
    of_nobody.synced().await;

    server.shut_down();

    for name in ["a", "b", "c"] {
        assert_eq!(why(&watching.down().await), (name, Reason::Shutdown, ""));
    }
    ends_draining(&mut watching).await;
    ends_draining(&mut of_nobody).await;
    assert_eq!(server.ended().await, Ended::Asked);
    assert_eq!((server.registry.charged_bytes(), server.registry.monitors()), (0, 0));
}

async fn ends_draining(watching: &mut Watching) {
    let response = watching.response().await;
    assert!(matches!(response, Ok(Some(Response::Draining(_)))), "{response:?}");
    ends_refused(watching, Code::Unavailable, "DRAINING", &[]).await;
}

#[tokio::test]
async fn a_watch_by_name_hears_shutdown_and_its_last_ref_has_fired() {
    let mut server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let (mut watching, refs) = client.watch_names(&["b"]).await;
    watching.synced().await;

    server.shut_down();

    let down = watching.down().await;
    assert_eq!((down.r#ref, why(&down)), (refs[0], ("b", Reason::Shutdown, "")));
    watching.ends_with_ok().await;
    assert_eq!(server.ended().await, Ended::Asked);
}

#[tokio::test]
async fn clients_that_say_nothing_and_watches_that_are_not_read_do_not_hold_it_up() {
    let mut server = Server::start();
    let client = server.client().await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let mut halting = TcpStream::connect(server.address).await.unwrap();
    halting.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let raw = Raw::connect(&server).await;
    let mut call = raw.begin("Watch", &[]).await;
    call.send(framed(&prefix("")));
    call.end();
    let _unread = call.unread().await;
    let _open = client.watch_prefix("").await;
    client.created("b").await;

    let (ended, took) = timed(async {
        server.shut_down();
        server.ended().await
    })
    .await;

    assert_eq!(ended, Ended::Asked);
    assert!(took < Duration::from_secs(5), "well within the drain timeout of 10 s: {took:?}");
}

#[tokio::test]
async fn a_watch_that_is_stuck_is_cut_at_the_drain_timeout() {
    let mut server = Server::draining_within(Duration::from_secs(1), Limits::default());
    server.announce("the drain timeout has passed");
    let client = server.client().await;
    let raw = Raw::with_window(&server, 16).await;
    let mut call = raw.begin("Watch", &[]).await;
    call.send(framed(&prefix("")));
    call.end();
    let _unread = call.unread().await;
    client.created("b").await;

    let (ended, took) = timed(async {
        server.shut_down();
        server.ended().await
    })
    .await;

    assert_eq!(ended, Ended::Asked);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_registry_that_crashes_past_its_budget_ends_the_server() {
    let mut server = Server::start();
    server.announce("the registry crashed");
    server.announce("buckets could not be taken down one by one");
    let client = server.client().await;
    client.created("b").await;
    let mut watching = client.watch_prefix("").await;
    watching.creation().await;
    watching.synced().await;

    for n in 0..4 {
        let name = format!("{PANIC}{n}");
        refused(client.create(&name).await, Code::Internal, "PANIC", &[("bucket", &name)]);
    }

    // No bucket could be taken down one by one: `draining` itself says that each is down.
    ends_draining(&mut watching).await;
    assert_eq!(server.ended().await, Ended::GaveUp);
}
