//! Loads: all documents, taken in beside the map that is read, and put in its place.

use super::key::Key;
use super::shard::{Counts, Posting, Shard, ShardBuilder, Stored, push_bytes, take_bytes};
use super::sharded::{Hash, SHARDS};
use super::writer::{Changes, Entry, Writer};
use std::sync::Arc;

impl Writer {
    /// A load that may replace all there is.
    pub fn begin_load(&self) -> Load {
        let mut writer = Self::new(Arc::new(self.index.empty_beside()));
        // As much as there is: room that grows is for a moment there twice.
        writer.keys_of.reserve(self.keys_of.len());
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
            changes.put(&document, entries);
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
