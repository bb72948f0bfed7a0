//! What a bucket and its entries cost in memory: what their charges are.
//!
//! An estimate from the outside of what the allocator does, within 0.8 to 1.25 of the truth (`tests/memory.rs` measures it):
//! the slot or node of each thing, and a block for each text.

use super::Value;

/// A bucket without entries, besides its name: the process, its place in two indexes, its monitor.
const BUCKET_BYTES: usize = 288;

/// The first entries of a map share one node; it is there with the first of them.
const NODE_BYTES: usize = 560;

/// How many entries fit in that node.
const NODE_ENTRIES: usize = 11;

/// What more entries take: nodes of which more than half is used, and a tree above them.
const TREE_BYTES: usize = 656;
const TREE_ENTRY_BYTES: usize = 93;

/// An allocation of so many bytes: a header, and rounded up.
const fn block(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=24 => 32,
        _ => (bytes + 8).next_multiple_of(16),
    }
}

/// A bucket of this name without entries.
#[must_use]
pub const fn bucket(name: &str) -> usize {
    BUCKET_BYTES + block(name.len() + 16)
}

/// A map of so many entries, besides what they hold.
pub(super) const fn map(entries: usize) -> usize {
    match entries {
        0 => 0,
        1..=NODE_ENTRIES => NODE_BYTES,
        _ => TREE_BYTES + entries * TREE_ENTRY_BYTES,
    }
}

/// A key.
pub(super) const fn key(key: &str) -> usize {
    block(key.len())
}

/// A value, besides its place in the map.
pub(super) const fn value(value: &Value) -> usize {
    block(value.heap_bytes())
}

/// A time to live of an entry: its place in the order of due times and in that of keys, which share the key.
pub(super) const fn due(key: &str) -> usize {
    block(key.len() + 16) + 96
}
