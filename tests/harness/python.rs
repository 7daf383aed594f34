//! Python with the packages that scripts/setup has put into .tools.

use std::path::Path;
use std::process::Command;

/// `python` are those of tests/bullmq, `schemathesis` those of tests/openapi.
pub fn python(packages: &str) -> Command {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(packages);
    assert!(packages.is_dir(), "no {}: run scripts/setup test", packages.display());
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
