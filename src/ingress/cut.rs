//! Cutting one member out of an object, byte for byte.
//!
//! The rule (`contract.md` 5): from the member's key quote to the next member's key quote; if it is
//! the last member, from the comma before it to the end of its value; if it is the only one, all of
//! it. White space outside the object goes. The text is known to be valid JSON.

use bytes::Bytes;

/// What is left of `text`, an object, without the member whose key begins at `key_quote` and whose
/// value, a string, begins at `value`.
pub(super) fn payload(text: &Bytes, key_quote: usize, value: usize) -> [Bytes; 2] {
    let (cut_begin, cut_end) = range(text, key_quote, value);
    let begin = skip_space(text, 0);
    let end = text.iter().rposition(|byte| !is_space(*byte)).map_or(text.len(), |last| last + 1);
    [text.slice(begin..cut_begin), text.slice(cut_end..end)]
}

fn range(text: &[u8], key_quote: usize, value: usize) -> (usize, usize) {
    let value_end = end_of_string(text, value);
    let next = skip_space(text, value_end);
    if text.get(next) == Some(&b',') {
        return (key_quote, skip_space(text, next + 1));
    }
    // The last member: what stands before its key is a comma, or the brace of the object.
    let before = text.get(..key_quote).unwrap_or_default();
    let previous = before.iter().rposition(|byte| !is_space(*byte)).unwrap_or_default();
    match text.get(previous) {
        Some(b',') => (previous, value_end),
        _ => (key_quote, value_end),
    }
}

/// One past the closing quote of the string that opens at `quote`.
fn end_of_string(text: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn skip_space(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + rest.iter().position(|byte| !is_space(*byte)).unwrap_or(rest.len())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
