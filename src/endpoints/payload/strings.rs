//! Texts and bytes as strings of JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The bytes of a text as a string of JSON, with its quotes.
pub(super) fn text_bytes(text: &[u8]) -> usize {
    text.iter().map(|byte| escaped_bytes(*byte)).sum::<usize>() + 2
}

/// The bytes that a byte takes within a string of JSON.
fn escaped_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        ..b' ' => 6,
        _ => 1,
    }
}

/// The bytes of other bytes as a string of JSON, with its quotes.
pub(super) fn base64_bytes(bytes: &[u8]) -> usize {
    4 * bytes.len().div_ceil(3) + 2
}

/// A text as a string of JSON. What is not UTF-8 is replaced; the caller has checked that it is.
pub(super) fn text(text: &[u8]) -> Vec<u8> {
    let mut json = Vec::with_capacity(text_bytes(text));
    append_text(&mut json, &String::from_utf8_lossy(text));
    json
}

pub(super) fn base64(bytes: &[u8]) -> Vec<u8> {
    let mut json = Vec::with_capacity(base64_bytes(bytes));
    append_base64(&mut json, bytes);
    json
}

pub(super) fn append_text(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("a Vec accepts every byte");
}

pub(super) fn append_base64(json: &mut Vec<u8>, bytes: &[u8]) {
    json.push(b'"');
    let begin = json.len();
    json.resize(begin + 4 * bytes.len().div_ceil(3), 0);
    let space = json.get_mut(begin..).unwrap_or_default();
    let written = STANDARD.encode_slice(bytes, space).expect("the space is what base64 takes");
    json.truncate(begin + written);
    json.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sizes_are_exact(written in ".{0,40}|[\\x00-\\x7f]{0,40}", bytes: Vec<u8>) {
            prop_assert_eq!(text(written.as_bytes()).len(), text_bytes(written.as_bytes()));
            prop_assert_eq!(base64(&bytes).len(), base64_bytes(&bytes));
        }
    }
}
