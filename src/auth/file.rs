//! The file of rules.
//!
//! ```toml
//! [[token]]                          # a static token, of which the file has only the hash: `pail token` makes both
//! identity = "ci"                    # token:ci below
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! expires = 2027-01-01T00:00:00Z     # or never
//!
//! [jwt]                              # whose JWTs are taken
//! jwks = "keys.json"                 # beside this file
//! issuer = "https://login.example.org"
//! audience = "pail"
//! claim = "sub"                      # jwt:… below
//!
//! [[rule]]
//! who = ["token:ci", "spiffe://example.org/ci/*"]    # one * stands for anything
//! may = ["read", "write", "lifecycle", "watch"]      # or admin, which is all, and to know who did it
//! names = ["ci/"]                                    # those that begin so; "" is all
//!
//! [[quota]]                          # of each identity by itself; the first that fits
//! who = ["*"]
//! buckets = 1000
//! bytes = 67108864
//! watches = 100
//! ```

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use serde::Deserialize;

use super::{
    ANONYMOUS, Denied, Digest, Quota, Verb, hash,
    jwt::Jwts,
    rights::{Grant, Rights},
};
use crate::followed::{Contents, Followed, at_line, read};

/// What the file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Token>,
    jwt: Option<Jwt>,
    #[serde(default)]
    rule: Vec<Rule>,
    #[serde(default)]
    quota: Vec<QuotaOf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    identity: String,
    sha256: String,
    expires: Option<toml::value::Datetime>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwt {
    jwks: PathBuf,
    issuer: String,
    audience: String,
    #[serde(default = "sub")]
    claim: String,
}

fn sub() -> String {
    "sub".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    who: Vec<Pattern>,
    may: Vec<Verb>,
    names: Vec<Box<str>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaOf {
    who: Vec<Pattern>,
    buckets: Option<usize>,
    bytes: Option<usize>,
    watches: Option<usize>,
}

/// Identities: one, or those that begin and end like this.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
enum Pattern {
    One(String),
    Many { begin: String, end: String },
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const KINDS: [&str; 5] = ["token:", "jwt:", "dns:", "*", ANONYMOUS];
        if !KINDS.iter().any(|kind| text.starts_with(kind)) && !text.contains("://") {
            return Err(format!("{text:?} is nobody: token:…, jwt:…, dns:…, a URI, anonymous or * is allowed"));
        }
        match text.split_once('*') {
            None => Ok(Self::One(text)),
            Some((_, end)) if end.contains('*') => Err(format!("{text:?} has more than one *")),
            Some((begin, end)) => Ok(Self::Many { begin: begin.to_owned(), end: end.to_owned() }),
        }
    }
}

impl Pattern {
    /// Who has shown nothing is only meant where that is said.
    fn fits(&self, identity: &str) -> bool {
        match self {
            Self::One(one) => one == identity,
            Self::Many { begin, end } => {
                let long_enough = identity.len() >= begin.len() + end.len();
                identity != ANONYMOUS && long_enough && identity.starts_with(begin) && identity.ends_with(end)
            }
        }
    }
}

/// The rules, ready to be asked.
#[derive(Debug)]
pub(super) struct Policy {
    tokens: HashMap<Digest, (Arc<str>, Option<SystemTime>)>,
    jwts: Option<Jwts>,
    rules: Vec<Rule>,
    quotas: Vec<QuotaOf>,
}

impl Policy {
    /// Reads the file, and that of the keys, which it names.
    ///
    /// # Errors
    ///
    /// A line for the operator, which names the file.
    pub(super) fn follow(path: &Path) -> Result<Followed<Self>, String> {
        let (at, path) = (path.to_owned(), path.to_owned());
        let read_all = move || {
            let rules = read(&at)?;
            // Where it can't be understood, that is said below.
            let keys = parse(&at, &rules).ok().and_then(|file| Some(read(&beside(&at, &file.jwt?.jwks))));
            [Some(Ok(rules)), keys].into_iter().flatten().collect::<Result<Contents, String>>()
        };
        Followed::new("who may do what", read_all, move |contents| Self::new(&path, contents))
    }

    fn new(path: &Path, contents: &[Vec<u8>]) -> Result<Self, String> {
        let wrong = |what: String| format!("{}: {what}", path.display());
        let File { token, jwt, rule, quota } = parse(path, contents.first().map_or(&[], Vec::as_slice))?;
        let mut tokens = HashMap::new();
        for Token { identity, sha256, expires } in token {
            let digest = digest(&sha256)
                .ok_or_else(|| wrong(format!("sha256 of the token {identity:?} is no hash: 64 digits, 0 to f")))?;
            let expires = expires.as_ref().map(instant).transpose();
            let expires = expires.map_err(|what| wrong(format!("expires of the token {identity:?} {what}")))?;
            let identity = format!("token:{identity}").into();
            if tokens.insert(digest, (identity, expires)).is_some() {
                return Err(wrong(format!("two tokens have the hash {sha256}")));
            }
        }
        let jwts = match (jwt, contents.get(1)) {
            (Some(Jwt { jwks, issuer, audience, claim }), Some(keys)) => {
                let jwts = Jwts::new(keys, &issuer, &audience, claim);
                Some(jwts.map_err(|what| format!("{}: {what}", beside(path, &jwks).display()))?)
            }
            _ => None,
        };
        Ok(Self { tokens, jwts, rules: rule, quotas: quota })
    }

    /// Whose token this is, and until when.
    pub(super) fn bearer(&self, token: &str) -> Result<(Arc<str>, Option<SystemTime>), Denied> {
        if let Some((identity, expires)) = self.tokens.get(&hash(token.as_bytes())) {
            return Ok((Arc::clone(identity), *expires));
        }
        let (identity, until) = self.jwts.as_ref().ok_or(Denied::Unknown)?.check(token)?;
        Ok((identity, Some(until)))
    }

    /// Whether a rule is about this identity.
    pub(super) fn speaks_of(&self, identity: &str) -> bool {
        self.rules.iter().any(|rule| rule.is_about(identity))
    }

    pub(super) fn rights(&self, identity: &str) -> Rights {
        let rules = self.rules.iter().filter(|rule| rule.is_about(identity));
        let grants = rules.flat_map(|Rule { may, names, .. }| {
            names.iter().map(|name| Grant { prefix: name.clone(), verbs: may.iter().copied().collect() })
        });
        Rights(grants.collect())
    }

    pub(super) fn quota(&self, identity: &str) -> Quota {
        let first = self.quotas.iter().find(|quota| quota.who.iter().any(|who| who.fits(identity)));
        first.map_or_else(Quota::default, |quota| Quota {
            buckets: quota.buckets,
            bytes: quota.bytes,
            watches: quota.watches,
        })
    }
}

impl Rule {
    fn is_about(&self, identity: &str) -> bool {
        self.who.iter().any(|who| who.fits(identity))
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<File, String> {
    let wrong = |what: &str| format!("{}: {what}", path.display());
    let text = str::from_utf8(bytes).map_err(|_| wrong("is no text"))?;
    toml::from_str(text).map_err(|error| wrong(&at_line(text, &error)))
}

/// A path in a file is beside that file.
fn beside(file: &Path, path: &Path) -> PathBuf {
    file.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path))
}

fn digest(hex: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if hex.len() != 2 * digest.len() || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

/// A date, with a time or without; in UTC, where it has no offset.
fn instant(time: &toml::value::Datetime) -> Result<SystemTime, String> {
    let parsed = time.to_string().parse::<prost_types::Timestamp>().ok();
    parsed
        .and_then(|time| time.try_into().ok())
        .ok_or_else(|| format!("is {time}: a date is needed, with a time or without, such as 2027-01-01T00:00:00Z"))
}
