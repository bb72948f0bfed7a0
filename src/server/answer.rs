//! A large answer on its way out: in pieces, so that whether its client takes it can be seen, and within a bound on the bytes
//! that the whole server holds of answers which clients do not take.

use std::sync::Arc;

use bytes::Bytes;

use crate::service::{
    allowance::{Allowance, Charge},
    status::Failure,
    streams,
};

/// HTTP/2 gets no more at once; less than a client may take over one turn.
const PIECE_BYTES: usize = 64 << 10;

/// What is left of an answer.
#[derive(Debug)]
pub(super) struct Rest {
    bytes: Bytes,
    _charge: Charge,
}

impl Rest {
    /// The first piece of an answer, and what is left of it. One that can't be refused has room in any case.
    pub(super) fn split(
        mut bytes: Bytes,
        untaken: &Arc<Allowance>,
        can_refuse: bool,
    ) -> Result<(Bytes, Option<Self>), Failure> {
        if bytes.len() <= PIECE_BYTES {
            return Ok((bytes, None));
        }
        let mut charge = Charge::of(Arc::clone(untaken));
        if can_refuse {
            charge.settle(bytes.len()).map_err(streams::untaken)?;
        } else {
            charge.take(bytes.len());
        }
        let first = bytes.split_to(PIECE_BYTES);
        Ok((first, Some(Self { bytes, _charge: charge })))
    }

    /// The next piece, and what is left then.
    pub(super) fn next(mut self) -> (Bytes, Option<Self>) {
        if self.bytes.len() <= PIECE_BYTES {
            return (self.bytes, None);
        }
        (self.bytes.split_to(PIECE_BYTES), Some(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::status::Reason;

    #[test]
    fn an_answer_is_the_same_in_pieces_and_is_held_until_the_last_of_them() {
        for length in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            let untaken = Arc::new(Allowance::new(3 * PIECE_BYTES));
            let whole: Bytes = (0..=u8::MAX).cycle().take(length).collect();
            let (mut all, mut rest) =
                Rest::split(whole.clone(), &untaken, true).map(|(piece, rest)| (vec![piece], rest)).unwrap();
            while let Some(left) = rest {
                assert_eq!(untaken.taken(), length);
                let (piece, left) = left.next();
                all.push(piece);
                rest = left;
            }
            assert_eq!(untaken.taken(), 0);
            assert!(all.iter().all(|piece| piece.len() <= PIECE_BYTES));
            assert_eq!(all.concat(), whole);
        }
    }

    #[test]
    fn past_the_bound_of_the_server_an_answer_is_refused_and_a_small_one_never() {
        let untaken = Arc::new(Allowance::new(2 * PIECE_BYTES));
        let large = Bytes::from(vec![0; 2 * PIECE_BYTES]);
        let held = Rest::split(large.clone(), &untaken, true).unwrap();
        assert_eq!(Rest::split(large.clone(), &untaken, true).unwrap_err().reason(), Reason::Overloaded);
        assert!(Rest::split(large.slice(..PIECE_BYTES), &untaken, true).is_ok());
        let changed = Rest::split(large.clone(), &untaken, false).unwrap();
        assert_eq!(untaken.taken(), 4 * PIECE_BYTES);
        drop((held, changed));
        assert!(Rest::split(large, &untaken, true).is_ok());
    }
}
