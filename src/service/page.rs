//! Pages: how many items, and the token that says where to go on.
//!
//! A token holds the arguments that it belongs to, so that it can't be used with others; that is all the state there is.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use prost::Message;

use super::status::{Failure, Reason};
use crate::{
    limits::{PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX},
    planted::{Bug, strikes},
};

/// Where a listing goes on, and what it is a listing of.
#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct Token {
    /// The registry's id, or the bucket's.
    #[prost(string, tag = "1")]
    pub(super) of: String,
    #[prost(string, tag = "2")]
    pub(super) prefix: String,
    #[prost(bool, tag = "3")]
    pub(super) keys_only: bool,
    /// The last item that was returned.
    #[prost(string, tag = "4")]
    pub(super) after: String,
    /// The revision of the first page.
    #[prost(uint64, tag = "5")]
    pub(super) revision: u64,
}

impl Token {
    pub(super) fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.encode_to_vec())
    }

    /// Reads a token; `None` for the first page.
    pub(super) fn decode(text: &str) -> Result<Option<Self>, Failure> {
        if text.is_empty() {
            return Ok(None);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let token = bytes.and_then(|bytes| <Self as Message>::decode(&*bytes).ok());
        assert!(token.is_some() || !strikes(Bug::CrashingToken), "planted");
        token.map(Some).ok_or_else(|| invalid("it is none that this server gave"))
    }

    /// Refuses a token of another listing.
    pub(super) fn of(self, of: &str, prefix: &str, keys_only: bool) -> Result<Self, Failure> {
        if self.of != of {
            return Err(invalid("it belongs to another bucket, or to a registry that is gone: start again without it"));
        }
        if (&*self.prefix, self.keys_only) != (prefix, keys_only) {
            return Err(invalid("it belongs to a request with other arguments; only page_size may change"));
        }
        Ok(self)
    }
}

fn invalid(why: &str) -> Failure {
    Failure::new(Reason::InvalidPageToken, format!("the page token is refused: {why}")).field("page_token")
}

/// How many items a page has at most.
pub(super) fn items_max(page_size: i32) -> Result<usize, Failure> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(PAGE_ITEMS_DEFAULT),
        Ok(size) => Ok(size.min(PAGE_ITEMS_MAX)),
        Err(_) => {
            let words = format!("page_size is {page_size}: 0 (for {PAGE_ITEMS_DEFAULT}) or more is allowed");
            Err(Failure::new(Reason::InvalidOption, words).field("page_size"))
        }
    }
}
