//! What a release begins with: versions that agree, the notes, the checksums. `deploy/release/try`
//! has the archive, with the optimized program.

use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::scratch::Scratch;

use super::ROOT;

/// A copy of the files that say the version, with 1.2.3 in all of them.
struct Commit(Scratch);

impl Commit {
    fn new() -> Self {
        let commit = Self(Scratch::new("release"));
        for name in ["deploy/release/version", "deploy/release/notes"] {
            commit.write(name, &read(name));
        }
        let current = env!("CARGO_PKG_VERSION");
        let places = [
            ("Cargo.toml", format!("name = \"hookgate\"\nversion = \"{current}\"")),
            ("Cargo.lock", format!("name = \"hookgate\"\nversion = \"{current}\"")),
            ("fuzz/Cargo.lock", format!("name = \"hookgate\"\nversion = \"{current}\"")),
            ("src/admin/openapi.json", format!("\"version\": \"{current}\"")),
            ("deploy/helm/hookgate/Chart.yaml", format!("appVersion: {current}")),
        ];
        for (name, version) in places {
            let text = read(name);
            assert!(text.contains(&version), "{name} does not say {version}");
            commit.write(name, &text.replace(&version, &version.replace(current, "1.2.3")));
        }
        commit.write(
            "CHANGELOG.md",
            "# Changelog\n\n## Unreleased\n\n## 1.2.3 (2026-12-01)\n\n- New: [a page](docs/a.md),\n  \
             [a site](https://example.com).\n\n## 1.2.2 (2026-11-30)\n\n- The first.\n",
        );
        commit
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
    }

    fn change(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.0.join(name)).expect("it is there");
        assert!(text.contains(from), "{name} has no {from}");
        self.write(name, &text.replace(from, to));
    }

    /// What a script prints, or what it says is wrong.
    fn run(&self, name: &str, arguments: &[&str]) -> Result<String, String> {
        // By its interpreter: another thread that forks may hold a new file open for a moment, and
        // such a file cannot be executed.
        let script = self.0.join("deploy/release").join(name);
        run(Command::new("python3").arg(script).args(arguments))
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).expect("it exists")
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn script(name: &str) -> Command {
    Command::new(Path::new(ROOT).join("deploy/release").join(name))
}

#[test]
fn a_tag_releases_only_what_every_file_says() {
    let commit = Commit::new();
    assert_eq!(commit.run("version", &["v1.2.3"]), Ok("1.2.3\n".to_owned()));
    let refused = |commit: &Commit, tag: &str, why: &str| {
        let said = commit.run("version", &[tag]).expect_err(why);
        assert!(said.contains(why), "{said}");
    };
    refused(&commit, "v1.2.4", "the tag is v1.2.4, and Cargo.toml says 1.2.3");
    refused(&commit, "1.2.3", "the tag is 1.2.3");
    let changes = [
        ("CHANGELOG.md", "## Unreleased\n", "## Unreleased\n\n- More.\n", "has entries under"),
        ("CHANGELOG.md", "1.2.3 (2026-12-01)", "1.2.3", "is \"1.2.3\", not \"1.2.3 (YYYY-MM-DD)\""),
        ("CHANGELOG.md", "1.2.3 (2026", "1.2.9 (2026", "is \"1.2.9 (2026-12-01)\""),
        ("Cargo.lock", "\"1.2.3\"", "\"1.2.2\"", "Cargo.lock says 1.2.2"),
        ("fuzz/Cargo.lock", "\"1.2.3\"", "\"1.2.2\"", "fuzz/Cargo.lock says 1.2.2"),
        ("src/admin/openapi.json", "\"1.2.3\"", "\"1.2.2\"", "openapi.json says 1.2.2"),
        ("deploy/helm/hookgate/Chart.yaml", "1.2.3", "1.2.2", "Chart.yaml says 1.2.2"),
    ];
    for (name, from, to, why) in changes {
        let commit = Commit::new();
        commit.change(name, from, to);
        refused(&commit, "v1.2.3", why);
    }
}

#[test]
fn the_files_of_this_commit_agree_on_the_version() {
    let said = run(&mut script("version"));
    assert_eq!(said, Ok(format!("{}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_notes_are_the_section_of_the_changelog() {
    let commit = Commit::new();
    let notes = commit.run("notes", &["1.2.3"]).expect("notes");
    assert_eq!(notes, "- New: [a page](docs/a.md),\n  [a site](https://example.com).\n");
    let notes = commit.run("notes", &["1.2.3", "https://github.com/x/y"]).expect("notes");
    let linked = "- New: [a page](https://github.com/x/y/blob/v1.2.3/docs/a.md),\n  [a site](https://example.com).\n";
    assert_eq!(notes, linked);
    assert_eq!(commit.run("notes", &["1.2.2"]), Ok("- The first.\n".to_owned()));
    let said = commit.run("notes", &["1.2"]).expect_err("there is no such version");
    assert!(said.contains("says nothing of 1.2"), "{said}");
}

#[test]
fn checksums_are_of_every_file_and_in_order() {
    let files = Scratch::new("checksums");
    for name in ["b.deb", "a b.tar.gz", "SHA256SUMS"] {
        files.write(name, name);
    }
    for _ in 0..2 {
        assert_eq!(run(script("checksums").arg(files.path())), Ok(String::new()));
        let sums = fs::read_to_string(files.join("SHA256SUMS")).expect("it is written");
        let names: Vec<&str> =
            sums.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name).collect();
        assert_eq!(names, ["a b.tar.gz", "b.deb"]);
    }
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict", "SHA256SUMS"]).current_dir(files.path());
    assert!(check.output().expect("sha256sum runs").status.success());
    fs::write(files.join("b.deb"), "other").expect("it can be written");
    assert!(!check.output().expect("sha256sum runs").status.success());
}

#[test]
fn the_workflow_builds_with_the_versions_of_the_dockerfile() {
    let (dockerfile, setup) = (read("Dockerfile"), read("scripts/setup"));
    let workflow = read(".github/workflows/release.yml");
    let after = |text: &str, begin: &str| {
        let rest = text.split_once(begin).unwrap_or_else(|| panic!("no {begin}")).1;
        rest.split([' ', '\n', '-']).next().expect("a word").to_owned()
    };
    let rust = after(&dockerfile, "FROM rust:");
    assert_eq!(after(&workflow, "container: rust:"), rust);
    assert_eq!(after(&workflow, "RUSTUP_TOOLCHAIN: "), rust);
    for tool in ["cargo-about", "cargo-cyclonedx"] {
        let version = after(&setup, &format!("build_tool {tool} "));
        let install =
            dockerfile.lines().find(|line| line.contains("install") && line.contains(tool));
        let install = install.expect("the image has it, too");
        assert_eq!(after(install, "--version "), version, "{tool}");
    }
}
