//! Placeholders of the request: the body in all its forms, and the head.

use super::{app_with, raw, set_template};
use serde_json::{Value, json};
use std::net::SocketAddr;
use testkit::{App, Caller, Documents};

const BODIES: &str = r#"
    payload = "{payload}"
    body = "{body}"
    raw = "{rawBody}"
    encoding = "{rawBodyEncoding}"
    text = "{rawBodyEncoding}: {rawBody}"
"#;

#[tokio::test]
async fn a_body_is_forwarded_verbatim_and_as_a_string() {
    let app = app_with(Documents::two_organizations(), BODIES).await;
    let bodies = [
        " {\r\n\t\"webhookId\" : \"wh_1\",\"a\":\"\\\"\\\\\u{fc}\u{2028}\u{7f}\\u0000\"} \n",
        r#"{"webhookId":"wh_1"}"#,
        r#"{"a":[1.0e2, 1e400],"webhookId":"wh_1","s":"\ud800"}"#,
    ];
    for body in bodies {
        assert_eq!(app.post(body).send().await.matched(), 1);
    }
    for (job, body) in app.redis.queue().waiting().await.iter().zip(bodies) {
        // With the white space around it.
        let data = job.data_text();
        let verbatim = [',', '}'].map(|next| format!("\"body\":{body}{next}"));
        assert!(verbatim.iter().any(|member| data.contains(member)), "{body}: {data}");
        assert_eq!(raw(job, &["body"]), body.trim());
        let string = |name: &str| serde_json::from_str::<String>(&raw(job, &[name])).unwrap();
        assert_eq!(string("raw"), body);
        assert_eq!(string("encoding"), "utf8");
        assert_eq!(string("text"), format!("utf8: {body}"));
    }
}

#[tokio::test]
async fn a_compressed_body_is_forwarded_as_it_was_before() {
    let app = app_with(Documents::two_organizations(), BODIES).await;
    let body = r#"{"webhookId":"wh_1", "a": "x"}"#;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, body.as_bytes()).unwrap();
    let compressed = encoder.finish().unwrap();
    let call = app.post(compressed).header("content-encoding", "gzip");
    assert_eq!(call.send().await.matched(), 1);
    let data = app.redis.queue().only_job().await.data();
    assert_eq!(data["raw"], body);
    assert_eq!(data["body"], json!({ "webhookId": "wh_1", "a": "x" }));
    assert_eq!(data["payload"], json!({ "a": "x" }));
}

const HEADS: &str = r#"
    method = "{method}"
    path = "{path}"
    type = "{contentType}"
    address = "{clientAddress}"
    query = "{query}"
    headers = "{headers}"
    line = "{method} {path} {contentType}<{clientAddress}>"
    received = ["{receivedAt}", "{receivedAtIso}", "{receivedAt} {receivedAtIso}"]
    request = "{requestId}"
    ids = ["{workflowId}", "{organizationId}", "{userId}", "{webhookId}", "{nodeId}", "{nodeIds}", "{nodeType}"]
    missing = ["{workflow.missing}", "{node.data.missing}", "({workflow.missing})"]
"#;

async fn app_with_headers(names: &[&str]) -> App {
    let build = App::build().config(|config| {
        set_template(config, HEADS);
        config.set("queue.forward_headers", names.to_vec());
    });
    build.start().await
}

/// Sends a webhook over a plain socket, and returns the data of its job.
async fn data_of(app: &App, target: &str, headers: &[u8]) -> Value {
    let token = testkit::tokens::token(&testkit::tokens::claims("org_a", "user_1"));
    let body = r#"{"webhookId":"wh_1"}"#;
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n",
        body.len()
    );
    let request = [head.as_bytes(), headers, b"\r\n", body.as_bytes()].concat();
    assert_eq!(app.raw(request).await.matched(), 1);
    app.redis.queue().waiting().await.pop().expect("a job").data()
}

#[tokio::test]
async fn the_head_of_a_request_is_forwarded() {
    let app = app_with_headers(&["X-Event", "x-other", "X-EVENT", "content-type"]).await;
    let headers = b"Content-Type: application/json; charset=\"utf-8\"\r\nx-event: a \"b\"\r\n\
        X-Request-Id: r1\r\nX-Event: caf\xe9\r\nX-Event: caf\xc3\xa9\r\nX-Secret: no\r\n";
    let target = "/api/webhook/workflow?a=1&b=%22%C3%BC+x&a=2&c&=d&a=";
    let data = data_of(&app, target, headers).await;
    let kind = "application/json; charset=\"utf-8\"";
    assert_eq!(data["method"], "POST");
    assert_eq!(data["path"], "/api/webhook/workflow");
    assert_eq!(data["type"], kind);
    assert_eq!(data["address"], "127.0.0.1");
    let query = json!({ "a": ["1", "2", ""], "b": "\"ü x", "c": "", "": "d" });
    assert_eq!(data["query"], query);
    let expected = json!({ "x-event": "a \"b\", café, café", "content-type": kind });
    assert_eq!(data["headers"], expected);
    assert_eq!(data["line"], format!("POST /api/webhook/workflow {kind}<127.0.0.1>"));
    assert_eq!(data["request"], "r1");
    let ids = json!(["wf_1", "org_a", "user_1", "wh_1", "n1", ["n1"], "WebhookTrigger"]);
    assert_eq!(data["ids"], ids);
    assert_eq!(data["missing"], json!([null, null, "()"]));
    let time = data["received"][0].as_u64().expect("milliseconds");
    let iso = data["received"][1].as_str().expect("a string");
    let parsed = humantime_milliseconds(iso);
    assert_eq!(parsed, time, "{iso}");
    assert_eq!(data["received"][2], format!("{time} {iso}"));
}

/// Milliseconds since 1970 of a time such as `2026-11-23T21:49:34.005Z`.
fn humantime_milliseconds(iso: &str) -> u64 {
    let is_shaped = iso.len() == 24 && iso.ends_with('Z') && &iso[19..20] == ".";
    assert!(is_shaped, "{iso}");
    let time = bson::DateTime::parse_rfc3339_str(iso).expect("RFC 3339");
    u64::try_from(time.timestamp_millis()).expect("after 1970")
}

/// A caller over IPv4 has the same address on a socket for both versions of IP.
#[tokio::test]
async fn an_address_of_ipv4_is_written_as_such() {
    let build = App::build().config(|config| {
        set_template(config, "address = \"{clientAddress}\"\nflow = \"{workflowId}\"");
        let address = config.text("server.listen").replace("127.0.0.1", "[::]");
        config.set("server.listen", address);
    });
    let app = build.start().await;
    let port = app.hookgate.address().port();
    for (address, expected) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let address = SocketAddr::new(address.parse().expect("an address"), port);
        let reply = Caller::new(address).webhook("wh_1").send().await;
        assert_eq!(reply.matched(), 1);
        let job = app.redis.queue().waiting().await.pop().expect("a job");
        assert_eq!(job.at("/address"), expected);
    }
}

#[tokio::test]
async fn what_a_head_lacks_is_null_or_empty() {
    let app = app_with_headers(&["x-event"]).await;
    for target in ["/api/webhook/workflow", "/api/webhook/workflow?"] {
        let data = data_of(&app, target, b"").await;
        assert_eq!(data["type"], Value::Null);
        assert_eq!((&data["query"], &data["headers"]), (&json!({}), &json!({})));
        assert_eq!(data["line"], "POST /api/webhook/workflow <127.0.0.1>");
    }
    let app = app_with_headers(&[]).await;
    assert_eq!(
        data_of(&app, "/api/webhook/workflow", b"x-event: 1\r\n").await["headers"],
        json!({})
    );
}
