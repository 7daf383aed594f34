//! `ARCHITECTURE.md` held to the sources: who imports whom, where outside crates live, how long files are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module, and the modules of ours that it may name. `main` and `lib` see everything.
const MAY_IMPORT: [(&str, &[&str]); 16] = [
    // The ground that everything stands on.
    ("ids", &[]),
    ("metrics", &[]),
    ("lifecycle", &[]),
    ("watched_file", &[]),
    ("settings", &[]),
    ("admission", &["settings"]),
    ("telemetry", &["settings"]),
    // What is followed, and what is made of it.
    ("mirror", &["ids", "metrics", "lifecycle", "admission", "settings", "watched_file"]),
    ("auth", &["ids", "metrics", "lifecycle", "admission", "settings", "watched_file", "mirror"]),
    (
        "triggers",
        &["ids", "metrics", "lifecycle", "admission", "settings", "watched_file", "mirror"],
    ),
    // Beside them: they never see each other.
    ("queue", &["ids", "metrics", "lifecycle", "admission", "settings", "watched_file"]),
    // What is made of all of these.
    (
        "ingress",
        &["ids", "metrics", "lifecycle", "admission", "settings", "auth", "triggers", "queue"],
    ),
    ("admin", &["metrics", "lifecycle", "settings", "mirror"]),
    (
        "config",
        &[
            "admin",
            "admission",
            "auth",
            "ingress",
            "mirror",
            "queue",
            "settings",
            "telemetry",
            "triggers",
        ],
    ),
    (
        "app",
        &[
            "admin",
            "admission",
            "auth",
            "config",
            "ids",
            "ingress",
            "lifecycle",
            "metrics",
            "mirror",
            "queue",
            "settings",
            "telemetry",
            "triggers",
            "watched_file",
            "BUILD",
        ],
    ),
    ("main", &["app", "auth", "config", "ids", "settings", "BUILD"]),
];

/// Each outside crate that has a home, and the files or directories that are it.
const HOMES: [(&str, &[&str]); 10] = [
    ("fred", &["queue/"]),
    ("mongodb", &["mirror/mongo/"]),
    ("jsonwebtoken", &["auth/jwt.rs"]),
    ("hyper", &["ingress/", "admin/"]),
    ("hyper_util", &["ingress/", "admin/"]),
    ("simd_json", &["ingress/webhook.rs"]),
    ("arc_swap", &["triggers/", "auth/"]),
    ("clap", &["main.rs"]),
    ("tracing_subscriber", &["telemetry.rs"]),
    ("metrics_exporter_prometheus", &["metrics.rs"]),
];

/// Names that say nothing.
const NO_NAMES: [&str; 5] = ["utils", "util", "common", "helpers", "misc"];

const LONGEST: usize = 400;

#[test]
fn modules_import_only_what_they_may() {
    let may_import = BTreeMap::from(MAY_IMPORT);
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module != "lib") {
        let allowed = may_import.get(source.module.as_str());
        let Some(allowed) = allowed else {
            wrong.push(format!("{} is a module that the table does not know", source.module));
            continue;
        };
        for import in source.imports() {
            if import != source.module && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{} imports {import}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn outside_crates_stay_in_their_homes() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (outside, homes) in HOMES {
            if source.names(outside) && !homes.iter().any(|home| source.name.starts_with(home)) {
                wrong.push(format!("{} names {outside}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_short_and_have_names_that_say_something() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.code.lines().count();
        if lines > LONGEST {
            wrong.push(format!("{} has {lines} lines without its tests", source.name));
        }
        let path = Path::new(&source.name).with_extension("");
        wrong.extend(
            path.iter()
                .filter(|part| NO_NAMES.iter().any(|name| *part == *name))
                .map(|part| format!("{} is named {}", source.name, part.display())),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_tables_hold_nothing_that_is_gone() {
    let sources = sources();
    let modules: BTreeSet<&str> = sources.iter().map(|source| source.module.as_str()).collect();
    for (module, _) in MAY_IMPORT {
        assert!(modules.contains(module), "there is no module {module}");
    }
    for (outside, homes) in HOMES {
        for home in homes {
            let at_home = |source: &&Source| source.name.starts_with(home);
            assert!(
                sources.iter().filter(at_home).any(|source| source.names(outside)),
                "{outside} is not in {home}"
            );
        }
    }
}

#[test]
fn imports_are_found_in_every_spelling() {
    let source = Source::new(
        Path::new("auth/jwt.rs"),
        "use crate::{ids, queue::{Queue, redis}, metrics::Metrics};\nuse crate::settings;\n\
         fn a() { crate::mirror::b() } // crate::app\n/// [`crate::config`]\nuse super::super::triggers;\n",
    );
    let expected = ["ids", "metrics", "mirror", "queue", "settings", "triggers"];
    assert_eq!(source.imports(), BTreeSet::from(expected.map(str::to_owned)));
    let source =
        Source::new(Path::new("a.rs"), "use fred::a;\n#[cfg(test)]\nmod tests {\nhyper::b }");
    assert!(source.names("fred") && !source.names("hyper"));
    let source =
        Source::new(Path::new("a.rs"), "use alfred::a; x.hyper(); mod hyper_b; use hyper as c;");
    assert!(!source.names("fred") && source.names("hyper"));
}

/// A file of `src`, without its tests and comments.
struct Source {
    /// From `src`: `queue/redis.rs`.
    name: String,
    /// The first part of that: `queue`.
    module: String,
    /// Down to the tests.
    code: String,
    /// Words and signs of the code without comments and texts.
    tokens: Vec<String>,
}

impl Source {
    fn new(path: &Path, text: &str) -> Self {
        let name = path.to_str().expect("a name of text").to_owned();
        let module = name.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
        let tokens = tokens(&code);
        Self { name, module, code, tokens }
    }

    /// How deep the file's own module is below the root.
    fn depth(&self) -> usize {
        let parts = Path::new(&self.name).with_extension("");
        parts.iter().filter(|part| *part != "mod").count()
    }

    /// Modules of ours that are named by a path from the root.
    fn imports(&self) -> BTreeSet<String> {
        let supers = vec!["super"; self.depth()];
        let mut imports = BTreeSet::new();
        for root in [vec!["crate"], vec!["hookgate"], supers] {
            let root: Vec<&str> = root.iter().flat_map(|part| [*part, "::"]).collect();
            for (at, tokens) in self.tokens.windows(root.len()).enumerate() {
                let goes_on = at > 0 && self.tokens.get(at - 1).is_some_and(|token| token == "::");
                if tokens == root && !goes_on {
                    imports.extend(first_parts(&self.tokens, at + root.len()));
                }
            }
        }
        imports
    }

    /// Whether a path begins with this crate.
    fn names(&self, outside: &str) -> bool {
        self.tokens.iter().enumerate().any(|(at, token)| {
            let next = self.tokens.get(at + 1).map_or("", String::as_str);
            let before = at.checked_sub(1).and_then(|at| self.tokens.get(at));
            let before = before.map_or("", String::as_str);
            token == outside
                && before != "::"
                && (next == "::" || matches!(before, "use" | "crate"))
        })
    }
}

/// The first part of a path, or of each path in braces.
fn first_parts(tokens: &[String], from: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut depth = 0;
    let mut is_first = true;
    for token in tokens.iter().skip(from) {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," => is_first = depth == 1,
            word if is_first => {
                parts.push(word.to_owned());
                is_first = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    parts
}

/// Words, `::`, and every other sign by itself; no comments, no texts.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for line in code.lines() {
        let line = without_texts(line);
        let line = line.split("//").next().unwrap_or_default();
        let mut word = String::new();
        for sign in line.chars().chain([' ']) {
            if sign.is_alphanumeric() || sign == '_' {
                word.push(sign);
                continue;
            }
            tokens.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            match (sign, tokens.last_mut()) {
                (' ', _) => {}
                (':', Some(last)) if last == ":" => last.push(':'),
                _ => tokens.push(sign.to_string()),
            }
        }
    }
    tokens
}

/// A line with its texts emptied.
fn without_texts(line: &str) -> String {
    let mut inside = false;
    let mut before = ' ';
    let mut kept = String::new();
    for sign in line.chars() {
        // Neither an escaped quote nor one that is a character by itself.
        let is_quote = sign == '"' && before != '\\' && before != '\'';
        inside ^= is_quote;
        if is_quote || !inside {
            kept.push(sign);
        }
        before = sign;
    }
    kept
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a source file");
        Source::new(path.strip_prefix(&root).expect("below the root"), &text)
    };
    let sources: Vec<Source> = paths.into_iter().map(read).collect();
    assert!(sources.len() > 20, "only {} files found", sources.len());
    sources
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}
