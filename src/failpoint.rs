//! Panics where a test asks for one. Only in builds for tests: a release has nothing of it.

/// A place in the code.
///
/// # Panics
///
/// If there is a file of this name in the directory that `HOOKGATE_FAILPOINTS` names. It is removed: one panic for each.
#[cfg(debug_assertions)]
pub fn pass(place: &str) {
    use std::path::PathBuf;
    use std::sync::LazyLock;

    static DIRECTORY: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("HOOKGATE_FAILPOINTS").map(PathBuf::from));
    let is_asked = |directory: &PathBuf| std::fs::remove_file(directory.join(place)).is_ok();
    assert!(!DIRECTORY.as_ref().is_some_and(is_asked), "a test has asked for a panic");
}

#[cfg(not(debug_assertions))]
pub fn pass(_place: &str) {}
