//! Parts of a document that are left out while the rest of it counts: nodes of a workflow, API keys of a user.

use super::document::Malformed;

/// Parts of one document that are named, of each kind. Those beyond are only counted.
const NAMED: usize = 10;

/// What is left out of one document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Malformed parts.
    pub malformed: usize,
    /// Parts that are not configured yet, which is no fault.
    pub unconfigured: usize,
    /// The first of each kind.
    pub parts: Vec<Part>,
}

/// A part that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its kind, and its name or number.
    pub name: String,
    /// `None`: it is not configured yet.
    pub fault: Option<Malformed>,
}

impl LeftOut {
    /// Adds a part, and says whether it is one that is named; only then `name` is asked.
    pub fn add(&mut self, name: impl FnOnce() -> String, fault: Option<Malformed>) -> bool {
        let count = if fault.is_some() { &mut self.malformed } else { &mut self.unconfigured };
        *count += 1;
        let is_named = *count <= NAMED;
        if is_named {
            self.parts.push(Part { name: name(), fault });
        }
        is_named
    }
}
