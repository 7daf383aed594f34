//! Loads: all documents of a collection, gathered apart from the live index and then put in its
//! place.

use crate::mirror::index::key::IndexKey;
use crate::mirror::index::shard::{Counts, Posting, Shard, ShardBuilder, ShardData};
use crate::mirror::index::sharded::{Hash, ShardedIndex};
use crate::mirror::index::varint::{push_bytes, take_bytes};
use crate::mirror::index::writer::{ChangeSet, Entry, Writer};
use std::sync::Arc;

impl Writer {
    /// Begins a load. The live index does not change until [`Self::replace`].
    pub fn begin_load(&self) -> IndexLoad {
        let mut writer = Self::new(Arc::new(self.index.empty_like()));
        // Reserving avoids a table that grows: while it does, its memory is there twice.
        writer.reverse.reserve(self.reverse.len());
        IndexLoad {
            writer,
            parts: (0..self.index.layout.load_parts).map(|_| LoadPart::default()).collect(),
            repeated: Vec::new(),
        }
    }

    /// Puts a load in place of everything in the index, shard by shard. A reader looks into one
    /// shard, so it finds either the old or the new postings of its key.
    pub fn replace(&mut self, load: IndexLoad) {
        let Self { index: loaded, reverse, counts, documents, builder } = load.finish();
        for (shard, loaded) in self.index.shards().zip(loaded.shards()) {
            shard.store(loaded.load_full());
        }
        *self = Self { index: Arc::clone(&self.index), reverse, counts, documents, builder };
    }
}

/// A load of one index.
#[derive(Debug)]
pub struct IndexLoad {
    /// The writer of an index that has no readers yet.
    writer: Writer,
    /// The entries so far. Part `n` holds the shards whose number modulo the number of parts is
    /// `n`. One buffer for many shards is better than one for each: small buffers that grow
    /// fragment the memory.
    parts: Box<[LoadPart]>,
    /// Documents that were added before, or whose hash is that of another document. They are
    /// applied as changes after all others.
    repeated: Vec<(Box<[u8]>, Vec<Entry>)>,
}

impl IndexLoad {
    /// Adds the entries of a document, no two of which have the same key. If a document is added
    /// twice, its last entries count.
    pub fn upsert(&mut self, document: &[u8], entries: &[Entry]) {
        let Writer { index, reverse, documents, .. } = &mut self.writer;
        let document_hash = index.hash(document);
        if reverse.contains(document_hash) {
            self.repeated.push((document.into(), entries.to_vec()));
            return;
        }
        let mut hashes = Vec::with_capacity(entries.len());
        for entry in entries {
            let hash = index.hash(&IndexKey::from_stored(&entry.key));
            hashes.push(hash);
            let part = index.shard_number(hash) & (self.parts.len() - 1);
            if let Some(part) = self.parts.get_mut(part) {
                part.push(hash, document, entry);
            }
        }
        *documents += usize::from(!entries.is_empty());
        reverse.add(document_hash, hashes, Vec::new());
    }

    /// Builds the shards. The memory of each part is freed when its shards are built.
    fn finish(self) -> Writer {
        let Self { mut writer, parts, repeated } = self;
        for part in parts {
            let entries = part.entries(&writer.index);
            let shard_number = |entry: &LoadedEntry<'_>| writer.index.shard_number(entry.hash);
            for of_shard in entries.chunk_by(|a, b| shard_number(a) == shard_number(b)) {
                let Some(first) = of_shard.first() else { continue };
                let shard = build_shard(&mut writer.builder, of_shard);
                let Counts { keys, postings } = Shard::new(&shard).counts();
                writer.counts.keys += keys;
                writer.counts.postings += postings;
                writer.index.shard_of(first.hash).store(shard);
            }
        }
        for (document, entries) in repeated {
            let mut changes = ChangeSet::default();
            changes.upsert(&document, entries);
            writer.apply(changes);
        }
        writer
    }
}

/// The entries of some shards, serialized in the order in which they were added.
#[derive(Debug, Default)]
struct LoadPart(Vec<u8>);

/// An entry of a part.
#[derive(Debug)]
struct LoadedEntry<'a> {
    hash: Hash,
    key: &'a [u8],
    posting: Posting<'a>,
}

impl LoadPart {
    fn push(&mut self, hash: Hash, document: &[u8], entry: &Entry) {
        let size = 8 + entry.key.len() + document.len() + entry.data.len() + 15;
        if self.0.capacity() - self.0.len() < size {
            // A vector that doubles would leave up to half of its memory unused.
            self.0.reserve_exact(size.max(self.0.len() / 8));
        }
        self.0.extend_from_slice(&hash.0.to_le_bytes());
        push_bytes(&mut self.0, &entry.key);
        push_bytes(&mut self.0, document);
        push_bytes(&mut self.0, &entry.data);
    }

    /// The entries, sorted by shard and tag.
    fn entries(&self, index: &ShardedIndex) -> Vec<LoadedEntry<'_>> {
        let mut rest = self.0.as_slice();
        let next = || {
            let (entry, after) = take_entry(rest)?;
            rest = after;
            Some(entry)
        };
        let mut entries: Vec<_> = std::iter::from_fn(next).collect();
        entries.sort_unstable_by_key(|entry| index.shard_order(entry.hash));
        entries
    }
}

/// Takes an entry off the front.
fn take_entry(bytes: &[u8]) -> Option<(LoadedEntry<'_>, &[u8])> {
    let (hash, rest) = bytes.split_first_chunk()?;
    let (key, rest) = take_bytes(rest)?;
    let (document, rest) = take_bytes(rest)?;
    let (data, rest) = take_bytes(rest)?;
    let hash = Hash(u64::from_le_bytes(*hash));
    Some((LoadedEntry { hash, key, posting: Posting { document, data } }, rest))
}

/// Builds a shard from its entries, which are sorted by tag.
fn build_shard(builder: &mut ShardBuilder, entries: &[LoadedEntry<'_>]) -> ShardData {
    for of_tag in entries.chunk_by(|a, b| a.hash.tag() == b.hash.tag()) {
        let Some(tag) = of_tag.first().map(|first| first.hash.tag()) else { continue };
        let mut entries: Vec<_> = of_tag.iter().map(|entry| (entry.key, entry.posting)).collect();
        builder.push_entries(tag, &mut entries);
    }
    builder.finish()
}
