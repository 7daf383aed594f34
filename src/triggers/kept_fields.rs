//! Fields of documents that go into jobs.

use crate::mirror::document::Malformed;
use crate::mirror::json_text::json_text;
use crate::mirror::paths::projected;
use bson::RawDocument;

/// The bytes of a kept field as JSON at most.
const MAX_FIELD_BYTES: usize = 1024;

/// The fields that are kept for jobs, each at most once. In this order they are the
/// [fields](crate::triggers::KeptTexts) of a match: those of the workflow, then those of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptFields {
    /// Fields in the document of a workflow.
    pub workflow: Vec<KeptField>,
    /// Fields in the first matching node of a webhook.
    pub node: Vec<KeptField>,
}

/// A field that is kept for jobs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeptField {
    /// The dotted path.
    pub path: String,
    /// Whether it stands within a string of the job, where only strings and numbers can stand.
    pub is_in_text: bool,
}

impl KeptFields {
    /// The number of fields.
    pub fn len(&self) -> usize {
        self.workflow.len() + self.node.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The JSON text of these fields. One that is missing, or within an array, is null. `source` is the
/// word before their paths in a template.
pub(super) fn texts(
    document: &RawDocument,
    fields: &[KeptField],
    source: &str,
) -> Result<Vec<String>, Malformed> {
    let text = |field| text(document, field, || format!("{{{source}.{}}}", field.path));
    fields.iter().map(text).collect()
}

/// The JSON text of a field. `name` names it in a fault.
fn text(
    document: &RawDocument,
    field: &KeptField,
    name: impl Fn() -> String,
) -> Result<String, Malformed> {
    let Ok(Some(value)) = projected(document, &field.path) else { return Ok("null".to_owned()) };
    let text = json_text(value, MAX_FIELD_BYTES)
        .map_err(|_| Malformed::wrong(&name(), "a value of at most 1 KiB as JSON"))?;
    match unfit_in_string(&text).filter(|_| field.is_in_text) {
        Some(unfit) => Err(Malformed::unfit(&name(), unfit)),
        None => Ok(text),
    }
}

/// What is wrong with JSON that is to be a part of a string; `None` if it is a string, a number or
/// null.
fn unfit_in_string(json: &str) -> Option<&'static str> {
    match json.bytes().next() {
        Some(b'{') => Some("an object, but queue.data puts it into a string"),
        Some(b'[') => Some("an array, but queue.data puts it into a string"),
        Some(b't' | b'f') => Some("a boolean, but queue.data puts it into a string"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_value_that_cannot_be_a_part_of_a_string_is_named() {
        let document = rawdoc! {
            "l": [1], "o": { "a": 1 }, "b": false, "s": "[", "n": 1.5, "z": null,
        };
        let text = |path: &str| {
            let field = KeptField { path: path.to_owned(), is_in_text: true };
            text(&document, &field, || path.to_owned()).map_err(|malformed| malformed.to_string())
        };
        for (path, found) in [("l", "an array"), ("o", "an object"), ("b", "a boolean")] {
            let expected = format!("{path} is {found}, but queue.data puts it into a string");
            assert_eq!(text(path), Err(expected));
        }
        for (path, json) in [("s", "\"[\""), ("n", "1.5"), ("z", "null"), ("none", "null")] {
            assert_eq!(text(path).as_deref(), Ok(json));
        }
    }

    #[test]
    fn a_field_that_is_missing_is_null_and_one_that_is_too_long_is_malformed() {
        let document =
            rawdoc! { "a": { "b": [1, "x"] }, "l": [{ "a": 1 }], "long": "x".repeat(1023) };
        let texts = |paths: &[&str]| {
            let field = |path: &&str| KeptField { path: (*path).to_owned(), is_in_text: false };
            texts(&document, &paths.iter().map(field).collect::<Vec<_>>(), "node")
        };
        let found = texts(&["a.b", "a", "l.a", "none", "a.b.c"]).unwrap();
        assert_eq!(found, [r#"[1,"x"]"#, r#"{"b":[1,"x"]}"#, "null", "null", "null"]);
        let error = texts(&["a", "long"]).unwrap_err().to_string();
        assert_eq!(error, "{node.long} is not a value of at most 1 KiB as JSON");
    }
}
