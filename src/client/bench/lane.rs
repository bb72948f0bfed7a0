//! One connection under load: its socket, what it asks, and when.
//!
//! Nothing here waits. [`Lane::step`] sends what is to be sent now, [`Lane::read`] takes what is there.

use std::io::{ErrorKind, Read as _, Write as _};

use super::{
    channel::{Channel, Mode},
    http2::{Broken, Origin},
    load::Load,
    pace::Pace,
    slots::{Round, Slots},
    socket::Socket,
    tally::Tally,
};

/// Reads as much at once.
pub(super) const READ_BYTES: usize = 256 << 10;
/// While this much waits to be written, no more is put behind it: the server does not take it.
const UNWRITTEN_BYTES_MAX: usize = 4 << 20;

const CONNECTION_LOST: &str = "CONNECTION_LOST";

pub(super) struct Lane {
    pub(super) socket: Socket,
    channel: Channel,
    load: Box<dyn Load>,
    pace: Pace,
    slots: Slots,
    /// The beginning of a frame.
    partial: Vec<u8>,
    stage: Stage,
}

#[derive(Debug, Eq, PartialEq)]
enum Stage {
    /// The server has not said yet what it allows.
    Connected,
    /// What must be there before the first operation is asked for.
    Preparing,
    Ready,
    /// The connection is of no more use, because of this.
    Lost(String),
}

/// What a lane needs of its thread.
pub(super) struct Hands<'a> {
    pub(super) tally: &'a mut Tally,
    pub(super) now_ns: u64,
}

impl Lane {
    pub(super) fn new(socket: Socket, channel: (Origin, Mode), slots: u32, load: Box<dyn Load>, pace: Pace) -> Self {
        let (origin, mode) = channel;
        Self {
            socket,
            channel: Channel::new(origin, mode, slots),
            load,
            pace,
            slots: Slots::new(slots),
            partial: Vec::new(),
            stage: Stage::Connected,
        }
    }

    /// Whether operations can start. An error is the reason for which they never will.
    pub(super) fn is_prepared(&self) -> Result<bool, String> {
        match &self.stage {
            Stage::Lost(reason) => Err(reason.clone()),
            Stage::Ready => Ok(self.load.is_prepared(&self.slots)),
            Stage::Connected | Stage::Preparing => Ok(false),
        }
    }

    /// Asks for what must be there, once the server has said what it allows.
    pub(super) fn prepare(&mut self, calls: u32, hands: &mut Hands<'_>) {
        if self.stage == Stage::Connected && self.channel.is_settled() {
            self.stage = Stage::Preparing;
            let max = self.channel.streams_max();
            if max < calls as usize {
                return self
                    .lose(&format!("the server allows {max} calls a connection, and this takes {calls}"), hands);
            }
            let mut round = Round { slots: &mut self.slots, tally: hands.tally, now_ns: hands.now_ns };
            let asked = self.load.prepare(&mut self.channel, &mut round);
            self.stage = Stage::Ready;
            self.check(asked, hands);
        }
        let flushed = self.channel.flush();
        self.check(flushed, hands);
        self.write(hands);
    }

    /// Starts what is to start now, and writes.
    pub(super) fn step(&mut self, hands: &mut Hands<'_>) {
        if self.stage != Stage::Ready {
            return;
        }
        let asked = self.ask(hands);
        self.check(asked, hands);
        self.write(hands);
    }

    fn ask(&mut self, hands: &mut Hands<'_>) -> Result<(), Broken> {
        if !self.pace.is_over(hands.now_ns) {
            self.load.follow_up(&mut self.channel)?;
        }
        while self.slots.has_free() && self.channel.out().len() < UNWRITTEN_BYTES_MAX {
            let Some(start) = self.pace.next(hands.now_ns) else { break };
            let Some(slot) = self.slots.take(start, hands.now_ns, hands.tally) else { break };
            let bytes = self.load.start(slot, &mut self.channel)?;
            if start.is_counted {
                hands.tally.bytes += bytes;
            }
        }
        self.channel.flush()
    }

    fn write(&mut self, hands: &mut Hands<'_>) {
        let out = self.channel.out();
        let mut written = 0;
        let outcome = loop {
            let wrote = if written == out.len() {
                self.socket.flush().map(|()| None)
            } else {
                self.socket.write(&out[written..]).map(Some)
            };
            match wrote {
                Ok(None) => break Ok(()),
                Ok(Some(0)) => break Err(()),
                Ok(Some(bytes)) => written += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(_) => break Err(()),
            }
        };
        out.drain(..written);
        if outcome.is_err() {
            self.lose(CONNECTION_LOST, hands);
        }
    }

    /// Takes all that is there. The buffer is anybody's between two calls.
    pub(super) fn read(&mut self, buffer: &mut [u8], hands: &mut Hands<'_>) {
        while !self.is_lost() {
            let left = self.partial.len();
            buffer[..left].copy_from_slice(&self.partial);
            let room = buffer.len() - left;
            let read = match self.socket.read(&mut buffer[left..]) {
                Ok(0) => return self.lose(CONNECTION_LOST, hands),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.lose(CONNECTION_LOST, hands),
            };
            let input = &buffer[..left + read];
            let mut round = Round { slots: &mut self.slots, tally: hands.tally, now_ns: hands.now_ns };
            let load = &mut self.load;
            match self.channel.receive(input, |told| load.hear(told, &mut round)) {
                Ok(taken) => {
                    self.partial.clear();
                    self.partial.extend_from_slice(&input[taken..]);
                }
                Err(reason) => return self.lose(&reason, hands),
            }
            if read < room {
                return;
            }
        }
    }

    /// Whether it has something to write that the socket does not take yet.
    pub(super) fn is_full(&self) -> bool {
        self.channel.has_out() || self.socket.holds_back()
    }

    /// When there is something to start, in an open loop with room for it.
    pub(super) fn due_ns(&self, now_ns: u64) -> Option<u64> {
        let may_start = self.slots.has_free() && !self.pace.is_over(now_ns) && !self.is_lost();
        self.pace.due_ns().filter(|_| may_start)
    }

    /// Whether nothing starts any more.
    pub(super) fn is_over(&self, now_ns: u64) -> bool {
        let will_never_have_room = !self.slots.has_free() && self.is_idle();
        self.is_lost() || self.pace.is_over(now_ns) || will_never_have_room
    }

    /// Whether nothing starts any more, and nothing is under way.
    pub(super) fn is_done(&self, now_ns: u64) -> bool {
        self.is_lost() || self.is_over(now_ns) && self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.slots.busy() == 0 && self.load.is_idle()
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self.stage, Stage::Lost(_))
    }

    /// Starts nothing from now on.
    pub(super) fn end(&mut self, now_ns: u64) {
        self.pace.end(now_ns);
    }

    /// Gives up what is under way.
    pub(super) fn give_up(&mut self, reason: &str, hands: &mut Hands<'_>) {
        hands.tally.unsent += self.pace.unsent(hands.now_ns);
        Round { slots: &mut self.slots, tally: hands.tally, now_ns: hands.now_ns }.all_failed(reason);
    }

    fn check(&mut self, asked: Result<(), Broken>, hands: &mut Hands<'_>) {
        if let Err(broken) = asked {
            self.lose(&broken.reason(), hands);
        }
    }

    /// The connection is of no more use. That is an error, whether something was under way or not.
    fn lose(&mut self, reason: &str, hands: &mut Hands<'_>) {
        let failures = hands.tally.failures();
        Round { slots: &mut self.slots, tally: hands.tally, now_ns: hands.now_ns }.all_failed(reason);
        if !self.is_lost() {
            if hands.tally.failures() == failures {
                hands.tally.failed(reason, hands.now_ns);
            }
            self.stage = Stage::Lost(reason.to_owned());
        }
    }
}
