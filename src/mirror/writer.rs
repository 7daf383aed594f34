//! The writer's side of a [`Sharded`] map: changes by document, applied shard by shard.

use super::key::Key;
use super::keys_of::KeysOf;
use super::shard::{Counts, Posting, Shard, ShardBuilder, Stored};
use super::sharded::{Hash, Sharded};
use std::sync::Arc;

/// Keeps a map as documents say. It alone knows under which keys each document has something.
#[derive(Debug)]
pub struct Writer {
    pub(super) index: Arc<Sharded>,
    pub(super) keys_of: KeysOf,
    pub(super) counts: Counts,
    pub(super) documents: usize,
    /// Kept for its room.
    pub(super) builder: ShardBuilder,
}

/// What a document has under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// See [`Key::to_bytes`].
    pub key: Vec<u8>,
    pub data: Vec<u8>,
}

/// Changes that are to be applied together, one of each document.
#[derive(Debug, Default)]
pub struct Changes(Vec<(Box<[u8]>, Vec<Entry>)>);

impl Changes {
    /// Replaces what a document has by these entries, no two of which have the same key.
    pub fn put(&mut self, document: &[u8], entries: Vec<Entry>) {
        self.0.push((document.into(), entries));
    }
}

impl Writer {
    pub fn new(index: Arc<Sharded>) -> Self {
        Self {
            index,
            keys_of: KeysOf::default(),
            counts: Counts::default(),
            documents: 0,
            builder: ShardBuilder::default(),
        }
    }

    /// Keys that have anything.
    pub fn keys(&self) -> usize {
        self.counts.keys
    }

    /// What all documents have under all keys.
    pub fn postings(&self) -> usize {
        self.counts.postings
    }

    /// Documents that have anything.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// Swaps every shard in which there is a difference.
    pub fn apply(&mut self, Changes(changes): Changes) {
        let hashed = changes.into_iter().map(|(document, entries)| {
            let hash = self.index.hash(&*document);
            Change { document, hash, entries }
        });
        let mut changes: Vec<Change> = hashed.collect();
        changes.sort_by_key(|change| change.hash);
        // Of documents with the same hash it is not known which has what: one after the other.
        while !changes.is_empty() {
            let mut last = None;
            let is_first = |change: &Change| last.replace(change.hash) != Some(change.hash);
            let (now, later): (Vec<_>, _) = changes.into_iter().partition(is_first);
            self.apply_distinct(&now);
            changes = later;
        }
    }

    /// Applies changes of documents whose hashes differ.
    fn apply_distinct(&mut self, changes: &[Change]) {
        let formerly: Vec<Vec<Hash>> =
            changes.iter().map(|change| self.keys_of.take(change.hash)).collect();
        let mut operations = Vec::new();
        for (number, (change, formerly)) in changes.iter().zip(&formerly).enumerate() {
            let operation = |hash, added| Operation { hash, change, number, added };
            operations.extend(formerly.iter().map(|hash| operation(*hash, None)));
            let hash_of = |entry: &Entry| self.index.hash(&Key::of_stored(&entry.key));
            let added = change.entries.iter();
            operations.extend(added.map(|entry| operation(hash_of(entry), Some(entry))));
        }
        operations.sort_by_key(Operation::place);
        let mut found = Vec::new();
        for of_shard in operations.chunk_by(|one, other| one.hash.shard() == other.hash.shard()) {
            self.apply_to_shard(of_shard, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        let mut found = found.into_iter().peekable();
        for (number, (change, formerly)) in changes.iter().zip(formerly).enumerate() {
            let own = std::iter::from_fn(|| found.next_if(|(of, _)| *of == number));
            self.know(change, formerly, own.map(|(_, hash)| hash).collect());
        }
    }

    fn apply_to_shard(&mut self, operations: &[Operation<'_>], found: &mut Vec<(usize, Hash)>) {
        let Some(first) = operations.first() else { return };
        let shard = self.index.at(first.hash.shard());
        let old = shard.load();
        let mut rewriting = Rewriting { index: &self.index, builder: &mut self.builder, found };
        let Some(new) = rewriting.run(Shard::of(&old), operations) else { return };
        let (before, after) = (Shard::of(&old).counts(), Shard::of(&new).counts());
        self.counts.keys = self.counts.keys + after.keys - before.keys;
        self.counts.postings = self.counts.postings + after.postings - before.postings;
        shard.store(new);
    }

    /// Keeps under which keys a document is now. Of those it may have been under, `own` are those where it was; at the
    /// others is another document with the same hash.
    fn know(&mut self, change: &Change, mut formerly: Vec<Hash>, own: Vec<Hash>) {
        self.documents += usize::from(!change.entries.is_empty());
        self.documents -= usize::from(!own.is_empty());
        let mut own = own.into_iter().peekable();
        formerly.retain(|hash| own.next_if_eq(hash).is_none());
        let hash_of = |entry: &Entry| self.index.hash(&Key::of_stored(&entry.key));
        self.keys_of.add(change.hash, change.entries.iter().map(hash_of).collect(), formerly);
    }
}

/// What a document is to have.
#[derive(Debug)]
struct Change {
    document: Box<[u8]>,
    hash: Hash,
    entries: Vec<Entry>,
}

/// Of one document under the keys with one hash.
#[derive(Debug)]
struct Operation<'a> {
    hash: Hash,
    change: &'a Change,
    /// Of the change.
    number: usize,
    /// `None`: what the document has there goes away.
    added: Option<&'a Entry>,
}

impl Operation<'_> {
    /// Where it is to be applied: shards one after the other, each in its own order.
    fn place(&self) -> (usize, u16) {
        (self.hash.shard(), self.hash.tag())
    }
}

/// A key as it is stored, and what a document has there.
type Placed<'a> = (&'a [u8], Posting<'a>);

/// Writes a shard anew, with changes.
struct Rewriting<'a> {
    index: &'a Sharded,
    builder: &'a mut ShardBuilder,
    /// Under the keys with which hash the document of which change was found.
    found: &'a mut Vec<(usize, Hash)>,
}

impl Rewriting<'_> {
    /// The shard with operations, which stand in the order of their tags, applied to it, if that makes a difference.
    fn run(&mut self, old: Shard<'_>, operations: &[Operation<'_>]) -> Option<Stored> {
        let mut groups = old.groups().peekable();
        let mut is_changed = false;
        for of_tag in operations.chunk_by(|one, other| one.place() == other.place()) {
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
            let mut added: Vec<Placed<'_>> = added.collect();
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

    /// Takes out what the documents of these operations have, and returns it in order.
    fn remove<'b>(
        &mut self,
        entries: &mut Vec<Placed<'b>>,
        operations: &[Operation<'_>],
    ) -> Vec<Placed<'b>> {
        let leaving = operations.iter().filter(|operation| operation.added.is_none());
        let mut leaving: Vec<(&[u8], usize)> =
            leaving.map(|operation| (&*operation.change.document, operation.number)).collect();
        leaving.sort_unstable();
        let mut removed = Vec::new();
        entries.retain(|entry| {
            let (key, posting) = entry;
            let at = leaving.binary_search_by_key(&posting.document, |(document, _)| document);
            let Some((_, number)) = at.ok().and_then(|at| leaving.get(at)) else { return true };
            self.found.push((*number, self.index.hash(&Key::of_stored(key))));
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
        let index = Arc::new(Sharded::default());
        let mut writer = Writer::new(Arc::clone(&index));
        let key = Key::of("o").and("w");
        let mut put = |data: &[u8]| {
            let mut changes = Changes::default();
            let entry = Entry { key: key.to_bytes(), data: data.to_vec() };
            changes.put(b"document", vec![entry]);
            writer.apply(changes);
            index.at(index.hash(&key).shard()).load_full()
        };
        let first = put(b"one");
        assert_eq!(first.ptr(), put(b"one").ptr());
        assert_ne!(first.ptr(), put(b"two").ptr());
    }
}
