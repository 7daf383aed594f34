//! Environment variables that set keys: `HOOKGATE__SERVER__LISTEN` sets `server.listen`.

use crate::settings::fault::mismatch;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

const PREFIX: &str = "HOOKGATE__";

/// The values from the environment, by the path of the key in lower case. The case of a variable's
/// name does not matter.
#[derive(Debug, Default)]
pub(super) struct Environment {
    values: BTreeMap<String, String>,
    /// Paths of variables whose value is not valid UTF-8.
    invalid: BTreeSet<String>,
}

impl Environment {
    pub(super) fn new(variables: impl Iterator<Item = (String, String)>) -> Self {
        let values =
            variables.filter_map(|(name, text)| Some((path_of(&name)?, bare(&text).to_owned())));
        Self { values: values.collect(), ..Self::default() }
    }

    /// Reads the environment of the process.
    pub(super) fn of_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            // All keys are ASCII, so a name that is not UTF-8 sets none.
            let Some(path) = name.to_str().and_then(path_of) else { continue };
            match value.to_str() {
                Some(text) => drop(environment.values.insert(path, bare(text).to_owned())),
                None => drop(environment.invalid.insert(path)),
            }
        }
        environment
    }

    /// Removes and returns the value of a key.
    pub(super) fn take(&mut self, path: &str) -> Option<String> {
        self.values.remove(path)
    }

    /// Whether a variable sets a key below a path.
    pub(super) fn has_below(&self, path: &str) -> bool {
        let below = format!("{path}.");
        self.values.keys().chain(&self.invalid).any(|path| path.starts_with(&below))
    }

    /// Removes and returns the values of all keys below a path, by the rest of their path.
    pub(super) fn take_below(&mut self, path: &str) -> Vec<(String, String)> {
        let below = format!("{path}.");
        let (members, others): (BTreeMap<_, _>, _) = std::mem::take(&mut self.values)
            .into_iter()
            .partition(|(path, _)| path.starts_with(&below));
        self.values = others;
        let member =
            |(path, text): (String, String)| Some((path.strip_prefix(&below)?.to_owned(), text));
        members.into_iter().filter_map(member).collect()
    }

    /// The variables that no key has used, including those that are not valid UTF-8.
    pub(super) fn unused(&self) -> impl Iterator<Item = UnusedVariable<'_>> {
        let unknown = self.values.keys().map(|path| UnusedVariable { path, is_valid: true });
        unknown.chain(self.invalid.iter().map(|path| UnusedVariable { path, is_valid: false }))
    }
}

/// A variable that sets no key.
pub(super) struct UnusedVariable<'a> {
    pub(super) path: &'a str,
    /// Whether the value is valid UTF-8.
    pub(super) is_valid: bool,
}

impl UnusedVariable<'_> {
    /// The first part of the path. A variable belongs to Hookgate only if this is the name of a
    /// section: in Kubernetes, a service whose name starts with `hookgate--` adds variables with
    /// the same prefix.
    pub(super) fn first(&self) -> &str {
        self.path.split('.').next().unwrap_or_default()
    }

    /// The name of the variable in upper case.
    pub(super) fn variable(&self) -> String {
        variable_of(self.path)
    }
}

/// The path of the key that a variable of this name sets.
fn path_of(name: &str) -> Option<String> {
    let (prefix, path) = name.split_at_checked(PREFIX.len())?;
    let has_prefix = prefix.eq_ignore_ascii_case(PREFIX);
    has_prefix.then(|| path.replace("__", ".").to_ascii_lowercase())
}

/// The name of the variable that sets a key.
pub(super) fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

/// Removes the line breaks at the end of a string, which a file or a command adds, and a byte order
/// mark.
pub(super) fn bare(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\n', '\r'])
}

/// The value of a variable that is in the notation of TOML and no string.
pub(super) fn parsed_value_of(text: &str) -> Option<Value> {
    let mut table = toml::from_str::<Table>(&format!("value = {text}")).ok()?;
    table.remove("value").filter(|value| !value.is_str())
}

/// The value of a variable: a number, boolean, list or table in the notation of TOML, or else the
/// string as it is, or else a list with one of these as its only element.
pub(super) fn value_of<T: DeserializeOwned>(
    text: &str,
    example: Option<&str>,
) -> Result<T, String> {
    let parsed = parsed_value_of(text);
    let string = Value::String(text.to_owned());
    let list = |value: &Value| Value::Array(vec![value.clone()]);
    // A list of one element needs no brackets.
    let lists: Vec<Value> = parsed.iter().chain([&string]).map(list).collect();
    let mut first_error = None;
    for value in parsed.into_iter().chain([string]).chain(lists) {
        match value.try_into() {
            Ok(value) => return Ok(value),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.map_or_else(String::new, |error| mismatch(&error, example)))
}
