//! What an identity may do.

use std::ops::BitOr;

use serde::Deserialize;

/// What one may do with buckets.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Look a bucket up, find it in a List, and read its entries.
    Read,
    /// Change its entries.
    Write,
    /// Create it, stop it, set its time to live, and tie one's life to it.
    Lifecycle,
    /// Hear of its creation and its end; with [`Verb::Read`], of its entries too.
    Watch,
    /// All of that, and to know who has stopped it.
    Admin,
}

impl Verb {
    /// Its name in the file of rules.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Lifecycle => "lifecycle",
            Self::Watch => "watch",
            Self::Admin => "admin",
        }
    }
}

/// A set of [`Verb`]s.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Verbs(u8);

impl From<Verb> for Verbs {
    fn from(verb: Verb) -> Self {
        Self(match verb {
            Verb::Read => 0b1,
            Verb::Write => 0b10,
            Verb::Lifecycle => 0b100,
            Verb::Watch => 0b1000,
            Verb::Admin => 0b1_1111,
        })
    }
}

impl BitOr for Verbs {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for Verb {
    type Output = Verbs;

    fn bitor(self, other: Self) -> Verbs {
        Verbs::from(self) | Verbs::from(other)
    }
}

impl FromIterator<Verb> for Verbs {
    fn from_iter<I: IntoIterator<Item = Verb>>(verbs: I) -> Self {
        verbs.into_iter().fold(Self::default(), |all, verb| all | verb.into())
    }
}

impl Verbs {
    fn include(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The verb where it is one, and those of which it is made otherwise.
    #[must_use]
    pub fn names(self) -> String {
        let all = [Verb::Admin, Verb::Read, Verb::Write, Verb::Lifecycle, Verb::Watch];
        let exact = all.into_iter().find(|verb| Self::from(*verb) == self);
        let parts = all.into_iter().skip(1).filter(|verb| self.include((*verb).into()));
        exact.map_or_else(|| parts.map(Verb::name).collect::<Vec<_>>().join(" and "), |verb| verb.name().to_owned())
    }
}

/// How much of the server an identity may have; `None` is as much as all together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Quota {
    /// Living buckets that it has created.
    pub buckets: Option<usize>,
    /// Bytes that those are charged for.
    pub bytes: Option<usize>,
    /// Watch and Link streams that it has open.
    pub watches: Option<usize>,
}

/// What an identity may do with names that begin with this.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Grant {
    pub(super) prefix: Box<str>,
    pub(super) verbs: Verbs,
}

/// All that an identity may do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Rights(pub(super) Vec<Grant>);

impl Rights {
    /// Whether it may do all of this with this name; or, which is the same, with all names that begin with it.
    pub(super) fn may(&self, verbs: Verbs, name: &str) -> bool {
        let granted = self.0.iter().filter(|grant| name.starts_with(&*grant.prefix));
        granted.fold(Verbs::default(), |all, grant| all | grant.verbs).include(verbs)
    }

    /// The prefixes within this one of names that it may do all of this with, in order, and none within another.
    pub(super) fn scopes(&self, verbs: Verbs, within: &str) -> Vec<Box<str>> {
        let narrower = self.0.iter().filter(|grant| grant.prefix.starts_with(within)).map(|grant| &*grant.prefix);
        let mut scopes: Vec<&str> = narrower.chain([within]).filter(|prefix| self.may(verbs, prefix)).collect();
        scopes.sort_unstable();
        // One that begins with another comes right after it, or after others that do.
        scopes.dedup_by(|next, before| next.starts_with(&**before));
        scopes.into_iter().map(Box::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(grants: &[(&str, &[Verb])]) -> Rights {
        let grant = |(prefix, verbs): &(&str, &[Verb])| Grant {
            prefix: (*prefix).into(),
            verbs: verbs.iter().copied().collect(),
        };
        Rights(grants.iter().map(grant).collect())
    }

    #[test]
    fn verbs_add_up_over_grants_and_admin_is_all() {
        let rights = rights(&[("a/", &[Verb::Read]), ("a/b/", &[Verb::Watch]), ("z", &[Verb::Admin])]);
        assert!(rights.may(Verb::Read.into(), "a/x") && !rights.may(Verb::Watch.into(), "a/x"));
        assert!(rights.may(Verb::Read | Verb::Watch, "a/b/x"));
        assert!(!rights.may(Verb::Read.into(), "a") && !rights.may(Verb::Read.into(), "b/a/"));
        assert!(rights.may(Verb::Write | Verb::Lifecycle, "z") && !rights.may(Verb::Admin.into(), "a/"));
    }

    #[test]
    fn scopes_are_what_is_granted_of_what_is_asked_for() {
        let rights =
            rights(&[("b/", &[Verb::Read]), ("a/", &[Verb::Read]), ("a/x", &[Verb::Watch]), ("c", &[Verb::Write])]);
        let scopes = |verbs: Verbs, within| rights.scopes(verbs, within).join(" ");
        assert_eq!(scopes(Verb::Read.into(), ""), "a/ b/");
        assert_eq!(scopes(Verb::Read.into(), "a/xy"), "a/xy");
        assert_eq!(scopes(Verb::Read | Verb::Watch, ""), "a/x");
        assert_eq!(scopes(Verb::Watch.into(), "a"), "a/x");
        assert_eq!(scopes(Verb::Read.into(), "c"), "");
    }

    #[test]
    fn a_set_says_what_it_is() {
        assert_eq!(Verbs::from(Verb::Admin).names(), "admin");
        assert_eq!((Verb::Watch | Verb::Read).names(), "read and watch");
    }
}
