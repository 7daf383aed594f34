//! Temporary directories that are removed with the test process, however it ends.
//!
//! All of them are in one directory of the process. A shell that waits on a pipe from the process
//! removes it when the pipe closes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Servers may still be exiting while their directory is removed, hence the second and third
/// attempt.
const REMOVE_AFTER_US: &str =
    r#"cat >/dev/null; for _ in 1 2 3 4 5; do rm -rf "$1" && exit; sleep 1; done"#;

/// A fresh directory; removed on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(label: &str) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = base().join(format!("{label}-{serial}"));
        std::fs::create_dir(&path).expect("the base directory is writable");
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file into the directory and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, content).expect("a writable file in the directory");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever remains is removed with the base directory.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn base() -> &'static Path {
    static BASE: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (path, _remover) = BASE.get_or_init(|| {
        let path = tempfile::Builder::new()
            .prefix("hookgate-test-")
            .tempdir()
            .expect("a writable temporary directory")
            .keep();
        let remover = Command::new("sh")
            .args(["-c", REMOVE_AFTER_US, "remover"])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        (path, remover)
    });
    path
}
