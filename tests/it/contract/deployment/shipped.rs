//! The configurations that deploy/ ships, read by the program, and the manual page.

use std::fs;
use std::path::Path;

use serde_json::Value;
use testkit::hookgate::command;
use testkit::scratch::Scratch;

use super::ROOT;

/// The limit of memory in the manifests.
const MEMORY_LIMIT: u64 = 4 << 30;

/// Secrets of the shape that each file has.
const SECRETS: [(&str, &str); 3] = [
    ("jwt", "a secret of at least thirty-two bytes"),
    (
        "mongodb",
        "mongodb://hookgate:a-password@m1:27017,m2:27017/?replicaSet=rs0&authSource=engine",
    ),
    ("redis", "rediss://hookgate:a-password@redis.internal:6379/0"),
];

#[test]
fn shipped_configurations_have_no_fault() {
    let chart = read("deploy/helm/hookgate/values.yaml");
    let (_, text) = chart.split_once("config: |\n").expect("the chart has a configuration");
    let indented: Vec<&str> =
        text.lines().take_while(|line| line.is_empty() || line.starts_with("  ")).collect();
    let files = [
        ("package", read("deploy/debian/hookgate.toml")),
        ("base", read("deploy/kubernetes/base/hookgate.toml")),
        ("example", read("deploy/kubernetes/example/hookgate.toml")),
        ("chart", indented.join("\n")),
    ];
    for (name, text) in files {
        assert!(text.contains("redis_file"), "{name}: {text}");
        let report = check(&text);
        assert_eq!(report["ok"], true, "{name}: {report}");
        assert_eq!(report["warnings"], serde_json::json!([]), "{name}: {report}");
        let memory = report["memory"]["at_most"].as_u64().expect("a number");
        assert!(memory < MEMORY_LIMIT, "{name}: {memory} bytes");
    }
}

/// Checks a configuration as in its place: with two workers, in the folder of the secrets.
fn check(text: &str) -> Value {
    let place = Scratch::new("shipped");
    for (name, secret) in SECRETS {
        testkit::confidential::credential(secret);
        place.write(name, secret);
    }
    let folder = place.path().to_str().expect("a path in UTF-8");
    let file = place.write("hookgate.toml", text.replace("/run/secrets/hookgate", folder));
    let mut check = command(&["check", "--json", "--config"]);
    check.arg(file).current_dir(place.path()).env("HOOKGATE__SERVER__WORKERS", "2");
    let output = check.output().expect("the binary runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn the_manual_page_has_every_command() {
    let page = read("deploy/debian/hookgate.1").replace('\\', "");
    let output = command(&["--help"]).output().expect("the binary runs");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let (_, commands) = help.split_once("Commands:\n").expect("a list of commands");
    let (commands, _) = commands.split_once("\n\n").expect("options follow");
    let names: Vec<&str> =
        commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 5, "only {names:?} were found");
    for name in names {
        assert!(
            page.contains(&format!(".B hookgate {name}\n"))
                || page.contains(&format!(".B hookgate {name} ")),
            "{name}"
        );
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
