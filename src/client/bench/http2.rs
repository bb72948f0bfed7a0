//! The client's half of HTTP/2 for gRPC, as bytes in and bytes out.
//!
//! Whoever loads a server must cost less than the server does, or measures itself. A general client takes as long for a
//! call as pail does. This one does what a load needs: requests of one kind, their fields packed as everyone packs
//! them, many frames in one write; of answers the messages and the status. It allocates nothing for a small call. Both
//! directions of flow control, the limits that the server sets, pings and good-byes are kept to the letter (RFC 9113).
//! It knows no socket, no clock and no protobuf.

mod hpack;
mod huffman;
mod outcome;
mod streams;
#[cfg(test)]
mod tests;

use tonic::Status;

pub(super) use self::hpack::Origin;
use self::{
    hpack::{Decoder, Encoder},
    outcome::Outcome,
    streams::Streams,
};
use crate::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEAD_BYTES, HEADERS, PADDED, PING, PREFACE, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};

/// The length of a gRPC message, and whether it is compressed.
const PREFIX_BYTES: usize = 5;

/// The largest frame that we take; the least that anyone must.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// The largest message that we take.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// What the server may send before we allow more; the largest there is.
const WINDOW: u32 = (1 << 31) - 1;
/// We allow more when this much was sent.
const WINDOW_LOW: u32 = 1 << 29;
const WINDOW_DEFAULT: i64 = 65_535;
const STREAM_ID_MAX: u32 = (1 << 31) - 1;

const SETTINGS_HEADER_TABLE_SIZE: u16 = 1;
const SETTINGS_ENABLE_PUSH: u16 = 2;
const SETTINGS_MAX_CONCURRENT_STREAMS: u16 = 3;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
const SETTINGS_MAX_FRAME_SIZE: u16 = 5;

/// The connection is of no more use, because of this.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Broken(pub(super) &'static str);

/// It is closed in all order, and nothing new may be opened.
const GOOD_BYE: Broken = Broken("the server said good-bye");

impl Broken {
    /// As an error that programs count.
    pub(super) fn reason(self) -> String {
        if self == GOOD_BYE { "GOAWAY".to_owned() } else { format!("INVALID_HTTP2: {}", self.0) }
    }
}

/// What a call hears. Its tag is what it was opened with.
#[derive(Debug)]
pub(super) enum Event<'a> {
    Message(&'a [u8]),
    /// The last one, with the status; `None` is OK.
    Ended(Option<Box<Status>>),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Http2 {
    /// What is to be written.
    pub(super) out: Vec<u8>,
    encoder: Encoder,
    decoder: Decoder,
    streams: Streams,
    /// What we may send on the connection…
    window: i64,
    /// …on a new stream…
    window_initial: i64,
    /// …and in one frame.
    frame_bytes_max: usize,
    streams_max: usize,
    /// What was received since we allowed more.
    received: u32,
    /// A block of fields whose end is still to come: of which stream, and whether that ends with it.
    fragment: Option<(u32, bool, Vec<u8>)>,
    /// Streams that have something to send and may not.
    blocked: Vec<u32>,
    is_settled: bool,
    is_closing: bool,
}

impl Http2 {
    pub(super) fn new(origin: Origin) -> Self {
        let mut out = PREFACE.to_vec();
        frame(SETTINGS, 0, 0, 12, &mut out);
        for (setting, value) in [(SETTINGS_ENABLE_PUSH, 0), (SETTINGS_INITIAL_WINDOW_SIZE, WINDOW)] {
            out.extend(setting.to_be_bytes());
            out.extend(value.to_be_bytes());
        }
        allow_more(0, WINDOW - 65_535, &mut out);
        Self {
            out,
            encoder: Encoder::new(origin),
            decoder: Decoder::new(),
            streams: Streams::default(),
            window: WINDOW_DEFAULT,
            window_initial: WINDOW_DEFAULT,
            frame_bytes_max: FRAME_BYTES_MAX,
            streams_max: usize::MAX,
            received: 0,
            fragment: None,
            blocked: Vec::new(),
            is_settled: false,
            is_closing: false,
        }
    }

    /// Whether the server has said what it allows. Before that, nothing should be opened.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// How many calls the server allows at once.
    pub(super) fn streams_max(&self) -> usize {
        self.streams_max
    }

    /// Opens a call with its first message, and perhaps its last one. Its number is for [`send`](Self::send).
    pub(super) fn open(&mut self, path: &'static str, tag: u32, message: &[u8], last: Last) -> Result<u32, Broken> {
        if self.is_closing {
            return Err(GOOD_BYE);
        }
        let id = self.streams.open(tag, self.window_initial).ok_or(Broken("a connection has only so many numbers"))?;
        let at = self.out.len();
        frame(HEADERS, END_HEADERS, id, 0, &mut self.out);
        self.encoder.request(path, &mut self.out);
        let length = self.out.len() - at - HEAD_BYTES;
        put_length(&mut self.out[at..], length);
        self.send(id, message, last);
        Ok(id)
    }

    /// Sends a message on a call, as soon as the server allows.
    pub(super) fn send(&mut self, id: u32, message: &[u8], last: Last) {
        let Some(stream) = self.streams.get(id) else { return }; // it has ended, and that was told
        let bytes = PREFIX_BYTES + message.len();
        let fits = i64::try_from(bytes).is_ok_and(|bytes| bytes <= self.window.min(stream.window));
        if fits && bytes <= self.frame_bytes_max && stream.unsent.is_empty() {
            let flags = if last == Last::Yes { END_STREAM } else { 0 };
            frame(DATA, flags, id, bytes, &mut self.out);
            prefixed(message, &mut self.out);
            stream.window -= bytes as i64;
            self.window -= bytes as i64;
            return;
        }
        prefixed(message, &mut stream.unsent);
        stream.last = last;
        if !self.blocked.contains(&id) {
            self.blocked.push(id);
        }
        self.unblock();
    }

    /// Sends what may be sent by now.
    fn unblock(&mut self) {
        let Self { streams, blocked, window, out, frame_bytes_max, .. } = self;
        blocked.retain(|&id| {
            let Some(stream) = streams.get(id) else { return false };
            let mut sent = 0;
            while sent < stream.unsent.len() {
                let may = usize::try_from(stream.window.min(*window)).unwrap_or_default();
                let bytes = may.min(*frame_bytes_max).min(stream.unsent.len() - sent);
                if bytes == 0 {
                    break;
                }
                let ends = stream.last == Last::Yes && sent + bytes == stream.unsent.len();
                frame(DATA, if ends { END_STREAM } else { 0 }, id, bytes, out);
                out.extend_from_slice(&stream.unsent[sent..sent + bytes]);
                stream.window -= bytes as i64;
                *window -= bytes as i64;
                sent += bytes;
            }
            stream.unsent.drain(..sent);
            !stream.unsent.is_empty()
        });
    }

    /// Takes what was received, tells what it means, and returns how many bytes of it were whole frames.
    pub(super) fn receive(&mut self, input: &[u8], mut tell: impl FnMut(u32, Event<'_>)) -> Result<usize, Broken> {
        let mut taken = 0;
        while let Some((header, rest)) = input[taken..].split_first_chunk::<HEAD_BYTES>() {
            let [a, b, c, kind, flags, id @ ..] = *header;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > FRAME_BYTES_MAX {
                return Err(Broken("a frame that is too large"));
            }
            let Some(payload) = rest.get(..length) else { break };
            let id = u32::from_be_bytes(id) & STREAM_ID_MAX;
            self.frame(kind, flags, id, payload, &mut tell)?;
            taken += HEAD_BYTES + length;
        }
        Ok(taken)
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        tell: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<(), Broken> {
        if self.fragment.is_some() && kind != CONTINUATION {
            return Err(Broken("a header that is cut off"));
        }
        match kind {
            DATA => self.data(flags, id, payload, tell),
            HEADERS => {
                let ends = flags & END_STREAM != 0;
                let mut block = unpadded(flags, payload)?;
                if flags & PRIORITY != 0 {
                    block = block.get(5..).ok_or(Broken("a frame that is too short"))?;
                }
                if flags & END_HEADERS != 0 {
                    return self.fields(id, ends, block, tell);
                }
                self.fragment = Some((id, ends, block.to_vec()));
                Ok(())
            }
            CONTINUATION => {
                let (of, ends, mut block) = self.fragment.take().ok_or(Broken("a header without a beginning"))?;
                block.extend_from_slice(payload);
                if of != id || block.len() > 4 * FRAME_BYTES_MAX {
                    return Err(Broken("a header that is too long"));
                }
                if flags & END_HEADERS != 0 {
                    return self.fields(of, ends, &block, tell);
                }
                self.fragment = Some((of, ends, block));
                Ok(())
            }
            RST_STREAM => {
                let code = number(payload)?;
                let status = Status::unavailable(format!("the stream was reset, with the code {code}"));
                if let Some(stream) = self.streams.close(id) {
                    tell(stream.tag, Event::Ended(Some(Box::new(status))));
                }
                Ok(())
            }
            SETTINGS if flags & ACK == 0 => self.settings(payload),
            PING if flags & ACK == 0 => {
                frame(PING, ACK, 0, payload.len(), &mut self.out);
                self.out.extend_from_slice(payload);
                Ok(())
            }
            GOAWAY => {
                self.is_closing = true; // what was opened is answered, or the connection is closed
                Ok(())
            }
            WINDOW_UPDATE => {
                let more = i64::from(number(payload)? & STREAM_ID_MAX);
                match self.streams.get(id) {
                    _ if id == 0 => self.window += more,
                    Some(stream) => stream.window += more,
                    None => {} // it has ended meanwhile
                }
                self.unblock();
                Ok(())
            }
            PUSH_PROMISE => Err(Broken("a push that nobody allowed")),
            _ => Ok(()), // an answer to ours, or of a kind that nobody need know
        }
    }

    fn data(
        &mut self,
        flags: u8,
        id: u32,
        payload: &[u8],
        tell: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<(), Broken> {
        #[allow(clippy::cast_possible_truncation)] // a frame's
        let bytes = payload.len() as u32;
        self.received += bytes;
        if self.received >= WINDOW_LOW {
            allow_more(0, std::mem::take(&mut self.received), &mut self.out);
        }
        let Some(stream) = self.streams.get(id) else { return Ok(()) };
        stream.received += bytes;
        if stream.received >= WINDOW_LOW {
            allow_more(id, std::mem::take(&mut stream.received), &mut self.out);
        }
        let payload = unpadded(flags, payload)?;
        let tag = stream.tag;
        if stream.partial.is_empty() {
            let rest = messages(payload, |message| tell(tag, Event::Message(message)))?;
            stream.partial.extend_from_slice(rest);
        } else {
            let mut partial = std::mem::take(&mut stream.partial);
            partial.extend_from_slice(payload);
            let rest = messages(&partial, |message| tell(tag, Event::Message(message)))?.len();
            partial.drain(..partial.len() - rest);
            stream.partial = partial;
        }
        if flags & END_STREAM != 0 {
            self.streams.close(id);
            tell(tag, Event::Ended(Some(Box::new(Status::unknown("the stream ended without a status")))));
        }
        Ok(())
    }

    /// The fields at the beginning of an answer, or at its end.
    fn fields(
        &mut self,
        id: u32,
        ends: bool,
        block: &[u8],
        tell: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<(), Broken> {
        let mut outcome = Outcome::default();
        self.decoder.decode(block, |name, value| outcome.field(name, value))?;
        if outcome.is_ok && ends {
            if let Some(stream) = self.streams.close(id) {
                let is_whole = stream.partial.is_empty();
                let status = (!is_whole).then(|| Box::new(Status::unknown("a message was cut off")));
                tell(stream.tag, Event::Ended(status));
            }
        } else if (ends || outcome.is_refused)
            && let Some(stream) = self.streams.close(id)
        {
            tell(stream.tag, Event::Ended(Some(Box::new(outcome.status()))));
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), Broken> {
        for setting in payload.chunks_exact(6) {
            let (setting, value) = (u16::from_be_bytes([setting[0], setting[1]]), number(&setting[2..])?);
            match setting {
                SETTINGS_HEADER_TABLE_SIZE => self.encoder.allow(value as usize),
                SETTINGS_MAX_CONCURRENT_STREAMS => self.streams_max = value as usize,
                SETTINGS_INITIAL_WINDOW_SIZE => {
                    let more = i64::from(value) - self.window_initial;
                    self.window_initial += more;
                    self.streams.live().for_each(|stream| stream.window += more);
                }
                SETTINGS_MAX_FRAME_SIZE => self.frame_bytes_max = value as usize,
                _ => {}
            }
        }
        self.is_settled = true;
        frame(SETTINGS, ACK, 0, 0, &mut self.out);
        self.unblock();
        Ok(())
    }
}

/// Whether a message is its call's last one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Last {
    Yes,
    No,
}

#[allow(clippy::cast_possible_truncation)] // nothing here is larger than a frame
fn frame(kind: u8, flags: u8, id: u32, length: usize, to: &mut Vec<u8>) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [d, e, f, g] = id.to_be_bytes();
    to.extend([a, b, c, kind, flags, d, e, f, g]);
}

#[allow(clippy::cast_possible_truncation)]
fn put_length(frame: &mut [u8], length: usize) {
    frame[..3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
}

fn allow_more(id: u32, bytes: u32, to: &mut Vec<u8>) {
    frame(WINDOW_UPDATE, 0, id, 4, to);
    to.extend(bytes.to_be_bytes());
}

#[allow(clippy::cast_possible_truncation)] // ours are at most as long as --value-size allows
fn prefixed(message: &[u8], to: &mut Vec<u8>) {
    to.push(0);
    to.extend((message.len() as u32).to_be_bytes());
    to.extend_from_slice(message);
}

fn number(payload: &[u8]) -> Result<u32, Broken> {
    let bytes = payload.first_chunk().ok_or(Broken("a frame that is too short"))?;
    Ok(u32::from_be_bytes(*bytes))
}

fn unpadded(flags: u8, payload: &[u8]) -> Result<&[u8], Broken> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(Broken("a frame that is too short"))?;
    rest.len().checked_sub(padding.into()).map(|length| &rest[..length]).ok_or(Broken("a frame that is too short"))
}

/// Tells of each whole message, and returns the beginning of the next.
fn messages(mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<&[u8], Broken> {
    while let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() {
        let [compressed, length @ ..] = *prefix;
        let length = u32::from_be_bytes(length) as usize;
        if compressed != 0 || length > MESSAGE_BYTES_MAX {
            return Err(Broken("a message that we did not ask for"));
        }
        let Some((message, rest)) = rest.split_at_checked(length) else { break };
        each(message);
        bytes = rest;
    }
    Ok(bytes)
}
