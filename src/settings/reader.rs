//! All settings: the file, the environment, and the keys that the program reads.

use crate::files::text_file::Stamp;
use crate::settings::environment::{self, Environment};
use crate::settings::fault::{self, Fault, mismatch};
use crate::settings::raw_values::RawValues;
use crate::settings::spelling::nearest;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// The configured values, and the keys that the program has read.
#[derive(Debug, Default)]
pub struct SettingsReader {
    file: Table,
    /// The contents of the file, to find the line of a fault.
    text: String,
    environment: Environment,
    /// Keys whose value, or a part of it, comes from the environment.
    from_environment: BTreeSet<String>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<String>,
    pub(super) sections: BTreeSet<String>,
    /// Every key that was read, with its default. A test compares `config/hookgate.toml` with it.
    pub(super) known: BTreeMap<String, Option<Value>>,
    /// The bounds of keys that have some, as people write them.
    pub(super) bounds: BTreeMap<String, String>,
    pub(super) raw_values: RawValues,
    /// The files of secrets and keys that were read.
    pub(super) files: Vec<Stamp>,
}

impl SettingsReader {
    pub fn new(file: Table, environment: impl Iterator<Item = (String, String)>) -> Self {
        Self { file, environment: Environment::new(environment), ..Self::default() }
    }

    /// Parses the contents of a file, and reads the environment of the process.
    pub fn of_process(text: &str) -> Result<Self, toml::de::Error> {
        let (file, text) = (toml::from_str(text)?, text.to_owned());
        Ok(Self { file, text, environment: Environment::of_process(), ..Self::default() })
    }

    /// Every key that was read, with its default.
    pub fn known(&self) -> &BTreeMap<String, Option<Value>> {
        &self.known
    }

    /// Returns the bounds of the keys that have some, such as `1 to 1024`.
    pub fn bounds(&self) -> &BTreeMap<String, String> {
        &self.bounds
    }

    /// The raw values that were given.
    pub fn raw_values(&self) -> &RawValues {
        &self.raw_values
    }

    /// Keys whose value, or a part of it, comes from the environment.
    pub fn keys_from_environment(&self) -> &BTreeSet<String> {
        &self.from_environment
    }

    /// The files of secrets and keys that were read.
    pub fn files(&self) -> &[Stamp] {
        &self.files
    }

    /// All warnings, including those about variables that look like settings and set no key.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        for unused in self.environment.unused().filter(|unused| !self.is_section(unused.first())) {
            let suggestion = self.suggestion(unused.path, environment::variable_of);
            let variable = unused.variable();
            warnings.push(format!(
                "{variable} is set but has no effect: no section has this name{suggestion}"
            ));
        }
        warnings
    }

    /// All faults, including those of keys that no part of the program has read.
    pub fn into_faults(mut self) -> Vec<Fault> {
        let mut unknown = Vec::new();
        self.collect_unknown_keys("", &self.file, &mut unknown);
        let unknown = unknown.into_iter().map(|key| self.unknown_key(key));
        let variables = self.environment.unused().filter(|unused| self.is_section(unused.first()));
        let unknown = unknown.chain(variables.map(|unused| self.unknown_variable(&unused)));
        let unknown: Vec<Fault> = unknown.collect();
        self.faults.extend(unknown);
        let is_from_environment = |fault: &Fault| {
            let is_within = |inner: &str, outer: &str| {
                let rest = inner.strip_prefix(outer);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            let mut keys = self.from_environment.iter();
            keys.any(|key| is_within(key, &fault.key) || is_within(&fault.key, key))
        };
        let (mut from_environment, mut faults): (Vec<Fault>, Vec<Fault>) =
            std::mem::take(&mut self.faults).into_iter().partition(is_from_environment);
        for fault in &mut from_environment {
            fault.message.push_str(" (set by the environment)");
        }
        fault::locate(faults.iter_mut(), &self.text);
        faults.append(&mut from_environment);
        faults.sort();
        faults
    }

    fn unknown_key(&self, key: String) -> Fault {
        if self.is_section(&key) {
            return Fault::new(&key, format!("is a section and takes no value; write [{key}]"));
        }
        let suggestion = self.suggestion(&key, str::to_owned);
        Fault::new(key, format!("unknown key{suggestion}"))
    }

    fn unknown_variable(&self, unused: &environment::UnusedVariable<'_>) -> Fault {
        let variable = unused.variable();
        let message = if unused.is_valid {
            let suggestion = self.suggestion(unused.path, environment::variable_of);
            format!("unknown key, from the environment variable {variable}{suggestion}")
        } else {
            format!("the environment variable {variable} is not valid UTF-8")
        };
        Fault::new(unused.path, message)
    }

    /// Suggests the path that was probably meant, as the end of a message. Empty if there is none.
    fn suggestion(&self, path: &str, show: impl Fn(&str) -> String) -> String {
        let corrected = self.corrected(path).filter(|corrected| corrected != path);
        corrected.map_or_else(String::new, |path| format!("; did you mean {}?", show(&path)))
    }

    /// An existing path that differs from this one by at most one typing error in each of its
    /// names.
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

    /// Whether the path is a section or has sections below it.
    fn is_section(&self, path: &str) -> bool {
        let below = format!("{path}.");
        self.sections.iter().any(|known| known == path || known.starts_with(&below))
    }

    fn collect_unknown_keys(&self, path: &str, table: &Table, unknown: &mut Vec<String>) {
        for (key, value) in table {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value {
                Value::Table(inner) if self.is_section(&path) => {
                    self.collect_unknown_keys(&path, inner, unknown);
                }
                _ => unknown.push(path),
            }
        }
    }

    /// Removes and returns the value of a key from the environment, or else from the file. The
    /// error of a value of a wrong type contains the example.
    pub(super) fn take<T: DeserializeOwned>(
        &mut self,
        path: &str,
        default: Option<&Value>,
        example: Option<&str>,
    ) -> Result<Option<T>, String> {
        let from_file = take_from(&mut self.file, path);
        if let Some(text) = self.environment.take(&path.to_ascii_lowercase()) {
            let read = environment::value_of(&text, example).map(Some);
            self.from_environment.insert(path.to_owned());
            self.raw_values.add(path, Value::String(text));
            return read;
        }
        let value = self.overlay(path, from_file, default);
        if let Some(value) = &value {
            self.raw_values.add(path, value.clone());
        }
        value.map(|value| value.try_into().map_err(|error| mismatch(&error, example))).transpose()
    }

    /// The names of the tables below a path of the file.
    pub(super) fn table_names(&self, path: &str) -> Vec<String> {
        let mut names = path.split('.');
        let table = names.try_fold(&self.file, |table, name| table.get(name)?.as_table());
        let members = table.into_iter().flatten();
        members.filter(|(_, value)| value.is_table()).map(|(name, _)| name.clone()).collect()
    }

    /// Removes and returns a table, which the environment can only replace as a whole, and the
    /// names of members that it sets nevertheless. A value that is no table is returned too. It is
    /// not converted, which would change the type of a date.
    pub(super) fn take_whole(&mut self, path: &str) -> (Option<Value>, Vec<String>) {
        let members = self.environment.take_below(&path.to_ascii_lowercase());
        let names: Vec<String> = members.into_iter().map(|(name, _)| name).collect();
        self.from_environment.extend(names.iter().map(|name| format!("{path}.{name}")));
        let from_file = take_from(&mut self.file, path);
        let from_environment = self.environment.take(&path.to_ascii_lowercase()).map(|text| {
            self.from_environment.insert(path.to_owned());
            environment::parsed_value_of(&text).unwrap_or(Value::String(text))
        });
        let value = from_environment.or(from_file);
        if let Some(value) = &value {
            self.raw_values.add(path, value.clone());
        }
        self.known.insert(path.to_owned(), None);
        (value, names)
    }

    /// Replaces an array of tables of the file by one table with their numbers as names, and returns
    /// how many there are.
    pub(super) fn split_tables(&mut self, path: &str) -> Result<usize, String> {
        let variable = path.to_ascii_lowercase();
        let from_environment = self.environment.take(&variable).map(|text| {
            self.from_environment.insert(path.to_owned());
            environment::parsed_value_of(&text).unwrap_or(Value::String(text))
        });
        let from_file = take_from(&mut self.file, path);
        let tables = match from_environment.or(from_file) {
            None => Vec::new(),
            Some(Value::Array(tables)) if tables.iter().all(Value::is_table) => tables,
            Some(_) => return Err("not an array of tables".to_owned()),
        };
        let is_set = |number: usize| self.environment.has_below(&format!("{variable}.{number}"));
        let added = (tables.len()..usize::MAX).take_while(|number| is_set(*number)).count();
        let count = tables.len() + added;
        let numbered = tables.into_iter().enumerate();
        let numbered: Table = numbered.map(|(number, table)| (number.to_string(), table)).collect();
        put_into(&mut self.file, path, Value::Table(numbered));
        Ok(count)
    }

    /// Overrides single members of a table from the environment:
    /// `HOOKGATE__QUEUE__JOB__BACKOFF__DELAY` sets `delay` of `queue.job.backoff`.
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

/// Sets a value, and adds the tables above it.
fn put_into(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(table.insert(path.to_owned(), value)),
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put_into(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;
    use std::ops::RangeInclusive;
    use std::time::Duration;

    fn settings(file: &str, environment: &[(&str, &str)]) -> SettingsReader {
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        SettingsReader::new(toml::from_str(file).unwrap(), environment)
    }

    fn seconds() -> RangeInclusive<Duration> {
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
        server.duration("age", "2s", seconds());
        server.duration("late", "2s", seconds());
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
    fn the_environment_overrides_the_file_in_any_case() {
        let mut settings = settings(
            "[queue.job]\nremoveOnFail = 1\nbackoff = { type = \"fixed\", delay = 5 }\n",
            &[
                ("HOOKGATE__QUEUE__JOB__REMOVEONFAIL", "7"),
                ("hookgate__queue__job__backoff__delay", "9"),
                ("HOOKGATE__QUEUE__NAMES", "[\"a\", \"b\"]"),
                ("HOOKGATE__QUEUE__SINGLE", "a"),
                ("HOOKGATE__QUEUE__DIGITS", "12"),
                ("HOOKGATE__QUEUE__NUMBERS", "12"),
            ],
        );
        let mut queue = settings.section("queue");
        assert_eq!(queue.value("names", Vec::<String>::new()), ["a", "b"]);
        assert_eq!(queue.value("single", Vec::<String>::new()), ["a"]);
        assert_eq!(queue.value("digits", String::new()), "12");
        assert_eq!(queue.value("numbers", Vec::<Value>::new()), [Value::Integer(12)]);
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
            "queue.numbers",
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
