//! Whose turn it is on a stream, and how long its client may take over its own.
//!
//! A stream waits for its client while a message of the request is not whole, and while what the client was told is not
//! taken: hyper asks an answer for more only when the client's window lets it. HTTP/2 sets no limit to either, and the
//! deadline of a call that nobody polls can't end it. So a connection looks at its streams every [`LOOK`]. A client has
//! [`SHORT`] looks for its turn, [`LONG`] where the stream lives as long as it likes, and one more for each
//! [`BYTES_A_LOOK`] that move. Where as many move on the whole connection, its streams may wait for each other, and a look
//! counts for a quarter. A request that is too slow is answered; a stream whose answer is not taken is reset.
//!
//! Between the connection, which polls a stream, and the call in it is hyper, which hands nothing through. Both run on one
//! thread: so the call leaves a note there while it is polled.

use std::{cell::Cell, time::Duration};

/// How often streams are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// So many looks in one turn are too many: 5 to 10 s.
const SHORT: u64 = 2;

/// The same where the client says when the stream ends: 30 to 35 s, as long as a peer may leave TCP unread.
const LONG: u64 = 7;

/// 16 KiB/s.
pub(super) const BYTES_A_LOOK: u64 = 80 << 10;

/// What a look counts where the connection rests. Where it is busy it counts one.
const WHOLE: u64 = 4;

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
    More(u64),
    /// A turn begins, with so many bytes.
    Anew(u64),
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
        note.progress = Progress::Anew(count(bytes));
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
            Progress::More(before) => Progress::More(before + count(bytes)),
            Progress::Anew(before) => Progress::Anew(before + count(bytes)),
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

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// The turns of one stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    awaits: Awaits,
    /// In quarters, see [`WHOLE`].
    looks: u64,
    bytes: u64,
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

    /// One more [`LOOK`] has passed, in which the connection `is_busy` or rested. Whether the client was too slow: then the
    /// stream is to be polled.
    pub(super) fn look(&mut self, is_busy: bool) -> bool {
        if self.awaits == Awaits::Nothing {
            return false;
        }
        self.looks += if is_busy { 1 } else { WHOLE };
        let looks_max = if self.is_long { LONG } else { SHORT };
        if self.looks < (looks_max + self.bytes / BYTES_A_LOOK) * WHOLE {
            return false;
        }
        self.looks = 0;
        // A request that was told so, and did not hear it, has nothing more coming.
        let can_tell = self.slow == Slow::No && self.awaits == Awaits::Request;
        self.slow = if can_tell { Slow::Told } else { Slow::Over };
        true
    }

    #[cfg(test)]
    pub(super) fn awaits_nothing(&self) -> bool {
        self.awaits == Awaits::Nothing
    }

    pub(super) fn is_over(&self) -> bool {
        self.slow == Slow::Over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: usize = 80 << 10;

    fn turn(poll: impl FnOnce()) -> Turn {
        let mut turn = Turn::new();
        turn.follow(poll);
        turn
    }

    /// After how many looks of a hundred the client is too slow, and what becomes of the stream.
    fn slow(mut turn: Turn) -> Option<(usize, Slow)> {
        (1..100).find(|_| turn.look(false)).map(|look| (look, turn.slow))
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
        let large = || told(3 * ENOUGH);
        assert_eq!(slow(turn(large)), Some((5, Slow::Over)));
        let half = || {
            received(ENOUGH, false);
            received(ENOUGH, false);
            awaits_request();
        };
        assert_eq!(slow(turn(half)), Some((4, Slow::Told)));
    }

    #[test]
    fn streams_of_a_busy_connection_may_wait_for_each_other_for_four_times_as_long() {
        let mut turn = turn(awaits_room);
        assert_eq!((1..100).find(|_| turn.look(true)), Some(SHORT * WHOLE));
    }

    #[test]
    fn a_byte_now_and_then_is_no_progress_and_a_message_is() {
        let looks_at = |is_whole: bool| {
            let mut turn = turn(awaits_request);
            let mut look = || {
                let is_slow = turn.look(false);
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
        assert_eq!([turn.look(false), turn.look(false), turn.is_over()], [false, true, false]);
        turn.follow(|| {
            assert!(is_too_slow());
            awaits_request();
        });
        assert!(!is_too_slow(), "the note is about one stream");
        assert_eq!([turn.look(false), turn.look(false), turn.is_over()], [false, true, true]);
    }

    #[test]
    fn parts_are_counted_once() {
        take_parts();
        Turn::new().follow(|| [0, 1, 5].map(|bytes| received(bytes, false)));
        assert_eq!((take_parts(), take_parts()), (2, 0));
    }
}
