//! The times to live of one bucket: its own, and those of its entries that have one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    name::BucketId,
    time_to_live::{Due, Ttl},
};

/// Only there in a bucket that needs it.
#[derive(Debug)]
pub(super) struct Times {
    by_key: BTreeMap<Arc<str>, Due>,
    by_due: BTreeSet<(Due, Arc<str>)>,
    /// When the bucket falls due, used or not.
    pub(super) life: Due,
    /// How long it lives unused.
    pub(super) idle_ttl: Option<Ttl>,
    /// When it falls due unless it is used; never while it is held.
    pub(super) idle: Due,
    /// How many hold it, by a link.
    pub(super) holders: usize,
    /// The alarm that is set; never later than what is due first.
    pub(super) alarm: Due,
    /// Under which id; known once there was one.
    pub(super) alarm_id: Option<BucketId>,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_due: BTreeSet::new(),
            life: Due::NEVER,
            idle_ttl: None,
            idle: Due::NEVER,
            holders: 0,
            alarm: Due::NEVER,
            alarm_id: None,
        }
    }
}

impl Times {
    /// When the bucket itself falls due.
    pub(super) fn bucket(&self) -> Due {
        self.life.min(self.idle)
    }

    /// When the first thing falls due, be it an entry or the bucket.
    pub(super) fn first(&self) -> Due {
        self.by_due.first().map_or(Due::NEVER, |(due, _)| *due).min(self.bucket())
    }

    /// When an entry falls due.
    pub(super) fn entry(&self, key: &str) -> Due {
        self.by_key.get(key).copied().unwrap_or(Due::NEVER)
    }

    /// Sets when an entry falls due.
    pub(super) fn set(&mut self, key: &str, due: Due) {
        if let Some((key, old)) = self.by_key.remove_entry(key) {
            self.by_due.remove(&(old, key));
        }
        if due != Due::NEVER {
            let key: Arc<str> = key.into();
            self.by_key.insert(Arc::clone(&key), due);
            self.by_due.insert((due, key));
        }
    }

    /// An entry that is due by `now`.
    pub(super) fn expired(&self, now: Due) -> Option<Arc<str>> {
        self.by_due.first().filter(|(due, _)| *due <= now).map(|(_, key)| Arc::clone(key))
    }
}
