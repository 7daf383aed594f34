//! Reading settings: a section hands out typed values and collects every fault on the way.
//!
//! Each part of the program reads its own section with a [`Section`]; what no part has asked for
//! is an unknown key. A value from the environment goes before one from the file.

mod given;
mod secret;

pub use given::Given;
pub use secret::Secret;

use serde::{Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::{Table, Value};

/// Variables that start so are settings: `HOOKGATE__SERVER__LISTEN` is `server.listen`.
const ENVIRONMENT_PREFIX: &str = "HOOKGATE__";

/// One thing that is wrong, with the path of its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    pub key: String,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.key, self.message)
    }
}

/// What was configured, and what the program asked for.
#[derive(Debug, Default)]
pub struct Settings {
    file: Table,
    /// By the path in lower case: names in the environment carry no case.
    environment: BTreeMap<String, String>,
    /// Keys whose value, or a part of it, came out of the environment.
    from_environment: BTreeSet<String>,
    faults: Vec<Fault>,
    sections: BTreeSet<String>,
    /// Every key that was asked for, with its default. `config/hookgate.toml` is held to it.
    known: BTreeMap<String, Option<Value>>,
    given: Given,
}

impl Settings {
    pub fn new(file: Table, environment: impl Iterator<Item = (String, String)>) -> Self {
        let environment = environment
            .filter(|(name, _)| name.to_ascii_uppercase().starts_with(ENVIRONMENT_PREFIX))
            .filter_map(|(name, value)| {
                let path = name.get(ENVIRONMENT_PREFIX.len()..)?;
                Some((path.replace("__", ".").to_ascii_lowercase(), value))
            })
            .collect();
        Self { file, environment, ..Self::default() }
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

    /// Every fault there is, those of keys that nobody asked for included.
    pub fn into_faults(mut self) -> Vec<Fault> {
        let mut unknown = Vec::new();
        self.leftovers("", &self.file, &mut unknown);
        self.faults.extend(
            unknown.into_iter().map(|key| Fault { key, message: "unknown key".to_owned() }),
        );
        self.faults.extend(self.environment.keys().map(|path| Fault {
            key: path.clone(),
            message: format!(
                "unknown key, from the environment variable {ENVIRONMENT_PREFIX}{}",
                path.replace('.', "__").to_ascii_uppercase()
            ),
        }));
        for fault in &mut self.faults {
            if self.from_environment.contains(&fault.key) {
                fault.message.push_str(" (set by the environment)");
            }
        }
        self.faults.sort();
        self.faults
    }

    fn leftovers(&self, path: &str, table: &Table, unknown: &mut Vec<String>) {
        for (key, value) in table {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let is_section = self.sections.contains(&path)
                || self.sections.iter().any(|known| known.starts_with(&format!("{path}.")));
            match value {
                Value::Table(inner) if is_section => self.leftovers(&path, inner, unknown),
                _ => unknown.push(path),
            }
        }
    }

    /// Takes the value of a key out of the environment, else out of the file.
    fn take<T: DeserializeOwned>(
        &mut self,
        path: &str,
        default: Option<&Value>,
    ) -> Result<Option<T>, String> {
        let from_file = take_from(&mut self.file, path);
        let lower = path.to_ascii_lowercase();
        if let Some(text) = self.environment.remove(&lower) {
            let read = from_text(&text).map(Some);
            self.from_environment.insert(path.to_owned());
            self.given.add(path, Value::String(text));
            return read;
        }
        let value = self.overlay(path, from_file, default);
        if let Some(value) = &value {
            self.given.add(path, value.clone());
        }
        value.map(|value| value.try_into().map_err(|error| first_line(&error))).transpose()
    }

    /// Members of a structured value can be overridden one by one:
    /// `HOOKGATE__QUEUE__JOB__BACKOFF__DELAY` is `delay` of `queue.job.backoff`.
    fn overlay(
        &mut self,
        path: &str,
        value: Option<Value>,
        default: Option<&Value>,
    ) -> Option<Value> {
        let prefix = format!("{}.", path.to_ascii_lowercase());
        let members: Vec<String> =
            self.environment.keys().filter(|path| path.starts_with(&prefix)).cloned().collect();
        if members.is_empty() {
            return value;
        }
        let mut table = match value.or_else(|| default.cloned()) {
            Some(Value::Table(table)) => table,
            _ => Table::new(),
        };
        for name in members {
            if let Some(text) = self.environment.remove(&name) {
                let member = name.get(prefix.len()..).unwrap_or_default().to_owned();
                self.from_environment.insert(format!("{path}.{member}"));
                table.insert(member, from_text(&text).unwrap_or(Value::String(text)));
            }
        }
        Some(Value::Table(table))
    }
}

/// One section of the settings, such as `queue.batch`.
#[derive(Debug)]
pub struct Section<'a> {
    settings: &'a mut Settings,
    path: String,
}

impl Section<'_> {
    pub fn section(&mut self, key: &str) -> Section<'_> {
        let path = self.path_of(key);
        self.settings.section(&path)
    }

    /// A value with a default.
    pub fn value<T: DeserializeOwned + Serialize>(&mut self, key: &str, default: T) -> T {
        let documented = Value::try_from(&default).ok();
        self.take(key, documented).unwrap_or(default)
    }

    /// A value that need not be given.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        self.take(key, None)
    }

    /// A whole number within bounds.
    pub fn number(&mut self, key: &str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let value = self.value(key, default);
        self.within(key, value, &bounds, u64::to_string)
    }

    /// A count that fits this machine's addresses.
    pub fn count(&mut self, key: &str, default: usize, bounds: RangeInclusive<usize>) -> usize {
        let value = self.value(key, default);
        self.within(key, value, &bounds, usize::to_string)
    }

    /// A span of time, written `"250ms"`, `"15s"`, `"5m"`, `"24h"`.
    pub fn duration(
        &mut self,
        key: &str,
        default: &str,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        let text: String = self.value(key, default.to_owned());
        let text = text.trim();
        if let Ok(value) = humantime::parse_duration(text) {
            let show =
                |span: &Duration| if *span == value { text.to_owned() } else { spell(*span) };
            return self.within(key, value, &bounds, show);
        }
        self.fault(key, "not a duration; write it like \"250ms\", \"15s\" or \"5m\"");
        *bounds.start()
    }

    /// A number of bytes, written `"256KiB"`, `"1MiB"`.
    pub fn size(&mut self, key: &str, default: &str, bounds: RangeInclusive<usize>) -> usize {
        let text: String = self.value(key, default.to_owned());
        let has_unit = text.trim_end().ends_with(|last: char| last.is_ascii_alphabetic());
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) if has_unit => {
                let bytes = usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
                self.within(key, bytes, &bounds, |bytes| {
                    bytesize::ByteSize::b(*bytes as u64).display().iec().to_string()
                })
            }
            _ => {
                self.fault(key, "not a size; write it like \"256KiB\" or \"1MiB\"");
                *bounds.start()
            }
        }
    }

    /// Where to listen.
    pub fn address(&mut self, key: &str, default: SocketAddr) -> SocketAddr {
        let text = self.value(key, default.to_string());
        text.parse().unwrap_or_else(|_| {
            self.fault(key, "not an address; write it like \"0.0.0.0:2212\" or \"[::]:2212\"");
            default
        })
    }

    /// A text that must not be empty.
    pub fn name(&mut self, key: &str, default: &str) -> String {
        let name: String = self.value(key, default.to_owned());
        if name.is_empty() {
            self.fault(key, "is empty");
        }
        name
    }

    /// One text, or a list of them; none by default.
    pub fn texts(&mut self, key: &str) -> Vec<String> {
        match self.optional::<Value>(key) {
            None => Vec::new(),
            Some(Value::String(text)) if text.is_empty() => {
                self.fault(key, "is empty; leave the key out instead");
                Vec::new()
            }
            Some(Value::String(text)) => vec![text],
            Some(value) => value.try_into().unwrap_or_else(|_| {
                self.fault(key, "not a text or a list of texts");
                Vec::new()
            }),
        }
    }

    /// A key that is known and never taken.
    pub fn refuse(&mut self, key: &str, reason: &str) {
        let path = self.path_of(key);
        if !matches!(self.settings.take::<Value>(&path, None), Ok(None)) {
            self.fault(key, reason);
        }
    }

    pub fn fault(&mut self, key: &str, message: impl Into<String>) {
        let key = self.path_of(key);
        self.settings.faults.push(Fault { key, message: message.into() });
    }

    fn take<T: DeserializeOwned>(&mut self, key: &str, default: Option<Value>) -> Option<T> {
        let path = self.path_of(key);
        let taken = self.settings.take(&path, default.as_ref());
        self.settings.known.insert(path, default);
        taken.unwrap_or_else(|message| {
            self.fault(key, message);
            None
        })
    }

    fn within<T: PartialOrd + Clone>(
        &mut self,
        key: &str,
        value: T,
        bounds: &RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) -> T {
        if bounds.contains(&value) {
            return value;
        }
        self.fault(
            key,
            format!(
                "{} is not within {} and {}",
                show(&value),
                show(bounds.start()),
                show(bounds.end())
            ),
        );
        bounds.start().clone()
    }

    fn path_of(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }
}

/// A span as people write it here, in one unit: `"75s"`, `"24h"`.
fn spell(span: Duration) -> String {
    const UNITS: [(u128, &str); 3] = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let milliseconds = span.as_millis();
    let unit =
        UNITS.into_iter().find(|(size, _)| milliseconds > 0 && milliseconds.is_multiple_of(*size));
    let (size, name) = unit.unwrap_or((1, "ms"));
    format!("{}{name}", milliseconds / size)
}

fn take_from(table: &mut Table, path: &str) -> Option<Value> {
    match path.split_once('.') {
        None => table.remove(path),
        Some((first, rest)) => take_from(table.get_mut(first)?.as_table_mut()?, rest),
    }
}

/// What a variable of the environment says: a number, flag, list or table as TOML writes it, else
/// the text as it is, else a list of that one text.
fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let parsed = toml::from_str::<Table>(&format!("value = {text}")).ok();
    let parsed = parsed.and_then(|mut table| table.remove("value"));
    let parsed = parsed.filter(|value| !value.is_str());
    let plain = Value::String(text.to_owned());
    let list = Value::Array(vec![plain.clone()]);
    let mut readings = parsed.into_iter().chain([plain, list]);
    let read = readings.find_map(|value| value.try_into().ok());
    read.ok_or_else(|| "not a value of the right type".to_owned())
}

/// Errors of the TOML reader may go on for lines and repeat the value, which may be a secret.
fn first_line(error: &toml::de::Error) -> String {
    let message = error.message();
    let first = message.lines().next().unwrap_or_default();
    match first.split_once("invalid type: ") {
        Some((_, rest)) => match rest.split_once(", expected ") {
            Some((_, expected)) => format!("wrong type, expected {}", in_words(expected)),
            None => "wrong type".to_owned(),
        },
        None => first.to_owned(),
    }
}

/// A type as people call it who do not write Rust.
fn in_words(expected: &str) -> &str {
    match expected {
        "i64" | "u64" | "u32" | "usize" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "a text",
        "a sequence" => "a list",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let keys: Vec<String> = settings.into_faults().into_iter().map(|fault| fault.key).collect();
        let expected = [
            "other",
            "server.age",
            "server.late",
            "server.listen",
            "server.size",
            "server.surplus",
            "servr.listen",
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
    fn spans_are_spelled_in_one_unit() {
        for text in ["0ms", "10ms", "1500ms", "75s", "10m", "24h"] {
            assert_eq!(spell(humantime::parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn a_fault_never_repeats_a_value() {
        let mut settings = settings("[auth]\nsecrets = \"hunter2\"\n", &[]);
        let _: Vec<(String, Secret)> = settings.section("auth").secrets("secret");
        assert!(settings.into_faults().iter().all(|fault| !fault.message.contains("hunter2")));
    }
}
