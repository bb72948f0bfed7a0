//! The age of connections: a server has its clients move to new ones, and none of them misses anything.

use std::time::Duration;

use pail::{
    limits::Limits,
    pb::{
        self, LinkMode, Linked, PipelineOp, Reason, WatchRequest, event::Event, link_request::Request,
        link_response::Response as Said, pipeline_op::Op, watch_response::Response,
    },
};
use tokio::{
    sync::mpsc::{Sender, channel},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use super::{
    binary::{Running, pail},
    raw::{Raw, framed},
    support::{Client, Server, get, prefix, put, refused, soon, timed, until},
};

const AGE: Duration = Duration::from_millis(300);
const GRACE: Duration = Duration::from_millis(500);

fn server() -> Server {
    Server::with(Limits { connection_age_max: Some(AGE), connection_age_grace: GRACE, ..Limits::default() })
}

/// The revision to resume after, which a stream ends with that is to move.
#[track_caller]
fn resume_revision(status: &Status) -> u64 {
    let details = status.get_error_details();
    let info = details.error_info().expect("an error has an ErrorInfo");
    assert_eq!((status.code(), &*info.reason), (Code::Unavailable, "MOVING"), "{status:?}");
    info.metadata["resume_revision"].parse().unwrap()
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_on_connection_after_connection() {
    let server = server();
    let writer = server.client().await;
    let mut watching = server.client().await.watch_prefix("").await;
    let (mut moves, mut created) = (0, 0);
    while moves < 4 {
        let name = format!("bucket/{created}");
        // Again where a good-bye crosses the call: tonic says CANCELLED then of a call that it has not sent.
        until(async || writer.create(&name).await.ok()).await;
        created += 1;
        loop {
            match watching.response().await {
                Ok(Some(Response::Events(events))) => {
                    let [pb::Event { event: Some(Event::Created(event)) }] = &*events.events else {
                        panic!("{events:?}")
                    };
                    assert_eq!(event.bucket, name, "each once, in order, and none is missed");
                    break;
                }
                Ok(Some(_)) => {}
                Ok(None) => panic!("a watch of a prefix never ends with OK"),
                Err(status) => {
                    let revision = resume_revision(&status);
                    assert_eq!(revision, watching.revision, "it is the one that the last response had");
                    let request = WatchRequest { after_revision: Some(revision), ..prefix("") };
                    watching = server.client().await.watch(request).await.unwrap();
                    moves += 1;
                }
            }
        }
    }
    assert!(created > 4, "{created}");
}

/// Where the answer to GOAWAY crosses a call that tonic's client has begun and not sent, that client says so, and leaves the
/// second attempt to its user; others make it themselves.
fn was_never_sent(status: &Status) -> bool {
    status.code() == Code::Cancelled && format!("{status:?}").contains("connection closed")
}

#[tokio::test]
async fn a_unary_call_is_answered_or_was_never_sent() {
    let server = server();
    let client = server.client().await;
    client.created("b").await;
    let until = Instant::now() + 5 * AGE;
    let mut puts = 0;
    while Instant::now() < until {
        match client.put("b", "k", "v").await {
            Ok(_) => puts += 1,
            Err(status) => assert!(was_never_sent(&status), "{status:?}"),
        }
    }
    assert_eq!(client.get("b", "k").await.unwrap().entry.unwrap().version, puts, "what was done was answered");
}

/// A Link with its first answers.
struct Link {
    _requests: Sender<pb::LinkRequest>,
    answers: Streaming<pb::LinkResponse>,
}

impl Link {
    async fn open(client: &Client, bucket: pb::LinkBucket) -> Self {
        let (requests, waiting) = channel(4);
        requests.try_send(pb::LinkRequest { id: 1, request: Some(Request::Link(bucket)) }).unwrap();
        let answers = client.rpc().link(ReceiverStream::new(waiting)).await.unwrap().into_inner();
        Self { _requests: requests, answers }
    }

    async fn said(&mut self) -> Result<Said, Status> {
        Ok(soon(self.answers.message()).await?.expect("it goes on").response.unwrap())
    }

    async fn linked(&mut self) -> Linked {
        match self.said().await {
            Ok(Said::Linked(linked)) => linked,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_link_is_told_that_it_moves_and_the_next_stream_takes_it_over() {
    let server = server();
    let ask = pb::LinkBucket { bucket: "lock".into(), mode: LinkMode::MustCreate.into(), ..Default::default() };
    let mut link = Link::open(&server.client().await, ask).await;
    let Linked { bucket_id, link_id, .. } = link.linked().await;

    assert!(matches!(link.said().await, Ok(Said::Moving(_))));
    refused(link.said().await, Code::Unavailable, "MOVING", &[]);
    drop(link);
    let ask = pb::LinkBucket { bucket: "lock".into(), link_id: Some(link_id), ..Default::default() };
    let mut link = Link::open(&server.client().await, ask).await;
    assert_eq!(link.linked().await.bucket_id, bucket_id);

    // It is this stream's now, and lives and dies with it.
    let client = server.client().await;
    let mut revision = client.lookup("lock").await.unwrap().create_revision;
    drop(link);
    let down = loop {
        let request = WatchRequest { after_revision: Some(revision), ..prefix("lock") };
        let mut watching = server.client().await.watch(request).await.unwrap();
        watching.started().await;
        match watching.response().await {
            Ok(Some(Response::Events(events))) => break events.events.into_iter().next().unwrap().event.unwrap(),
            Ok(_) => {}
            Err(status) => revision = resume_revision(&status),
        }
    };
    let Event::Down(down) = down else { panic!("{down:?}") };
    assert_eq!((down.bucket_id, down.reason()), (bucket_id, Reason::Noconnection));
}

#[tokio::test]
async fn a_pipeline_ends_after_the_message_it_is_at() {
    let server = server();
    let client = server.client().await;
    client.created("b").await;
    let (requests, waiting) = channel(4);
    let mut answers = client.rpc().pipeline(ReceiverStream::new(waiting)).await.unwrap().into_inner();
    let mut done = 0;
    let end = loop {
        let ops = vec![PipelineOp { id: done, op: Some(Op::Put(put("b", "k", "v"))), ..Default::default() }];
        // Where it is over, nobody takes what is sent.
        drop(requests.try_send(pb::PipelineRequest { ops }));
        match soon(answers.message()).await {
            Ok(Some(response)) => done += u64::try_from(response.results.len()).unwrap(),
            Ok(None) => panic!("it ends with an error"),
            Err(status) => break status,
        }
    };
    refused(Err::<(), _>(end), Code::Unavailable, "MOVING", &[]);
    let client = server.client().await;
    assert_eq!(client.get("b", "k").await.unwrap().entry.unwrap().version, done, "what was not answered was not done");
}

#[tokio::test]
async fn who_does_not_go_is_cut_after_the_grace() {
    let server = server();
    server.client().await.created("b").await;
    let raw = Raw::connect(&server).await;
    let mut call = raw.begin("Get", &[]).await;
    call.send(framed(&get("b", "k")).slice(..4));
    let (end, took) = timed(call.cut_off()).await;
    assert!(end, "a call that is never whole does not keep its connection");
    assert!(took >= AGE * 9 / 10 + GRACE, "{took:?}: it had its grace");
}

#[tokio::test]
async fn the_watch_and_the_link_of_the_command_line_go_on_by_themselves() {
    let server = server();
    let run = |args: &[&str]| {
        let mut command = pail(args);
        command.env("PAIL_ADDR", server.address.to_string());
        command
    };
    let mut watch = Running::start(run(&["watch", "--prefix", "", "--verbose", "--exec", "cat >&2"]));
    watch.line("up to date");
    let mut link = Running::start(run(&["link", "lock", "--", "sh", "-c", "echo linked >&2; sleep 1"]));
    link.line("linked");
    let id = server.client().await.lookup("lock").await.unwrap().id;
    assert!(watch.line("created").contains(&id.to_string()));
    assert_eq!(link.code().await, 0, "the command has outlived three connections");
    let down = watch.line("down");
    assert!(down.contains(&id.to_string()) && down.contains("NORMAL"), "{down}");
    let moves = watch.seen.iter().filter(|line| line.contains("MOVING")).count();
    assert!(moves >= 2, "{:?}", watch.seen);
}
