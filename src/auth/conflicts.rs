//! Finds the keys of an index that users of several organizations have.

use crate::auth::callers::user_of_postings;
use crate::mirror::document::IdString;
use crate::mirror::index::key::IndexKey;
use crate::mirror::index::sharded::ShardedIndex;
use std::collections::HashSet;
use std::hash::Hash;

/// The keys in conflict, as of the last load or set of changes.
#[derive(Debug)]
pub(super) struct Conflicts<K> {
    found: HashSet<K>,
    /// Keys that may have come into conflict by the last load or set of changes.
    suspects: Vec<K>,
}

impl<K> Default for Conflicts<K> {
    fn default() -> Self {
        Self { found: HashSet::new(), suspects: Vec::new() }
    }
}

impl<K: AsRef<[u8]> + Eq + Hash> Conflicts<K> {
    /// Suspects these keys until the next [`Self::update`].
    pub(super) fn suspect(&mut self, keys: impl IntoIterator<Item = K>) {
        self.suspects.extend(keys);
    }

    /// Suspects every key of an index that several users have.
    pub(super) fn suspect_shared(
        &mut self,
        index: &ShardedIndex,
        key: impl Fn(&[u8]) -> Option<K>,
    ) {
        index.for_each(|shared, users| {
            if users.len() > 1 {
                self.suspects.extend(key(shared.first()));
            }
        });
    }

    /// Checks the suspects and the earlier conflicts. Returns whether there are more than before.
    pub(super) fn update(&mut self, index: &ShardedIndex) -> bool {
        let before = self.found.len();
        self.found.extend(self.suspects.drain(..));
        self.found.retain(|key| {
            index.read(IndexKey::new(key), |users| {
                users.is_some_and(|users| user_of_postings(users).is_none())
            })
        });
        self.found.len() > before
    }

    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// The ids of the users in conflict, sorted.
    pub(super) fn users(&self, index: &ShardedIndex) -> Vec<String> {
        let mut ids = Vec::new();
        for key in &self.found {
            index.read(IndexKey::new(key), |users| {
                let users = users.into_iter().flatten();
                let users = users.filter_map(|user| IdString::from_key(user.document));
                ids.extend(users.map(|id| id.as_str().to_owned()));
            });
        }
        ids.sort();
        ids.dedup();
        ids
    }
}
