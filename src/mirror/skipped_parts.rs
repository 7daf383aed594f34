//! Parts of a document that are skipped while the rest is kept: nodes of a workflow, API keys of a
//! user.

use crate::mirror::document::Malformed;

/// The number of malformed and of unconfigured parts of one document that are named. The others are
/// only counted.
const MAX_NAMED: usize = 10;

/// What is skipped of one document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkippedParts {
    /// The number of malformed parts.
    pub malformed: usize,
    /// The number of parts that are not configured yet. That is not a fault.
    pub unconfigured: usize,
    /// The first malformed and the first unconfigured parts.
    pub parts: Vec<SkippedPart>,
}

/// A part that is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedPart {
    /// Its kind, and its name or number.
    pub name: String,
    /// Why it is malformed; `None` if it is not configured yet.
    pub fault: Option<Malformed>,
}

impl SkippedParts {
    /// Adds a part and returns whether it is named. `name` is called only if it is.
    pub fn add(&mut self, name: impl FnOnce() -> String, fault: Option<Malformed>) -> bool {
        let count = if fault.is_some() { &mut self.malformed } else { &mut self.unconfigured };
        *count += 1;
        let is_named = *count <= MAX_NAMED;
        if is_named {
            self.parts.push(SkippedPart { name: name(), fault });
        }
        is_named
    }
}
