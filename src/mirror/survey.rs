//! A collection that is only looked at, for `hookgate check`.

use super::View;
use super::document::{DocumentKey, Malformed};
use crate::findings::Findings;
use bson::RawDocument;
use serde_json::json;

/// Malformed documents that are named.
const NAMED: usize = 10;

/// What is found in a collection while it is loaded for nobody.
#[derive(Debug)]
pub(super) struct Survey<'a, V: View> {
    view: &'a mut V,
    load: V::Load,
    documents: u64,
    left_out: u64,
    reasons: Vec<String>,
}

impl<'a, V: View> Survey<'a, V> {
    pub(super) fn new(view: &'a mut V) -> Self {
        let load = view.begin_load();
        Self { view, load, documents: 0, left_out: 0, reasons: Vec::new() }
    }

    pub(super) fn see(&mut self, key: &DocumentKey, document: Result<&RawDocument, Malformed>) {
        self.documents += 1;
        match document.and_then(|document| self.view.read(document)) {
            Ok(record) => self.view.load(&mut self.load, key, record),
            Err(malformed) => {
                self.left_out += 1;
                if self.reasons.len() < NAMED {
                    self.reasons.push(format!("{key}: {malformed}"));
                }
            }
        }
    }

    /// Says what there was of `collection`; `exists` is `None` where that is not known.
    pub(super) fn finish(self, collection: &str, exists: Option<bool>, findings: &mut Findings) {
        let Self { view, load, documents, left_out, reasons } = self;
        view.finish_load(load);
        if exists == Some(false) {
            findings
                .warning(format!("collection {collection} does not exist, and is served as empty"));
        }
        if left_out > 0 {
            findings
                .warning(format!("{left_out} documents of collection {collection} are left out"));
        }
        for warning in view.warnings() {
            findings.warning(warning);
        }
        let found = json!({
            "collection": collection,
            "exists": exists,
            "documents": documents,
            "left_out": left_out,
            "reasons": reasons,
        });
        findings.fact(V::COLLECTION.word(), found);
    }
}
