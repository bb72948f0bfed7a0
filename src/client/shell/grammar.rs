//! The shell's language: the commands that words make.

use clap::{Args, ValueEnum as _};
use prost_types::Duration;

use crate::client::{
    export::Export,
    import::Import,
    lifecycle::StopReason,
    options::ttl,
    watch::Watch,
    words::{parts, quoted, words},
};

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
pub(super) const COMMANDS: [Spec; 17] = [
    spec("CREATE", "CREATE bucket", "creates a bucket, or finds it", false),
    spec("PUT", "PUT bucket key value", "sets an entry to a text; quote one with blanks: \"a b\" or 'a b'", true),
    spec("GET", "GET bucket key", "prints a value", true),
    spec("DELETE", "DELETE bucket key", "removes an entry", true),
    spec("ADD", "ADD bucket key delta", "adds to an integer, which is 0 if it is absent, and prints the sum", true),
    spec("TOUCH", "TOUCH bucket [key] ttl", "lets a bucket or an entry live so long from now: 10s, 5m, 1h, 7d or forever", true),
    spec("TXN", "TXN bucket [line; line]", "checks, then changes, at once; without lines, those that follow up to END", true),
    spec("SCAN", "SCAN bucket [prefix]", "prints the entries whose keys begin with the prefix", true),
    spec("LOOKUP", "LOOKUP bucket", "describes a bucket", true),
    spec("LIST", "LIST [prefix]", "prints the names that begin with the prefix", true),
    spec("STOP", "STOP bucket [reason]", "ends a bucket: normal, shutdown, killed or crashed", true),
    spec("WATCH", "WATCH bucket [options]", "tells what becomes of it, as 'pail watch' does; Ctrl-C ends it", true),
    spec("EXPORT", "EXPORT file [options]", "writes buckets to a file, as 'pail export' does: --prefix p, --resume, --force", false),
    spec("IMPORT", "IMPORT file [options]", "reads them from one, as 'pail import' does: --merge, --from-line n", false),
    spec("LINK", "LINK", "is not for this shell, since it runs a command: see 'pail link'", false),
    spec("HELP", "HELP", "prints this", false),
    spec("QUIT", "QUIT", "leaves; EXIT and Ctrl-D do too", false),
];

const fn spec(verb: &'static str, usage: &'static str, what: &'static str, takes_bucket: bool) -> Spec {
    Spec { verb, usage, what, takes_bucket }
}

/// A line that makes sense.
#[derive(Debug)]
pub(super) enum Request {
    Create {
        bucket: String,
    },
    Put {
        bucket: String,
        key: String,
        text: String,
    },
    Get {
        bucket: String,
        key: String,
    },
    Delete {
        bucket: String,
        key: String,
    },
    Add {
        bucket: String,
        key: String,
        delta: i64,
    },
    Touch {
        bucket: String,
        key: Option<String>,
        ttl: Option<Duration>,
    },
    Scan {
        bucket: String,
        prefix: String,
    },
    Lookup {
        bucket: String,
    },
    List {
        prefix: String,
    },
    Stop {
        bucket: String,
        reason: StopReason,
    },
    /// A transaction, as lines.
    Txn {
        bucket: String,
        text: String,
    },
    /// A transaction whose lines follow.
    BeginTxn {
        bucket: String,
    },
    Watch(Box<Watch>),
    Export(Box<Export>),
    Import(Box<Import>),
    Link,
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
            "TXN" => return transaction(line).map(Some),
            "WATCH" => return Ok(Some(Self::Watch(arguments(words)?))),
            "EXPORT" => return Ok(Some(Self::Export(arguments(words).and_then(with_file(Export::has_file))?))),
            "IMPORT" => return Ok(Some(Self::Import(arguments(words).and_then(with_file(Import::has_file))?))),
            "LINK" => return Ok(Some(Self::Link)),
            "HELP" => Self::Help,
            "QUIT" | "EXIT" => Self::Quit,
            _ => return Err(Unknown),
        };
        next().err().map(|_| Some(request)).ok_or(Unknown) // a word too many
    }
}

/// What follows the verb, as the command line would read it.
fn arguments<T: Args>(words: impl Iterator<Item = String>) -> Result<Box<T>, Unknown> {
    let command = clap::Command::new("").no_binary_name(true).disable_help_flag(true);
    let matches = T::augment_args(command).try_get_matches_from(words).map_err(|_| Unknown)?;
    T::from_arg_matches(&matches).map(Box::new).map_err(|_| Unknown)
}

/// The conversation itself has standard input and output.
fn with_file<T>(has_file: impl Fn(&T) -> bool) -> impl Fn(Box<T>) -> Result<Box<T>, Unknown> {
    move |command| if has_file(&command) { Ok(command) } else { Err(Unknown) }
}

/// `TXN bucket line; line`, or the begin of one whose lines follow.
fn transaction(line: &str) -> Result<Request, Unknown> {
    let lines: Option<Vec<_>> = parts(line).into_iter().map(words).collect();
    let mut lines = lines.ok_or(Unknown)?;
    let first = lines.first_mut().filter(|first| first.len() > 1).ok_or(Unknown)?;
    let bucket = first.drain(..2).next_back().ok_or(Unknown)?;
    let text: Vec<_> =
        lines.iter().map(|words| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")).collect();
    Ok(match &text[..] {
        [none] if none.is_empty() => Request::BeginTxn { bucket },
        _ => Request::Txn { bucket, text: text.join("\n") },
    })
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

    fn parsed(line: &str) -> String {
        format!("{:?}", Request::parse(line).unwrap().unwrap())
    }

    #[test]
    fn an_open_quote_or_a_wrong_escape_is_unknown() {
        for wrong in [r#"PUT b k "v"#, "PUT b k 'v", r#"PUT b k "\x""#, r#"PUT b k "v\"#] {
            assert!(Request::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_command_has_any_case_and_the_right_number_of_words() {
        assert!(Request::parse("  ").unwrap().is_none());
        assert_eq!(parsed("gEt b k"), r#"Get { bucket: "b", key: "k" }"#);
        assert_eq!(parsed("stop b"), r#"Stop { bucket: "b", reason: Normal }"#);
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
            "TXN",
            "TXN b; put 'k v",
            "WATCH",
            "WATCH b --loudly",
            "WATCH b --after x",
            "EXPORT",
            "EXPORT --prefix p",
            "EXPORT file --force --resume",
            "IMPORT",
            "IMPORT file --from-line x",
            "IMPORT --help",
        ] {
            assert!(Request::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_touch_without_a_key_is_of_the_bucket() {
        let touch = |key: Option<&str>, ttl| {
            format!("{:?}", Request::Touch { bucket: "b".into(), key: key.map(Into::into), ttl })
        };
        let second = Some(Duration { seconds: 1, nanos: 0 });
        assert_eq!(parsed("touch b 1s"), touch(None, second));
        assert_eq!(parsed("touch b k 1s"), touch(Some("k"), second));
        assert_eq!(parsed("touch b k FOREVER"), touch(Some("k"), None));
    }

    #[test]
    fn a_transaction_is_a_line_with_semicolons_or_begins_one_of_many_lines() {
        let txn = |text: &str| format!("{:?}", Request::Txn { bucket: "b".into(), text: text.into() });
        assert_eq!(parsed("TXN b check k absent; put k 'a; b'"), txn("check k absent\nput k \"a; b\""));
        assert_eq!(parsed("txn b get k"), txn("get k"));
        assert_eq!(parsed(r#"txn b ; put k "two\nlines""#), txn("\nput k \"two\\nlines\""));
        assert_eq!(parsed("txn b"), r#"BeginTxn { bucket: "b" }"#);
    }

    #[test]
    fn what_the_command_line_has_takes_its_options() {
        assert!(parsed("watch --prefix '' --kinds down").contains("prefix: Some(\"\")"));
        assert!(parsed("WATCH b --follow --after 7").contains("after: Some(7)"));
        assert!(
            parsed("EXPORT 'my file' --prefix p --resume")
                .contains("file: Some(\"my file\"), prefix: \"p\", resume: true")
        );
        assert!(parsed("IMPORT file --merge --from-line 9").contains("merge: true, from_line: 9"));
    }

    #[test]
    fn every_command_of_the_help_exists() {
        for command in &COMMANDS {
            let arguments = command
                .usage
                .replace(['[', ']'], "")
                .replace("reason", "killed")
                .replace("delta", "-1")
                .replace("ttl", "10s")
                .replace("options", "");
            assert!(matches!(Request::parse(&arguments), Ok(Some(_))), "{arguments}");
        }
    }
}
