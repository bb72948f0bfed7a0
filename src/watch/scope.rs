//! Whom a watch of the log is about, and what is there of it, a page at a time.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

use smallvec::smallvec;

use super::{
    entries::{Moment, Reader},
    outbox::Refs,
};
use crate::{
    bucket::{Bucket, ring::Scope as RingScope},
    limits::SNAPSHOT_PAGE_NAMES,
    process::Process,
    registry::{Error, Registry},
};

/// Whom it is about.
#[derive(Debug)]
pub(super) enum Scope {
    Prefix {
        /// What they have in common.
        common: Arc<str>,
        /// One of these is what each begins with; none where that is `common` itself.
        among: Box<[Box<str>]>,
    },
    Names {
        /// The refs of each name.
        refs: BTreeMap<Arc<str>, Refs>,
        /// Names of which something was told before their page came.
        mentioned: HashSet<Arc<str>>,
    },
}

/// A part of what is there, in the order of names.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) buckets: VecDeque<Process<Bucket>>,
    /// Names that were asked for and are not there.
    pub(super) absent: Vec<Arc<str>>,
    /// The last name that the page is about.
    pub(super) last: Option<Arc<str>>,
    pub(super) more: bool,
    /// What happened before this comes before it.
    pub(super) before: Moment,
}

impl Scope {
    /// Names that begin with one of these.
    pub(super) fn prefixes(prefixes: &[impl AsRef<str>]) -> Self {
        let mut prefixes = prefixes.iter().map(AsRef::as_ref);
        let (first, others) = (prefixes.next().unwrap_or_default(), prefixes.clone());
        let common = others.fold(first, common_prefix);
        let all = std::iter::once(first).chain(prefixes);
        let among =
            if all.clone().all(|prefix| prefix == common) { Box::default() } else { all.map(Box::from).collect() };
        Self::Prefix { common: common.into(), among }
    }

    /// Whether it is about this name, where it is about what names begin with.
    fn begins(common: &str, among: &[Box<str>], name: &str) -> bool {
        name.starts_with(common) && (among.is_empty() || among.iter().any(|prefix| name.starts_with(&**prefix)))
    }

    /// The same, as the ring wants it.
    pub(super) fn of_ring(&self) -> RingScope {
        match self {
            Self::Prefix { common, .. } => RingScope::Prefix(Arc::clone(common)),
            Self::Names { refs, .. } => RingScope::Names(refs.keys().cloned().collect()),
        }
    }

    /// For whom an event of this name is: nobody, or one for each ref.
    pub(super) fn refs(&self, name: &str) -> Refs {
        match self {
            Self::Prefix { common, among } if Self::begins(common, among, name) => smallvec![None],
            Self::Prefix { .. } => Refs::new(),
            Self::Names { refs, .. } => refs.get(name).cloned().unwrap_or_default(),
        }
    }

    pub(super) fn is_mentioned(&self, name: &str) -> bool {
        matches!(self, Self::Names { mentioned, .. } if mentioned.contains(name))
    }

    /// Reads the next page of what is there.
    pub(super) fn page(
        &self,
        registry: &Registry,
        after: Option<&Arc<str>>,
        reader: Option<&Reader>,
    ) -> Result<Page, Error> {
        match self {
            Self::Prefix { common, among } => {
                let mut page = registry.snapshot(common, after.map(|after| &**after), SNAPSHOT_PAGE_NAMES)?;
                let last = page.buckets.last().map(|last| Arc::clone(&last.identity().name));
                page.buckets.retain(|bucket| Self::begins(common, among, &bucket.identity().name));
                Ok(Page {
                    buckets: page.buckets.into(),
                    absent: Vec::new(),
                    last,
                    more: page.more,
                    before: Moment::now(page.revision, reader),
                })
            }
            Self::Names { refs, .. } => {
                let after = after.map_or(Bound::Unbounded, |after| Bound::Excluded(Arc::clone(after)));
                let mut names = refs.range((after, Bound::Unbounded)).map(|(name, _)| Arc::clone(name));
                let batch: Vec<Arc<str>> = names.by_ref().take(SNAPSHOT_PAGE_NAMES).collect();
                let more = names.next().is_some();
                let (living, revision) = registry.living(&batch)?;
                let gone = batch.iter().zip(&living).filter(|(_, bucket)| bucket.is_none());
                let absent = gone.map(|(name, _)| Arc::clone(name)).collect();
                let last = batch.last().cloned();
                let before = Moment::now(revision, reader);
                Ok(Page { buckets: living.into_iter().flatten().collect(), absent, last, more, before })
            }
        }
    }
}

/// What two texts begin with.
fn common_prefix<'a>(one: &'a str, other: &str) -> &'a str {
    let same = one.chars().zip(other.chars()).take_while(|(one, other)| one == other);
    &one[..same.map(|(char, _)| char.len_utf8()).sum()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_of_many_prefixes_is_about_those_and_reads_what_they_have_in_common() {
        let of = |prefixes: &[&str]| {
            let scope = Scope::prefixes(prefixes);
            let names = ["", "te", "team-a/1", "team-b/1", "team-c/1", "t\u{e9}am"];
            let about = names.into_iter().filter(|name| !scope.refs(name).is_empty()).collect::<Vec<_>>();
            let Scope::Prefix { common, .. } = scope else { panic!("of prefixes") };
            (common.to_string(), about.join(" "))
        };
        assert_eq!(of(&["team-a/", "team-b/"]), ("team-".to_owned(), "team-a/1 team-b/1".to_owned()));
        assert_eq!(of(&["team-a/", "t\u{e9}"]), ("t".to_owned(), "team-a/1 t\u{e9}am".to_owned()));
        assert_eq!(of(&["team"]), ("team".to_owned(), "team-a/1 team-b/1 team-c/1".to_owned()));
    }
}
