//! A watcher that reads too slowly: nobody waits for it, and it is told where to go on.

use bytes::Bytes;
use pail::{
    limits::Limits,
    pb::{self, event::Event, watch_response::Response},
    registry::Watcher,
};
use prost::Message as _;
use tonic::Code;

use super::{
    raw::{Answer, Raw, framed},
    support::{Client, Server, prefix, refused},
};

/// Far more than the server holds for one stream.
const DEATHS: usize = 400;

/// Creates and stops buckets, each death with a detail of 1 KiB.
async fn churn(client: &Client, deaths: usize) {
    for n in 0..deaths {
        let bucket = format!("b{n}");
        client.created(&bucket).await;
        client.stop_with(pb::StopRequest { bucket, detail: "d".repeat(1_024), ..Default::default() }).await.unwrap();
    }
}

/// The revisions of the events that came, and of the last response.
fn revisions(answer: &Answer) -> (Vec<u64>, u64) {
    let mut events = Vec::new();
    let mut last = 0;
    for message in &answer.messages {
        let response = pb::WatchResponse::decode(&**message).unwrap();
        last = response.revision;
        if let Some(Response::Events(batch)) = response.response {
            events.extend(batch.events.into_iter().map(|event| match event.event {
                Some(Event::Created(created)) => created.revision,
                Some(Event::Down(down)) => down.revision,
                other => panic!("{other:?}"),
            }));
        }
    }
    (events, last)
}

fn is_synced(message: &Bytes) -> bool {
    matches!(pb::WatchResponse::decode(&**message).unwrap().response, Some(Response::Synced(_)))
}

#[tokio::test]
async fn a_watcher_that_lags_ends_with_the_revision_to_resume_from_and_no_writer_waited() {
    lags(Limits { history_events_max: 4, ..Limits::default() }).await;
    lags(Limits { history_bytes_max: 4_096, ..Limits::default() }).await;
}

async fn lags(limits: Limits) {
    let server = Server::with(limits);
    let client = server.client().await;
    // It may lag before it is sent anything of the churn; this one it is sent in any case.
    client.created("there").await;
    let raw = Raw::with_window(&server, 1_024).await;
    let mut call = raw.begin("Watch", &[]).await;
    call.send(framed(&prefix("")));
    call.end();
    let mut unread = call.unread().await;
    // Within a snapshot there would be nothing to resume.
    let mut first = Vec::new();
    while !first.last().is_some_and(is_synced) {
        first.push(unread.message().await.expect("it goes on"));
    }

    churn(&client, DEATHS).await;
    let mut answer = unread.read().await;
    answer.messages.splice(0..0, first);

    let (events, last) = revisions(&answer);
    assert!(events.len() < 2 * DEATHS, "there was more than it was sent");
    assert!(events.is_sorted_by(|a, b| a + 1 == *b), "what came has no hole: {events:?}");
    assert_eq!(events.last(), Some(&last));
    let facts = [("resume_revision", &*last.to_string())];
    refused(answer.into_result(), Code::ResourceExhausted, "WATCHER_LAGGED", &facts);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_loses_nothing_while_the_history_holds_it() {
    let server = Server::start();
    let client = server.client().await;
    let raw = Raw::with_window(&server, 1_024).await;
    let mut call = raw.begin("Watch", &[]).await;
    call.send(framed(&prefix("")));
    call.end();
    let unread = call.unread().await;

    churn(&client, DEATHS).await;
    // Meanwhile operators can see which one it is.
    let behind = |watcher: Watcher| (watcher.lag > 0).then_some(watcher.peer);
    assert_eq!(server.registry.watchers().into_iter().filter_map(behind).collect::<Vec<_>>(), [Some(raw.address)]);
    let mut server = server;
    server.shut_down();
    let answer = unread.read().await;

    let (events, _) = revisions(&answer);
    assert_eq!(events.len(), 2 * DEATHS);
    assert!(events.is_sorted_by(|a, b| a + 1 == *b), "no hole");
    refused(answer.into_result(), Code::Unavailable, "DRAINING", &[]);
}

#[tokio::test]
async fn a_watcher_by_name_that_does_not_read_gets_every_down_in_the_end() {
    let server = Server::with(Limits { history_events_max: 4, ..Limits::default() });
    let client = server.client().await;
    let names: Vec<_> = (0..DEATHS).map(|n| format!("b{n}")).collect();
    for name in &names {
        client.created(name).await;
    }
    let raw = Raw::with_window(&server, 1_024).await;
    let mut call = raw.begin("Watch", &[]).await;
    call.send(framed(&pb::WatchRequest { buckets: names.clone(), ..Default::default() }));
    call.end();
    let unread = call.unread().await;

    for bucket in names {
        client.stop_with(pb::StopRequest { bucket, detail: "d".repeat(1_024), ..Default::default() }).await.unwrap();
    }
    let answer = unread.read().await;

    assert_eq!(revisions(&answer).0.len(), DEATHS);
    answer.into_result().expect("after the last DOWN it ends with OK");
}
