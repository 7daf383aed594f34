//! Which keys each document is under: what makes edits and removals exact.

use super::sharded::Hash;
use hashbrown::HashTable;

/// Under the keys of which hashes each document has something, by the hash of the document. Two documents with the
/// same hash share their entry, in which a hash may then stand twice.
#[derive(Debug, Default)]
pub(super) struct KeysOf(HashTable<(Hash, Hashes)>);

#[derive(Debug)]
enum Hashes {
    One(Hash),
    /// In order. Boxed twice, so that one takes no more than a hash and a word.
    #[expect(clippy::box_collection, reason = "a slice would be two words")]
    Many(Box<Vec<Hash>>),
}

impl KeysOf {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn reserve(&mut self, documents: usize) {
        self.0.reserve(documents, |(hash, _)| hash.0);
    }

    pub(super) fn contains(&self, document: Hash) -> bool {
        self.0.find(document.0, |(hash, _)| *hash == document).is_some()
    }

    /// In order. Some may be of other documents with this hash.
    pub(super) fn take(&mut self, document: Hash) -> Vec<Hash> {
        match self.0.find_entry(document.0, |(hash, _)| *hash == document) {
            Err(_) => Vec::new(),
            Ok(entry) => match entry.remove().0.1 {
                Hashes::One(hash) => vec![hash],
                Hashes::Many(hashes) => *hashes,
            },
        }
    }

    /// Where nothing is, the hashes of a document and those of others with its hash.
    pub(super) fn add(&mut self, document: Hash, mut hashes: Vec<Hash>, others: Vec<Hash>) {
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
