//! The raw values of a configuration, which show what a reload changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use toml::Value;

/// The value that was given for each key, in the file, in the environment or in the file of a
/// secret.
#[derive(Clone, Default, PartialEq)]
pub struct RawValues(BTreeMap<String, Value>);

impl RawValues {
    pub(super) fn add(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The keys whose values differ between the two.
    pub fn differences(&self, other: &Self) -> BTreeSet<String> {
        let keys = self.0.keys().chain(other.0.keys());
        keys.filter(|key| self.0.get(*key) != other.0.get(*key)).cloned().collect()
    }

    /// Copies the value of one key from the other.
    pub fn copy_key_from(&mut self, key: &str, other: &Self) {
        match other.0.get(key) {
            Some(value) => self.0.insert(key.to_owned(), value.clone()),
            None => self.0.remove(key),
        };
    }
}

impl fmt::Debug for RawValues {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[may hold secrets]")
    }
}
