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
    Prefix(Arc<str>),
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
    /// The same, as the ring wants it.
    pub(super) fn of_ring(&self) -> RingScope {
        match self {
            Self::Prefix(prefix) => RingScope::Prefix(Arc::clone(prefix)),
            Self::Names { refs, .. } => RingScope::Names(refs.keys().cloned().collect()),
        }
    }

    /// For whom an event of this name is: nobody, or one for each ref.
    pub(super) fn refs(&self, name: &str) -> Refs {
        match self {
            Self::Prefix(prefix) if name.starts_with(&**prefix) => smallvec![None],
            Self::Prefix(_) => Refs::new(),
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
            Self::Prefix(prefix) => {
                let page = registry.snapshot(prefix, after.map(|after| &**after), SNAPSHOT_PAGE_NAMES)?;
                let last = page.buckets.last().map(|last| Arc::clone(&last.identity().name));
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
