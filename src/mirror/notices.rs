//! The log of malformed documents and parts: each is logged once, at a bounded rate.

use crate::mirror::document::{DocumentKey, Malformed};
use crate::mirror::skipped_parts::SkippedPart;
use crate::process::log_throttle::LogThrottle;
use std::collections::HashSet;
use std::time::Duration;

/// The number of documents and parts that are remembered as logged. After that, further ones are
/// counted and not logged.
const MAX_REMEMBERED: usize = 10_000;

/// Lines in one second. One faulty release of a program may write thousands of malformed documents.
/// A document that is not logged for this reason is logged when it is read again.
const LOGGED_PER_SECOND: u32 = 20;

/// The malformed documents and parts of one collection that have been logged.
#[derive(Debug)]
pub(super) struct Notices {
    collection: &'static str,
    /// The key of a document and the name of a part, which is empty for the whole document.
    logged: HashSet<(DocumentKey, String)>,
    throttle: LogThrottle,
}

impl Notices {
    pub(super) fn new(collection: &'static str) -> Self {
        let throttle = LogThrottle::new(LOGGED_PER_SECOND, Duration::from_secs(1));
        Self { collection, logged: HashSet::new(), throttle }
    }

    /// Logs that a document is skipped.
    pub(super) fn document(&mut self, key: &DocumentKey, malformed: &Malformed) {
        let collection = self.collection;
        if self.is_due(key, "") {
            tracing::warn!(collection, id = %key, reason = %malformed, "malformed document skipped");
        }
    }

    /// Logs that a part of a document is skipped. A part that is not configured yet is not logged.
    pub(super) fn part(&mut self, key: &DocumentKey, SkippedPart { name, fault }: &SkippedPart) {
        let (collection, Some(fault)) = (self.collection, fault) else { return };
        if self.is_due(key, name) {
            tracing::warn!(collection, id = %key, part = name, reason = %fault, "malformed part of a document skipped");
        }
    }

    /// Whether this has not been logged yet and may be logged now.
    fn is_due(&mut self, key: &DocumentKey, part: &str) -> bool {
        let named = (key.clone(), part.to_owned());
        if self.logged.len() >= MAX_REMEMBERED || self.logged.contains(&named) {
            return false;
        }
        if self.throttle.allows() {
            return self.logged.insert(named);
        }
        if self.throttle.has_begun_to_refuse() {
            tracing::warn!(
                "too many malformed documents to log each; the hookgate_index_skipped_* metrics count all"
            );
        }
        false
    }
}
