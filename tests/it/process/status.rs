//! `/status.json`: its figures, its bounds, and names that are hostile.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::collections::BTreeSet;

use redis::cmd;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::config::SECRET;
use testkit::documents::{trigger, user, workflow, workflow_of};
use testkit::metrics::Metrics;
use testkit::wait::{until, until_some};
use testkit::{App, Config, Documents, Hookgate, Mongo, Redis, ports};

/// Maximum bytes of the document, whatever it has to report.
const MAX_BYTES: usize = 256 << 10;

pub(super) async fn status(hookgate: &Hookgate) -> Value {
    let response = hookgate.admin_get("/status.json").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    let text = response.text().await.expect("a string");
    assert!(!text.contains("NaN") && !text.contains("Infinity"), "{text}");
    assert!(text.len() < MAX_BYTES, "{} bytes", text.len());
    assert!(!text.contains(SECRET), "a secret");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn the_figures_are_those_of_the_metrics() {
    let app = App::start().await;
    for _ in 0..3 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
    app.webhook("wh_1").bearer("no token").send().await.assert_rejected(401, "invalid_api_key");
    app.caller.call(Method::GET, "/nothing").send().await.assert_rejected(404, "not_found");
    app.assert_accounting().await;
    let status = until_some("the jobs are counted in Redis", async || {
        let status = status(&app.hookgate).await;
        (status["queues"][0]["jobs"]["waiting"] == json!(3)).then_some(status)
    })
    .await;
    let metrics = app.hookgate.metrics().await;
    let total = json!({ "accepted": 3, "invalid_api_key": 1, "not_found": 1 });
    assert_eq!(status["requests"]["total"], total);
    assert_eq!(status["history"]["requests"], total, "the history begins with the process");
    assert_eq!(status["history"]["jobs"], json!(3));
    for quantile in ["p50_seconds", "p99_seconds"] {
        let seconds = status["history"][quantile].as_f64().expect("a number");
        assert!(seconds > 0.0 && seconds <= 10.0, "{quantile}: {seconds}");
    }
    let queue = &status["queues"][0];
    assert_eq!(
        queue["jobs"],
        json!({
            "waiting": 3, "active": 0, "delayed": 0, "prioritized": 0, "failed": 0,
        })
    );
    assert_eq!(queue["jobs_enqueued"].as_f64(), Some(metrics.sum("hookgate_jobs_enqueued_total")));
    assert_eq!(queue["address"], json!(format!("127.0.0.1:{}", app.redis.port())));
    assert_eq!(queue["server"]["role"], "master");
    assert_eq!(queue["server"]["version"], app.redis.info("server", "redis_version").await);
    let index = &status["index"];
    for (member, name) in [
        ("workflows", "hookgate_index_workflows"),
        ("triggers", "hookgate_index_triggers"),
        ("api_keys", "hookgate_index_api_keys"),
    ] {
        assert_eq!(index[member].as_f64(), Some(metrics.value(name, &[])), "{member}");
    }
    assert_eq!(index["source"]["kind"], "file");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["ready"], &status["alive"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn the_history_has_steps_as_columns_of_equal_length() {
    let app = App::start().await;
    let status = until_some("a step with a request has ended", async || {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        let status = status(&app.hookgate).await;
        status["history"]["steps"]["requests"]["accepted"].is_array().then_some(status)
    })
    .await;
    let steps = status["history"]["steps"].as_object().expect("an object");
    let length = |column: &Value| column.as_array().expect("a list").len();
    let steps_ended = length(&steps["jobs"]);
    assert!(steps_ended > 0);
    for name in ["age_seconds", "length_seconds", "p50_seconds", "p99_seconds"] {
        assert_eq!(length(&steps[name]), steps_ended, "{name}");
    }
    for (code, column) in steps["requests"].as_object().expect("an object") {
        assert_eq!(length(column), steps_ended, "{code}");
    }
}

#[tokio::test]
async fn reasons_have_hints_and_unknown_figures_are_null() {
    let mut config = Config::new();
    config.set("queue.redis", testkit::redis::url(ports::free()));
    config.set("triggers.file", "/nowhere/workflows.json");
    let hookgate = Hookgate::start_unready(config).await;
    let status = until_some("both parts report", async || {
        let status = status(&hookgate).await;
        let parts: BTreeSet<&str> = parts(&status, "reasons").collect();
        ["redis", "users", "workflows"].iter().all(|part| parts.contains(part)).then_some(status)
    })
    .await;
    assert_eq!(status["ready"], false);
    for reason in status["reasons"].as_array().expect("a list") {
        assert!(reason["hint"].is_string(), "{reason}");
    }
    assert_eq!(status["index"]["age_seconds"], Value::Null);
    let queue = &status["queues"][0];
    assert_eq!((&queue["server"], &queue["jobs"]["waiting"]), (&Value::Null, &Value::Null));
    assert_eq!(queue["connections_open"], 0);
}

/// What `/readyz` says is in the status, part by part.
#[tokio::test]
async fn degraded_parts_are_listed() {
    let app = App::start().await;
    let _: () =
        app.redis.query(cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("allkeys-lru")).await;
    until("the policy is listed", async || {
        let status = status(&app.hookgate).await;
        let (_, readyz) = app.hookgate.readiness().await;
        let line = |entry: &Value| {
            let word = |name: &str| entry[name].as_str().expect("a string").to_owned();
            format!("{}: {}", word("part"), word("reason"))
        };
        let listed = status["degraded"].as_array().expect("a list").iter().map(line);
        let listed: Vec<String> = listed.collect();
        listed.iter().any(|line| line.contains("maxmemory-policy"))
            && json!(listed) == readyz["degraded"]
    })
    .await;
}

#[tokio::test]
async fn documents_that_are_left_out_are_named_until_they_are_repaired() {
    let mut documents = Documents::two_organizations();
    let nodes = json!([trigger("n1", "wh_1"), { "type": "WebhookTrigger", "data": { "webhookId": "wh_2" } }]);
    documents.workflows.push(workflow_of("wf_part", "org_a", nodes));
    documents.workflows.push(json!({ "_id": "wf_whole", "organizationId": [], "nodes": [] }));
    let app = App::build().documents(documents).start().await;
    let left_out =
        async || status(&app.hookgate).await["index"]["collections"][0]["left_out"].clone();
    let found = left_out().await;
    assert_eq!((&found["count"], &found["is_complete"]), (&json!(2), &json!(true)));
    let listed = found["documents"].as_array().expect("a list").iter();
    let listed: Vec<(&Value, &Value)> =
        listed.map(|each| (&each["id"], &each["is_whole"])).collect();
    assert_eq!(listed, [(&json!("wf_part"), &json!(false)), (&json!("wf_whole"), &json!(true))]);
    for document in found["documents"].as_array().expect("a list") {
        assert!(
            document["reasons"][0].as_str().is_some_and(|reason| !reason.is_empty()),
            "{document}"
        );
    }
    app.replace_documents(&Documents::two_organizations());
    until("nothing is left out", async || left_out().await["count"] == 0).await;
}

#[tokio::test]
async fn the_status_of_mongodb_names_it_without_credentials() {
    let database = Mongo::shared().await.database().await;
    database.insert(&Documents::two_organizations()).await;
    let app = App::build().mongo(&database).start().await;
    let source = status(&app.hookgate).await["index"]["source"].clone();
    assert_eq!(
        (&source["kind"], &source["database"]),
        (&json!("mongodb"), &json!(database.name()))
    );
    let address = source["address"].as_str().expect("a string");
    assert!(address.contains("127.0.0.1:") && !address.contains("://"), "{address}");
}

/// Passwords of Redis are part of its address.
#[tokio::test]
async fn the_address_of_redis_has_no_credentials() {
    let redis = Redis::start().await;
    let address = redis.allow("hidden-password", "+@all ~*").await;
    let app = App::build().redis(redis).redis_address(&address).start().await;
    let text = status(&app.hookgate).await.to_string();
    assert!(!text.contains("hidden-password"), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{}", app.redis.port())), "{text}");
}

#[tokio::test]
async fn hostile_names_stay_strings_and_are_clipped() {
    let hostile = format!("<img src=x onerror=alert(1)>\u{202e}\"{}", "é".repeat(400));
    let key = "key_of_the_hostile_organization";
    let mut documents = Documents::two_organizations();
    documents.workflows.push(workflow("wf_h", &hostile[..200], "wh_h"));
    for number in 0..100 {
        documents.workflows.push(json!({ "_id": format!("{hostile}{number}"), "nodes": [] }));
    }
    documents.users.push(user("user_h", &hostile[..200], key));
    let app = App::build().documents(documents).config(limited).start().await;
    let listed = until_some("the organization is listed", async || {
        app.webhook("wh_h").bearer(key).send().await;
        let status = status(&app.hookgate).await;
        let listed =
            status["organizations_at_limit"][0]["organization"].as_str().map(str::to_owned);
        listed.filter(|_| status["organizations_at_limit"][0]["limit"] == "rate")
    })
    .await;
    assert_eq!(listed, hostile[..200]);
    let left_out = &status(&app.hookgate).await["index"]["collections"][0]["left_out"];
    assert_eq!(left_out["count"], 100);
    let documents = left_out["documents"].as_array().expect("a list");
    assert!(documents.len() <= 20);
    for document in documents {
        let id = document["id"].as_str().expect("a string");
        assert!(id.chars().count() <= 301 && hostile.starts_with(id.trim_end_matches('…')), "{id}");
    }
}

fn limited(config: &mut Config) {
    config.set("limits.organization.requests_per_second", 1);
}

#[tokio::test]
async fn the_last_reload_is_reported_with_its_keys() {
    let mut app = App::start().await;
    let last =
        async |app: &App| status(&app.hookgate).await["configuration"]["last_reload"].clone();
    assert_eq!(last(&app).await, Value::Null);
    app.hookgate.config.set("queue.job.attempts", 7).set("server.workers", 3);
    app.hookgate.reload().await;
    let applied = until_some("it is applied", async || {
        let last = last(&app).await;
        (last["result"] == "applied").then_some(last)
    })
    .await;
    assert_eq!(
        (&applied["changed"], &applied["pending"]),
        (&json!(["queue.job.attempts"]), &json!(["server.workers"]))
    );
    app.hookgate.config.set("queue.job.attempts", "many");
    app.hookgate.reload().await;
    let refused = until_some("it is refused", async || {
        let last = last(&app).await;
        (last["result"] == "refused").then_some(last)
    })
    .await;
    assert_eq!(refused["faults"], json!(["queue.job.attempts"]));
    assert_eq!(app.hookgate.metrics().await.value("hookgate_config_last_reload_success", &[]), 0.0);
}

/// Every queue is listed, with its own figures.
#[tokio::test]
async fn each_shard_is_listed() {
    let app = App::build()
        .config(|config| {
            let shards =
                "[[shards]]\nname = \"a\"\n[[shards]]\nname = \"b\"".parse::<toml::Table>();
            let shards = shards.expect("TOML").remove("shards").expect("a list");
            config.set("queue.shards", shards);
        })
        .start()
        .await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let status = until_some("the jobs are counted in Redis", async || {
        let status = status(&app.hookgate).await;
        let waiting = |queue: &Value| queue["jobs"]["waiting"].as_u64();
        let queues = status["queues"].as_array().expect("a list");
        (queues.iter().filter_map(waiting).sum::<u64>() == 1).then_some(status)
    })
    .await;
    let names: Vec<&Value> =
        status["queues"].as_array().expect("a list").iter().map(|queue| &queue["name"]).collect();
    assert_eq!(names, [&json!("a"), &json!("b")]);
    let metrics: Metrics = app.hookgate.metrics().await;
    for queue in status["queues"].as_array().expect("a list") {
        let label = [("queue", queue["name"].as_str().expect("a string"))];
        let enqueued = metrics.value("hookgate_jobs_enqueued_total", &label);
        assert_eq!(queue["jobs_enqueued"].as_f64(), Some(enqueued), "{queue}");
    }
}

fn parts<'a>(status: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    status[list].as_array().expect("a list").iter().filter_map(|entry| entry["part"].as_str())
}
