//! Variables that set keys: `HOOKGATE__SERVER__LISTEN` is `server.listen`.

use super::mismatch;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

const PREFIX: &str = "HOOKGATE__";

/// What the environment says, by the path of the key in lower case: names in the environment carry no case.
#[derive(Debug, Default)]
pub(super) struct Environment {
    texts: BTreeMap<String, String>,
    /// Variables whose value is no text.
    broken: BTreeSet<String>,
}

impl Environment {
    pub(super) fn new(variables: impl Iterator<Item = (String, String)>) -> Self {
        let texts =
            variables.filter_map(|(name, text)| Some((path_of(&name)?, bare(&text).to_owned())));
        Self { texts: texts.collect(), ..Self::default() }
    }

    /// As the process has it.
    pub(super) fn of_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            // Names of ours are all in ASCII.
            let Some(path) = name.to_str().and_then(path_of) else { continue };
            match value.to_str() {
                Some(text) => drop(environment.texts.insert(path, bare(text).to_owned())),
                None => drop(environment.broken.insert(path)),
            }
        }
        environment
    }

    pub(super) fn take(&mut self, path: &str) -> Option<String> {
        self.texts.remove(path)
    }

    /// Takes all keys below a path, by what follows it.
    pub(super) fn take_below(&mut self, path: &str) -> Vec<(String, String)> {
        let below = format!("{path}.");
        let (members, others): (BTreeMap<_, _>, _) = std::mem::take(&mut self.texts)
            .into_iter()
            .partition(|(path, _)| path.starts_with(&below));
        self.texts = others;
        let member =
            |(path, text): (String, String)| Some((path.strip_prefix(&below)?.to_owned(), text));
        members.into_iter().filter_map(member).collect()
    }

    /// What is left: variables that no key was asked for, and those that no key can be read from.
    pub(super) fn left(&self) -> impl Iterator<Item = Left<'_>> {
        let unknown = self.texts.keys().map(|path| Left { path, is_text: true });
        unknown.chain(self.broken.iter().map(|path| Left { path, is_text: false }))
    }
}

/// A variable that has set nothing.
pub(super) struct Left<'a> {
    pub(super) path: &'a str,
    pub(super) is_text: bool,
}

impl Left<'_> {
    /// Whose variable it is: only what begins with the name of a section is one of ours. A service in Kubernetes whose name
    /// begins like ours has variables that begin like ours.
    pub(super) fn first(&self) -> &str {
        self.path.split('.').next().unwrap_or_default()
    }

    pub(super) fn variable(&self) -> String {
        variable_of(self.path)
    }
}

/// The path of the key that a variable of this name sets.
fn path_of(name: &str) -> Option<String> {
    let (prefix, path) = name.split_at_checked(PREFIX.len())?;
    let is_ours = prefix.eq_ignore_ascii_case(PREFIX);
    is_ours.then(|| path.replace("__", ".").to_ascii_lowercase())
}

/// The name of the variable that sets a key.
pub(super) fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

/// A text less what its way has put around it: the line break that a file or a command ends with, and a byte order mark.
pub(super) fn bare(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\n', '\r'])
}

/// What a variable says: a number, flag, list or table as TOML writes it, else the text as it is, else a list of that one
/// text.
pub(super) fn value_of<T: DeserializeOwned>(
    text: &str,
    example: Option<&str>,
) -> Result<T, String> {
    let parsed = toml::from_str::<Table>(&format!("value = {text}")).ok();
    let parsed = parsed.and_then(|mut table| table.remove("value"));
    let parsed = parsed.filter(|value| !value.is_str());
    let plain = Value::String(text.to_owned());
    let list = Value::Array(vec![plain.clone()]);
    let mut first_error = None;
    for value in parsed.into_iter().chain([plain, list]) {
        match value.try_into() {
            Ok(value) => return Ok(value),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.map_or_else(String::new, |error| mismatch(&error, example)))
}
