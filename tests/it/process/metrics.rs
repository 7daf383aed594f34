//! Metrics: every series exists from the start, and every event is counted.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use redis::cmd;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::documents::{trigger, workflow};
use testkit::metrics::Metrics;
use testkit::tokens::{claims, now, token};
use testkit::wait::{until, until_some};
use testkit::{App, Caller, Config, Documents, Hookgate, Mongo, Redis, mongo, ports};
use tokio::io::AsyncWriteExt;

/// The name of a label and its values.
type Label = (&'static str, &'static [&'static str]);

/// Counters of the contract, with every value of their one or two labels. Those of future features
/// are absent.
const COUNTERS: &[(&str, &[Label])] = &[
    (
        "hookgate_requests_total",
        &[(
            "code",
            &[
                "accepted",
                "client_closed",
                "invalid_json",
                "body_not_object",
                "missing_webhook_id",
                "missing_credentials",
                "invalid_token",
                "expired_token",
                "invalid_api_key",
                "invalid_idempotency_key",
                "idempotency_key_reused",
                "not_found",
                "method_not_allowed",
                "request_timeout",
                "payload_too_large",
                "fanout_too_large",
                "unsupported_media_type",
                "internal",
                "overloaded",
                "index_unavailable",
                "keys_unavailable",
                "queue_unavailable",
            ],
        )],
    ),
    ("hookgate_jobs_enqueued_total", &[QUEUE]),
    ("hookgate_connections_evicted_total", &[]),
    ("hookgate_connections_refused_total", &[]),
    ("hookgate_unmatched_total", &[]),
    ("hookgate_replayed_total", &[]),
    ("hookgate_index_changes_total", &[COLLECTIONS, ("kind", &["put", "removed"])]),
    (
        "hookgate_index_loads_total",
        &[COLLECTIONS, ("reason", &["start", "stream_lost", "file_changed"])],
    ),
    ("hookgate_index_skipped_documents_total", &[COLLECTIONS]),
    ("hookgate_index_skipped_nodes_total", &[]),
    ("hookgate_index_skipped_api_keys_total", &[]),
    ("hookgate_redis_errors_total", &[QUEUE, ("kind", REDIS_ERRORS)]),
    ("hookgate_redis_resent_batches_total", &[QUEUE]),
    ("hookgate_over_watermark_total", &[QUEUE]),
    ("hookgate_unacknowledged_total", &[QUEUE, ("enqueued", &["none", "unknown"])]),
];

/// The name of the only queue.
const QUEUE: Label = ("queue", &["workflow-runner"]);

const COLLECTIONS: Label = ("collection", &["workflows", "users"]);

const REDIS_ERRORS: &[&str] = &[
    "timeout",
    "connection",
    "oom",
    "readonly",
    "loading",
    "busy",
    "writes_refused",
    "cluster",
    "too_large",
    "auth",
    "wrongtype",
    "too_few_replicas",
    "protocol",
    "other",
];

const GAUGES: &[&str] = &[
    "hookgate_ready",
    "hookgate_redis_memory_ratio",
    "hookgate_redis_may_evict",
    "hookgate_redis_is_volatile",
    "hookgate_requests_in_flight",
    "hookgate_connections",
    "hookgate_index_triggers",
    "hookgate_index_workflows",
    "hookgate_index_api_keys",
];

const HISTOGRAMS: &[&str] = &[
    "hookgate_request_duration_seconds",
    "hookgate_batch_jobs",
    "hookgate_redis_call_duration_seconds",
];

#[tokio::test]
async fn every_series_starts_at_zero() {
    let hookgate = Hookgate::start_unready(alone()).await;
    let response = hookgate.admin_get("/metrics").await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.expect("a string");
    let metrics = Metrics::parse(&text);

    for &(name, labels) in COUNTERS {
        for labels in combinations(labels) {
            assert_eq!(metrics.value(name, &labels), 0.0, "{name} {labels:?}");
        }
        assert!(text.contains(&format!("# TYPE {name} counter\n")), "{name}");
    }
    for &name in GAUGES {
        assert_eq!(metrics.value(name, &[]), 0.0, "{name}");
        assert!(text.contains(&format!("# TYPE {name} gauge\n")), "{name}");
    }
    for &name in HISTOGRAMS {
        assert_eq!(metrics.value(&format!("{name}_count"), &[]), 0.0, "{name}");
        assert_eq!(metrics.value(&format!("{name}_sum"), &[]), 0.0, "{name}");
        assert!(metrics.get(&format!("{name}_bucket"), &[("le", "+Inf")]).is_some(), "{name}");
        assert!(text.contains(&format!("# TYPE {name} histogram\n")), "{name}");
    }
    for name in HISTOGRAMS.iter().filter(|name| name.ends_with("_seconds")) {
        let smallest = [("le", "0.00005")];
        assert!(metrics.get(&format!("{name}_bucket"), &smallest).is_some(), "{name}");
    }
    for state in ["in_sync", "out_of_sync"] {
        assert_eq!(metrics.value("hookgate_redis_replicas", &[("state", state)]), 0.0, "{state}");
    }
    assert_eq!(metrics.series("hookgate_index_age_seconds").len(), 1);
    assert!(metrics.names().any(|name| name == "process_resident_memory_bytes"));

    let [build] = metrics.series("hookgate_build_info") else { panic!("one series expected") };
    assert_eq!(build.value, 1.0);
    let labels: Vec<&str> = build.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["commit", "version"]);
    assert_eq!(build.labels["version"], env!("CARGO_PKG_VERSION"));
    for name in metrics.names().filter(|name| !name.starts_with("process_")) {
        assert!(name.starts_with("hookgate_"), "{name}");
        assert!(text.contains(&format!("# HELP {}", family(name))), "{name} has no help");
    }
}

#[tokio::test]
async fn degraded_parts_of_readyz_are_metrics() {
    let database = Mongo::shared().await.database().await;
    database.insert(&Documents::two_organizations()).await;
    let app = App::build().redis(Redis::start_durable().await).mongo(&database).config(|config| {
        config.set("mongodb.database", format!("{}_misspelt", database.name()));
    });
    let app = app.start().await;
    app.webhook("wh_1").send().await.assert_rejected(401, "invalid_api_key");
    wait_for_degraded(&app, &["users", "workflows"]).await;

    let policy = async |policy: &str| {
        let command = cmd("CONFIG").arg(&["SET", "maxmemory-policy", policy]).clone();
        let () = app.redis.query(&command).await;
    };
    policy("allkeys-lru").await;
    wait_for_degraded(&app, &["redis", "users", "workflows"]).await;
    policy("noeviction").await;
    wait_for_degraded(&app, &["users", "workflows"]).await;
}

/// Waits until `/readyz` answers 200 and reports these parts as degraded; asserts that the metrics
/// agree and have 0 for the others.
async fn wait_for_degraded(app: &App, parts: &[&str]) {
    until(&format!("{parts:?} are degraded"), async || {
        let (status, report) = app.hookgate.readiness().await;
        assert_eq!(status, 200, "{report}");
        let notes = report.get("degraded").and_then(Value::as_array).expect("a list").iter();
        let named = notes.filter_map(|note| note.as_str()?.split(':').next());
        named.collect::<BTreeSet<_>>().into_iter().eq(parts.iter().copied())
    })
    .await;
    let metrics = app.hookgate.metrics().await;
    let series = metrics.series("hookgate_degraded").iter();
    let found: BTreeMap<&str, f64> = series
        .filter_map(|series| Some((series.labels.get("part")?.as_str(), series.value)))
        .collect();
    let all = ["process", "redis", "token keys", "users", "workflows"];
    let expected = all.map(|part| (part, f64::from(u8::from(parts.contains(&part)))));
    assert_eq!(found, BTreeMap::from(expected));
}

#[tokio::test]
async fn promtool_accepts_the_metrics() {
    let app = App::start().await;
    app.webhook("wh_1").send().await;
    app.webhook("wh_1").bearer("unknown").send().await;
    let page = app.hookgate.metrics_text().await;
    let mut promtool = tokio::process::Command::new("promtool");
    promtool.args(["check", "metrics"]).kill_on_drop(true);
    promtool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("promtool is on the path");
    let mut stdin = promtool.stdin.take().expect("the input is a pipe");
    stdin.write_all(page.as_bytes()).await.expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().await.expect("promtool ends");
    let printed = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&printed), "");
    assert!(output.status.success(), "{}", output.status);
}

#[tokio::test]
async fn every_request_is_counted_under_one_code() {
    let app = App::with(|config| {
        config.set("server.max_body", "1KiB");
    })
    .await;
    let expired = token(&json!({ "organizationId": "org_a", "sub": "u", "exp": now() - 600 }));
    let long = json!({ "webhookId": "wh_1", "text": "x".repeat(2000) }).to_string();
    let calls = [
        ("accepted", app.webhook("wh_1")),
        ("accepted", app.webhook("wh_1").bearer(&token(&claims("org_a", "u")))),
        ("accepted", app.webhook("wh_none")),
        ("invalid_json", app.post("{")),
        ("body_not_object", app.post("[]")),
        ("missing_webhook_id", app.post("{}")),
        ("missing_webhook_id", app.post(r#"{"webhookId":5}"#)),
        ("missing_credentials", app.webhook("wh_1").without("authorization")),
        ("invalid_token", app.webhook("wh_1").bearer("eyJhbGciOiJIUzI1NiJ9.e30.AAAA")),
        ("expired_token", app.webhook("wh_1").bearer(&expired)),
        ("invalid_api_key", app.webhook("wh_1").bearer("unknown")),
        ("accepted", app.webhook("wh_1").header("idempotency-key", "k")),
        ("accepted", app.webhook("wh_1").header("idempotency-key", "k")),
        ("accepted", app.webhook("wh_none").header("idempotency-key", "none")),
        ("idempotency_key_reused", app.webhook("wh_none").header("idempotency-key", "k")),
        ("invalid_idempotency_key", app.webhook("wh_1").header("idempotency-key", "")),
        ("not_found", app.caller.call(Method::POST, "/elsewhere")),
        ("method_not_allowed", app.caller.call(Method::GET, testkit::http::PATH)),
        ("payload_too_large", app.post(long)),
        ("unsupported_media_type", app.webhook("wh_1").header("content-type", "text/plain")),
    ];
    let mut expected = BTreeMap::<&str, f64>::new();
    let count = calls.len() as f64;
    for (code, call) in calls {
        let reply = call.send().await;
        let outcome = if reply.status == 202 { "accepted".to_owned() } else { reply.code() };
        assert_eq!(outcome, code);
        *expected.entry(code).or_default() += 1.0;
    }
    let metrics = until_some("all requests are counted", async || {
        let metrics = app.hookgate.metrics().await;
        (metrics.sum("hookgate_requests_total") >= count).then_some(metrics)
    })
    .await;
    for sample in metrics.series("hookgate_requests_total") {
        let code = sample.labels["code"].as_str();
        assert_eq!(sample.value, expected.get(code).copied().unwrap_or(0.0), "{code}");
    }
    assert_eq!(metrics.sum("hookgate_requests_total"), count);
    assert_eq!(metrics.value("hookgate_unmatched_total", &[]), 2.0);
    assert_eq!(metrics.value("hookgate_replayed_total", &[]), 1.0);
    assert_eq!(metrics.value("hookgate_jobs_enqueued_total", &[]), 3.0);
    until("every duration is counted", async || {
        let metrics = app.hookgate.metrics().await;
        metrics.value("hookgate_request_duration_seconds_count", &[]) >= count
            && metrics.value("hookgate_requests_in_flight", &[]) == 0.0
    })
    .await;
    let durations = app.hookgate.metrics().await;
    assert_eq!(durations.value("hookgate_request_duration_seconds_count", &[]), count);
}

#[tokio::test]
async fn jobs_and_batches_are_counted() {
    let mut documents = Documents::two_organizations();
    documents.workflows.extend((0..9).map(|n| workflow(&format!("wf_x{n}"), "org_a", "wh_ten")));
    documents.workflows.push(workflow("wf_x9", "org_a", "wh_ten"));
    let app = App::build().documents(documents).start().await;
    for _ in 0..3 {
        assert_eq!(app.webhook("wh_ten").send().await.matched(), 10);
    }
    app.webhook("wh_none").send().await;
    until("the calls are counted", async || {
        let metrics = app.hookgate.metrics().await;
        metrics.value("hookgate_redis_call_duration_seconds_count", &[]) >= 3.0
    })
    .await;
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.value("hookgate_jobs_enqueued_total", &[]), 30.0);
    assert_eq!(metrics.value("hookgate_unmatched_total", &[]), 1.0);
    assert_eq!(metrics.value("hookgate_redis_call_duration_seconds_count", &[]), 3.0);
    assert_eq!(metrics.value("hookgate_batch_jobs_count", &[]), 3.0);
    assert_eq!(metrics.value("hookgate_batch_jobs_sum", &[]), 30.0);
    assert_eq!(metrics.value("hookgate_batch_jobs_bucket", &[("le", "8")]), 0.0);
    assert_eq!(metrics.value("hookgate_batch_jobs_bucket", &[("le", "16")]), 3.0);
    assert_eq!(metrics.sum("hookgate_redis_errors_total"), 0.0);
}

#[tokio::test]
async fn open_connections_are_counted() {
    let app = App::start().await;
    let callers: Vec<Caller> = (0..5).map(|_| Caller::new(app.hookgate.address())).collect();
    for caller in &callers {
        caller.webhook("wh_1").send().await;
    }
    let open = async || app.hookgate.metrics().await.value("hookgate_connections", &[]);
    assert_eq!(open().await, 5.0);
    drop(callers);
    until("the connections are closed", async || open().await == 0.0).await;
}

#[tokio::test]
async fn the_index_is_measured() {
    let app = App::start().await;
    let mut documents = Documents::two_organizations();
    let metrics = app.hookgate.metrics().await;
    for (name, count) in [("triggers", 2.0), ("workflows", 2.0), ("api_keys", 2.0)] {
        assert_eq!(metrics.value(&format!("hookgate_index_{name}"), &[]), count, "{name}");
    }
    assert_eq!(loads(&metrics, "workflows", "start"), 1.0);
    assert_eq!(loads(&metrics, "users", "start"), 1.0);

    documents.workflows[0]["nodes"] =
        json!([trigger("n1", "wh_1"), trigger("n2", "wh_2"), trigger("n3", "wh_2"),]);
    documents.users[0]["apiKey"] = json!(["key_a", "key_a2"]);
    documents.users[1]["apiKey"] = json!(null);
    app.replace_documents(&documents);
    let metrics = until_some("both collections are loaded again", async || {
        let metrics = app.hookgate.metrics().await;
        let both =
            ["workflows", "users"].iter().all(|it| loads(&metrics, it, "file_changed") > 0.0);
        both.then_some(metrics)
    })
    .await;
    assert_eq!(metrics.value("hookgate_index_triggers", &[]), 3.0, "one for each webhook");
    assert_eq!(metrics.value("hookgate_index_workflows", &[]), 2.0);
    assert_eq!(metrics.value("hookgate_index_api_keys", &[]), 2.0);
    assert_eq!(loads(&metrics, "workflows", "start"), 1.0);
}

#[tokio::test]
async fn changes_of_mongodb_are_counted_and_the_index_stays_fresh() {
    let database = Mongo::shared().await.database().await;
    database.insert(&Documents::two_organizations()).await;
    let app = App::build().mongo(&database).start().await;
    let changes = async |collection, kind| {
        let labels = [("collection", collection), ("kind", kind)];
        app.hookgate.metrics().await.value("hookgate_index_changes_total", &labels)
    };
    let new = mongo::document(workflow("wf_new", "org_a", "wh_new"));
    database.workflows().insert_one(new).await.expect("inserted");
    until("the insertion is counted", async || changes("workflows", "put").await >= 1.0).await;
    let id = mongo::document(json!({ "_id": "wf_new" }));
    database.workflows().delete_one(id).await.expect("deleted");
    until("the deletion is counted", async || changes("workflows", "removed").await == 1.0).await;
    assert_eq!(changes("users", "removed").await, 0.0);

    // Without changes the age is reset again and again.
    let mut last = f64::MAX;
    let mut renewals = 0;
    until("the age has been renewed four times", async || {
        let age = app.hookgate.metrics().await.value("hookgate_index_age_seconds", &[]);
        assert!((0.0..30.0).contains(&age), "{age}");
        renewals += u32::from(age < last);
        last = age;
        renewals >= 4
    })
    .await;

    database.workflows().drop().await.expect("dropped");
    until("the lost stream is counted", async || {
        loads(&app.hookgate.metrics().await, "workflows", "stream_lost") >= 1.0
    })
    .await;
    assert_eq!(loads(&app.hookgate.metrics().await, "users", "stream_lost"), 0.0);
}

/// A configuration without Redis and documents.
fn alone() -> Config {
    let mut config = Config::new();
    config.set("queue.redis", testkit::redis::url(ports::free()));
    config.set("triggers.file", "/nowhere/workflows.json");
    config
}

fn loads(metrics: &Metrics, collection: &str, reason: &str) -> f64 {
    let labels = [("collection", collection), ("reason", reason)];
    metrics.value("hookgate_index_loads_total", &labels)
}

/// Every combination of the values of labels.
fn combinations<'a>(labels: &[(&'a str, &[&'a str])]) -> Vec<Vec<(&'a str, &'a str)>> {
    labels.iter().fold(vec![Vec::new()], |combined, &(label, values)| {
        let extended = combined.iter().flat_map(|before| {
            values.iter().map(|&value| [before.as_slice(), &[(label, value)]].concat())
        });
        extended.collect()
    })
}

/// The name of a metric, from that of one of its series.
fn family(series: &str) -> &str {
    let suffixes = ["_bucket", "_count", "_sum"];
    let histogram = suffixes.iter().find_map(|suffix| series.strip_suffix(suffix));
    histogram.filter(|name| HISTOGRAMS.contains(name)).unwrap_or(series)
}
