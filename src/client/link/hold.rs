//! A bucket that is held: the Link stream, its pings, its move to another stream, and how it is lost.

use std::time::Duration;

use futures_util::stream;
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
        error::{EXIT_NO_ANSWER, EXIT_REFUSED, Error, refusal},
        json::reason_name,
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
        let fence = Fence::new(times.lease, times.grace, sent);
        if now() >= fence.term_at() {
            return Err(time_is_up()); // the answer was so slow that the lease is nearly over
        }
        Ok(Self { linked, stream, fence, times })
    }

    /// Holds the bucket for as long as it can be held.
    pub(super) async fn lost(&mut self, options: &Options) -> Lost {
        let mut ping_at = now() + self.fence.ping_interval();
        loop {
            let wake_at = ping_at.min(self.fence.term_at());
            tokio::select! {
                answer = self.stream.answers.message() => match answer {
                    Ok(Some(answer)) => match answer.response {
                        Some(Response::Exit(exit)) => return self.ended(&exit),
                        Some(Response::Moving(_)) => {
                            if let Err(why) = self.move_on(options).await {
                                return self.severed(&why, options);
                            }
                        }
                        _ => self.fence.prove(Duration::from_micros(answer.id)),
                    },
                    Ok(None) => return self.severed(&stream_ended().into(), options),
                    Err(status) => return self.severed(&status.into(), options),
                },
                () = sleep(wake_at.saturating_sub(now())) => {
                    let now = now();
                    if now >= self.fence.term_at() {
                        return self.fenced(now);
                    }
                    if now >= ping_at {
                        self.stream.ping();
                        ping_at = now + self.fence.ping_interval();
                    }
                }
            }
        }
    }

    /// Takes the link over, from a stream that the server is about to end. Where the server itself goes, this fails,
    /// and the buckets go with it.
    async fn move_on(&mut self, options: &Options) -> Result<(), Error> {
        let Linked { bucket, bucket_id, link_id } = self.linked.clone();
        let (bucket_id, link_id) = (Some(bucket_id), Some(link_id));
        let ask = LinkBucket { bucket, bucket_id, mode: LinkMode::MustExist.into(), link_id, ttl: None };
        let taking_over = async {
            // The command holds the old socket and not this one: from here on a kill is noticed before the command is
            // gone.
            let Connection { client, .. } = Connection::open(options).await?;
            link(client, ask, self.times.lease, options).await
        };
        let left = self.fence.term_at().saturating_sub(now());
        let answered = timeout(left, taking_over).await.unwrap_or_else(|_| Err(time_is_up()))?;
        (self.stream, self.linked) = (answered.stream, answered.linked);
        self.fence.prove(answered.sent);
        Ok(())
    }

    /// Somebody ended the bucket, or its time did. The name is free already; the grace is for the command's sake.
    fn ended(&self, exit: &LinkExit) -> Lost {
        let reason = reason_name(exit.reason());
        let detail = if exit.detail.is_empty() { String::new() } else { format!(", {}", Escaped(&exit.detail)) };
        self.lose(&format!("it went down with {reason}{detail}"), EXIT_REFUSED, now() + self.times.grace)
    }

    /// What we know of, the server does too, and gives the name away at once: there is no time left.
    fn severed(&self, why: &Error, options: &Options) -> Lost {
        self.lose(&why.words(options), EXIT_NO_ANSWER, now())
    }

    /// Nobody knows whether the server still hears us. Until the lease is over it counts us as alive.
    fn fenced(&self, now: Duration) -> Lost {
        let silence = now.saturating_sub(self.fence.proven());
        self.lose(&format!("no answer for {} ms", silence.as_millis()), EXIT_NO_ANSWER, self.fence.kill_at())
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
                None => return Err(stream_ended()),
            }
        }
    };
    let (answers, linked) = timeout(options.timeout, linking).await.map_err(|_| time_is_up())??;
    Ok(Answered { stream: Stream { client, requests, answers }, linked, sent })
}

fn stream_ended() -> Status {
    Status::unavailable("the server ended the stream")
}

fn time_is_up() -> Error {
    Status::deadline_exceeded("no answer in time").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake;

    const TIMES: Times = Times { lease: Duration::from_secs(15), grace: Duration::from_secs(5) };

    /// How a hold of this bucket is lost: in words, and whether the command has a moment to end.
    async fn lost(bucket: &str) -> (String, bool) {
        let options = fake::serve().await;
        let Connection { client, .. } = Connection::open(&options).await.unwrap();
        let ask = LinkBucket { bucket: bucket.to_owned(), mode: LinkMode::MustCreate.into(), ..LinkBucket::default() };
        let mut hold = Hold::take(client, ask, TIMES, &options).await.unwrap();
        let lost = hold.lost(&options).await;
        (lost.why.words(&options), lost.until > now())
    }

    #[tokio::test]
    async fn a_link_that_moves_is_taken_over_by_its_id() {
        let expected = "bucket \"moves\" (7) is lost, and the command was ended: it went down with KILLED, \
                        the heir of link 3 to bucket 7";
        assert_eq!(lost("moves").await, (expected.to_owned(), true));
    }

    #[tokio::test]
    async fn a_link_that_nobody_takes_over_is_lost_at_once() {
        let expected = "bucket \"stays\" (7) is lost, and the command was ended: the server is draining (DRAINING)";
        assert_eq!(lost("stays").await, (expected.to_owned(), false));
    }
}
