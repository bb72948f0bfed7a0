//! Who calls, and what they may do.
//!
//! A credential is a bearer token, a JWT, or the certificate of a connection. It stands for an identity, a text that
//! says what kind of credential it is of, so that no JWT can call itself by a token's name:
//!
//! ```text
//! token:ci                       of a token in the file
//! jwt:alice                      of a JWT: its sub, or another claim
//! spiffe://example.org/billing   of a certificate with a SPIFFE id, or another URI
//! dns:billing.example.org        of a certificate with a host's name and no URI
//! anonymous                      nobody has shown anything
//! ```
//!
//! The [`file`] of rules says which of them may do what with which names. It is followed: what is new in it holds at
//! once, also for streams that are open. No secret is kept in the file, and none is ever in the log.

mod certificate;
mod file;
mod jwt;
mod rights;

use std::{
    collections::HashMap,
    fmt,
    future::pending,
    path::Path,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header::AUTHORIZATION};
use parking_lot::{Mutex, RwLock};
use ring::digest::{SHA256, digest};
use tokio::time::sleep;

pub use self::{
    certificate::Certificate,
    rights::{Quota, Verb, Verbs},
};
use self::{file::Policy, rights::Rights};
use crate::{budget::Owner, followed::Followed};

/// Who has shown nothing.
const ANONYMOUS: &str = "anonymous";

/// Credentials that are known without a second look, at most.
const KNOWN_MAX: usize = 10_000;

/// A credential, as it is kept: what it hashes to.
pub type Digest = [u8; 32];

/// What a text hashes to, with SHA-256. It is for secrets of 128 random bits or more: nobody guesses them, so it may
/// be fast.
#[must_use]
pub fn hash(text: &[u8]) -> Digest {
    let mut hash = Digest::default();
    hash.copy_from_slice(digest(&SHA256, text).as_ref());
    hash
}

/// Why somebody is not let in.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Denied {
    /// There is no credential, and one is needed.
    #[error("a credential is needed: an authorization header with a bearer token, or a client certificate")]
    Missing,
    /// It is not one that is known. Why is not told: whoever has a right one needs no help to guess.
    #[error("the credential is not one that is known here")]
    Unknown,
    /// It was one.
    #[error("the credential has expired: get another")]
    Expired,
    /// What the identity may do is not what it was.
    #[error("what this identity may do has changed: open the stream again")]
    Changed,
}

/// The rules as they are now, and who has come by them.
#[derive(Debug)]
pub struct Auth {
    policy: Followed<Policy>,
    known: RwLock<Known>,
    owners: Mutex<HashMap<Arc<str>, Weak<Owner>>>,
}

/// Credentials that were looked at, by what they hash to.
#[derive(Debug, Default)]
struct Known {
    /// By which rules. Weak would do, but this is one more count for each change of a file.
    by: Option<Arc<Policy>>,
    callers: HashMap<Digest, Caller>,
}

/// Who calls, and what they may do; cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller(Option<Arc<Identified>>);

#[derive(Debug)]
struct Identified {
    identity: Arc<str>,
    rights: Rights,
    until: Option<SystemTime>,
    proof: Proof,
    owner: Arc<Owner>,
}

/// What somebody has shown.
#[derive(Clone)]
enum Proof {
    Bearer(Arc<str>),
    Certificate(Arc<Certificate>),
    Nothing,
}

impl fmt::Debug for Proof {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer",
            Self::Certificate(_) => "Certificate",
            Self::Nothing => "Nothing",
        })
    }
}

impl Auth {
    /// Reads the file of rules, and what it names.
    ///
    /// # Errors
    ///
    /// A line for the operator, which names the file.
    pub fn new(path: &Path) -> Result<Self, String> {
        let policy = Policy::follow(path)?;
        Ok(Self { policy, known: RwLock::default(), owners: Mutex::default() })
    }

    /// The files, to follow.
    #[must_use]
    pub fn files(&self) -> &Followed<impl Sized> {
        &self.policy
    }

    /// Who sends these headers, over a connection with this certificate. A header goes before a certificate: behind a proxy
    /// the certificate is the proxy's.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn identify(&self, headers: &HeaderMap, certificate: Option<&Arc<Certificate>>) -> Result<Caller, Denied> {
        let proof = match (headers.get(AUTHORIZATION), certificate) {
            (Some(header), _) => {
                let text = header.to_str().ok().and_then(|text| text.split_once(' '));
                let (_, token) =
                    text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).ok_or(Denied::Unknown)?;
                Shown::Bearer(token.trim())
            }
            (None, Some(certificate)) => Shown::Certificate(certificate),
            (None, None) => Shown::Nothing,
        };
        let policy = self.policy.get();
        let hash = proof.hash();
        let known = self.known(&policy, &hash);
        let caller = match known {
            Some(caller) => caller,
            None => self.note(&policy, hash, self.look(&policy, &proof.keep())?),
        };
        caller.is_valid()?;
        Ok(caller)
    }

    fn known(&self, policy: &Arc<Policy>, hash: &Digest) -> Option<Caller> {
        let known = self.known.read();
        known.by.as_ref().filter(|by| Arc::ptr_eq(by, policy))?;
        known.callers.get(hash).cloned()
    }

    fn note(&self, policy: &Arc<Policy>, hash: Digest, caller: Caller) -> Caller {
        let mut known = self.known.write();
        let is_of_now = known.by.as_ref().is_some_and(|by| Arc::ptr_eq(by, policy));
        if !is_of_now || known.callers.len() >= KNOWN_MAX {
            *known = Known { by: Some(Arc::clone(policy)), callers: HashMap::new() };
        }
        known.callers.insert(hash, caller.clone());
        caller
    }

    /// Looks at what is shown, as if for the first time.
    fn look(&self, policy: &Policy, proof: &Proof) -> Result<Caller, Denied> {
        let (identity, until) = match proof {
            Proof::Bearer(token) => policy.bearer(token)?,
            Proof::Certificate(certificate) => {
                let names = certificate.identities();
                // The one that a rule speaks of, where there are many.
                let named = names.iter().find(|name| policy.speaks_of(name)).or(names.first());
                (named.cloned().ok_or(Denied::Unknown)?, Some(certificate.until()))
            }
            Proof::Nothing if policy.speaks_of(ANONYMOUS) => (ANONYMOUS.into(), None),
            Proof::Nothing => return Err(Denied::Missing),
        };
        let owner = self.owner(&identity, policy.quota(&identity));
        let rights = policy.rights(&identity);
        Ok(Caller(Some(Arc::new(Identified { identity, rights, until, proof: proof.clone(), owner }))))
    }

    /// The account of an identity, which is there for as long as somebody needs it.
    fn owner(&self, identity: &Arc<str>, quota: Quota) -> Arc<Owner> {
        let mut owners = self.owners.lock();
        let living = owners.get(identity).and_then(Weak::upgrade);
        let owner = living.unwrap_or_else(|| {
            if owners.len() == owners.capacity() {
                owners.retain(|_, owner| owner.strong_count() > 0);
            }
            let owner = Arc::<Owner>::default();
            owners.insert(Arc::clone(identity), Arc::downgrade(&owner));
            owner
        });
        owner.allow(quota.buckets, quota.bytes, quota.watches);
        owner
    }

    /// Returns when a stream of this caller's is to end: its credential has expired or was taken back, or what it may
    /// do has changed.
    pub async fn over(self: Arc<Self>, caller: Caller) -> Denied {
        let mut changes = self.policy.changes();
        loop {
            if let Err(denied) = self.still(&caller) {
                return denied;
            }
            tokio::select! {
                () = until(caller.0.as_ref().and_then(|known| known.until)) => {}
                changed = changes.changed() => if changed.is_err() { pending::<()>().await },
            }
        }
    }

    fn still(&self, caller: &Caller) -> Result<(), Denied> {
        let Some(known) = &caller.0 else { return Ok(()) };
        caller.is_valid()?;
        let now = self.look(&self.policy.get(), &known.proof)?;
        let is_same = now.0.is_some_and(|now| now.identity == known.identity && now.rights == known.rights);
        if is_same { Ok(()) } else { Err(Denied::Changed) }
    }
}

/// What is shown, before it is kept.
enum Shown<'a> {
    Bearer(&'a str),
    Certificate(&'a Arc<Certificate>),
    Nothing,
}

impl Shown<'_> {
    fn hash(&self) -> Digest {
        match self {
            Self::Bearer(token) => hash(token.as_bytes()),
            Self::Certificate(certificate) => certificate.hash(),
            Self::Nothing => Digest::default(),
        }
    }

    fn keep(&self) -> Proof {
        match self {
            Self::Bearer(token) => Proof::Bearer((*token).into()),
            Self::Certificate(certificate) => Proof::Certificate(Arc::clone(certificate)),
            Self::Nothing => Proof::Nothing,
        }
    }
}

/// Returns at this time on the wall clock, give or take the leaps that it makes; for `None` never.
async fn until(time: Option<SystemTime>) {
    let Some(time) = time else { return pending().await };
    // Looked at again now and then: a clock that is set does not move a sleep.
    const LOOK: Duration = Duration::from_secs(60);
    while let Ok(left) = time.duration_since(SystemTime::now()) {
        sleep(left.min(LOOK) + Duration::from_millis(1)).await;
    }
}

impl Caller {
    /// Where there are no rules, anyone may do anything.
    #[must_use]
    pub fn anyone() -> Self {
        Self(None)
    }

    /// Who it is; `None` where there are no rules.
    #[must_use]
    pub fn identity(&self) -> Option<&Arc<str>> {
        self.0.as_ref().map(|known| &known.identity)
    }

    /// What the identity has, and may have.
    #[must_use]
    pub fn owner(&self) -> Option<&Arc<Owner>> {
        self.0.as_ref().map(|known| &known.owner)
    }

    /// Whether it may do all of this with a bucket of this name.
    #[must_use]
    pub fn may(&self, verbs: Verbs, name: &str) -> bool {
        self.0.as_ref().is_none_or(|known| known.rights.may(verbs, name))
    }

    /// The prefixes within `prefix` of names that it may do all of this with, in order, and none within another.
    #[must_use]
    pub fn scopes(&self, verbs: Verbs, prefix: &str) -> Vec<Box<str>> {
        self.0.as_ref().map_or_else(|| vec![prefix.into()], |known| known.rights.scopes(verbs, prefix))
    }

    fn is_valid(&self) -> Result<(), Denied> {
        match self.0.as_ref().and_then(|known| known.until) {
            Some(until) if until <= SystemTime::now() => Err(Denied::Expired),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
