//! What a request's body must pass before it is decoded: the framing of gRPC, the size of a message, and a bound on the
//! bytes that the whole server holds of messages that are not complete yet.
//!
//! A message that is announced too large is refused before its bytes are taken in. What was sent whole before a fault is
//! passed on first, so that the outcome does not depend on how the bytes were cut into frames. Nothing is buffered here,
//! and what the bytes mean is not known.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;

use super::turn;
use crate::service::{
    allowance::{Allowance, Charge, Full},
    status::{Failure, Reason},
};

/// The compressed flag and the length that come before each message.
const HEADER_BYTES: usize = 5;

/// How many messages a request has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Messages {
    One,
    Any,
}

/// A request's body, watched over.
#[derive(Debug)]
pub(super) struct Intake<B> {
    body: B,
    framing: Framing,
    charge: Charge,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    /// What came before the fault has been passed on; the fault is next.
    Failing(Failure),
    Over,
}

impl<B> Intake<B> {
    pub(super) fn new(body: B, messages: Messages, message_bytes_max: usize, undecoded: Arc<Allowance>) -> Self {
        let framing = Framing {
            messages,
            message_bytes_max,
            header: [0; HEADER_BYTES],
            filled: 0,
            length: 0,
            missing: 0,
            first: true,
            whole: 0,
        };
        Self { body, framing, charge: Charge::of(undecoded), state: State::Open }
    }

    /// Passes a chunk on, or as much of it as is allowed.
    fn take(&mut self, mut chunk: Bytes) -> Result<Bytes, Failure> {
        match self.framing.take(&chunk) {
            Ok(()) => self.charge.settle(self.framing.held()).map_err(overloaded)?,
            Err(Fault { allowed: 0, failure }) => return Err(failure),
            Err(Fault { allowed, failure }) => {
                chunk.truncate(allowed);
                self.state = State::Failing(failure);
            }
        }
        Ok(chunk)
    }

    fn fail<T>(&mut self, failure: Failure) -> Option<Result<T, Status>> {
        self.state = State::Over;
        // What is refused is not held.
        self.charge.release();
        Some(Err(failure.into()))
    }
}

impl<B> Body for Intake<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match std::mem::replace(&mut this.state, State::Open) {
            State::Open => {}
            State::Failing(failure) => return Poll::Ready(this.fail(failure)),
            State::Over => {
                this.state = State::Over;
                return Poll::Ready(None);
            }
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if !this.framing.awaits_more() {
                return Poll::Pending;
            }
            if turn::is_too_slow() {
                return Poll::Ready(this.fail(too_slow()));
            }
            turn::awaits_request();
            return Poll::Pending;
        };
        let taken = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(chunk) => {
                    let (bytes, whole) = (chunk.len(), this.framing.whole);
                    let taken = this.take(chunk).map(|chunk| Some(Frame::data(chunk)));
                    turn::received(bytes, this.framing.whole != whole);
                    taken
                }
                Err(trailers) => this.framing.end().map(|()| Some(trailers)),
            },
            // hyper ends a body that was reset with NO_ERROR as if it were whole; only the end of the stream is one.
            None if !this.body.is_end_stream() => Err(Failure::new(Reason::InvalidMessage, "the request was cut off")),
            None => this.framing.end().map(|()| None),
            // Never CANCELLED: tonic's decoder takes that for a clean end, and a Link that is cut off is no good-bye.
            Some(Err(error)) => Err(Failure::new(Reason::InvalidMessage, format!("the request was cut off: {error}"))),
        };
        Poll::Ready(match taken {
            Ok(frame) => frame.map(Ok),
            Err(failure) => this.fail(failure),
        })
    }
}

/// Where in the sequence of length-prefixed messages the body is.
#[derive(Debug)]
struct Framing {
    messages: Messages,
    message_bytes_max: usize,
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that are there; 0 between messages.
    filled: usize,
    /// Bytes of the message, once its header is there.
    length: usize,
    /// Those still to come.
    missing: usize,
    /// No message has begun yet.
    first: bool,
    /// How many were whole. It may wrap.
    whole: u32,
}

/// What is wrong, and how much of the chunk came whole before it.
#[derive(Debug)]
struct Fault {
    allowed: usize,
    failure: Failure,
}

impl Framing {
    fn take(&mut self, chunk: &[u8]) -> Result<(), Fault> {
        let mut allowed = 0;
        let mut rest = chunk;
        while !rest.is_empty() {
            if self.filled < HEADER_BYTES {
                self.header(&mut rest).map_err(|failure| Fault { allowed, failure })?;
                if self.filled < HEADER_BYTES {
                    break;
                }
            }
            let count = self.missing.min(rest.len());
            rest = &rest[count..];
            self.missing -= count;
            if self.missing == 0 {
                self.filled = 0;
                self.whole = self.whole.wrapping_add(1);
                allowed = chunk.len() - rest.len();
            }
        }
        Ok(())
    }

    /// Takes what there is of a header, and judges it when it is complete.
    fn header(&mut self, rest: &mut &[u8]) -> Result<(), Failure> {
        if self.filled == 0 && !std::mem::take(&mut self.first) && self.messages == Messages::One {
            return Err(Failure::new(Reason::InvalidMessage, "a second message was sent: this RPC takes one"));
        }
        let count = (HEADER_BYTES - self.filled).min(rest.len());
        let (head, tail) = rest.split_at(count);
        self.header[self.filled..][..count].copy_from_slice(head);
        self.filled += count;
        *rest = tail;
        if self.filled < HEADER_BYTES {
            return Ok(());
        }

        let [flag, length @ ..] = self.header;
        match flag {
            0 => {}
            1 => return Err(compressed()),
            _ => {
                let words = format!("a message begins with the flag {flag}: 0 is allowed");
                return Err(Failure::new(Reason::InvalidMessage, words));
            }
        }
        // A length that no address space holds is too large in any case.
        self.length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        self.missing = self.length;
        if self.length > self.message_bytes_max {
            let words = format!("the message has {} bytes, {} are allowed", self.length, self.message_bytes_max);
            return Err(Failure::new(Reason::TooLarge, words).limit(self.message_bytes_max, self.length));
        }
        Ok(())
    }

    /// What a message that is not complete takes. All of it, once its length is known: the decoder makes room for it then.
    fn held(&self) -> usize {
        if self.filled < HEADER_BYTES { self.filled } else { HEADER_BYTES + self.length }
    }

    /// Whether the client is to send more.
    fn awaits_more(&self) -> bool {
        self.messages == Messages::One || self.filled != 0
    }

    /// Whether the body may end here.
    fn end(&self) -> Result<(), Failure> {
        if self.filled != 0 {
            return Err(Failure::new(Reason::InvalidMessage, "the request ended inside a message"));
        }
        if self.first && self.messages == Messages::One {
            return Err(Failure::new(Reason::InvalidMessage, "the request has no message: this RPC takes one"));
        }
        Ok(())
    }
}

fn overloaded(Full { bytes_max }: Full) -> Failure {
    let words = "the server holds too many bytes of unfinished requests";
    Failure::new(Reason::Overloaded, words).with("limit", bytes_max)
}

/// A request whose rest was waited for long enough.
fn too_slow() -> Failure {
    Failure::new(
        Reason::DeadlineExceeded,
        "the request was not whole in time: it has 5 s, and 1 s more for each 16 KiB",
    )
}

/// A request that is compressed.
pub(super) fn compressed() -> Failure {
    Failure::new(Reason::Unimplemented, "compressed messages are not accepted: send them with the encoding identity")
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible, task::Waker};

    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    struct Frames(VecDeque<Bytes>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    const MAX: usize = 8;

    fn message(length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, length];
        bytes.resize(HEADER_BYTES + usize::from(length), 7);
        bytes
    }

    fn next<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Option<Result<Frame<Bytes>, B::Error>> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => next,
            Poll::Pending => panic!("frames are always ready"),
        }
    }

    /// Feeds the chunks and returns what passed, how it ended, and what was held on the way at most.
    fn feed(messages: Messages, chunks: impl IntoIterator<Item = Vec<u8>>) -> (Vec<u8>, Option<Status>, usize) {
        let undecoded = Arc::new(Allowance::new(1_000));
        let frames = Frames(chunks.into_iter().map(Bytes::from).collect());
        let mut intake = Intake::new(frames, messages, MAX, Arc::clone(&undecoded));
        let (mut passed, mut held_max) = (Vec::new(), 0);
        let end = loop {
            match next(&mut intake) {
                Some(Ok(frame)) => passed.extend(frame.into_data().unwrap()),
                Some(Err(status)) => break Some(status),
                None => break None,
            }
            held_max = held_max.max(undecoded.taken());
        };
        assert!(next(&mut intake).is_none(), "an ended body stays ended");
        assert_eq!(undecoded.taken(), 0, "what is over holds nothing");
        (passed, end, held_max)
    }

    /// The same bytes cut in two at every place, and into single bytes.
    fn cuts(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut cuts: Vec<_> = (0..=bytes.len()).map(|at| vec![bytes[..at].to_vec(), bytes[at..].to_vec()]).collect();
        cuts.push(bytes.iter().map(|byte| vec![*byte]).collect());
        cuts
    }

    #[track_caller]
    fn assert_reason(status: Option<Status>, code: Code, reason: &str) -> Status {
        let status = status.expect("the body is refused");
        assert_eq!(status.code(), code);
        assert_eq!(status.get_details_error_info().unwrap().reason, reason);
        status
    }

    #[test]
    fn messages_pass_unchanged_however_they_are_cut() {
        let bytes = [message(3), message(0), message(8)].concat();
        for chunks in cuts(&bytes) {
            let (passed, end, _) = feed(Messages::Any, chunks);
            assert_eq!(passed, bytes);
            assert!(end.is_none());
        }
    }

    #[test]
    fn a_message_too_large_is_refused_and_those_before_it_pass() {
        let bytes = [message(3), message(9)].concat();
        for chunks in cuts(&bytes) {
            let (passed, end, _) = feed(Messages::Any, chunks);
            assert_eq!(passed[..8], bytes[..8]);
            assert!(passed.len() < 8 + HEADER_BYTES, "not even its header is passed on whole");
            let status = assert_reason(end, Code::InvalidArgument, "TOO_LARGE");
            let metadata = status.get_details_error_info().unwrap().metadata;
            assert_eq!((metadata["limit"].as_str(), metadata["actual"].as_str()), ("8", "9"));
        }
    }

    #[test]
    fn a_second_message_is_refused_where_one_is_taken() {
        for chunks in cuts(&[message(3), message(0)].concat()) {
            let (passed, end, _) = feed(Messages::One, chunks);
            assert_eq!(passed, message(3));
            assert_reason(end, Code::InvalidArgument, "INVALID_MESSAGE");
        }
    }

    #[test]
    fn a_body_that_ends_inside_a_message_is_refused() {
        let whole = message(4);
        for end in 1..whole.len() {
            for chunks in cuts(&whole[..end]) {
                assert_reason(feed(Messages::Any, chunks).1, Code::InvalidArgument, "INVALID_MESSAGE");
            }
        }
    }

    #[test]
    fn no_message_is_refused_where_one_is_taken() {
        assert_reason(feed(Messages::One, []).1, Code::InvalidArgument, "INVALID_MESSAGE");
        assert!(feed(Messages::Any, []).1.is_none());
    }

    #[test]
    fn a_compressed_message_and_an_unknown_flag_are_refused() {
        assert_reason(feed(Messages::One, [vec![1, 0, 0, 0, 0]]).1, Code::Unimplemented, "UNIMPLEMENTED");
        assert_reason(feed(Messages::One, [vec![2, 0, 0, 0, 0]]).1, Code::InvalidArgument, "INVALID_MESSAGE");
    }

    #[test]
    fn only_what_is_incomplete_is_counted() {
        assert_eq!(feed(Messages::One, [message(8)]).2, 0);
        assert_eq!(feed(Messages::Any, [message(8), message(8)].map(|m| [m, message(1)].concat())).2, 0);
        let (head, tail) = (message(8)[..9].to_vec(), message(8)[9..].to_vec());
        assert_eq!(
            feed(Messages::One, [head, tail]).2,
            HEADER_BYTES + 8,
            "all of it, for there is room made for all of it"
        );
        let (head, tail) = (message(8)[..4].to_vec(), message(8)[4..].to_vec());
        assert_eq!(feed(Messages::One, [head, tail]).2, 4);
    }

    #[test]
    fn past_the_bound_of_the_server_a_body_is_refused_and_a_dropped_one_makes_room() {
        let undecoded = Arc::new(Allowance::new(HEADER_BYTES + 8));
        let part = || Frames([Bytes::from(message(8)).slice(..9), Bytes::from(message(8)).slice(9..)].into());
        let intake = |frames| Intake::new(frames, Messages::One, MAX, Arc::clone(&undecoded));

        let mut first = intake(part());
        assert!(next(&mut first).unwrap().is_ok());
        let refused = next(&mut intake(part())).unwrap().err();
        assert_reason(refused, Code::Unavailable, "OVERLOADED");

        drop(first);
        let mut third = intake(part());
        assert!(next(&mut third).unwrap().is_ok() && next(&mut third).unwrap().is_ok());
        assert_eq!(undecoded.taken(), 0);
    }

    /// Has sent this, and then says nothing.
    struct Silent(Option<Bytes>);

    impl Body for Silent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.take().map_or(Poll::Pending, |chunk| Poll::Ready(Some(Ok(Frame::data(chunk)))))
        }
    }

    /// What becomes of a body whose rest nobody waits for any longer.
    fn too_slow_after(messages: Messages, sent: Vec<u8>) -> Option<Status> {
        let mut intake = Intake::new(Silent(Some(sent.into())), messages, MAX, Arc::new(Allowance::new(1_000)));
        let mut poll = || Pin::new(&mut intake).poll_frame(&mut Context::from_waker(Waker::noop()));
        let mut turn = turn::Turn::new();
        turn.follow(|| assert!(poll().is_ready() && poll().is_pending()));
        while !turn.look(false) {
            if turn.awaits_nothing() {
                return None;
            }
        }
        match turn.follow(poll) {
            Poll::Ready(Some(Err(status))) => Some(status),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_that_is_not_whole_in_time_is_told_so_and_between_messages_there_is_all_the_time() {
        for messages in [Messages::One, Messages::Any] {
            let status = too_slow_after(messages, message(8)[..9].to_vec());
            assert_reason(status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
        }
        assert!(too_slow_after(Messages::Any, message(8)).is_none());
    }
}
