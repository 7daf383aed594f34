//! The configuration that a test starts Hookgate with.

use std::fmt;

use toml::{Table, Value};

use super::ports;

/// The HMAC secret of [`Config::new`]; long enough for HS512.
pub const SECRET: &str = "a-test-secret-of-64-characters-which-is-what-hs512-likes-to-have";

/// A TOML table with addresses of keys: `config.set("queue.job.attempts", 5)`.
#[derive(Debug, Clone)]
pub struct Config {
    table: Table,
}

impl Config {
    /// Free ports, one HMAC secret, two workers, the file source; everything else as shipped. `triggers.file` and `queue.redis`
    /// are for the caller to set.
    pub fn new() -> Self {
        let mut config = Self { table: Table::new() };
        config.set("server.listen", format!("127.0.0.1:{}", ports::free()));
        config.set("server.workers", 2);
        config.set("admin.listen", format!("127.0.0.1:{}", ports::free()));
        config.set("auth.jwt.secrets", vec![SECRET]);
        config.set("triggers.source", "file");
        config.set("telemetry.log", "debug");
        config.set("telemetry.format", "text");
        config
    }

    pub fn parse(text: &str) -> Self {
        Self { table: text.parse().expect("TOML") }
    }

    /// Sets a key, making the tables on the way.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        let (tables, last) = split(key);
        let mut table = &mut self.table;
        for name in tables {
            let entry = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            table =
                entry.as_table_mut().unwrap_or_else(|| panic!("{name} of {key} is not a table"));
        }
        table.insert(last.to_owned(), value.into());
        self
    }

    /// Removes a key, if it is there.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        let (tables, last) = split(key);
        let mut table = &mut self.table;
        for name in tables {
            match table.get_mut(name).and_then(Value::as_table_mut) {
                Some(inner) => table = inner,
                None => return self,
            }
        }
        table.remove(last);
        self
    }

    /// A text value that must be there.
    pub fn text(&self, key: &str) -> &str {
        let (tables, last) = split(key);
        let mut table = &self.table;
        for name in tables {
            table =
                table[name].as_table().unwrap_or_else(|| panic!("{name} of {key} is not a table"));
        }
        table[last].as_str().unwrap_or_else(|| panic!("{key} is not text"))
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table.fmt(f)
    }
}

fn split(key: &str) -> (impl Iterator<Item = &str>, &str) {
    let (tables, last) = key.rsplit_once('.').unwrap_or(("", key));
    (tables.split('.').filter(|name| !name.is_empty()), last)
}
