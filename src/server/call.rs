//! What happens around every call, whichever service it is for.
//!
//! A call is refused at the gate while the server drains. It ends when its deadline passes, be that before its headers, as
//! a response of trailers only, or in the midst of a stream, as trailers after what was sent; its handler is dropped then.
//! Where the client keeps its window closed, nobody asks the body for more: then its turn ends it (`turn`).
//! Before it begins it is refused where the server has too much to do (`shed`).
//! A panic in it, in the handler or in the stream that the handler returned, ends this call alone, with INTERNAL: without
//! that, a stream that panics would look as if it had ended well.
//!
//! It knows no bucket and no socket.

use std::{
    any::Any,
    convert::Infallible,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body, codegen::BoxFuture};

use super::{
    answer::Rest,
    deadline::Deadline,
    gate::{Admission, Door},
    intake::{self, Intake, Messages},
    meter::Counted,
    observed::Observed,
    router::{self, Handler, Router},
    shed, turn,
    unsent::Unsent,
};
use crate::{
    auth::{Auth, Certificate},
    pb::health::health_server,
    process::panic_message,
    service::{
        allowance::Allowance,
        status::{Failure, Reason},
        streams,
    },
    traces::Traces,
};

/// What the calls of one worker share. What each of them counts by is the worker's own, as far as it can be: two cores that
/// count by the same number wait for each other.
#[derive(Debug)]
pub(super) struct Calls {
    router: Router,
    door: Arc<Door>,
    auth: Option<Arc<Auth>>,
    traces: Option<Arc<Traces>>,
    undecoded: Arc<Allowance>,
    untaken: Arc<Allowance>,
    message_bytes_max: usize,
}

impl Calls {
    pub(super) fn new(
        router: Router,
        door: Arc<Door>,
        (auth, traces): (Option<Arc<Auth>>, Option<Arc<Traces>>),
        [undecoded, untaken]: [Allowance; 2],
        message_bytes_max: usize,
    ) -> Self {
        Self {
            router,
            door,
            auth,
            traces,
            undecoded: Arc::new(undecoded),
            untaken: Arc::new(untaken),
            message_bytes_max,
        }
    }

    /// What the calls of one more connection share.
    pub(super) fn open(&self, certificate: Option<Arc<Certificate>>) -> Open {
        Open { untaken: Arc::clone(&self.untaken), certificate }
    }

    /// Answers a request. `open` lives as long as the call does: a connection counts its streams by it.
    pub(super) fn call<B>(&self, request: Request<B>, open: Arc<Open>) -> Call
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: fmt::Display,
    {
        if !is_grpc(request.headers()) {
            return Call { state: State::Answered(unsupported()), ticket: Some(Ticket::new(open)) };
        }
        let mut ticket = Ticket::new(open);
        let state = match self.admit(&request, &mut ticket) {
            // Nothing of ours runs yet: a generated service only makes a future here.
            Ok(()) => match self.router.find(request.uri().path()) {
                Ok(route) => {
                    ticket.counted = Some(route.method.starts());
                    let path = &route.method.path;
                    ticket.observed = Observed::begin(request.headers(), path, self.traces.as_ref());
                    let handler = match self.auth.as_ref().filter(|_| !ticket.is_for_anyone) {
                        None => (route.handler)(self.watched(request)),
                        Some(auth) => {
                            let call = (Arc::clone(route.handler), self.watched(request));
                            Box::pin(identified(Arc::clone(auth), ticket.open.certificate.clone(), call))
                        }
                    };
                    State::Running(if ticket.can_refuse {
                        handler
                    } else {
                        Box::pin(with_room(handler, Arc::clone(&self.untaken)))
                    })
                }
                Err(failure) => State::Answered(Status::from(failure).into_http()),
            },
            Err(failure) => State::Answered(Status::from(failure).into_http()),
        };
        Call { state, ticket: Some(ticket) }
    }

    /// All that can be told from the headers.
    fn admit<B>(&self, request: &Request<B>, ticket: &mut Ticket) -> Result<(), Failure> {
        let path = request.uri().path();
        ticket.is_long = streams::is_long(path);
        ticket.can_refuse = !streams::changes_and_tells(path);
        // Health tells that the server drains, so it answers throughout; long streams are told to end, not waited for.
        ticket.is_for_anyone = router::service(path) == health_server::SERVICE_NAME;
        if !ticket.is_for_anyone {
            let admission = self.door.admit();
            if admission.is_none() {
                return Err(draining());
            }
            ticket.admission = admission.filter(|_| !ticket.is_long);
            ticket.can_wait = streams::can_wait(path);
        }
        if request.headers().get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
            return Err(intake::compressed());
        }
        ticket.unsent = streams::is_endless(path).then(Unsent::default);
        ticket.deadline = Deadline::of(request.headers())?;
        Ok(())
    }

    /// The request with its body under watch.
    fn watched<B>(&self, request: Request<B>) -> Request<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: fmt::Display,
    {
        let messages = if streams::takes_many(request.uri().path()) { Messages::Any } else { Messages::One };
        let intake = |body| Intake::new(body, messages, self.message_bytes_max, Arc::clone(&self.undecoded));
        request.map(|body| Body::new(intake(body)))
    }
}

/// A call whose answer can't be refused: it is itself, where there is no room for more answers.
async fn with_room(
    handler: BoxFuture<Response<Body>, Infallible>,
    untaken: Arc<Allowance>,
) -> Result<Response<Body>, Infallible> {
    match untaken.has_room() {
        Ok(()) => handler.await,
        Err(full) => Ok(Status::from(streams::untaken(full)).into_http()),
    }
}

/// A call that begins with a look at who it is: not before the server has room for it, for a signature takes its time.
async fn identified(
    auth: Arc<Auth>,
    certificate: Option<Arc<Certificate>>,
    (handler, mut request): (Handler, Request<Body>),
) -> Result<Response<Body>, Infallible> {
    match auth.identify(request.headers(), certificate.as_ref()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            handler(request).await
        }
        Err(denied) => Ok(Status::from(Failure::from(denied)).into_http()),
    }
}

/// What the open calls of one connection share, which counts them by it.
#[derive(Debug)]
pub(super) struct Open {
    /// For the bytes of answers that clients have not taken.
    pub(super) untaken: Arc<Allowance>,
    /// What the client has shown as the connection opened.
    pub(super) certificate: Option<Arc<Certificate>>,
}

/// A call that came after the gate was closed.
pub(super) fn draining() -> Failure {
    Failure::new(Reason::Draining, "the server is draining: nothing was done")
}

/// The specification: a content type that does not begin with this SHOULD be answered with 415, so that other clients of
/// HTTP/2 do not take a gRPC error for success.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn unsupported() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// What a call carries from its first byte to its last.
#[derive(Debug)]
struct Ticket {
    /// A call of a method that there is.
    counted: Option<Counted>,
    observed: Option<Box<Observed>>,
    deadline: Option<Deadline>,
    admission: Option<Admission>,
    /// Whoever it is that calls.
    is_for_anyone: bool,
    /// Its client says when it ends.
    is_long: bool,
    /// It did not begin yet, and may be told to try again.
    can_wait: bool,
    /// Its answer may be refused when it is there.
    can_refuse: bool,
    /// For a stream that nobody but its client paces.
    unsent: Option<Unsent>,
    open: Arc<Open>,
}

impl Ticket {
    fn new(open: Arc<Open>) -> Self {
        Self {
            counted: None,
            observed: None,
            deadline: None,
            admission: None,
            is_for_anyone: false,
            is_long: false,
            can_wait: false,
            can_refuse: true,
            unsent: None,
            open,
        }
    }

    /// Does the call's next piece of work, unless its deadline has passed, and survives it.
    fn guard<T>(
        &mut self,
        cx: &mut Context<'_>,
        work: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, Failure>> {
        turn::is_ours(self.is_long);
        let _entered = self.observed.as_ref().map(|observed| observed.enter());
        if self.deadline.as_ref().is_some_and(Deadline::has_passed) {
            return Poll::Ready(Err(too_late()));
        }
        // What the work has touched is dropped after a panic, never looked at again: hence AssertUnwindSafe.
        match catch_unwind(AssertUnwindSafe(|| work(cx))) {
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Ok(Poll::Pending) => match &mut self.deadline {
                Some(deadline) => deadline.poll_passed(cx).map(|()| Err(too_late())),
                None => Poll::Pending,
            },
            Err(panic) => Poll::Ready(Err(self.panicked(&*panic))),
        }
    }

    /// Takes note of how the call ends, where these headers say it.
    fn ends(&mut self, headers: &HeaderMap) {
        if let (Some(counted), Some(status)) = (&mut self.counted, headers.get(Status::GRPC_STATUS)) {
            let code = Code::from_bytes(status.as_bytes());
            counted.ends(code);
            if let Some(observed) = &mut self.observed {
                observed.ends(code);
            }
        }
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Failure {
        let method = self.counted.as_ref().map(|counted| &*counted.method.path);
        tracing::error!(?method, panic = ?panic_message(panic), "a call panicked");
        Failure::new(Reason::Panic, "a fault of the server ended this call; other calls go on")
    }
}

fn too_late() -> Failure {
    Failure::new(Reason::DeadlineExceeded, "the deadline of the call has passed")
}

/// A call up to its response's headers.
pub(super) struct Call {
    state: State,
    /// Moves on to the body; a call that is over has none.
    ticket: Option<Ticket>,
}

enum State {
    Running(BoxFuture<Response<Body>, Infallible>),
    /// Answered without a handler.
    Answered(Response<Body>),
}

impl Future for Call {
    type Output = Result<Response<CallBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(ticket) = &mut this.ticket else { return Poll::Pending };
        let response = match &mut this.state {
            State::Running(_) if std::mem::take(&mut ticket.can_wait) && !shed::has_room() => shed::overloaded(),
            State::Running(handler) => match ready!(ticket.guard(cx, |cx| handler.as_mut().poll(cx))) {
                Ok(Ok(response)) => response,
                Err(failure) => Status::from(failure).into_http(),
            },
            State::Answered(response) => std::mem::take(response),
        };
        // The handler goes now, whatever becomes of this future.
        this.state = State::Answered(Response::default());
        let Some(ticket) = this.ticket.take() else { return Poll::Pending };
        turn::told(0);
        let mut ticket = ticket;
        if http_body::Body::is_end_stream(response.body()) {
            ticket.ends(response.headers());
        }
        Poll::Ready(Ok(response.map(|body| CallBody { body, rest: None, ticket })))
    }
}

/// A response's body: the call from its headers to its trailers. The call is over when this is dropped.
#[derive(Debug)]
pub(super) struct CallBody {
    body: Body,
    /// Of what the body said last.
    rest: Option<Rest>,
    ticket: Ticket,
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let Self { body, rest, ticket } = this;
        let unsent = ticket.unsent.take();
        let next = ticket.guard(cx, |cx| {
            if unsent.as_ref().is_some_and(|unsent| unsent.poll_sent(cx).is_pending()) {
                turn::awaits_room();
                return Poll::Pending;
            }
            if let Some(left) = rest.take() {
                let piece;
                (piece, *rest) = left.next();
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            Pin::new(body).poll_frame(cx)
        });
        ticket.unsent = unsent;
        let failure = match ready!(next) {
            Ok(None) => return Poll::Ready(None),
            Ok(Some(Ok(frame))) => match this.tell(frame) {
                Ok(frame) => return Poll::Ready(Some(Ok(frame))),
                Err(failure) => failure.into(),
            },
            Ok(Some(Err(status))) => status,
            Err(failure) => failure.into(),
        };
        // The stream is dropped, and nothing follows the trailers.
        (this.body, this.rest) = (Body::empty(), None);
        this.ticket.deadline = None;
        turn::told(0);
        let trailers = trailers(&failure);
        this.ticket.ends(&trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl CallBody {
    /// What the client is told now of this frame.
    fn tell(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Failure> {
        let frame = match (frame.into_data(), &self.ticket.unsent) {
            (Ok(bytes), Some(unsent)) => Frame::data(unsent.wait_for(bytes)),
            (Ok(bytes), None) if self.rest.is_none() => {
                let (piece, rest) = Rest::split(bytes, &self.ticket.open.untaken, self.ticket.can_refuse)?;
                self.rest = rest;
                Frame::data(piece)
            }
            (Ok(bytes), None) => Frame::data(bytes),
            (Err(frame), _) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.ticket.ends(trailers);
                }
                frame
            }
        };
        turn::told(frame.data_ref().map_or(0, Bytes::len));
        Ok(frame)
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    if status.add_header(&mut trailers).is_err() {
        // Words that are no header: the code is what counts.
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(i32::from(status.code())));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body::Body as _;

    use super::*;

    /// Always has one more.
    struct Endless;

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"an event")))))
        }
    }

    #[test]
    fn a_stream_that_never_ends_is_asked_for_more_when_what_it_said_was_sent() {
        let ticket = Ticket {
            unsent: Some(Unsent::default()),
            ..Ticket::new(Arc::new(Open { untaken: Arc::new(Allowance::new(0)), certificate: None }))
        };
        let mut body = CallBody { body: Body::new(Endless), rest: None, ticket };
        let mut next = || Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())).map(Option::unwrap);
        for _ in 0..3 {
            let Poll::Ready(Ok(said)) = next() else { panic!("nothing waits") };
            assert!(next().is_pending());
            drop(said);
        }
    }
}
