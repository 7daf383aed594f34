//! Fields of documents that go into jobs.

use crate::mirror::document::Malformed;
use crate::mirror::json_text::json_text;
use crate::mirror::paths::{is_within, projected};
use bson::RawDocument;

/// The bytes of a kept field as JSON at most.
const MAX_FIELD_BYTES: usize = 1024;

/// The dotted paths of fields that are kept for jobs, each at most once. In this order they are the
/// [fields](crate::triggers::KeptTexts) of a match: those of the workflow, then those of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptFields {
    /// Paths in the document of a workflow.
    pub workflow: Vec<String>,
    /// Paths in the first matching node of a webhook.
    pub node: Vec<String>,
}

impl KeptFields {
    /// The number of fields.
    pub fn len(&self) -> usize {
        self.workflow.len() + self.node.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The paths that are this one, hold it or lie within it, with the part of a placeholder in
    /// front: `workflow.` or `node.`.
    pub fn overlapping(&self, path: &str) -> Vec<String> {
        let kinds = [("workflow", &self.workflow), ("node", &self.node)];
        let named =
            kinds.into_iter().flat_map(|(kind, paths)| paths.iter().map(move |path| (kind, path)));
        named
            .filter(|(_, kept)| is_within(kept, path) || is_within(path, kept))
            .map(|(kind, kept)| format!("{kind}.{kept}"))
            .collect()
    }
}

/// The JSON text of the fields at these paths. One that is missing, or within an array, is null.
pub(super) fn texts(document: &RawDocument, paths: &[String]) -> Result<Vec<String>, Malformed> {
    let text = |path: &String| match projected(document, path) {
        Ok(Some(value)) => json_text(value, MAX_FIELD_BYTES)
            .map_err(|_| Malformed::wrong(path, "a value of at most 1 KiB as JSON")),
        Ok(None) | Err(_) => Ok("null".to_owned()),
    };
    paths.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_path_overlaps_what_it_holds_and_what_it_lies_within() {
        let kept = KeptFields {
            workflow: ["apiKeys", "name"].map(str::to_owned).to_vec(),
            node: ["apiKeys.hash.x", "apiKeysOther"].map(str::to_owned).to_vec(),
        };
        assert_eq!(kept.overlapping("apiKeys.hash"), ["workflow.apiKeys", "node.apiKeys.hash.x"]);
        assert_eq!(kept.overlapping("key"), [""; 0]);
    }

    #[test]
    fn a_field_that_is_missing_is_null_and_one_that_is_too_long_is_malformed() {
        let document =
            rawdoc! { "a": { "b": [1, "x"] }, "l": [{ "a": 1 }], "long": "x".repeat(1023) };
        let texts = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            texts(&document, &paths)
        };
        let found = texts(&["a.b", "a", "l.a", "none", "a.b.c"]).unwrap();
        assert_eq!(found, [r#"[1,"x"]"#, r#"{"b":[1,"x"]}"#, "null", "null", "null"]);
        assert!(texts(&["a", "long"]).is_err());
    }
}
