//! One section of the settings: typed values, and a fault for each invalid one.

use crate::settings::environment::variable_of;
use crate::settings::fault::Fault;
use crate::settings::reader::SettingsReader;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Value;

/// One section of the settings, such as `queue.batch`.
#[derive(Debug)]
pub struct Section<'a> {
    pub(super) settings: &'a mut SettingsReader,
    pub(super) path: String,
}

impl SettingsReader {
    pub fn section(&mut self, path: &str) -> Section<'_> {
        self.sections.insert(path.to_owned());
        Section { settings: self, path: path.to_owned() }
    }
}

impl Section<'_> {
    pub fn section(&mut self, key: &str) -> Section<'_> {
        let path = self.path_of(key);
        self.settings.section(&path)
    }

    /// A value with a default.
    pub fn value<T: DeserializeOwned + Serialize>(&mut self, key: &str, default: T) -> T {
        let documented = Value::try_from(&default).ok();
        let example = documented.as_ref().and_then(example);
        self.take(key, documented, example.as_deref()).unwrap_or(default)
    }

    /// An optional value.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        self.take(key, None, None)
    }

    /// An optional table whose members have any names. The environment can only replace it as a
    /// whole. A value that is no table is returned too.
    pub fn whole_table(&mut self, key: &str) -> Option<Value> {
        let path = self.path_of(key);
        let (value, members) = self.settings.take_whole(&path);
        for member in members {
            let variable = variable_of(&path);
            let message = format!("cannot be set alone; {variable} sets the whole table");
            self.fault(&format!("{key}.{member}"), message);
        }
        value
    }

    /// The number of the tables of an array such as `[[queue.shards]]`. Each is the section of its
    /// number from now on: `queue.shards.0`. The environment overrides their keys by number, adds
    /// tables after the last one, or replaces all.
    pub fn tables(&mut self, key: &str) -> usize {
        let path = self.path_of(key);
        self.settings.known.insert(path.clone(), None);
        self.settings.split_tables(&path).unwrap_or_else(|message| {
            self.fault(key, message);
            0
        })
    }

    /// The members of a table that have the name of another key of this section and a value of its
    /// type. In TOML, keys after the heading of a table are its members. Valid values with a brace
    /// are placeholders.
    pub fn members_like_keys(&self, table: &str) -> Vec<String> {
        let Some(Value::Table(members)) = self.settings.raw_values.get(&self.path_of(table)) else {
            return Vec::new();
        };
        let is_like_key = |(name, value): &(&String, &Value)| {
            let default = self.settings.known.get(&self.path_of(name)).and_then(Option::as_ref);
            default.is_some_and(|default| default.same_type(value))
                && (!value.to_string().contains('{') || self.has_fault(&format!("{table}.{name}")))
        };
        members.iter().filter(is_like_key).map(|(name, _)| name.clone()).collect()
    }

    /// The names of the tables in this section of the file.
    pub fn table_names(&self) -> Vec<String> {
        self.settings.table_names(&self.path)
    }

    /// A string in a notation of its own, such as a duration, with an example for messages.
    fn formatted(&mut self, key: &str, default: &str, example: &str) -> String {
        let (documented, example) = (Value::from(default), format!("{example:?}"));
        let text = self.take(key, Some(documented), Some(&example));
        text.unwrap_or_else(|| default.to_owned())
    }

    /// An integer within bounds.
    pub fn number(&mut self, key: &str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let value = self.value(key, default);
        self.within(key, value, &bounds, u64::to_string)
    }

    /// A `usize` within bounds.
    pub fn count(&mut self, key: &str, default: usize, bounds: RangeInclusive<usize>) -> usize {
        let value = self.value(key, default);
        self.within(key, value, &bounds, usize::to_string)
    }

    /// A duration, written `"250ms"`, `"15s"`, `"5m"`, `"24h"`.
    pub fn duration(
        &mut self,
        key: &str,
        default: &str,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        let text = self.formatted(key, default, "5s");
        let text = text.trim();
        if let Ok(value) = humantime::parse_duration(text) {
            let show = |span: &Duration| {
                if *span == value { text.to_owned() } else { format_duration(*span) }
            };
            return self.within(key, value, &bounds, show);
        }
        self.fault(key, "not a duration; write it like \"250ms\", \"5s\" or \"5m\"");
        *bounds.start()
    }

    /// A number of bytes, written `"256KiB"`, `"1MiB"`.
    pub fn size(&mut self, key: &str, default: &str, bounds: RangeInclusive<usize>) -> usize {
        let text = self.formatted(key, default, "1MiB");
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

    /// An address to listen on.
    pub fn address(&mut self, key: &str, default: SocketAddr) -> SocketAddr {
        let text = self.value(key, default.to_string());
        text.parse().unwrap_or_else(|_| {
            self.fault(key, "not an address; write it like \"0.0.0.0:2212\" or \"[::]:2212\"");
            default
        })
    }

    /// A string that must not be empty.
    pub fn name(&mut self, key: &str, default: &str) -> String {
        let name: String = self.value(key, default.to_owned());
        if name.is_empty() {
            self.fault(key, "is empty");
        }
        name
    }

    /// A string or a list of strings. The default is an empty list.
    pub fn string_list(&mut self, key: &str) -> Vec<String> {
        match self.optional::<Value>(key) {
            None => Vec::new(),
            Some(Value::String(text)) if text.is_empty() => {
                self.fault(key, "is empty; leave the key out instead");
                Vec::new()
            }
            Some(Value::String(text)) => vec![text],
            Some(value) => value.try_into().unwrap_or_else(|_| {
                self.fault(key, "not a string or a list of strings");
                Vec::new()
            }),
        }
    }

    /// Declares a key that is known but not supported. Setting it is a fault with this reason.
    pub fn unsupported(&mut self, key: &str, reason: &str) {
        let path = self.path_of(key);
        if !matches!(self.settings.take::<Value>(&path, None, None), Ok(None)) {
            self.fault(key, reason);
        }
    }

    /// Records a fault of a key.
    pub fn fault(&mut self, key: &str, message: impl Into<String>) {
        let key = self.path_of(key);
        self.settings.faults.push(Fault::new(key, message));
    }

    /// Adds to the fault of a key, if it has one, or else records a warning.
    pub fn note(&mut self, key: &str, message: &str) {
        let path = self.path_of(key);
        match self.settings.faults.iter_mut().find(|fault| fault.key == path) {
            Some(fault) => {
                fault.message.push_str("; it ");
                fault.message.push_str(message);
            }
            None => self.warning(key, message),
        }
    }

    fn has_fault(&self, key: &str) -> bool {
        let path = self.path_of(key);
        self.settings.faults.iter().any(|fault| fault.key == path)
    }

    /// Records a warning about a value that is not a fault.
    pub fn warning(&mut self, key: &str, message: impl fmt::Display) {
        let key = self.path_of(key);
        self.settings.warnings.push(format!("{key}: {message}"));
    }

    fn take<T: DeserializeOwned>(
        &mut self,
        key: &str,
        default: Option<Value>,
        example: Option<&str>,
    ) -> Option<T> {
        let path = self.path_of(key);
        let value = self.settings.take(&path, default.as_ref(), example);
        self.settings.known.insert(path, default);
        value.unwrap_or_else(|message| {
            self.fault(key, message);
            None
        })
    }

    /// Returns the value if it is within bounds. Otherwise records a fault and returns the lower
    /// bound.
    fn within<T: PartialOrd + Clone>(
        &mut self,
        key: &str,
        value: T,
        bounds: &RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) -> T {
        let range = format!("{} to {}", show(bounds.start()), show(bounds.end()));
        self.settings.bounds.insert(self.path_of(key), range);
        if bounds.contains(&value) {
            return value;
        }
        self.fault(
            key,
            format!(
                "{} is not between {} and {}",
                show(&value),
                show(bounds.start()),
                show(bounds.end())
            ),
        );
        bounds.start().clone()
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }
}

/// The default in the notation of TOML, if it shows how a value is written.
fn example(default: &Value) -> Option<String> {
    let shows_notation = match default {
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Boolean(_) => false,
        _ => true,
    };
    shows_notation.then(|| default.to_string())
}

/// Formats a duration in one unit: `"75s"`, `"24h"`.
fn format_duration(span: Duration) -> String {
    const UNITS: [(u128, &str); 3] = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let milliseconds = span.as_millis();
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    let unit = UNITS.into_iter().find(|(size, _)| milliseconds.is_multiple_of(*size));
    let (size, name) = unit.unwrap_or((1, "ms"));
    format!("{}{name}", milliseconds / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted_in_one_unit() {
        for text in ["0s", "10ms", "1500ms", "75s", "10m", "24h"] {
            assert_eq!(format_duration(humantime::parse_duration(text).unwrap()), text);
        }
    }
}
