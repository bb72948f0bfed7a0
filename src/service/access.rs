//! Who may do what here: each handler says for what it takes a bucket's name, and the name is not to be had otherwise.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Extensions;

use super::{
    Buckets, invalid,
    status::{Failure, Reason, quoted},
};
use crate::{
    auth::{Caller, Denied, Verbs},
    budget::{OverQuota, Owner},
    name::BucketName,
};

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let reason = match denied {
            Denied::Missing => Reason::CredentialMissing,
            Denied::Unknown => Reason::CredentialUnknown,
            Denied::Expired => Reason::CredentialExpired,
            Denied::Changed => Reason::PermissionsChanged,
        };
        Self::new(reason, denied.to_string())
    }
}

impl Buckets {
    /// Who sends a request with these extensions, where the server has put that.
    pub(super) fn caller(&self, extensions: &Extensions) -> Result<Caller, Failure> {
        if self.auth.is_none() {
            return Ok(Caller::anyone());
        }
        extensions.get::<Caller>().cloned().ok_or_else(|| Denied::Missing.into())
    }

    /// A bucket's name, for whoever may do this with it. Whether there is such a bucket makes no difference.
    pub(super) fn name<'a>(
        &self,
        caller: &Caller,
        verbs: impl Into<Verbs>,
        text: &'a str,
    ) -> Result<BucketName<'a>, Failure> {
        let name = BucketName::parse(text, self.registry.limits())
            .map_err(|why| invalid(Reason::InvalidName, "bucket", text, why))?;
        let verbs = verbs.into();
        if caller.may(verbs, text) {
            return Ok(name);
        }
        Err(denied(caller, verbs, &format!("the bucket {}", quoted(text))).with("bucket", text))
    }

    /// The prefixes within this one that the caller may do this with.
    pub(super) fn scopes(caller: &Caller, verbs: impl Into<Verbs>, prefix: &str) -> Result<Vec<Box<str>>, Failure> {
        let verbs = verbs.into();
        let scopes = caller.scopes(verbs, prefix);
        if scopes.is_empty() {
            let what = format!("any bucket with the prefix {}", quoted(prefix));
            return Err(denied(caller, verbs, &what).field("prefix"));
        }
        Ok(scopes)
    }

    /// The standing of a stream.
    pub(super) fn standing(&self, extensions: &Extensions, kind: Kind) -> Result<Standing, Failure> {
        let caller = self.caller(extensions)?;
        let share = match (kind, caller.owner()) {
            (Kind::Watching, Some(owner)) => Some(Share::take(owner)?),
            _ => None,
        };
        let over = self.auth.clone().map(|auth| Box::pin(auth.over(caller.clone())) as Pin<Box<_>>);
        Ok(Standing { caller, over, _share: share })
    }
}

fn denied(caller: &Caller, verbs: Verbs, what: &str) -> Failure {
    let identity = caller.identity().map_or("", |identity| identity);
    let words = format!("{} is not granted {} of {what}", quoted(identity), verbs.names());
    Failure::new(Reason::PermissionDenied, words).with("verb", verbs.names()).with("identity", identity)
}

/// Whether a stream is one of those that an identity may have so many of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Working,
    Watching,
}

/// On what ground somebody has a stream, for as long as it is open.
pub(super) struct Standing {
    caller: Caller,
    /// Ready once there is none any more; `None` where there are no rules.
    over: Option<Pin<Box<dyn Future<Output = Denied> + Send>>>,
    _share: Option<Share>,
}

impl Standing {
    /// Whose it is.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Why it is to end, if it is. Otherwise the task is woken when it is.
    pub(super) fn ended(&mut self, cx: &mut Context<'_>) -> Option<Failure> {
        match self.over.as_mut()?.as_mut().poll(cx) {
            Poll::Ready(denied) => {
                self.over = None;
                Some(denied.into())
            }
            Poll::Pending => None,
        }
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Standing({:?})", self.caller.identity())
    }
}

/// One of the streams that an identity may have.
struct Share(Arc<Owner>);

impl Share {
    fn take(owner: &Arc<Owner>) -> Result<Self, Failure> {
        owner.watches.take(1).map_err(|OverQuota { limit }| {
            let words = format!("this identity has {limit} Watch and Link streams, and no more are allowed");
            Failure::new(Reason::TooManyStreams, words).quota("identity", limit)
        })?;
        Ok(Self(Arc::clone(owner)))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.watches.give_back(1);
    }
}
