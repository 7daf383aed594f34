//! What is found under a key, for reading while it changes.
//!
//! A map from keys to what documents have there, in shards that are swapped one by one: a change costs one shard, a
//! few kilobytes, and a reader finds the shard before it or the one behind it. Readers neither wait nor allocate nor
//! write to memory that others use. A shard is one piece of memory ([`super::shard`]): what a look-up costs among a
//! million keys is mostly waiting for memory that is not at hand.

use super::key::Key;
use super::shard::{Postings, Shard, ShardBuilder, Stored};
use super::{Freshness, NotKnown};
use arc_swap::ArcSwapAny;
use hashbrown::DefaultHashBuilder;
use std::cell::Cell;
use std::hash::BuildHasher;

/// With a million keys a shard has some sixty. Few in tests, so that keys meet.
pub(super) const SHARDS: usize = if cfg!(test) { 4 } else { 1 << 14 };

/// A map from keys to postings.
#[derive(Debug)]
pub struct Sharded {
    shards: Box<[ArcSwapAny<Stored>]>,
    hasher: DefaultHashBuilder,
}

impl Default for Sharded {
    fn default() -> Self {
        Self::empty(DefaultHashBuilder::default())
    }
}

impl Sharded {
    fn empty(hasher: DefaultHashBuilder) -> Self {
        let empty = ShardBuilder::default().finish();
        let shards = (0..SHARDS).map(|_| ArcSwapAny::new(empty.clone())).collect();
        Self { shards, hasher }
    }

    /// One in which everything has its place as in this one.
    pub(super) fn empty_beside(&self) -> Self {
        Self::empty(self.hasher.clone())
    }

    /// Reads what is under a key. To be done with quickly: what is read stays in memory meanwhile.
    pub fn read<R>(&self, key: Key<'_>, read: impl FnOnce(Option<Postings<'_>>) -> R) -> R {
        let hash = self.hash(&key);
        let stored = self.at(hash.shard()).load();
        read(Shard::of(&stored).find(hash.tag(), key))
    }

    /// Reads what is under a key, or that there is nothing, if the mirror can deny it. What was looked into first may have
    /// been replaced before it was asked how current it is: so once more behind that, if it has.
    pub fn look<R>(
        &self,
        key: Key<'_>,
        freshness: &Freshness,
        read: impl FnOnce(Option<Postings<'_>>) -> R,
    ) -> Result<R, NotKnown> {
        let could_deny = Cell::new(false);
        self.read_twice(
            key,
            || could_deny.set(freshness.can_deny()),
            |found| match found {
                None if !could_deny.get() || freshness.may_be_torn() => Err(NotKnown),
                found => Ok(read(found)),
            },
        )
    }

    /// Reads what is under a key; where nothing is, once more behind `between`.
    fn read_twice<R>(
        &self,
        key: Key<'_>,
        between: impl FnOnce(),
        read: impl FnOnce(Option<Postings<'_>>) -> R,
    ) -> R {
        let hash = self.hash(&key);
        let shard = self.at(hash.shard());
        let before = shard.load();
        if let Some(found) = Shard::of(&before).find(hash.tag(), key) {
            return read(Some(found));
        }
        between();
        let behind = shard.load();
        if before.as_ptr() == behind.as_ptr() {
            return read(None);
        }
        read(Shard::of(&behind).find(hash.tag(), key))
    }

    /// Shows every key with what is under it.
    pub fn for_each(&self, mut see: impl FnMut(Key<'_>, Postings<'_>)) {
        for shard in &self.shards {
            for group in Shard::of(&shard.load()).groups() {
                see(group.key, group.postings);
            }
        }
    }

    #[inline]
    pub(super) fn hash(&self, of: &(impl std::hash::Hash + ?Sized)) -> Hash {
        let hash = self.hasher.hash_one(of);
        // In tests there are eight, so that what must be told apart has the same.
        Hash(if cfg!(test) { hash & (1 << 48 | 3) } else { hash })
    }

    #[inline]
    pub(super) fn at(&self, shard: usize) -> &ArcSwapAny<Stored> {
        self.shards.get(shard).expect("there is a shard for every hash")
    }
}

/// Of a key or a document. Different ones may have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hash(pub(super) u64);

impl Hash {
    /// The lowest bits choose the shard.
    #[inline]
    pub(super) fn shard(self) -> usize {
        usize::try_from(self.0 % SHARDS as u64).expect("there are not so many shards")
    }

    /// The highest bits, by which keys stand in their shard.
    #[inline]
    pub(super) fn tag(self) -> u16 {
        let [high, low, ..] = self.0.to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::writer::{Changes, Entry, Writer};
    use std::sync::Arc;

    /// Who chooses ids cannot choose them so that they all fall together.
    #[test]
    fn no_two_maps_hash_alike() {
        let hashes = |map: &Sharded| {
            let keys = (0..64).map(|serial| format!("wh_{serial}"));
            keys.map(|key| map.hasher.hash_one(key.as_bytes())).collect::<Vec<u64>>()
        };
        let (one, other) = (Sharded::default(), Sharded::default());
        assert_ne!(hashes(&one), hashes(&other));
        assert_eq!(hashes(&one), hashes(&one.empty_beside()));
    }

    #[test]
    fn what_is_put_between_two_looks_is_found_by_the_second() {
        let map = Arc::<Sharded>::default();
        let mut writer = Writer::new(Arc::clone(&map));
        let mut put = |key: Key<'_>| {
            let mut changes = Changes::default();
            let entries = vec![Entry { key: key.to_bytes(), data: b"data".to_vec() }];
            changes.put(b"document", entries);
            writer.apply(changes);
        };
        let key = Key::of("key");
        let is_found = |found: Option<Postings<'_>>| found.is_some();
        assert!(!map.read_twice(key, || {}, is_found));
        assert!(!map.read_twice(key, || put(Key::of("another")), is_found));
        assert!(map.read_twice(key, || put(key), is_found));
        assert!(map.read_twice(key, || panic!("it is there at once"), is_found));
    }
}
