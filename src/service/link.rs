//! Link: a client's process with heartbeats and a lease, as a stream of responses.
//!
//! No request is read while a response waits to be taken, so a client that does not read costs no more than its links. The
//! client's process ends on every way out of the stream: see [`Life`].

use std::{
    collections::HashMap,
    fmt, mem,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream};
use http::Extensions;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, Sleep, sleep, sleep_until},
};
use tonic::Status;

use super::{
    Buckets,
    access::{Kind, Standing},
    convert::{Subject, duration, to_exit, ttl},
    status::{Failure, Reason},
    streams::Permit,
};
use crate::{
    auth::Verb,
    bucket::Begin,
    limits::{LEASE_DEFAULT, LEASE_MAX, LEASE_MIN},
    link::{End, Life, LinkError, Linked, News, Trap},
    pb::{self, LinkMode, link_request::Request, link_response::Response},
    process,
    registry::{Mode, Target},
};

/// What the Link streams of a server share.
pub(super) struct Links {
    /// The server goes. Said first, and for those who end buckets; then to the streams, by `drain`.
    moving: Arc<AtomicBool>,
    drain: watch::Sender<bool>,
    /// The links of streams that the server ended, by their ids, until they are taken over or their lease is over. Who holds
    /// the lock may call clients, and nobody else takes it.
    kept: Mutex<HashMap<u64, Kept>>,
}

struct Kept {
    linked: Linked,
    /// Weak: a task keeps it for the time of its lease.
    life: Weak<Life>,
}

impl Default for Links {
    fn default() -> Self {
        Self { moving: Arc::default(), drain: watch::Sender::new(false), kept: Mutex::default() }
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Links({} kept)", self.kept.lock().len())
    }
}

impl Links {
    /// Tells every Link stream, those to come included, that the server goes. From now on no end of a bucket ends a client.
    pub(super) fn drain(&self) {
        self.moving.store(true, Ordering::Release);
        self.drain.send_replace(true);
    }

    /// Keeps a client without its stream for the time of its lease, and then counts it as lost.
    fn keep(self: &Arc<Self>, life: Arc<Life>, lease: Duration) {
        if life.trap(Trap::Exits).is_err() {
            return;
        }
        let links = life.links();
        let ids: Vec<u64> = links.iter().map(|linked| linked.link).collect();
        let keep = |linked: Linked| (linked.link, Kept { linked, life: Arc::downgrade(&life) });
        self.kept.lock().extend(links.into_iter().map(keep));
        let all = Arc::clone(self);
        tokio::spawn(async move {
            sleep(lease).await;
            life.lose("nobody took the link over within its lease");
            let mut kept = all.kept.lock();
            for id in ids {
                kept.remove(&id);
            }
        });
    }

    /// Moves a link that is kept to the client `to`. `None` where there is none of this id and bucket.
    fn take_over(
        &self,
        link: u64,
        target: Target<'_>,
        to: &Life,
    ) -> Result<Option<Result<Linked, LinkError>>, process::CallError> {
        let mut kept = self.kept.lock();
        let Some(Kept { linked, life }) = kept.get(&link) else { return Ok(None) };
        let means = &*linked.name == target.name.as_str() && target.id.is_none_or(|id| id == linked.id);
        let Some(from) = life.upgrade().filter(|_| means) else { return Ok(None) };
        // That very bucket, and first the new link: it is never without one.
        let target = Target { id: Some(linked.id), ..target };
        let taken = to.link(target, Mode::MustExist, FOR_EVER)?;
        if taken.is_ok() {
            // Where that client is dead already, the bucket is, and the new one is told.
            drop(from.unlink(target.name.as_str(), target.id));
            kept.remove(&link);
        }
        Ok(Some(taken))
    }
}

const FOR_EVER: Begin = Begin { ttl: None, idle_ttl: None };

impl Buckets {
    pub(super) fn link_buckets<R>(&self, requests: R, extensions: &Extensions) -> Result<LinkStream<R>, Failure> {
        let standing = self.standing(extensions, Kind::Watching)?;
        let permit = self.streams.admit(extensions)?;
        let mut drain = self.links.drain.subscribe();
        Ok(LinkStream {
            requests,
            life: Arc::new(Life::begin_for(
                standing.caller().owner().cloned(),
                self.registry.clone(),
                Arc::clone(&self.links.moving),
            )),
            lease: None,
            stage: Stage::First,
            // An error would mean that nobody is left who could say it.
            drain: Box::pin(async move { drop(drain.wait_for(|drain| *drain).await) }),
            timer: Box::pin(sleep(self.registry.limits().link_heartbeat)),
            buckets: self.clone(),
            standing,
            permit,
            denied: None,
        })
    }

    /// Tells every Link stream that the server goes.
    pub fn drain(&self) {
        self.links.drain();
    }
}

/// The responses of one Link. Dropping it before the client's good-bye is the client's abnormal end.
pub struct LinkStream<R> {
    requests: R,
    life: Arc<Life>,
    lease: Option<Lease>,
    stage: Stage,
    drain: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The longest silence.
    timer: Pin<Box<Sleep>>,
    buckets: Buckets,
    standing: Standing,
    permit: Permit,
    /// Why it ends, where it is the client's credential.
    denied: Option<Failure>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// No request has come yet.
    First,
    Live,
    /// Said that the server or the connection goes; what has ended is told, and no more is read.
    Moving,
    Over,
}

impl<R> fmt::Debug for LinkStream<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkStream({:?}, {:?})", self.life, self.stage)
    }
}

impl<R: Stream<Item = Result<pb::LinkRequest, Status>> + Unpin> Stream for LinkStream<R> {
    type Item = Result<pb::LinkResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let item = match this.poll_item(cx) {
            Poll::Ready(item) => item,
            Poll::Pending => {
                ready!(this.timer.as_mut().poll(cx));
                Some(Ok(response(0, Response::Heartbeat(pb::LinkHeartbeat {}))))
            }
        };
        if !matches!(item, Some(Ok(_))) {
            this.stage = Stage::Over;
        }
        this.timer.as_mut().reset(Instant::now() + this.buckets.registry.limits().link_heartbeat);
        Poll::Ready(item)
    }
}

impl<R: Stream<Item = Result<pb::LinkRequest, Status>> + Unpin> LinkStream<R> {
    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<pb::LinkResponse, Status>>> {
        if self.stage == Stage::Over {
            return Poll::Ready(None);
        }
        if self.stage != Stage::Moving {
            self.denied = self.standing.ended(cx);
        }
        let moves = self.denied.is_some() || self.permit.is_moving();
        if self.stage != Stage::Moving && (moves || self.drain.poll_unpin(cx).is_ready()) {
            self.stage = Stage::Moving;
            let lease = self.lease.take().map_or(LEASE_DEFAULT, |lease| lease.length);
            self.buckets.links.keep(Arc::clone(&self.life), lease);
            return Poll::Ready(Some(Ok(response(0, Response::Moving(pb::LinkMoving {})))));
        }
        // A request has an answer, unless it was the first or the client is dead: this ends.
        loop {
            match self.life.poll_news(cx) {
                Poll::Ready(News::Exit(gone)) => {
                    return Poll::Ready(Some(Ok(response(0, Response::Exit(to_exit(&gone))))));
                }
                Poll::Ready(News::End(end)) => {
                    // Waits for the one who is at it: when the stream ends, the linked buckets have ended.
                    self.life.good_bye();
                    return Poll::Ready(ended(end).map(|failure| Err(failure.into())));
                }
                Poll::Pending if self.stage == Stage::Moving => {
                    let words = "the server is draining: take the links over on another stream";
                    let failure = match self.denied.take() {
                        Some(denied) => denied,
                        None if self.permit.is_moving() => Permit::moving(),
                        None => Failure::new(Reason::Draining, words),
                    };
                    return Poll::Ready(Some(Err(failure.into())));
                }
                Poll::Pending => {}
            }
            match ready!(Pin::new(&mut self.requests).poll_next(cx)) {
                Some(Ok(request)) => {
                    if let Some(lease) = &self.lease {
                        lease.renew();
                    }
                    if let Some(answer) = self.answer(request) {
                        return Poll::Ready(Some(Ok(answer)));
                    }
                }
                None => self.life.good_bye(),
                Some(Err(status)) => {
                    self.life.lose("the client's requests were cut off");
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
    }

    /// Does what is asked; `None` where there is nothing to answer.
    fn answer(&mut self, request: pb::LinkRequest) -> Option<pb::LinkResponse> {
        let stage = mem::replace(&mut self.stage, Stage::Live);
        let answer = match request.request {
            Some(Request::Hello(hello)) => self.hello(hello, stage),
            Some(Request::Link(link)) => self.link(&link),
            Some(Request::Unlink(unlink)) => self.unlink(&unlink),
            Some(Request::Ping(pb::LinkPing {})) => Ok(Some(Response::Pong(pb::LinkPong {}))),
            None => {
                let words = "the request is unset: hello, link, unlink or ping is required";
                Err(Failure::new(Reason::InvalidOption, words).field("request"))
            }
        };
        match answer {
            Ok(answer) => answer.map(|answer| response(request.id, answer)),
            Err(failure) => Some(response(request.id, Response::Error(failure.into()))),
        }
    }

    fn hello(&mut self, hello: pb::LinkHello, stage: Stage) -> Result<Option<Response>, Failure> {
        if stage != Stage::First {
            let words = "hello is a stream's first request, or none";
            return Err(Failure::new(Reason::InvalidOption, words).field("hello"));
        }
        let lease = lease(hello.lease)?;
        if hello.trap_exit && self.life.trap(Trap::Exits).is_err() {
            return Ok(None);
        }
        self.lease = lease.map(|length| Lease::start(length, &self.life));
        Ok(None)
    }

    fn link(&self, request: &pb::LinkBucket) -> Result<Option<Response>, Failure> {
        let target = Target {
            name: self.buckets.name(self.standing.caller(), Verb::Lifecycle | Verb::Watch, &request.bucket)?,
            id: request.bucket_id,
        };
        let (mode, ttl) = (mode(request)?, ttl("ttl", request.ttl)?);
        let linked = match request.link_id {
            None => self.life.link(target, mode, Begin { ttl, idle_ttl: None }).map(Some),
            Some(link) => self.buckets.links.take_over(link, target, &self.life),
        };
        let subject = Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key: "" };
        match linked {
            // The news says why.
            Err(_) => Ok(None),
            Ok(Some(Ok(Linked { link, name, id }))) => {
                let linked = pb::Linked { bucket: name.to_string(), bucket_id: id, link_id: link };
                Ok(Some(Response::Linked(linked)))
            }
            Ok(Some(Err(LinkError::Registry(error)))) => Err(subject.failure(error)),
            Ok(Some(Err(LinkError::TooManyLinks { limit }))) => {
                let words = format!("the stream has {limit} links, and no more are allowed: open another");
                Err(Failure::new(Reason::TooLarge, words).field("link").limit(limit, limit + 1))
            }
            Ok(None) => {
                let words = "no such link is kept for this bucket: it was taken over, or its lease is over";
                Err(Failure::new(Reason::BucketNotFound, words).field("link_id").with("bucket", &request.bucket))
            }
        }
    }

    fn unlink(&self, request: &pb::UnlinkBucket) -> Result<Option<Response>, Failure> {
        self.buckets.name(self.standing.caller(), Verb::Lifecycle | Verb::Watch, &request.bucket)?;
        let unlinked = self.life.unlink(&request.bucket, request.bucket_id);
        Ok(unlinked.is_ok().then_some(Response::Unlinked(pb::Unlinked {})))
    }
}

fn lease(asked: Option<prost_types::Duration>) -> Result<Option<Duration>, Failure> {
    let Some(asked) = asked else { return Ok(None) };
    let lease = duration(asked).filter(|lease| (LEASE_MIN..=LEASE_MAX).contains(lease));
    lease.map(Some).ok_or_else(|| {
        let prost_types::Duration { seconds, nanos } = asked;
        let words = format!(
            "lease is {seconds} seconds and {nanos} nanos: {LEASE_MIN:?} to {LEASE_MAX:?} is allowed, and unset is none"
        );
        Failure::new(Reason::InvalidOption, words).field("lease")
    })
}

/// The mode, which the other options must not contradict.
fn mode(request: &pb::LinkBucket) -> Result<Mode, Failure> {
    let mode = match LinkMode::try_from(request.mode) {
        Ok(LinkMode::Unspecified | LinkMode::MustExist) => Mode::MustExist,
        Ok(LinkMode::CreateIfAbsent) => Mode::CreateIfAbsent,
        Ok(LinkMode::MustCreate) => Mode::MustCreate,
        Err(_) => {
            let words = format!("mode is {}: MUST_EXIST, CREATE_IF_ABSENT or MUST_CREATE is allowed", request.mode);
            return Err(Failure::new(Reason::InvalidOption, words).field("mode"));
        }
    };
    let wrong = |field, words| Err(Failure::new(Reason::InvalidOption, words).field(field));
    if mode == Mode::MustExist && request.ttl.is_some() {
        return wrong("ttl", "ttl is set: it is for a bucket that is created, and the mode is MUST_EXIST");
    }
    if mode == Mode::MustCreate && request.bucket_id.is_some() {
        return wrong("bucket_id", "bucket_id is set: a bucket that is created gets an id of its own");
    }
    if mode != Mode::MustExist && request.link_id.is_some() {
        return wrong("mode", "link_id is set: a link is taken over with the mode MUST_EXIST");
    }
    Ok(mode)
}

/// What ends the stream; `None` for OK.
fn ended(End { exit, cause }: End) -> Option<Failure> {
    match (exit.reason, cause) {
        (process::Reason::Normal, _) => None,
        (_, Some(gone)) => {
            let words = format!("{}: the stream and its other buckets end with it", exit.detail());
            Some(Failure::new(Reason::LinkedExit, words).with("bucket", gone.name).with("bucket_id", gone.id))
        }
        (process::Reason::NoConnection, None) => Some(Failure::new(Reason::LinkedExit, exit.detail())),
        (_, None) => {
            Some(Failure::new(Reason::Panic, format!("this stream met a fault of the server's: {}", exit.detail())))
        }
    }
}

fn response(id: u64, response: Response) -> pb::LinkResponse {
    pb::LinkResponse { id, response: Some(response) }
}

/// Ends a client that is silent for too long. It is a task, so that it does so also where the stream is not polled: for a
/// client that does not read.
#[derive(Debug)]
struct Lease {
    length: Duration,
    /// When it runs out.
    until: Arc<Mutex<Instant>>,
    watchdog: JoinHandle<()>,
}

impl Lease {
    fn start(length: Duration, life: &Arc<Life>) -> Self {
        let until = Arc::new(Mutex::new(Instant::now() + length));
        let watchdog = tokio::spawn({
            let (until, life) = (Arc::clone(&until), Arc::downgrade(life));
            async move {
                loop {
                    let at = *until.lock();
                    if at <= Instant::now() {
                        break;
                    }
                    sleep_until(at).await;
                }
                if let Some(life) = life.upgrade() {
                    life.lose(&format!("the client was silent for longer than its lease of {length:?}"));
                }
            }
        });
        Self { length, until, watchdog }
    }

    fn renew(&self) {
        *self.until.lock() = Instant::now() + self.length;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.watchdog.abort();
    }
}

#[cfg(test)]
mod tests;
