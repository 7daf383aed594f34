//! Faults of a configuration and their locations.

use crate::settings::spelling::nearest;
use serde::Serialize;
use std::fmt;
use toml::de::{DeArray, DeTable, DeValue};

/// A fault, with the path of its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    pub key: String,
    pub message: String,
    /// The line of the key in the file, counted from 1. `None` if the key is not in the file.
    pub line: Option<usize>,
}

impl Fault {
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), line: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.key, self.message)?;
        match self.line {
            Some(line) => write!(formatter, " (line {line})"),
            None => Ok(()),
        }
    }
}

/// Adds to each fault the line of its key in the file.
pub(super) fn locate<'a>(faults: impl Iterator<Item = &'a mut Fault>, file: &str) {
    let Ok(document) = DeTable::parse(file) else { return };
    for fault in faults {
        fault.line = offset(document.get_ref(), without_index(&fault.key))
            .map(|offset| line(file.as_bytes(), offset));
    }
}

/// The key up to the first element of an array. The array is on the line of its key.
fn without_index(key: &str) -> &str {
    key.split('[').next().unwrap_or(key)
}

/// The byte offset of a key in the file.
fn offset(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let (first, rest) =
        key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == first)?;
    match (rest, value.get_ref()) {
        (None, _) => Some(name.span().start),
        (Some(rest), DeValue::Table(inner)) => offset(inner, rest),
        (Some(rest), DeValue::Array(tables)) => offset_in_array(tables, rest),
        _ => None,
    }
}

/// The byte offset of a key in an array of tables: `0.name`.
fn offset_in_array(tables: &DeArray<'_>, key: &str) -> Option<usize> {
    let (number, rest) = key.split_once('.')?;
    match tables.get(number.parse::<usize>().ok()?)?.get_ref() {
        DeValue::Table(table) => offset(table, rest),
        _ => None,
    }
}

/// The line of a byte offset, counted from 1.
pub(crate) fn line(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// Describes a value of a wrong type. The errors of the TOML parser are not used as they are,
/// because they can have several lines and repeat the value, which may be a secret.
pub(super) fn mismatch(error: &toml::de::Error, example: Option<&str>) -> String {
    let first = error.message().lines().next().unwrap_or_default();
    if let Some(message) = unknown_value(first) {
        return message;
    }
    let wrong = [("invalid type: ", "wrong type"), ("invalid value: ", "wrong value")];
    let Some((_, what)) = wrong.into_iter().find(|(begin, _)| first.contains(begin)) else {
        return first.to_owned();
    };
    let Some((_, expected)) = first.rsplit_once(", expected ") else { return what.to_owned() };
    let example = example.map_or_else(String::new, |example| format!(" such as {example}"));
    format!("{what}, expected {}{example}", type_name(expected))
}

/// Describes a value that is none of a fixed set, from the words of serde.
fn unknown_value(error: &str) -> Option<String> {
    let (value, expected) = error.strip_prefix("unknown variant `")?.split_once("`, expected ")?;
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let list = known.iter().map(|known| format!("{known:?}")).collect::<Vec<_>>().join(", ");
    Some(match nearest(value, known) {
        Some(meant) => format!("unknown value {value:?}; did you mean {meant:?}?"),
        None => format!("unknown value {value:?}; known are {list}"),
    })
}

/// The name of a type for people who do not write Rust.
fn type_name(expected: &str) -> &str {
    match expected {
        "i64" | "u64" | "u32" | "usize" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "a string",
        "a sequence" => "a list",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_key_is_found_in_every_notation() {
        let file = "top = 1\n\n[queue]\nname = 1 # \u{fc}\njob.attempts = 2\n[queue.job.backoff]\r\ndelay = 1\n'x' = { y = 1 }\n\
                    [[queue.shards]]\n[[queue.shards]]\nname = 'b'\n";
        let line = |key: &str| {
            let mut fault = Fault::new(key, "");
            locate([&mut fault].into_iter(), file);
            fault.line
        };
        for (key, expected) in [
            ("top", Some(1)),
            ("queue", Some(3)),
            ("queue.name", Some(4)),
            ("queue.job.attempts", Some(5)),
            ("queue.job.backoff", Some(6)),
            ("queue.job.backoff.delay", Some(7)),
            ("queue.job.backoff.x.y", Some(8)),
            ("queue.job.backoff.x.z", None),
            ("queue.name[2].x", Some(4)),
            ("queue.name.more", None),
            ("queue.shards", Some(9)),
            ("queue.shards.1.name", Some(11)),
            ("queue.shards.0.name", None),
            ("queue.shards.2.name", None),
            ("server.listen", None),
            ("", None),
        ] {
            assert_eq!(line(key), expected, "{key}");
        }
    }
}
