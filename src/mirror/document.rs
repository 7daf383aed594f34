//! Reading documents: fields by dotted path, identifiers, and what makes a document malformed.

use bson::spec::ElementType;
use bson::{Bson, RawArray, RawBsonRef, RawDocument};
use std::fmt;

/// Why a document is left out.
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

/// The `_id` of a document, its type included: `"1"` and `1` are two documents. It is the type and then the
/// text or the digits of the ObjectId, or a document that holds any other `_id`. Digits take twice the bytes of an
/// ObjectId, and need not be made for every request that meets it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey(Box<[u8]>);

const TEXT: u8 = ElementType::String as u8;
const OBJECT_ID: u8 = ElementType::ObjectId as u8;

impl DocumentKey {
    /// The key of a document that has an `_id`.
    pub fn of(document: &RawDocument) -> Option<Self> {
        document.get("_id").ok().flatten().map(Self::from_bson)
    }

    pub fn from_bson(id: RawBsonRef<'_>) -> Self {
        let mut bytes = vec![id.element_type() as u8];
        match id {
            RawBsonRef::ObjectId(id) => bytes.extend_from_slice(id.to_hex().as_bytes()),
            RawBsonRef::String(text) => bytes.extend_from_slice(text.as_bytes()),
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
        if let Some(id) = IdText::of(&self.0) {
            return formatter.write_str(id.as_str());
        }
        let wrapped = self.0.get(1..).unwrap_or_default();
        match RawDocument::from_bytes(wrapped).and_then(|wrapped| wrapped.get("")) {
            // As MongoDB's own tools show it.
            Ok(Some(id)) => match Bson::try_from(id.to_raw_bson()) {
                Ok(id) => write!(formatter, "{}", id.into_relaxed_extjson()),
                Err(_) => formatter.write_str("unreadable"),
            },
            _ => formatter.write_str("unreadable"),
        }
    }
}

/// The `_id` of a document that is a text or an ObjectId, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdText<'a>(&'a str);

impl<'a> IdText<'a> {
    /// Reads the bytes of a [`DocumentKey`].
    #[inline]
    pub fn of(document: &'a [u8]) -> Option<Self> {
        match document.split_first()? {
            (&TEXT | &OBJECT_ID, text) => std::str::from_utf8(text).ok().map(Self),
            _ => None,
        }
    }

    #[inline]
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

impl AsRef<str> for IdText<'_> {
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
        let (name, deeper) =
            rest.split_once('.').map_or((rest, None), |(name, deeper)| (name, Some(deeper)));
        let value = current.get(name).map_err(|_| Malformed::Unreadable)?;
        match (value, deeper) {
            (None | Some(RawBsonRef::Null), _) => return Ok(None),
            (Some(value), None) => return Ok(Some(value)),
            (Some(RawBsonRef::Document(inner)), Some(deeper)) => (current, rest) = (inner, deeper),
            (Some(_), Some(_)) => return Err(Malformed::wrong(path, "within a document")),
        }
    }
}

/// An identifier: text, or an ObjectId as its 24 hex digits.
pub fn identifier<T, E>(
    document: &RawDocument,
    path: &str,
    make: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Malformed> {
    let malformed = || Malformed::wrong(path, "an ObjectId or a text of 1 to 256 bytes");
    match field(document, path)? {
        Some(RawBsonRef::ObjectId(id)) => make(&id.to_hex()).map_err(|_| malformed()),
        Some(RawBsonRef::String(text)) => make(text).map_err(|_| malformed()),
        _ => Err(malformed()),
    }
}

/// Whether a document is switched on: missing or null is on. An empty path: all are.
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
    fn a_path_leads_through_documents_only() {
        let document = rawdoc! { "a": { "b": "x", "n": null }, "s": "y" };
        assert_eq!(field(&document, "a.b"), Ok(Some(RawBsonRef::String("x"))));
        assert_eq!(field(&document, "a.n"), Ok(None));
        assert_eq!(field(&document, "a.c.d"), Ok(None));
        assert!(field(&document, "s.b").is_err());
    }

    #[test]
    fn keys_of_different_types_differ() {
        let key = |document: bson::RawDocumentBuf| DocumentKey::of(&document).unwrap();
        assert_ne!(key(rawdoc! { "_id": "1" }), key(rawdoc! { "_id": 1 }));
        assert_ne!(key(rawdoc! { "_id": 1_i64 }), key(rawdoc! { "_id": 1 }));
        assert_eq!(key(rawdoc! { "_id": "wf" }).to_string(), "wf");
        assert_eq!(key(rawdoc! { "_id": 7 }).to_string(), "7");
    }

    #[test]
    fn an_object_id_is_its_hex_digits() {
        let id = bson::oid::ObjectId::new();
        let key = DocumentKey::of(&rawdoc! { "_id": id }).unwrap();
        assert_eq!(IdText::of(key.as_bytes()).unwrap().as_str(), id.to_hex());
        assert_eq!(key.to_string(), id.to_hex());
        let document = rawdoc! { "o": id, "n": 5 };
        let take = |text: &str| Ok::<_, ()>(text.to_owned());
        assert_eq!(identifier(&document, "o", take), Ok(id.to_hex()));
        assert!(identifier(&document, "n", take).is_err());
    }
}
