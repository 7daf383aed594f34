//! Python with the packages that scripts/setup installs in .tools.

use std::process::Command;

/// Runs Python with a set of packages: `python` for tests/bullmq, `schemathesis` for tests/openapi.
pub fn python(packages: &str) -> Command {
    let packages = super::root().join(".tools").join(packages);
    assert!(packages.is_dir(), "no {}: run scripts/setup test", packages.display());
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
