//! The configuration: a file, and the environment.

use hookgate::config::Config;
use hookgate::settings::SettingsReader;
use toml::{Table, Value};

/// A string that is in every secret and must not be in any fault.
const SECRET: &str = "s3cr3t-Zq7Mark";

/// A file, then a line `---`, then variables of the environment, one per line.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A fuzzer learns this string and uses it as a key.
    if text.contains(SECRET) {
        return;
    }
    let (file, environment) = text.split_once("\n---\n").unwrap_or((text, ""));
    let Ok(mut file) = toml::from_str::<Table>(file) else { return };
    let mut environment: Vec<(String, String)> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .filter(|(name, value)| !names_file(name) && !names_file(value))
        .collect();
    prepare(&mut file, "");
    for (name, value) in &mut environment {
        let path = name.to_ascii_lowercase().replace("__", ".");
        if let Some(secret) =
            path.strip_prefix("hookgate.").and_then(|path| with_secret(path, value))
        {
            *value = secret;
        }
    }
    if let Err(faults) = Config::read(SettingsReader::new(file, environment.into_iter())) {
        assert!(!faults.is_empty());
        for fault in faults {
            assert!(!fault.to_string().contains(SECRET), "a fault contains a secret: {fault}");
        }
    }
}

/// Removes the names of files, which must not be opened here, and puts [`SECRET`] into secrets.
fn prepare(table: &mut Table, path: &str) {
    table.retain(|key, _| !names_file(key));
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(inner) => prepare(inner, &path),
            Value::Array(values) => {
                for value in values {
                    if let Some(secret) = value.as_str().and_then(|text| with_secret(&path, text)) {
                        *value = Value::String(secret);
                    }
                }
            }
            value => {
                if let Some(secret) = value.as_str().and_then(|text| with_secret(&path, text)) {
                    *value = Value::String(secret);
                }
            }
        }
    }
}

fn names_file(text: &str) -> bool {
    text.to_ascii_lowercase().contains("file")
}

/// The value of a secret key with [`SECRET`] in it; in an address, as its password.
fn with_secret(path: &str, value: &str) -> Option<String> {
    match path {
        "auth.jwt.secrets" => Some(format!("{value}{SECRET}")),
        "mongodb.uri" | "queue.redis" => Some(match value.split_once("://") {
            Some((scheme, rest)) => format!("{scheme}://user:{SECRET}@{rest}"),
            None => format!("{SECRET}{value}"),
        }),
        _ => None,
    }
}
