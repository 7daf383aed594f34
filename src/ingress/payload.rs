//! Removes one member from a JSON object and keeps all other bytes verbatim.
//!
//! The removed range is from the member's opening key quote to that of the next member. For the
//! last member, it is from the comma before it to the end of its value. For the only member, it is
//! from its key quote to the end of its value. White space outside the object is removed too. The
//! caller has checked that the bytes are valid JSON.

use bytes::Bytes;

/// Returns the object `json` in two pieces, without the member whose key begins at `key_quote` and
/// whose value, a string, begins at `value`.
pub(super) fn payload(json: &Bytes, key_quote: usize, value: usize) -> [Bytes; 2] {
    let (cut_begin, cut_end) = range(json, key_quote, value);
    let begin = skip_space(json, 0);
    let end = json.iter().rposition(|byte| !is_space(*byte)).map_or(json.len(), |last| last + 1);
    [json.slice(begin..cut_begin), json.slice(cut_end..end)]
}

fn range(json: &[u8], key_quote: usize, value: usize) -> (usize, usize) {
    let value_end = end_of_string(json, value);
    let next = skip_space(json, value_end);
    if json.get(next) == Some(&b',') {
        return (key_quote, skip_space(json, next + 1));
    }
    // The last member follows a comma, or the brace of the object if it is the only one.
    let before = json.get(..key_quote).unwrap_or_default();
    let previous = before.iter().rposition(|byte| !is_space(*byte)).unwrap_or_default();
    match json.get(previous) {
        Some(b',') => (previous, value_end),
        _ => (key_quote, value_end),
    }
}

/// One past the closing quote of the string that opens at `quote`.
fn end_of_string(json: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

fn skip_space(json: &[u8], from: usize) -> usize {
    let rest = json.get(from..).unwrap_or_default();
    from + rest.iter().position(|byte| !is_space(*byte)).unwrap_or(rest.len())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
