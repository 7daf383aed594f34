//! What is wrong with a configuration, and where.

use serde::Serialize;
use std::fmt;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong, with the path of its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    pub key: String,
    pub message: String,
    /// Of the file, where the key stands in it.
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

/// Adds to each fault the line on which its key stands in a file.
pub(super) fn locate<'a>(faults: impl Iterator<Item = &'a mut Fault>, file: &str) {
    let Ok(document) = DeTable::parse(file) else { return };
    for fault in faults {
        fault.line =
            offset(document.get_ref(), &fault.key).map(|offset| line(file.as_bytes(), offset));
    }
}

fn offset(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let (first, rest) =
        key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == first)?;
    match (rest, value.get_ref()) {
        (None, _) => Some(name.span().start),
        (Some(rest), DeValue::Table(inner)) => offset(inner, rest),
        _ => None,
    }
}

/// The line, counted from 1, of a byte.
pub(crate) fn line(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_however_it_is_written() {
        let file = "top = 1\n\n[queue]\nname = 1 # \u{fc}\njob.attempts = 2\n[queue.job.backoff]\r\ndelay = 1\n'x' = { y = 1 }\n";
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
            ("queue.name.more", None),
            ("server.listen", None),
            ("", None),
        ] {
            assert_eq!(line(key), expected, "{key}");
        }
    }
}
