//! The rules of ARCHITECTURE.md, read off the source: who imports whom, and where outside crates live.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What every part may use.
const GROUND: &[&str] = &[
    "admission",
    "failpoint",
    "file_access",
    "findings",
    "hex",
    "ids",
    "lifecycle",
    "log_rate",
    "metrics",
    "pause",
    "printable",
    "settings",
    "supervisor",
    "text_file",
    "trust",
    "watched_file",
];

/// Each module, and what it may import besides itself. A module that is not here fails the test.
const IMPORTS: &[(&str, &[&[&str]])] = &[
    ("descriptors", &[]),
    ("dumpable", &[]),
    ("failpoint", &[]),
    ("file_access", &[&["failpoint"]]),
    ("health", &[]),
    ("heartbeat", &[&["failpoint"]]),
    ("hex", &[]),
    ("ids", &[]),
    ("lifecycle", &[]),
    ("log_rate", &[]),
    ("metrics", &[]),
    ("pause", &[]),
    ("printable", &[]),
    ("settings", &[&["text_file"]]),
    ("supervisor", &[&["failpoint"]]),
    ("text_file", &[&["file_access", "hex"]]),
    ("trust", &[&["file_access", "text_file"]]),
    ("watched_file", &[&["file_access", "text_file"]]),
    ("admission", &[&["ids", "metrics", "settings"]]),
    ("findings", &[&["lifecycle"]]),
    ("telemetry", &[&["log_rate", "printable", "settings"]]),
    ("mirror", &[GROUND]),
    // These three never see each other.
    ("auth", &[GROUND, &["mirror"]]),
    ("triggers", &[GROUND, &["mirror"]]),
    ("queue", &[GROUND]),
    ("ingress", &[GROUND, &["auth", "triggers", "queue"]]),
    ("admin", &[GROUND, &["heartbeat", "mirror"]]),
    (
        "config",
        &[GROUND, &["admin", "auth", "ingress", "mirror", "queue", "telemetry", "triggers"]],
    ),
    ("check", &[GROUND, &["auth", "config", "memory", "mirror", "queue", "triggers"]]),
    ("memory", &[&["config", "file_access"]]),
    ("workers", &[&["ingress", "lifecycle"]]),
    (
        "reload",
        &[
            &["admission", "file_access", "metrics", "settings", "text_file"],
            &["auth", "config", "queue", "telemetry"],
        ],
    ),
    (
        "app",
        &[
            GROUND,
            &["descriptors", "heartbeat", "memory"],
            &["admin", "auth", "config", "ingress", "mirror", "queue", "telemetry", "triggers"],
            &["reload", "workers"],
        ],
    ),
];

/// Outside crates and their homes in `src/`.
const HOMES: &[(&str, &[&str])] = &[
    ("fred", &["queue/"]),
    ("mongodb", &["mirror/mongo/"]),
    ("bson", &["mirror/", "auth/", "triggers/"]),
    ("jsonwebtoken", &["auth/jwt/"]),
    ("hyper", &["ingress/", "admin/"]),
    ("hyper_util", &["ingress/", "admin/"]),
    ("http_body_util", &["ingress/", "admin/"]),
    ("simd_json", &["ingress/webhook.rs"]),
    ("compression_codecs", &["ingress/decoding.rs"]),
    ("arc_swap", &["admission/", "auth/", "ingress/tls.rs", "mirror/", "queue/"]),
    ("quick_cache", &["auth/"]),
    ("rustls", &["ingress/tls.rs", "trust.rs"]),
    ("tokio_rustls", &["ingress/tls.rs"]),
    ("triomphe", &["mirror/"]),
    ("metrics_exporter_prometheus", &["metrics/"]),
    ("tracing_subscriber", &["telemetry/"]),
    ("clap", &["main.rs"]),
];

/// Lines of a file without its tests.
const LONGEST_FILE: usize = 400;

/// Names that say nothing about what is inside.
const NAMELESS: &[&str] = &["common", "helper", "helpers", "misc", "shared", "util", "utils"];

#[test]
fn modules_import_only_what_stands_below_them() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for file in sources() {
        if matches!(file.module(), "main" | "lib") {
            continue;
        }
        let Some((_, allowed)) = IMPORTS.iter().find(|(module, _)| *module == file.module()) else {
            faults.push(format!("{}: a module without a rule", file.name));
            continue;
        };
        for import in file.imports() {
            seen += 1;
            let may = import == file.module()
                || allowed.iter().any(|some| some.contains(&import.as_str()));
            if !may {
                faults.push(format!("{} imports crate::{import}", file.name));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen > 20, "only {seen} imports were found: is the source still read?");
}

#[test]
fn outside_crates_stay_at_home() {
    let sources = sources();
    let mut faults = Vec::new();
    for (outside, homes) in HOMES {
        let users = sources.iter().filter(|file| file.uses(outside));
        let (at_home, elsewhere): (Vec<&Source>, Vec<&Source>) =
            users.partition(|file| homes.iter().any(|home| file.name.starts_with(home)));
        faults.extend(elsewhere.iter().map(|file| format!("{} uses {outside}", file.name)));
        if at_home.is_empty() {
            faults.push(format!("nobody in {homes:?} uses {outside}: the rule is out of date"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn files_are_short_and_named_by_what_is_in_them() {
    let mut faults = Vec::new();
    for file in sources() {
        let lines = file.lines_without_tests();
        if lines > LONGEST_FILE {
            faults.push(format!("{}: {lines} lines without its tests", file.name));
        }
        if file.name.trim_end_matches(".rs").split('/').any(|part| NAMELESS.contains(&part)) {
            faults.push(format!("{}: the name says nothing", file.name));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A file of `src/`.
struct Source {
    /// Its path in `src/`.
    name: String,
    text: String,
}

impl Source {
    /// The outermost module that it belongs to.
    fn module(&self) -> &str {
        self.name.split(['/', '.']).next().expect("a path has a first part")
    }

    /// Modules of this crate that it names, as `crate::x` or as `super::x` out of its own module.
    fn imports(&self) -> BTreeSet<String> {
        let own_depth = self.name.trim_end_matches("/mod.rs").matches('/').count();
        let up = "super::".repeat(own_depth + 1);
        let mut imports = BTreeSet::new();
        for line in self.code() {
            for path in after(&line, "crate::") {
                // What is in capitals stands in lib.rs itself.
                let names = first_names(path).into_iter();
                imports.extend(
                    names.filter(|name| name.starts_with(|first: char| first.is_lowercase())),
                );
            }
            let climbed = after(&line, &up).into_iter().flat_map(first_names);
            imports.extend(climbed.filter(|name| IMPORTS.iter().any(|(module, _)| module == name)));
        }
        imports
    }

    fn uses(&self, outside: &str) -> bool {
        let path = format!("{outside}::");
        self.code().any(|line| !after(&line, &path).is_empty())
    }

    fn lines_without_tests(&self) -> usize {
        self.text.split("\n#[cfg(test)]\nmod ").next().map_or(0, |code| code.lines().count())
    }

    /// Its statements on one line each, without comments, so that a `use` over several lines is one.
    fn code(&self) -> impl Iterator<Item = String> {
        let lines =
            self.text.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
        let text: String = lines.collect::<Vec<_>>().join(" ");
        text.split_inclusive(';').map(str::to_owned).collect::<Vec<_>>().into_iter()
    }
}

/// What follows each occurrence of `path` that is not part of a longer path or word.
fn after<'a>(line: &'a str, path: &str) -> Vec<&'a str> {
    let starts = line.match_indices(path).filter(|&(at, _)| {
        let before = line[..at].chars().next_back().unwrap_or(' ');
        !before.is_alphanumeric() && !matches!(before, '_' | ':')
    });
    starts.map(|(at, _)| &line[at + path.len()..]).collect()
}

/// `a::b` names `a`; `{a::b, c::{d, e}}` names `a` and `c`.
fn first_names(path: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.trim().chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else {
        return BTreeSet::from([word(path)]);
    };
    let mut names = BTreeSet::new();
    let (mut depth, mut begin) = (0, 0);
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.insert(word(&group[begin..at]));
                begin = at + 1;
                if char == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.remove("");
    names
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let source = |path: PathBuf| Source {
        name: path
            .strip_prefix(&root)
            .expect("found in there")
            .to_str()
            .expect("a path of text")
            .to_owned(),
        text: fs::read_to_string(&path).expect("a readable file"),
    };
    files.into_iter().map(source).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn grouped_and_nested_imports_are_seen() {
    let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    let grouped = source(
        "auth/mod.rs",
        "use crate::{ids::UserId,\n    queue::{self, keys},\n};\nfn f() { crate::app::run(); }",
    );
    assert_eq!(grouped.imports(), ["app", "ids", "queue"].map(str::to_owned).into());
    assert_eq!(
        source("auth/mod.rs", "use super::queue::X;").imports(),
        ["queue".to_owned()].into()
    );
    assert_eq!(source("auth/jwt.rs", "use super::Caller;").imports(), BTreeSet::new());
    assert_eq!(
        source("auth/jwt.rs", "use super::super::queue;").imports(),
        ["queue".to_owned()].into()
    );
    assert!(source("a.rs", "let x = fred::Client::new();").uses("fred"));
    assert!(!source("a.rs", "use crate::fred::x; // fred::Client").uses("fred"));
}
