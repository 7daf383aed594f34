//! What a configuration says, for telling it from the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use toml::Value;

/// What was given for each key, in the file, in the environment or in the file of a secret.
#[derive(Clone, Default, PartialEq)]
pub struct Given(BTreeMap<String, Value>);

impl Given {
    pub(super) fn add(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    /// Keys that are not as they are in the other.
    pub fn differences(&self, other: &Self) -> BTreeSet<String> {
        let keys = self.0.keys().chain(other.0.keys());
        keys.filter(|key| self.0.get(*key) != other.0.get(*key)).cloned().collect()
    }

    /// Takes one key over from the other.
    pub fn take_over(&mut self, key: &str, other: &Self) {
        match other.0.get(key) {
            Some(value) => self.0.insert(key.to_owned(), value.clone()),
            None => self.0.remove(key),
        };
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[may hold secrets]")
    }
}
