//! Reading documents: keys, fields by dotted path, identifiers, and reasons to leave a document
//! out.

use bson::spec::ElementType;
use bson::{Bson, RawArray, RawBsonRef, RawDocument};
use std::fmt;

/// Why a document or a part of one is skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{field} is not {expected}")]
    WrongType { field: String, expected: &'static str },
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("the document cannot be read")]
    Unreadable,
}

impl Malformed {
    pub fn wrong(field: &str, expected: &'static str) -> Self {
        Self::WrongType { field: field.to_owned(), expected }
    }
}

/// The `_id` of a document, its type included: `"1"` and `1` are two documents.
///
/// The first byte is the BSON type. A string or the hex digits of an ObjectId follow, or a document
/// that holds an `_id` of any other type. Hex digits take twice the memory of an ObjectId, but a
/// request does not have to encode them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey(Box<[u8]>);

const STRING: u8 = ElementType::String as u8;
const OBJECT_ID: u8 = ElementType::ObjectId as u8;

impl DocumentKey {
    /// The key of a document; `None` if it has no `_id`.
    pub fn from_document(document: &RawDocument) -> Option<Self> {
        document.get("_id").ok().flatten().map(Self::from_bson)
    }

    pub fn from_bson(id: RawBsonRef<'_>) -> Self {
        let mut bytes = vec![id.element_type() as u8];
        match id {
            RawBsonRef::ObjectId(id) => bytes.extend_from_slice(id.to_hex().as_bytes()),
            RawBsonRef::String(string) => bytes.extend_from_slice(string.as_bytes()),
            other => {
                let mut wrapped = bson::RawDocumentBuf::new();
                wrapped.append("", other.to_raw_bson());
                bytes.extend_from_slice(wrapped.as_bytes());
            }
        }
        Self(bytes.into_boxed_slice())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = IdString::from_key(&self.0) {
            return formatter.write_str(id.as_str());
        }
        let wrapped = self.0.get(1..).unwrap_or_default();
        match RawDocument::from_bytes(wrapped).and_then(|wrapped| wrapped.get("")) {
            // The form that MongoDB's own tools print.
            Ok(Some(id)) => match Bson::try_from(id.to_raw_bson()) {
                Ok(id) => write!(formatter, "{}", id.into_relaxed_extjson()),
                Err(_) => formatter.write_str("unreadable"),
            },
            _ => formatter.write_str("unreadable"),
        }
    }
}

/// The `_id` of a document as a string. An ObjectId is its 24 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdString<'a>(&'a str);

impl<'a> IdString<'a> {
    /// Reads the bytes of a [`DocumentKey`]; `None` if the `_id` is neither a string nor an
    /// ObjectId.
    #[inline]
    pub fn from_key(document: &'a [u8]) -> Option<Self> {
        match document.split_first()? {
            (&STRING | &OBJECT_ID, string) => std::str::from_utf8(string).ok().map(Self),
            _ => None,
        }
    }

    #[inline]
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

impl AsRef<str> for IdString<'_> {
    fn as_ref(&self) -> &str {
        self.0
    }
}

/// The value at a dotted path; `None` where it is missing or null.
pub fn field<'a>(
    document: &'a RawDocument,
    path: &str,
) -> Result<Option<RawBsonRef<'a>>, Malformed> {
    let mut current = document;
    let mut rest = path;
    loop {
        let (name, tail) =
            rest.split_once('.').map_or((rest, None), |(name, tail)| (name, Some(tail)));
        let value = current.get(name).map_err(|_| Malformed::Unreadable)?;
        match (value, tail) {
            (None | Some(RawBsonRef::Null), _) => return Ok(None),
            (Some(value), None) => return Ok(Some(value)),
            (Some(RawBsonRef::Document(inner)), Some(tail)) => (current, rest) = (inner, tail),
            (Some(_), Some(_)) => return Err(Malformed::wrong(path, "within a document")),
        }
    }
}

/// Reads an identifier: a string, or an ObjectId as its 24 hex digits.
pub fn identifier<T, E>(
    document: &RawDocument,
    path: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Malformed> {
    let malformed = || Malformed::wrong(path, "an ObjectId or a string of 1 to 256 bytes");
    match field(document, path)? {
        Some(RawBsonRef::ObjectId(id)) => parse(&id.to_hex()).map_err(|_| malformed()),
        Some(RawBsonRef::String(string)) => parse(string).map_err(|_| malformed()),
        _ => Err(malformed()),
    }
}

/// Whether a document is switched on. It is if the path is empty, or if its field is missing or
/// null.
pub fn is_active(document: &RawDocument, path: &str) -> Result<bool, Malformed> {
    if path.is_empty() {
        return Ok(true);
    }
    match field(document, path)? {
        None => Ok(true),
        Some(RawBsonRef::Boolean(active)) => Ok(active),
        Some(_) => Err(Malformed::wrong(path, "true or false")),
    }
}

/// The array at a dotted path.
pub fn array<'a>(document: &'a RawDocument, path: &str) -> Result<&'a RawArray, Malformed> {
    match field(document, path)? {
        Some(RawBsonRef::Array(array)) => Ok(array),
        _ => Err(Malformed::wrong(path, "an array")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_path_passes_through_documents_only() {
        let document = rawdoc! { "a": { "b": "x", "n": null }, "s": "y" };
        assert_eq!(field(&document, "a.b"), Ok(Some(RawBsonRef::String("x"))));
        assert_eq!(field(&document, "a.n"), Ok(None));
        assert_eq!(field(&document, "a.c.d"), Ok(None));
        assert!(field(&document, "s.b").is_err());
    }

    #[test]
    fn keys_of_different_types_differ() {
        let key = |document: bson::RawDocumentBuf| DocumentKey::from_document(&document).unwrap();
        assert_ne!(key(rawdoc! { "_id": "1" }), key(rawdoc! { "_id": 1 }));
        assert_ne!(key(rawdoc! { "_id": 1_i64 }), key(rawdoc! { "_id": 1 }));
        assert_eq!(key(rawdoc! { "_id": "wf" }).to_string(), "wf");
        assert_eq!(key(rawdoc! { "_id": 7 }).to_string(), "7");
    }

    #[test]
    fn an_object_id_is_its_hex_digits() {
        let id = bson::oid::ObjectId::new();
        let key = DocumentKey::from_document(&rawdoc! { "_id": id }).unwrap();
        assert_eq!(IdString::from_key(key.as_bytes()).unwrap().as_str(), id.to_hex());
        assert_eq!(key.to_string(), id.to_hex());
        let document = rawdoc! { "o": id, "n": 5 };
        let parse = |string: &str| Ok::<_, ()>(string.to_owned());
        assert_eq!(identifier(&document, "o", parse), Ok(id.to_hex()));
        assert!(identifier(&document, "n", parse).is_err());
    }
}
