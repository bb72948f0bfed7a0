//! The names of the living, for readers: finds a bucket without asking the registrar. What ETS is to Elixir's Registry.

use std::{borrow::Borrow, cmp::Ordering, hash::BuildHasher as _};

use hashbrown::HashTable;

use crate::{
    bucket::Bucket,
    name::BucketId,
    process::Process,
    sync::{RandomState, RwLock},
};

/// Locks that readers and the registrar share; more than there are cores.
const SHARDS: usize = 64;

/// A concurrent map from name to bucket. Only the registrar writes.
///
/// Names come from clients, so the hash is keyed: nobody can choose names that collide.
pub(super) struct Index {
    shards: Box<[RwLock<HashTable<Process<Bucket>>>]>,
    hasher: RandomState,
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), hasher: RandomState::new() }
    }
}

impl Index {
    fn shard(&self, hash: u64) -> &RwLock<HashTable<Process<Bucket>>> {
        // The table uses the low bits and the highest seven.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    /// The bucket of this name, which may have died a moment ago.
    pub(super) fn get(&self, name: &str) -> Option<Process<Bucket>> {
        let hash = self.hash(name);
        self.shard(hash).read().find(hash, |bucket| &*bucket.identity().name == name).cloned()
    }

    /// Adds a bucket whose name is free.
    pub(super) fn insert(&self, bucket: Process<Bucket>) {
        let hash = self.hash(&bucket.identity().name);
        self.shard(hash).write().insert_unique(hash, bucket, |bucket| self.hash(&bucket.identity().name));
    }

    /// Removes this very incarnation; whether it was there.
    pub(super) fn remove(&self, name: &str, id: BucketId) -> bool {
        let hash = self.hash(name);
        let mut shard = self.shard(hash).write();
        match shard.find_entry(hash, |bucket| bucket.identity().id == id) {
            Ok(entry) => {
                let (bucket, _) = entry.remove();
                drop(shard);
                drop(bucket);
                true
            }
            Err(_) => false,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Every bucket, in no order.
    pub(super) fn all(&self) -> Vec<Process<Bucket>> {
        self.shards.iter().flat_map(|shard| shard.read().iter().cloned().collect::<Vec<_>>()).collect()
    }
}

/// A bucket in the order of names.
#[derive(Clone)]
pub(super) struct ByName(pub(super) Process<Bucket>);

impl ByName {
    pub(super) fn name(&self) -> &str {
        &self.0.identity().name
    }
}

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.name()
    }
}

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for ByName {}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}
