//! The documents of a collection that are left out, or kept without some of their parts, for the
//! status page. Their number and the size of each reason are bounded.

use crate::mirror::document::{DocumentKey, Malformed};
use crate::mirror::skipped_parts::SkippedParts;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Maximum documents that are remembered. Further ones are only counted in the metrics.
const MAX_DOCUMENTS: usize = 1000;

/// Maximum bytes of the key of a document that is remembered.
const MAX_KEY: usize = 1024;

/// Maximum reasons of one document.
const MAX_REASONS: usize = 3;

/// What is left out of a collection. Its mirror writes it; reports read it.
#[derive(Debug, Default)]
pub struct LeftOut(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    documents: BTreeMap<DocumentKey, Entry>,
    /// The number of the last load.
    load: u64,
    /// The last load in which, or after which, a document was not remembered.
    overflow: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    document: LeftOutDocument,
    /// The load in which, or after which, the document was read.
    load: u64,
}

/// A document that is left out whole, or without some parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOutDocument {
    pub id: String,
    /// Whether the whole document is left out.
    pub is_whole: bool,
    /// Why: for a part, after its name.
    pub reasons: Vec<String>,
}

/// The documents that are left out, as far as they are remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOutDocuments {
    /// The number of remembered documents.
    pub count: usize,
    /// Whether all documents are remembered.
    pub is_complete: bool,
    /// The first ones.
    pub documents: Vec<LeftOutDocument>,
}

impl LeftOut {
    /// The documents, at most `max` by name.
    pub fn report(&self, max: usize) -> LeftOutDocuments {
        let remembered = self.0.lock();
        let first = remembered.documents.values().take(max);
        LeftOutDocuments {
            count: remembered.documents.len(),
            is_complete: remembered.overflow.is_none(),
            documents: first.map(|entry| entry.document.clone()).collect(),
        }
    }

    /// Records that a load has begun. It reads every document.
    pub(super) fn begin_load(&self) {
        self.0.lock().load += 1;
    }

    /// Forgets the documents that the published load has not read.
    pub(super) fn finish_load(&self) {
        let Remembered { documents, load, overflow } = &mut *self.0.lock();
        documents.retain(|_, entry| entry.load == *load);
        *overflow = overflow.filter(|last| last == load);
    }

    /// Records a document that is left out.
    pub(super) fn whole(&self, key: &DocumentKey, malformed: &Malformed) {
        self.insert(key, true, vec![malformed.to_string()]);
    }

    /// Records which parts of a document are left out, if any.
    pub(super) fn parts(&self, key: &DocumentKey, skipped: &SkippedParts) {
        if skipped.malformed == 0 {
            return self.remove(key);
        }
        let reasons = skipped.parts.iter().filter_map(|part| {
            let fault = part.fault.as_ref()?;
            Some(format!("{}: {fault}", part.name))
        });
        self.insert(key, false, reasons.take(MAX_REASONS).collect());
    }

    /// Records that a document is gone.
    pub(super) fn remove(&self, key: &DocumentKey) {
        self.0.lock().documents.remove(key);
    }

    fn insert(&self, key: &DocumentKey, is_whole: bool, reasons: Vec<String>) {
        let mut remembered = self.0.lock();
        let load = remembered.load;
        let is_known = remembered.documents.contains_key(key);
        let has_room = remembered.documents.len() < MAX_DOCUMENTS;
        if key.as_bytes().len() > MAX_KEY || !(is_known || has_room) {
            remembered.overflow = Some(load);
            return;
        }
        let document = LeftOutDocument { id: key.to_string(), is_whole, reasons };
        remembered.documents.insert(key.clone(), Entry { document, load });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::skipped_parts::SkippedPart;
    use bson::RawBsonRef;

    fn key(id: &str) -> DocumentKey {
        DocumentKey::from_bson(RawBsonRef::String(id))
    }

    fn malformed() -> Malformed {
        Malformed::Missing("nodes".to_owned())
    }

    fn ids(left_out: &LeftOut) -> Vec<String> {
        left_out.report(9).documents.into_iter().map(|document| document.id).collect()
    }

    #[test]
    fn a_document_is_listed_until_it_is_good_or_gone() {
        let left_out = LeftOut::default();
        left_out.whole(&key("a"), &malformed());
        left_out.whole(&key("b"), &malformed());
        let skipped = SkippedPart { name: "node n1".to_owned(), fault: Some(malformed()) };
        let unconfigured = SkippedPart { name: "node n2".to_owned(), fault: None };
        let parts = vec![unconfigured, skipped];
        left_out.parts(&key("b"), &SkippedParts { malformed: 1, unconfigured: 1, parts });
        let expected = LeftOutDocument {
            id: "b".to_owned(),
            is_whole: false,
            reasons: vec!["node n1: nodes is missing".to_owned()],
        };
        let report = left_out.report(9);
        assert_eq!((report.count, report.is_complete), (2, true));
        assert_eq!(report.documents.last(), Some(&expected));
        left_out.parts(&key("b"), &SkippedParts::default());
        assert_eq!(ids(&left_out), ["a"]);
        left_out.remove(&key("a"));
        assert_eq!(left_out.report(9).count, 0);
    }

    #[test]
    fn a_load_forgets_documents_that_it_has_not_read() {
        let left_out = LeftOut::default();
        left_out.begin_load();
        left_out.whole(&key("gone"), &malformed());
        left_out.finish_load();
        left_out.begin_load();
        left_out.whole(&key("new"), &malformed());
        assert_eq!(ids(&left_out), ["gone", "new"], "the load is not published yet");
        left_out.finish_load();
        assert_eq!(ids(&left_out), ["new"]);
    }

    #[test]
    fn the_list_is_bounded_and_says_so() {
        let left_out = LeftOut::default();
        left_out.begin_load();
        for number in 0..=MAX_DOCUMENTS {
            left_out.whole(&key(&number.to_string()), &malformed());
        }
        let report = left_out.report(5);
        assert_eq!((report.count, report.documents.len()), (MAX_DOCUMENTS, 5));
        assert!(!report.is_complete);
        left_out.begin_load();
        left_out.finish_load();
        left_out.whole(&key(&"x".repeat(MAX_KEY)), &malformed());
        assert_eq!((left_out.report(5).count, left_out.report(5).is_complete), (0, false));
        left_out.begin_load();
        left_out.finish_load();
        assert!(left_out.report(5).is_complete);
    }
}
