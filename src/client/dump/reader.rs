//! Reads an export line by line, and holds it to its order: a header, then buckets and their entries, then the end.

use std::io::{self, BufRead, Read as _};

use super::{Counts, Line, Unreadable, VERSION, parse};
use crate::limits::EXPORT_LINE_BYTES_MAX;

/// Lines with their numbers, from 1.
pub(in crate::client) struct Reader<R> {
    input: R,
    buffer: Vec<u8>,
    /// Lines that were read.
    pub(in crate::client) lines: u64,
    /// The bytes of those that end with a newline: all of them, but perhaps the end.
    pub(in crate::client) bytes: u64,
    pub(in crate::client) counts: Counts,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// The header comes next.
    Header,
    /// A bucket comes next, or the end.
    Between,
    /// Within a bucket.
    Bucket,
    /// Nothing comes any more.
    Ended,
}

/// Why there is no next line.
#[derive(Debug)]
pub(in crate::client) enum Fault {
    Read(io::Error),
    /// The input ends before the end, perhaps in the middle of a line.
    CutOff,
    /// This line is wrong, in words.
    Wrong(String),
}

impl<R: BufRead> Reader<R> {
    pub(in crate::client) fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), lines: 0, bytes: 0, counts: Counts::default(), stage: Stage::Header }
    }

    /// The next line; none after the end. A fault is of the line after those that were read.
    pub(in crate::client) fn next(&mut self) -> Result<Option<Line>, Fault> {
        self.buffer.clear();
        let mut input = (&mut self.input).take(EXPORT_LINE_BYTES_MAX as u64);
        let read = input.read_until(b'\n', &mut self.buffer).map_err(Fault::Read)?;
        match (read, self.stage) {
            (0, Stage::Ended) => return Ok(None),
            (0, _) => return Err(Fault::CutOff),
            (EXPORT_LINE_BYTES_MAX, _) if !self.buffer.ends_with(b"\n") => {
                return Err(Fault::Wrong(format!("a line is at most {EXPORT_LINE_BYTES_MAX} bytes")));
            }
            _ => {}
        }
        let is_whole = self.buffer.ends_with(b"\n");
        let line = match parse(&self.buffer) {
            Ok(line) if is_whole || matches!(line, Line::End(_)) => line,
            Ok(_) => return Err(Fault::CutOff),
            Err(Unreadable::Incomplete) if !is_whole => return Err(Fault::CutOff),
            Err(Unreadable::Incomplete) => return Err(Fault::Wrong("it is no JSON object: it has no end".to_owned())),
            Err(Unreadable::Wrong(why)) if self.stage == Stage::Header => {
                return Err(Fault::Wrong(format!("this is no export of pail: {why}")));
            }
            Err(Unreadable::Wrong(why)) => return Err(Fault::Wrong(why)),
        };
        self.stage = self.after(&line).map_err(Fault::Wrong)?;
        self.counts.count(&line);
        self.lines += 1;
        self.bytes += if is_whole { read as u64 } else { 0 };
        Ok(Some(line))
    }

    /// The stage after a line, if this is its place.
    fn after(&self, line: &Line) -> Result<Stage, String> {
        match (self.stage, line) {
            (Stage::Header, Line::Header(header)) if header.pail_export == VERSION => Ok(Stage::Between),
            (Stage::Header, Line::Header(header)) => Err(format!(
                "this is an export in version {} of the format, and this pail reads version {VERSION}",
                header.pail_export
            )),
            (Stage::Header, _) => Err("this is no export of pail: it does not begin with a header".to_owned()),
            (Stage::Ended, _) => Err("there is a line after the end".to_owned()),
            (_, Line::Header(_)) => Err("there is a header already".to_owned()),
            (_, Line::Bucket(_)) | (Stage::Bucket, Line::Entry(_)) => Ok(Stage::Bucket),
            (Stage::Bucket, Line::Gone(_)) => Ok(Stage::Between),
            (Stage::Between, Line::Entry(_) | Line::Gone(_)) => Err("there is no bucket above it".to_owned()),
            (_, Line::End(end)) if end.end == self.counts => Ok(Stage::Ended),
            (_, Line::End(end)) => Err(format!(
                "lines are missing, or there are too many: the end tells of {} buckets and {} entries, and above it are \
                 {} and {}",
                end.end.buckets, end.end.entries, self.counts.buckets, self.counts.entries
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"pail_export":1,"registry_id":"r","revision":9,"time":"2025-11-24T16:00:00Z","prefix":""}
{"bucket":"a","bucket_id":7}
{"key":"k","value":{"text":"v"},"version":1}
{"gone":"a","bucket_id":7}
{"bucket":"b","bucket_id":8}
{"end":{"buckets":2,"entries":1}}
"#;

    /// How many lines can be read, and what is wrong with the next.
    fn read(text: &str) -> (u64, Result<(), Fault>) {
        let mut reader = Reader::new(text.as_bytes());
        loop {
            match reader.next() {
                Ok(Some(_)) => {}
                Ok(None) => return (reader.lines, Ok(())),
                Err(fault) => return (reader.lines, Err(fault)),
            }
        }
    }

    #[test]
    fn a_whole_export_is_read_to_its_end_with_or_without_a_last_newline() {
        assert!(matches!(read(WHOLE), (6, Ok(()))));
        assert!(matches!(read(WHOLE.trim_end()), (6, Ok(()))));
    }

    #[test]
    fn an_export_that_was_cut_off_anywhere_is_found_out() {
        for length in 0..WHOLE.len() - 1 {
            let cut = &WHOLE[..length];
            let lines = cut.matches('\n').count() as u64;
            match read(cut) {
                (read, Err(Fault::CutOff)) => assert_eq!(read, lines, "{cut:?}"),
                other => panic!("{cut:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_line_that_is_out_of_place_is_refused() {
        let lines: Vec<_> = WHOLE.lines().collect();
        let why = |order: &[usize]| {
            let text: String = order.iter().map(|&n| format!("{}\n", lines[n])).collect();
            match read(&text) {
                (read, Err(Fault::Wrong(why))) => (read, why),
                other => panic!("{other:?}"),
            }
        };
        let (no_export, no_bucket) =
            ("this is no export of pail: it does not begin with a header", "no bucket above it");
        for (order, place, expected) in [
            (&[1][..], 0, no_export),
            (&[0, 0], 1, "there is a header already"),
            (&[0, 2], 1, no_bucket),
            (&[0, 3], 1, no_bucket),
            (&[0, 1, 3, 2], 3, no_bucket),
            (&[0, 1, 3, 3], 3, no_bucket),
            (&[0, 1, 2, 3, 5], 4, "tells of 2 buckets and 1 entries, and above it are 1 and 1"),
            (&[0, 1, 2, 3, 4, 5, 5], 6, "there is a line after the end"),
        ] {
            let (line, why) = why(order);
            assert!(line == place && why.contains(expected), "{order:?}: {why}");
        }
    }

    #[test]
    fn what_is_no_export_or_of_another_version_is_refused_at_its_first_line() {
        let why = |text: &str| match read(text) {
            (0, Err(Fault::Wrong(why))) => why,
            other => panic!("{other:?}"),
        };
        assert!(why("milk\t1\n").starts_with("this is no export of pail: it is no JSON object"));
        let other = WHOLE.replace("\"pail_export\":1", "\"pail_export\":2");
        assert_eq!(why(&other), "this is an export in version 2 of the format, and this pail reads version 1");
    }

    #[test]
    fn a_line_is_read_up_to_its_limit_and_no_further() {
        let header = WHOLE.lines().next().unwrap();
        let at = format!("{header}{}\n", " ".repeat(EXPORT_LINE_BYTES_MAX - header.len() - 1));
        assert!(matches!(read(&at), (1, Err(Fault::CutOff))));
        let past = format!("{header}{}\n", " ".repeat(EXPORT_LINE_BYTES_MAX - header.len()));
        assert!(matches!(read(&past), (0, Err(Fault::Wrong(why))) if why.contains("a line is at most")));
    }
}
