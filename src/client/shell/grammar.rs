//! The shell's language: the commands that words make.

use clap::ValueEnum as _;

use prost_types::Duration;

use crate::client::{lifecycle::StopReason, options::ttl, words::words};

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
pub(super) const COMMANDS: [Spec; 12] = [
    spec("CREATE", "CREATE bucket", "creates a bucket, or finds it", false),
    spec("PUT", "PUT bucket key value", "sets an entry to a text; quote one with blanks: \"a b\" or 'a b'", true),
    spec("GET", "GET bucket key", "prints a value", true),
    spec("DELETE", "DELETE bucket key", "removes an entry", true),
    spec("ADD", "ADD bucket key delta", "adds to an integer, which is 0 if it is absent, and prints the sum", true),
    spec("TOUCH", "TOUCH bucket [key] ttl", "lets a bucket or an entry live so long from now: 10s, 5m, 1h, 7d or forever", true),
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
    Add { bucket: String, key: String, delta: i64 },
    Touch { bucket: String, key: Option<String>, ttl: Option<Duration> },
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
            "ADD" => Self::Add { bucket: next()?, key: next()?, delta: next()?.parse().map_err(|_| Unknown)? },
            "TOUCH" => {
                let (bucket, word) = (next()?, next()?);
                let (key, time) = next().map_or((None, word.clone()), |time| (Some(word), time));
                Self::Touch { bucket, key, ttl: ttl_or_forever(&time)? }
            }
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

/// A time to live; none is for ever.
fn ttl_or_forever(word: &str) -> Result<Option<Duration>, Unknown> {
    if word.eq_ignore_ascii_case("forever") {
        return Ok(None);
    }
    ttl(word).map(Some).map_err(|_| Unknown)
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
        for wrong in [
            "GET",
            "GET b",
            "GET b k v",
            "PUT b k v w",
            "STOP b sleepy",
            "QUIT now",
            "LIST a b",
            "ADD b k x",
            "TOUCH b",
            "TOUCH b k",
            "TOUCH b k 5",
            "TOUCH b k 1s 2",
            "\"\"",
        ] {
            assert_eq!(Request::parse(wrong), Err(Unknown), "{wrong}");
        }
    }

    #[test]
    fn a_touch_without_a_key_is_of_the_bucket() {
        let touch =
            |key: Option<&str>, ttl| Ok(Some(Request::Touch { bucket: "b".into(), key: key.map(Into::into), ttl }));
        let second = Some(Duration { seconds: 1, nanos: 0 });
        assert_eq!(Request::parse("touch b 1s"), touch(None, second));
        assert_eq!(Request::parse("touch b k 1s"), touch(Some("k"), second));
        assert_eq!(Request::parse("touch b k FOREVER"), touch(Some("k"), None));
    }

    #[test]
    fn every_command_of_the_help_exists() {
        for command in &COMMANDS {
            let arguments = command
                .usage
                .replace(['[', ']'], "")
                .replace("reason", "killed")
                .replace("delta", "-1")
                .replace("ttl", "10s");
            assert!(matches!(Request::parse(&arguments), Ok(Some(_))), "{arguments}");
        }
    }
}
