//! Creates of buckets, each with a name that no other has. They are left for the end of the run to stop.

use std::io::Write as _;

use super::Load;
use crate::client::bench::{
    channel::{Channel, Method, Told},
    ground::Ground,
    http2::Broken,
    slots::Round,
};

/// Where the length of the name is, in an encoded `CreateRequest`; the name comes after it.
const LENGTH_AT: usize = 1;

pub(in super::super) struct Creates {
    /// A `CreateRequest` up to where the names differ.
    head: Vec<u8>,
    message: Vec<u8>,
    count: u64,
}

impl Creates {
    pub(super) fn new(ground: &Ground, connection: u64) -> Self {
        Self { head: head(&format!("{}{connection}/", ground.prefix)), message: Vec::new(), count: 0 }
    }
}

/// A request that begins with a name, up to some place in the name.
pub(super) fn head(name: &str) -> Vec<u8> {
    [&[0x0a, 0], name.as_bytes()].concat()
}

/// Such a request with a name that goes on with this, in place of what is there.
#[allow(clippy::cast_possible_truncation)] // our names have less than 128 bytes, so that one byte tells their length
pub(super) fn named(head: &[u8], rest: std::fmt::Arguments<'_>, message: &mut Vec<u8>) {
    message.clear();
    message.extend_from_slice(head);
    message.write_fmt(rest).ok(); // memory takes everything
    message[LENGTH_AT] = (message.len() - LENGTH_AT - 1) as u8;
}

impl Load for Creates {
    fn start(&mut self, slot: u32, channel: &mut Channel) -> Result<u64, Broken> {
        named(&self.head, format_args!("{}", self.count), &mut self.message);
        self.count += 1;
        channel.ask(slot, Method::Create, &self.message)
    }

    fn hear(&mut self, told: Told<'_>, round: &mut Round<'_>) {
        let Told::Answer(slot, outcome) = told else { return };
        round.answered(slot, outcome);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::pb::CreateRequest;

    #[test]
    fn a_request_with_the_next_name_is_what_prost_makes_of_it() {
        let mut message = Vec::new();
        for count in [7, 123_456] {
            named(&head("pail-bench/0123456789abcdef/4095/"), format_args!("{count}"), &mut message);
            let expected = format!("pail-bench/0123456789abcdef/4095/{count}");
            assert_eq!(CreateRequest::decode(&*message).unwrap().bucket, expected);
        }
    }
}
