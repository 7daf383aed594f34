//! The rules of `deny.toml`, which `cargo deny` checks in the workflow, and unused dependencies.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn every_crate_has_an_accepted_licence() {
    let accepted = strings(&deny(), &["licenses", "allow"]);
    let about: toml::Table = toml::from_str(&read("about.toml")).expect("TOML");
    assert_eq!(strings(&about, &["accepted"]), accepted, "about.toml and deny.toml differ");
    for package in packages() {
        let (name, licence) = (text(&package, "name"), text(&package, "license"));
        assert!(is_accepted(&licence, &accepted), "{name}: {licence} is not in deny.toml");
    }
}

#[test]
fn every_crate_comes_from_an_accepted_registry() {
    let registries = strings(&deny(), &["sources", "allow-registry"]);
    for package in packages() {
        // Members of the workspace have no source.
        let Some(source) = package["source"].as_str() else { continue };
        let registry = source.trim_start_matches("registry+");
        assert!(registries.contains(registry), "{}: {source}", text(&package, "name"));
    }
}

#[test]
fn no_crate_is_banned() {
    let deny = deny();
    let banned = deny["bans"]["deny"].as_array().expect("a list");
    let banned: BTreeSet<&str> = banned.iter().filter_map(|each| each["crate"].as_str()).collect();
    for package in packages() {
        assert!(!banned.contains(&*text(&package, "name")), "{}", text(&package, "name"));
    }
}

#[test]
fn every_dependency_is_used() {
    let metadata = &*METADATA;
    let members = metadata["workspace_members"].as_array().expect("a list");
    let packages = metadata["packages"].as_array().expect("a list");
    for node in metadata["resolve"]["nodes"].as_array().expect("a list") {
        if !members.contains(&node["id"]) {
            continue;
        }
        let package = packages.iter().find(|package| package["id"] == node["id"]);
        let folder = PathBuf::from(text(package.expect("a package"), "manifest_path"));
        let sources = sources(folder.parent().expect("a folder"));
        // The names by which the code imports them.
        for dependency in node["deps"].as_array().expect("a list") {
            let name = text(dependency, "name");
            let is_used = sources.iter().any(|source| has_word(source, &name));
            assert!(is_used, "{} does not use {name}", folder.display());
        }
    }
}

#[test]
fn a_licence_expression_is_accepted_by_one_of_its_choices() {
    let accepted = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0 AND ISC OR MIT", true),
        ("ISC AND (GPL-3.0 OR BSL-1.0)", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
    ] {
        assert_eq!(is_accepted(expression, &accepted), expected, "{expression}");
    }
}

fn deny() -> toml::Table {
    toml::from_str(&read("deny.toml")).expect("TOML")
}

fn is_accepted(licence: &str, accepted: &BTreeSet<String>) -> bool {
    // Cargo's older form `A/B` is accepted too.
    let parsed = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX);
    parsed
        .expect("an expression")
        .evaluate(|requirement| accepted.contains(&requirement.to_string()))
}

/// The strings of the list at this path.
fn strings(table: &toml::Table, path: &[&str]) -> BTreeSet<String> {
    let whole = toml::Value::Table(table.clone());
    let found = path.iter().try_fold(&whole, |value, name| value.get(name));
    let list = found.and_then(toml::Value::as_array).expect("a list");
    list.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect()
}

fn packages() -> Vec<Value> {
    let packages = METADATA.get("packages").and_then(Value::as_array).cloned();
    packages.filter(|packages| packages.len() > 100).expect("all crates")
}

/// What cargo knows of all crates. It takes seconds, so all tests share it.
static METADATA: LazyLock<Value> = LazyLock::new(|| {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked"]);
    let output = cargo.current_dir(ROOT).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
});

fn has_word(source: &str, name: &str) -> bool {
    source.split(|each: char| !each.is_alphanumeric() && each != '_').any(|word| word == name)
}

/// The text of every Rust file of a package, without the packages within it.
fn sources(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.join("Cargo.toml").exists() && !is_generated(&path) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.push(fs::read_to_string(path).expect("text"));
            }
        }
    }
    texts
}

fn is_generated(folder: &Path) -> bool {
    ["target", ".tools", "node_modules"].iter().any(|name| folder.ends_with(name))
}

fn text(package: &Value, key: &str) -> String {
    package[key].as_str().expect("a string").to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).expect("it exists")
}
