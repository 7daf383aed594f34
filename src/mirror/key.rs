//! The keys of [`super::sharded::Sharded`] maps: one name or two, looked up where they are, without copying them.

use super::shard::{push_bytes, take_bytes};
use std::hash::{Hash, Hasher};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    first: &'a [u8],
    last: &'a [u8],
}

impl<'a> Key<'a> {
    /// Of one name.
    #[inline]
    pub fn of(first: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { first: first.as_ref(), last: &[] }
    }

    /// Of two names.
    #[must_use]
    #[inline]
    pub fn and(self, last: &'a str) -> Self {
        Self { last: last.as_bytes(), ..self }
    }

    pub fn first(self) -> &'a [u8] {
        self.first
    }

    /// As it is stored.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 + self.first.len() + self.last.len());
        push_bytes(&mut bytes, self.first);
        bytes.extend_from_slice(self.last);
        bytes
    }

    /// Reads a stored key.
    /// Whether these bytes are a key as [`Self::to_bytes`] writes it.
    pub(super) fn is_stored(stored: &[u8]) -> bool {
        take_bytes(stored).is_some()
    }

    #[inline]
    pub(super) fn of_stored(stored: &'a [u8]) -> Self {
        let (first, last) = take_bytes(stored).expect("keys are as they were written");
        Self { first, last }
    }
}

impl Hash for Key<'_> {
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
    fn stored_keys_are_read_and_told_apart() {
        let longest = "x".repeat(256);
        let keys = [
            Key::of("a").and("bc"),
            Key::of("ab").and("c"),
            Key::of("abc"),
            Key::of(&longest),
            Key::of(&longest).and(&longest),
        ];
        let stored: std::collections::BTreeSet<_> = keys.iter().map(|key| key.to_bytes()).collect();
        assert_eq!(stored.len(), keys.len());
        for key in keys {
            assert_eq!(Key::of_stored(&key.to_bytes()), key);
        }
    }
}
