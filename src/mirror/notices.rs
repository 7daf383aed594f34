//! What is logged of malformed documents and of malformed parts of them: each is named once, at a bounded rate.

use super::document::{DocumentKey, Malformed};
use super::left_out::Part;
use crate::log_rate::LogRate;
use std::collections::HashSet;
use std::time::Duration;

/// Documents and parts that are remembered as logged. Beyond this many they are only counted.
const LOGGED: usize = 10_000;

/// Lines within one second: a thousand malformed documents may come with one change of a program. Those beyond
/// are logged when they are read again.
const LOGGED_PER_SECOND: u32 = 20;

/// What of one collection has been logged.
#[derive(Debug)]
pub(super) struct Notices {
    collection: &'static str,
    /// Documents, and parts by their names; a document as a whole has no name here.
    logged: HashSet<(DocumentKey, String)>,
    rate: LogRate,
}

impl Notices {
    pub(super) fn new(collection: &'static str) -> Self {
        let rate = LogRate::new(LOGGED_PER_SECOND, Duration::from_secs(1));
        Self { collection, logged: HashSet::new(), rate }
    }

    /// Logs that a document is left out.
    pub(super) fn document(&mut self, key: &DocumentKey, malformed: &Malformed) {
        let collection = self.collection;
        if self.is_due(key, "") {
            tracing::warn!(collection, id = %key, reason = %malformed, "malformed document left out");
        }
    }

    /// Logs that a part of a document is left out; one that is not configured yet is not worth a line.
    pub(super) fn part(&mut self, key: &DocumentKey, Part { name, fault }: &Part) {
        let (collection, Some(fault)) = (self.collection, fault) else { return };
        if self.is_due(key, name) {
            tracing::warn!(collection, id = %key, part = name, reason = %fault, "malformed part of a document left out");
        }
    }

    /// Whether this has not been logged yet and may be logged now.
    fn is_due(&mut self, key: &DocumentKey, part: &str) -> bool {
        let named = (key.clone(), part.to_owned());
        if self.logged.len() >= LOGGED || self.logged.contains(&named) {
            return false;
        }
        if self.rate.allows() {
            return self.logged.insert(named);
        }
        if self.rate.has_begun_to_refuse() {
            tracing::warn!(
                "too many malformed documents to log each; the hookgate_index_skipped_* metrics count all"
            );
        }
        false
    }
}
