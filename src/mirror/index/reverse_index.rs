//! The keys that each document is filed under. They make edits and removals exact.

use crate::mirror::index::sharded::Hash;
use hashbrown::HashTable;

/// By the hash of a document: the hashes of the keys it has postings under. Documents with the same
/// hash share an entry, which may then hold a hash twice.
#[derive(Debug, Default)]
pub(in crate::mirror) struct ReverseIndex(HashTable<(Hash, Hashes)>);

#[derive(Debug)]
enum Hashes {
    One(Hash),
    /// Sorted. Boxed twice, so that `Hashes` has the size of a hash and a word.
    #[expect(clippy::box_collection, reason = "a boxed slice is two words")]
    Many(Box<Vec<Hash>>),
}

impl ReverseIndex {
    /// The number of entries.
    pub(in crate::mirror) fn len(&self) -> usize {
        self.0.len()
    }

    pub(in crate::mirror) fn reserve(&mut self, documents: usize) {
        self.0.reserve(documents, |(hash, _)| hash.0);
    }

    pub(in crate::mirror) fn contains(&self, document: Hash) -> bool {
        self.0.find(document.0, |(hash, _)| *hash == document).is_some()
    }

    /// Removes an entry and returns its hashes, sorted. Some may belong to other documents with the
    /// same hash.
    pub(in crate::mirror) fn remove(&mut self, document: Hash) -> Vec<Hash> {
        match self.0.find_entry(document.0, |(hash, _)| *hash == document) {
            Err(_) => Vec::new(),
            Ok(entry) => match entry.remove().0.1 {
                Hashes::One(hash) => vec![hash],
                Hashes::Many(hashes) => *hashes,
            },
        }
    }

    /// Adds the hashes of a document, and those of other documents with the same hash. There must
    /// be no entry for it.
    pub(in crate::mirror) fn add(
        &mut self,
        document: Hash,
        mut hashes: Vec<Hash>,
        others: Vec<Hash>,
    ) {
        hashes.sort_unstable();
        hashes.dedup();
        hashes.extend(others);
        hashes.sort_unstable();
        let hashes = match hashes.as_slice() {
            [] => return,
            [one] => Hashes::One(*one),
            _ => {
                hashes.shrink_to_fit();
                Hashes::Many(Box::new(hashes))
            }
        };
        self.0.insert_unique(document.0, (document, hashes), |(hash, _)| hash.0);
    }
}
