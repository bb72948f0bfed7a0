//! The lines of an export: what `export` writes and `import` reads, each a JSON object.
//!
//! A header, then each bucket and after it its entries, then an end with their numbers, so that a file that was cut off is
//! found out. Every value comes back as it was, to the bit. A line is known by a field that only its kind has.

mod reader;
mod value;

use std::io::{self, Write};

use prost_types::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

pub(super) use self::reader::{Fault, Reader};
use crate::pb;

/// The version of the format that is written, and the only one that is read.
pub(super) const VERSION: u64 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Line {
    Header(Header),
    Bucket(Bucket),
    Entry(Entry),
    Gone(Gone),
    End(End),
}

/// The first line: of what this is an export.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// The version of the format.
    pub(super) pail_export: u64,
    pub(super) registry_id: String,
    /// That of the first page of names: a watch after it tells what came and went while the export ran.
    pub(super) revision: u64,
    /// When it was begun, by the clock of the machine that it was begun on.
    #[serde(with = "time")]
    pub(super) time: Option<Timestamp>,
    /// The names that were asked for.
    pub(super) prefix: String,
}

/// A bucket, whose entries follow.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bucket {
    #[serde(rename = "bucket")]
    pub(super) name: String,
    pub(super) bucket_id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time")]
    pub(super) create_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time")]
    pub(super) expire_time: Option<Timestamp>,
}

/// An entry of the bucket above it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) key: String,
    #[serde(with = "value")]
    pub(super) value: pb::Value,
    pub(super) version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time")]
    pub(super) expire_time: Option<Timestamp>,
}

/// The bucket above ended before all of its entries were read.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gone {
    #[serde(rename = "gone")]
    pub(super) name: String,
    pub(super) bucket_id: u64,
}

/// The last line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    pub(super) end: Counts,
}

/// How many lines of a kind there are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Counts {
    pub(super) buckets: u64,
    pub(super) entries: u64,
}

impl Counts {
    fn count(&mut self, line: &Line) {
        match line {
            Line::Bucket(_) => self.buckets += 1,
            Line::Entry(_) => self.entries += 1,
            Line::Header(_) | Line::Gone(_) | Line::End(_) => {}
        }
    }
}

impl From<pb::Bucket> for Bucket {
    fn from(bucket: pb::Bucket) -> Self {
        let pb::Bucket { name, id: bucket_id, create_time, expire_time, .. } = bucket;
        Self { name, bucket_id, create_time, expire_time }
    }
}

impl From<pb::Entry> for Entry {
    fn from(entry: pb::Entry) -> Self {
        let pb::Entry { key, value, version, expire_time } = entry;
        Self { key, value: value.unwrap_or_default(), version, expire_time }
    }
}

/// Writes lines, and keeps count of them.
pub(super) struct Writer<'a> {
    to: &'a mut dyn Write,
    line: Vec<u8>,
    counts: Counts,
    bytes: u64,
}

impl<'a> Writer<'a> {
    /// Goes on after so many lines and bytes.
    pub(super) fn after(counts: Counts, bytes: u64, to: &'a mut dyn Write) -> Self {
        Self { to, line: Vec::new(), counts, bytes }
    }

    pub(super) fn write(&mut self, line: &Line) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        self.to.write_all(&self.line)?;
        self.counts.count(line);
        self.bytes += self.line.len() as u64;
        Ok(())
    }

    /// The lines that there are now.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Writes the last line; the lines and the bytes that there are now.
    pub(super) fn end(mut self) -> io::Result<(Counts, u64)> {
        self.write(&Line::End(End { end: self.counts }))?;
        self.to.flush()?;
        Ok((self.counts, self.bytes))
    }
}

/// Why a line can't be read.
#[derive(Debug, Eq, PartialEq)]
enum Unreadable {
    /// It stops in the middle of its JSON.
    Incomplete,
    Wrong(String),
}

/// Reads one line, by the field that only its kind has.
fn parse(line: &[u8]) -> Result<Line, Unreadable> {
    let object: Map<String, Json> = serde_json::from_slice(line).map_err(|error| match error.is_eof() {
        true => Unreadable::Incomplete,
        false => Unreadable::Wrong(format!("it is no JSON object: {}, at byte {}", words(&error), error.column())),
    })?;
    let has = |field| object.contains_key(field);
    let line = match () {
        () if has("key") => of_kind("an entry", object, Line::Entry),
        () if has("bucket") => of_kind("a bucket", object, Line::Bucket),
        () if has("gone") => of_kind("the end of a bucket", object, Line::Gone),
        () if has("end") => of_kind("the end", object, Line::End),
        () if has("pail_export") => of_kind("a header", object, Line::Header),
        () => Err("it has none of the fields \"pail_export\", \"bucket\", \"key\", \"gone\" and \"end\"".to_owned()),
    };
    line.map_err(Unreadable::Wrong)
}

fn of_kind<T: for<'a> Deserialize<'a>>(
    what: &str,
    object: Map<String, Json>,
    line: impl FnOnce(T) -> Line,
) -> Result<Line, String> {
    let read = serde_json::from_value(Json::Object(object)).map(line);
    read.map_err(|error| format!("as {what} it is wrong: {}", words(&error)))
}

/// What is wrong, without a place in a text of one line.
fn words(error: &serde_json::Error) -> String {
    let words = error.to_string();
    words.split(" at line ").next().unwrap_or_default().to_owned()
}

/// A time as RFC 3339.
mod time {
    use prost_types::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    #[allow(clippy::ref_option)] // as serde calls it
    pub(super) fn serialize<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        time.map(|time| time.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let parsed = text.map(|text| text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no time"))));
        parsed.transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pb::value::Kind;

    fn text(line: &Line) -> String {
        serde_json::to_string(line).unwrap()
    }

    fn entry(kind: Kind) -> Line {
        Line::Entry(Entry { key: "k".into(), value: pb::Value { kind: Some(kind) }, version: 7, expire_time: None })
    }

    /// What there is of a value, a NaN's bits included, which `==` would not tell.
    fn bits(line: &Line) -> String {
        match line {
            Line::Entry(Entry { value: pb::Value { kind: Some(Kind::Number(number)) }, .. }) => {
                format!("{:016x}", number.to_bits())
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn lines_are_known_by_their_fields() {
        let time = Some(Timestamp { seconds: 1_764_000_000, nanos: 500_000_000 });
        let header = Header { pail_export: 1, registry_id: "r".into(), revision: 9, time, prefix: String::new() };
        let bucket = Bucket { name: "b".into(), bucket_id: 9, create_time: None, expire_time: time };
        let lines = [
            (
                Line::Header(header),
                r#"{"pail_export":1,"registry_id":"r","revision":9,"time":"2025-11-24T16:00:00.500Z","prefix":""}"#,
            ),
            (Line::Bucket(bucket), r#"{"bucket":"b","bucket_id":9,"expire_time":"2025-11-24T16:00:00.500Z"}"#),
            (entry(Kind::Text("v".into())), r#"{"key":"k","value":{"text":"v"},"version":7}"#),
            (Line::Gone(Gone { name: "b".into(), bucket_id: 9 }), r#"{"gone":"b","bucket_id":9}"#),
            (Line::End(End { end: Counts { buckets: 1, entries: 2 } }), r#"{"end":{"buckets":1,"entries":2}}"#),
        ];
        for (line, json) in lines {
            assert_eq!(text(&line), json);
            assert_eq!(parse(json.as_bytes()), Ok(line));
        }
    }

    #[test]
    fn a_value_of_every_kind_comes_back_to_the_bit() {
        let rows = [
            (Kind::Text("é\n\0\u{2028}\"".into()), "{\"text\":\"é\\n\\u0000\u{2028}\\\"\"}"),
            (Kind::Data(vec![0, 255]), r#"{"data":"AP8="}"#),
            (Kind::Integer(i64::MIN), r#"{"integer":"-9223372036854775808"}"#),
            (Kind::Number(-0.0), r#"{"number":-0.0}"#),
            (Kind::Number(0.1 + 0.2), r#"{"number":0.30000000000000004}"#),
            (Kind::Number(f64::MIN_POSITIVE / 4503599627370496.0), r#"{"number":5e-324}"#),
            (Kind::Number(f64::INFINITY), r#"{"number":"Infinity"}"#),
            (Kind::Number(f64::NEG_INFINITY), r#"{"number":"-Infinity"}"#),
            (Kind::Number(f64::from_bits(0x7ff8_0000_0000_0000)), r#"{"number_bits":"7ff8000000000000"}"#),
            (Kind::Number(f64::from_bits(0xfff0_0000_0000_0001)), r#"{"number_bits":"fff0000000000001"}"#),
            (Kind::Flag(false), r#"{"flag":false}"#),
        ];
        for (kind, json) in rows {
            let line = entry(kind);
            let text = text(&line);
            assert!(text.contains(json), "{text} holds {json}");
            assert_eq!(bits(&parse(text.as_bytes()).unwrap()), bits(&line));
        }
    }

    #[test]
    fn what_other_tools_make_of_a_number_is_read_as_the_same_number() {
        let number = |json: &str| {
            let line = format!(r#"{{"key":"k","value":{{"number":{json}}},"version":1}}"#);
            bits(&parse(line.as_bytes()).unwrap())
        };
        let bits = |number: f64| format!("{:016x}", number.to_bits());
        assert_eq!(number("-0"), bits(-0.0));
        assert_eq!(number("5"), bits(5.0));
        assert_eq!(number("9007199254740993"), bits(9_007_199_254_740_993_u64 as f64));
        assert_eq!(number("1.0E+2"), bits(100.0));
    }

    #[test]
    fn a_line_that_is_wrong_says_why() {
        let why = |line: &str| match parse(line.as_bytes()) {
            Err(Unreadable::Wrong(why)) => why,
            other => panic!("{other:?}"),
        };
        for (line, expected) in [
            ("nonsense", "it is no JSON object: expected ident, at byte 2"),
            ("[]", "it is no JSON object: invalid type: sequence, expected a map, at byte 0"),
            (r#"{"a":1}"#, "it has none of the fields \"pail_export\", \"bucket\", \"key\", \"gone\" and \"end\""),
            (r#"{"key":"k","version":1}"#, "as an entry it is wrong: missing field `value`"),
            (
                r#"{"key":"k","value":{"text":"v"},"version":1,"expires":null}"#,
                "as an entry it is wrong: unknown field `expires`, expected one of `key`, `value`, `version`, `expire_time`",
            ),
            (
                r#"{"key":"k","value":{"txt":"v"},"version":1}"#,
                "as an entry it is wrong: unknown variant `txt`, expected one of `text`, `data`, `integer`, `number`, \
                 `number_bits`, `flag`",
            ),
            (r#"{"key":"k","value":{"data":"?"},"version":1}"#, "as an entry it is wrong: \"?\" is no base64"),
            (
                r#"{"key":"k","value":{"integer":"1.5"},"version":1}"#,
                "as an entry it is wrong: \"1.5\" is no whole number of 64 bits",
            ),
            (
                r#"{"key":"k","value":{"number":"NaN"},"version":1}"#,
                "as an entry it is wrong: a number must be a number, \"Infinity\" or \"-Infinity\"",
            ),
            (
                r#"{"key":"k","value":{"number_bits":"+ff8000000000000"},"version":1}"#,
                "as an entry it is wrong: \"+ff8000000000000\" is no number's bits in 16 hexadecimal digits",
            ),
            (r#"{"bucket":"b","bucket_id":1,"expire_time":"soon"}"#, "as a bucket it is wrong: \"soon\" is no time"),
            (r#"{"bucket":"b","bucket_id":-1}"#, "as a bucket it is wrong: invalid value: integer `-1`, expected u64"),
        ] {
            assert_eq!(why(line), expected, "{line}");
        }
        assert_eq!(parse(br#"{"key":"k","val"#), Err(Unreadable::Incomplete));
    }

    #[test]
    fn a_value_of_a_kind_that_is_not_known_is_not_written_as_something_else() {
        let mut to = Vec::new();
        let line = Line::Entry(pb::Entry { key: "k".into(), ..pb::Entry::default() }.into());
        let error = Writer::after(Counts::default(), 0, &mut to).write(&line).unwrap_err();
        assert!(error.to_string().contains("of a kind that this pail does not know"), "{error}");
        assert_eq!(to, b"");
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            any::<String>().prop_map(Kind::Text),
            any::<Vec<u8>>().prop_map(Kind::Data),
            any::<i64>().prop_map(Kind::Integer),
            any::<u64>().prop_map(|bits| Kind::Number(f64::from_bits(bits))),
            // One in 2048 of all bits is a NaN or infinite: too few to rely on.
            any::<u64>().prop_map(|bits| Kind::Number(f64::from_bits(bits | 0x7ff0_0000_0000_0000))),
            any::<bool>().prop_map(Kind::Flag),
        ]
    }

    fn times() -> impl Strategy<Value = Option<Timestamp>> {
        let time = (0..253_402_300_800_i64, 0..1_000_000_000);
        prop::option::of(time.prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }))
    }

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_was_written(key: String, kind in kinds(), version: u64, expire_time in times()) {
            let line = Line::Entry(Entry { key, value: pb::Value { kind: Some(kind) }, version, expire_time });
            let text = text(&line);
            prop_assert!(!text.contains('\n'), "a line is one line");
            prop_assert_eq!(bits(&parse(text.as_bytes()).unwrap()), bits(&line));
        }

        #[test]
        fn a_bucket_is_read_as_it_was_written(
            name: String, bucket_id: u64, create_time in times(), expire_time in times(),
        ) {
            let line = Line::Bucket(Bucket { name, bucket_id, create_time, expire_time });
            prop_assert_eq!(parse(text(&line).as_bytes()), Ok(line));
        }

        #[test]
        fn no_line_makes_the_reader_panic(line: Vec<u8>, json in r#"\{"(key|bucket|end|gone)":[\[\]{}:,"0-9a-z]{0,30}\}"#) {
            drop(parse(&line));
            drop(parse(json.as_bytes()));
        }
    }
}
