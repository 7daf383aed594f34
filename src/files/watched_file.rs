//! A file that is read again when it changes.
//!
//! The file is polled: a check costs microseconds, and detects the swapped symbolic links of a
//! mounted configuration, which file system notifications miss.

use crate::files::file_access;
use crate::files::text_file;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often a file is checked for changes.
pub const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Distinguishes versions of a file: its modification time, length and inode. `None` before it is
/// read.
type FileVersion = Option<(SystemTime, u64, u64)>;

/// A file that its owner polls; it does not watch by itself.
#[derive(Debug, Clone)]
pub struct WatchedFile {
    path: PathBuf,
    seen: FileVersion,
}

impl WatchedFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Makes the next check read the file even if it has not changed.
    pub fn forget(&mut self) {
        self.seen = None;
    }

    /// Returns the contents without a byte order mark, if the file has changed after the last
    /// check.
    pub async fn read_if_changed(&mut self) -> io::Result<Option<Vec<u8>>> {
        let (path, before) = (self.path.clone(), self.seen);
        let check = move || read_if_changed(&path, before);
        let (seen, contents) = file_access::run(&self.path, check).await??;
        self.seen = seen;
        Ok(contents)
    }
}

fn read_if_changed(path: &Path, before: FileVersion) -> io::Result<(FileVersion, Option<Vec<u8>>)> {
    file_access::enter(path);
    let metadata = std::fs::metadata(path)?;
    let seen = Some((metadata.modified()?, metadata.len(), metadata.ino()));
    let contents = if seen == before { None } else { Some(text_file::read(path)?) };
    Ok((seen, contents))
}
