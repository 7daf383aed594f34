//! Failpoints: places where a test build panics or hangs on request. In a release build they do
//! nothing.

#[cfg(debug_assertions)]
mod requested {
    use std::path::PathBuf;
    use std::sync::LazyLock;
    use std::thread;
    use std::time::Duration;

    /// The directory whose files request panics and hangs. `None` if `HOOKGATE_FAILPOINTS` is not
    /// set.
    static DIRECTORY: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("HOOKGATE_FAILPOINTS").map(PathBuf::from));

    pub(super) fn is_panic(place: &str) -> bool {
        DIRECTORY
            .as_ref()
            .is_some_and(|directory| std::fs::remove_file(directory.join(place)).is_ok())
    }

    #[expect(clippy::disallowed_methods, reason = "the failpoint blocks its thread")]
    pub(super) fn hold(place: &str) {
        let Some(request) =
            DIRECTORY.as_ref().map(|directory| directory.join(format!("hold {place}")))
        else {
            return;
        };
        while request.exists() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A failpoint that panics on request.
///
/// # Panics
///
/// If the directory named by `HOOKGATE_FAILPOINTS` has a file named `place`. The file is removed,
/// so that each file causes one panic.
#[cfg(debug_assertions)]
pub fn pass(place: &str) {
    assert!(!requested::is_panic(place), "a test has requested a panic");
}

#[cfg(not(debug_assertions))]
pub fn pass(_place: &str) {}

/// Blocks the thread for as long as the directory named by `HOOKGATE_FAILPOINTS` has a file
/// `hold <name>`, where `<name>` is the file name of `place`.
#[cfg(debug_assertions)]
pub fn hold(place: impl AsRef<std::path::Path>) {
    if let Some(name) = place.as_ref().file_name().and_then(std::ffi::OsStr::to_str) {
        requested::hold(name);
    }
}

#[cfg(not(debug_assertions))]
pub fn hold(_place: impl AsRef<std::path::Path>) {}
