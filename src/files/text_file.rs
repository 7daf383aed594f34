//! Reads files that people edit: text in UTF-8, with or without a byte order mark, and a stamp that
//! identifies the version that was read.

use crate::files::file_access;
use aws_lc_rs::digest::{SHA256, digest};
use hex::encode as hex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::retry_on_intr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The byte order mark of UTF-8.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// The byte order marks of UTF-16, in both byte orders.
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// How long to wait until a writer opens a FIFO. Once a writer has opened it, there is no limit.
const WRITER_TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Reads a file. The result does not include a byte order mark.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    Ok(TextFile::read(path)?.into_text())
}

/// A file that was read: its bytes and its modification time.
#[derive(Debug)]
pub struct TextFile {
    path: PathBuf,
    bytes: Vec<u8>,
    modified: Option<SystemTime>,
}

impl TextFile {
    pub fn read(path: &Path) -> io::Result<Self> {
        file_access::enter(path);
        // Without this flag, opening a FIFO waits for a writer.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        // The metadata is that of the open file, because the path may name another file by now.
        let metadata = file.metadata()?;
        let modified = metadata.modified().ok();
        let mut bytes = Vec::new();
        if metadata.is_file() {
            file.read_to_end(&mut bytes)?;
        } else {
            read_pipe(file, &mut bytes, WRITER_TIMEOUT)?;
        }
        if UTF16_MARKS.iter().any(|mark| bytes.starts_with(mark)) {
            let message = "it is in UTF-16; save it as UTF-8";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self { path: path.to_owned(), bytes, modified })
    }

    /// The contents without a byte order mark.
    pub fn into_text(self) -> Vec<u8> {
        match self.bytes.strip_prefix(UTF8_MARK) {
            Some(text) => text.to_vec(),
            None => self.bytes,
        }
    }

    /// The stamp of this version, with its digest.
    pub fn stamp(&self) -> Stamp {
        Stamp { sha256: Some(hex(digest(&SHA256, &self.bytes).as_ref())), ..self.stamp_of_secret() }
    }

    /// The stamp of a file with a secret. It has no digest, because a digest would let
    /// a short secret be guessed.
    pub fn stamp_of_secret(&self) -> Stamp {
        Stamp { path: self.path.clone(), modified: self.modified, sha256: None }
    }
}

/// Reads a FIFO to its end, if a writer opens it within `timeout`. A configuration may come from a
/// pipe.
fn read_pipe(mut file: File, bytes: &mut Vec<u8>, timeout: Timespec) -> io::Result<()> {
    let mut chunk = [0; 4096];
    let (mut has_writer, mut has_waited) = (false, false);
    loop {
        match file.read(&mut chunk) {
            Ok(0) if has_writer => return Ok(()),
            Ok(0) if has_waited => {
                let message = "it is a FIFO without a writer";
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            Ok(0) => {
                has_waited = true;
                has_writer = is_ready(&file, Some(&timeout))?;
            }
            Ok(read) => {
                has_writer = true;
                bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A writer has opened the FIFO and not written yet.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                has_writer = is_ready(&file, None)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits until there is something to read, or until the last writer has closed the file.
fn is_ready(file: &File, timeout: Option<&Timespec>) -> io::Result<bool> {
    let mut ready = [PollFd::new(file, PollFlags::IN)];
    Ok(retry_on_intr(|| poll(&mut ready, timeout))? > 0)
}

/// Identifies the version of a file that was read. A file that is replaced under a bind mount keeps
/// its old contents inside the mount, and the stamp shows that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    path: PathBuf,
    modified: Option<SystemTime>,
    sha256: Option<String>,
}

impl Stamp {
    /// The modification time in RFC 3339.
    pub fn modified(&self) -> Option<String> {
        // A file may be dated before 1970, and the formatter panics on such a time.
        let modified = self.modified?.max(SystemTime::UNIX_EPOCH);
        Some(humantime::format_rfc3339_seconds(modified).to_string())
    }

    pub fn sha256(&self) -> Option<&str> {
        self.sha256.as_deref()
    }

    /// Logs that the file of a secret or key was read.
    pub fn log(&self) {
        let file = self.path.display();
        let (modified, sha256) = (self.modified(), self.sha256());
        tracing::info!(%file, modified, sha256, "secret or key file read");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    #[test]
    fn a_utf_8_mark_is_skipped_and_a_utf_16_mark_is_an_error() {
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
    fn a_fifo_with_a_writer_is_read() {
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
    fn a_fifo_is_read_to_its_end_although_the_writer_pauses() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let open = || OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
        let timeout = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let read = |file| {
            let mut bytes = Vec::new();
            read_pipe(file, &mut bytes, timeout).map(|()| bytes)
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
    fn a_stamp_has_the_digest_of_the_file_contents() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        let file = TextFile::read(&path).unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(file.stamp().sha256.as_deref(), Some(expected));
        assert!(file.stamp().modified.is_some() && file.stamp_of_secret().sha256.is_none());
    }
}
