//! What a look at a server has found, for people and for scripts.

use crate::lifecycle::Condition;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use std::fmt;

/// Facts in the order in which they are shown, and what is wrong with them.
#[derive(Debug, Default)]
pub struct Findings {
    facts: Vec<(&'static str, Value)>,
    /// What is worth a look.
    warnings: Vec<String>,
    /// What keeps the service from doing its work.
    faults: Vec<String>,
}

impl Findings {
    /// `None` stands for what there is not, or what is not known.
    pub fn fact(&mut self, key: &'static str, value: impl Into<Value>) {
        self.facts.push((key, value.into()));
    }

    pub fn warning(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    pub fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    /// Takes over what a part would say of itself while it serves.
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
        map.serialize_entry("warnings", &self.warnings)?;
        map.serialize_entry("faults", &self.faults)?;
        map.end()
    }
}

/// A table with a line for each fact, named as in JSON, and what is wrong below it.
impl fmt::Display for Findings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.facts {
            row(formatter, key, value)?;
        }
        for (mark, texts) in [("warning:", &self.warnings), ("FAULT:", &self.faults)] {
            for text in texts {
                line(formatter, mark, text)?;
            }
        }
        Ok(())
    }
}

fn row(formatter: &mut fmt::Formatter<'_>, name: &str, value: &Value) -> fmt::Result {
    match value {
        Value::Null => line(formatter, name, "-"),
        Value::Bool(flag) => line(formatter, name, if *flag { "yes" } else { "no" }),
        Value::Number(number) => line(formatter, name, &number.to_string()),
        Value::String(text) if text.is_empty() => line(formatter, name, "\"\""),
        Value::String(text) => line(formatter, name, text),
        Value::Array(values) if values.is_empty() => line(formatter, name, "none"),
        Value::Array(values) => {
            let names = std::iter::once(name).chain(std::iter::repeat(""));
            names.zip(values).try_for_each(|(name, value)| row(formatter, name, value))
        }
        Value::Object(members) => members
            .iter()
            .try_for_each(|(member, value)| row(formatter, &format!("{name}.{member}"), value)),
    }
}

fn line(formatter: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    writeln!(formatter, "  {name:<22} {value}")
}
