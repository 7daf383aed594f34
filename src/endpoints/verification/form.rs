//! Forms that are not trusted yet, `application/x-www-form-urlencoded`.

use crate::endpoints::verification::refusal::{Refusal, RefusalKind};
use percent_encoding::percent_decode;
use std::ops::Range;

/// Bound on the fields of a form that is signed, because they are sorted.
const MAX_FIELDS: usize = 1000;

/// Memory for each field while they are sorted: where they end, and their names and values.
const BYTES_PER_FIELD: usize = size_of::<Ends>() + size_of::<(&[u8], &[u8])>();

/// Where a name and a value end in the decoded form.
type Ends = (usize, usize);

/// The names and values of a form, still encoded.
fn fields(body: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pieces = body.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty());
    pieces.map(|piece| {
        let equals = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
        let (name, rest) = piece.split_at(equals);
        (name, rest.get(1..).unwrap_or_default())
    })
}

/// The bytes of a name or a value, at most as many as are encoded.
fn decoded(encoded: &[u8]) -> impl Iterator<Item = u8> {
    let words = encoded.split(|byte| *byte == b'+').enumerate();
    words.flat_map(|(index, word)| {
        (index > 0).then_some(b' ').into_iter().chain(percent_decode(word))
    })
}

/// The values of a name. `None` for one that is not UTF-8 or has more than `limit` bytes.
pub(super) fn values<'a>(
    body: &'a [u8],
    name: &'a str,
    limit: usize,
) -> impl Iterator<Item = Option<String>> {
    let named = fields(body).filter(|(found, _)| decoded(found).eq(name.bytes()));
    named.map(move |(_, value)| {
        let mut text = Vec::with_capacity(value.len().min(limit));
        text.extend(decoded(value).take(limit));
        let is_whole = decoded(value).nth(limit).is_none();
        String::from_utf8(text).ok().filter(|_| is_whole)
    })
}

/// Whether a body of unknown type reads like a form.
pub(super) fn is_likely(body: &[u8]) -> bool {
    body.contains(&b'=') && body.iter().all(u8::is_ascii_graphic)
}

/// Bound on the memory that [`signed`] takes.
pub(super) fn bytes_at_most(body: &[u8]) -> usize {
    2 * body.len() + MAX_FIELDS.min(body.len()) * BYTES_PER_FIELD
}

/// The fields of a form, sorted, each once, without anything between them.
pub(super) fn signed(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let count = fields(body).take(MAX_FIELDS + 1).count();
    if count > MAX_FIELDS {
        return Err(Refusal::with_part(RefusalKind::Malformed, "body"));
    }
    let mut form = Vec::with_capacity(body.len());
    let mut ends: Vec<Ends> = Vec::with_capacity(count);
    for (name, value) in fields(body) {
        form.extend(decoded(name));
        let name = form.len();
        form.extend(decoded(value));
        ends.push((name, form.len()));
    }
    Ok(sorted(&form, &ends))
}

fn sorted(form: &[u8], ends: &[Ends]) -> Vec<u8> {
    let bytes = |range: Range<usize>| form.get(range).unwrap_or_default();
    let mut fields: Vec<(&[u8], &[u8])> = Vec::with_capacity(ends.len());
    let mut begin = 0;
    for (name, value) in ends {
        fields.push((bytes(begin..*name), bytes(*name..*value)));
        begin = *value;
    }
    fields.sort_unstable();
    fields.dedup();
    let mut sorted = Vec::with_capacity(form.len());
    for (name, value) in fields {
        sorted.extend_from_slice(name);
        sorted.extend_from_slice(value);
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_fields_of_a_form_are_sorted_and_each_is_there_once() {
        assert_eq!(signed(b"b=2&a=%2B1&b=1&b=2&c").unwrap(), b"a+1b1b2c");
        assert_eq!(signed(b"").unwrap(), b"");
        assert_eq!(signed(b"&&=&x=a%zz%").unwrap(), b"xa%zz%");
    }

    #[test]
    fn a_form_has_a_bounded_number_of_fields() {
        assert!(signed("a=1&".repeat(MAX_FIELDS).as_bytes()).is_ok());
        let refusal = signed("a=1&".repeat(MAX_FIELDS + 1).as_bytes()).unwrap_err();
        assert_eq!(refusal.to_string(), "malformed: body");
        // Empty fields are none.
        assert_eq!(signed("&".repeat(100_000).as_bytes()).unwrap(), b"");
    }

    #[test]
    fn a_value_is_text_of_bounded_length() {
        let all = |body: &str| values(body.as_bytes(), "a b", 3).collect::<Vec<_>>();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(all("a+b=1&x=2&a%20b=%31+3&A+b=4"), [text("1"), text("1 3")]);
        assert_eq!(
            all("a+b=123&a+b=1234&a+b=%31%32%33&a+b=%FF&a+b"),
            [text("123"), None, text("123"), None, text("")]
        );
        assert_eq!(all("x=1"), []);
    }

    proptest! {
        #[test]
        fn a_form_is_decoded_as_browsers_encode_it(body in "([x-z%=&+]|%4[1-3]|%C3%A9|ü){0,40}") {
            let mut fields: Vec<(String, String)> =
                form_urlencoded::parse(body.as_bytes()).into_owned().collect();
            fields.sort();
            fields.dedup();
            let expected: String = fields.into_iter().flat_map(|(name, value)| [name, value]).collect();
            prop_assert_eq!(signed(body.as_bytes()).unwrap(), expected.into_bytes());
        }
    }
}
