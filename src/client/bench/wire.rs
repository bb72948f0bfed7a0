//! Messages as protobuf has them on the wire, looked at without being decoded.

use prost::encoding::{WireType, decode_key, decode_varint};

/// What a field holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Held<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order. Ends early with `None` where it is no message, or has a field of another
/// kind.
pub(super) fn fields(mut message: &[u8]) -> impl Iterator<Item = Option<(u32, Held<'_>)>> {
    std::iter::from_fn(move || {
        if message.is_empty() {
            return None;
        }
        let field = take(&mut message);
        if field.is_none() {
            message = &[];
        }
        Some(field)
    })
}

fn take<'a>(message: &mut &'a [u8]) -> Option<(u32, Held<'a>)> {
    let (field, kind) = decode_key(message).ok()?;
    let number = decode_varint(message).ok()?;
    match kind {
        WireType::Varint => Some((field, Held::Number(number))),
        WireType::LengthDelimited => {
            let (bytes, rest) = message.split_at_checked(usize::try_from(number).ok()?)?;
            *message = rest;
            Some((field, Held::Bytes(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::pb::StopRequest;

    #[test]
    fn fields_come_in_their_order_and_what_is_cut_off_is_found_out() {
        let stop = StopRequest { bucket: "b".into(), bucket_id: Some(300), ..StopRequest::default() }.encode_to_vec();
        let expected = [Some((1, Held::Bytes(b"b"))), Some((2, Held::Number(300)))];
        assert_eq!(fields(&stop).collect::<Vec<_>>(), expected);
        assert_eq!(fields(&stop[..stop.len() - 1]).collect::<Vec<_>>(), [expected[0], None]);
        assert_eq!(fields(&[]).count(), 0);
    }
}
