//! Panics and hangs where a test asks for one. Only in builds for tests: a release has nothing of it.

#[cfg(debug_assertions)]
mod asked {
    use std::path::PathBuf;
    use std::sync::LazyLock;
    use std::thread;
    use std::time::Duration;

    /// Files in it say what is asked for.
    static DIRECTORY: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("HOOKGATE_FAILPOINTS").map(PathBuf::from));

    pub(super) fn is_panic(place: &str) -> bool {
        DIRECTORY.as_ref().is_some_and(|asked| std::fs::remove_file(asked.join(place)).is_ok())
    }

    #[expect(clippy::disallowed_methods, reason = "it is to hold the thread")]
    pub(super) fn hold(place: &str) {
        let Some(asked) = DIRECTORY.as_ref().map(|asked| asked.join(format!("hold {place}")))
        else {
            return;
        };
        while asked.exists() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A place in the code.
///
/// # Panics
///
/// If there is a file of this name in the directory that `HOOKGATE_FAILPOINTS` names. It is removed: one panic for each.
#[cfg(debug_assertions)]
pub fn pass(place: &str) {
    assert!(!asked::is_panic(place), "a test has asked for a panic");
}

#[cfg(not(debug_assertions))]
pub fn pass(_place: &str) {}

/// A place that holds its thread for as long as there is a file `hold <name>` in the directory that `HOOKGATE_FAILPOINTS`
/// names: a path goes by the name of its file.
#[cfg(debug_assertions)]
pub fn hold(place: impl AsRef<std::path::Path>) {
    if let Some(name) = place.as_ref().file_name().and_then(std::ffi::OsStr::to_str) {
        asked::hold(name);
    }
}

#[cfg(not(debug_assertions))]
pub fn hold(_place: impl AsRef<std::path::Path>) {}
