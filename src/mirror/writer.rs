//! The writer's side of a [`Sharded`] map: changes by document, applied shard by shard, and loads that are built
//! beside it.

use super::key::Key;
use super::shard::{Counts, Posting, Shard, ShardBuilder, Stored, push_bytes, take_bytes};
use super::sharded::{Hash, SHARDS, Sharded};
use hashbrown::HashTable;
use std::sync::Arc;

/// Keeps a map as documents say. It alone knows under which keys each document has something.
#[derive(Debug)]
pub struct Writer {
    index: Arc<Sharded>,
    keys_of: KeysOf,
    counts: Counts,
    documents: usize,
    /// Kept for its room.
    builder: ShardBuilder,
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
pub struct Changes(Vec<Operation>);

/// Of one document under the keys with one hash.
#[derive(Debug)]
struct Operation {
    hash: Hash,
    document: Arc<[u8]>,
    /// `None`: what the document has there goes away.
    added: Option<Entry>,
}

impl Operation {
    /// Where it is to be applied: shards one after the other, each in its own order.
    fn place(&self) -> (usize, u16) {
        (self.hash.shard(), self.hash.tag())
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

    /// Replaces what a document has by these entries, no two of which have the same key.
    pub fn put(&mut self, changes: &mut Changes, document: &[u8], entries: Vec<Entry>) {
        let document: Arc<[u8]> = Arc::from(document);
        let document_hash = self.index.hash(&*document);
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for hash in self.keys_of.take(document_hash) {
            // Another document may have the same hash, and even the same key: one of two is its own.
            if own.last() != Some(&hash) && self.index.holds(hash, &document) {
                own.push(hash);
            } else {
                others.push(hash);
            }
        }
        self.documents += usize::from(!entries.is_empty());
        self.documents -= usize::from(!own.is_empty());
        for hash in own {
            changes.0.push(Operation { hash, document: Arc::clone(&document), added: None });
        }
        let mut hashes = Vec::with_capacity(entries.len() + others.len());
        for entry in entries {
            let hash = self.index.hash(&Key::of_stored(&entry.key));
            hashes.push(hash);
            let added = Some(entry);
            changes.0.push(Operation { hash, document: Arc::clone(&document), added });
        }
        self.keys_of.add(document_hash, hashes, others);
    }

    /// Swaps every shard that is touched.
    pub fn apply(&mut self, Changes(mut operations): Changes) {
        operations.sort_by_key(Operation::place);
        for of_shard in operations.chunk_by(|one, other| one.hash.shard() == other.hash.shard()) {
            let Some(first) = of_shard.first() else { continue };
            let shard = self.index.at(first.hash.shard());
            let old = shard.load();
            let new = changed(&mut self.builder, Shard::of(&old), of_shard);
            let (before, after) = (Shard::of(&old).counts(), Shard::of(&new).counts());
            self.counts.keys = self.counts.keys + after.keys - before.keys;
            self.counts.postings = self.counts.postings + after.postings - before.postings;
            shard.store(new);
        }
    }

    /// A load that may replace all there is.
    pub fn begin_load(&self) -> Load {
        let mut writer = Self::new(Arc::new(self.index.empty_beside()));
        // As much as there is: room that grows is for a moment there twice.
        writer.keys_of.0.reserve(self.keys_of.0.len(), |(hash, _)| hash.0);
        Load { writer, parts: (0..PARTS).map(|_| Part::default()).collect(), again: Vec::new() }
    }

    /// Puts a load in place of all there was, shard by shard: a reader, who looks into one of them, finds the old
    /// or the new state of its key.
    pub fn replace(&mut self, load: Load) {
        let Self { index: loaded, keys_of, counts, documents, builder } = load.finish();
        for shard in 0..SHARDS {
            self.index.at(shard).store(loaded.at(shard).load_full());
        }
        *self = Self { index: Arc::clone(&self.index), keys_of, counts, documents, builder };
    }
}

/// A shard with operations, which stand in the order of their tags, applied to it.
fn changed(builder: &mut ShardBuilder, old: Shard<'_>, operations: &[Operation]) -> Stored {
    let mut groups = old.groups().peekable();
    for of_tag in operations.chunk_by(|one, other| one.place() == other.place()) {
        let Some(tag) = of_tag.first().map(|first| first.hash.tag()) else { continue };
        while let Some(group) = groups.next_if(|group| group.tag < tag) {
            builder.copy(&group);
        }
        let mut entries = Vec::new();
        while let Some(group) = groups.next_if(|group| group.tag == tag) {
            entries.extend(group.postings.map(|posting| (group.stored_key, posting)));
        }
        let removed = of_tag.iter().filter(|operation| operation.added.is_none());
        let mut removed: Vec<&[u8]> = removed.map(|operation| &*operation.document).collect();
        removed.sort_unstable();
        entries.retain(|(_, posting)| removed.binary_search(&posting.document).is_err());
        entries.extend(of_tag.iter().filter_map(|Operation { document, added, .. }| {
            let Entry { key, data } = added.as_ref()?;
            Some((key.as_slice(), Posting { document, data }))
        }));
        builder.push_entries(tag, &mut entries);
    }
    for group in groups {
        builder.copy(&group);
    }
    builder.finish()
}

/// Some of a load is written together, since small pieces that grow would leave holes in memory.
const PARTS: usize = if cfg!(test) { 2 } else { 256 };

/// All documents, in the making.
#[derive(Debug)]
pub struct Load {
    /// Of a map that nobody reads yet.
    writer: Writer,
    /// Each of the shards whose number leaves this remainder.
    parts: Box<[Part]>,
    /// Documents that have come before, or have the hash of one: they are put when all others are there.
    again: Vec<(Box<[u8]>, Vec<Entry>)>,
}

impl Load {
    /// Adds what a document has, no two entries of which have the same key. Of a document that comes again, the last
    /// counts.
    pub fn put(&mut self, document: &[u8], entries: &[Entry]) {
        let Writer { index, keys_of, documents, .. } = &mut self.writer;
        let document_hash = index.hash(document);
        if keys_of.contains(document_hash) {
            self.again.push((document.into(), entries.to_vec()));
            return;
        }
        let mut hashes = Vec::with_capacity(entries.len());
        for entry in entries {
            let hash = index.hash(&Key::of_stored(&entry.key));
            hashes.push(hash);
            if let Some(part) = self.parts.get_mut(hash.shard() % PARTS) {
                part.push(hash, document, entry);
            }
        }
        *documents += usize::from(!entries.is_empty());
        keys_of.add(document_hash, hashes, Vec::new());
    }

    /// Builds the map, giving back the memory of what has come on the way.
    fn finish(self) -> Writer {
        let Self { mut writer, parts, again } = self;
        for part in parts {
            let entries = part.entries();
            for of_shard in entries.chunk_by(|one, other| one.hash.shard() == other.hash.shard()) {
                let Some(first) = of_shard.first() else { continue };
                let shard = built(&mut writer.builder, of_shard);
                let Counts { keys, postings } = Shard::of(&shard).counts();
                writer.counts.keys += keys;
                writer.counts.postings += postings;
                writer.index.at(first.hash.shard()).store(shard);
            }
        }
        for (document, entries) in again {
            let mut changes = Changes::default();
            writer.put(&mut changes, &document, entries);
            writer.apply(changes);
        }
        writer
    }
}

/// What is to be in some shards, as it has come.
#[derive(Debug, Default)]
struct Part(Vec<u8>);

#[derive(Debug)]
struct Written<'a> {
    hash: Hash,
    key: &'a [u8],
    posting: Posting<'a>,
}

impl Part {
    fn push(&mut self, hash: Hash, document: &[u8], entry: &Entry) {
        let size = 8 + entry.key.len() + document.len() + entry.data.len() + 15;
        if self.0.capacity() - self.0.len() < size {
            // Doubling would hold half of it in vain.
            self.0.reserve_exact(size.max(self.0.len() / 8));
        }
        self.0.extend_from_slice(&hash.0.to_le_bytes());
        push_bytes(&mut self.0, &entry.key);
        push_bytes(&mut self.0, document);
        push_bytes(&mut self.0, &entry.data);
    }

    /// In the order of shards and tags.
    fn entries(&self) -> Vec<Written<'_>> {
        let mut rest = self.0.as_slice();
        let read = || {
            let (written, behind) = read_written(rest)?;
            rest = behind;
            Some(written)
        };
        let mut entries: Vec<_> = std::iter::from_fn(read).collect();
        entries.sort_unstable_by_key(|written| (written.hash.shard(), written.hash.tag()));
        entries
    }
}

fn read_written(bytes: &[u8]) -> Option<(Written<'_>, &[u8])> {
    let (hash, rest) = bytes.split_first_chunk()?;
    let (key, rest) = take_bytes(rest)?;
    let (document, rest) = take_bytes(rest)?;
    let (data, rest) = take_bytes(rest)?;
    let hash = Hash(u64::from_le_bytes(*hash));
    Some((Written { hash, key, posting: Posting { document, data } }, rest))
}

/// A shard of entries that stand in the order of their tags.
fn built(builder: &mut ShardBuilder, written: &[Written<'_>]) -> Stored {
    for of_tag in written.chunk_by(|one, other| one.hash.tag() == other.hash.tag()) {
        let Some(tag) = of_tag.first().map(|first| first.hash.tag()) else { continue };
        let mut entries: Vec<_> = of_tag.iter().map(|each| (each.key, each.posting)).collect();
        builder.push_entries(tag, &mut entries);
    }
    builder.finish()
}

/// Under the keys of which hashes each document has something, by the hash of the document. Two documents with the
/// same hash share their entry, in which a hash may then stand twice.
#[derive(Debug, Default)]
struct KeysOf(HashTable<(Hash, Hashes)>);

#[derive(Debug)]
enum Hashes {
    One(Hash),
    /// In order. Boxed twice, so that one takes no more than a hash and a word.
    #[expect(clippy::box_collection, reason = "a slice would be two words")]
    Many(Box<Vec<Hash>>),
}

impl KeysOf {
    fn contains(&self, document: Hash) -> bool {
        self.0.find(document.0, |(hash, _)| *hash == document).is_some()
    }

    fn take(&mut self, document: Hash) -> Vec<Hash> {
        match self.0.find_entry(document.0, |(hash, _)| *hash == document) {
            Err(_) => Vec::new(),
            Ok(entry) => match entry.remove().0.1 {
                Hashes::One(hash) => vec![hash],
                Hashes::Many(hashes) => *hashes,
            },
        }
    }

    /// Where nothing is, the hashes of a document and those of others with its hash.
    fn add(&mut self, document: Hash, mut hashes: Vec<Hash>, others: Vec<Hash>) {
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
