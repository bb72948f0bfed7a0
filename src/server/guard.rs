//! What a client may make a connection do for nothing. It is read off the heads of frames at the socket, before HTTP/2 does
//! what they say.
//!
//! Frames that bring no call forward are paid for, out of a budget that answers fill: a client whose calls are answered has
//! plenty for its pings and windows, and one that only resets, pings or sets runs out of it, and is told
//! `ENHANCE_YOUR_CALM`. h2 has bounds of its own for some of this; they are for one kind of frame each, and for memory.
//!
//! A greeting, a frame or a block of headers that has begun is to end: see [`Guard::look`].

use std::fmt;

use super::turn::LOOK;
use crate::{
    frame::{CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEAD_BYTES, HEADERS, PREFACE, RST_STREAM},
    planted::{self, Bug},
};

/// What a client may spend at once: 10,000 pings, or what the window of a stream lets it send ahead in messages of 20 bytes.
/// h2 keeps frames that no call takes in a table that doubles, of some 250 bytes a frame: these have 8 MiB.
const BUDGET: i32 = 30_000;

/// What it gets each [`LOOK`]: 200 pings a second.
const ALLOWANCE: i32 = 3_000;

/// What a frame of data costs until a call takes it.
const PART: i32 = 1;

/// What a frame costs that says something about the connection or a stream.
const CONTROL: i32 = 3;

/// What a frame of an answer brings: headers, data or trailers.
const ANSWER: i32 = 4 * CONTROL;

/// What a stream that is reset costs, whoever resets it: the call was begun for nothing.
const RESET: i32 = 4 * CONTROL;

/// What something that has begun may take, in looks: 5 to 10 s. A frame has 16 KiB at most.
const LOOKS_MAX: u32 = 2;

const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cut {
    Flood,
    TooSlow,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flood => write!(f, "the client sends frames that bring no call forward, and too many of them"),
            Self::TooSlow => {
                let most = LOOK * LOOKS_MAX;
                write!(
                    f,
                    "the client began a greeting, a frame or a block of headers, and did not end it within {most:?}"
                )
            }
        }
    }
}

impl std::error::Error for Cut {}

/// The guard of one connection.
#[derive(Debug)]
pub(super) struct Guard {
    inward: Heads,
    outward: Heads,
    budget: i32,
    last_stream: u32,
    /// A block of headers goes on in the next frame.
    in_block: bool,
    /// How many frames have begun; a block of headers is one. It may wrap.
    begun: u32,
    /// How many had when something was seen open last, and how many looks have seen that.
    seen: (u32, u32),
}

impl Guard {
    pub(super) fn new() -> Self {
        Self {
            inward: Heads::after(PREFACE.len()),
            outward: Heads::after(0),
            budget: BUDGET,
            last_stream: 0,
            in_block: false,
            begun: 0,
            seen: (0, 0),
        }
    }

    /// Takes note of what the client sends.
    pub(super) fn received(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        let Self { inward, budget, last_stream, in_block, begun, .. } = self;
        let mut cost = 0_i32;
        inward.read(bytes, |head| {
            cost = cost.saturating_add(head.cost());
            if head.kind == HEADERS {
                *last_stream = head.stream.max(*last_stream);
            }
            if head.kind != CONTINUATION {
                *begun = begun.wrapping_add(1);
            }
            if matches!(head.kind, HEADERS | CONTINUATION) {
                *in_block = head.flags & END_HEADERS == 0;
            }
        });
        *budget = budget.saturating_sub(cost);
        if cost > 0 && planted::strikes(Bug::FreeFrames) {
            *budget = BUDGET;
        }
        if *budget < 0 { Err(Cut::Flood) } else { Ok(()) }
    }

    /// Takes note of what the client is sent.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let Self { outward, budget, .. } = self;
        outward.read(bytes, |head| match head.kind {
            DATA | HEADERS => *budget = (*budget + ANSWER).min(BUDGET),
            // The next frame of the client's finds what is left.
            RST_STREAM => *budget = budget.saturating_sub(RESET),
            _ => {}
        });
    }

    /// Calls took so many frames of data: those brought something forward.
    pub(super) fn calls_took(&mut self, frames: usize) {
        let back = i32::try_from(frames).unwrap_or(BUDGET).saturating_mul(PART);
        self.budget = self.budget.saturating_add(back).min(BUDGET);
    }

    /// Whether there is nothing to look at.
    pub(super) fn is_calm(&self) -> bool {
        !self.has_begun() && self.budget > BUDGET / 2
    }

    /// To be called every [`LOOK`] while there is something to look at.
    pub(super) fn look(&mut self) -> Result<(), Cut> {
        self.budget = (self.budget + ALLOWANCE).min(BUDGET);
        if !self.has_begun() {
            self.seen.1 = 0;
            return Ok(());
        }
        let looks = if self.seen.0 == self.begun { self.seen.1 + 1 } else { 1 };
        self.seen = (self.begun, looks);
        if looks < LOOKS_MAX { Ok(()) } else { Err(Cut::TooSlow) }
    }

    /// The frame that says why the connection goes, where one may be sent now.
    pub(super) fn go_away(&self, cut: Cut) -> Option<[u8; HEAD_BYTES + 8]> {
        if cut != Cut::Flood || !self.outward.is_between() {
            return None;
        }
        let mut frame = [0; HEAD_BYTES + 8];
        (frame[2], frame[3]) = (8, GOAWAY);
        frame[HEAD_BYTES..][..4].copy_from_slice(&self.last_stream.to_be_bytes());
        frame[HEAD_BYTES + 4..].copy_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        Some(frame)
    }

    fn has_begun(&self) -> bool {
        self.in_block || !self.inward.is_between()
    }
}

/// What a frame says first, but for its length.
#[derive(Clone, Copy, Debug)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn cost(self) -> i32 {
        match self.kind {
            // Begins a call, which is answered or reset.
            HEADERS => 0,
            // Each stream has one last frame, which may have nothing in it.
            DATA if self.flags & END_STREAM != 0 => 0,
            DATA => PART,
            RST_STREAM => RESET,
            _ => CONTROL,
        }
    }
}

/// Reads the heads off a sequence of frames, however its bytes are cut.
#[derive(Debug)]
struct Heads {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are there.
    filled: usize,
    /// Bytes to come before the next head.
    missing: usize,
}

impl Heads {
    /// The first frame begins after so many bytes.
    fn after(bytes: usize) -> Self {
        Self { head: [0; HEAD_BYTES], filled: 0, missing: bytes }
    }

    fn read(&mut self, mut bytes: &[u8], mut on: impl FnMut(Head)) {
        loop {
            let skipped = self.missing.min(bytes.len());
            self.missing -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let count = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..][..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.filled += count;
            if self.filled < HEAD_BYTES {
                return;
            }
            let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.head;
            let length = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
            (self.filled, self.missing) = (0, length);
            // The highest bit is reserved.
            on(Head { kind, flags, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]) });
        }
    }

    /// Nothing is there in part.
    fn is_between(&self) -> bool {
        self.filled == 0 && self.missing == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::PING;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream];
        frame.extend_from_slice(payload);
        frame
    }

    /// One that was greeted.
    fn guard() -> Guard {
        let mut guard = Guard::new();
        guard.received(PREFACE).unwrap();
        guard
    }

    /// How many of these are taken before the client is cut.
    fn taken(guard: &mut Guard, frame: &[u8]) -> i32 {
        (0..100_000).find(|_| guard.received(frame).is_err()).unwrap_or(100_000)
    }

    #[test]
    fn what_brings_no_call_forward_is_paid_for() {
        assert_eq!(taken(&mut guard(), &frame(PING, 0, 0, &[0; 8])), BUDGET / CONTROL);
        assert_eq!(taken(&mut guard(), &frame(0x77, 0, 0, b"unknown")), BUDGET / CONTROL);
        assert_eq!(taken(&mut guard(), &frame(DATA, 0, 1, b"")), BUDGET / PART);
        assert_eq!(taken(&mut guard(), &frame(RST_STREAM, 0, 1, &[0; 4])), BUDGET / RESET);
        let begun = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"");
        assert_eq!(taken(&mut guard(), &begun), 100_000);
    }

    #[test]
    fn an_answer_pays_for_what_goes_with_it() {
        let mut guard = guard();
        let answer =
            [frame(HEADERS, END_HEADERS, 1, b""), frame(DATA, 0, 1, b"answer"), frame(HEADERS, 5, 1, b"")].concat();
        for _ in 0..BUDGET {
            (0..3 * ANSWER / CONTROL).for_each(|_| guard.received(&frame(PING, 0, 0, &[0; 8])).unwrap());
            guard.sent(&answer);
        }
    }

    #[test]
    fn data_that_calls_take_costs_nothing() {
        let mut guard = guard();
        for _ in 0..2 * BUDGET {
            guard.received(&frame(DATA, 0, 1, b"part")).unwrap();
            guard.calls_took(1);
        }
    }

    #[test]
    fn streams_that_the_server_resets_are_paid_for_by_their_client() {
        let mut guard = guard();
        for _ in 0..=BUDGET / RESET {
            guard.received(&frame(HEADERS, END_HEADERS, 1, b"")).unwrap();
            guard.sent(&frame(RST_STREAM, 0, 1, &[0; 4]));
        }
        assert_eq!(guard.received(&frame(HEADERS, END_HEADERS, 1, b"")), Err(Cut::Flood));
    }

    #[test]
    fn time_pays_too() {
        let mut guard = guard();
        let ping = frame(PING, 0, 0, &[0; 8]);
        assert_eq!(taken(&mut guard, &ping), BUDGET / CONTROL);
        assert!(!guard.is_calm());
        guard.budget = 0;
        guard.look().unwrap();
        assert_eq!(taken(&mut guard, &ping), ALLOWANCE / CONTROL);
    }

    #[test]
    fn what_has_begun_is_to_end_by_the_second_look() {
        let greeting = |guard: &mut Guard| *guard = Guard::new();
        let part_of_a_head = |guard: &mut Guard| guard.received(&[0, 0]).unwrap();
        let part_of_a_frame = |guard: &mut Guard| guard.received(&frame(DATA, 0, 1, b"payload")[..12]).unwrap();
        let block = |guard: &mut Guard| guard.received(&frame(HEADERS, 0, 1, b"")).unwrap();
        for begin in [greeting, part_of_a_head, part_of_a_frame, block] {
            let mut guard = guard();
            assert!(guard.is_calm());
            begin(&mut guard);
            assert!(!guard.is_calm());
            assert_eq!([guard.look(), guard.look()], [Ok(()), Err(Cut::TooSlow)]);
        }
    }

    #[test]
    fn a_frame_after_another_has_its_own_time_and_a_continuation_has_none() {
        let mut guard = guard();
        let half = frame(DATA, 0, 1, b"payload").split_off(12);
        guard.received(&frame(DATA, 0, 1, b"payload")[..12]).unwrap();
        for _ in 0..9 {
            guard.look().unwrap();
            guard.received(&half).unwrap();
            guard.received(&frame(DATA, 0, 1, b"payload")[..12]).unwrap();
        }
        guard.received(&half).unwrap();
        guard.received(&frame(HEADERS, 0, 3, b"")).unwrap();
        guard.look().unwrap();
        guard.received(&frame(CONTINUATION, 0, 3, b"")).unwrap();
        assert_eq!(guard.look(), Err(Cut::TooSlow));
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let all = [frame(PING, 1, 0, &[7; 8]), frame(DATA, 0, 3, b""), frame(HEADERS, 4, 5, b"block")].concat();
        let heads = |cut: usize| {
            let (mut heads, mut seen) = (Heads::after(0), Vec::new());
            all.chunks(cut).for_each(|chunk| heads.read(chunk, |head| seen.push((head.kind, head.flags, head.stream))));
            assert!(heads.is_between());
            seen
        };
        for cut in 1..=all.len() {
            assert_eq!(heads(cut), [(PING, 1, 0), (DATA, 0, 3), (HEADERS, 4, 5)]);
        }
    }

    #[test]
    fn a_flood_is_told_which_streams_were_seen_and_only_between_frames() {
        let mut guard = guard();
        guard.received(&frame(HEADERS, END_HEADERS, 7, b"")).unwrap();
        let told = guard.go_away(Cut::Flood).unwrap();
        assert_eq!(told, *[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0xb].as_slice());
        guard.sent(&frame(DATA, 0, 1, b"half")[..11]);
        assert_eq!(guard.go_away(Cut::Flood), None);
    }
}
