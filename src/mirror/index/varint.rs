//! Numbers and byte strings of variable length, as a shard stores them.

/// Takes a byte string off the front. Its length stands before it.
#[inline]
pub fn take_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = take_number(bytes)?;
    rest.split_at_checked(length)
}

/// Takes a number off the front: seven bits a byte, the lowest first; the last byte is below 128.
#[inline]
pub(in crate::mirror) fn take_number(bytes: &[u8]) -> Option<(usize, &[u8])> {
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

/// Appends a byte string after its length.
pub fn push_bytes(bytes: &mut Vec<u8>, pushed: &[u8]) {
    push_number(bytes, pushed.len());
    bytes.extend_from_slice(pushed);
}

/// Appends a number as [`take_number`] reads it.
pub(in crate::mirror) fn push_number(bytes: &mut Vec<u8>, mut number: usize) {
    while let Ok(low) = u8::try_from(number & 0x7f) {
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}
