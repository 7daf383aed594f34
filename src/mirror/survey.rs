//! A collection that is only looked at, for `hookgate check`.

use super::View;
use super::document::{DocumentKey, Malformed};
use super::left_out::{LeftOut, Part};
use crate::findings::Findings;
use crate::metrics::Collection;
use bson::RawDocument;
use serde_json::{Value, json};

/// Documents and parts of documents that are named, of each kind.
const NAMED: usize = 10;

/// What is found in a collection while it is loaded for nobody.
#[derive(Debug)]
pub(super) struct Survey<'a, V: View> {
    view: &'a mut V,
    load: V::Load,
    documents: u64,
    left_out: u64,
    reasons: Vec<String>,
    malformed_parts: usize,
    malformed: Vec<String>,
    unconfigured_parts: usize,
    unconfigured: Vec<String>,
}

impl<'a, V: View> Survey<'a, V> {
    pub(super) fn new(view: &'a mut V) -> Self {
        let load = view.begin_load();
        Self {
            view,
            load,
            documents: 0,
            left_out: 0,
            reasons: Vec::new(),
            malformed_parts: 0,
            malformed: Vec::new(),
            unconfigured_parts: 0,
            unconfigured: Vec::new(),
        }
    }

    pub(super) fn see(&mut self, key: &DocumentKey, document: Result<&RawDocument, Malformed>) {
        self.documents += 1;
        match document.and_then(|document| self.view.read(document)) {
            Ok(record) => {
                self.see_parts(key, V::left_out(&record));
                self.view.load(&mut self.load, key, record);
            }
            Err(malformed) => {
                self.left_out += 1;
                if self.reasons.len() < NAMED {
                    self.reasons.push(format!("{key}: {malformed}"));
                }
            }
        }
    }

    fn see_parts(&mut self, key: &DocumentKey, left_out: LeftOut) {
        self.malformed_parts += left_out.malformed;
        self.unconfigured_parts += left_out.unconfigured;
        for Part { name, fault } in left_out.parts {
            let (named, text) = match fault {
                Some(fault) => (&mut self.malformed, format!("{key}, {name}: {fault}")),
                None => (&mut self.unconfigured, format!("{key}, {name}")),
            };
            if named.len() < NAMED {
                named.push(text);
            }
        }
    }

    /// Says what there was of `collection`; `exists` is `None` where that is not known.
    pub(super) fn finish(self, collection: &str, exists: Option<bool>, findings: &mut Findings) {
        let mut found = json!({
            "collection": collection,
            "exists": exists,
            "documents": self.documents,
            "left_out": self.left_out,
            "reasons": self.reasons,
        });
        let (parts, of_parts) = match V::COLLECTION {
            Collection::Workflows => (
                "trigger nodes",
                json!({
                    "skipped_nodes": self.malformed_parts,
                    "skipped_nodes_reasons": self.malformed,
                    "unconfigured_nodes": self.unconfigured_parts,
                    "unconfigured_nodes_names": self.unconfigured,
                }),
            ),
            Collection::Users => (
                "API keys",
                json!({
                    "skipped_api_keys": self.malformed_parts,
                    "skipped_api_keys_reasons": self.malformed,
                }),
            ),
        };
        if let (Value::Object(found), Value::Object(of_parts)) = (&mut found, of_parts) {
            found.extend(of_parts);
        }
        findings.fact(V::COLLECTION.word(), found);
        if exists == Some(false) {
            findings
                .warning(format!("collection {collection} does not exist, and is served as empty"));
        }
        for (count, what) in [(self.left_out, "documents"), (self.malformed_parts as u64, parts)] {
            if count > 0 {
                findings.warning(format!("{count} {what} of collection {collection} are left out"));
            }
        }
        self.view.finish_load(self.load);
        for warning in self.view.warnings() {
            findings.warning(warning);
        }
    }
}
