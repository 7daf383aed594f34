//! The writer of an index: changes by document, applied shard by shard.

use crate::mirror::index::key::IndexKey;
use crate::mirror::index::reverse_index::ReverseIndex;
use crate::mirror::index::shard::{Counts, Posting, Shard, ShardBuilder, ShardData};
use crate::mirror::index::sharded::{Hash, ShardedIndex};
use std::sync::Arc;

/// The only writer of an index. It records the keys under which each document has postings.
#[derive(Debug)]
pub struct Writer {
    pub(in crate::mirror) index: Arc<ShardedIndex>,
    pub(in crate::mirror) reverse: ReverseIndex,
    pub(in crate::mirror) counts: Counts,
    pub(in crate::mirror) documents: usize,
    /// Kept because its buffers are reused.
    pub(in crate::mirror) builder: ShardBuilder,
}

/// A key and what a document has under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The stored form of an [`IndexKey`].
    pub key: Vec<u8>,
    pub data: Vec<u8>,
}

/// Changes that are applied together, at most one of each document: the bytes of its
/// [`DocumentKey`](crate::mirror::document::DocumentKey) and its new entries.
#[derive(Debug, Default)]
pub struct ChangeSet(Vec<(Box<[u8]>, Vec<Entry>)>);

impl ChangeSet {
    /// Replaces the entries of a document. No two of them have the same key.
    pub fn upsert(&mut self, document: &[u8], entries: Vec<Entry>) {
        self.0.push((document.into(), entries));
    }
}

impl Writer {
    pub fn new(index: Arc<ShardedIndex>) -> Self {
        Self {
            index,
            reverse: ReverseIndex::default(),
            counts: Counts::default(),
            documents: 0,
            builder: ShardBuilder::default(),
        }
    }

    /// The number of keys that have postings.
    pub fn keys(&self) -> usize {
        self.counts.keys
    }

    /// The number of postings under all keys.
    pub fn postings(&self) -> usize {
        self.counts.postings
    }

    /// The number of documents that have postings.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// Applies changes. Shards in which nothing differs are not swapped.
    pub fn apply(&mut self, ChangeSet(changes): ChangeSet) {
        let hashed = changes.into_iter().map(|(document, entries)| {
            let hash = self.index.hash(&*document);
            Change { document, hash, entries }
        });
        let mut changes: Vec<Change> = hashed.collect();
        changes.sort_by_key(|change| change.hash);
        // The reverse index does not tell documents with the same hash apart, so their changes are
        // applied one after the other.
        while !changes.is_empty() {
            let mut last = None;
            let is_first = |change: &Change| last.replace(change.hash) != Some(change.hash);
            let (distinct, later): (Vec<_>, _) = changes.into_iter().partition(is_first);
            self.apply_distinct(&distinct);
            changes = later;
        }
    }

    /// Applies changes of documents whose hashes differ.
    fn apply_distinct(&mut self, changes: &[Change]) {
        let old_hashes: Vec<Vec<Hash>> =
            changes.iter().map(|change| self.reverse.remove(change.hash)).collect();
        let mut operations = Vec::new();
        for (number, (change, old_hashes)) in changes.iter().zip(&old_hashes).enumerate() {
            let operation = |hash, added| Operation { hash, change, number, added };
            operations.extend(old_hashes.iter().map(|hash| operation(*hash, None)));
            let hash_of = |entry: &Entry| self.index.hash(&IndexKey::from_stored(&entry.key));
            let added = change.entries.iter();
            operations.extend(added.map(|entry| operation(hash_of(entry), Some(entry))));
        }
        let index = Arc::clone(&self.index);
        operations.sort_by_key(|operation| index.shard_order(operation.hash));
        let mut found = Vec::new();
        let shard_number = |operation: &Operation<'_>| index.shard_number(operation.hash);
        for of_shard in operations.chunk_by(|a, b| shard_number(a) == shard_number(b)) {
            self.apply_to_shard(of_shard, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        let mut found = found.into_iter().peekable();
        for (number, (change, old_hashes)) in changes.iter().zip(old_hashes).enumerate() {
            let own = std::iter::from_fn(|| found.next_if(|(found_by, _)| *found_by == number));
            self.record(change, old_hashes, own.map(|(_, hash)| hash).collect());
        }
    }

    /// Applies operations of one shard. Adds the postings it removes to `found`: the number of the
    /// change and the hash of the key.
    fn apply_to_shard(&mut self, operations: &[Operation<'_>], found: &mut Vec<(usize, Hash)>) {
        let Some(first) = operations.first() else { return };
        let shard = self.index.shard_of(first.hash);
        let old = shard.load();
        let mut rewrite = ShardRewrite { index: &self.index, builder: &mut self.builder, found };
        let Some(new) = rewrite.run(Shard::new(&old), operations) else { return };
        let (before, after) = (Shard::new(&old).counts(), Shard::new(&new).counts());
        self.counts.keys = self.counts.keys + after.keys - before.keys;
        self.counts.postings = self.counts.postings + after.postings - before.postings;
        shard.store(new);
    }

    /// Records the keys of a changed document in the reverse index. `old_hashes` is the document's
    /// previous entry. Those in `own` were its own; the others belong to documents with the same
    /// hash.
    fn record(&mut self, change: &Change, mut old_hashes: Vec<Hash>, own: Vec<Hash>) {
        self.documents += usize::from(!change.entries.is_empty());
        self.documents -= usize::from(!own.is_empty());
        let mut own = own.into_iter().peekable();
        old_hashes.retain(|hash| own.next_if_eq(hash).is_none());
        let hash_of = |entry: &Entry| self.index.hash(&IndexKey::from_stored(&entry.key));
        self.reverse.add(change.hash, change.entries.iter().map(hash_of).collect(), old_hashes);
    }
}

/// The new entries of a document.
#[derive(Debug)]
struct Change {
    document: Box<[u8]>,
    hash: Hash,
    entries: Vec<Entry>,
}

/// What a change does under the keys with one hash.
#[derive(Debug)]
struct Operation<'a> {
    hash: Hash,
    change: &'a Change,
    /// The number of the change.
    number: usize,
    /// The entry to add. `None` removes the postings of the document.
    added: Option<&'a Entry>,
}

/// The stored form of a key, and a posting under it.
type KeyedPosting<'a> = (&'a [u8], Posting<'a>);

/// Rewrites a shard with changes.
struct ShardRewrite<'a> {
    index: &'a ShardedIndex,
    builder: &'a mut ShardBuilder,
    /// For each posting that is removed: the number of the change, and the hash of the key.
    found: &'a mut Vec<(usize, Hash)>,
}

impl ShardRewrite<'_> {
    /// Returns the shard with these operations applied, or `None` if that changes nothing. The
    /// operations are sorted by tag.
    fn run(&mut self, old: Shard<'_>, operations: &[Operation<'_>]) -> Option<ShardData> {
        let mut groups = old.groups().peekable();
        let mut is_changed = false;
        for of_tag in operations.chunk_by(|a, b| a.hash.tag() == b.hash.tag()) {
            let Some(tag) = of_tag.first().map(|first| first.hash.tag()) else { continue };
            while let Some(group) = groups.next_if(|group| group.tag < tag) {
                self.builder.copy(&group);
            }
            let mut entries = Vec::new();
            while let Some(group) = groups.next_if(|group| group.tag == tag) {
                entries.extend(group.postings.map(|posting| (group.stored_key, posting)));
            }
            let removed = self.remove(&mut entries, of_tag);
            let added = of_tag.iter().filter_map(|Operation { change, added, .. }| {
                let Entry { key, data } = added.as_ref()?;
                Some((key.as_slice(), Posting { document: &change.document, data }))
            });
            let mut added: Vec<KeyedPosting<'_>> = added.collect();
            added.sort_unstable();
            is_changed |= removed != added;
            entries.append(&mut added);
            self.builder.push_entries(tag, &mut entries);
        }
        for group in groups {
            self.builder.copy(&group);
        }
        let new = self.builder.finish();
        is_changed.then_some(new)
    }

    /// Removes the postings of these operations' documents, and returns them sorted.
    fn remove<'b>(
        &mut self,
        entries: &mut Vec<KeyedPosting<'b>>,
        operations: &[Operation<'_>],
    ) -> Vec<KeyedPosting<'b>> {
        let removals = operations.iter().filter(|operation| operation.added.is_none());
        let mut removals: Vec<(&[u8], usize)> =
            removals.map(|operation| (&*operation.change.document, operation.number)).collect();
        removals.sort_unstable();
        let mut removed = Vec::new();
        entries.retain(|entry| {
            let (key, posting) = entry;
            let at = removals.binary_search_by_key(&posting.document, |(document, _)| document);
            let Some((_, number)) = at.ok().and_then(|at| removals.get(at)) else { return true };
            self.found.push((*number, self.index.hash(&IndexKey::from_stored(key))));
            removed.push(*entry);
            false
        });
        removed.sort_unstable();
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_that_changes_nothing_swaps_nothing() {
        let index = Arc::new(ShardedIndex::default());
        let mut writer = Writer::new(Arc::clone(&index));
        let key = IndexKey::new("o").with_second("w");
        let mut upsert = |data: &[u8]| {
            let mut changes = ChangeSet::default();
            let entry = Entry { key: key.to_bytes(), data: data.to_vec() };
            changes.upsert(b"document", vec![entry]);
            writer.apply(changes);
            index.shard_of(index.hash(&key)).load_full()
        };
        let first = upsert(b"one");
        assert_eq!(first.ptr(), upsert(b"one").ptr());
        assert_ne!(first.ptr(), upsert(b"two").ptr());
    }
}
