//! Tells the program which commit it is built from.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).or_else(told_commit);
    println!("cargo::rustc-env=HOOKGATE_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=HOOKGATE_COMMIT");
    for file in ["HEAD", "logs/HEAD"] {
        // A path that is not there would count as changed at every build.
        if let Some(path) =
            git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists())
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// Where there is no repository, as in the build of an image, the builder may give it.
#[expect(clippy::disallowed_methods, reason = "a build is configured by its environment")]
fn told_commit() -> Option<String> {
    env::var("HOOKGATE_COMMIT").ok()
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
