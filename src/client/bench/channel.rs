//! A connection on which one can ask: each request a call of its own, or all of them on one Pipeline.
//!
//! Who asks names a slot, and hears from it again once. A request is answered in either mode with the same bytes.

use std::collections::VecDeque;

use clap::ValueEnum;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use serde::Serialize;
use tonic::{Code, Status};

use super::{
    http2::{Broken, Event, Http2, Last, Origin},
    wire::{Held, fields},
};
use crate::{
    client::error::{Error, wire_name},
    limits::OPS_MAX,
};

/// A message of a Pipeline that is as long as this takes no further request; far less than the server allows.
const PIPELINE_BYTES: usize = 256 << 10;

const PIPELINE: &str = "/pail.v1.BucketService/Pipeline";
const WATCH: &str = "/pail.v1.BucketService/Watch";

/// The fields of a `PipelineRequest`, of a `PipelineResponse`, and of a refused `PipelineResult`.
const OPS: u32 = 1;
const RESULTS: u32 = 1;
const ERROR: u32 = 2;

const PIPELINE_TAG: u32 = u32::MAX;
/// Of all watches. Other tags are slots.
const WATCH_TAG: u32 = u32::MAX - 1;

/// How requests are sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// Each is a call of its own
    Unary,
    /// All of a connection's are on one Pipeline
    Pipeline,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Method {
    Create,
    Stop,
    Put,
    Get,
    Scan,
}

impl Method {
    fn path(self) -> &'static str {
        match self {
            Self::Create => "/pail.v1.BucketService/Create",
            Self::Stop => "/pail.v1.BucketService/Stop",
            Self::Put => "/pail.v1.BucketService/Put",
            Self::Get => "/pail.v1.BucketService/Get",
            Self::Scan => "/pail.v1.BucketService/Scan",
        }
    }

    /// Its field in a `PipelineOp`, and in a `PipelineResult`.
    fn field(self) -> u32 {
        match self {
            Self::Create => 3,
            Self::Stop => 6,
            Self::Put => 7,
            Self::Get => 8,
            Self::Scan => 0, // no field: a run of scans in a Pipeline is refused
        }
    }
}

/// What is heard.
pub(super) enum Told<'a> {
    /// The answer to what a slot asked: the bytes of its message, or the reason for which there is none.
    Answer(u32, Result<u64, String>),
    /// A message of one of its watches.
    Watch(&'a [u8]),
}

/// One connection, without its socket.
pub(super) struct Channel {
    http: Http2,
    /// The bytes of the answer that each slot has had so far.
    answered: Vec<u64>,
    pipeline: Option<Pipeline>,
    /// Why it is of no more use.
    fault: Option<String>,
}

struct Pipeline {
    id: Option<u32>,
    /// The next message.
    message: Vec<u8>,
    ops: usize,
    /// Who waits, in the order in which they are answered.
    waiting: VecDeque<u32>,
}

impl Channel {
    pub(super) fn new(origin: Origin, mode: Mode, slots: u32) -> Self {
        let pipeline = Pipeline { id: None, message: Vec::new(), ops: 0, waiting: VecDeque::new() };
        Self {
            http: Http2::new(origin),
            answered: vec![0; slots as usize],
            pipeline: (mode == Mode::Pipeline).then_some(pipeline),
            fault: None,
        }
    }

    /// Whether the server has said what it allows.
    pub(super) fn is_settled(&self) -> bool {
        self.http.is_settled()
    }

    /// How many calls the server allows at once.
    pub(super) fn streams_max(&self) -> usize {
        self.http.streams_max()
    }

    /// Whether there is something to write.
    pub(super) fn has_out(&self) -> bool {
        !self.http.out.is_empty()
    }

    /// What is to be written.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.http.out
    }

    /// Asks for a slot, and returns how many bytes it asked with. A Pipeline's message goes when it is full, or at the
    /// next [`flush`](Self::flush).
    pub(super) fn ask(&mut self, slot: u32, method: Method, message: &[u8]) -> Result<u64, Broken> {
        self.answered[slot as usize] = 0;
        let Some(pipeline) = &mut self.pipeline else {
            return self.http.open(method.path(), slot, message, Last::Yes).map(|_| message.len() as u64);
        };
        if pipeline.ops == OPS_MAX || pipeline.message.len() + message.len() > PIPELINE_BYTES {
            self.flush()?;
        }
        if let Some(pipeline) = &mut self.pipeline {
            pipeline.add(slot, method, message);
        }
        Ok(message.len() as u64)
    }

    /// Sends what waits for company.
    pub(super) fn flush(&mut self) -> Result<(), Broken> {
        let Some(pipeline) = self.pipeline.as_mut().filter(|pipeline| pipeline.ops > 0) else { return Ok(()) };
        match pipeline.id {
            Some(id) => self.http.send(id, &pipeline.message, Last::No),
            None => pipeline.id = Some(self.http.open(PIPELINE, PIPELINE_TAG, &pipeline.message, Last::No)?),
        }
        pipeline.message.clear();
        pipeline.ops = 0;
        Ok(())
    }

    /// Opens a watch. It must not end.
    pub(super) fn watch(&mut self, request: &[u8]) -> Result<(), Broken> {
        self.http.open(WATCH, WATCH_TAG, request, Last::Yes).map(drop)
    }

    /// Takes what was received, and returns how much of it was taken. An error is the reason for which the connection
    /// is of no more use.
    pub(super) fn receive(&mut self, input: &[u8], mut tell: impl FnMut(Told<'_>)) -> Result<usize, String> {
        let Self { http, answered, pipeline, fault } = self;
        let taken = http.receive(input, |tag, event| match (tag, event) {
            (PIPELINE_TAG, Event::Message(message)) => {
                let Some(pipeline) = pipeline else { return };
                if pipeline.answers(message, &mut tell).is_none() {
                    *fault = Some("INVALID_ANSWER".to_owned());
                }
            }
            (WATCH_TAG, Event::Message(message)) => tell(Told::Watch(message)),
            (WATCH_TAG, Event::Ended(status)) => {
                let ended = || Status::unavailable("the server ended the stream");
                *fault = Some(reason(status.map_or_else(ended, |status| *status)));
            }
            (slot, Event::Message(message)) => answered[slot as usize] += message.len() as u64,
            (slot, Event::Ended(None)) => tell(Told::Answer(slot, Ok(answered[slot as usize]))),
            (slot, Event::Ended(Some(status))) => tell(Told::Answer(slot, Err(reason(*status)))),
        });
        match (taken, self.fault.take()) {
            (Ok(taken), None) => Ok(taken),
            (_, Some(reason)) => Err(reason),
            (Err(broken), None) => Err(broken.reason()),
        }
    }
}

impl Pipeline {
    fn add(&mut self, slot: u32, method: Method, message: &[u8]) {
        let op_bytes = 1 + encoded_len_varint(message.len() as u64) + message.len();
        encode_key(OPS, WireType::LengthDelimited, &mut self.message);
        encode_varint(op_bytes as u64, &mut self.message);
        encode_key(method.field(), WireType::LengthDelimited, &mut self.message);
        encode_varint(message.len() as u64, &mut self.message);
        self.message.extend_from_slice(message);
        self.ops += 1;
        self.waiting.push_back(slot);
    }

    /// Tells of each result in a response; `None` where it is none, or answers what nobody asked.
    fn answers(&mut self, response: &[u8], tell: &mut impl FnMut(Told<'_>)) -> Option<()> {
        for result in fields(response) {
            let (RESULTS, Held::Bytes(result)) = result? else { return None };
            // It has one field, the answer: its id is the one that we gave, and we give none.
            let (field, Held::Bytes(message)) = fields(result).next()?? else { return None };
            let outcome = if field == ERROR { Err(refusal(message)) } else { Ok(message.len() as u64) };
            tell(Told::Answer(self.waiting.pop_front()?, outcome));
        }
        Some(())
    }
}

/// Why an operation of a Pipeline failed.
fn refusal(message: &[u8]) -> String {
    match tonic_types::Status::decode(message) {
        Ok(status) => {
            reason(Status::with_details(Code::from_i32(status.code), status.message, message.to_vec().into()))
        }
        Err(_) => "INVALID_ANSWER".to_owned(),
    }
}

/// pail's own reason, or else the code.
fn reason(status: Status) -> String {
    let code = status.code();
    Error::from(status).reason().unwrap_or_else(|| wire_name(code))
}
