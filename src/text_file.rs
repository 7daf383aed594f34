//! Files that people write: text in UTF-8, whichever editor wrote it, and which version of it was read.

use crate::file_access;
use crate::hex::hex;
use aws_lc_rs::digest::{SHA256, digest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::retry_on_intr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a text in UTF-16 begins with, in either order of bytes.
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// How long is waited for somebody who writes to a FIFO. Who has opened it for that is waited for without a limit.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// What is in a file, less a byte order mark.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    Ok(TextFile::read(path)?.into_text())
}

/// A file as it was read.
#[derive(Debug)]
pub struct TextFile {
    path: PathBuf,
    bytes: Vec<u8>,
    modified: Option<SystemTime>,
}

impl TextFile {
    pub fn read(path: &Path) -> io::Result<Self> {
        file_access::enter(path);
        // Opening a FIFO would wait for somebody who writes to it.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        // Of the open file: another one may have its name by now.
        let metadata = file.metadata()?;
        let modified = metadata.modified().ok();
        let mut bytes = Vec::new();
        if metadata.is_file() {
            file.read_to_end(&mut bytes)?;
        } else {
            read_pipe(file, &mut bytes, PATIENCE)?;
        }
        if UTF16_MARKS.iter().any(|mark| bytes.starts_with(mark)) {
            let message = "it is in UTF-16; save it as UTF-8";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self { path: path.to_owned(), bytes, modified })
    }

    /// Its text, less a byte order mark.
    pub fn into_text(self) -> Vec<u8> {
        match self.bytes.strip_prefix(UTF8_MARK) {
            Some(text) => text.to_vec(),
            None => self.bytes,
        }
    }

    /// Which version it is.
    pub fn stamp(&self) -> Stamp {
        Stamp { sha256: Some(hex(digest(&SHA256, &self.bytes).as_ref())), ..self.stamp_of_secret() }
    }

    /// Likewise without the digest, by which a short secret could be guessed.
    pub fn stamp_of_secret(&self) -> Stamp {
        Stamp { path: self.path.clone(), modified: self.modified, sha256: None }
    }
}

/// Reads a FIFO to its end, if somebody opens it in time to write to it: a configuration may come out of a pipe.
fn read_pipe(mut file: File, bytes: &mut Vec<u8>, patience: Timespec) -> io::Result<()> {
    let mut piece = [0; 4096];
    let (mut has_writer, mut is_waited_for) = (false, false);
    loop {
        match file.read(&mut piece) {
            Ok(0) if has_writer => return Ok(()),
            Ok(0) if is_waited_for => {
                let message = "it is a FIFO to which nobody writes";
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            Ok(0) => {
                is_waited_for = true;
                has_writer = is_ready(&file, Some(&patience))?;
            }
            Ok(read) => {
                has_writer = true;
                bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // There is a writer, who has not written yet.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                has_writer = is_ready(&file, None)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits until there is something to read, or the last writer has closed the file.
fn is_ready(file: &File, patience: Option<&Timespec>) -> io::Result<bool> {
    let mut ready = [PollFd::new(file, PollFlags::IN)];
    Ok(retry_on_intr(|| poll(&mut ready, patience))? > 0)
}

/// Which version of a file was read: a file that was replaced under a bind mount is still the old one to whoever has mounted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    path: PathBuf,
    modified: Option<SystemTime>,
    sha256: Option<String>,
}

impl Stamp {
    /// When the file was written, for people.
    pub fn modified(&self) -> Option<String> {
        // A file may be dated before 1970, which has no such form.
        let modified = self.modified?.max(SystemTime::UNIX_EPOCH);
        Some(humantime::format_rfc3339_seconds(modified).to_string())
    }

    pub fn sha256(&self) -> Option<&str> {
        self.sha256.as_deref()
    }

    /// Says in the log that it was read.
    pub fn log(&self) {
        let file = self.path.display();
        let (modified, sha256) = (self.modified(), self.sha256());
        tracing::info!(%file, modified, sha256, "file read for the configuration");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    #[test]
    fn marks_of_utf_8_are_skipped_and_those_of_utf_16_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let read_back = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path)
        };
        assert_eq!(read_back(b"\xef\xbb\xbfa").unwrap(), b"a");
        assert_eq!(read_back(b"\xef\xbb\xbf\xef\xbb\xbfa").unwrap(), b"\xef\xbb\xbfa");
        assert_eq!(read_back(b"\xef\xbb").unwrap(), b"\xef\xbb");
        assert_eq!(read_back(b"").unwrap(), b"");
        for utf16 in [b"\xff\xfea\0", b"\xfe\xff\0a"] {
            assert!(read_back(utf16).unwrap_err().to_string().contains("UTF-16"));
        }
    }

    #[test]
    fn a_fifo_is_read_if_somebody_writes_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        let text = vec![b'a'; 100_000];
        let writer = std::thread::spawn({
            let (path, text) = (path.clone(), text.clone());
            move || std::fs::write(path, text).unwrap()
        });
        assert_eq!(read(&path).unwrap(), text);
        writer.join().unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(read(Path::new("/dev/null")).unwrap().is_empty());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the writer pauses")]
    fn a_writer_that_pauses_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let open = || OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
        let patience = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let read = |file| {
            let mut bytes = Vec::new();
            read_pipe(file, &mut bytes, patience).map(|()| bytes)
        };
        assert_eq!(read(open()).unwrap_err().kind(), io::ErrorKind::TimedOut);

        let file = open();
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        let writing = std::thread::spawn(move || {
            for piece in [b"a", b"b"] {
                std::thread::sleep(Duration::from_millis(50));
                writer.write_all(piece).unwrap();
            }
        });
        assert_eq!(read(file).unwrap(), b"ab");
        writing.join().unwrap();
    }

    #[test]
    fn the_digest_is_of_the_file_as_it_stands() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        let file = TextFile::read(&path).unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(file.stamp().sha256.as_deref(), Some(known));
        assert!(file.stamp().modified.is_some() && file.stamp_of_secret().sha256.is_none());
    }
}
