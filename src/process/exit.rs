//! Why a process is no more.

use std::{any::Any, fmt, sync::Arc};

use crate::limits::EXIT_DETAIL_BYTES_MAX as DETAIL_BYTES_MAX;

/// The reasons of Erlang that pail has a meaning for; the contract's table says when each comes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// Ended because it was done, or was asked to. Does not travel over links.
    Normal,
    /// Ended because what it runs in is shutting down.
    Shutdown,
    /// Ended by a kill, which cannot be trapped.
    Killed,
    /// Its time to live ran out.
    Expired,
    /// A handler panicked.
    Crashed,
    /// It did not exist when the monitor or the link was set.
    NoProc,
    /// The client that was linked to it went without a word.
    NoConnection,
    /// A process linked to it ended abnormally.
    Linked,
}

impl Reason {
    /// All of them, each at its place.
    pub const ALL: [Self; 8] = [
        Self::Normal,
        Self::Shutdown,
        Self::Killed,
        Self::Expired,
        Self::Crashed,
        Self::NoProc,
        Self::NoConnection,
        Self::Linked,
    ];
}

impl fmt::Display for Reason {
    /// The contract's name for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "NORMAL",
            Self::Shutdown => "SHUTDOWN",
            Self::Killed => "KILLED",
            Self::Expired => "EXPIRED",
            Self::Crashed => "CRASHED",
            Self::NoProc => "NOPROC",
            Self::NoConnection => "NOCONNECTION",
            Self::Linked => "LINKED",
        })
    }
}

/// A reason, with words. Cheap to clone: each monitor and each link is told of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exit {
    /// Why.
    pub reason: Reason,
    detail: Option<Arc<str>>,
    /// Who has ended it. Not told along links.
    initiator: Option<Arc<str>>,
}

impl Exit {
    /// An exit for `reason`, explained by `detail`, which may be empty.
    #[must_use]
    pub fn new(reason: Reason, detail: &str) -> Self {
        Self { reason, detail: (!detail.is_empty()).then(|| detail.into()), initiator: None }
    }

    /// Why, in words; empty where the reason says it all.
    #[must_use]
    pub fn detail(&self) -> &str {
        self.detail.as_deref().unwrap_or_default()
    }

    /// The same, by somebody who is known.
    #[must_use]
    pub fn by(self, initiator: Option<Arc<str>>) -> Self {
        Self { initiator, ..self }
    }

    /// Who has ended it, where that is known.
    #[must_use]
    pub fn initiator(&self) -> Option<&str> {
        self.initiator.as_deref()
    }

    /// The end of a process whose handler panicked with `payload`: its message, never a backtrace.
    pub(crate) fn crashed(payload: &(dyn Any + Send)) -> Self {
        Self::new(Reason::Crashed, cut(panic_message(payload)))
    }

    /// The end of a process that did not trap the abnormal `self` of `peer`, to which it was linked: LINKED, with `peer` as
    /// the cause. A client that went without a word is told of as what it is, NOCONNECTION.
    pub(super) fn over_link(&self, peer: &dyn fmt::Display) -> Self {
        match self.reason {
            Reason::NoConnection => self.clone(),
            _ => self.linked(peer),
        }
    }

    /// LINKED, because `peer` ended with `self`. Along a chain of links the detail stays that of the first death: it is the
    /// cause, and a detail that grew with each would be as long as the chain.
    #[must_use]
    pub fn linked(&self, peer: &dyn fmt::Display) -> Self {
        match self.reason {
            Reason::Linked => self.clone(),
            _ => Self::new(Reason::Linked, cut(&format!("{peer}: {self}"))),
        }
    }
}

/// What a panic said.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}

fn cut(detail: &str) -> &str {
    &detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)]
}

impl From<Reason> for Exit {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None, initiator: None }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            "" => self.reason.fmt(f),
            detail => write!(f, "{}: {detail}", self.reason),
        }
    }
}
