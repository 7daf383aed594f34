//! The contract's table of errors for bad requests, row by row, for any transport.

use reqwest::Method;
use serde_json::json;

use super::app::Builder;
use super::documents::workflow;
use super::http::{Call, PATH, Reply};
use super::tokens::{claims, now, token};
use super::{App, Config, Documents};

/// A string in many requests of the table that must not appear in any answer or log line.
pub const MARK: &str = "Zq7MarkZq7";

/// A request, and how it is refused.
#[derive(Debug)]
pub struct Row {
    pub what: &'static str,
    pub call: Call,
    pub status: u16,
    pub code: &'static str,
}

/// Requests to [`small_app`] that are refused before anything is enqueued.
pub fn rows(app: &App) -> Vec<Row> {
    let rows =
        [routes(app), credentials(app), media_types(app), sizes(app), bodies(app), keys(app)];
    rows.into_iter().flatten().collect()
}

fn routes(app: &App) -> Vec<Row> {
    let paths = [
        "/",
        // A path has one spelling, so that what a proxy allows by path is what is served.
        "/api/webhook/work%66low",
        "/api/webhook//workflow",
        "/api/webhook/workflow;a=b",
        "/api%2Fwebhook/workflow",
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
    let invented = Method::from_bytes(b"WEBHOOK").expect("a token");
    let lower_case = Method::from_bytes(b"post").expect("a token");
    let methods = [Method::GET, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    for method in methods.into_iter().chain([Method::TRACE, invented, lower_case]) {
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
        "three parts of which only the first is valid",
        app.webhook("wh_1").bearer("eyJhbGciOiJIUzI1NiJ9.e30.AAAA"),
        401,
        "invalid_token",
    ));
    let mut old = claims("org_a", MARK);
    old["exp"] = json!(now() - 3600);
    rows.push(row("expired", app.webhook("wh_1").bearer(&token(&old)), 401, "expired_token"));
    rows
}

fn keys(app: &App) -> Vec<Row> {
    let with = |key: &str| app.webhook("wh_1").header("idempotency-key", key);
    let used = app.post(format!(r#"{{"webhookId":"wh_1","a":"{MARK}"}}"#));
    vec![
        row("an empty key", with(""), 400, "invalid_idempotency_key"),
        row("a long key", with(&MARK.repeat(30)), 400, "invalid_idempotency_key"),
        row("a used key", used.header("idempotency-key", "used"), 422, "idempotency_key_reused"),
    ]
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

/// An app with `max_body` 1 KiB, `max_matches` 3 and `max_fanout_bytes` 2 KiB. `wh_3` has three
/// workflows, `wh_4` has four. The idempotency key `used` is already used.
pub async fn small_app() -> App {
    small_app_from(App::build()).await
}

/// Like [`small_app`], from another builder.
pub async fn small_app_from(build: Builder) -> App {
    let mut documents = Documents::two_organizations();
    for count in [3, 4] {
        let ids = (0..count).map(|serial| format!("wf_{count}_{serial}"));
        documents.workflows.extend(ids.map(|id| workflow(&id, "org_a", &format!("wh_{count}"))));
    }
    let limits = |config: &mut Config| {
        config.set("server.max_body", "1KiB");
        config.set("queue.max_matches", 3).set("queue.max_fanout_bytes", "2KiB");
    };
    let app = build.documents(documents).config(limits).start().await;
    let first = app.webhook("wh_1").header("idempotency-key", "used").send().await;
    assert_eq!(first.matched(), 1);
    app.redis.queue().remove_jobs().await;
    app
}

/// A valid webhook of `length` bytes.
pub fn padded(length: usize) -> String {
    let body = r#"{"webhookId":"wh_1"}"#;
    format!("{body}{}", " ".repeat(length - body.len()))
}

fn row(what: &'static str, call: Call, status: u16, code: &'static str) -> Row {
    Row { what, call, status, code }
}

/// Asserts the shape of every error of the contract.
pub fn assert_envelope(reply: &Reply, status: u16, code: &str, what: &str) {
    let answer = format!("{what}: {:?} {}", reply.headers, reply.text());
    assert_eq!((reply.status, reply.code().as_str()), (status, code), "{answer}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{answer}");
    assert!(!reply.text().contains(MARK), "{answer}");

    let body = reply.json();
    let members: Vec<&str> =
        body.as_object().expect("an object").keys().map(String::as_str).collect();
    let known = ["code", "details", "error", "requestId", "retryable", "success"];
    assert!(members.iter().all(|member| known.contains(member)), "{answer}");
    assert_eq!(body["success"], false, "{answer}");
    assert!(body["error"].as_str().is_some_and(|sentence| sentence.contains(' ')), "{answer}");
    assert_eq!(body["retryable"], [408, 429, 500, 503].contains(&status), "{answer}");
    assert_eq!(body["requestId"].as_str(), reply.header("x-request-id"), "{answer}");
    assert!(body["requestId"].as_str().is_some_and(|id| !id.is_empty()), "{answer}");

    assert_eq!(reply.header("www-authenticate"), (status == 401).then_some("Bearer"), "{answer}");
    assert_eq!(reply.header("allow"), (status == 405).then_some("POST"), "{answer}");
    assert_eq!(reply.header("retry-after").is_some(), status == 503, "{answer}");
}
