//! A file that is read again when it has changed.
//!
//! It is looked at, not subscribed to: a look costs microseconds, and sees the swapped symbolic
//! links of a mounted configuration, which notifications miss.

use crate::file_access;
use crate::text_file;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often a file is looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What tells one version of a file from another.
type Seen = Option<(SystemTime, u64, u64)>;

#[derive(Debug, Clone)]
pub struct WatchedFile {
    path: PathBuf,
    seen: Seen,
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
    pub async fn read_if_changed(&mut self) -> io::Result<Option<Vec<u8>>> {
        let (path, before) = (self.path.clone(), self.seen);
        let look = move || read_if_changed(&path, before);
        let (seen, contents) = file_access::run(&self.path, look).await??;
        self.seen = seen;
        Ok(contents)
    }
}

fn read_if_changed(path: &Path, before: Seen) -> io::Result<(Seen, Option<Vec<u8>>)> {
    file_access::enter(path);
    let metadata = std::fs::metadata(path)?;
    let seen = Some((metadata.modified()?, metadata.len(), metadata.ino()));
    let contents = if seen == before { None } else { Some(text_file::read(path)?) };
    Ok((seen, contents))
}
