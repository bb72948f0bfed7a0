//! Whose turn it is on a stream, and how long its client may take over its own.
//!
//! A stream waits for its client while a message of the request is not whole, and while what the client was told is not
//! taken: hyper asks an answer for more only when the client's window lets it. HTTP/2 sets no limit to either, and the
//! deadline of a call that nobody polls can't end it. So a connection looks at its streams every [`LOOK`]. A client has
//! [`SHORT`] looks for its turn, [`LONG`] where the stream lives as long as it likes, and one more for each
//! [`BYTES_A_LOOK`] that move. A request that is too slow is answered; a stream whose answer is not taken is reset.
//!
//! Between the connection, which polls a stream, and the call in it is hyper, which hands nothing through. Both run on one
//! thread: so the call leaves a note there while it is polled.

use std::{cell::Cell, time::Duration};

/// How often streams are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// So many looks in one turn are too many: 5 to 10 s.
const SHORT: usize = 2;

/// The same where the client says when the stream ends: 30 to 35 s, as long as a peer may leave TCP unread.
const LONG: usize = 7;

/// 16 KiB/s.
const BYTES_A_LOOK: usize = 80 << 10;

thread_local! {
    static NOTE: Cell<Note> = const { Cell::new(Note::NONE) };
    static PARTS: Cell<usize> = const { Cell::new(0) };
}

/// What a call says of itself while its stream is polled.
#[derive(Clone, Copy, Debug)]
struct Note {
    awaits: Awaits,
    progress: Progress,
    is_long: bool,
    is_too_slow: bool,
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Awaits {
    /// That the client takes what it was told. So it is where nothing of the call was polled.
    Room,
    /// The rest of a message.
    Request,
    /// Nothing that the client owes.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
enum Progress {
    /// Bytes that moved in this turn.
    More(usize),
    /// A turn begins, with so many bytes.
    Anew(usize),
}

impl Note {
    const NONE: Self = Self { awaits: Awaits::Room, progress: Progress::More(0), is_long: false, is_too_slow: false };

    fn change(change: impl FnOnce(&mut Self)) {
        NOTE.with(|note| {
            let mut changed = note.get();
            change(&mut changed);
            note.set(changed);
        });
    }
}

/// The call is at work, or waits for something in the server. It `is_long` where its client says when it ends.
pub(super) fn is_ours(is_long: bool) {
    Note::change(|note| (note.awaits, note.is_long) = (Awaits::Nothing, is_long));
}

/// The client was told something of so many bytes, and is to take it.
pub(super) fn told(bytes: usize) {
    Note::change(|note| {
        note.awaits = Awaits::Room;
        note.progress = Progress::Anew(bytes);
    });
}

/// What the client was told is not taken yet.
pub(super) fn awaits_room() {
    Note::change(|note| note.awaits = Awaits::Room);
}

/// The client is to send more.
pub(super) fn awaits_request() {
    Note::change(|note| note.awaits = Awaits::Request);
}

/// The client sent so many bytes, and a message `is_whole` with them.
pub(super) fn received(bytes: usize, is_whole: bool) {
    PARTS.set(PARTS.get() + usize::from(bytes > 0));
    Note::change(|note| {
        note.awaits = Awaits::Nothing;
        note.progress = match note.progress {
            _ if is_whole => Progress::Anew(0),
            Progress::More(before) => Progress::More(before + bytes),
            Progress::Anew(before) => Progress::Anew(before + bytes),
        };
    });
}

/// How many parts of requests calls took on this thread since this was asked before. A part is what one frame brings.
pub(super) fn take_parts() -> usize {
    PARTS.take()
}

/// Whether the rest of the request is waited for no longer.
pub(super) fn is_too_slow() -> bool {
    NOTE.get().is_too_slow
}

/// The turns of one stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    awaits: Awaits,
    looks: usize,
    bytes: usize,
    is_long: bool,
    slow: Slow,
}

/// What becomes of a stream whose client is too slow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Slow {
    No,
    /// It is polled once more, to say so.
    Told,
    /// It is over.
    Over,
}

impl Turn {
    pub(super) fn new() -> Self {
        Self { awaits: Awaits::Nothing, looks: 0, bytes: 0, is_long: false, slow: Slow::No }
    }

    /// Polls the stream, and follows whose turn it is then.
    pub(super) fn follow<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        NOTE.set(Note { is_too_slow: self.slow == Slow::Told, ..Note::NONE });
        let polled = poll();
        let note = NOTE.replace(Note::NONE);
        let (is_new, bytes) = match note.progress {
            Progress::More(bytes) => (note.awaits != self.awaits, bytes),
            Progress::Anew(bytes) => (true, bytes),
        };
        if is_new {
            (self.looks, self.bytes) = (0, 0);
        }
        self.bytes += bytes;
        self.awaits = note.awaits;
        self.is_long |= note.is_long;
        polled
    }

    /// One more [`LOOK`] has passed. Whether the client was too slow: then the stream is to be polled.
    pub(super) fn look(&mut self) -> bool {
        if self.awaits == Awaits::Nothing {
            return false;
        }
        self.looks += 1;
        let looks_max = if self.is_long { LONG } else { SHORT };
        if self.looks < looks_max + self.bytes / BYTES_A_LOOK {
            return false;
        }
        self.looks = 0;
        // A request that was told so, and did not hear it, has nothing more coming.
        let can_tell = self.slow == Slow::No && self.awaits == Awaits::Request;
        self.slow = if can_tell { Slow::Told } else { Slow::Over };
        true
    }

    pub(super) fn is_over(&self) -> bool {
        self.slow == Slow::Over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(poll: impl FnOnce()) -> Turn {
        let mut turn = Turn::new();
        turn.follow(poll);
        turn
    }

    /// After how many looks of a hundred the client is too slow, and what becomes of the stream.
    fn slow(mut turn: Turn) -> Option<(usize, Slow)> {
        (1..100).find(|_| turn.look()).map(|look| (look, turn.slow))
    }

    #[test]
    fn a_client_has_two_looks_and_seven_where_it_says_how_long_the_stream_lives() {
        assert_eq!(slow(turn(awaits_request)), Some((2, Slow::Told)));
        assert_eq!(slow(turn(awaits_room)), Some((2, Slow::Over)));
        let long = || {
            is_ours(true);
            told(1);
        };
        assert_eq!(slow(turn(long)), Some((7, Slow::Over)));
    }

    #[test]
    fn nobody_is_hurried_while_the_server_is_at_work_or_has_nothing_to_say() {
        assert_eq!(slow(turn(|| is_ours(false))), None);
    }

    #[test]
    fn a_stream_that_hyper_does_not_ask_for_more_waits_for_its_client() {
        assert_eq!(slow(turn(|| ())), Some((2, Slow::Over)));
    }

    #[test]
    fn what_is_large_may_take_longer() {
        let large = || told(3 * BYTES_A_LOOK);
        assert_eq!(slow(turn(large)), Some((5, Slow::Over)));
        let half = || {
            received(BYTES_A_LOOK, false);
            received(BYTES_A_LOOK, false);
            awaits_request();
        };
        assert_eq!(slow(turn(half)), Some((4, Slow::Told)));
    }

    #[test]
    fn a_byte_now_and_then_is_no_progress_and_a_message_is() {
        let looks_at = |is_whole: bool| {
            let mut turn = turn(awaits_request);
            let mut look = || {
                let is_slow = turn.look();
                turn.follow(|| {
                    received(1, is_whole);
                    awaits_request();
                });
                is_slow
            };
            [look(), look(), look()]
        };
        assert_eq!(looks_at(true), [false, false, false]);
        assert_eq!(looks_at(false)[..2], [false, true]);
    }

    #[test]
    fn who_can_not_be_told_is_cut() {
        let mut turn = turn(awaits_request);
        assert_eq!([turn.look(), turn.look(), turn.is_over()], [false, true, false]);
        turn.follow(|| {
            assert!(is_too_slow());
            awaits_request();
        });
        assert!(!is_too_slow(), "the note is about one stream");
        assert_eq!([turn.look(), turn.look(), turn.is_over()], [false, true, true]);
    }

    #[test]
    fn parts_are_counted_once() {
        take_parts();
        Turn::new().follow(|| [0, 1, 5].map(|bytes| received(bytes, false)));
        assert_eq!((take_parts(), take_parts()), (2, 0));
    }
}
