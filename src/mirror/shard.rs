//! Some keys of a map and what is under them.
//!
//! The tags of all keys stand together, in order, and behind them where the group of each key begins. A tag is the
//! highest bits of a key's hash, which are spread evenly: its place is guessed well, and a key that is not there is
//! nearly always told by the tags alone, which are small enough to be at hand. The groups are another piece of memory:
//! `key, count, postings`, each posting `document, data`.

use super::key::Key;
use std::hint::black_box;
use triomphe::ThinArc;

const CACHE_LINE: usize = 64;

/// A shard as it is kept: the tags and, in two halves each, the offsets.
pub(super) type Stored = ThinArc<Head, u16>;

#[derive(Debug)]
pub(super) struct Head {
    counts: Counts,
    groups: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) keys: usize,
    pub(super) postings: usize,
}

/// A shard, for reading.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shard<'a> {
    tags: &'a [u16],
    offsets: &'a [u16],
    head: &'a Head,
}

impl<'a> Shard<'a> {
    #[inline]
    pub(super) fn of(stored: &'a Stored) -> Self {
        let head = &stored.header.header;
        let (tags, offsets) = stored.slice.split_at(head.counts.keys);
        Self { tags, offsets, head }
    }

    pub(super) fn counts(self) -> Counts {
        self.head.counts
    }

    #[inline]
    pub(super) fn find(self, tag: u16, key: Key<'_>) -> Option<Postings<'a>> {
        self.groups_of(tag).find(|group| group.key == key).map(|group| group.postings)
    }

    /// The groups of all keys with this tag, which is hardly ever more than one.
    #[inline]
    fn groups_of(self, tag: u16) -> impl Iterator<Item = Group<'a>> {
        let first = self.first_of(tag);
        let of_tag = self.tags.iter().skip(first).take_while(move |each| **each == tag);
        of_tag.zip(first..).map(move |(_, at)| self.group(at))
    }

    pub(super) fn groups(self) -> impl Iterator<Item = Group<'a>> {
        (0..self.tags.len()).map(move |at| self.group(at))
    }

    /// Where the first key stands whose tag is not lower.
    #[inline]
    fn first_of(self, tag: u16) -> usize {
        let guess = (self.tags.len() * usize::from(tag)) >> u16::BITS;
        let (before, behind) = self.tags.split_at(guess);
        let lower = behind.iter().take_while(|each| **each < tag).count();
        if lower > 0 {
            return guess + lower;
        }
        guess - before.iter().rev().take_while(|each| **each >= tag).count()
    }

    #[inline]
    fn group(self, at: usize) -> Group<'a> {
        self.read_group(at).expect("groups are as they were written")
    }

    #[inline]
    fn read_group(self, at: usize) -> Option<Group<'a>> {
        let end = self.offset(at + 1).unwrap_or(self.head.groups.len());
        let bytes = self.head.groups.get(self.offset(at)?..end)?;
        // So that the processor waits for them together: without it, each is asked for when the one before has come.
        black_box((bytes.get(CACHE_LINE).copied(), bytes.last().copied()));
        let (stored_key, rest) = take_bytes(bytes)?;
        let (left, rest) = take_number(rest)?;
        let (tag, key) = (*self.tags.get(at)?, Key::of_stored(stored_key));
        Some(Group { tag, bytes, stored_key, key, postings: Postings { left, rest } })
    }

    #[inline]
    fn offset(self, at: usize) -> Option<usize> {
        let [high, low] = self.offsets.get(at * 2..)?.first_chunk()?.map(usize::from);
        Some(high << u16::BITS | low)
    }
}

/// A key and what is under it.
#[derive(Debug, Clone)]
pub(super) struct Group<'a> {
    pub(super) tag: u16,
    /// As it is stored.
    bytes: &'a [u8],
    pub(super) stored_key: &'a [u8],
    pub(super) key: Key<'a>,
    pub(super) postings: Postings<'a>,
}

/// What documents have under a key, in the order of the documents.
#[derive(Debug, Clone)]
pub struct Postings<'a> {
    left: usize,
    rest: &'a [u8],
}

/// What one document has under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Posting<'a> {
    /// The key of the document; see [`super::document::DocumentKey`].
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

/// Writes a shard, group by group in the order of their tags.
#[derive(Debug, Default)]
pub(super) struct ShardBuilder {
    counts: Counts,
    tags: Vec<u16>,
    offsets: Vec<u16>,
    groups: Vec<u8>,
}

impl ShardBuilder {
    pub(super) fn push<'a>(
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

    pub(super) fn copy(&mut self, group: &Group<'_>) {
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

    /// Groups entries whose keys have this tag by their keys.
    pub(super) fn push_entries(&mut self, tag: u16, entries: &mut [(&[u8], Posting<'_>)]) {
        // Most stand in order already, of which this sort makes use.
        entries.sort();
        for of_key in entries.chunk_by(|(one, _), (other, _)| one == other) {
            if let Some((key, _)) = of_key.first() {
                self.push(tag, key, of_key.iter().map(|(_, posting)| *posting));
            }
        }
    }

    /// Stores what was written and begins anew with the same room.
    pub(super) fn finish(&mut self) -> Stored {
        let groups = self.groups.as_slice().into();
        let head = Head { counts: std::mem::take(&mut self.counts), groups };
        self.tags.append(&mut self.offsets);
        let stored = ThinArc::from_header_and_slice(head, &self.tags);
        self.tags.clear();
        self.groups.clear();
        stored
    }
}

#[inline]
pub(super) fn take_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = take_number(bytes)?;
    rest.split_at_checked(length)
}

/// Seven bits to a byte, the lowest first; the last byte is below 128.
#[inline]
fn take_number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (mut number, mut shift) = (0, 0);
    for (at, byte) in bytes.iter().enumerate().take(5) {
        number |= usize::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some((number, bytes.get(at + 1..)?));
        }
        shift += 7;
    }
    None
}

pub(super) fn push_bytes(bytes: &mut Vec<u8>, pushed: &[u8]) {
    push_number(bytes, pushed.len());
    bytes.extend_from_slice(pushed);
}

fn push_number(bytes: &mut Vec<u8>, mut number: usize) {
    while let Ok(low) = u8::try_from(number & 0x7f) {
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
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
            builder.push(tag, &Key::of(key).to_bytes(), [posting(key.as_bytes())].into_iter());
        }
        let stored = builder.finish();
        let shard = Shard::of(&stored);
        for (tag, key) in keys {
            let postings: Vec<_> = shard.find(tag, Key::of(key)).unwrap().collect();
            assert_eq!(postings, [posting(key.as_bytes())]);
            assert!(shard.find(tag, Key::of("other")).is_none());
            assert!(shard.find(tag ^ 1, Key::of(key)).is_none());
        }
        assert_eq!((shard.counts().keys, shard.counts().postings), (6, 6));
        assert!(Shard::of(&builder.finish()).find(0, Key::of("a")).is_none());
    }

    #[test]
    fn numbers_are_read_as_they_were_written() {
        for number in [0, 1, 127, 128, 16_383, 16_384, 1 << 24, u32::MAX as usize] {
            let mut bytes = Vec::new();
            push_number(&mut bytes, number);
            assert_eq!(take_number(&bytes), Some((number, &[][..])));
        }
    }
}
