//! Members of a body of JSON that is not trusted yet.
//!
//! A lookup reads the body once, and what a name leads to once for each name of the path. It copies
//! nothing but the text that it finds, and its stack does not depend on the body.

use crate::json;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A body of JSON. `None` if it is not JSON, or is nested deeper than a payload may be. The parser
/// remembers the open arrays and objects, so their depth is checked first.
pub(super) fn value(body: &[u8]) -> Option<&RawValue> {
    if json::is_too_deep(body) { None } else { serde_json::from_slice(body).ok() }
}

/// Calls `visit` for each value that a path leads to, and with `None` where it leads nowhere.
pub(super) fn visit<'a>(
    value: &'a RawValue,
    names: &[String],
    visit_value: &mut dyn FnMut(Option<&'a RawValue>),
) {
    let Some((name, names)) = names.split_first() else { return visit_value(Some(value)) };
    let mut is_found = false;
    let mut found = |inner: &'a RawValue| {
        is_found = true;
        visit(inner, names, visit_value);
    };
    match value.get().as_bytes().first() {
        Some(b'{') => for_each_member(value, |key, inner| {
            if is_text(key, name) {
                found(inner);
            }
        }),
        Some(b'[') => {
            let wanted = name.parse().ok();
            for_each_element(value, |index, inner| {
                if name == "*" || wanted == Some(index) {
                    found(inner);
                }
            });
        }
        _ => {}
    }
    if !is_found {
        visit_value(None);
    }
}

/// The number of members of an object, and how many of them have a name. `None` if it is not one.
pub(super) fn count_members(value: &RawValue, name: &str) -> Option<(usize, usize)> {
    let (mut all, mut named) = (0, 0);
    for_each_member(value, |key, _| {
        all += 1;
        named += usize::from(is_text(key, name));
    });
    value.get().starts_with('{').then_some((all, named))
}

/// Whether a value is a string, or an array with it.
pub(super) fn has_string(value: &RawValue, wanted: &str) -> bool {
    let is_wanted = |value: &RawValue| value.get().starts_with('"') && is_text(value, wanted);
    let mut is_found = is_wanted(value);
    for_each_element(value, |_, element| is_found |= is_wanted(element));
    is_found
}

/// The text of a string, or a number or boolean as it is written, if it has at most `limit` bytes.
pub(super) fn text(value: &RawValue, limit: usize) -> Option<Cow<'_, str>> {
    let json = value.get();
    match json.as_bytes().first()? {
        b'{' | b'[' | b'n' => None,
        b'"' => string(json, limit),
        _ => (json.len() <= limit).then_some(Cow::Borrowed(json)),
    }
}

fn string(json: &str, limit: usize) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    // An escaped character is up to six times as long.
    if inner.len() > limit.saturating_mul(6) {
        return None;
    }
    let text = if inner.contains('\\') {
        Cow::Owned(serde_json::from_str(json).ok()?)
    } else {
        Cow::Borrowed(inner)
    };
    (text.len() <= limit).then_some(text)
}

fn is_text(value: &RawValue, wanted: &str) -> bool {
    text(value, wanted.len()).is_some_and(|text| text == wanted)
}

/// Calls `visit` for the name and the value of each member, if the value is an object.
fn for_each_member<'a>(value: &'a RawValue, visit: impl FnMut(&'a RawValue, &'a RawValue)) {
    // It is valid JSON, so an error says only that it is no object.
    let _ = serde_json::Deserializer::from_str(value.get()).deserialize_map(Members(visit));
}

/// Calls `visit` for the index and the value of each element, if the value is an array.
fn for_each_element<'a>(value: &'a RawValue, visit: impl FnMut(usize, &'a RawValue)) {
    let _ = serde_json::Deserializer::from_str(value.get()).deserialize_seq(Elements(visit));
}

struct Members<F>(F);

impl<'de, F: FnMut(&'de RawValue, &'de RawValue)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry()? {
            (self.0)(name, value);
        }
        Ok(())
    }
}

struct Elements<F>(F);

impl<'de, F: FnMut(usize, &'de RawValue)> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(value) = elements.next_element()? {
            (self.0)(index, value);
            index += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::MAX_DEPTH;

    #[test]
    fn a_body_is_as_deep_as_a_payload_may_be() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(value(nested(MAX_DEPTH).as_bytes()).is_some());
        assert!(value(nested(MAX_DEPTH + 1).as_bytes()).is_none());
        let in_string = format!("[\"\\\"{}\\\\\", \"{}\"]", "[".repeat(500), "{".repeat(500));
        assert!(value(in_string.as_bytes()).is_some());
        let flat = format!("[{}0]", "[],{},".repeat(500));
        assert!(value(flat.as_bytes()).is_some());
        for malformed in ["", "[", "]", "{\"a\"}", "[1] 2", "\"\\", "nul", "[\"\u{1}\"]"] {
            assert!(value(malformed.as_bytes()).is_none(), "{malformed}");
        }
        assert!(value(b"[\"\xff\"]").is_none());
    }

    #[test]
    fn a_text_is_what_is_written_and_not_too_long() {
        let text = |json: &str, limit| {
            let value = value(json.as_bytes()).unwrap();
            text(value, limit).map(Cow::into_owned)
        };
        for (json, expected) in [
            (" \"ab\" ", Some("ab")),
            ("\"\"", Some("")),
            ("\"\\u0061\\n\\ud83d\\ude00\"", Some("a\n\u{1f600}")),
            ("\"\\ud800\"", None),
            ("12", Some("12")),
            ("-1.50e+3", Some("-1.50e+3")),
            ("1e400", Some("1e400")),
            ("18446744073709551617", Some("18446744073709551617")),
            ("true", Some("true")),
            ("false", Some("false")),
            ("null", None),
            ("{}", None),
            ("[1]", None),
        ] {
            assert_eq!(text(json, 100).as_deref(), expected, "{json}");
        }
        assert_eq!(text("\"abc\"", 3).as_deref(), Some("abc"));
        assert_eq!(text("\"\\u0061bc\"", 3).as_deref(), Some("abc"));
        assert_eq!(
            (text("\"abcd\"", 3), text("\"\\u0061bcd\"", 3), text("1234", 3)),
            (None, None, None)
        );
    }

    #[test]
    fn a_string_or_an_array_has_a_string() {
        let has = |json: &str| has_string(value(json.as_bytes()).unwrap(), "1");
        assert!(has("\"1\"") && has("[2, \"\\u0031\"]"));
        for json in ["1", "[1]", "\"2\"", "[]", "{\"1\":\"1\"}", "[[\"1\"]]", "null"] {
            assert!(!has(json), "{json}");
        }
    }

    #[test]
    fn members_are_counted_by_their_decoded_names() {
        let count = |json: &str| count_members(value(json.as_bytes()).unwrap(), "ab");
        assert_eq!(count("{}"), Some((0, 0)));
        assert_eq!(count("{\"ab\":{\"ab\":1},\"\\u0061b\":2,\"abc\":3}"), Some((3, 2)));
        assert_eq!(count("[\"ab\"]"), None);
        assert_eq!(count("\"ab\""), None);
    }
}
