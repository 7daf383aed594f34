//! The findings about a collection, for `hookgate check`.

use crate::metrics::Collection;
use crate::mirror::collection::MirroredCollection;
use crate::mirror::collection_indexes::{CollectionIndexes, CollectionLoad};
use crate::mirror::document::{DocumentKey, Malformed};
use crate::mirror::path_survey::{PathSurvey, count};
use crate::mirror::skipped_parts::{SkippedPart, SkippedParts};
use crate::process::findings::Findings;
use bson::RawDocument;
use serde_json::{Value, json};

/// The number of documents, malformed parts and unconfigured parts that are named.
const MAX_NAMED: usize = 10;

/// Loads a collection that is not served, and collects findings.
#[derive(Debug)]
pub(super) struct CollectionSurvey<C: MirroredCollection> {
    indexes: CollectionIndexes<C>,
    load: CollectionLoad<C>,
    documents: u64,
    skipped: u64,
    reasons: Vec<String>,
    malformed_parts: usize,
    malformed: Vec<String>,
    unconfigured_parts: usize,
    unconfigured: Vec<String>,
    shape: PathSurvey,
}

impl<C: MirroredCollection> CollectionSurvey<C> {
    pub(super) fn new(collection: C) -> Self {
        let indexes = CollectionIndexes::new(collection);
        let load = indexes.begin_load();
        Self {
            indexes,
            load,
            documents: 0,
            skipped: 0,
            reasons: Vec::new(),
            malformed_parts: 0,
            malformed: Vec::new(),
            unconfigured_parts: 0,
            unconfigured: Vec::new(),
            shape: PathSurvey::default(),
        }
    }

    /// The number of documents so far.
    pub(super) fn documents(&self) -> u64 {
        self.documents
    }

    /// Looks at the first documents, which are whole.
    pub(super) fn visit_first(&mut self, documents: &[&RawDocument]) {
        self.shape = self.indexes.collection().shape(documents);
    }

    /// Visits one document, or what is wrong with it.
    pub(super) fn visit(&mut self, key: &DocumentKey, document: Result<&RawDocument, Malformed>) {
        self.documents += 1;
        match document.and_then(|document| self.indexes.collection().read(document)) {
            Ok(record) => {
                self.visit_parts(key, C::skipped(&record));
                self.load.upsert(key, record);
            }
            Err(malformed) => {
                self.skipped += 1;
                if self.reasons.len() < MAX_NAMED {
                    self.reasons.push(format!("{key}: {malformed}"));
                }
            }
        }
    }

    fn visit_parts(&mut self, key: &DocumentKey, skipped: SkippedParts) {
        self.malformed_parts += skipped.malformed;
        self.unconfigured_parts += skipped.unconfigured;
        for SkippedPart { name, fault } in skipped.parts {
            let (named, line) = match fault {
                Some(fault) => (&mut self.malformed, format!("{key}, {name}: {fault}")),
                None => (&mut self.unconfigured, format!("{key}, {name}")),
            };
            if named.len() < MAX_NAMED {
                named.push(line);
            }
        }
    }

    /// Adds the findings about `collection`. `exists` is `None` where it is not known.
    pub(super) fn finish(
        mut self,
        collection: &str,
        exists: Option<bool>,
        findings: &mut Findings,
    ) {
        let mut found = json!({
            "collection": collection,
            "exists": exists,
            "documents": self.documents,
            "skipped": self.skipped,
            "reasons": self.reasons,
            "first_documents": self.shape.summary,
            "paths_not_found": self.shape.missing.iter().map(|path| &path.sentence).collect::<Vec<_>>(),
        });
        let (part, part_findings) = match C::COLLECTION {
            Collection::Workflows => (
                "trigger node",
                json!({
                    "skipped_nodes": self.malformed_parts,
                    "skipped_nodes_reasons": self.malformed,
                    "unconfigured_nodes": self.unconfigured_parts,
                    "unconfigured_nodes_names": self.unconfigured,
                }),
            ),
            Collection::Users => (
                "API key",
                json!({
                    "skipped_api_keys": self.malformed_parts,
                    "skipped_api_keys_reasons": self.malformed,
                }),
            ),
        };
        if let (Value::Object(found), Value::Object(part_findings)) = (&mut found, part_findings) {
            found.extend(part_findings);
        }
        findings.fact(C::COLLECTION.as_str(), found);
        if exists == Some(false) {
            findings
                .warning(format!("collection {collection} does not exist and is served as empty"));
        }
        for (number, kind) in [(self.skipped, "document"), (self.malformed_parts as u64, part)] {
            if number > 0 {
                let (skipped, is) = (count(number, kind), if number == 1 { "is" } else { "are" });
                findings.warning(format!("{skipped} of collection {collection} {is} skipped"));
            }
        }
        for path in self.shape.missing.into_iter().filter(|path| path.is_problem) {
            findings.warning(format!("collection {collection}: {}", path.sentence));
        }
        self.indexes.finish_load(self.load);
        for warning in self.indexes.collection().warnings() {
            findings.warning(warning);
        }
    }
}
