//! The status page in Chromium: its figures against `/status.json` and `/metrics`, and that it
//! needs nothing but this port.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test panics, and counts are whole numbers"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use testkit::browser::{Browser, Opening, View};
use testkit::documents::{trigger, workflow_of};
use testkit::wait::until_some;
use testkit::{App, Config, Documents, Hookgate, Redis, ports};

use super::status::status;

#[tokio::test]
async fn a_process_that_starts_says_what_it_waits_for() {
    let redis = Redis::start_durable().await;
    let mut config = Config::new();
    let mongodb = format!("127.0.0.1:{}", ports::free());
    config.set("queue.redis", redis.url()).set("triggers.source", "mongodb");
    config.set("mongodb.uri", format!("mongodb://{mongodb}/?replicaSet=rs0"));
    config.set("server.start_timeout", "10m");
    let hookgate = Hookgate::start_in(config, testkit::hookgate::Surroundings::default()).await;
    let mut browser = Browser::start();
    let view = shown(&mut browser, &hookgate, "MongoDB is away", |shown, status| {
        let reasons = status["reasons"].as_array().expect("a list");
        reasons.len() == 3 && shown["problems"].as_array().map(Vec::len) == Some(3)
    })
    .await;
    assert_eq!(view.shown["state"], "✕ not ready");
    assert_eq!(view.shown["title"], "Hookgate: not ready");
    let problems = view.shown["problems"].to_string();
    assert!(problems.contains("Still starting: it waits for users, workflows."), "{problems}");
    assert_eq!(cells(&view, "collections")[0][1], "✕ not loaded");
    assert!(view.shown["pairs"]["index"]["Source"].to_string().contains(&mongodb));
    assert_self_sufficient(&view);
    picture(&mut browser, &hookgate, "status-starting").await;
}

#[tokio::test]
async fn the_figures_of_a_ready_process_are_those_of_its_metrics() {
    let mut documents = Documents::two_organizations();
    let nodes = json!([trigger("n1", "wh_1"), { "type": "WebhookTrigger", "data": { "webhookId": "wh_2" } }]);
    documents.workflows.push(workflow_of("<b>wf_part</b>", "org_a", nodes));
    let build = App::build().redis(Redis::start_durable().await).documents(documents);
    let app = build.start().await;
    for _ in 0..7 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 2);
    }
    for _ in 0..2 {
        app.webhook("wh_1").bearer("no token").send().await.assert_rejected(401, "invalid_api_key");
    }
    app.assert_accounting().await;
    let mut browser = Browser::start();
    let view = shown(&mut browser, &app.hookgate, "the jobs are counted", |shown, status| {
        status["queues"][0]["jobs"]["waiting"] == json!(14) && table(shown, "queues")[0][3] == "14"
    })
    .await;
    let metrics = app.hookgate.metrics().await;
    assert_eq!((&view.shown["state"], &view.shown["silence"]), (&json!("✓ ready"), &Value::Null));
    assert_eq!(view.shown["problems"], json!([]));
    let codes: BTreeMap<String, String> =
        cells(&view, "codes").into_iter().map(|row| (row[0].clone(), row[2].clone())).collect();
    for (code, shown) in &codes {
        assert_eq!(number(shown), metrics.requests(code), "{code}");
    }
    assert_eq!(codes.len(), 2);
    assert_eq!(number(tile(&view, "requests")), metrics.sum("hookgate_requests_total"));
    assert_eq!(number(tile(&view, "refused")), metrics.requests("invalid_api_key"));
    assert_eq!(number(tile(&view, "jobs")), metrics.sum("hookgate_jobs_enqueued_total"));
    let queue = cells(&view, "queues").remove(0);
    for (column, state) in
        [(3, "waiting"), (4, "active"), (5, "delayed"), (6, "prioritized"), (7, "failed")]
    {
        let jobs = metrics.value("hookgate_queue_jobs", &[("state", state)]);
        assert_eq!(number(&queue[column]), jobs, "{state}");
    }
    assert!(queue[1].contains(&format!("127.0.0.1:{}", app.redis.port())), "{queue:?}");
    let index = &view.shown["pairs"]["index"];
    assert_eq!(
        number(index["Triggers"].as_str().expect("a string")),
        metrics.value("hookgate_index_triggers", &[])
    );
    assert_eq!(cells(&view, "left-out")[0][1], "<b>wf_part</b>", "markup is text");
    assert_self_sufficient(&view);
    picture(&mut browser, &app.hookgate, "status").await;
}

#[tokio::test]
async fn a_redis_that_is_away_is_named() {
    let app = App::build().redis(Redis::start_durable().await).start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.redis.kill9().await;
    app.hookgate.unready().await;
    let mut browser = Browser::start();
    let view = shown(&mut browser, &app.hookgate, "the jobs are unknown", |shown, status| {
        status["queues"][0]["jobs"]["waiting"].is_null()
            && table(shown, "queues")[0][3] == "unknown"
    })
    .await;
    assert_eq!(view.shown["state"], "✕ not ready");
    let problems = view.shown["problems"].to_string();
    assert!(problems.contains("redis") && problems.contains("queue.redis"), "{problems}");
    assert!(cells(&view, "queues")[0][1].contains("✕ no answer"));
    assert_eq!(cells(&view, "collections")[0][1], "✓ current");
    assert_self_sufficient(&view);
    picture(&mut browser, &app.hookgate, "status-redis-away").await;
}

#[tokio::test]
async fn a_hidden_page_asks_nothing_and_a_page_without_an_answer_says_so() {
    let app = App::start().await;
    let opening = Opening { has_manual_timers: true, ..Opening::DESKTOP };
    let mut browser = Browser::start();
    browser.open(&app.hookgate.admin_url("/"), opening).await;
    until_shown(&mut browser, |view| view.shown["main"] == json!(true)).await;
    assert_eq!(browser.set_visible(false).await.shown["fetches"], 1);
    assert_eq!(browser.tick().await.shown["fetches"], 1, "it is hidden");
    assert_eq!(browser.set_visible(true).await.shown["fetches"], 2);
    app.hookgate.kill9().await;
    let silent = until_some("the page says that there is no answer", async || {
        let view = browser.tick().await;
        view.shown["silence"]
            .as_str()
            .map(|silence| (silence.to_owned(), view.shown["state"].clone()))
    })
    .await;
    assert!(silent.0.contains("No answer since"), "{}", silent.0);
    assert_eq!(silent.1, "? no answer");
}

/// Opens the page on a narrow screen and in the dark.
#[tokio::test]
async fn the_page_fits_a_phone() {
    let app = App::start().await;
    let mut browser = Browser::start();
    for is_dark in [false, true] {
        let opening = Opening { width: 360, is_dark, ..Opening::DESKTOP };
        browser.open(&app.hookgate.admin_url("/"), opening).await;
        let view = until_shown(&mut browser, |view| view.shown["main"] == json!(true)).await;
        assert_eq!(view.shown["isWide"], false, "it scrolls sideways");
        assert_self_sufficient(&view);
    }
}

/// Opens the page and waits until it shows what `/status.json` says and `is_due` holds.
async fn shown(
    browser: &mut Browser,
    hookgate: &Hookgate,
    what: &str,
    is_due: impl Fn(&Value, &Value) -> bool,
) -> View {
    browser.open(&hookgate.admin_url("/"), Opening::DESKTOP).await;
    until_some(what, async || {
        let status = status(hookgate).await;
        let view = browser.read().await;
        (view.shown["main"] == json!(true) && is_due(&view.shown, &status)).then_some(view)
    })
    .await
}

async fn until_shown(browser: &mut Browser, is_due: impl Fn(&View) -> bool) -> View {
    until_some("the page shows it", async || {
        let view = browser.read().await;
        is_due(&view).then_some(view)
    })
    .await
}

/// Asserts that the page works alone, breaks no rule of its policy, and has landmarks, headers and
/// descriptions.
fn assert_self_sufficient(view: &View) {
    assert_eq!(view.faults, [""; 0]);
    let own = ["/", "/status.json"];
    assert!(
        view.requests.iter().all(|request| own.contains(&request.as_str())),
        "{:?}",
        view.requests
    );
    assert_eq!(view.shown["landmarks"], json!(["header", "main", "footer", "nav"]));
    assert_eq!(view.shown["headless"], json!([]), "tables without headers");
    assert_eq!(view.shown["scripts"], json!(["script"]));
    for (chart, label) in view.shown["charts"].as_object().expect("an object") {
        assert!(
            label.as_str().is_some_and(|label| label.contains("scale up to")),
            "{chart}: {label}"
        );
    }
}

fn cells(view: &View, id: &str) -> Vec<Vec<String>> {
    table(&view.shown, id)
}

fn table(shown: &Value, id: &str) -> Vec<Vec<String>> {
    serde_json::from_value(shown["tables"][id].clone()).expect("rows of cells")
}

fn tile<'a>(view: &'a View, name: &str) -> &'a str {
    view.shown["tiles"][format!("tile-{name}")].as_str().expect("a string")
}

fn number(shown: &str) -> f64 {
    shown.replace(',', "").parse().unwrap_or_else(|_| panic!("{shown} is no number"))
}

/// Writes pictures of the page into the folder that `STATUS_PICTURES` names, if it does: on a
/// desktop and on a phone, light and dark.
async fn picture(browser: &mut Browser, hookgate: &Hookgate, name: &str) {
    let Some(folder) = std::env::var_os("STATUS_PICTURES").map(PathBuf::from) else { return };
    for (kind, width) in [("desktop", 1200), ("phone", 390)] {
        for (scheme, is_dark) in [("light", false), ("dark", true)] {
            let opening = Opening { width, is_dark, ..Opening::DESKTOP };
            browser.open(&hookgate.admin_url("/"), opening).await;
            until_shown(browser, |view| view.shown["main"] == json!(true)).await;
            browser.screenshot(&folder.join(format!("{name}-{kind}-{scheme}.png"))).await;
        }
    }
}
