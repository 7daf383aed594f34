//! Writes strings as JSON, with the escapes that `serde_json` writes.

use std::fmt::Write as _;

/// Appends a string with its quotes.
#[inline]
pub(super) fn append_string(buffer: &mut Vec<u8>, text: &str) {
    buffer.reserve(text.len() + 2);
    buffer.push(b'"');
    append_escaped(buffer, text);
    buffer.push(b'"');
}

/// Appends a string without quotes.
#[inline]
pub(super) fn append_escaped(buffer: &mut Vec<u8>, text: &str) {
    match find_special(text.as_bytes()) {
        None => buffer.extend_from_slice(text.as_bytes()),
        Some(_) => append_with_escapes(buffer, text),
    }
}

#[cold]
fn append_with_escapes(buffer: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    while let Some((before, special, after)) = split_at_special(rest) {
        buffer.extend_from_slice(before.as_bytes());
        append_escape(buffer, special);
        rest = after;
    }
    buffer.extend_from_slice(rest.as_bytes());
}

/// The content of a string that is written as JSON.
pub(super) fn within_quotes(json: &str) -> &str {
    json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or(json)
}

/// Splits a string at the first character that needs an escape.
fn split_at_special(text: &str) -> Option<(&str, u8, &str)> {
    let at = find_special(text.as_bytes())?;
    let (before, rest) = text.split_at_checked(at)?;
    let special = *rest.as_bytes().first()?;
    Some((before, special, rest.get(1..)?))
}

/// The position of the first byte that needs an escape. Eight bytes are looked at together.
#[inline]
fn find_special(bytes: &[u8]) -> Option<usize> {
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ');
    let (words, last) = bytes.as_chunks::<8>();
    let clear = words.iter().take_while(|word| !has_special(u64::from_le_bytes(**word))).count();
    // The bytes after the last whole word, filled up with spaces.
    let last = last.iter().rev().fold(SPACES, |word, byte| word << 8 | u64::from(*byte));
    if clear == words.len() && !has_special(last) {
        return None;
    }
    let rest = bytes.get(8 * clear..)?;
    rest.iter().position(is_special).map(|position| 8 * clear + position)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const SPACES: u64 = b' ' as u64 * ONES;

/// Whether one of the eight bytes is below 32, a quote or a backslash. Each test sets the highest
/// bit of such a byte, and sets it in another byte only if there is one.
fn has_special(word: u64) -> bool {
    const HIGHEST: u64 = 0x80 * ONES;
    let below = |word: u64, bound: u64| word.wrapping_sub(bound * ONES) & !word;
    let equal = |byte: u8| below(word ^ (u64::from(byte) * ONES), 1);
    (below(word, 32) | equal(b'"') | equal(b'\\')) & HIGHEST != 0
}

fn append_escape(buffer: &mut Vec<u8>, special: u8) {
    let short = match special {
        b'"' | b'\\' => special,
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        _ => {
            let hex = |digit: u8| if digit < 10 { b'0' + digit } else { b'a' - 10 + digit };
            let [high, low] = [special >> 4, special & 15].map(hex);
            buffer.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            return;
        }
    };
    buffer.extend_from_slice(&[b'\\', short]);
}

/// Appends bytes as a string without quotes: as UTF-8 if they are, else as Latin-1, as Node reads
/// headers.
pub(super) fn append_escaped_bytes(buffer: &mut Vec<u8>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => append_escaped(buffer, text),
        Err(_) => {
            append_escaped(buffer, &bytes.iter().copied().map(char::from).collect::<String>());
        }
    }
}

pub(super) fn append_number(buffer: &mut Vec<u8>, number: u64) {
    serde_json::to_writer(buffer, &number).expect("writing to memory cannot fail");
}

/// Appends what a value displays. It must need no escapes.
pub(super) fn append_display(buffer: &mut Vec<u8>, value: impl std::fmt::Display) {
    struct Bytes<'a>(&'a mut Vec<u8>);
    impl std::fmt::Write for Bytes<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    write!(Bytes(buffer), "{value}").expect("writing to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assert_as_serde_json(string: &str) {
        let mut buffer = Vec::new();
        append_string(&mut buffer, string);
        assert_eq!(buffer, serde_json::to_vec(string).unwrap());
    }

    #[test]
    fn strings_are_written_as_json() {
        let characters = ('\0'..='\u{ff}').map(String::from);
        for string in characters.chain([String::new(), "größer \"1\"\\ \u{2028}".to_owned()]) {
            assert_as_serde_json(&string);
            for padding in 0..9 {
                let padding = "~".repeat(padding);
                assert_as_serde_json(&format!("{padding}{string}{padding}"));
            }
        }
    }

    proptest! {
        #[test]
        fn any_string_is_written_as_json(string in "\\PC{0,40}|[\\x00-\\x7f\u{80}\u{ff}]{0,40}") {
            assert_as_serde_json(&string);
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_latin1() {
        let escaped = |bytes: &[u8]| {
            let mut buffer = Vec::new();
            append_escaped_bytes(&mut buffer, bytes);
            String::from_utf8(buffer).unwrap()
        };
        assert_eq!(escaped("gr\u{f6}\u{df}er\t".as_bytes()), "gr\u{f6}\u{df}er\\t");
        assert_eq!(escaped(b"gr\xf6\xdfer\""), "gr\u{f6}\u{df}er\\\"");
    }
}
