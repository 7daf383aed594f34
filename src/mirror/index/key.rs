//! The keys of an index: one name or two, borrowed for a lookup and stored as bytes.

use crate::mirror::index::varint::{push_bytes, take_bytes};
use std::hash::{Hash, Hasher};

/// A key of an index, borrowed from whatever holds its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexKey<'a> {
    first: &'a [u8],
    last: &'a [u8],
}

impl<'a> IndexKey<'a> {
    /// A key with one name.
    #[inline]
    pub fn new(first: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { first: first.as_ref(), last: &[] }
    }

    /// The key with a second name.
    #[must_use]
    #[inline]
    pub fn with_second(self, last: &'a str) -> Self {
        Self { last: last.as_bytes(), ..self }
    }

    pub fn first(self) -> &'a [u8] {
        self.first
    }

    /// The stored form: the first name with its length in front, then the second name.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 + self.first.len() + self.last.len());
        push_bytes(&mut bytes, self.first);
        bytes.extend_from_slice(self.last);
        bytes
    }

    /// Whether these bytes are the stored form of a key.
    pub(in crate::mirror) fn is_stored(stored: &[u8]) -> bool {
        take_bytes(stored).is_some()
    }

    /// Reads the stored form of a key. Panics if the bytes are not one.
    #[inline]
    pub(in crate::mirror) fn from_stored(stored: &'a [u8]) -> Self {
        let (first, last) = take_bytes(stored).expect("a stored key is readable");
        Self { first, last }
    }
}

impl Hash for IndexKey<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(self.first);
        hasher.write(self.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_keys_differ_and_are_read_back() {
        let longest = "x".repeat(256);
        let keys = [
            IndexKey::new("a").with_second("bc"),
            IndexKey::new("ab").with_second("c"),
            IndexKey::new("abc"),
            IndexKey::new(&longest),
            IndexKey::new(&longest).with_second(&longest),
        ];
        let stored: std::collections::BTreeSet<_> = keys.iter().map(|key| key.to_bytes()).collect();
        assert_eq!(stored.len(), keys.len());
        for key in keys {
            assert_eq!(IndexKey::from_stored(&key.to_bytes()), key);
        }
    }
}
