//! What is refused: the contract's table of errors, row by row, and the order in which they are found.

#![expect(clippy::indexing_slicing, reason = "a test panics")]

mod harness;

use std::collections::BTreeSet;

use harness::documents::workflow;
use harness::http::{Call, PATH, Reply};
use harness::raw::Connection;
use harness::tokens::{claims, now, token};
use harness::{App, Documents};
use reqwest::Method;
use serde_json::{Value, json};

/// Stands in many requests of the table, and must not stand in any answer or log line.
const MARK: &str = "Zq7MarkZq7";

struct Row {
    what: &'static str,
    call: Call,
    status: u16,
    code: &'static str,
}

#[tokio::test]
async fn the_table_of_errors() {
    let app = small_app().await;
    let rows = [routes(&app), credentials(&app), media_types(&app), sizes(&app), bodies(&app)];
    let mut codes = BTreeSet::new();
    for row in rows.into_iter().flatten() {
        let reply = row.call.send().await;
        assert_envelope(&reply, row.status, row.code, row.what);
        codes.insert(row.code);
    }
    assert_eq!(codes.len(), 12, "{codes:?}");
    app.redis.queue().assert_empty().await;
    app.assert_accounting().await;
    assert!(!app.hookgate.log().contains(MARK), "a log line repeats what a caller sent");
}

fn routes(app: &App) -> Vec<Row> {
    let paths = [
        "/",
        "/api",
        "/api/webhook",
        "/api/webhook/workflow/",
        "/API/webhook/workflow",
        "/metrics",
        "/livez",
    ];
    let with_mark = format!("/{MARK}?{MARK}");
    let paths = paths.into_iter().chain([with_mark.as_str()]);
    let mut rows: Vec<Row> = paths
        .map(|path| {
            row(
                "another path",
                app.caller.call(Method::POST, path).bearer("key_a"),
                404,
                "not_found",
            )
        })
        .collect();
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        rows.push(row("another method", app.caller.call(method, PATH), 405, "method_not_allowed"));
    }
    rows.push(row("both", app.caller.call(Method::GET, "/nowhere"), 404, "not_found"));
    rows
}

fn credentials(app: &App) -> Vec<Row> {
    let missing =
        ["", "Bearer", "Bearer ", "Basic a2V5X2E6", "Token key_a", "Bearerkey_a", "key_a"];
    let mut rows: Vec<Row> = missing
        .into_iter()
        .map(|header| {
            row(
                "no bearer",
                app.webhook("wh_1").header("authorization", header),
                401,
                "missing_credentials",
            )
        })
        .collect();
    rows.push(row(
        "no header",
        app.webhook("wh_1").without("authorization"),
        401,
        "missing_credentials",
    ));

    rows.push(row("unknown key", app.webhook("wh_1").bearer(MARK), 401, "invalid_api_key"));
    rows.push(row("other case", app.webhook("wh_1").bearer("KEY_A"), 401, "invalid_api_key"));
    rows.push(row(
        "two dots, one part empty",
        app.webhook("wh_1").bearer("a..b"),
        401,
        "invalid_api_key",
    ));

    let good = token(&claims("org_a", MARK));
    rows.push(row(
        "broken signature",
        app.webhook("wh_1").bearer(&format!("{good}x")),
        401,
        "invalid_token",
    ));
    rows.push(row(
        "not JSON inside",
        app.webhook("wh_1").bearer("aaaa.bbbb.cccc"),
        401,
        "invalid_token",
    ));
    let mut old = claims("org_a", MARK);
    old["exp"] = json!(now() - 3600);
    rows.push(row("expired", app.webhook("wh_1").bearer(&token(&old)), 401, "expired_token"));
    rows
}

fn media_types(app: &App) -> Vec<Row> {
    let types = [
        "text/plain",
        "text/json",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
        "application/jsonx",
        "application/a+json-seq",
        "image/vnd.a+json",
        "json",
        MARK,
    ];
    let mut rows: Vec<Row> = types
        .into_iter()
        .map(|media| {
            row(
                "media type",
                app.webhook("wh_1").header("content-type", media),
                415,
                "unsupported_media_type",
            )
        })
        .collect();
    for encoding in ["compress", "rot13", "gzip, rot13", MARK] {
        let call = app.webhook("wh_1").header("content-encoding", encoding);
        rows.push(row("content encoding", call, 415, "unsupported_media_type"));
    }
    rows
}

fn sizes(app: &App) -> Vec<Row> {
    let body = |webhook: &str, filler: usize| {
        json!({ "webhookId": webhook, "filler": MARK.repeat(filler) }).to_string()
    };
    vec![
        row("one byte over max_body", app.post(padded(1025)), 413, "payload_too_large"),
        row("far over max_body", app.post(body("wh_1", 1000)), 413, "payload_too_large"),
        row("over max_matches", app.post(body("wh_4", 1)), 413, "fanout_too_large"),
        row("over max_fanout_bytes", app.post(body("wh_3", 80)), 413, "fanout_too_large"),
    ]
}

fn bodies(app: &App) -> Vec<Row> {
    let deep = format!(r#"{{"webhookId":"wh_1","a":{}{}}}"#, "[".repeat(128), "]".repeat(128));
    let not_json: [&[u8]; 17] = [
        b"",
        b" ",
        b"{",
        b"Zq7MarkZq7",
        br#"{"webhookId":"wh_1""#,
        br#"{"webhookId":"wh_1"} Zq7MarkZq7"#,
        br#"{"webhookId":"wh_1"}{}"#,
        br#"{"webhookId":"wh_1",}"#,
        br#"{"webhookId":"wh_1","a":01}"#,
        br#"{"webhookId":"wh_1","a":NaN}"#,
        br#"{"webhookId":"wh_1","a":1.}"#,
        br"{'webhookId':'wh_1'}",
        b"{\"webhookId\":\"wh_1\",\"a\":\"line\nfeed\"}",
        b"{\"webhookId\":\"wh_1\",\"a\":\"\xff\xfe\"}",
        b"\xef\xbb\xbf{\"webhookId\":\"wh_1\"}",
        br#"{"webhookId":"wh_1","a":"\x"}"#,
        deep.as_bytes(),
    ];
    let not_objects =
        ["[]", r#"["webhookId"]"#, r#""Zq7MarkZq7""#, "1", "-0.5e3", "null", " true "];
    let without = [
        "{}".to_owned(),
        r#"{"WebhookId":"wh_1","webhookid":"wh_1","payload":{"webhookId":"wh_1"}}"#.to_owned(),
        r#"{"webhookId":1}"#.to_owned(),
        r#"{"webhookId":null}"#.to_owned(),
        r#"{"webhookId":["wh_1"]}"#.to_owned(),
        r#"{"webhookId":{"a":"Zq7MarkZq7"}}"#.to_owned(),
        r#"{"webhookId":true}"#.to_owned(),
        r#"{"webhookId":""}"#.to_owned(),
        r#"{"webhookId":"wh_1","webhookId":"wh_1"}"#.to_owned(),
        r#"{"webhookId":"wh_1","a":1,"webhook\u0049d":"Zq7MarkZq7"}"#.to_owned(),
        r#"{"webhookId":null,"webhookId":"wh_1"}"#.to_owned(),
        json!({ "webhookId": "w".repeat(257) }).to_string(),
        json!({ "webhookId": "\u{fc}".repeat(129) }).to_string(),
    ];
    let mut rows = Vec::new();
    rows.extend(not_json.map(|body| row("not JSON", app.post(body), 400, "invalid_json")));
    rows.extend(
        not_objects.map(|body| row("not an object", app.post(body), 400, "body_not_object")),
    );
    rows.extend(without.map(|body| row("no webhookId", app.post(body), 400, "missing_webhook_id")));
    rows
}

#[tokio::test]
async fn head_is_refused_without_a_body() {
    let app = App::start().await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send("HEAD /api/webhook/workflow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let reply = connection.head_reply().await.expect("an answer");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    connection
        .send("POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await;
    connection.reply().await.expect("the next answer").assert_rejected(401, "missing_credentials");
}

#[tokio::test]
async fn a_size_over_the_limit_is_told_with_the_limit() {
    let app = small_app().await;
    let reply = app.post(padded(1025)).send().await;
    assert!(figures(&reply).contains(&1024), "{}", reply.text());
    assert_eq!(app.post(padded(1024)).send().await.status, 202, "exactly the limit");

    // Announced, and not even sent.
    let head = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n";
    app.raw(format!("{head}Content-Length: 1025\r\n\r\n"))
        .await
        .assert_rejected(413, "payload_too_large");
    // Not announced.
    let chunk = format!("400\r\n{}\r\n", " ".repeat(1024));
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    app.raw(chunked).await.assert_rejected(413, "payload_too_large");
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_fan_out_over_the_limit_is_told_with_both_figures() {
    let app = small_app().await;
    let reply = app.webhook("wh_4").send().await;
    reply.assert_rejected(413, "fanout_too_large");
    assert!(figures(&reply).contains(&4) && figures(&reply).contains(&3), "{}", reply.text());

    // Three times 683 bytes of payload is one byte over the 2 KiB.
    let body =
        |length: usize| format!(r#"{{"webhookId":"wh_3","a":"{}"}}"#, "x".repeat(length - 8));
    let reply = app.post(body(683)).send().await;
    reply.assert_rejected(413, "fanout_too_large");
    assert!(figures(&reply).contains(&2048) && figures(&reply).contains(&2049), "{}", reply.text());
    assert_eq!(app.post(body(682)).send().await.matched(), 3);
}

#[tokio::test]
async fn the_first_reason_in_the_contracts_order_is_told() {
    let app = small_app().await;
    let too_large = || app.post(format!("[{MARK}{}", " ".repeat(2000)));
    let bad = || too_large().header("content-type", "text/plain");

    app.caller.call(Method::GET, "/nowhere").send().await.assert_rejected(404, "not_found");
    app.caller
        .call(Method::PUT, PATH)
        .body("{")
        .send()
        .await
        .assert_rejected(405, "method_not_allowed");
    bad().without("authorization").send().await.assert_rejected(401, "missing_credentials");
    bad().bearer("unknown").send().await.assert_rejected(401, "invalid_api_key");
    bad().send().await.assert_rejected(415, "unsupported_media_type");
    too_large().send().await.assert_rejected(413, "payload_too_large");
    app.post("[").send().await.assert_rejected(400, "invalid_json");
    app.post("[1]").send().await.assert_rejected(400, "body_not_object");
    app.post(r#"{"webhookId":1}"#).send().await.assert_rejected(400, "missing_webhook_id");
    app.webhook("wh_4").send().await.assert_rejected(413, "fanout_too_large");
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_caller_is_refused_before_the_body_is_asked_for() {
    let app = App::start().await;
    let head = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n";
    app.raw(format!("{head}\r\n")).await.assert_rejected(401, "missing_credentials");
    let expecting = format!("{head}Expect: 100-continue\r\nAuthorization: Bearer unknown\r\n\r\n");
    app.raw(expecting).await.assert_rejected(401, "invalid_api_key");

    let mut connection = Connection::open(app.hookgate.address()).await;
    let head = head.replace("1000", "20");
    connection
        .send(format!("{head}Expect: 100-continue\r\nAuthorization: Bearer key_a\r\n\r\n"))
        .await;
    assert_eq!(connection.reply().await.expect("an interim answer").status, 100);
    connection.send(r#"{"webhookId":"wh_1"}"#).await;
    assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
}

#[tokio::test]
async fn a_body_that_was_refused_unread_is_not_taken_for_the_next_request() {
    let app = App::start().await;
    let inner = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n\
                 Content-Length: 20\r\n\r\n{\"webhookId\":\"wh_1\"}";
    let outer = format!(
        "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}",
        inner.len()
    );
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(&outer).await;
    connection.reply().await.expect("an answer").assert_rejected(404, "not_found");
    connection.finish().await;
    assert_eq!(connection.closed().await, b"", "nothing more is answered");
    app.redis.queue().assert_empty().await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_given_up() {
    let app = App::with(|config| {
        config.set("server.body_timeout", "300ms");
    })
    .await;
    let head = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n";
    for request in [
        format!("{head}Content-Length: 1000\r\n\r\n{{\"webhookId\":"),
        format!("{head}Content-Length: 1000\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\n{{\"web\r\n"),
    ] {
        let reply = app.raw(request).await;
        assert_envelope(&reply, 408, "request_timeout", "slow body");
    }
    app.redis.queue().assert_empty().await;
    app.assert_accounting().await;
}

/// `max_body` 1 KiB, `max_matches` 3, `max_fanout_bytes` 2 KiB; `wh_3` has three workflows, `wh_4` has four.
async fn small_app() -> App {
    let mut documents = Documents::two_organizations();
    for count in [3, 4] {
        let ids = (0..count).map(|serial| format!("wf_{count}_{serial}"));
        documents.workflows.extend(ids.map(|id| workflow(&id, "org_a", &format!("wh_{count}"))));
    }
    let limits = |config: &mut harness::Config| {
        config.set("server.max_body", "1KiB");
        config.set("queue.max_matches", 3).set("queue.max_fanout_bytes", "2KiB");
    };
    App::build().documents(documents).config(limits).start().await
}

/// A good webhook of so many bytes.
fn padded(length: usize) -> String {
    let body = r#"{"webhookId":"wh_1"}"#;
    format!("{body}{}", " ".repeat(length - body.len()))
}

fn row(what: &'static str, call: Call, status: u16, code: &'static str) -> Row {
    Row { what, call, status, code }
}

/// What every error of the contract looks like.
fn assert_envelope(reply: &Reply, status: u16, code: &str, what: &str) {
    let said = format!("{what}: {:?} {}", reply.headers, reply.text());
    assert_eq!((reply.status, reply.code().as_str()), (status, code), "{said}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{said}");
    assert!(!reply.text().contains(MARK), "{said}");

    let body = reply.json();
    let members: Vec<&str> =
        body.as_object().expect("an object").keys().map(String::as_str).collect();
    let known = ["code", "details", "error", "requestId", "retryable", "success"];
    assert!(members.iter().all(|member| known.contains(member)), "{said}");
    assert_eq!(body["success"], false, "{said}");
    assert!(body["error"].as_str().is_some_and(|sentence| sentence.contains(' ')), "{said}");
    assert_eq!(body["retryable"], [408, 429, 500, 503].contains(&status), "{said}");
    assert_eq!(body["requestId"].as_str(), reply.header("x-request-id"), "{said}");
    assert!(body["requestId"].as_str().is_some_and(|id| !id.is_empty()), "{said}");

    assert_eq!(reply.header("www-authenticate"), (status == 401).then_some("Bearer"), "{said}");
    assert_eq!(reply.header("allow"), (status == 405).then_some("POST"), "{said}");
    assert_eq!(reply.header("retry-after").is_some(), status == 503, "{said}");
}

/// Every number in `details`.
fn figures(reply: &Reply) -> BTreeSet<u64> {
    let body = reply.json();
    let details = body["details"].as_object().into_iter().flat_map(|details| details.values());
    details.filter_map(Value::as_u64).collect()
}
