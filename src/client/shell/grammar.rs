//! The shell's language: words, quotes, and the commands they make.

use clap::ValueEnum as _;

use crate::client::lifecycle::StopReason;

/// A command as HELP explains it and the terminal completes it.
pub(super) struct Spec {
    pub(super) verb: &'static str,
    pub(super) usage: &'static str,
    pub(super) what: &'static str,
    /// Whether the first argument is the name of a bucket that may exist already.
    pub(super) takes_bucket: bool,
}

/// Every command, as HELP lists them.
#[rustfmt::skip]
pub(super) const COMMANDS: [Spec; 10] = [
    spec("CREATE", "CREATE bucket", "creates a bucket, or finds it", false),
    spec("PUT", "PUT bucket key value", "sets an entry to a text; quote one with blanks: \"a b\" or 'a b'", true),
    spec("GET", "GET bucket key", "prints a value", true),
    spec("DELETE", "DELETE bucket key", "removes an entry", true),
    spec("SCAN", "SCAN bucket [prefix]", "prints the entries whose keys begin with the prefix", true),
    spec("LOOKUP", "LOOKUP bucket", "describes a bucket", true),
    spec("LIST", "LIST [prefix]", "prints the names that begin with the prefix", true),
    spec("STOP", "STOP bucket [reason]", "ends a bucket: normal, shutdown, killed or crashed", true),
    spec("HELP", "HELP", "prints this", false),
    spec("QUIT", "QUIT", "leaves; EXIT and Ctrl-D do too", false),
];

const fn spec(verb: &'static str, usage: &'static str, what: &'static str, takes_bucket: bool) -> Spec {
    Spec { verb, usage, what, takes_bucket }
}

/// A line that makes sense.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Request {
    Create { bucket: String },
    Put { bucket: String, key: String, text: String },
    Get { bucket: String, key: String },
    Delete { bucket: String, key: String },
    Scan { bucket: String, prefix: String },
    Lookup { bucket: String },
    List { prefix: String },
    Stop { bucket: String, reason: StopReason },
    Help,
    Quit,
}

/// A line that makes none.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Unknown;

impl Request {
    /// Reads a line; a blank one asks for nothing.
    pub(super) fn parse(line: &str) -> Result<Option<Self>, Unknown> {
        let mut words = words(line).ok_or(Unknown)?.into_iter();
        let Some(verb) = words.next() else { return Ok(None) };
        let mut next = || words.next().ok_or(Unknown);
        let request = match verb.to_ascii_uppercase().as_str() {
            "CREATE" => Self::Create { bucket: next()? },
            "PUT" => Self::Put { bucket: next()?, key: next()?, text: next()? },
            "GET" => Self::Get { bucket: next()?, key: next()? },
            "DELETE" => Self::Delete { bucket: next()?, key: next()? },
            "SCAN" => Self::Scan { bucket: next()?, prefix: next().unwrap_or_default() },
            "LOOKUP" => Self::Lookup { bucket: next()? },
            "LIST" => Self::List { prefix: next().unwrap_or_default() },
            "STOP" => Self::Stop {
                bucket: next()?,
                reason: match next() {
                    Ok(reason) => StopReason::from_str(&reason, true).map_err(|_| Unknown)?,
                    Err(Unknown) => StopReason::Normal,
                },
            },
            "HELP" => Self::Help,
            "QUIT" | "EXIT" => Self::Quit,
            _ => return Err(Unknown),
        };
        next().err().map(|_| Some(request)).ok_or(Unknown) // a word too many
    }
}

/// Splits a line at its blanks. `"…"` and `'…'` hold blanks, and `"…"` the escapes `\"`, `\\`, `\n` and `\t`. None where a
/// quote is left open or an escape is not one of these.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = None; // there may be a word and nothing in it: ""
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word: &mut String = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => word.push(unescaped(chars.next()?)?),
                        c => word.push(c),
                    }
                }
            }
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

fn unescaped(c: char) -> Option<char> {
    match c {
        '"' | '\\' => Some(c),
        'n' => Some('\n'),
        't' => Some('\t'),
        _ => None,
    }
}

/// A word as [`words`] reads it back, quoted only where it must be.
pub(super) fn quoted(word: &str) -> String {
    if !word.is_empty() && !word.contains(|c: char| c.is_ascii_whitespace() || c == '"' || c == '\'') {
        return word.to_owned();
    }
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
    format!("\"{word}\"")
}

/// How a command that was given wrongly is used, for its first word.
pub(super) fn usage_hint(line: &str) -> String {
    let verb = line.split_ascii_whitespace().next().unwrap_or_default();
    COMMANDS
        .iter()
        .find(|command| command.verb.eq_ignore_ascii_case(verb))
        .map_or_else(|| "HELP lists the commands".to_owned(), |command| format!("usage: {}", command.usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_blanks_and_joined_by_quotes() {
        let words = |line| words(line).unwrap();
        assert_eq!(words("  PUT\tb  k v\r\n"), ["PUT", "b", "k", "v"]);
        assert_eq!(words(r#"a "b c" 'd "e"' """#), ["a", "b c", "d \"e\"", ""]);
        assert_eq!(words(r#""\"\\\n\t" '\n'"#), ["\"\\\n\t", r"\n"]);
        assert_eq!(words(r#"a"b c"d C:\new"#), ["ab cd", r"C:\new"]);
    }

    #[test]
    fn an_open_quote_or_a_wrong_escape_is_unknown() {
        for wrong in [r#"PUT b k "v"#, "PUT b k 'v", r#"PUT b k "\x""#, r#"PUT b k "v\"#] {
            assert_eq!(Request::parse(wrong), Err(Unknown), "{wrong}");
        }
    }

    #[test]
    fn a_command_has_any_case_and_the_right_number_of_words() {
        let (bucket, key) = ("b".to_owned(), "k".to_owned());
        assert_eq!(Request::parse("  "), Ok(None));
        assert_eq!(Request::parse("gEt b k"), Ok(Some(Request::Get { bucket: bucket.clone(), key })));
        assert_eq!(Request::parse("stop b"), Ok(Some(Request::Stop { bucket, reason: StopReason::Normal })));
        for wrong in ["GET", "GET b", "GET b k v", "PUT b k v w", "STOP b sleepy", "QUIT now", "LIST a b", "\"\""] {
            assert_eq!(Request::parse(wrong), Err(Unknown), "{wrong}");
        }
    }

    #[test]
    fn every_command_of_the_help_exists() {
        for command in &COMMANDS {
            let arguments = command.usage.replace(['[', ']'], "").replace("reason", "killed");
            assert!(matches!(Request::parse(&arguments), Ok(Some(_))), "{arguments}");
        }
    }

    #[test]
    fn a_quoted_word_is_read_back_as_it_was() {
        for word in ["plain", "", "a b", "it's", "say \"hi\" \\ there", "tab\tand\nnewline"] {
            assert_eq!(words(&quoted(word)).unwrap(), [word]);
        }
    }
}
