//! A map of bounded size that forgets the least recently used keys first.

use hashbrown::{DefaultHashBuilder, HashMap};
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash};

/// Parts of a map, each with its own lock.
const PARTS: usize = 64;
const PART_MASK: u64 = PARTS as u64 - 1;

/// A map with at most as many keys as it was made for. Any number of threads can use it; a use
/// locks one of its parts for some 100 ns.
#[derive(Debug)]
pub(super) struct RecentMap<K, V> {
    parts: Box<[Mutex<Part<K, V>>]>,
    /// Randomly seeded, so that nobody can choose keys of one part.
    hasher: DefaultHashBuilder,
}

impl<K: Hash + Eq + Copy, V: Copy> RecentMap<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        let half = capacity / PARTS / 2;
        Self {
            parts: (0..PARTS).map(|_| Mutex::new(Part::new(half))).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// The value of a key, which counts as a use.
    pub(super) fn get(&self, key: K) -> Option<V> {
        self.part(key).lock().get_mut(key).copied()
    }

    /// Replaces the value of a key by what `next` makes of it.
    pub(super) fn update(&self, key: K, next: impl FnOnce(Option<V>) -> V) {
        let mut part = self.part(key).lock();
        match part.get_mut(key) {
            Some(value) => *value = next(Some(*value)),
            None => part.insert(key, next(None)),
        }
    }

    fn part(&self, key: K) -> &Mutex<Part<K, V>> {
        let hash = self.hasher.hash_one(key);
        let part = usize::try_from(hash & PART_MASK).ok().and_then(|at| self.parts.get(at));
        part.expect("there is a part for every hash")
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
    }
}

/// A part of the map: the keys used last, and those used before them.
///
/// If there are too many of the former, they take the place of the latter, which are forgotten. So
/// every key that is forgotten was used before every key that is kept. This is a map with a list of
/// its uses, without the list; for it, up to half of the keys are forgotten at once.
#[derive(Debug)]
struct Part<K, V> {
    recent: HashMap<K, V>,
    older: HashMap<K, V>,
    /// Maximum keys in each of the two.
    half: usize,
}

impl<K: Hash + Eq + Copy, V> Part<K, V> {
    fn new(half: usize) -> Self {
        Self { recent: HashMap::new(), older: HashMap::new(), half }
    }

    fn get_mut(&mut self, key: K) -> Option<&mut V> {
        if let Some(value) = self.older.remove(&key) {
            self.insert(key, value);
        }
        self.recent.get_mut(&key)
    }

    /// Inserts a key that the part does not have.
    fn insert(&mut self, key: K, value: V) {
        if self.recent.len() >= self.half {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(key, value);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn the_number_of_keys_is_bounded_and_the_last_ones_are_kept() {
        let map = RecentMap::new(6400);
        for key in 0..100_000 {
            map.update(key, |_| key);
            assert_eq!(map.get(0), Some(0), "it is used all the time");
        }
        assert!((3200..=6400).contains(&map.len()), "{}", map.len());
        assert_eq!(map.get(99_999), Some(99_999));
        assert_eq!(map.get(1), None);
    }

    proptest! {
        /// What a part forgets was used before everything that it keeps.
        #[test]
        fn the_least_recently_used_keys_are_forgotten_first(keys in vec(0..12_u8, 1..80)) {
            let mut part = Part::new(4);
            let mut uses: Vec<u8> = Vec::new();
            for key in keys {
                let is_kept = uses.contains(&key) && part.get_mut(key).is_some();
                if !is_kept {
                    part.insert(key, ());
                }
                uses.retain(|used| *used != key);
                uses.push(key);
                let is_in = |key: &u8| part.recent.contains_key(key) || part.older.contains_key(key);
                let kept: Vec<bool> = uses.iter().map(is_in).collect();
                prop_assert!(kept.is_sorted(), "{uses:?} {kept:?}");
                prop_assert!(part.len() <= 8);
                prop_assert!(kept.iter().rev().take(4).all(|is_kept| *is_kept), "{uses:?} {kept:?}");
            }
        }
    }
}
