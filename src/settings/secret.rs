//! Values that are never printed, and the files that they may stand in.

use super::Section;
use super::environment::bare;
use crate::text_file::TextFile;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Value;

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// What was given for it, wherever that stands. A line break at its end is no part of it: it came with a command, a
    /// file or a text of several lines.
    fn given(text: &str) -> Self {
        Self(bare(text).to_owned())
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

/// Whether nothing but white space is in it, which is nobody's secret.
fn is_blank(secret: &str) -> bool {
    secret.trim().is_empty()
}

impl Section<'_> {
    /// A secret: the value of `key`, or what the file named by `<key>_file` holds. `None` where there is a default: a
    /// fault has been told.
    pub fn secret(&mut self, key: &str, default: Option<&str>) -> Option<Secret> {
        let given: Option<String> = match default {
            Some(default) => Some(self.value(key, default.to_owned())),
            None => self.optional(key),
        };
        let file_key = format!("{key}_file");
        let file: PathBuf = self.value(&file_key, PathBuf::new());
        if file.as_os_str().is_empty() {
            return given.as_deref().map(Secret::given);
        }
        self.read_secret(&file_key, &file)
    }

    /// Secrets: the values of `<key>s`, then what the files named by `<key>_files` hold; each with where it is from.
    pub fn secrets(&mut self, key: &str) -> Vec<(String, Secret)> {
        let plain_key = format!("{key}s");
        let given = self.value(&plain_key, Vec::<String>::new());
        if given.iter().any(|secret| is_blank(secret)) {
            self.fault(&plain_key, "a secret is empty or blank");
        }
        let name = self.path_of(&plain_key);
        let mut secrets: Vec<(String, Secret)> =
            given.iter().map(|secret| (name.clone(), Secret::given(secret))).collect();
        let files_key = format!("{key}_files");
        for path in self.value(&files_key, Vec::<PathBuf>::new()) {
            let name = format!("{} {}", self.path_of(&files_key), path.display());
            secrets.extend(self.read_secret(&files_key, &path).map(|secret| (name, secret)));
        }
        secrets
    }

    /// Reads a secret from a file, less the line break at its end.
    fn read_secret(&mut self, key: &str, path: &Path) -> Option<Secret> {
        let secret = open(path).and_then(|file| {
            self.settings.files.push(file.stamp_of_secret());
            match String::from_utf8(self.contents(key, path, file)) {
                Ok(text) if is_blank(&text) => Err(format!("{} is empty or blank", path.display())),
                Ok(text) => Ok(Secret(text)),
                Err(_) => Err(format!("{} is no text in UTF-8", path.display())),
            }
        });
        secret.map_err(|message| self.fault(key, message)).ok()
    }

    /// What is in a file that `key` names, less a byte order mark and the line breaks at its end, or what is to be said of
    /// the key. It counts as given: with other contents the key is not as it was.
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
        self.settings.given.add(&name, Value::String(text));
        bytes
    }
}

fn open(path: &Path) -> Result<TextFile, String> {
    TextFile::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
