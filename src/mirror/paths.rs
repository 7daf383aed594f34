//! Dotted paths to the fields of documents.

use crate::mirror::document::Malformed;
use crate::settings::{Section, path_fault};
use bson::{RawBsonRef, RawDocument};

/// Reads a key whose value is a dotted path.
pub fn read(section: &mut Section<'_>, key: &str, default: &str) -> String {
    let path = section.name(key, default);
    check(section, key, &path);
    path
}

/// Reports what is wrong with a path that is not empty.
pub fn check(section: &mut Section<'_>, key: &str, path: &str) {
    let path = (!path.is_empty()).then_some(path);
    if let Some(fault) = path.and_then(path_fault) {
        section.fault(key, format!("is not a dotted path: {fault}"));
    }
}

/// Whether a path is another one, or leads to a field within it.
pub fn is_within(path: &str, other: &str) -> bool {
    path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The paths without those that lie within others. MongoDB refuses to project both.
pub fn outermost<'a>(paths: &[&'a str]) -> Vec<&'a str> {
    let mut outermost: Vec<&str> = Vec::new();
    for path in paths {
        let is_inner = paths.iter().any(|other| other != path && is_within(path, other));
        if !is_inner && !outermost.contains(path) {
            outermost.push(path);
        }
    }
    outermost
}

/// The value at a path as a projection of MongoDB shows it; `None` where it is missing or null. A
/// projection reads no field of a value that is neither a document nor an array. An array on the
/// way is an error.
pub fn projected<'a>(
    document: &'a RawDocument,
    path: &str,
) -> Result<Option<RawBsonRef<'a>>, Malformed> {
    let mut current = document;
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let value = current.get(name).map_err(|_| Malformed::Unreadable)?;
        match value {
            None | Some(RawBsonRef::Null) => return Ok(None),
            Some(value) if names.peek().is_none() => return Ok(Some(value)),
            Some(RawBsonRef::Document(inner)) => current = inner,
            Some(RawBsonRef::Array(_)) => return Err(Malformed::wrong(path, "outside of arrays")),
            Some(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// Calls `visit` with every value at a path, which may lead through arrays of documents. An array
/// at the end of the path is visited element by element. Values that are missing are not visited,
/// nor are fields of a value that is no document: a projection of MongoDB leaves them out too.
pub fn visit_values<'a>(
    document: &'a RawDocument,
    path: &str,
    visit: &mut impl FnMut(Result<RawBsonRef<'a>, Malformed>),
) {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let value = document.get(name).map_err(|_| Malformed::Unreadable);
    match (value, rest) {
        (Err(malformed), _) => visit(Err(malformed)),
        (Ok(Some(RawBsonRef::Array(elements))), rest) => {
            for element in elements {
                match (element, rest) {
                    (Err(_), _) => visit(Err(Malformed::Unreadable)),
                    (Ok(element), None) => visit(Ok(element)),
                    (Ok(RawBsonRef::Document(inner)), Some(rest)) => {
                        visit_values(inner, rest, visit);
                    }
                    (Ok(_), Some(_)) => {}
                }
            }
        }
        (Ok(Some(value)), None) => visit(Ok(value)),
        (Ok(Some(RawBsonRef::Document(inner))), Some(rest)) => visit_values(inner, rest, visit),
        (Ok(None), _) | (Ok(Some(_)), Some(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn paths_within_others_are_left_out() {
        assert_eq!(outermost(&["a.b", "ab", "a", "a.b.c", "ab", "b.a"]), ["ab", "a", "b.a"]);
        assert!(is_within("a.b", "a") && is_within("a", "a") && !is_within("ab", "a"));
    }

    #[test]
    fn values_are_found_through_arrays_of_documents() {
        let document = rawdoc! { "keys": [
            { "hash": "one" }, { "hash": ["two", "three"] }, { "other": 1 }, 5, { "hash": null },
        ], "plain": "four" };
        let values = |path: &str| {
            let mut values = Vec::new();
            visit_values(&document, path, &mut |value| values.push(value));
            values
        };
        let text = |text: &'static str| Ok(RawBsonRef::String(text));
        let found = [text("one"), text("two"), text("three"), Ok(RawBsonRef::Null)];
        assert_eq!(values("keys.hash"), found);
        assert_eq!(values("plain"), [text("four")]);
        assert_eq!(values("none.hash"), []);
        assert_eq!(values("plain.hash"), []);
    }

    #[test]
    fn a_projected_value_is_not_within_an_array() {
        let document = rawdoc! { "a": { "b": 1, "n": null }, "s": "text", "l": [{ "b": 1 }] };
        assert_eq!(projected(&document, "a.b"), Ok(Some(RawBsonRef::Int32(1))));
        for missing in ["a.n", "a.n.x", "a.x", "s.b", "x.y"] {
            assert_eq!(projected(&document, missing), Ok(None), "{missing}");
        }
        assert!(projected(&document, "l.b").is_err());
    }
}
