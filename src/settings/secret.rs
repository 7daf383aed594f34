//! Values that are never printed, and files that contain them.

use crate::files::text_file::TextFile;
use crate::settings::environment::bare;
use crate::settings::section::Section;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Value;

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// A secret from a configured value. A line break at its end is not part of the secret: a
    /// command, a file or a multi-line string adds it.
    fn from_value(value: &str) -> Self {
        Self(bare(value).to_owned())
    }

    /// The value itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

/// Whether the secret is empty or consists of white space.
fn is_blank(secret: &str) -> bool {
    secret.trim().is_empty()
}

impl Section<'_> {
    /// Reads a secret: the value of `key`, or the contents of the file named by `<key>_file`.
    /// `None` for a key with a default means that a fault is recorded.
    pub fn secret(&mut self, key: &str, default: Option<&str>) -> Option<Secret> {
        let given: Option<String> = match default {
            Some(default) => Some(self.value(key, default.to_owned())),
            None => self.optional(key),
        };
        let file_key = format!("{key}_file");
        let file: PathBuf = self.value(&file_key, PathBuf::new());
        if file.as_os_str().is_empty() {
            return given.as_deref().map(Secret::from_value);
        }
        self.read_secret(&file_key, &file)
    }

    /// Reads a secret that only a file can hold: the contents of the file named by `key`. `None` if
    /// none is named, or if a fault is recorded.
    pub fn secret_file(&mut self, key: &str) -> Option<Secret> {
        let file: PathBuf = self.value(key, PathBuf::new());
        if file.as_os_str().is_empty() { None } else { self.read_secret(key, &file) }
    }

    /// Reads a list of secrets: the values of `<key>s`, then the contents of the files named by
    /// `<key>_files`. Each has the name of its source.
    pub fn secrets(&mut self, key: &str) -> Vec<(String, Secret)> {
        let plain_key = format!("{key}s");
        let given = self.value(&plain_key, Vec::<String>::new());
        if given.iter().any(|secret| is_blank(secret)) {
            self.fault(&plain_key, "contains an empty or blank secret");
        }
        let name = self.path_of(&plain_key);
        let mut secrets: Vec<(String, Secret)> =
            given.iter().map(|secret| (name.clone(), Secret::from_value(secret))).collect();
        let files_key = format!("{key}_files");
        for path in self.value(&files_key, Vec::<PathBuf>::new()) {
            let name = format!("{} {}", self.path_of(&files_key), path.display());
            secrets.extend(self.read_secret(&files_key, &path).map(|secret| (name, secret)));
        }
        secrets
    }

    /// Reads a secret from a file, without the line breaks at its end.
    fn read_secret(&mut self, key: &str, path: &Path) -> Option<Secret> {
        let secret = open(path).and_then(|file| {
            self.settings.files.push(file.stamp_of_secret());
            match String::from_utf8(self.contents(key, path, file)) {
                Ok(text) if is_blank(&text) => Err(format!("{} is empty or blank", path.display())),
                Ok(text) => Ok(Secret(text)),
                Err(_) => Err(format!("{} is not valid UTF-8", path.display())),
            }
        });
        secret.map_err(|message| self.fault(key, message)).ok()
    }

    /// Reads the file that `key` names, without a byte order mark and the line breaks at its end.
    /// The error is the message of a fault. The contents become part of the raw values, so that a
    /// reload detects a changed file.
    pub fn file(&mut self, key: &str, path: &Path) -> Result<Vec<u8>, String> {
        let file = open(path)?;
        self.settings.files.push(file.stamp());
        Ok(self.contents(key, path, file))
    }

    fn contents(&mut self, key: &str, path: &Path, file: TextFile) -> Vec<u8> {
        let mut bytes = file.into_text();
        while bytes.ends_with(b"\n") || bytes.ends_with(b"\r") {
            bytes.pop();
        }
        let name = format!("{} {}", self.path_of(key), path.display());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.settings.raw_values.add(&name, Value::String(text));
        bytes
    }
}

fn open(path: &Path) -> Result<TextFile, String> {
    TextFile::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
