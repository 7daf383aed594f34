//! Values of documents as JSON.

use crate::ids::whole_number;
use crate::mirror::document::uuid;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bson::{Bson, RawBsonRef};
use serde::Serialize;

/// A value that has no JSON text, or one that is longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoText;

/// The JSON text of a value, of at most `limit` bytes.
///
/// An ObjectId is its hex digits, a date is in the form of RFC 3339 in UTC, a UUID in its usual
/// form, other bytes are in base64. A number that JSON does not have is null. Other types have the
/// form of MongoDB's relaxed extended JSON.
pub fn json_text(value: RawBsonRef<'_>, limit: usize) -> Result<String, NoText> {
    let mut writer = JsonWriter { text: Vec::new(), limit };
    writer.append(value)?;
    String::from_utf8(writer.text).map_err(|_| NoText)
}

struct JsonWriter {
    text: Vec<u8>,
    limit: usize,
}

impl JsonWriter {
    fn append(&mut self, value: RawBsonRef<'_>) -> Result<(), NoText> {
        match value {
            RawBsonRef::Document(document) => {
                self.append_list(*b"{}", document, |writer, (name, value)| {
                    writer.append_json(name)?;
                    writer.text.push(b':');
                    writer.append(value)
                })?;
            }
            RawBsonRef::Array(array) => self.append_list(*b"[]", array, Self::append)?,
            RawBsonRef::Double(number) => match whole_number(number) {
                Some(whole) => self.append_json(&whole)?,
                None => self.append_json(&number)?,
            },
            // A long string is not copied to find out that it is long.
            RawBsonRef::String(text) if text.len() > self.limit => return Err(NoText),
            RawBsonRef::String(text) | RawBsonRef::Symbol(text) => self.append_json(text)?,
            RawBsonRef::Boolean(value) => self.append_json(&value)?,
            RawBsonRef::Int32(number) => self.append_json(&number)?,
            RawBsonRef::Int64(number) => self.append_json(&number)?,
            RawBsonRef::Null | RawBsonRef::Undefined => self.append_json(&())?,
            RawBsonRef::ObjectId(id) => self.append_json(&id.to_hex())?,
            RawBsonRef::DateTime(time) => {
                self.append_json(&time.try_to_rfc3339_string().map_err(|_| NoText)?)?;
            }
            RawBsonRef::Decimal128(number) => self.append_json(&number.to_string())?,
            RawBsonRef::Binary(binary) => {
                let text = uuid(binary).unwrap_or_else(|| STANDARD.encode(binary.bytes));
                self.append_json(&text)?;
            }
            other => {
                let other = Bson::try_from(other.to_raw_bson()).map_err(|_| NoText)?;
                self.append_json(&other.into_relaxed_extjson())?;
            }
        }
        self.within_limit()
    }

    /// Appends the elements between two brackets.
    fn append_list<E, F>(
        &mut self,
        [open, close]: [u8; 2],
        elements: impl IntoIterator<Item = Result<E, F>>,
        mut append: impl FnMut(&mut Self, E) -> Result<(), NoText>,
    ) -> Result<(), NoText> {
        self.text.push(open);
        for (index, element) in elements.into_iter().enumerate() {
            if index > 0 {
                self.text.push(b',');
            }
            append(self, element.map_err(|_| NoText)?)?;
        }
        self.text.push(close);
        Ok(())
    }

    fn append_json(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), NoText> {
        serde_json::to_writer(&mut self.text, value).map_err(|_| NoText)?;
        self.within_limit()
    }

    fn within_limit(&self) -> Result<(), NoText> {
        if self.text.len() > self.limit { Err(NoText) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::oid::ObjectId;
    use bson::spec::BinarySubtype;
    use bson::{Binary, DateTime, RawBson, Uuid, rawdoc};

    #[test]
    fn every_type_has_a_json_text() {
        let id = ObjectId::new();
        for (value, expected) in [
            (RawBson::from("a\"\u{1}\u{fc}"), r#""a\"\u0001ü""#.to_owned()),
            (id.into(), format!("\"{id}\"")),
            (
                DateTime::from_millis(1_795_470_574_245).into(),
                r#""2026-11-23T21:49:34.245Z""#.into(),
            ),
            (
                Binary::from(Uuid::from_bytes([1; 16])).into(),
                r#""01010101-0101-0101-0101-010101010101""#.into(),
            ),
            (
                Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2] }.into(),
                r#""AQI=""#.into(),
            ),
            (7.into(), "7".into()),
            (i64::MAX.into(), i64::MAX.to_string()),
            (7.0.into(), "7".into()),
            (0.5.into(), "0.5".into()),
            (1e300.into(), "1e+300".into()),
            (f64::NAN.into(), "null".into()),
            (true.into(), "true".into()),
            (RawBson::Null, "null".into()),
            (
                rawdoc! { "a": [1, { "b": id }], "": null }.into(),
                format!(r#"{{"a":[1,{{"b":"{id}"}}],"":null}}"#),
            ),
            ("1.10".parse::<bson::Decimal128>().unwrap().into(), r#""1.10""#.into()),
            (RawBson::MaxKey, r#"{"$maxKey":1}"#.into()),
        ] {
            let text = json_text(value.as_raw_bson_ref(), 1024).unwrap();
            assert_eq!(text, expected);
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }

    #[test]
    fn a_long_text_is_refused() {
        let text = |length: usize| json_text(RawBsonRef::String(&"x".repeat(length)), 1024);
        assert_eq!(text(1022).map(|text| text.len()), Ok(1024));
        assert_eq!(text(1023), Err(NoText));
        let inner = rawdoc! { "a": "x".repeat(600) };
        let array = rawdoc! { "a": [inner.clone(), inner] };
        assert_eq!(json_text(RawBsonRef::Document(&array), 1024), Err(NoText));
        let last_year = DateTime::MAX;
        assert_eq!(json_text(RawBsonRef::DateTime(last_year), 1024), Err(NoText));
    }
}
