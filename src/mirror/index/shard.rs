//! A shard: some keys of an index with their postings, immutable.
//!
//! A shard is two pieces of memory. The first holds the sorted tags of all keys, followed by the
//! offset of each key's group. A tag is the highest bits of a key's hash. Tags are spread evenly,
//! so the position of a tag is guessed well, and they nearly always suffice to reject a missing
//! key. They are small enough to stay in the processor's cache. The second piece holds the groups:
//! `key, count, postings`, where each posting is `document, data`.

use crate::mirror::index::key::IndexKey;
use crate::mirror::index::varint::{push_bytes, push_number, take_bytes, take_number};
use std::hint::black_box;
use triomphe::ThinArc;

const CACHE_LINE: usize = 64;

/// A shard in memory. The slice holds the tags, then the offsets, each as two `u16` halves.
pub(in crate::mirror) type ShardData = ThinArc<ShardHeader, u16>;

/// What a shard holds in addition to its tags and offsets.
#[derive(Debug)]
pub(in crate::mirror) struct ShardHeader {
    counts: Counts,
    groups: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(in crate::mirror) struct Counts {
    pub(in crate::mirror) keys: usize,
    pub(in crate::mirror) postings: usize,
}

/// A shard, borrowed for reading.
#[derive(Debug, Clone, Copy)]
pub(in crate::mirror) struct Shard<'a> {
    tags: &'a [u16],
    offsets: &'a [u16],
    head: &'a ShardHeader,
}

impl<'a> Shard<'a> {
    #[inline]
    pub(in crate::mirror) fn new(stored: &'a ShardData) -> Self {
        let head = &stored.header.header;
        let (tags, offsets) = stored.slice.split_at(head.counts.keys);
        Self { tags, offsets, head }
    }

    pub(in crate::mirror) fn counts(self) -> Counts {
        self.head.counts
    }

    /// The postings of a key.
    #[inline]
    pub(in crate::mirror) fn find(self, tag: u16, key: IndexKey<'_>) -> Option<Postings<'a>> {
        self.groups_of(tag).find(|group| group.key == key).map(|group| group.postings)
    }

    /// The groups of all keys with this tag. More than one is rare.
    #[inline]
    fn groups_of(self, tag: u16) -> impl Iterator<Item = Group<'a>> {
        let first = self.first_of(tag);
        let of_tag = self.tags.iter().skip(first).take_while(move |each| **each == tag);
        of_tag.zip(first..).map(move |(_, at)| self.group(at))
    }

    pub(in crate::mirror) fn groups(self) -> impl Iterator<Item = Group<'a>> {
        (0..self.tags.len()).map(move |at| self.group(at))
    }

    /// The position of the first key whose tag is not lower than this one.
    #[inline]
    fn first_of(self, tag: u16) -> usize {
        let guess = (self.tags.len() * usize::from(tag)) >> u16::BITS;
        let (before, after) = self.tags.split_at(guess);
        let lower = after.iter().take_while(|each| **each < tag).count();
        if lower > 0 {
            return guess + lower;
        }
        guess - before.iter().rev().take_while(|each| **each >= tag).count()
    }

    #[inline]
    fn group(self, at: usize) -> Group<'a> {
        self.read_group(at).expect("a group is readable")
    }

    #[inline]
    fn read_group(self, at: usize) -> Option<Group<'a>> {
        let end = self.offset(at + 1).unwrap_or(self.head.groups.len());
        let bytes = self.head.groups.get(self.offset(at)?..end)?;
        // Touches both ends of the group, so that the processor fetches their cache lines at the
        // same time. Otherwise it fetches the second only after it has read the first.
        black_box((bytes.get(CACHE_LINE).copied(), bytes.last().copied()));
        let (stored_key, rest) = take_bytes(bytes)?;
        let (left, rest) = take_number(rest)?;
        let (tag, key) = (*self.tags.get(at)?, IndexKey::from_stored(stored_key));
        Some(Group { tag, bytes, stored_key, key, postings: Postings { left, rest } })
    }

    #[inline]
    fn offset(self, at: usize) -> Option<usize> {
        let [high, low] = self.offsets.get(at * 2..)?.first_chunk()?.map(usize::from);
        Some(high << u16::BITS | low)
    }
}

/// A key and its postings.
#[derive(Debug, Clone)]
pub(in crate::mirror) struct Group<'a> {
    pub(in crate::mirror) tag: u16,
    /// The whole group in its stored form.
    bytes: &'a [u8],
    pub(in crate::mirror) stored_key: &'a [u8],
    pub(in crate::mirror) key: IndexKey<'a>,
    pub(in crate::mirror) postings: Postings<'a>,
}

/// The postings of a key, in the order of their documents.
#[derive(Debug, Clone)]
pub struct Postings<'a> {
    left: usize,
    rest: &'a [u8],
}

/// What one document has under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Posting<'a> {
    /// The bytes of a [`DocumentKey`](crate::mirror::document::DocumentKey).
    pub document: &'a [u8],
    pub data: &'a [u8],
}

impl<'a> Iterator for Postings<'a> {
    type Item = Posting<'a>;

    #[inline]
    fn next(&mut self) -> Option<Posting<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (document, rest) = take_bytes(self.rest)?;
        let (data, rest) = take_bytes(rest)?;
        self.rest = rest;
        Some(Posting { document, data })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Postings<'_> {}

/// Builds a shard from its groups, in the order of their tags. Its buffers are reused.
#[derive(Debug, Default)]
pub(in crate::mirror) struct ShardBuilder {
    counts: Counts,
    tags: Vec<u16>,
    offsets: Vec<u16>,
    groups: Vec<u8>,
}

impl ShardBuilder {
    /// Adds a group, unless it has no postings.
    pub(in crate::mirror) fn push<'a>(
        &mut self,
        tag: u16,
        key: &[u8],
        postings: impl ExactSizeIterator<Item = Posting<'a>>,
    ) {
        if postings.len() == 0 {
            return;
        }
        self.begin_group(tag, postings.len());
        push_bytes(&mut self.groups, key);
        push_number(&mut self.groups, postings.len());
        for Posting { document, data } in postings {
            push_bytes(&mut self.groups, document);
            push_bytes(&mut self.groups, data);
        }
    }

    /// Adds a group of another shard.
    pub(in crate::mirror) fn copy(&mut self, group: &Group<'_>) {
        self.begin_group(group.tag, group.postings.len());
        self.groups.extend_from_slice(group.bytes);
    }

    fn begin_group(&mut self, tag: u16, postings: usize) {
        self.counts.keys += 1;
        self.counts.postings += postings;
        let offset = u32::try_from(self.groups.len()).expect("a shard is smaller than 4 GiB");
        self.tags.push(tag);
        let [one, two, three, four] = offset.to_be_bytes();
        self.offsets.extend([[one, two], [three, four]].map(u16::from_be_bytes));
    }

    /// Adds entries whose keys have this tag, grouped by key.
    pub(in crate::mirror) fn push_entries(
        &mut self,
        tag: u16,
        entries: &mut [(&[u8], Posting<'_>)],
    ) {
        // A stable sort: it is fast on entries that are nearly sorted, as most are.
        entries.sort();
        for of_key in entries.chunk_by(|(a, _), (b, _)| a == b) {
            if let Some((key, _)) = of_key.first() {
                self.push(tag, key, of_key.iter().map(|(_, posting)| *posting));
            }
        }
    }

    /// Returns the shard and clears the builder, which keeps its memory.
    pub(in crate::mirror) fn finish(&mut self) -> ShardData {
        let groups = self.groups.as_slice().into();
        let head = ShardHeader { counts: std::mem::take(&mut self.counts), groups };
        self.tags.append(&mut self.offsets);
        let stored = ThinArc::from_header_and_slice(head, &self.tags);
        self.tags.clear();
        self.groups.clear();
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_tag_and_key() {
        let mut builder = ShardBuilder::default();
        let posting = |data| Posting { document: b"d", data };
        let keys = [(0, "a"), (0, "b"), (7, "c"), (500, "d"), (40_000, "e"), (u16::MAX, "f")];
        for (tag, key) in keys {
            builder.push(
                tag,
                &IndexKey::new(key).to_bytes(),
                [posting(key.as_bytes())].into_iter(),
            );
        }
        let stored = builder.finish();
        let shard = Shard::new(&stored);
        for (tag, key) in keys {
            let postings: Vec<_> = shard.find(tag, IndexKey::new(key)).unwrap().collect();
            assert_eq!(postings, [posting(key.as_bytes())]);
            assert!(shard.find(tag, IndexKey::new("other")).is_none());
            assert!(shard.find(tag ^ 1, IndexKey::new(key)).is_none());
        }
        assert_eq!((shard.counts().keys, shard.counts().postings), (6, 6));
        assert!(Shard::new(&builder.finish()).find(0, IndexKey::new("a")).is_none());
    }

    #[test]
    fn a_number_is_read_back() {
        for number in [0, 1, 127, 128, 16_383, 16_384, 1 << 24, u32::MAX as usize] {
            let mut bytes = Vec::new();
            push_number(&mut bytes, number);
            assert_eq!(take_number(&bytes), Some((number, &[][..])));
        }
    }
}
