//! The configuration of a Hookgate under test.

use std::fmt;

use toml::{Table, Value};

use super::ports;

/// The HMAC secret of [`Config::new`]; long enough for HS512.
pub const SECRET: &str = "a-test-secret-of-64-characters-which-is-what-hs512-likes-to-have";

/// A TOML table whose keys have dotted paths: `config.set("queue.job.attempts", 5)`.
#[derive(Debug, Clone)]
pub struct Config {
    table: Table,
}

impl Config {
    /// Free ports, one HMAC secret, two workers, the file source; everything else as shipped. The
    /// caller sets `triggers.file` and `queue.redis`.
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

    /// Sets a key and creates the tables of its path.
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

    /// Everything that no output may contain: secrets, passwords in addresses, and the contents of
    /// secret files.
    pub fn secrets(&self) -> Vec<String> {
        let strings = |key: &str| strings(self.value(key));
        let read = |keys: &[&str]| -> Vec<String> {
            keys.iter().flat_map(|key| contents(strings(key))).collect()
        };
        let mut secrets = strings("auth.jwt.secrets");
        secrets.extend(read(&["auth.jwt.secret_files", "users.pepper_file"]));
        secrets.extend(strings("auth.jwt.jwks_url"));
        let mut addresses = [strings("queue.redis"), strings("mongodb.uri")].concat();
        addresses.extend(read(&["queue.redis_file", "mongodb.uri_file"]));
        let shards = self.value("queue.shards").and_then(Value::as_array).into_iter().flatten();
        for shard in shards {
            addresses.extend(self::strings(shard.get("redis")));
            addresses.extend(contents(self::strings(shard.get("redis_file"))));
        }
        secrets.extend(addresses.iter().filter_map(|address| password(address)));
        secrets.extend(self.secrets_of_verifications());
        secrets.into_iter().map(|secret| secret.trim().to_owned()).collect()
    }

    /// Those of the sections `[endpoints.verification.NAME]`.
    fn secrets_of_verifications(&self) -> Vec<String> {
        let sections = self.value("endpoints.verification").and_then(Value::as_table);
        let sections = sections.into_iter().flat_map(Table::values);
        sections
            .flat_map(|section| {
                let given = ["secret", "secrets", "verifyToken"];
                let given = given.into_iter().flat_map(|member| strings(section.get(member)));
                let files = ["secret_file", "secret_files", "verifyToken_file"];
                let files = files.into_iter().flat_map(|member| strings(section.get(member)));
                given.chain(contents(files)).collect::<Vec<String>>()
            })
            .collect()
    }

    fn value(&self, key: &str) -> Option<&Value> {
        let (tables, last) = split(key);
        let mut table = &self.table;
        for name in tables {
            table = table.get(name)?.as_table()?;
        }
        table.get(last)
    }

    /// The string value of a key that must be there.
    pub fn text(&self, key: &str) -> &str {
        let value = self.value(key).unwrap_or_else(|| panic!("no {key}"));
        value.as_str().unwrap_or_else(|| panic!("{key} is not a string"))
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table.fmt(f)
    }
}

/// Raises the timeouts so that only the test or a second signal ends a request, a connection or the
/// process.
pub fn patient(config: &mut Config) {
    config.set("queue.enqueue_timeout", "1m");
    for limit in ["body_timeout", "header_timeout", "idle_timeout", "drain_timeout"] {
        config.set(&format!("server.{limit}"), "10m");
    }
}

/// Lets the user that runs the tests count the process's descriptors, root or not.
pub fn countable(config: &mut Config) {
    config.set("telemetry.dumpable", true);
}

/// A string, or those of a list.
fn strings(value: Option<&Value>) -> Vec<String> {
    let values = match value {
        Some(Value::Array(values)) => values.as_slice(),
        value => value.map(std::slice::from_ref).unwrap_or_default(),
    };
    values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The contents of those files that exist.
fn contents(paths: impl IntoIterator<Item = String>) -> impl Iterator<Item = String> {
    paths.into_iter().filter_map(|path| std::fs::read_to_string(path).ok())
}

/// The password in an address. A short one could be any word, so it is returned with the characters
/// around it.
fn password(address: &str) -> Option<String> {
    let (user, _) = address.split_once("://")?.1.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    Some(if password.len() < 8 { format!(":{password}@") } else { password.to_owned() })
}

fn split(key: &str) -> (impl Iterator<Item = &str>, &str) {
    let (tables, last) = key.rsplit_once('.').unwrap_or(("", key));
    (tables.split('.').filter(|name| !name.is_empty()), last)
}
