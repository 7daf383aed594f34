//! The dashboard, the alerts and the query of each metric, evaluated by a real Prometheus that
//! scrapes a real Hookgate.

#![expect(clippy::indexing_slicing, reason = "a test panics")]

use super::ROOT;
use crate::contract::reference::queries;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use redis::cmd;
use serde_json::Value;
use testkit::process::Process;
use testkit::scratch::Scratch;
use testkit::wait::until;
use testkit::{App, ports};

/// Panels that are empty while nothing fails. That their metrics exist is checked all the same.
const EMPTY_WHEN_HEALTHY: [&str; 3] = ["Failed calls", "Degraded", "Certificate"];

/// Metrics whose query is empty while nothing is degraded and without a certificate.
const NO_DATA_WHEN_HEALTHY: [&str; 2] =
    ["hookgate_degraded", "hookgate_tls_certificate_not_after_seconds"];

/// A Prometheus that scrapes one Hookgate every second.
struct Prometheus {
    url: String,
    // Dropped before the directory that it writes into.
    _process: Process,
    _directory: Scratch,
}

impl Prometheus {
    fn start(target: &str) -> Self {
        let directory = Scratch::new("prometheus");
        let alerts = Path::new(ROOT).join("config/prometheus/alerts.yml");
        let config = directory.write(
            "prometheus.yml",
            format!(
                "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{}]\nscrape_configs:\n\
                 - {{ job_name: hookgate, static_configs: [{{ targets: [\"{target}\"] }}] }}\n",
                alerts.display()
            ),
        );
        let address = format!("127.0.0.1:{}", ports::free());
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let process = Process::start("prometheus", &command, &directory.join("log"));
        Self { url: format!("http://{address}/api/v1"), _process: process, _directory: directory }
    }

    /// The data of an answer; `None` until the server is ready.
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let url = reqwest::Url::parse_with_params(&format!("{}/{path}", self.url), query);
        let answer = reqwest::get(url.expect("a valid address")).await.ok()?;
        if answer.status() == reqwest::StatusCode::SERVICE_UNAVAILABLE {
            return None;
        }
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer["status"], "success", "{query:?}: {answer}");
        Some(answer["data"].clone())
    }

    async fn query(&self, expression: &str) -> Vec<Value> {
        let data = self.get("query", &[("query", expression)]).await;
        data.and_then(|data| data["result"].as_array().cloned()).unwrap_or_default()
    }
}

fn dashboard() -> Value {
    let text = fs::read_to_string(Path::new(ROOT).join("deploy/grafana/hookgate.json"));
    serde_json::from_str(&text.expect("it exists")).expect("JSON")
}

/// The expressions of all panels and annotations, each with its title.
fn expressions() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut found = Vec::new();
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().expect("annotations") {
        found.push((text(&annotation["name"]), text(&annotation["expr"])));
    }
    found
}

#[tokio::test]
async fn every_panel_and_query_has_data_and_every_rule_is_evaluated() {
    let app = App::start().await;
    let key = app.redis.queue().key("failed");
    let _: u64 = app.redis.query(cmd("ZADD").arg(key).arg(1).arg("1")).await;
    let prometheus = Prometheus::start(&app.hookgate.admin_address().to_string());
    until("three scrapes with requests between them", async || {
        app.webhook("wh_1").send().await;
        app.webhook("wh_none").send().await;
        app.webhook("wh_1").bearer("unknown").send().await;
        let scrapes = prometheus.query("count_over_time(up{job=\"hookgate\"}[1m])").await;
        scrapes.iter().any(|series| series["value"][1].as_str() >= Some("4"))
    })
    .await;
    for (title, expression) in expressions() {
        let query = expression
            .replace("$__rate_interval", "1m")
            .replace("$instance", ".*")
            .replace("$queue", ".*");
        assert!(!query.contains('$'), "{query}");
        // A start is an event, and so is a fault.
        let may_be_empty = title == "Starts" || EMPTY_WHEN_HEALTHY.contains(&title.as_str());
        let series = prometheus.query(&query).await;
        assert!(!series.is_empty() || may_be_empty, "{title}: {query}");
    }
    for (name, query) in queries() {
        let may_be_empty = NO_DATA_WHEN_HEALTHY.contains(&name.as_str());
        assert!(!prometheus.query(&query).await.is_empty() || may_be_empty, "{name}: {query}");
    }
    until("every rule has been evaluated without a fault", async || {
        let rules = prometheus.get("rules", &[]).await.expect("Prometheus listens");
        let rules = rules["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        assert!(rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
        !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok")
    })
    .await;
}

#[tokio::test]
async fn the_dashboard_uses_existing_metrics_and_shows_all_of_them() {
    let app = App::start().await;
    let metrics = app.hookgate.metrics().await;
    let known: BTreeSet<&str> = metrics.names().collect();
    let expressions: String = expressions().into_iter().map(|(_, query)| query + "\n").collect();
    let words = expressions.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
    let used: BTreeSet<&str> = words.filter(|word| word.starts_with("hookgate_")).collect();
    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let family = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        let family = parts.iter().find_map(|part| name.strip_suffix(part));
        family.unwrap_or(name).to_owned()
    };
    let shown: BTreeSet<String> = used.iter().map(|name| family(name)).collect();
    let own = known.iter().filter(|name| name.starts_with("hookgate_")).map(|name| family(name));
    let missing: Vec<String> = own.filter(|name| !shown.contains(name)).collect();
    assert_eq!(missing, NOT_SHOWN, "metrics that no panel shows");
}

/// Metrics that alerts and other metrics say more about.
const NOT_SHOWN: [&str; 4] = [
    "hookgate_config_last_reload_success_timestamp_seconds",
    "hookgate_jwks_skipped_keys_total",
    "hookgate_redis_is_volatile",
    "hookgate_redis_may_evict",
];

#[test]
fn the_dashboard_is_provisioned_with_variables_for_every_choice() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<&str> = variables.iter().filter_map(|each| each["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "instance", "queue"]);
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "{}: its id is used twice", panel["title"]);
        assert!(
            panel["type"] == "row" || panel["description"].is_string(),
            "{} has no description",
            panel["title"]
        );
    }
}
