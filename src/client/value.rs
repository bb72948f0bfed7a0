//! Values on the command line. Nothing is guessed: a value is what the options say, and without one an argument is text,
//! while a file or standard input is data.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    str::FromStr,
};

use clap::Args;

use super::{error::Error, output::Escaped};
use crate::{
    limits::CLIENT_BYTES_MAX,
    pb::{Value, value::Kind},
};

/// Where a value comes from, and of what kind it is.
#[derive(Args, Debug)]
pub(super) struct ValueArgs {
    /// The value: a text unless an option says otherwise; - reads data from standard input
    #[arg(required_unless_present = "file", allow_negative_numbers = true)]
    value: Option<String>,

    /// Read the value from this file, as data unless an option says otherwise
    #[arg(long, value_name = "PATH", conflicts_with = "value")]
    file: Option<PathBuf>,

    #[command(flatten)]
    kind: KindArgs,
}

/// At most one of these; they hold for a file and for standard input too.
#[derive(Args, Debug)]
#[group(multiple = false)]
struct KindArgs {
    /// The value is a text in UTF-8
    #[arg(long)]
    text: bool,
    /// The value is data: bytes as they are
    #[arg(long)]
    data: bool,
    /// The value is an integer of 64 bits, which can be negative
    #[arg(long)]
    int: bool,
    /// The value is a floating-point number of 64 bits; inf and NaN are too
    #[arg(long)]
    num: bool,
    /// The value is true or false
    #[arg(long)]
    bool: bool,
}

impl ValueArgs {
    /// Reads the value; what is not of its kind is a wrong command line.
    pub(super) fn read(self) -> Result<Value, Error> {
        let (bytes, is_text) = match (self.value, self.file) {
            (Some(dash), _) if dash == "-" => (read_bounded(io::stdin(), "standard input")?, false),
            (Some(text), _) => (text.into_bytes(), true),
            (None, Some(path)) => {
                let name = path.display().to_string();
                let file = File::open(&path).map_err(|error| Error::Usage(format!("cannot read {name}: {error}")))?;
                (read_bounded(file, &name)?, false)
            }
            (None, None) => return Err(Error::Usage("a value is missing".to_owned())),
        };
        self.kind.apply(bytes, is_text)
    }
}

impl KindArgs {
    fn apply(&self, bytes: Vec<u8>, is_text: bool) -> Result<Value, Error> {
        let kind = match self {
            Self { int: true, .. } => Kind::Integer(parse(&bytes, "--int takes a whole number of 64 bits")?),
            Self { num: true, .. } => Kind::Number(parse(&bytes, "--num takes a number such as 1, -2.5, 1e9 or NaN")?),
            Self { bool: true, .. } => Kind::Flag(parse(&bytes, "--bool takes true or false")?),
            Self { text: true, .. } => Kind::Text(utf8(bytes)?),
            Self { data: false, .. } if is_text => Kind::Text(utf8(bytes)?),
            _ => Kind::Data(bytes),
        };
        Ok(Value { kind: Some(kind) })
    }
}

/// One newline at the end is no part of a number: every tool that writes one ends its line.
fn parse<T: FromStr>(bytes: &[u8], allowed: &str) -> Result<T, Error> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let text = str::from_utf8(bytes).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| Error::Usage(allowed.to_owned()))
}

fn utf8(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| Error::Usage("a text must be UTF-8; use --data for other bytes".to_owned()))
}

/// All of the input, as far as a message can hold it.
pub(super) fn read_bounded(input: impl Read, name: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let input = &mut input.take(CLIENT_BYTES_MAX as u64 + 1);
    input.read_to_end(&mut bytes).map_err(|error| Error::Usage(format!("cannot read {name}: {error}")))?;
    if bytes.len() > CLIENT_BYTES_MAX {
        return Err(Error::Usage(format!(
            "{name} holds more than {CLIENT_BYTES_MAX} bytes, which no message can hold"
        )));
    }
    Ok(bytes)
}

/// A value's bytes for `get`: as it is, text and scalars with a newline after them, data without.
pub(super) fn raw(value: Option<Value>) -> Vec<u8> {
    match value.and_then(|value| value.kind) {
        None => Vec::new(),
        Some(Kind::Data(data)) => data,
        Some(kind) => format!("{}\n", plain(&kind)).into_bytes(),
    }
}

/// A value's kind and content as two fields of a line.
pub(super) fn fields(value: Option<&Value>) -> (&'static str, String) {
    let Some(kind) = value.and_then(|value| value.kind.as_ref()) else { return ("-", "-".to_owned()) };
    let name = match kind {
        Kind::Text(_) => "text",
        Kind::Data(_) => "data",
        Kind::Integer(_) => "integer",
        Kind::Number(_) => "number",
        Kind::Flag(_) => "flag",
    };
    (name, Escaped(&plain(kind)).to_string())
}

/// The content in characters; data in base64.
pub(super) fn plain(kind: &Kind) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    match kind {
        Kind::Text(text) => text.clone(),
        Kind::Data(data) => BASE64_STANDARD.encode(data),
        Kind::Integer(integer) => integer.to_string(),
        Kind::Number(number) => format!("{number:?}"), // the shortest that reads back as the same number
        Kind::Flag(flag) => flag.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Kind, String> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            value: ValueArgs,
        }
        let line: Line = clap::Parser::try_parse_from([&["put"], args].concat()).map_err(|error| error.to_string())?;
        match line.value.read() {
            Ok(value) => Ok(value.kind.unwrap()),
            Err(Error::Usage(message)) => Err(message),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_argument_is_text_unless_told_otherwise() {
        assert_eq!(read(&["5"]), Ok(Kind::Text("5".into())));
        assert_eq!(read(&[""]), Ok(Kind::Text(String::new())));
        assert_eq!(read(&["-5", "--int"]), Ok(Kind::Integer(-5)));
        assert_eq!(read(&["--num", "1e3"]), Ok(Kind::Number(1000.0)));
        assert_eq!(read(&["true", "--bool"]), Ok(Kind::Flag(true)));
        assert_eq!(read(&["é", "--data"]), Ok(Kind::Data(vec![0xc3, 0xa9])));
    }

    #[test]
    fn what_is_not_of_its_kind_is_refused_before_it_is_sent() {
        for wrong in [&["x", "--int"][..], &["9223372036854775808", "--int"], &["yes", "--bool"], &["1,5", "--num"]] {
            read(wrong).unwrap_err();
        }
        assert!(read(&["1", "--int", "--num"]).unwrap_err().contains("cannot be used with"));
    }

    #[test]
    fn a_file_is_data_unless_told_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let number = write("number", b"42\n");
        assert_eq!(read(&["--file", &number]), Ok(Kind::Data(b"42\n".to_vec())));
        assert_eq!(read(&["--file", &number, "--text"]), Ok(Kind::Text("42\n".into())));
        assert_eq!(read(&["--file", &number, "--int"]), Ok(Kind::Integer(42)));
        assert!(read(&["--file", &write("bytes", &[0xff]), "--text"]).unwrap_err().contains("must be UTF-8"));
        assert!(read(&["--file", &write("large", &vec![0; CLIENT_BYTES_MAX + 1])]).unwrap_err().contains("more than"));
        assert!(read(&["--file", "nowhere"]).unwrap_err().contains("cannot read nowhere"));
    }

    #[test]
    fn only_data_is_raw_without_a_newline() {
        let raw = |kind| raw(Some(Value { kind: Some(kind) }));
        assert_eq!(raw(Kind::Text("a\nb".into())), b"a\nb\n");
        assert_eq!(raw(Kind::Data(vec![0, 255])), [0, 255]);
        assert_eq!(raw(Kind::Number(f64::NAN)), b"NaN\n");
        assert_eq!(raw(Kind::Number(1e300)), b"1e300\n");
        assert_eq!(raw(Kind::Flag(false)), b"false\n");
    }
}
