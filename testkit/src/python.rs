//! Python with the packages that scripts/setup has put into .tools.

use std::process::Command;

/// `python` are those of tests/bullmq, `schemathesis` those of tests/openapi.
pub fn python(packages: &str) -> Command {
    let packages = super::root().join(".tools").join(packages);
    assert!(packages.is_dir(), "no {}: run scripts/setup test", packages.display());
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
