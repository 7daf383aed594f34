//! A file that is replaced as a whole. Readers find the old or the new contents, even after a power
//! failure.

use crate::files::file_access;
use crate::process::failpoint;
use anyhow::Context as _;
use rustix::fs::{FlockOperation, OFlags, flock};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Readable by its owner only, because a snapshot holds organization ids and digests of API keys.
const MODE: u32 = 0o600;

/// The right of one process to replace the file. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "it is held, not used")] File);

/// Claims the right to replace a file; `None` while another process has it.
///
/// The lock is on the file `<name>.lock` in the same directory, which is never removed. Temporary
/// files of a killed process are removed.
pub(super) fn lock(path: &Path) -> anyhow::Result<Option<Lock>> {
    let lock = with_suffix(path, ".lock");
    file_access::enter(&lock);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(MODE);
    let file = options.custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK)).open(&lock);
    let file = file.with_context(|| format!("cannot open {}", lock.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            remove_leftovers(path);
            Ok(Some(Lock(file)))
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", lock.display())),
    }
}

/// Replaces a file. `write` fills a temporary file in the same directory, which is renamed once it
/// is on the disk.
pub(super) fn replace(
    path: &Path,
    write: impl FnOnce(&File) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    file_access::enter(path);
    let temporary = with_suffix(path, &format!(".{:016x}{TEMPORARY}", fastrand::u64(..)));
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(MODE);
    let file = options.custom_flags(flags(OFlags::NOFOLLOW)).open(&temporary);
    let file = file.with_context(|| format!("cannot create {}", temporary.display()))?;
    let replaced = write(&file).and_then(|()| {
        failpoint::hold("written snapshot");
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        // The new name survives a power failure only once the directory is on the disk.
        File::open(directory(path))?.sync_all()?;
        Ok(())
    });
    if replaced.is_err() {
        // This fails if the file has been renamed already. Anything else that remains is removed
        // with the leftovers.
        let _ = std::fs::remove_file(&temporary);
    }
    replaced
}

/// Reads a file; `None` if it does not exist. Only a regular file is read: reading a FIFO may never
/// end.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    file_access::enter(path);
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(flags(OFlags::NONBLOCK)).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    anyhow::ensure!(metadata.is_file(), "it is not a regular file");
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The end of a temporary file's name, which is `<name>.<16 hex digits>.new`.
const TEMPORARY: &str = ".new";

fn remove_leftovers(path: &Path) {
    let (Some(name), Ok(entries)) = (path.file_name(), std::fs::read_dir(directory(path))) else {
        return;
    };
    for entry in entries.flatten() {
        if is_temporary(name.as_encoded_bytes(), entry.file_name().as_encoded_bytes()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether `other` is the name of a temporary file for the file `name`.
fn is_temporary(name: &[u8], other: &[u8]) -> bool {
    let number = other.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"."));
    let number = number.and_then(|rest| rest.strip_suffix(TEMPORARY.as_bytes()));
    number.is_some_and(|number| number.len() == 16 && number.iter().all(u8::is_ascii_hexdigit))
}

/// A file in the same directory whose name has this suffix.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_replaced_completely_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        assert_eq!(read(&path).unwrap(), None);
        replace(&path, |mut file| Ok(file.write_all(b"one")?)).unwrap();
        let refused = replace(&path, |mut file| {
            file.write_all(b"two")?;
            anyhow::bail!("the disk is full")
        });
        assert_eq!(refused.unwrap_err().to_string(), "the disk is full");
        assert_eq!(read(&path).unwrap().unwrap(), b"one");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_process_holds_the_lock_and_removes_leftovers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let leftover = directory.path().join("index.0123456789abcdef.new");
        let others = ["index.new", "index.0123.new", "other.0123456789abcdef.new"];
        for file in others.map(|name| directory.path().join(name)).iter().chain([&leftover]) {
            std::fs::write(file, b"").unwrap();
        }
        let held = lock(&path).unwrap().unwrap();
        assert!(!leftover.exists());
        assert!(others.iter().all(|name| directory.path().join(name).exists()));
        assert!(lock(&path).unwrap().is_none());
        drop(held);
        assert!(lock(&path).unwrap().is_some());
    }
}
