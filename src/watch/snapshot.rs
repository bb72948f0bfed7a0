//! What was there as a watch began, while it is being told: how far it has come, and what death takes out of it.

use std::sync::Arc;

use super::{entries::Telling, scope::Page};
use crate::{bucket::ring::Change, registry::Event};

/// What was there, while it is being told.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) of: SnapshotOf,
    /// Buckets up to this name have been told; none at first.
    pub(super) after: Option<Arc<str>>,
    /// The next ones, if they were read.
    pub(super) page: Option<Page>,
    /// The one whose entries are being told.
    pub(super) telling: Option<Telling>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SnapshotOf {
    /// Buckets, and their entries where they are wanted.
    Buckets,
    /// Only entries: of the buckets the client knows.
    Entries,
}

impl Snapshot {
    pub(super) fn new(of: SnapshotOf) -> Self {
        Self { of, after: None, page: None, telling: None }
    }

    /// The bucket whose entries are being told has been told of.
    pub(super) fn told_one(&mut self) {
        if let Some(telling) = self.telling.take() {
            self.after = Some(Arc::clone(telling.name()));
        }
    }

    /// Whether a change comes on top of what was told.
    pub(super) fn has_told(&self, change: &Change) -> bool {
        match &self.telling {
            Some(telling) if telling.id() == change.id => telling.has_told(&change.key),
            _ => self.after.as_ref().is_some_and(|after| change.name <= *after),
        }
    }

    /// A bucket of the snapshot is dead: it is not to be told of any more. Whether it has to be said that it was there.
    pub(super) fn strike(&mut self, death: &Event) -> bool {
        if self.telling.as_ref().is_some_and(|telling| telling.id() == death.id()) {
            self.told_one();
            return false;
        }
        if let Some(page) = &mut self.page {
            page.buckets.retain(|bucket| bucket.identity().id != death.id());
        }
        self.of == SnapshotOf::Buckets && self.after.as_ref().is_none_or(|after| death.name > *after)
    }
}
