//! Pipeline: a stream of the unary requests, run in the order sent and answered in that order.
//!
//! Nothing runs but what the client's reading pulls: no task, no channel, no queue. The stream holds what is left of one
//! request message and the one response that it fills, and reads no further message while a response waits to be taken; so
//! flow control holds back a client that sends without reading. It works in slices, between which others on its thread have
//! their turn.

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    vec,
};

use futures_util::Stream;
use prost::Message as _;
use tonic::{Request, Status, Streaming};

use super::{
    Buckets,
    access::{Kind, Standing},
    status::{Failure, Reason},
    streams::Permit,
};
use crate::{
    limits::{OPS_MAX, PIPELINE_CREATES_MAX, PIPELINE_PACK_BYTES, PIPELINE_SLICE, PIPELINE_STEPS_MAX},
    pb::{self, pipeline_op::Op, pipeline_result::Result as Answer},
    registry::Interest,
    watch::Seat,
};

impl Buckets {
    pub(super) fn pipeline_ops(
        &self,
        request: Request<Streaming<pb::PipelineRequest>>,
    ) -> Result<PipelineStream, Failure> {
        let standing = self.standing(request.extensions(), Kind::Working)?;
        let permit = self.streams.admit(request.extensions())?;
        Ok(PipelineStream::new(self.clone(), request.into_inner(), standing, permit))
    }
}

/// The responses of one Pipeline. Its end is the client's (half-closed, and all is answered: OK), an error of the request
/// stream, or the server's drain; whichever it is, what ran is answered first.
#[derive(Debug)]
pub struct PipelineStream<R = Streaming<pb::PipelineRequest>> {
    buckets: Buckets,
    requests: R,
    /// What is left of the message that it is at.
    ops: vec::IntoIter<pb::PipelineOp>,
    creates: Creates,
    pack: Pack,
    /// What is left of this slice, in the units of [`PIPELINE_SLICE`].
    slice: usize,
    stage: Stage,
    /// Where it is woken for the drain.
    seat: Seat,
    standing: Standing,
    permit: Permit,
}

#[derive(Debug)]
enum Stage {
    Open,
    /// No more is read; how it ends, once what is packed was sent.
    Over(Option<Status>),
}

impl<R> PipelineStream<R>
where
    R: Stream<Item = Result<pb::PipelineRequest, Status>> + Unpin,
{
    fn new(buckets: Buckets, requests: R, standing: Standing, permit: Permit) -> Self {
        let seat = Seat::take(buckets.registry.clone(), Interest::Drain);
        Self {
            buckets,
            requests,
            ops: vec::IntoIter::default(),
            creates: Creates::default(),
            pack: Pack::default(),
            slice: PIPELINE_SLICE,
            stage: Stage::Open,
            seat,
            standing,
            permit,
        }
    }

    /// The ops of the next message; `None` where the client has sent its last.
    fn next_ops(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Vec<pb::PipelineOp>>, Status>> {
        // Asked before the requests, so that the drain wakes it. A message that is there then is left unread: nothing of it
        // was done, which is what DRAINING says. A client that was done anyway has its OK.
        let draining = self.seat.is_draining(cx);
        if let Some(failure) = self.standing.ended(cx) {
            return Poll::Ready(Err(failure.into()));
        }
        let next = Pin::new(&mut self.requests).poll_next(cx)?;
        if matches!(next, Poll::Ready(None)) {
            return Poll::Ready(Ok(None));
        }
        if draining {
            let words = "the server is draining: what was not answered was not done";
            return Poll::Ready(Err(Failure::new(Reason::Draining, words).into()));
        }
        if self.permit.is_moving() {
            return Poll::Ready(Err(Permit::moving().into()));
        }
        let Some(pb::PipelineRequest { ops }) = ready!(next) else { return Poll::Ready(Ok(None)) };
        // Only now: who asks for nothing is not ended for it.
        self.permit.has_room()?;
        if ops.len() > OPS_MAX {
            let words = format!("the message has {} operations; {OPS_MAX} are allowed", ops.len());
            let failure = Failure::new(Reason::TooLarge, words).field("ops").limit(OPS_MAX, ops.len());
            return Poll::Ready(Err(failure.into()));
        }
        // An empty one has two bytes on the wire and a hundred here: they are not to wait in memory by the million.
        let steps = ops.iter().filter_map(|op| op.op.as_ref()).map(cost).sum::<usize>();
        if steps > PIPELINE_STEPS_MAX {
            let words = format!(
                "the message has {steps} operations with those in its transactions; {PIPELINE_STEPS_MAX} are allowed"
            );
            let failure = Failure::new(Reason::TooLarge, words).field("ops").limit(PIPELINE_STEPS_MAX, steps);
            return Poll::Ready(Err(failure.into()));
        }
        Poll::Ready(Ok(Some(ops)))
    }

    fn run(&mut self, op: pb::PipelineOp) {
        let pb::PipelineOp { id, bucket_id_from, op } = op;
        self.spend(op.as_ref().map_or(1, cost));
        let is_create = matches!(op, Some(Op::Create(_)));
        let answer = self.answer(op, bucket_id_from).unwrap_or_else(|failure| Answer::Error(failure.into()));
        if is_create {
            self.creates.note(id, &answer);
        }
        let bytes = self.pack.push(pb::PipelineResult { id, result: Some(answer) });
        self.spend(bytes >> 10);
    }

    fn answer(&self, op: Option<Op>, bucket_id_from: Option<u64>) -> Result<Answer, Failure> {
        let Some(mut op) = op else {
            return Err(Failure::new(Reason::InvalidOption, "the operation is unset: one is required").field("op"));
        };
        if let Some(from) = bucket_id_from {
            self.creates.address(&mut op, from)?;
        }
        let (buckets, caller) = (&self.buckets, self.standing.caller());
        Ok(match op {
            Op::Create(request) => Answer::Create(buckets.create_bucket(caller, &request)?),
            Op::Lookup(request) => Answer::Lookup(buckets.lookup_bucket(caller, &request)?),
            Op::List(request) => Answer::List(buckets.list_buckets(caller, &request)?),
            Op::Stop(request) => Answer::Stop(buckets.stop_bucket(caller, &request)?),
            Op::Put(request) => Answer::Put(buckets.put_entry(caller, request)?),
            Op::Get(request) => Answer::Get(buckets.get_entry(caller, request)?),
            Op::Delete(request) => Answer::Delete(buckets.delete_entry(caller, &request)?),
            Op::Add(request) => Answer::Add(buckets.add_to_entry(caller, &request)?),
            Op::Touch(request) => Answer::Touch(buckets.touch_entry(caller, &request)?),
            Op::Scan(request) => Answer::Scan(buckets.scan_entries(caller, &request)?),
            Op::Transact(request) => Answer::Transact(buckets.transact_entries(caller, &request)?),
        })
    }

    fn spend(&mut self, units: usize) {
        self.slice = self.slice.saturating_sub(units);
    }
}

impl<R> Stream for PipelineStream<R>
where
    R: Stream<Item = Result<pb::PipelineRequest, Status>> + Unpin,
{
    type Item = Result<pb::PipelineResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.pack.is_full() {
                return Poll::Ready(this.pack.take().map(Ok));
            }
            if this.slice == 0 {
                this.slice = PIPELINE_SLICE;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(op) = this.ops.next() {
                this.run(op);
                continue;
            }
            // An idle stream keeps no room for ops.
            this.ops = vec::IntoIter::default();
            if let Stage::Over(end) = &mut this.stage {
                return Poll::Ready(this.pack.take().map(Ok).or_else(|| end.take().map(Err)));
            }
            // An empty message costs too.
            this.spend(1);
            match this.next_ops(cx) {
                Poll::Ready(Ok(Some(ops))) => this.ops = ops.into_iter(),
                Poll::Ready(Ok(None)) => this.stage = Stage::Over(None),
                Poll::Ready(Err(status)) => this.stage = Stage::Over(Some(status)),
                Poll::Pending => {
                    if let Some(response) = this.pack.take() {
                        return Poll::Ready(Some(Ok(response)));
                    }
                    this.slice = PIPELINE_SLICE;
                    return Poll::Pending;
                }
            }
        }
    }
}

/// What an op takes of a slice, its answer aside.
fn cost(op: &Op) -> usize {
    match op {
        Op::Transact(request) => 1 + request.checks.len() + request.success.len() + request.failure.len(),
        _ => 1,
    }
}

/// The field for the id of the bucket that is meant; `None` for an op that has none.
fn bucket_id(op: &mut Op) -> Option<&mut Option<u64>> {
    match op {
        Op::Create(_) | Op::Lookup(_) | Op::List(_) => None,
        Op::Stop(request) => Some(&mut request.bucket_id),
        Op::Put(request) => Some(&mut request.bucket_id),
        Op::Get(request) => Some(&mut request.bucket_id),
        Op::Delete(request) => Some(&mut request.bucket_id),
        Op::Add(request) => Some(&mut request.bucket_id),
        Op::Touch(request) => Some(&mut request.bucket_id),
        Op::Scan(request) => Some(&mut request.bucket_id),
        Op::Transact(request) => Some(&mut request.bucket_id),
    }
}

/// The last [`PIPELINE_CREATES_MAX`] Creates of the stream: the op's id, and the bucket's if there is one.
///
/// Looked through from the newest: what is referred to was created just before.
#[derive(Debug, Default)]
struct Creates(VecDeque<(u64, Option<u64>)>);

impl Creates {
    fn note(&mut self, op_id: u64, answer: &Answer) {
        let bucket = match answer {
            Answer::Create(response) => response.bucket.as_ref().map(|bucket| bucket.id),
            _ => None,
        };
        if self.0.len() == PIPELINE_CREATES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((op_id, bucket));
    }

    /// Makes `op` mean the bucket that the last Create with the id `from` answered.
    fn address(&self, op: &mut Op, from: u64) -> Result<(), Failure> {
        let refused = |words: String| Err(Failure::new(Reason::InvalidOption, words).field("bucket_id_from"));
        let Some(bucket_id) = bucket_id(op) else {
            return refused("bucket_id_from is set: Create, Lookup and List take no bucket_id".to_owned());
        };
        if bucket_id.is_some() {
            return refused("bucket_id and bucket_id_from are both set: one is allowed".to_owned());
        }
        match self.0.iter().rfind(|(op_id, _)| *op_id == from) {
            Some((_, Some(bucket))) => *bucket_id = Some(*bucket),
            Some((_, None)) => return refused(format!("bucket_id_from is {from}, and that Create failed")),
            None => {
                let words = format!("bucket_id_from is {from}: no Create with this id is among the stream's last");
                return refused(format!("{words} {PIPELINE_CREATES_MAX}"));
            }
        }
        Ok(())
    }
}

/// The response that is being filled: as many results as fit [`PIPELINE_PACK_BYTES`], or one that is larger.
///
/// A result of its own never exceeds a message: it is what the unary call would have answered, which leaves some room.
#[derive(Debug, Default)]
struct Pack {
    results: Vec<pb::PipelineResult>,
    /// What `results` are, encoded.
    bytes: usize,
    /// The one that did not fit any more, and its bytes.
    next: Option<(pb::PipelineResult, usize)>,
}

impl Pack {
    /// Adds a result to a pack that is not full; its bytes.
    fn push(&mut self, result: pb::PipelineResult) -> usize {
        let length = result.encoded_len();
        let bytes = 1 + prost::length_delimiter_len(length) + length;
        if self.results.is_empty() || self.bytes + bytes <= PIPELINE_PACK_BYTES {
            self.results.push(result);
            self.bytes += bytes;
        } else {
            self.next = Some((result, bytes));
        }
        bytes
    }

    fn is_full(&self) -> bool {
        self.next.is_some() || self.bytes >= PIPELINE_PACK_BYTES
    }

    fn take(&mut self) -> Option<pb::PipelineResponse> {
        let results = mem::take(&mut self.results);
        self.bytes = 0;
        if let Some((result, bytes)) = self.next.take() {
            (self.results, self.bytes) = (vec![result], bytes);
        }
        (!results.is_empty()).then_some(pb::PipelineResponse { results })
    }
}

#[cfg(test)]
mod tests;
