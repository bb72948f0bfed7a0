//! A bucket that is held: the Link stream, its pings, its move to another stream, and how it is lost.

use std::{
    future::{Future, pending},
    pin::Pin,
    time::Duration,
};

use futures_util::stream;
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::{Status, Streaming};

use super::{
    connection::Connection,
    fence::{Fence, now},
};
use crate::{
    client::{
        backoff::Backoff,
        error::{EXIT_REFUSED, Error},
        options::{Client, Options},
        output::Escaped,
    },
    pb::{
        LinkBucket, LinkExit, LinkHello, LinkMode, LinkPing, LinkRequest, LinkResponse, Linked, Reason, StopRequest,
        link_request::Request, link_response::Response,
    },
};

/// Requests that wait for HTTP/2 to take them. A ping that finds no room is not sent, and so proves nothing.
const REQUESTS_MAX: usize = 4;

/// How long a client may be silent, and how long its command may take to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) lease: Duration,
    pub(super) grace: Duration,
}

/// A linked bucket. Dropped without a good-bye, it goes down with NOCONNECTION.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) linked: Linked,
    stream: Stream,
    fence: Fence,
    times: Times,
}

/// Why a bucket is held no more, and until when the command may live.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) why: Error,
    pub(super) until: Duration,
}

/// Both directions of a Link.
#[derive(Debug)]
struct Stream {
    client: Client,
    requests: mpsc::Sender<LinkRequest>,
    answers: Streaming<LinkResponse>,
}

/// A link, and when it was asked for.
#[derive(Debug)]
struct Answered {
    stream: Stream,
    linked: Linked,
    sent: Duration,
}

impl Hold {
    /// Links to a bucket.
    pub(super) async fn take(client: Client, ask: LinkBucket, times: Times, options: &Options) -> Result<Self, Error> {
        let Answered { stream, linked, sent } = link(client, ask, times.lease, options).await?;
        Ok(Self { linked, stream, fence: Fence::new(times.lease, times.grace, sent), times })
    }

    /// Holds the bucket for as long as it can be held.
    pub(super) async fn lost(&mut self, options: &Options) -> Lost {
        // The server lets go of the stream, and waits for another one to take the link over.
        let mut next: Pin<Box<dyn Future<Output = Result<Answered, Error>>>> = Box::pin(pending());
        let (mut is_moving, mut is_open) = (false, true);
        let mut ping_at = now() + self.fence.ping_interval();
        loop {
            let wake_at = ping_at.min(self.fence.term_at());
            tokio::select! {
                answer = self.stream.answers.message(), if is_open => match answer {
                    Ok(Some(LinkResponse { response: Some(Response::Exit(exit)), .. })) => return self.ended(&exit),
                    Ok(Some(LinkResponse { response: Some(Response::Moving(_)), .. })) => {
                        is_moving = true;
                        next = Box::pin(take_over(self.linked.clone(), self.times.lease, options));
                    }
                    Ok(Some(answer)) => self.fence.prove(Duration::from_micros(answer.id)),
                    _ if is_moving => is_open = false,
                    Ok(None) => return self.severed(&Status::unavailable("the server ended the stream").into(), options),
                    Err(status) => return self.severed(&status.into(), options),
                },
                answered = &mut next => match answered {
                    Ok(Answered { stream, linked, sent }) => {
                        (self.stream, self.linked) = (stream, linked);
                        self.fence.prove(sent);
                        next = Box::pin(pending());
                        (is_moving, is_open) = (false, true);
                    }
                    Err(why) => return self.fenced(&why.words(options), why.exit_code()),
                },
                () = sleep(wake_at.saturating_sub(now())) => {
                    let now = now();
                    if now >= self.fence.term_at() {
                        let why = Error::from(Status::unavailable(format!("silent for {:?}", now - self.fence.proven())));
                        return self.fenced(&why.words(options), why.exit_code());
                    }
                    if now >= ping_at {
                        self.stream.ping();
                        ping_at = now + self.fence.ping_interval();
                    }
                }
            }
        }
    }

    /// Somebody ended the bucket, or its time did. The name is free already; the grace is for the command's sake.
    fn ended(&self, exit: &LinkExit) -> Lost {
        let reason = exit.reason().as_str_name().trim_start_matches("REASON_");
        let detail = if exit.detail.is_empty() { String::new() } else { format!(", {}", Escaped(&exit.detail)) };
        self.lose(&format!("it went down with {reason}{detail}"), EXIT_REFUSED, now() + self.times.grace)
    }

    /// The server sees the end of the connection too, and then the name is free at once: there is no time left.
    fn severed(&self, why: &Error, options: &Options) -> Lost {
        self.lose(&why.words(options), why.exit_code(), now())
    }

    /// Nobody knows whether the server still counts us as alive; it does until the lease is over.
    fn fenced(&self, why: &str, exit_code: u8) -> Lost {
        self.lose(why, exit_code, self.fence.kill_at())
    }

    fn lose(&self, why: &str, exit_code: u8, until: Duration) -> Lost {
        let Linked { bucket, bucket_id, .. } = &self.linked;
        let words = format!("bucket {bucket:?} ({bucket_id}) is lost, and the command was ended: {why}");
        Lost { why: Error::Aborted { words, exit_code }, until }
    }

    /// Ends the bucket: this one, and no later one of its name.
    pub(super) async fn stop(&mut self, reason: Reason, detail: String, options: &Options) -> Result<(), Error> {
        let Linked { bucket, bucket_id, .. } = self.linked.clone();
        let request = StopRequest { bucket, bucket_id: Some(bucket_id), reason: reason.into(), detail };
        self.stream.client.stop(options.request(request)).await?;
        Ok(())
    }

    /// Takes the link away and leaves the bucket as it is.
    pub(super) async fn good_bye(self, options: &Options) -> Result<(), Error> {
        let Stream { requests, mut answers, .. } = self.stream;
        drop(requests);
        let end = async {
            while answers.message().await?.is_some() {}
            Ok(())
        };
        timeout(options.timeout, end).await.unwrap_or_else(|_| Err(time_is_up()))
    }
}

impl Stream {
    fn ping(&self) {
        self.requests.try_send(request(now(), Request::Ping(LinkPing {}))).ok(); // not sent, not answered
    }
}

/// A request whose number is when it was sent. So whatever answers it says up to when the server has heard us.
fn request(sent: Duration, request: Request) -> LinkRequest {
    LinkRequest { id: u64::try_from(sent.as_micros()).unwrap_or_default(), request: Some(request) }
}

/// Opens a stream and links to a bucket, within the timeout.
async fn link(mut client: Client, ask: LinkBucket, lease: Duration, options: &Options) -> Result<Answered, Error> {
    let (requests, mut waiting) = mpsc::channel(REQUESTS_MAX);
    let hello = LinkHello { trap_exit: true, lease: lease.try_into().ok() };
    let sent = now();
    for first in [Request::Hello(hello), Request::Link(ask)] {
        requests.try_send(request(sent, first)).ok(); // there is room
    }
    let linking = async {
        let mut answers = client.link(stream::poll_fn(move |cx| waiting.poll_recv(cx))).await?.into_inner();
        loop {
            match answers.message().await?.map(|answer| answer.response) {
                Some(Some(Response::Linked(linked))) => return Ok((answers, linked)),
                Some(Some(Response::Error(status))) => return Err(refusal(&status)),
                Some(_) => {} // a heartbeat; or that it moves, and then the end says why
                None => return Err(Status::unavailable("the server ended the stream")),
            }
        }
    };
    let (answers, linked) = timeout(options.timeout, linking).await.map_err(|_| time_is_up())??;
    Ok(Answered { stream: Stream { client, requests, answers }, linked, sent })
}

/// Takes a link over from a stream that the server has ended, at the first attempt that is answered.
async fn take_over(linked: Linked, lease: Duration, options: &Options) -> Result<Answered, Error> {
    let Linked { bucket, bucket_id, link_id } = linked;
    let (bucket_id, link_id) = (Some(bucket_id), Some(link_id));
    let ask = LinkBucket { bucket, bucket_id, mode: LinkMode::MustExist.into(), link_id, ttl: None };
    let mut backoff = Backoff::default();
    loop {
        let attempt = async {
            // The command holds the old socket and not this one: after a move, a kill is told a moment earlier.
            let Connection { client, .. } = Connection::open(options).await?;
            link(client, ask.clone(), lease, options).await
        };
        match attempt.await {
            Err(error) if error.may_pass() => sleep(backoff.next()).await,
            answer => return answer,
        }
    }
}

/// The answer to one request, as the error that it would be by itself.
fn refusal(status: &tonic_types::Status) -> Status {
    Status::with_details(status.code.into(), status.message.clone(), status.encode_to_vec().into())
}

fn time_is_up() -> Error {
    Status::deadline_exceeded("no answer in time").into()
}
