//! Findings about a server, for people and for scripts.

use crate::process::lifecycle::Condition;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// Facts in the order in which they are shown, with the notes, warnings and faults about them.
#[derive(Debug, Default)]
pub struct Findings {
    facts: Vec<(&'static str, Value)>,
    /// Problems that do not keep the service from working.
    warnings: Vec<String>,
    /// Remarks that report no problem, such as a fact that is not known.
    notes: Vec<String>,
    /// Problems that keep the service from working.
    faults: Vec<String>,
}

impl Findings {
    /// Adds a fact. A null value means that it is absent or not known.
    pub fn fact(&mut self, key: &'static str, value: impl Into<Value>) {
        self.facts.push((key, value.into()));
    }

    pub fn warning(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    /// Adds the condition that a part would report while the service runs.
    pub fn condition(&mut self, condition: Condition) {
        match condition {
            Condition::Ready => {}
            Condition::Degraded(notes) => self.warnings.extend(notes),
            Condition::NotReady(reason) => self.faults.push(reason),
        }
    }

    pub fn are_good(&self) -> bool {
        self.faults.is_empty()
    }
}

impl Serialize for Findings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.facts {
            map.serialize_entry(key, value)?;
        }
        map.serialize_entry("notes", &self.notes)?;
        map.serialize_entry("warnings", &self.warnings)?;
        map.serialize_entry("faults", &self.faults)?;
        map.end()
    }
}

impl Findings {
    /// A table with one line for each fact, named as in JSON, followed by notes, warnings and
    /// faults.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (key, value) in &self.facts {
            row(&mut lines, key, value);
        }
        let remarks =
            [("note:", &self.notes), ("warning:", &self.warnings), ("FAULT:", &self.faults)];
        for (mark, texts) in remarks {
            lines.extend(texts.iter().map(|text| line(mark, text)));
        }
        lines
    }
}

fn row(lines: &mut Vec<String>, name: &str, value: &Value) {
    let text = match value {
        Value::Null => "-",
        Value::Bool(flag) => {
            if *flag {
                "yes"
            } else {
                "no"
            }
        }
        Value::Number(number) => &number.to_string(),
        Value::String(text) if text.is_empty() => "\"\"",
        Value::String(text) => text,
        Value::Array(values) if values.is_empty() => "none",
        Value::Array(values) => {
            let names = std::iter::once(name).chain(std::iter::repeat(""));
            return names.zip(values).for_each(|(name, value)| row(lines, name, value));
        }
        Value::Object(members) => {
            let members = members.iter();
            return members
                .for_each(|(member, value)| row(lines, &format!("{name}.{member}"), value));
        }
    };
    lines.push(line(name, text));
}

fn line(name: &str, value: &str) -> String {
    format!("  {name:<22} {value}")
}
