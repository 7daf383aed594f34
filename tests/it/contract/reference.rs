//! The generated pages: `docs/reference/configuration.md` and `docs/reference/metrics.md`.
//!
//! `UPDATE_REFERENCE=1 cargo test --test it contract::reference` writes them from the code.

use hookgate::config::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use testkit::App;

const SHIPPED: &str = include_str!("../../../config/hookgate.toml");

const QUERIES: &str = include_str!("../../../src/metrics/queries.toml");

const CONFIGURATION: &str = "This page is generated from `config/hookgate.toml` and the code. \
    Durations are written `\"250ms\"`, `\"15s\"` or `\"5m\"`, sizes `\"256KiB\"` or `\"1MiB\"`. The \
    environment overrides any key: `HOOKGATE__SERVER__LISTEN` sets `server.listen`. An unknown key \
    is a fault. On SIGHUP `[auth.jwt]`, `[endpoints.verification]`, `[limits]`, `[queue.data]`, \
    `queue.forward_headers`, `[queue.job]` and `telemetry.log` take effect at once, all other keys after a restart \
    ([Reload](../operating/upgrades.md#reload-the-configuration)). \
    [Install](../operating/install.md) says where the configuration and its secrets belong.";

const METRICS: &str = "This page is generated from `/metrics` of the admin port. \
    [Monitoring](../operating/monitoring.md) says how to scrape it. No label names an \
    organization, a webhook or a workflow. Each query is evaluated by a real Prometheus in a test; \
    its ranges suit scrape intervals of up to a minute. Metrics `process_…` are those of every \
    program, so their queries select the job `hookgate`.";

#[test]
fn the_configuration_page_matches_the_code() {
    let mut page = format!("# Configuration\n\n{}\n", wrapped(CONFIGURATION));
    let (known, bounds) = (Config::known_keys(), Config::bounds());
    let mut documented = BTreeSet::new();
    for section in sections() {
        write!(page, "\n## [{}]\n", section.name).unwrap();
        if !section.comment.is_empty() {
            write!(page, "\n{}\n", wrapped(&section.comment)).unwrap();
        }
        page.push_str("\n| key | default | bounds | meaning |\n|---|---|---|---|\n");
        for (key, comment) in section.keys {
            let path = format!("{}.{key}", section.name);
            let default = known.get(&path).unwrap_or_else(|| panic!("nothing reads {path}"));
            let default = default.as_ref().map_or_else(String::new, |value| format!("`{value}`"));
            let bounds = bounds.get(&path).map_or("", String::as_str);
            writeln!(page, "| `{key}` | {default} | {bounds} | {} |", cell(&comment)).unwrap();
            assert!(documented.insert(path), "a key is in config/hookgate.toml twice");
        }
    }
    let missing: Vec<_> = known.keys().filter(|key| !documented.contains(*key)).collect();
    assert!(missing.is_empty(), "not in config/hookgate.toml: {missing:?}");
    compare("docs/reference/configuration.md", &page);
}

#[tokio::test]
async fn the_metrics_page_matches_the_code() {
    let app = App::start().await;
    let text = app.hookgate.metrics_text().await;
    let mut page = format!("# Metrics\n\n{}\n", wrapped(METRICS));
    page.push_str("\n| metric | type | labels | meaning | query |\n|---|---|---|---|---|\n");
    let mut queries = queries();
    for (name, metric) in metrics(&text) {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, labels, help) = (metric.kind, labels.join(", "), cell(&metric.help));
        let query = queries.remove(&name);
        let query = query.unwrap_or_else(|| panic!("{name} is not in src/metrics/queries.toml"));
        assert!(query.contains(&name), "the query of {name} is about something else: {query}");
        let query = query.replace('|', "\\|");
        writeln!(page, "| `{name}` | {kind} | {labels} | {help} | `{query}` |").unwrap();
    }
    assert!(queries.is_empty(), "not on /metrics, but in src/metrics/queries.toml: {queries:?}");
    compare("docs/reference/metrics.md", &page);
}

/// The query of each metric.
pub(super) fn queries() -> BTreeMap<String, String> {
    toml::from_str(QUERIES).expect("a table of strings")
}

/// A section of the shipped configuration.
struct Section {
    name: String,
    comment: String,
    /// Keys in their order, each with its comment.
    keys: Vec<(String, String)>,
}

/// Reads the comments of the shipped file. A comment belongs to the line below it or the line that it ends.
fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut above = String::new();
    // Whether the comment above is about a key without a default. It may be about several of them,
    // but not about a key with a default below them.
    let mut is_about_key_without_default = false;
    for line in SHIPPED.lines() {
        let key_without_default = line.strip_prefix("# ").filter(|rest| {
            let key = rest.split(" = ").next().unwrap_or_default();
            rest.contains(" = ")
                && !key.is_empty()
                && key.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphabetic())
        });
        if is_about_key_without_default && key_without_default.is_none() {
            above.clear();
            is_about_key_without_default = false;
        }
        if line.is_empty() {
            above.clear();
        } else if let Some(name) = line.strip_prefix('[') {
            let (name, rest) = name.split_once(']').expect("a closed bracket");
            let comment = joined(&above, rest);
            sections.push(Section { name: name.to_owned(), comment, keys: Vec::new() });
            above.clear();
        } else if let Some(assignment) = key_without_default
            .or_else(|| line.contains(" = ").then_some(line).filter(|line| !line.starts_with('#')))
        {
            let (key, value) = assignment.split_once(" = ").expect("an assignment");
            let comment = joined(&above, trailing(value));
            sections.last_mut().expect("a section").keys.push((key.to_owned(), comment));
            if key_without_default.is_some() {
                is_about_key_without_default = true;
            } else {
                above.clear();
            }
        } else if let Some(comment) = line.strip_prefix('#') {
            above.push_str(comment);
        }
    }
    sections
}

/// The comment after a value.
fn trailing(value: &str) -> &str {
    let mut in_string = false;
    let at = value.find(|char| {
        in_string ^= char == '"';
        char == '#' && !in_string
    });
    at.map_or("", |at| &value[at..])
}

fn joined(above: &str, after: &str) -> String {
    let words: Vec<&str> = above
        .split_whitespace()
        .chain(after.trim_start_matches([' ', '#']).split_whitespace())
        .collect();
    words.join(" ")
}

/// Prose in lines of at most 100 columns.
fn wrapped(prose: &str) -> String {
    let (mut text, mut columns) = (String::new(), 0);
    for word in prose.split(' ') {
        if columns > 0 && columns + 1 + word.len() > 100 {
            text.push('\n');
            columns = 0;
        } else if columns > 0 {
            text.push(' ');
            columns += 1;
        }
        text.push_str(word);
        columns += word.len();
    }
    text
}

/// Prose in a cell of a table. Within backticks `<` is shown as it is.
fn cell(prose: &str) -> String {
    let prose = prose.replace('|', "\\|");
    let parts = prose.split('`').enumerate();
    let parts = parts.map(|(index, part)| match index % 2 {
        0 => part.replace('<', "&lt;"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

#[derive(Default)]
struct Metric {
    kind: String,
    help: String,
    labels: Vec<String>,
}

/// Reads the page of metrics in the Prometheus text format.
fn metrics(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) =
            line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
        {
            metrics.entry(name.to_owned()).or_default().help.push_str(help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            metrics.entry(name.to_owned()).or_default().kind.push_str(kind);
        } else if let Some((name, labels)) = line.split_once('{') {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name);
            let Some(metric) = metrics.get_mut(base) else { continue };
            for label in labels.split("\",").filter_map(|label| label.split_once('=')) {
                let label = label.0.trim_start_matches(',').to_owned();
                if label != "le" && !metric.labels.contains(&label) {
                    metric.labels.push(label);
                }
            }
        }
    }
    metrics
}

/// Compares a page with the file, or writes the file.
fn compare(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::vars_os().any(|(name, _)| name == "UPDATE_REFERENCE") {
        fs::write(&path, page).expect("a writable page");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "{name} is out of date; see tests/it/contract/reference.rs\n{page}");
}
