//! The licences of the crates in the program, and the notices in the image.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::ROOT;

/// Finds what would fail the build of the image, without an installed `cargo about`.
#[test]
fn every_crate_has_an_accepted_licence() {
    let accepted = accepted();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--offline", "--locked"]);
    let output = cargo.current_dir(ROOT).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata.get("packages").and_then(Value::as_array).expect("a list");
    assert!(packages.len() > 100, "only {} crates: is the whole list still read?", packages.len());
    let text =
        |package: &Value, key: &str| package.get(key).and_then(Value::as_str).map(str::to_owned);
    for package in packages {
        let name = text(package, "name").expect("a name");
        let licence = text(package, "license").unwrap_or_else(|| panic!("{name} has no licence"));
        assert!(is_accepted(&licence, &accepted), "{name}: {licence} is not in about.toml");
    }
}

#[test]
fn a_licence_expression_is_accepted_by_one_of_its_choices() {
    let accepted = ["MIT", "ISC", "A WITH B"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND ISC", true),
        ("GPL-3.0 AND ISC OR MIT", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("ISC AND (GPL-3.0 OR BSL-1.0)", false),
        ("ISC AND (MIT OR GPL-3.0) AND MIT", true),
        ("A WITH B", true),
        ("A", false),
    ] {
        assert_eq!(is_accepted(expression, &accepted), expected, "{expression}");
    }
}

#[test]
fn the_image_contains_the_notices() {
    let dockerfile = read("Dockerfile");
    let ignored = read(".dockerignore");
    for name in ["about.hbs", "about.toml", "LICENSE"] {
        assert!(ignored.lines().any(|line| line == format!("!{name}")), "{name} is in no context");
        assert!(Path::new(ROOT).join(name).exists(), "{name}");
    }
    let generated = "--fail --output-file /THIRD-PARTY-NOTICES about.hbs";
    let copied = "COPY --from=notices /THIRD-PARTY-NOTICES /build/LICENSE /usr/share/doc/hookgate/";
    for line in [generated, copied] {
        assert!(dockerfile.contains(line), "{line}");
    }
}

fn accepted() -> BTreeSet<String> {
    let about: toml::Table = toml::from_str(&read("about.toml")).expect("TOML");
    let accepted = about.get("accepted").and_then(toml::Value::as_array).expect("a list");
    accepted.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect()
}

/// Evaluates an SPDX expression, in which AND binds more strongly than OR, or Cargo's older form
/// `A/B`.
fn is_accepted(expression: &str, accepted: &BTreeSet<String>) -> bool {
    choices(expression, " OR ").iter().any(|choice| {
        let parts = choices(choice, " AND ");
        parts.iter().all(|part| match part.strip_prefix('(') {
            Some(rest) => {
                is_accepted(rest.strip_suffix(')').expect("a closing parenthesis"), accepted)
            }
            None => part.split('/').any(|licence| accepted.contains(licence.trim())),
        })
    })
}

/// The parts around this word, outside of parentheses.
fn choices(expression: &str, word: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for piece in expression.split(word) {
        let last = parts.last_mut().expect("the list is not empty");
        let is_within = last.matches('(').count() > last.matches(')').count();
        match (is_within, last.is_empty()) {
            (true, _) => *last = [last.as_str(), word, piece].concat(),
            (false, true) => piece.clone_into(last),
            (false, false) => parts.push(piece.to_owned()),
        }
    }
    parts
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).expect("it exists")
}
