//! Reading documents: keys, fields by dotted path, identifiers, and reasons to leave a document
//! out.

use crate::ids::whole_number;
use bson::spec::BinarySubtype;
use bson::{Bson, RawArray, RawBinaryRef, RawBsonRef, RawDocument};
use std::borrow::Cow;
use std::fmt;
use uuid::Uuid;

/// Why a document or a part of one is skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{field} is not {expected}")]
    WrongType { field: String, expected: &'static str },
    #[error("{field} is {unfit}")]
    Unfit { field: String, unfit: &'static str },
    #[error("{0} is missing")]
    Missing(String),
    /// A reason from elsewhere, which contains no value of the document.
    #[error("{field} {reason}")]
    Described { field: String, reason: String },
    #[error("the document cannot be read")]
    Unreadable,
}

impl Malformed {
    pub fn wrong(field: &str, expected: &'static str) -> Self {
        Self::WrongType { field: field.to_owned(), expected }
    }

    /// A value that does not fit: what it is, and why it must not be that.
    pub fn unfit(field: &str, unfit: &'static str) -> Self {
        Self::Unfit { field: field.to_owned(), unfit }
    }
}

/// The text form of an id: a string as it is, the hex digits of an ObjectId, the digits of an
/// integer, or a UUID with hyphens. A floating-point number without a fraction is an integer.
/// `None` if the value is no id.
pub fn id_text(id: RawBsonRef<'_>) -> Option<Cow<'_, str>> {
    match id {
        RawBsonRef::String(text) => Some(text.into()),
        RawBsonRef::ObjectId(id) => Some(id.to_hex().into()),
        RawBsonRef::Int32(number) => Some(number.to_string().into()),
        RawBsonRef::Int64(number) => Some(number.to_string().into()),
        RawBsonRef::Double(number) => Some(whole_number(number)?.to_string().into()),
        RawBsonRef::Binary(binary) => Some(uuid(binary)?.into()),
        _ => None,
    }
}

/// The usual form of a UUID. The older subtype 3 is none: drivers order its bytes differently.
pub(in crate::mirror) fn uuid(binary: RawBinaryRef<'_>) -> Option<String> {
    let RawBinaryRef { subtype: BinarySubtype::Uuid, bytes } = binary else { return None };
    Uuid::from_slice(bytes).ok().map(|uuid| uuid.hyphenated().to_string())
}

/// The `_id` of a document, its type included: `"1"` and `1` are two documents.
///
/// The first byte is the BSON type and the text form of the id follows, so a request does not have
/// to encode it. If the `_id` has no text form, the first byte is a mark, and a document with
/// the `_id` follows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey(Box<[u8]>);

/// No type of BSON has this number.
const NO_TEXT: u8 = 0;

impl DocumentKey {
    /// The key of a document; `None` if it has no `_id`.
    pub fn from_document(document: &RawDocument) -> Option<Self> {
        document.get("_id").ok().flatten().map(Self::from_bson)
    }

    pub fn from_bson(id: RawBsonRef<'_>) -> Self {
        let bytes = if let Some(text) = id_text(id) {
            [&[id.element_type() as u8], text.as_bytes()].concat()
        } else {
            let mut wrapped = bson::RawDocumentBuf::new();
            wrapped.append("", id.to_raw_bson());
            [&[NO_TEXT], wrapped.as_bytes()].concat()
        };
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

/// The `_id` of a document in its text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdString<'a>(&'a str);

impl<'a> IdString<'a> {
    /// Reads the bytes of a [`DocumentKey`]; `None` if the `_id` has no text form.
    #[inline]
    pub fn from_key(document: &'a [u8]) -> Option<Self> {
        match document.split_first()? {
            (&NO_TEXT, _) => None,
            (_, text) => std::str::from_utf8(text).ok().map(Self),
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

/// Reads an identifier in its text form.
pub fn identifier<T, E>(
    document: &RawDocument,
    path: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Malformed> {
    const EXPECTED: &str = "an ObjectId, an integer, a UUID or a string of 1 to 256 bytes";
    let text = field(document, path)?.and_then(id_text);
    let id = text.and_then(|text| parse(&text).ok());
    id.ok_or_else(|| Malformed::wrong(path, EXPECTED))
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
    use bson::{RawBson, rawdoc};

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
        assert_ne!(key(rawdoc! { "_id": 1.5 }), key(rawdoc! { "_id": 2.5 }));
        assert_eq!(key(rawdoc! { "_id": "wf" }).to_string(), "wf");
        assert_eq!(key(rawdoc! { "_id": 7 }).to_string(), "7");
    }

    #[test]
    fn an_id_has_a_text_form() {
        let object_id = bson::oid::ObjectId::new();
        let uuid = bson::Uuid::from_bytes([0xab; 16]);
        let parse = |string: &str| Ok::<_, ()>(string.to_owned());
        for (id, text) in [
            (RawBson::from("Id"), "Id".to_owned()),
            (object_id.into(), object_id.to_hex()),
            (42.into(), "42".to_owned()),
            (i64::MIN.into(), i64::MIN.to_string()),
            (42.0.into(), "42".to_owned()),
            (bson::Binary::from(uuid).into(), "abababab-abab-abab-abab-abababababab".to_owned()),
        ] {
            let document = rawdoc! { "_id": id };
            let key = DocumentKey::from_document(&document).unwrap();
            assert_eq!(IdString::from_key(key.as_bytes()).unwrap().as_str(), text);
            assert_eq!(key.to_string(), text);
            assert_eq!(identifier(&document, "_id", parse), Ok(text));
        }
    }

    #[test]
    fn other_values_are_no_ids() {
        let old_uuid = bson::Binary { subtype: BinarySubtype::UuidOld, bytes: vec![1; 16] };
        let short = bson::Binary { subtype: BinarySubtype::Uuid, bytes: vec![1; 15] };
        for id in [
            RawBson::from(1.5),
            9_007_199_254_740_992.0.into(),
            f64::NAN.into(),
            true.into(),
            old_uuid.into(),
            short.into(),
            rawdoc! { "a": 1 }.into(),
        ] {
            let document = rawdoc! { "_id": id };
            let key = DocumentKey::from_document(&document).unwrap();
            assert_eq!(IdString::from_key(key.as_bytes()), None, "{document:?}");
            assert_ne!(key.to_string(), "unreadable");
            assert!(identifier(&document, "_id", |id: &str| Ok::<_, ()>(id.to_owned())).is_err());
        }
    }
}
