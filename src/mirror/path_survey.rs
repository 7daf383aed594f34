//! What documents have at the configured paths, and what is there instead.

use crate::mirror::active_field::ActiveField;
use crate::mirror::json_text::json_text;
use crate::mirror::paths::projected;
use bson::{RawBsonRef, RawDocument};
use std::collections::HashSet;

/// The number of documents that are looked at.
pub const FIRST_DOCUMENTS: u32 = 100;

/// The number of names that are listed instead of a path.
const MAX_NAMES: usize = 20;

/// The length up to which a value is shown.
const MAX_VALUE_BYTES: usize = 24;

/// What was found in the first documents of a collection.
#[derive(Debug, Default)]
pub struct PathSurvey {
    /// The number of things found, and the paths they are from.
    pub summary: String,
    /// A sentence for each path under which nothing was found.
    pub missing: Vec<MissingPath>,
}

/// A path under which nothing was found.
#[derive(Debug, PartialEq, Eq)]
pub struct MissingPath {
    pub sentence: String,
    /// Whether that is a problem. Some fields need not be there.
    pub is_problem: bool,
}

impl PathSurvey {
    /// Checks that something is at this path. `what` names one of the documents.
    pub fn expect(
        &mut self,
        what: &str,
        documents: &[&RawDocument],
        path: &str,
        is_problem: bool,
    ) -> bool {
        let missing = missing(what, documents, path);
        let is_found = missing.is_none();
        self.missing.extend(missing.map(|sentence| MissingPath { sentence, is_problem }));
        is_found
    }

    /// Counts the documents that are on and those that are off. It is a problem if none is on.
    pub fn expect_active(&mut self, documents: &[&RawDocument], active: &ActiveField) {
        let Some(path) = active.path() else { return };
        let is_found = self.expect("document", documents, path, active.is_expected());
        let count = |state| documents.iter().filter(|each| active.is_active(each) == state).count();
        let (on, off) = (count(Ok(true)), count(Ok(false)));
        self.summary = format!("{}; {on} on and {off} off by {path}", self.summary);
        if is_found && on == 0 && !documents.is_empty() {
            let found = documents.iter().filter_map(|each| projected(each, path).ok().flatten());
            let found = list(found.map(short_text));
            self.add_problem(format!(
                "no document has a {path} of {}; they have {found}",
                active.values_on()
            ));
        }
    }

    /// Adds something else that was not found.
    pub fn add_problem(&mut self, sentence: String) {
        self.missing.push(MissingPath { sentence, is_problem: true });
    }
}

/// Says what documents have instead of this path; `None` if one of them has it, or if there are no
/// documents.
fn missing(what: &str, documents: &[&RawDocument], path: &str) -> Option<String> {
    if documents.is_empty() {
        return None;
    }
    let mut level = documents.to_vec();
    let mut parent = "";
    let mut rest = path;
    loop {
        let (name, tail) =
            rest.split_once('.').map_or((rest, None), |(name, tail)| (name, Some(tail)));
        let values: Vec<RawBsonRef<'_>> =
            level.iter().filter_map(|each| value(each, name)).collect();
        let known =
            if parent.is_empty() { "they".to_owned() } else { format!("in their {parent}, they") };
        if values.is_empty() {
            return Some(format!("no {what} has {path}; {known} have {}", names(&level)));
        }
        let tail = tail?;
        let end = path.len() - tail.len() - 1;
        parent = path.get(..end).unwrap_or_default();
        level = values.into_iter().flat_map(documents_of).collect();
        if level.is_empty() {
            return Some(format!("no {what} has {path}; their {parent} is no document"));
        }
        rest = tail;
    }
}

fn value<'a>(document: &'a RawDocument, name: &str) -> Option<RawBsonRef<'a>> {
    document.get(name).ok().flatten().filter(|value| *value != RawBsonRef::Null)
}

/// The documents that a value is or holds.
pub fn documents_of(value: RawBsonRef<'_>) -> Vec<&RawDocument> {
    match value {
        RawBsonRef::Document(document) => vec![document],
        RawBsonRef::Array(elements) => {
            elements.into_iter().filter_map(|element| element.ok()?.as_document()).collect()
        }
        _ => Vec::new(),
    }
}

/// A value of a switch. A long one is not shown: it is something else, and may be a secret.
fn short_text(value: RawBsonRef<'_>) -> String {
    match value {
        RawBsonRef::String(text) if text.len() > MAX_VALUE_BYTES => "a long string".to_owned(),
        RawBsonRef::String(text) => format!("{text:?}"),
        RawBsonRef::Document(_) => "an object".to_owned(),
        RawBsonRef::Array(_) => "an array".to_owned(),
        value => json_text(value, MAX_VALUE_BYTES).unwrap_or_else(|_| "a long value".to_owned()),
    }
}

/// The names of the fields of documents, in the order in which they are first found.
fn names(documents: &[&RawDocument]) -> String {
    let fields = documents.iter().flat_map(|document| document.into_iter().flatten());
    list(fields.map(|(name, _)| name.to_string()).filter(|name| name != "_id"))
}

/// A number of things, by their name in the singular.
pub fn count(number: u64, name: &str) -> String {
    format!("{number} {name}{}", if number == 1 { "" } else { "s" })
}

/// Lists distinct values in the order in which they are first found.
pub fn list(values: impl Iterator<Item = String>) -> String {
    let mut seen = HashSet::new();
    let mut distinct: Vec<String> = values.filter(|value| seen.insert(value.clone())).collect();
    let more = distinct.len().saturating_sub(MAX_NAMES);
    distinct.truncate(MAX_NAMES);
    match (distinct.is_empty(), more) {
        (true, _) => "nothing".to_owned(),
        (false, 0) => distinct.join(", "),
        (false, more) => format!("{} and {more} more", distinct.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn what_is_there_instead_of_a_path_is_named() {
        let documents = [
            rawdoc! { "_id": 1, "nodes": [{ "kind": "a" }], "name": "x", "graph": null },
            rawdoc! { "_id": 2, "edges": [], "nodes": [{ "key": "b", "data": { "hook": 1 } }] },
        ];
        let documents: Vec<&RawDocument> = documents.iter().map(|each| &**each).collect();
        let missing = |path: &str| missing("document", &documents, path);
        for found in ["nodes", "nodes.kind", "nodes.data.hook", "edges", "_id"] {
            assert_eq!(missing(found), None, "{found}");
        }
        for (path, sentence) in [
            ("graph.nodes", "no document has graph.nodes; they have nodes, name, graph, edges"),
            ("nodes.data.id", "no document has nodes.data.id; in their nodes.data, they have hook"),
            ("name.x", "no document has name.x; their name is no document"),
        ] {
            assert_eq!(missing(path).as_deref(), Some(sentence));
        }
        assert_eq!(super::missing("document", &[], "a"), None);
        assert_eq!(
            super::missing("document", &[&rawdoc! { "_id": 1 }], "a").unwrap(),
            "no document has a; they have nothing"
        );
    }

    #[test]
    fn long_lists_are_cut() {
        let listed = list((0..25).chain(0..25).map(|number: u8| number.to_string()));
        assert!(listed.starts_with("0, 1, ") && listed.ends_with(", 19 and 5 more"), "{listed}");
    }
}
