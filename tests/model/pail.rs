//! pail, as the one who is asked: the service over a registry, without a socket; its clock stands still.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use http_body::{Body, Frame};
use pail::{
    clock::ManualClock,
    limits::Limits,
    pb::{
        self, Reason, bucket_service_server::BucketService as _, event::Event, pipeline_op::Op,
        pipeline_result::Result as Done, watch_response::Response as Said,
    },
    registry::Registry,
    service::{Buckets, WatchStream, codec::Codec},
};
use prost::{Message as _, bytes::Bytes};
use tokio::runtime::{Builder, Runtime};
use tonic::{Request, Response, Status, Streaming, codec::Codec as _};
use tonic_types::StatusExt as _;

use crate::{
    model::{
        BUCKETS_MAX, ENTRIES_MAX, HISTORY_EVENTS_MAX, LAST_TOKEN, Outcome, Transition, VALUE_BYTES_MAX, WATCHES_MAX,
    },
    watch::{Heard, name_of, set_ref},
};

pub(crate) type Answer = Result<Done, String>;

pub(crate) struct Pail {
    clock: Arc<ManualClock>,
    registry: Registry,
    service: Buckets,
    watches: Vec<Open>,
    list_token: String,
    scan_token: String,
}

struct Open {
    stream: WatchStream,
    refs: Vec<u64>,
    /// The last revision that it spoke of.
    revision: u64,
    /// The last event's.
    event_revision: u64,
    over: bool,
}

/// Where heartbeats have their timers. Nothing runs here.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_current_thread().enable_time().build().unwrap())
}

impl Pail {
    pub(crate) fn start() -> Self {
        let clock = Arc::<ManualClock>::default();
        let limits = Limits {
            buckets_max: BUCKETS_MAX,
            entries_max: ENTRIES_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
            history_events_max: HISTORY_EVENTS_MAX,
            ..Limits::default()
        };
        let registry = Registry::start(limits, Arc::<ManualClock>::clone(&clock), "model".to_owned());
        let service = Buckets::new(registry.clone());
        Self { clock, registry, service, watches: Vec::new(), list_token: String::new(), scan_token: String::new() }
    }

    /// Takes a step, and compares what happened with what must have.
    pub(crate) fn take(&mut self, transition: Transition, expected: &Outcome) {
        let _runtime = runtime().enter();
        let mut answers = Vec::new();
        let mut refused = None;
        let mut opened = None;
        match transition {
            Transition::Call(op) => answers.push(self.answer(op)),
            Transition::Pipeline(ops) => answers = self.pipeline(ops),
            Transition::Pass { millis, timer: false } => self.clock.advance(Duration::from_millis(millis)),
            Transition::Pass { millis, timer: true } => {
                self.meet_all();
                for _ in 0..millis {
                    self.clock.advance(Duration::from_millis(1));
                    self.registry.expire();
                }
            }
            Transition::Watch(request) => {
                self.meet_all();
                match self.open(request) {
                    Ok(open) => opened = Some(open),
                    Err(reason) => refused = Some(reason),
                }
            }
        }
        // A new one hears what there is as it begins, and the others what has happened until then.
        let mut heard = self.hear();
        if let Some(mut open) = opened {
            if self.watches.len() == WATCHES_MAX {
                self.watches.remove(0);
                heard.remove(0);
            }
            heard.push(open.hear());
            self.watches.push(open);
        }
        // As they print, since a NaN is not equal to itself.
        assert_eq!(format!("{answers:?}"), format!("{:?}", expected.answers), "answers: pail's, and the model's");
        assert_eq!(refused.as_deref(), expected.refused, "a refused Watch: pail's reason, and the model's");
        assert_eq!(heard.len(), expected.heard.len(), "the watches");
        for (heard, expected) in heard.iter().zip(&expected.heard) {
            assert_eq!(format!("{heard:?}"), format!("{:?}", sorted(expected)), "a Watch: pail's, and the model's");
        }
    }

    /// Sees to all that is due, in the order of names.
    fn meet_all(&self) {
        self.registry.list("", None, BUCKETS_MAX).unwrap();
        self.registry.expire();
    }

    fn answer(&mut self, op: Op) -> Answer {
        let service = &self.service;
        let done = match op {
            Op::Create(request) => now(service.create(Request::new(request)), Done::Create),
            Op::Lookup(request) => now(service.lookup(Request::new(request)), Done::Lookup),
            Op::List(mut request) => {
                if request.page_token == LAST_TOKEN {
                    request.page_token.clone_from(&self.list_token);
                }
                now(service.list(Request::new(request)), Done::List)
            }
            Op::Stop(request) => now(service.stop(Request::new(request)), Done::Stop),
            Op::Put(request) => now(service.put(Request::new(request)), Done::Put),
            Op::Get(request) => now(service.get(Request::new(request)), Done::Get),
            Op::Delete(request) => now(service.delete(Request::new(request)), Done::Delete),
            Op::Add(request) => now(service.add(Request::new(request)), Done::Add),
            Op::Touch(request) => now(service.touch(Request::new(request)), Done::Touch),
            Op::Scan(mut request) => {
                if request.page_token == LAST_TOKEN {
                    request.page_token.clone_from(&self.scan_token);
                }
                now(service.scan(Request::new(request)), Done::Scan)
            }
            Op::Transact(request) => now(service.transact(Request::new(request)), Done::Transact),
        };
        self.plain(done)
    }

    /// An answer, with what the model does not know replaced by what it says there.
    fn plain(&mut self, done: Result<Done, Status>) -> Answer {
        let mut done = done.map_err(|status| reason(&status))?;
        match &mut done {
            Done::Create(made) => made.bucket.iter_mut().for_each(|bucket| bucket.byte_size = 0),
            Done::Lookup(found) => found.bucket.iter_mut().for_each(|bucket| bucket.byte_size = 0),
            Done::List(page) => {
                page.buckets.iter_mut().for_each(|bucket| bucket.byte_size = 0);
                keep(&mut self.list_token, &mut page.next_page_token);
            }
            Done::Scan(page) => keep(&mut self.scan_token, &mut page.next_page_token),
            _ => {}
        }
        Ok(done)
    }

    fn pipeline(&mut self, ops: Vec<pb::PipelineOp>) -> Vec<Answer> {
        let message = pb::PipelineRequest { ops }.encode_to_vec();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        let decoder = Codec::<pb::PipelineResponse, pb::PipelineRequest>::default().decoder();
        let requests = Streaming::new_request(decoder, OneFrame(Some(frame.into())), None, None);
        let answer = self.service.pipeline(Request::new(requests)).now_or_never().expect("it begins at once");
        let mut results = answer.unwrap().into_inner();
        let mut answers = Vec::new();
        while let Some(response) = next(&mut results).expect("it is never idle") {
            for result in response.unwrap().results {
                let done = match result.result.unwrap() {
                    Done::Error(error) => {
                        let (code, details) = (error.code.into(), error.encode_to_vec().into());
                        Err(Status::with_details(code, error.message, details))
                    }
                    done => Ok(done),
                };
                answers.push(self.plain(done));
            }
        }
        answers
    }

    fn open(&self, request: pb::WatchRequest) -> Result<Open, String> {
        let answer = self.service.watch(Request::new(request)).now_or_never().expect("it begins at once");
        let stream = answer.map_err(|status| reason(&status))?.into_inner();
        Ok(Open { stream, refs: Vec::new(), revision: 0, event_revision: 0, over: false })
    }

    fn hear(&mut self) -> Vec<Heard> {
        self.registry.deliver();
        self.watches.iter_mut().map(Open::hear).collect()
    }
}

impl Open {
    /// All that there is to hear.
    fn hear(&mut self) -> Heard {
        let mut heard = Heard::default();
        while !self.over {
            let Some(response) = next(&mut self.stream) else { break };
            let Some(response) = response else {
                (self.over, heard.over) = (true, true);
                break;
            };
            let bytes = response.expect("no Watch is slow here").encode_to_vec();
            let pb::WatchResponse { revision, response } = pb::WatchResponse::decode(&*bytes).unwrap();
            assert!(revision == 0 || revision >= self.revision, "{revision} comes after {}", self.revision);
            self.revision = self.revision.max(revision);
            match response.unwrap() {
                Said::Started(started) => {
                    self.refs = started.monitors.iter().map(|monitor| monitor.r#ref).collect();
                    heard.started = Some(started.monitors.iter().map(|monitor| monitor.bucket_id).collect());
                }
                Said::Events(events) => {
                    for mut event in events.events.into_iter().map(|event| event.event.unwrap()) {
                        self.place(&mut event);
                        self.check_order(&event);
                        heard.events.push(event);
                    }
                }
                Said::Synced(_) => heard.synced = true,
                other => panic!("{other:?}"),
            }
        }
        sorted(&heard)
    }

    /// What becomes of buckets comes in the order of revisions, whatever buckets they are.
    fn check_order(&mut self, event: &Event) {
        let revision = match event {
            Event::Created(event) if !event.initial => event.revision,
            Event::Down(event) if event.reason() != Reason::Noproc => event.revision,
            _ => return,
        };
        assert!(revision >= self.event_revision, "{event:?} comes after revision {}", self.event_revision);
        self.event_revision = revision;
    }

    /// Puts the place of the monitor where the ref is, which is another one each time.
    fn place(&self, event: &mut Event) {
        let r#ref = match event {
            Event::Created(event) => event.r#ref,
            Event::Down(event) => event.r#ref,
            Event::Put(event) => event.r#ref,
            Event::Deleted(event) => event.r#ref,
        };
        let place = self.refs.iter().position(|each| *each == r#ref).map_or(0, |place| place + 1);
        assert!((place == 0) == (r#ref == 0), "the ref {ref} was never given");
        set_ref(event, place as u64);
    }
}

/// What a unary call answers, which waits for nothing.
fn now<T>(call: impl Future<Output = Result<Response<T>, Status>>, done: fn(T) -> Done) -> Result<Done, Status> {
    let answer = call.now_or_never().expect("a unary call waits for nothing");
    answer.map(|response| done(response.into_inner()))
}

/// The events by bucket. What is in the buckets, and what becomes of them, comes in the order of each bucket, and not of all.
fn sorted(heard: &Heard) -> Heard {
    let mut heard = heard.clone();
    heard.events.sort_by(|one, other| name_of(one).cmp(name_of(other)));
    heard
}

/// What a stream has now, if it has something. One that has yielded goes on.
fn next<S: Stream + Unpin>(stream: &mut S) -> Option<Option<S::Item>> {
    let bell = Arc::<Bell>::default();
    let waker = Waker::from(Arc::clone(&bell));
    loop {
        match stream.poll_next_unpin(&mut Context::from_waker(&waker)) {
            Poll::Ready(item) => return Some(item),
            Poll::Pending if bell.0.swap(false, Relaxed) => {}
            Poll::Pending => return None,
        }
    }
}

/// Whether a stream that has nothing wants to be asked again at once.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

fn keep(last: &mut String, token: &mut String) {
    last.clone_from(token);
    if !token.is_empty() {
        LAST_TOKEN.clone_into(token);
    }
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map_or_else(|| format!("{status:?}"), |info| info.reason.clone())
}

/// A request's body.
struct OneFrame(Option<Bytes>);

impl Body for OneFrame {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}
