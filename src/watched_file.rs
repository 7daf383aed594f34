//! A file that is read again when it has changed.
//!
//! It is looked at, not subscribed to: a look costs microseconds, and sees the swapped symbolic
//! links of a mounted configuration, which notifications miss.

use crate::text_file;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// How often a file is looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Clone)]
pub struct WatchedFile {
    path: PathBuf,
    seen: Option<(SystemTime, u64, u64)>,
}

impl WatchedFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The next look reads it again, changed or not.
    pub fn forget(&mut self) {
        self.seen = None;
    }

    /// The contents less a byte order mark, if they are new since the last look.
    pub fn read_if_changed(&mut self) -> io::Result<Option<Vec<u8>>> {
        let metadata = std::fs::metadata(&self.path)?;
        let stamp = Some((metadata.modified()?, metadata.len(), metadata.ino()));
        if stamp == self.seen {
            return Ok(None);
        }
        let contents = text_file::read(&self.path)?;
        self.seen = stamp;
        Ok(Some(contents))
    }
}
