//! The preview: what a webhook would start, without starting it.

#![expect(clippy::print_stdout, reason = "the figure belongs to the output of the test")]

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use testkit::app::Builder;
use testkit::documents::{trigger, workflow, workflow_of};
use testkit::http::Call;
use testkit::http2::{END_HEADERS, END_STREAM, Frame, Frames, block, kind};
use testkit::raw::Connection;
use testkit::tls::Authority;
use testkit::tokens::{claims, token};
use testkit::wait::{until, until_some};
use testkit::{App, Documents, ports};

const PATH: &str = "/api/webhook/workflow/preview";

#[tokio::test]
async fn a_preview_names_enabled_and_disabled_workflows_and_nodes() {
    let mut documents = Documents::two_organizations();
    let nodes = json!([trigger("n1", "wh_p"), trigger("n\"2", "wh_p"), trigger("n3", "wh_q")]);
    let mut off = workflow("wf_off", "org_a", "wh_p");
    off["enabled"] = json!(false);
    documents.workflows.extend([
        workflow_of("wf_p", "org_a", nodes),
        off,
        workflow("wf_foreign", "org_b", "wh_p"),
    ]);
    let app = App::build().documents(documents.clone()).start().await;

    let started = json!([{ "workflowId": "wf_p", "nodeIds": ["n1", "n\"2"] }]);
    let found = preview(&app, "wh_p").await;
    assert_eq!(found["webhookId"], "wh_p");
    assert_eq!(found["matchedCount"], 1);
    assert_eq!(found["workflows"], started);
    assert_eq!(found["inactive"], json!([{ "workflowId": "wf_off" }]));
    assert!(found["indexAgeMs"].is_u64());
    let members = found.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(members, ["webhookId", "matchedCount", "workflows", "inactive", "indexAgeMs"]);

    let nothing = preview(&app, "nobody's").await;
    assert_eq!(nothing["matchedCount"], 0);
    assert_eq!((&nothing["workflows"], &nothing["inactive"]), (&json!([]), &json!([])));

    // Enabled and disabled workflows swap.
    for workflow in &mut documents.workflows {
        let is_off = workflow["enabled"] == json!(false);
        workflow["enabled"] = json!(is_off);
    }
    app.replace_documents(&documents);
    until("the enabled and disabled workflows have swapped", async || {
        let found = preview(&app, "wh_p").await;
        found["inactive"] == json!([{ "workflowId": "wf_p" }])
            && found["workflows"] == json!([{ "workflowId": "wf_off", "nodeIds": ["n1"] }])
    })
    .await;
    app.redis.queue().assert_empty().await;
    app.assert_accounting().await;
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.sum("hookgate_unmatched_total").to_string(), "0");
}

#[tokio::test]
async fn a_preview_names_nodes_that_start_nothing() {
    let mut documents = Documents::two_organizations();
    let half_made = json!([
        { "id": "new", "type": "WebhookTrigger", "data": {} },
        { "type": "WebhookTrigger", "data": { "webhookId": "wh_p" } },
        { "id": "n3", "type": "WebhookTrigger", "data": { "webhookId": 5 } },
        { "type": "WebhookTrigger", "data": { "webhookId": "wh_other" } },
        trigger("n5", "wh_p"),
    ]);
    documents.workflows.push(workflow_of("wf_p", "org_a", half_made));
    let foreign = json!([{ "id": "new", "type": "WebhookTrigger" }]);
    documents.workflows.push(workflow_of("wf_foreign", "org_b", foreign));
    let app = App::build().documents(documents.clone()).start().await;
    let found = preview(&app, "wh_p").await;
    assert_eq!(found["workflows"], json!([{ "workflowId": "wf_p", "nodeIds": ["n5"] }]));
    // Nodes of the webhook come first; nodes of other webhooks are listed only where the query asks
    // for them.
    let skipped = |node: Value, reason: &str| json!({ "workflowId": "wf_p", "nodeId": node, "reason": reason });
    let expected = json!([
        skipped(Value::Null, "id is missing"),
        skipped(json!("new"), "the webhook id is not set yet"),
        skipped(json!("n3"), "data.webhookId is not a string of 1 to 256 bytes"),
    ]);
    assert_eq!(found["skippedNodes"], expected);

    documents.workflows.retain(|workflow| workflow["_id"] != "wf_p");
    app.replace_documents(&documents);
    until("the workflow is gone", async || {
        preview(&app, "wh_p").await.get("skippedNodes").is_none()
    })
    .await;
}

#[tokio::test]
async fn a_preview_needs_the_same_credential_and_body_as_a_webhook() {
    let app = App::start().await;
    ask(&app, "wh_1")
        .without("authorization")
        .send()
        .await
        .assert_rejected(401, "missing_credentials");
    ask(&app, "wh_1").body("{}").send().await.assert_rejected(400, "missing_webhook_id");
    ask(&app, "wh_1")
        .header("content-type", "text/plain")
        .send()
        .await
        .assert_rejected(415, "unsupported_media_type");
    let other = app.caller.call(Method::GET, PATH).send().await;
    other.assert_rejected(405, "method_not_allowed");
    assert_eq!(other.header("allow"), Some("POST"));
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_preview_needs_no_redis_and_rejects_a_stale_miss() {
    let app = App::start().await;
    app.redis.freeze();
    assert_eq!(preview(&app, "wh_1").await["matchedCount"], 1);
    app.redis.thaw();

    let app = App::build().config(|config| {
        config.set("triggers.source", "mongodb");
        config.set("mongodb.uri", format!("mongodb://127.0.0.1:{}/", ports::free()));
    });
    let app = app.start_unready().await;
    let known = token(&claims("org_a", "u"));
    let unknown = ask(&app, "wh_1").bearer(&known).send().await;
    unknown.assert_rejected(503, "index_unavailable");
}

#[tokio::test]
async fn a_preview_has_pages_of_a_thousand_rows() {
    let mut documents = Documents::two_organizations();
    let mut expected = BTreeMap::new();
    for number in 0..2500 {
        // The ids differ in length and must be percent-encoded in a query.
        let id = format!("wf+{}&ü {number}", number % 7);
        let mut each = workflow(&id, "org_a", "wh_many");
        let is_off = number % 5 == 0;
        each["enabled"] = json!(!is_off);
        documents.workflows.push(each);
        expected.insert(id, is_off);
    }
    let app = App::build().documents(documents).start().await;
    let (mut found, mut pages, mut query) = (BTreeMap::new(), Vec::new(), String::new());
    loop {
        let page = page(&app, "wh_many", &query).await;
        assert_eq!(page["matchedCount"], 2000, "all matches, not only those on the page");
        let mut count = 0;
        for (list, is_off) in [("workflows", false), ("inactive", true)] {
            let ids: Vec<&str> = page[list].as_array().expect("a list").iter().map(id_of).collect();
            assert!(ids.is_sorted());
            count += ids.len();
            found.extend(ids.into_iter().map(|id| (id.to_owned(), is_off)));
        }
        pages.push(count);
        let Some(next) = page.get("next") else { break };
        let next = next.as_str().expect("a workflow");
        assert_eq!(found.last_key_value().map(|(id, _)| id.as_str()), Some(next));
        query = format!("?other=1&after={}", encoded(next));
    }
    assert_eq!(pages, [1000, 1000, 500]);
    assert_eq!(found, expected);
    // The cursor is a position in the order of ids, whether a workflow has that id or not.
    let behind = page(&app, "wh_many", "?after=wf%2B6%26").await;
    assert!(behind["workflows"].as_array().is_some_and(|rows| rows.len() > 200));
    let end = page(&app, "wh_many", "?after=z").await;
    assert_eq!((&end["workflows"], end.get("next")), (&json!([]), None));
}

/// Names of nodes may have any length.
#[tokio::test]
async fn a_page_with_long_rows_is_shorter() {
    let nodes: Vec<Value> =
        (0..300).map(|node| trigger(&format!("{node}-{}", "n".repeat(200)), "wh_long")).collect();
    let mut documents = Documents::two_organizations();
    let many =
        (0..100).map(|number| workflow_of(&format!("wf_{number:03}"), "org_a", json!(nodes)));
    documents.workflows.extend(many);
    let app = App::build().documents(documents).start().await;
    let (mut seen, mut query, mut pages) = (0, String::new(), 0);
    loop {
        let page = page(&app, "wh_long", &query).await;
        assert!(page.to_string().len() < 1_200_000);
        seen += page["workflows"].as_array().expect("a list").len();
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?after={next}");
    }
    assert_eq!((seen, pages > 4), (100, true), "{pages} pages");
}

#[tokio::test]
async fn a_preview_of_a_webhook_that_never_fits_is_refused_alike() {
    let mut documents = Documents::two_organizations();
    let many = (0..800).map(|number| workflow(&format!("wf_{number}"), "org_a", "wh_many"));
    documents.workflows.extend(many);
    let app = App::build().documents(documents).config(|config| {
        config.set("limits.in_flight_bytes", "64KiB").set("server.max_body", "64KiB");
    });
    let app = app.start().await;
    ask(&app, "wh_many").send().await.assert_rejected(413, "fanout_too_large");
    app.webhook("wh_many").send().await.assert_rejected(413, "fanout_too_large");
}

/// 300 callers of one organization ask for previews and read nothing of them.
#[tokio::test]
async fn unread_previews_stay_within_the_limits() {
    let app = large_previews(App::build(), 4).await;
    let (head, body) = ask(&app, "wh_long").to_http1();
    // The kernel's buffers may hold a whole answer, but never eight.
    let request = [head, body].concat().repeat(8);
    let mut unread = Vec::new();
    for _ in 0..300 {
        let mut connection = Connection::open_narrow(app.hookgate.address()).await;
        connection.send(&request).await;
        unread.push(connection);
    }
    assert_refused_and_others_served(&app).await;
    assert_few_bytes(&app).await;
    drop(unread);
    until("everything reserved is released", async || {
        ask(&app, "wh_long").send().await.status == 200
    })
    .await;
}

/// A caller that reads gets the whole answer, however large.
#[tokio::test]
async fn a_large_preview_arrives_in_full_and_keeps_its_connection() {
    let app = large_previews(App::build(), 64).await;
    let (head, body) = ask(&app, "wh_long").to_http1();
    let mut connection = Connection::open(app.hookgate.address()).await;
    for _ in 0..3 {
        connection.send([&head[..], &body[..]].concat()).await;
        let reply = connection.reply().await.expect("an answer");
        assert_eq!((reply.status, reply.header("connection")), (200, None));
        assert!(reply.body.len() > 1 << 20, "{} bytes", reply.body.len());
        assert_eq!(reply.json().pointer("/data/matchedCount"), Some(&json!(40)));
    }
}

/// Three connections of a hundred streams, whose callers open no window for any answer.
#[tokio::test]
async fn unread_http2_previews_stay_within_the_limits() {
    let authority = Authority::new();
    let app = large_previews(App::build().tls(&authority), 4).await;
    let mut unread = Vec::new();
    for _ in 0..3 {
        let mut frames = Frames::open(&authority, app.hookgate.address()).await;
        ask_without_window(&mut frames).await;
        unread.push(frames);
    }
    assert_refused_and_others_served(&app).await;
    assert_few_bytes(&app).await;
    unread.into_iter().for_each(Frames::close);
    until("everything reserved is released", async || {
        ask(&app, "wh_long").send().await.status == 200
    })
    .await;
}

/// Opens a hundred streams on which the server may send the head of an answer but no body.
async fn ask_without_window(frames: &mut Frames) {
    // SETTINGS_INITIAL_WINDOW_SIZE is 0.
    let no_window = Frame::new(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]);
    assert!(frames.send(&[no_window]).await);
    let body = json!({ "webhookId": "wh_long", "more": 1 }).to_string();
    let head = [(":method", "POST"), (":scheme", "https"), (":authority", "h"), (":path", PATH)];
    for stream in (1..200).step_by(2) {
        let block = [block(&head), block(&[("authorization", "Bearer key_a")])].concat();
        let head = Frame::new(kind::HEADERS, END_HEADERS, stream, block);
        let body = Frame::new(kind::DATA, END_STREAM, stream, body.as_bytes());
        assert!(frames.send(&[head, body]).await);
    }
}

/// An app with forty workflows whose preview is larger than a mebibyte, and little room for
/// previews.
async fn large_previews(build: Builder, mebibytes: u32) -> App {
    let nodes: Vec<Value> =
        (0..130).map(|node| trigger(&format!("{node}-{}", "n".repeat(220)), "wh_long")).collect();
    let mut documents = Documents::two_organizations();
    let many = (0..40).map(|number| workflow_of(&format!("wf_{number}"), "org_a", json!(nodes)));
    documents.workflows.extend(many);
    let app = build.documents(documents).config(|config| {
        config.set("limits.in_flight_bytes", format!("{mebibytes}MiB"));
        config.set("queue.enqueue_timeout", "60s");
    });
    let app = app.start().await;
    assert_eq!(ask(&app, "wh_long").send().await.status, 200);
    app
}

async fn assert_refused_and_others_served(app: &App) {
    let refused = until_some("the organization has used its share", async || {
        let reply = ask(app, "wh_long").send().await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    refused.assert_rejected(429, "rate_limited");
    assert_eq!(app.webhook("wh_1").bearer("key_b").send().await.matched(), 1);
}

/// A debug build has some 40 MiB when idle; all unread previews would need over 300.
async fn assert_few_bytes(app: &App) {
    let resident = app.hookgate.metrics().await.value("process_resident_memory_bytes", &[]);
    let mebibytes = resident / f64::from(1 << 20);
    println!("{mebibytes:.0} MiB are resident");
    assert!(mebibytes < 200.0, "{mebibytes:.0} MiB are resident");
}

/// The page that `query` selects.
async fn page(app: &App, webhook: &str, query: &str) -> Value {
    let reply = ask_at(app, webhook, &format!("{PATH}{query}")).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().pointer_mut("/data").expect("data").take()
}

fn id_of(row: &Value) -> &str {
    row["workflowId"].as_str().expect("an id")
}

/// The percent-encoded string.
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn ask(app: &App, webhook: &str) -> Call {
    ask_at(app, webhook, PATH)
}

fn ask_at(app: &App, webhook: &str, path: &str) -> Call {
    let body = json!({ "webhookId": webhook, "more": 1 }).to_string();
    let call = app.caller.call(Method::POST, path).bearer("key_a");
    call.header("content-type", "application/json").body(body)
}

async fn preview(app: &App, webhook: &str) -> Value {
    let reply = ask(app, webhook).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let mut answer = reply.json();
    assert_eq!(answer.pointer("/success"), Some(&json!(true)));
    answer.pointer_mut("/data").expect("data").take()
}
