//! How a command fails: the exit code, and the one line (or the one JSON object) that says why.

use std::{collections::BTreeMap, error::Error as StdError, io};

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    options::Options,
    output::{Format, one_line},
};
use crate::service::status::DOMAIN;

/// Done; also where the reader of our output left early.
pub(super) const EXIT_OK: u8 = 0;
/// The server answered, with an error, or with checks that did not hold; or a file is no good.
pub(super) const EXIT_REFUSED: u8 = 1;
/// The command line, or a value on it, is wrong; nothing was sent.
pub(super) const EXIT_USAGE: u8 = 2;
/// There was no answer: no server, not this protocol, a lost connection, or no time left.
pub(super) const EXIT_NO_ANSWER: u8 = 3;
/// Interrupted from the keyboard: 128 and SIGINT's number, as shells have it.
pub(super) const EXIT_INTERRUPTED: u8 = 130;

/// Why a command ended early.
#[derive(Debug)]
pub(super) enum Error {
    /// What was asked for can't be sent.
    Usage(String),
    /// There is no connection; the words say why.
    Unreachable(String),
    /// A call failed, at the server or on the way.
    Call(Status),
    /// A transaction was answered, and its checks did not hold.
    NotHeld,
    /// What was to run, a command under a bucket or a load, could not, or not to its end.
    Aborted { words: String, exit_code: u8 },
    /// A command that ran under a bucket ended with this status; it has said itself why.
    Command(u8),
    /// Our own output can't be written.
    Output(io::Error),
    /// A file can't be read or written, or what it holds is wrong; the words say which, and how.
    File(String),
    /// An import ended early.
    AtLine(Box<AtLine>),
}

/// Where an import ended, and how it goes on.
#[derive(Debug)]
pub(super) struct AtLine {
    pub(super) why: Error,
    /// From 1. What stands before it is imported.
    pub(super) line: u64,
    /// The options that go on from here.
    pub(super) go_on: String,
}

/// The answer to one request of many, as the error that it would be by itself.
#[must_use]
pub(super) fn refusal(status: &tonic_types::Status) -> Status {
    Status::with_details(status.code.into(), status.message.clone(), status.encode_to_vec().into())
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Call(status)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Error {
    /// The connection attempt failed.
    pub(super) fn unreachable(error: &(dyn StdError + 'static)) -> Self {
        Self::Unreachable(root_cause(error))
    }

    /// The one place that decides what a script sees.
    #[must_use]
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Call(status) if is_answer(status) => EXIT_REFUSED,
            Self::Unreachable(_) | Self::Call(_) => EXIT_NO_ANSWER,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => EXIT_OK,
            Self::Output(_) | Self::NotHeld | Self::File(_) => EXIT_REFUSED,
            Self::AtLine(at) => at.why.exit_code(),
            Self::Aborted { exit_code, .. } | Self::Command(exit_code) => *exit_code,
        }
    }

    /// Whether the same may go well a little later.
    #[must_use]
    pub(super) fn may_pass(&self) -> bool {
        let reason = self.reason();
        let passing = ["DRAINING", "MOVING", "OVERLOADED", "WATCHER_LAGGED", "PANIC"];
        self.exit_code() == EXIT_NO_ANSWER || passing.iter().any(|passing| reason.as_deref() == Some(passing))
    }

    /// A fact that pail gave with this reason.
    #[must_use]
    pub(super) fn fact(&self, reason: &str, key: &str) -> Option<String> {
        let Self::Call(status) = self else { return None };
        let (_, mut facts) = pail_info(status).filter(|(given, _)| given == reason)?;
        facts.remove(key)
    }

    /// The same answer, in words that say what to do here.
    #[must_use]
    pub(super) fn in_words(self, words: String) -> Self {
        match self {
            Self::Call(status) => {
                Self::Call(Status::with_details(status.code(), words, Bytes::copy_from_slice(status.details())))
            }
            other => other,
        }
    }

    /// `ErrorInfo.reason`, where pail itself answered.
    #[must_use]
    pub(super) fn reason(&self) -> Option<String> {
        match self {
            Self::Call(status) => Some(pail_info(status)?.0),
            Self::AtLine(at) => at.why.reason(),
            _ => None,
        }
    }

    /// The line for standard error; none where there is nothing to tell.
    #[must_use]
    pub(super) fn line(&self, options: &Options) -> Option<String> {
        let report = self.report(options)?;
        Some(match options.output {
            Format::Json => json!({
                "code": report.code, "reason": report.reason, "message": report.message, "metadata": report.metadata,
            })
            .to_string(),
            Format::Text => format!("pail: {}", self.words(options)),
        })
    }

    /// The words for people, in one line, with the reason that programs match on.
    #[must_use]
    pub(super) fn words(&self, options: &Options) -> String {
        let Some(report) = self.report(options) else { return String::new() };
        let message = one_line(&report.message);
        match self {
            Self::Call(status) if is_answer(status) => format!("{message} ({})", report.reason),
            _ => message,
        }
    }

    fn report(&self, options: &Options) -> Option<Report> {
        let local = |code: &str, reason: &str, message: String| {
            Some(Report { code: code.into(), reason: reason.into(), message, metadata: BTreeMap::new() })
        };
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Self::NotHeld if options.output == Format::Json => None, // the answer has said it
            Self::NotHeld => local("FAILED_PRECONDITION", "NOT_HELD", "the checks did not hold".to_owned()),
            Self::Output(error) => local("UNKNOWN", "OUTPUT", format!("cannot write the output: {error}")),
            Self::Command(_) => None,
            Self::Aborted { words, .. } => local("ABORTED", "COMMAND_ABORTED", words.clone()),
            Self::Usage(message) => local("INVALID_ARGUMENT", "USAGE", message.clone()),
            Self::File(message) => local("FAILED_PRECONDITION", "FILE", message.clone()),
            Self::AtLine(at) => {
                let AtLine { why, line, go_on } = &**at;
                let mut report = why.report(options)?;
                report.message = format!(
                    "line {line}: {}; what stands before it is imported: go on with {go_on}",
                    why.words(options)
                );
                report.metadata.insert("line".to_owned(), line.to_string());
                Some(report)
            }
            Self::Unreachable(why) => {
                let message = format!(
                    "cannot reach {}: {why}; is 'pail serve' running there? Another address: --addr or PAIL_ADDR",
                    options.addr
                );
                local("UNAVAILABLE", "UNREACHABLE", message)
            }
            Self::Call(status) if is_answer(status) => {
                let code = wire_name(status.code());
                let (reason, metadata) = pail_info(status).unwrap_or_else(|| (code.clone(), BTreeMap::new()));
                Some(Report { code, reason, message: status.message().to_owned(), metadata })
            }
            Self::Call(status) => {
                let why = no_answer(status, options);
                local(&wire_name(status.code()), "NO_ANSWER", format!("no answer from {}: {why}", options.addr))
            }
        }
    }
}

struct Report {
    code: String,
    reason: String,
    message: String,
    metadata: BTreeMap<String, String>,
}

/// Whether a server said this, rather than tonic or a proxy on the way to one. pail's own errors always carry an
/// `ErrorInfo`. A deadline is no answer, whichever side saw it pass first: which one did is a race.
fn is_answer(status: &Status) -> bool {
    let on_the_way = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Unimplemented);
    status.code() != Code::DeadlineExceeded && (pail_info(status).is_some() || !(on_the_way || has_source(status)))
}

/// A status that tonic made of an error of its own, such as a lost connection, has that as its source.
fn has_source(status: &Status) -> bool {
    status.source().is_some()
}

fn no_answer(status: &Status, options: &Options) -> String {
    let root = causes(status).last().filter(|_| has_source(status));
    if status.code() == Code::DeadlineExceeded || root.is_some_and(<dyn StdError>::is::<tonic::TimeoutExpired>) {
        return format!("the time was up ({:?}, see --timeout)", options.timeout);
    }
    match root {
        Some(_) => format!("the connection failed: {}", root_cause(status)),
        None if status.code() == Code::Unimplemented => format!("it does not speak pail.v1 ({})", status.message()),
        None => status.message().to_owned(),
    }
}

/// The reason and the facts of an error of pail's own.
fn pail_info(status: &Status) -> Option<(String, BTreeMap<String, String>)> {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
    Some((info.reason, info.metadata.into_iter().collect()))
}

/// What lies at the bottom of it: "transport error" helps nobody.
pub(super) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let cause = causes(error).last().map_or_else(String::new, ToString::to_string);
    cause.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The code as gRPC writes it: `NotFound` is `NOT_FOUND`.
pub(super) fn wire_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::status::{Failure, Reason};

    fn refused(reason: Reason) -> Error {
        Status::from(Failure::new(reason, "no bucket \"shopping\"").with("bucket", "shopping")).into()
    }

    fn lost() -> Error {
        Status::from_error(Box::new(io::Error::other("Connection reset"))).into()
    }

    #[test]
    fn what_pail_answers_is_1_and_what_it_never_saw_is_3() {
        assert_eq!(refused(Reason::BucketNotFound).exit_code(), 1);
        assert_eq!(refused(Reason::Draining).exit_code(), 1);
        assert_eq!(Error::from(Status::permission_denied("by a proxy")).exit_code(), 1);
        assert_eq!(Error::from(Status::unavailable("no healthy upstream")).exit_code(), 3);
        assert_eq!(Error::from(Status::unimplemented("")).exit_code(), 3);
        assert_eq!(Error::from(Status::deadline_exceeded("")).exit_code(), 3);
        assert_eq!(lost().exit_code(), 3);
        assert_eq!(Error::Unreachable(String::new()).exit_code(), 3);
        assert_eq!(Error::NotHeld.exit_code(), 1);
        assert_eq!(Error::Usage(String::new()).exit_code(), 2);
    }

    #[test]
    fn what_may_pass_is_what_another_attempt_may_not_meet() {
        assert!(lost().may_pass() && refused(Reason::Draining).may_pass() && refused(Reason::Overloaded).may_pass());
        assert!(!refused(Reason::BucketExists).may_pass() && !Error::Usage(String::new()).may_pass());
    }

    #[test]
    fn other_words_leave_the_reason_and_the_facts() {
        let error = refused(Reason::BucketExists).in_words("taken".to_owned());
        assert_eq!(error.line(&Options::for_test()).unwrap(), "pail: taken (BUCKET_EXISTS)");
        assert_eq!(error.fact("BUCKET_EXISTS", "bucket").as_deref(), Some("shopping"));
        assert_eq!(error.fact("BUCKET_NOT_FOUND", "bucket"), None);
    }

    #[test]
    fn a_reader_that_leaves_early_is_no_failure() {
        let error = Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.exit_code(), error.line(&Options::for_test())), (0, None));
    }

    #[test]
    fn an_error_is_one_line_with_its_reason() {
        let text = |error: Error| error.line(&Options::for_test()).unwrap();
        assert_eq!(text(refused(Reason::BucketNotFound)), r#"pail: no bucket "shopping" (BUCKET_NOT_FOUND)"#);
        assert_eq!(
            text(Error::Unreachable("connection refused".into())),
            "pail: cannot reach 127.0.0.1:4040: connection refused; is 'pail serve' running there? Another address: \
             --addr or PAIL_ADDR"
        );
        assert_eq!(text(lost()), "pail: no answer from 127.0.0.1:4040: the connection failed: connection reset");
        assert!(!text(Status::not_found("two\nlines\u{1b}[2J").into()).contains(char::is_control));
    }

    #[test]
    fn an_error_is_one_object_where_json_was_asked_for() {
        let options = Options { output: Format::Json, ..Options::for_test() };
        let line = refused(Reason::BucketNotFound).line(&options).unwrap();
        let expected = json!({
            "code": "NOT_FOUND", "reason": "BUCKET_NOT_FOUND", "message": "no bucket \"shopping\"",
            "metadata": {"bucket": "shopping"},
        });
        assert_eq!(line, expected.to_string());
    }
}
