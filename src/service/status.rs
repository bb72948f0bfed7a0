//! Errors as clients see them: each has a gRPC code, a reason that programs match on, words that people read, and details.
//!
//! This is the only file that makes a [`Status`]. The reasons and their codes are the error table of the contract; the
//! details follow <https://aip.dev/193>.

use std::{
    collections::HashMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::limits::STATUS_DETAILS_BYTES_MAX;

/// `ErrorInfo.domain` of every error of pail's own.
pub const DOMAIN: &str = "pail";

/// How soon a call that was certainly not executed may be tried again.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Why a call failed: `ErrorInfo.reason`, and with it the code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[allow(missing_docs)] // the contract's table says what each means
pub enum Reason {
    InvalidName,
    InvalidKey,
    InvalidValue,
    InvalidOption,
    InvalidPageToken,
    InvalidMessage,
    TooLarge,
    BucketNotFound,
    KeyNotFound,
    BucketExists,
    WrongType,
    VersionMismatch,
    IntegerOverflow,
    RevisionCompacted,
    RevisionUnknown,
    TooManyBuckets,
    TooManyEntries,
    OutOfMemory,
    TooManyStreams,
    WatcherLagged,
    BucketCrashed,
    LinkedExit,
    Draining,
    Moving,
    Overloaded,
    Panic,
    Unimplemented,
    DeadlineExceeded,
    /// Of the health service alone: it does not know the service that was asked for.
    ServiceUnknown,
    CredentialMissing,
    CredentialUnknown,
    CredentialExpired,
    PermissionDenied,
    PermissionsChanged,
}

impl Reason {
    /// All of them, each at its place.
    pub const ALL: [Self; 34] = [
        Self::InvalidName,
        Self::InvalidKey,
        Self::InvalidValue,
        Self::InvalidOption,
        Self::InvalidPageToken,
        Self::InvalidMessage,
        Self::TooLarge,
        Self::BucketNotFound,
        Self::KeyNotFound,
        Self::BucketExists,
        Self::WrongType,
        Self::VersionMismatch,
        Self::IntegerOverflow,
        Self::RevisionCompacted,
        Self::RevisionUnknown,
        Self::TooManyBuckets,
        Self::TooManyEntries,
        Self::OutOfMemory,
        Self::TooManyStreams,
        Self::WatcherLagged,
        Self::BucketCrashed,
        Self::LinkedExit,
        Self::Draining,
        Self::Moving,
        Self::Overloaded,
        Self::Panic,
        Self::Unimplemented,
        Self::DeadlineExceeded,
        Self::ServiceUnknown,
        Self::CredentialMissing,
        Self::CredentialUnknown,
        Self::CredentialExpired,
        Self::PermissionDenied,
        Self::PermissionsChanged,
    ];

    /// How often it was said, in this process.
    #[must_use]
    pub fn count(self) -> u64 {
        SAID[self as usize].load(Relaxed)
    }

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.wire().1
    }

    /// The code and the name on the wire.
    const fn wire(self) -> (Code, &'static str) {
        match self {
            Self::InvalidName => (Code::InvalidArgument, "INVALID_NAME"),
            Self::InvalidKey => (Code::InvalidArgument, "INVALID_KEY"),
            Self::InvalidValue => (Code::InvalidArgument, "INVALID_VALUE"),
            Self::InvalidOption => (Code::InvalidArgument, "INVALID_OPTION"),
            Self::InvalidPageToken => (Code::InvalidArgument, "INVALID_PAGE_TOKEN"),
            Self::InvalidMessage => (Code::InvalidArgument, "INVALID_MESSAGE"),
            Self::TooLarge => (Code::InvalidArgument, "TOO_LARGE"),
            Self::BucketNotFound => (Code::NotFound, "BUCKET_NOT_FOUND"),
            Self::KeyNotFound => (Code::NotFound, "KEY_NOT_FOUND"),
            Self::BucketExists => (Code::AlreadyExists, "BUCKET_EXISTS"),
            Self::WrongType => (Code::FailedPrecondition, "WRONG_TYPE"),
            Self::VersionMismatch => (Code::FailedPrecondition, "VERSION_MISMATCH"),
            Self::IntegerOverflow => (Code::OutOfRange, "INTEGER_OVERFLOW"),
            Self::RevisionCompacted => (Code::OutOfRange, "REVISION_COMPACTED"),
            Self::RevisionUnknown => (Code::OutOfRange, "REVISION_UNKNOWN"),
            Self::TooManyBuckets => (Code::ResourceExhausted, "TOO_MANY_BUCKETS"),
            Self::TooManyEntries => (Code::ResourceExhausted, "TOO_MANY_ENTRIES"),
            Self::OutOfMemory => (Code::ResourceExhausted, "OUT_OF_MEMORY"),
            Self::TooManyStreams => (Code::ResourceExhausted, "TOO_MANY_STREAMS"),
            Self::WatcherLagged => (Code::ResourceExhausted, "WATCHER_LAGGED"),
            Self::BucketCrashed => (Code::Aborted, "BUCKET_CRASHED"),
            Self::LinkedExit => (Code::Aborted, "LINKED_EXIT"),
            Self::Draining => (Code::Unavailable, "DRAINING"),
            Self::Moving => (Code::Unavailable, "MOVING"),
            Self::Overloaded => (Code::Unavailable, "OVERLOADED"),
            Self::Panic => (Code::Internal, "PANIC"),
            Self::Unimplemented => (Code::Unimplemented, "UNIMPLEMENTED"),
            Self::DeadlineExceeded => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            Self::ServiceUnknown => (Code::NotFound, "SERVICE_UNKNOWN"),
            Self::CredentialMissing => (Code::Unauthenticated, "CREDENTIAL_MISSING"),
            Self::CredentialUnknown => (Code::Unauthenticated, "CREDENTIAL_UNKNOWN"),
            Self::CredentialExpired => (Code::Unauthenticated, "CREDENTIAL_EXPIRED"),
            Self::PermissionDenied => (Code::PermissionDenied, "PERMISSION_DENIED"),
            Self::PermissionsChanged => (Code::Aborted, "PERMISSIONS_CHANGED"),
        }
    }
}

/// How often each was said.
static SAID: [AtomicU64; Reason::ALL.len()] = [const { AtomicU64::new(0) }; Reason::ALL.len()];

/// An error on its way to a client.
///
/// The words end without a full stop, say what was wrong and what is allowed, and quote client text with `{:?}`, so that
/// it can't forge a log line.
#[derive(Clone, Debug)]
#[must_use]
pub struct Failure {
    reason: Reason,
    message: String,
    metadata: HashMap<String, String>,
    details: Box<ErrorDetails>,
}

impl Failure {
    /// An error of this reason, with these words.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut details = ErrorDetails::new();
        if matches!(reason, Reason::Draining | Reason::Overloaded) {
            details.set_retry_info(Some(RETRY_DELAY));
        }
        Self { reason, message: message.into(), metadata: HashMap::new(), details: Box::new(details) }
    }

    /// Adds a fact under one of the contract's fixed keys.
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Names the field of the request that is wrong, in place of one that was named before; the words serve as its description.
    pub fn field(mut self, field: &str) -> Self {
        self.details.set_bad_request(vec![FieldViolation::new(field, &self.message)]);
        self.with("field", field)
    }

    /// Names the limit that was met, and what it was met with.
    pub fn limit(self, limit: usize, actual: usize) -> Self {
        self.with("limit", limit).with("actual", actual)
    }

    /// Names the quota that is full, for those whose limit is on what is kept.
    pub fn quota(mut self, subject: &str, limit: usize) -> Self {
        self.details.add_quota_failure_violation(subject, &self.message);
        self.with("limit", limit)
    }

    /// Names what was not found or not free: `kind` is `bucket` or `key`.
    pub fn resource(mut self, kind: &str, name: &str) -> Self {
        self.details.set_resource_info(kind, name, "", &self.message);
        self
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        SAID[failure.reason as usize].fetch_add(1, Relaxed);
        let (code, reason) = failure.reason.wire();
        let mut details = failure.details;
        details.set_error_info(reason, DOMAIN, failure.metadata);
        let status = Self::with_error_details(code, &failure.message, *details);
        // The header is base64, a third longer. What does not fit is dropped: clients refuse large headers altogether.
        if status.details().len() / 3 * 4 <= STATUS_DETAILS_BYTES_MAX {
            return status;
        }
        let bare = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::<String, String>::new());
        Self::with_error_details(code, &failure.message, bare)
    }
}

/// As part of a message: what the headers of a call of its own would say.
impl From<Failure> for tonic_types::Status {
    fn from(failure: Failure) -> Self {
        let status = Status::from(failure);
        Self::decode(status.details()).unwrap_or_else(|_| Self {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        })
    }
}

/// A short, quoted form of a client's text, for words that people read.
#[must_use]
pub fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    match text.char_indices().nth(CHARS_MAX) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}… ({} bytes)", &text[..cut], text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_its_reason_its_facts_and_when_to_try_again() {
        let status = Status::from(Failure::new(Reason::Draining, "the server is draining").with("bucket", "b"));

        assert_eq!(status.code(), Code::Unavailable);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("DRAINING", "pail"));
        assert_eq!(info.metadata["bucket"], "b");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(RETRY_DELAY));
    }

    #[test]
    fn details_that_would_be_refused_as_a_header_are_dropped_but_never_the_reason() {
        let long = "k".repeat(2_000);
        let status = Status::from(Failure::new(Reason::KeyNotFound, "no").with("key", &long).resource("key", &long));

        assert!(status.details().len() < 200);
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "KEY_NOT_FOUND");
    }

    #[test]
    fn each_reason_is_at_its_place_and_counted_when_it_is_said() {
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        let before = Reason::ServiceUnknown.count();
        drop(Status::from(Failure::new(Reason::ServiceUnknown, "")));
        assert!(Reason::ServiceUnknown.count() > before);
    }

    #[test]
    fn a_client_text_is_quoted_and_cut() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert!(quoted(&"x".repeat(100)).ends_with("… (100 bytes)"));
    }
}
