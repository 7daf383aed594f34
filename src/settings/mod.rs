//! Reading settings: a section hands out typed values and collects every fault on the way.
//!
//! Each part of the program reads its own section with a [`Section`]; what no part has asked for
//! is an unknown key. A value from the environment goes before one from the file.

mod environment;
mod fault;
mod given;
mod secret;
mod section;
mod spelling;

pub use fault::Fault;
pub(crate) use fault::line;
pub use given::Given;
pub use secret::Secret;
pub use section::Section;
pub use spelling::nearest;

use crate::text_file::Stamp;
use environment::Environment;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// What was configured, and what the program asked for.
#[derive(Debug, Default)]
pub struct Settings {
    file: Table,
    /// What the file is read from, to say on which line a fault is.
    text: String,
    environment: Environment,
    /// Keys whose value, or a part of it, came out of the environment.
    from_environment: BTreeSet<String>,
    faults: Vec<Fault>,
    warnings: Vec<String>,
    sections: BTreeSet<String>,
    /// Every key that was asked for, with its default. `config/hookgate.toml` is held to it.
    known: BTreeMap<String, Option<Value>>,
    given: Given,
    /// Files of secrets and keys that were read.
    files: Vec<Stamp>,
}

impl Settings {
    pub fn new(file: Table, environment: impl Iterator<Item = (String, String)>) -> Self {
        Self { file, environment: Environment::new(environment), ..Self::default() }
    }

    /// From the text of a file and the environment of the process.
    pub fn of_process(text: &str) -> Result<Self, toml::de::Error> {
        let (file, text) = (toml::from_str(text)?, text.to_owned());
        Ok(Self { file, text, environment: Environment::of_process(), ..Self::default() })
    }

    pub fn section(&mut self, path: &str) -> Section<'_> {
        self.sections.insert(path.to_owned());
        Section { settings: self, path: path.to_owned() }
    }

    /// Every key that was asked for, with its default.
    pub fn known(&self) -> &BTreeMap<String, Option<Value>> {
        &self.known
    }

    pub fn given(&self) -> &Given {
        &self.given
    }

    /// Keys whose value, or a part of it, came out of the environment.
    pub fn keys_from_environment(&self) -> &BTreeSet<String> {
        &self.from_environment
    }

    /// Files of secrets and keys that were read.
    pub fn files(&self) -> &[Stamp] {
        &self.files
    }

    /// What is worth a look, variables that look like settings and are none included.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        for left in self.environment.left().filter(|left| !self.is_section(left.first())) {
            let meant = self.suggestion(left.path, environment::variable_of);
            let variable = left.variable();
            warnings.push(format!(
                "{variable} is set and sets nothing: no section has this name{meant}"
            ));
        }
        warnings
    }

    /// Every fault there is, those of keys that nobody asked for included.
    pub fn into_faults(mut self) -> Vec<Fault> {
        let mut unknown = Vec::new();
        self.leftovers("", &self.file, &mut unknown);
        let unknown = unknown.into_iter().map(|key| self.unknown_key(key));
        let variables = self.environment.left().filter(|left| self.is_section(left.first()));
        let unknown = unknown.chain(variables.map(|left| self.unknown_variable(&left)));
        let unknown: Vec<Fault> = unknown.collect();
        self.faults.extend(unknown);
        let is_set_outside = |fault: &Fault| {
            let below = format!("{}.", fault.key);
            let mut keys = self.from_environment.iter();
            keys.any(|key| *key == fault.key || key.starts_with(&below))
        };
        let (mut outside, mut faults): (Vec<Fault>, Vec<Fault>) =
            std::mem::take(&mut self.faults).into_iter().partition(is_set_outside);
        for fault in &mut outside {
            fault.message.push_str(" (set by the environment)");
        }
        fault::locate(faults.iter_mut(), &self.text);
        faults.append(&mut outside);
        faults.sort();
        faults
    }

    fn unknown_key(&self, key: String) -> Fault {
        if self.is_section(&key) {
            return Fault::new(&key, format!("is a section and has no value; write [{key}]"));
        }
        let meant = self.suggestion(&key, str::to_owned);
        Fault::new(key, format!("unknown key{meant}"))
    }

    fn unknown_variable(&self, left: &environment::Left<'_>) -> Fault {
        let variable = left.variable();
        let message = if left.is_text {
            let meant = self.suggestion(left.path, environment::variable_of);
            format!("unknown key, from the environment variable {variable}{meant}")
        } else {
            format!("the environment variable {variable} is no text in UTF-8")
        };
        Fault::new(left.path, message)
    }

    /// What was probably meant by a path, in words that follow what is said of it.
    fn suggestion(&self, path: &str, show: impl Fn(&str) -> String) -> String {
        let meant = self.corrected(path).filter(|meant| meant != path);
        meant.map_or_else(String::new, |meant| format!("; did you mean {}?", show(&meant)))
    }

    /// A path that there is, one slip away in each of its names.
    fn corrected(&self, path: &str) -> Option<String> {
        let names = || self.known.keys().chain(&self.sections);
        let mut found = String::new();
        for word in path.split('.') {
            let children = names().filter_map(|name| name.strip_prefix(&found)?.split('.').next());
            found = format!("{found}{}.", nearest(word, children)?);
        }
        found.pop();
        Some(found)
    }

    /// Whether there are keys below this path.
    fn is_section(&self, path: &str) -> bool {
        let below = format!("{path}.");
        self.sections.iter().any(|known| known == path || known.starts_with(&below))
    }

    fn leftovers(&self, path: &str, table: &Table, unknown: &mut Vec<String>) {
        for (key, value) in table {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value {
                Value::Table(inner) if self.is_section(&path) => {
                    self.leftovers(&path, inner, unknown);
                }
                _ => unknown.push(path),
            }
        }
    }

    /// Takes the value of a key out of the environment, else out of the file. What is said of a value of a wrong type has
    /// the example.
    fn take<T: DeserializeOwned>(
        &mut self,
        path: &str,
        default: Option<&Value>,
        example: Option<&str>,
    ) -> Result<Option<T>, String> {
        let from_file = take_from(&mut self.file, path);
        if let Some(text) = self.environment.take(&path.to_ascii_lowercase()) {
            let read = environment::value_of(&text, example).map(Some);
            self.from_environment.insert(path.to_owned());
            self.given.add(path, Value::String(text));
            return read;
        }
        let value = self.overlay(path, from_file, default);
        if let Some(value) = &value {
            self.given.add(path, value.clone());
        }
        value.map(|value| value.try_into().map_err(|error| mismatch(&error, example))).transpose()
    }

    /// Members of a structured value can be overridden one by one:
    /// `HOOKGATE__QUEUE__JOB__BACKOFF__DELAY` is `delay` of `queue.job.backoff`.
    fn overlay(
        &mut self,
        path: &str,
        value: Option<Value>,
        default: Option<&Value>,
    ) -> Option<Value> {
        let members = self.environment.take_below(&path.to_ascii_lowercase());
        if members.is_empty() {
            return value;
        }
        let mut table = match value.or_else(|| default.cloned()) {
            Some(Value::Table(table)) => table,
            _ => Table::new(),
        };
        for (member, text) in members {
            self.from_environment.insert(format!("{path}.{member}"));
            let value = environment::value_of(&text, None);
            table.insert(member, value.unwrap_or(Value::String(text)));
        }
        Some(Value::Table(table))
    }
}

fn take_from(table: &mut Table, path: &str) -> Option<Value> {
    match path.split_once('.') {
        None => table.remove(path),
        Some((first, rest)) => take_from(table.get_mut(first)?.as_table_mut()?, rest),
    }
}

/// What is said of a value of a wrong type. Errors of the TOML reader may go on for lines and repeat the value, which may be
/// a secret.
fn mismatch(error: &toml::de::Error, example: Option<&str>) -> String {
    let first = error.message().lines().next().unwrap_or_default();
    let wrong = [("invalid type: ", "wrong type"), ("invalid value: ", "wrong value")];
    let Some((_, what)) = wrong.into_iter().find(|(begin, _)| first.contains(begin)) else {
        return first.to_owned();
    };
    let Some((_, expected)) = first.rsplit_once(", expected ") else { return what.to_owned() };
    let example = example.map_or_else(String::new, |example| format!(" such as {example}"));
    format!("{what}, expected {}{example}", in_words(expected))
}

/// A type as people call it who do not write Rust.
fn in_words(expected: &str) -> &str {
    match expected {
        "i64" | "u64" | "u32" | "usize" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "a text",
        "a sequence" => "a list",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::RangeInclusive;
    use std::time::Duration;

    fn settings(file: &str, environment: &[(&str, &str)]) -> Settings {
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::new(toml::from_str(file).unwrap(), environment)
    }

    fn second() -> RangeInclusive<Duration> {
        Duration::from_secs(1)..=Duration::from_secs(9)
    }

    #[test]
    fn every_fault_is_reported_with_its_key() {
        let mut settings = settings(
            "[server]\nlisten = 5\nage = \"12\"\nlate = \"1m\"\nsize = \"9\"\nsurplus = 1\n[other]\n",
            &[("HOOKGATE__SERVR__LISTEN", "x")],
        );
        let mut server = settings.section("server");
        let _: String = server.value("listen", String::new());
        server.duration("age", "2s", second());
        server.duration("late", "2s", second());
        server.size("size", "1KiB", 1..=9);
        let warnings = settings.warnings();
        assert!(warnings[0].contains("did you mean HOOKGATE__SERVER__LISTEN?"), "{warnings:?}");
        assert_eq!(warnings.len(), 1);
        let keys: Vec<String> = settings.into_faults().into_iter().map(|fault| fault.key).collect();
        let expected = [
            "other",
            "server.age",
            "server.late",
            "server.listen",
            "server.size",
            "server.surplus",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn the_environment_goes_before_the_file_without_regard_to_case() {
        let mut settings = settings(
            "[queue.job]\nremoveOnFail = 1\nbackoff = { type = \"fixed\", delay = 5 }\n",
            &[
                ("HOOKGATE__QUEUE__JOB__REMOVEONFAIL", "7"),
                ("hookgate__queue__job__backoff__delay", "9"),
                ("HOOKGATE__QUEUE__NAMES", "[\"a\", \"b\"]"),
                ("HOOKGATE__QUEUE__SINGLE", "a"),
                ("HOOKGATE__QUEUE__DIGITS", "12"),
            ],
        );
        let mut queue = settings.section("queue");
        assert_eq!(queue.value("names", Vec::<String>::new()), ["a", "b"]);
        assert_eq!(queue.value("single", Vec::<String>::new()), ["a"]);
        assert_eq!(queue.value("digits", String::new()), "12");
        let mut job = queue.section("job");
        assert_eq!(job.value("removeOnFail", 0), 7);
        let backoff: Table = job.optional("backoff").unwrap();
        assert_eq!(backoff.get("delay"), Some(&Value::Integer(9)));
        assert_eq!(backoff.get("type"), Some(&Value::String("fixed".to_owned())));
        let expected = [
            "queue.digits",
            "queue.job.backoff.delay",
            "queue.job.removeOnFail",
            "queue.names",
            "queue.single",
        ];
        assert!(settings.keys_from_environment().iter().eq(expected));
        assert!(settings.into_faults().is_empty());
    }

    #[test]
    fn a_fault_never_repeats_a_value() {
        let mut settings = settings("[auth]\nsecrets = \"hunter2\"\n", &[]);
        let _: Vec<(String, Secret)> = settings.section("auth").secrets("secret");
        assert!(settings.into_faults().iter().all(|fault| !fault.message.contains("hunter2")));
    }
}
