//! What a command prints: a line of text for people and pipes, or a line of JSON.
//!
//! In text, fields are separated by tabs, a header is there only on a terminal, and names, keys and values are
//! [`Escaped`]: what others have stored can neither forge a line nor drive the terminal.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
};

use clap::ValueEnum;

use super::json::ToJson;

/// How answers and errors are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// Lines of fields with tabs between them
    Text,
    /// A JSON object a line, with the names of the API
    Json,
}

/// Where a command prints to.
pub(super) struct Output<'a> {
    /// How.
    pub format: Format,
    /// Whether a person reads it.
    pub is_terminal: bool,
    /// Where.
    pub to: &'a mut dyn Write,
}

impl Output<'_> {
    /// Prints one line, of the text or of the JSON.
    pub(super) fn line(&mut self, text: impl fmt::Display, json: &impl ToJson) -> io::Result<()> {
        match self.format {
            Format::Text => writeln!(self.to, "{text}"),
            Format::Json => self.json(json),
        }
    }

    /// Prints one line of JSON.
    pub(super) fn json(&mut self, json: &impl ToJson) -> io::Result<()> {
        writeln!(self.to, "{}", json.to_json())
    }

    /// Names the columns, where a person reads them.
    pub(super) fn header(&mut self, columns: &str) -> io::Result<()> {
        if self.is_terminal && self.format == Format::Text {
            writeln!(self.to, "{columns}")?;
        }
        Ok(())
    }
}

/// Text of others as one field of a line: control and direction-changing characters are escaped, and so is the
/// backslash, so that nothing is ambiguous.
#[derive(Clone, Copy, Debug)]
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '\n' => f.write_str("\\n"),
            '\r' => f.write_str("\\r"),
            '\t' => f.write_str("\\t"),
            _ if is_hostile(c) => write!(f, "{}", c.escape_unicode()),
            _ => f.write_char(c),
        })
    }
}

/// A message of a server or of clap, which may quote anything, kept to one line.
#[must_use]
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if is_hostile(c) { ' ' } else { c }).collect()
}

/// What drives a terminal, ends a line, or makes text look like other text.
pub(super) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_can_neither_forge_a_line_nor_drive_the_terminal() {
        assert_eq!(Escaped("a\tb\nc\\n\u{1b}[2J\u{9b}\u{202e}").to_string(), r"a\tb\nc\\n\u{1b}[2J\u{9b}\u{202e}");
        assert_eq!(Escaped("café 牛乳 'x' \"y\"").to_string(), "café 牛乳 'x' \"y\"");
    }

    #[test]
    fn a_header_is_for_people_only() {
        let printed = |is_terminal, format| {
            let mut to = Vec::new();
            Output { format, is_terminal, to: &mut to }.header("NAME").unwrap();
            String::from_utf8(to).unwrap()
        };
        assert_eq!(printed(true, Format::Text), "NAME\n");
        assert_eq!(printed(false, Format::Text), "");
        assert_eq!(printed(true, Format::Json), "");
    }
}
