//! Header fields as HTTP/2 packs them (RFC 7541): one who writes those of gRPC requests, and one who reads any.
//!
//! What was sent once stands in a table on both sides; from then on its number is sent in its place. So a request's
//! fields are six bytes, and an answer's about as many, as they are for any other client: the server's work is what it
//! is in earnest.

use std::collections::VecDeque;

use super::{Broken, huffman::Huffman};

/// The table that is used unless the other side allows only less.
pub(super) const TABLE_BYTES: usize = 4_096;

/// A value that is longer is written out each time: it would not leave room for the others.
const INDEXED_BYTES_MAX: usize = 2_048;

/// What a field takes in the table besides its bytes.
const ENTRY_BYTES: usize = 32;

const FIRST_OF_TABLE: usize = 62;

const METHOD_POST: u8 = 0x83;
const SCHEME_HTTP: u8 = 0x86;
const SCHEME_HTTPS: u8 = 0x87;
const AUTHORITY: usize = 1;
const PATH: usize = 4;
const CONTENT_TYPE: usize = 31;
const AUTHORIZATION: usize = 23;

#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""),
    ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""),
    ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""),
    ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""),
    ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""),
    ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""),
    ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

/// Whom requests are for.
#[derive(Clone, Debug)]
pub(in crate::client::bench) struct Origin {
    pub(in crate::client::bench) authority: String,
    pub(in crate::client::bench) is_https: bool,
    pub(in crate::client::bench) authorization: Option<String>,
}

/// Writes the fields of requests.
#[derive(Debug)]
pub(super) struct Encoder {
    origin: Origin,
    /// What was put into the table, in that order; a path, or a field that every request has.
    table: Vec<&'static str>,
    /// Whether the other side has a table of the usual size.
    uses_table: bool,
}

impl Encoder {
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, table: Vec::new(), uses_table: true }
    }

    /// The other side allows a table of this size. What we put into it fits the usual one; into a smaller one nothing
    /// is put.
    pub(super) fn allow(&mut self, bytes: usize) {
        self.uses_table = bytes >= TABLE_BYTES;
    }

    /// The fields of a request for this path.
    pub(super) fn request(&mut self, path: &'static str, to: &mut Vec<u8>) {
        to.extend([METHOD_POST, if self.origin.is_https { SCHEME_HTTPS } else { SCHEME_HTTP }]);
        let authority = std::mem::take(&mut self.origin.authority);
        self.field(AUTHORITY, ":authority", &authority, to);
        self.origin.authority = authority;
        self.field(PATH, path, path, to);
        self.field(CONTENT_TYPE, "content-type", "application/grpc", to);
        self.field(0, "te", "trailers", to);
        if let Some(header) = self.origin.authorization.take() {
            self.field(AUTHORIZATION, "authorization", &header, to);
            self.origin.authorization = Some(header);
        }
    }

    /// A field whose name is in the static table at `name_at`, or else is the mark.
    fn field(&mut self, name_at: usize, mark: &'static str, value: &str, to: &mut Vec<u8>) {
        if let Some(at) = self.table.iter().position(|&there| there == mark) {
            return integer(0x80, 7, FIRST_OF_TABLE + self.table.len() - 1 - at, to);
        }
        if self.uses_table && value.len() <= INDEXED_BYTES_MAX {
            self.table.push(mark);
            integer(0x40, 6, name_at, to);
        } else {
            integer(0, 4, name_at, to);
        }
        if name_at == 0 {
            text(mark, to);
        }
        text(value, to);
    }
}

fn text(text: &str, to: &mut Vec<u8>) {
    integer(0, 7, text.len(), to);
    to.extend_from_slice(text.as_bytes());
}

/// A number in the low bits of a byte, and, where it is larger, in those after it.
#[allow(clippy::cast_possible_truncation)] // what is cast is below 256
fn integer(mark: u8, bits: u32, mut value: usize, to: &mut Vec<u8>) {
    let max = (1 << bits) - 1;
    if value < max {
        return to.push(mark | value as u8);
    }
    to.push(mark | max as u8);
    value -= max;
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Reads the fields of answers.
#[derive(Debug)]
pub(super) struct Decoder {
    huffman: Huffman,
    /// The newest first.
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
    bytes_max: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { huffman: Huffman::new(), table: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES }
    }

    /// Reads a block, and tells of each field: its name and its value.
    pub(super) fn decode(&mut self, mut block: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Result<(), Broken> {
        while let Some(&first) = block.first() {
            let block = &mut block;
            if first & 0x80 != 0 {
                let (name, value) = self.at(take_integer(block, 7)?)?;
                each(name, value);
            } else if first & 0xe0 == 0x20 {
                self.bytes_max = take_integer(block, 5)?.min(TABLE_BYTES);
                self.shrink();
            } else {
                let is_kept = first & 0x40 != 0;
                let name = match take_integer(block, if is_kept { 6 } else { 4 })? {
                    0 => self.take_text(block)?,
                    at => self.at(at)?.0.to_vec(),
                };
                let value = self.take_text(block)?;
                each(&name, &value);
                if is_kept {
                    self.bytes += ENTRY_BYTES + name.len() + value.len();
                    self.table.push_front((name, value));
                    self.shrink();
                }
            }
        }
        Ok(())
    }

    fn at(&self, at: usize) -> Result<(&[u8], &[u8]), Broken> {
        if let Some(&(name, value)) = at.checked_sub(1).and_then(|at| STATIC.get(at)) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = at.checked_sub(FIRST_OF_TABLE).and_then(|at| self.table.get(at));
        entry.map(|(name, value)| (name.as_slice(), value.as_slice())).ok_or(Broken("a header that is not there"))
    }

    fn take_text(&self, block: &mut &[u8]) -> Result<Vec<u8>, Broken> {
        let is_huffman = block.first().is_some_and(|first| first & 0x80 != 0);
        let length = take_integer(block, 7)?;
        let (text, rest) = block.split_at_checked(length).ok_or(Broken("a header that is cut off"))?;
        *block = rest;
        if is_huffman { self.huffman.decode(text).ok_or(Broken("a header in no code")) } else { Ok(text.to_vec()) }
    }

    /// The oldest go until the rest fits.
    fn shrink(&mut self) {
        while self.bytes > self.bytes_max
            && let Some((name, value)) = self.table.pop_back()
        {
            self.bytes -= ENTRY_BYTES + name.len() + value.len();
        }
    }
}

fn take_integer(block: &mut &[u8], bits: u32) -> Result<usize, Broken> {
    const CUT_OFF: Broken = Broken("a header that is cut off");
    let (first, rest) = block.split_first().ok_or(CUT_OFF)?;
    *block = rest;
    let max = (1 << bits) - 1;
    let mut value = usize::from(*first) & max;
    if value < max {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let (next, rest) = block.split_first().ok_or(CUT_OFF)?;
        *block = rest;
        value += (usize::from(*next) & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Broken("a header that is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Vec<String> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        decoder.decode(block, |name, value| fields.push(format!("{}: {}", text(name), text(value)))).unwrap();
        fields
    }

    #[test]
    fn a_request_is_read_as_it_was_written_and_is_a_byte_a_field_from_the_second_one_on() {
        let origin = Origin {
            authority: "127.0.0.1:4040".to_owned(),
            is_https: true,
            authorization: Some("Bearer t".to_owned()),
        };
        let (mut encoder, mut decoder) = (Encoder::new(origin), Decoder::new());
        let mut lengths = Vec::new();
        for path in ["/a", "/a", "/b", "/a"] {
            let mut block = Vec::new();
            encoder.request(path, &mut block);
            let expected = [
                ":method: POST",
                ":scheme: https",
                ":authority: 127.0.0.1:4040",
                &format!(":path: {path}"),
                "content-type: application/grpc",
                "te: trailers",
                "authorization: Bearer t",
            ];
            assert_eq!(decoded(&mut decoder, &block), expected);
            lengths.push(block.len());
        }
        assert_eq!((lengths[1], lengths[2], lengths[3]), (7, 10, 7));
    }

    #[test]
    fn where_the_other_side_has_no_room_for_a_table_everything_is_written_out() {
        let (mut encoder, mut decoder) =
            (Encoder::new(Origin { authority: "h".to_owned(), is_https: false, authorization: None }), Decoder::new());
        encoder.allow(0);
        for _ in 0..2 {
            let mut block = Vec::new();
            encoder.request("/a", &mut block);
            assert_eq!(decoded(&mut decoder, &block).len(), 6);
        }
        assert!(decoder.table.is_empty());
    }

    #[test]
    fn the_example_of_the_rfc_with_evictions_is_read() {
        // RFC 7541, C.6.1 and C.6.2: a table of 256 bytes, in which the fourth field of the second block drops the
        // first.
        let mut decoder = Decoder { bytes_max: 256, ..Decoder::new() };
        let first = [
            0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b, 0x61, 0x96, 0xd0, 0x7a, 0xbe, 0x94, 0x10,
            0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff, 0x6e,
            0x91, 0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3,
        ];
        let fields = [
            ":status: 302",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "location: https://www.example.com",
        ];
        assert_eq!(decoded(&mut decoder, &first), fields);
        let fields = [&[":status: 307"], &fields[1..]].concat();
        assert_eq!(decoded(&mut decoder, &[0x48, 0x83, 0x64, 0x0e, 0xff, 0xc1, 0xc0, 0xbf]), fields);
        assert_eq!(decoder.bytes, 222);
    }
}
