//! A map from keys to postings that is read while it changes.
//!
//! The map consists of immutable [shards](crate::mirror::index::shard) that are swapped one by one.
//! A change rewrites one shard, a few kilobytes, and a reader finds the shard before or after the
//! change. Readers never wait, allocate or write to shared memory. Among a million keys, most of
//! the time of a lookup is spent waiting for memory that is not cached, so a shard is laid out to
//! need few cache lines.

use crate::mirror::freshness::{Freshness, StaleIndex};
use crate::mirror::index::key::IndexKey;
use crate::mirror::index::shard::{Postings, Shard, ShardBuilder, ShardData};
use arc_swap::ArcSwapAny;
use hashbrown::DefaultHashBuilder;
use std::cell::Cell;
use std::hash::BuildHasher;

/// How keys are spread over the shards of an index.
#[derive(Debug, Clone, Copy)]
pub struct ShardLayout {
    /// The number of shards, a power of two.
    shards: usize,
    /// The number of parts of a load, a power of two and at most the number of shards.
    pub(in crate::mirror) load_parts: usize,
    /// The bits of a hash that are used.
    hash_mask: u64,
}

impl Default for ShardLayout {
    fn default() -> Self {
        // With a million keys a shard has about sixty.
        Self { shards: 1 << 14, load_parts: 256, hash_mask: u64::MAX }
    }
}

#[cfg(test)]
impl ShardLayout {
    /// Four shards and eight distinct hashes, so that most keys and documents of a test collide.
    pub(crate) const COLLIDING: Self =
        Self { shards: 4, load_parts: 2, hash_mask: (1 << 48) | 0b11 };
}

/// A map from keys to postings.
#[derive(Debug)]
pub struct ShardedIndex {
    shards: Box<[ArcSwapAny<ShardData>]>,
    hasher: DefaultHashBuilder,
    pub(in crate::mirror) layout: ShardLayout,
}

impl Default for ShardedIndex {
    fn default() -> Self {
        Self::new(ShardLayout::default())
    }
}

impl ShardedIndex {
    pub fn new(layout: ShardLayout) -> Self {
        Self::with_hasher(layout, DefaultHashBuilder::default())
    }

    fn with_hasher(layout: ShardLayout, hasher: DefaultHashBuilder) -> Self {
        let empty = ShardBuilder::default().finish();
        let shards = (0..layout.shards).map(|_| ArcSwapAny::new(empty.clone())).collect();
        Self { shards, hasher, layout }
    }

    /// An empty index in which every key has the same hash and shard as in this one.
    pub(in crate::mirror) fn empty_like(&self) -> Self {
        Self::with_hasher(self.layout, self.hasher.clone())
    }

    /// Reads the postings of a key. `read` must be short, because the shard stays in memory while
    /// it runs.
    pub fn read<R>(&self, key: IndexKey<'_>, read: impl FnOnce(Option<Postings<'_>>) -> R) -> R {
        let hash = self.hash(&key);
        let stored = self.shard_of(hash).load();
        read(Shard::new(&stored).find(hash.tag(), key))
    }

    /// Calls `read` with the postings of a key, or `None` on a miss. Returns [`StaleIndex`] if the
    /// mirror cannot confirm the miss.
    ///
    /// The shard may be replaced between the lookup and the freshness check. So a miss is
    /// looked up again after the check.
    pub fn lookup<R>(
        &self,
        key: IndexKey<'_>,
        freshness: &Freshness,
        read: impl FnOnce(Option<Postings<'_>>) -> R,
    ) -> Result<R, StaleIndex> {
        let could_confirm_miss = Cell::new(false);
        self.read_twice(
            key,
            || could_confirm_miss.set(freshness.can_confirm_miss()),
            |found| match found {
                None if !could_confirm_miss.get() || freshness.may_be_inconsistent() => {
                    Err(StaleIndex)
                }
                found => Ok(read(found)),
            },
        )
    }

    /// Reads the postings of a key. After a miss, calls `between` and looks the key up again.
    fn read_twice<R>(
        &self,
        key: IndexKey<'_>,
        between: impl FnOnce(),
        read: impl FnOnce(Option<Postings<'_>>) -> R,
    ) -> R {
        let hash = self.hash(&key);
        let shard = self.shard_of(hash);
        let before = shard.load();
        if let Some(found) = Shard::new(&before).find(hash.tag(), key) {
            return read(Some(found));
        }
        between();
        let after = shard.load();
        if before.as_ptr() == after.as_ptr() {
            return read(None);
        }
        read(Shard::new(&after).find(hash.tag(), key))
    }

    /// Calls `visit` with every key and its postings.
    pub fn for_each(&self, mut visit: impl FnMut(IndexKey<'_>, Postings<'_>)) {
        for shard in &self.shards {
            for group in Shard::new(&shard.load()).groups() {
                visit(group.key, group.postings);
            }
        }
    }

    #[inline]
    pub(in crate::mirror) fn hash(&self, value: &(impl std::hash::Hash + ?Sized)) -> Hash {
        Hash(self.hasher.hash_one(value) & self.layout.hash_mask)
    }

    /// The number of the shard that a hash belongs to: its lowest bits.
    #[inline]
    pub(in crate::mirror) fn shard_number(&self, hash: Hash) -> usize {
        let mask = self.shards.len() - 1;
        usize::try_from(hash.0 & mask as u64).expect("a shard number fits in usize")
    }

    /// A sort key: by shard, then by tag.
    pub(in crate::mirror) fn shard_order(&self, hash: Hash) -> (usize, u16) {
        (self.shard_number(hash), hash.tag())
    }

    pub(in crate::mirror) fn shards(&self) -> impl Iterator<Item = &ArcSwapAny<ShardData>> {
        self.shards.iter()
    }

    #[inline]
    pub(in crate::mirror) fn shard_of(&self, hash: Hash) -> &ArcSwapAny<ShardData> {
        self.shards.get(self.shard_number(hash)).expect("every hash has a shard")
    }
}

/// The hash of a key or a document. Different keys or documents may have the same hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::mirror) struct Hash(pub(in crate::mirror) u64);

impl Hash {
    /// The highest bits. They order the keys of a shard.
    #[inline]
    pub(in crate::mirror) fn tag(self) -> u16 {
        let [high, low, ..] = self.0.to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::index::writer::{ChangeSet, Entry, Writer};
    use std::sync::Arc;

    /// A sender that chooses ids cannot make them collide.
    #[test]
    fn each_index_has_its_own_hasher() {
        let hashes = |index: &ShardedIndex| {
            let keys = (0..64).map(|serial| format!("wh_{serial}"));
            keys.map(|key| index.hasher.hash_one(key.as_bytes())).collect::<Vec<u64>>()
        };
        let (one, other) = (ShardedIndex::default(), ShardedIndex::default());
        assert_ne!(hashes(&one), hashes(&other));
        assert_eq!(hashes(&one), hashes(&one.empty_like()));
    }

    #[test]
    fn a_key_added_between_two_look_ups_is_found_by_the_second() {
        let index = Arc::<ShardedIndex>::default();
        let mut writer = Writer::new(Arc::clone(&index));
        let mut upsert = |key: IndexKey<'_>| {
            let mut changes = ChangeSet::default();
            let entries = vec![Entry { key: key.to_bytes(), data: b"data".to_vec() }];
            changes.upsert(b"document", entries);
            writer.apply(changes);
        };
        let key = IndexKey::new("key");
        let is_found = |found: Option<Postings<'_>>| found.is_some();
        assert!(!index.read_twice(key, || {}, is_found));
        assert!(!index.read_twice(key, || upsert(IndexKey::new("another")), is_found));
        assert!(index.read_twice(key, || upsert(key), is_found));
        assert!(index.read_twice(key, || panic!("found by the first lookup"), is_found));
    }
}
