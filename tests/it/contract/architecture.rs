//! The rules of ARCHITECTURE.md, checked against the source: imports between modules, and the homes
//! of outside crates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module at the top of `src/`, and the modules that it may import. A module that is not here
/// fails the test.
const IMPORTS: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("json", &[]),
    ("process", &[]),
    ("metrics", &[]),
    ("files", &["process"]),
    ("settings", &["files", "process"]),
    ("logging", &["process", "settings"]),
    ("admission", &["ids", "metrics", "settings"]),
    ("traces", &["metrics", "process", "settings"]),
    ("http", &["files", "metrics", "process", "settings"]),
    ("mirror", &["files", "ids", "metrics", "process", "settings"]),
    // These three never import each other.
    ("auth", &["files", "http", "ids", "metrics", "mirror", "process", "settings"]),
    ("triggers", &["endpoints", "ids", "metrics", "mirror", "settings"]),
    ("endpoints", &["ids", "json", "metrics", "process", "settings"]),
    ("queue", &["admission", "files", "ids", "metrics", "process", "settings", "traces"]),
    (
        "ingress",
        &[
            "admission",
            "auth",
            "endpoints",
            "http",
            "ids",
            "json",
            "metrics",
            "process",
            "queue",
            "settings",
            "traces",
            "triggers",
        ],
    ),
    ("admin", &["admission", "http", "metrics", "mirror", "process", "queue", "settings"]),
    (
        "config",
        &[
            "admin",
            "admission",
            "auth",
            "endpoints",
            "files",
            "ingress",
            "logging",
            "metrics",
            "mirror",
            "process",
            "queue",
            "settings",
            "traces",
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
            "endpoints",
            "files",
            "http",
            "ingress",
            "logging",
            "metrics",
            "mirror",
            "process",
            "queue",
            "settings",
            "traces",
            "triggers",
        ],
    ),
];

/// Bound on the modules at the top of `src/`.
const MAX_MODULES: usize = 19;

/// Outside crates and their homes in `src/`.
const HOMES: &[(&str, &[&str])] = &[
    ("fred", &["queue/"]),
    ("mongodb", &["mirror/mongo/"]),
    ("bson", &["mirror/", "auth/", "triggers/", "endpoints/"]),
    ("jsonwebtoken", &["auth/jwt/"]),
    ("hyper", &["http/", "ingress/", "admin/"]),
    ("hyper_util", &["http/", "admin/"]),
    ("http_body_util", &["http/", "admin/"]),
    ("simd_json", &["ingress/webhook.rs", "json/parser.rs"]),
    ("compression_codecs", &["ingress/decompress.rs"]),
    ("arc_swap", &["admission/", "auth/", "endpoints/", "http/tls.rs", "mirror/", "queue/"]),
    ("quick_cache", &["auth/"]),
    (
        "rustls",
        &[
            "http/certificate_expiry.rs",
            "http/client.rs",
            "http/tls.rs",
            "http/tls_files.rs",
            "files/pem_certificates.rs",
            "files/tls_identity.rs",
            "files/tls_roots.rs",
        ],
    ),
    ("tokio_rustls", &["http/client.rs", "http/tls.rs"]),
    ("triomphe", &["mirror/"]),
    ("atomics", &["admission/", "http/activity.rs", "mirror/freshness.rs"]),
    ("metrics_exporter_prometheus", &["metrics/"]),
    ("tracing_subscriber", &["logging/"]),
    ("opentelemetry", &["traces/"]),
    ("opentelemetry_otlp", &["traces/"]),
    ("opentelemetry_sdk", &["traces/"]),
    ("multer", &["endpoints/payload/multipart.rs"]),
    ("clap", &["main.rs"]),
    ("listenfd", &["http/listen/activated.rs"]),
    ("ppp", &["http/proxy_protocol.rs"]),
    ("x509_parser", &["http/certificate_expiry.rs"]),
];

/// Bound on the lines of a file without its tests.
const LONGEST_FILE: usize = 400;

/// Names that do not describe the content.
const VAGUE_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "shared", "util", "utils"];

#[test]
fn modules_import_only_allowed_modules() {
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
            if import != file.module() && !allowed.contains(&import.as_str()) {
                faults.push(format!("{} imports crate::{import}", file.name));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen > 20, "only {seen} imports were found: is the source still read?");
}

#[test]
fn there_are_few_modules() {
    let sources = sources();
    let modules: BTreeSet<&str> = sources.iter().map(Source::module).collect();
    // main.rs and lib.rs are counted too.
    assert!(modules.len() <= MAX_MODULES + 2, "{modules:?}");
}

/// A cycle through a `mod.rs` counts like one between siblings, so re-exports and paths that begin
/// with a child's name count like any other import.
#[test]
fn files_have_no_import_cycles() {
    let sources = sources();
    let modules: BTreeSet<String> = sources.iter().map(Source::path).collect();
    let imports: BTreeMap<String, BTreeSet<String>> = sources
        .iter()
        .map(|file| {
            let named = file.imported_modules(&modules);
            (file.path(), named.into_iter().filter(|other| *other != file.path()).collect())
        })
        .collect();
    let count: usize = imports.values().map(BTreeSet::len).sum();
    assert!(count > 300, "only {count} imports were found: is the source still read?");
    assert_eq!(cycles(&imports), None);
}

#[test]
fn outside_crates_are_used_only_in_their_homes() {
    let sources = sources();
    let mut faults = Vec::new();
    for (outside, homes) in HOMES {
        let users = sources.iter().filter(|file| file.uses(outside));
        let (at_home, elsewhere): (Vec<&Source>, Vec<&Source>) =
            users.partition(|file| homes.iter().any(|home| file.name.starts_with(home)));
        faults.extend(elsewhere.iter().map(|file| format!("{} uses {outside}", file.name)));
        if at_home.is_empty() {
            faults.push(format!("no file in {homes:?} uses {outside}: the rule is out of date"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn files_are_short_and_have_descriptive_names() {
    let mut faults = Vec::new();
    for file in sources() {
        let lines = file.lines_without_tests();
        if lines > LONGEST_FILE {
            faults.push(format!("{}: {lines} lines without its tests", file.name));
        }
        if file.name.trim_end_matches(".rs").split('/').any(|part| VAGUE_NAMES.contains(&part)) {
            faults.push(format!("{}: the name does not describe the content", file.name));
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

    /// Modules of this crate that it names, as `crate::x` or as `super::x` from its own module.
    fn imports(&self) -> BTreeSet<String> {
        let own_depth = self.name.trim_end_matches("/mod.rs").matches('/').count();
        let up = "super::".repeat(own_depth + 1);
        let mut imports = BTreeSet::new();
        for line in self.code() {
            for path in after(&line, "crate::") {
                // Names in capitals are in lib.rs itself.
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

    /// Its path as a module: `queue::redis::acl`.
    fn path(&self) -> String {
        let name = self.name.trim_end_matches(".rs").trim_end_matches("/mod");
        name.replace('/', "::")
    }

    /// The modules from which it imports: by absolute paths, by `super::`, and by the names of its
    /// own children. Its tests do not count.
    fn imported_modules(&self, modules: &BTreeSet<String>) -> BTreeSet<String> {
        let text = self.without_tests().to_owned();
        let code =
            Self { name: self.name.clone(), text: text.replace("pub(in crate::", "pub(in ") };
        let own = self.path();
        let is_child = |module: &&String| {
            module.rsplit_once("::").is_some_and(|(parent, _)| parent == own.as_str())
        };
        let children: Vec<&String> = modules.iter().filter(is_child).collect();
        let mut imported = BTreeSet::new();
        for line in code.code() {
            let absolute = after(&line, "crate::").into_iter().flat_map(full_paths);
            let climbing = after(&line, "super::").into_iter().flat_map(full_paths);
            let climbing = climbing.filter_map(|path| resolved(&own, &path));
            let of_children = children.iter().filter(|child| {
                let name = child.rsplit("::").next().unwrap_or_default();
                !after(&line, &format!("{name}::")).is_empty()
            });
            let paths = absolute.chain(climbing).chain(of_children.map(|&child| child.clone()));
            imported.extend(paths.filter_map(|path| enclosing(&path, modules)));
        }
        imported
    }

    fn uses(&self, outside: &str) -> bool {
        let path = format!("{outside}::");
        self.code().any(|line| !after(&line, &path).is_empty())
    }

    /// The text before the module with its tests. `#[cfg(test)] mod name;` is a file of its own.
    fn without_tests(&self) -> &str {
        let ends = self.text.match_indices("\n#[cfg(test)]\nmod ").map(|(at, _)| at);
        let mut ends = ends.filter(|&at| {
            let declaration = self.text[at..].lines().nth(2).unwrap_or_default();
            declaration.ends_with('{')
        });
        ends.next().map_or(&self.text, |at| &self.text[..at])
    }

    fn lines_without_tests(&self) -> usize {
        self.without_tests().lines().count()
    }

    /// Its statements on one line each, without comments, so that a `use` over several lines is
    /// one.
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

/// The absolute path of what the module `own` names as `super::` and `path`.
fn resolved(own: &str, path: &str) -> Option<String> {
    let parent = own.rsplit_once("::").map_or("", |(parent, _)| parent);
    match path.strip_prefix("super::") {
        Some(path) => resolved(parent, path),
        None if parent.is_empty() => Some(path.to_owned()),
        None => Some(format!("{parent}::{path}")),
    }
}

/// The innermost module that a path names or is in.
fn enclosing(path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let mut module = path;
    while !modules.contains(module) {
        (module, _) = module.rsplit_once("::")?;
    }
    Some(module.to_owned())
}

/// The modules in cycles of imports, and those that import them, if there are any.
fn cycles(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut left = imports.clone();
    // A module that imports none of the remaining ones is in no cycle.
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, imported| imported.iter().any(|other| names.contains(other)));
        if left.len() == before {
            return (!left.is_empty()).then(|| left.into_keys().collect());
        }
    }
}

/// `a::{b, c::d}` names `a::b` and `a::c::d`.
fn full_paths(tree: &str) -> Vec<String> {
    let end = tree.find(|char: char| !(char.is_alphanumeric() || "_:".contains(char)));
    let (path, rest) = tree.split_at(end.unwrap_or(tree.len()));
    let Some(group) = rest.strip_prefix('{').filter(|_| path.is_empty() || path.ends_with("::"))
    else {
        return vec![path.trim_end_matches("::").to_owned()];
    };
    members(group)
        .into_iter()
        .flat_map(full_paths)
        .map(|member| format!("{path}{member}"))
        .collect()
}

/// The members of an opened group, each with its nested group.
fn members(group: &str) -> Vec<&str> {
    let (mut members, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                members.push(group[begin..at].trim());
                begin = at + 1;
                if char == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    members.retain(|member| !member.is_empty());
    members
}

/// `a::b` names `a`; `{a::b, c::{d, e}}` names `a` and `c`.
fn first_names(tree: &str) -> BTreeSet<String> {
    let paths = full_paths(tree);
    let first = |path: &String| path.split("::").next().unwrap_or_default().to_owned();
    paths.iter().map(first).filter(|name| !name.is_empty()).collect()
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let source = |path: PathBuf| Source {
        name: path
            .strip_prefix(&root)
            .expect("it was found in the list")
            .to_str()
            .expect("a path in UTF-8")
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
fn grouped_and_nested_imports_are_found() {
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

#[test]
fn a_cycle_is_found_through_groups_and_re_exports() {
    let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    let sources = [
        source("a/mod.rs", "pub use crate::a::{b::{B, C}, d};"),
        source("a/b.rs", "use crate::{e, a::d::D};"),
        source("a/d.rs", "fn f() { crate::e::g(); }"),
        source("e.rs", ""),
    ];
    let cycles_of = |sources: &[Source]| {
        let modules: BTreeSet<String> = sources.iter().map(Source::path).collect();
        let imports = sources.iter().map(|file| (file.path(), file.imported_modules(&modules)));
        cycles(&imports.collect())
    };
    assert_eq!(cycles_of(&sources), None);
    let relative = [
        source("a/mod.rs", "mod b; fn f() { b::g(); }"),
        source("a/b.rs", "use super::S;"),
        source("a/d.rs", "use super::super::e::{self, T};"),
        source("e.rs", "mod tests { use super::*; }"),
    ];
    assert_eq!(cycles_of(&relative), Some(["a", "a::b"].map(str::to_owned).to_vec()));
    let [_, b, d, e] = relative;
    let a = source("a/mod.rs", "mod b; fn f() { e::b::g(); }");
    assert_eq!(cycles_of(&[a, b, d, e]), None);
    let [a, b, d, _] = sources;
    let cycles = cycles_of(&[a, b, d, source("e.rs", "use crate::a::X;")]);
    assert_eq!(cycles, Some(["a", "a::b", "a::d", "e"].map(str::to_owned).to_vec()));
}
