//! Bodies of every kind, as workers get them, and the order of what is checked.

use super::route::{SECRET, app, matched};
use crate::http::compressed::encoders::gzip;
use serde_json::{Value, json};
use testkit::App;
use testkit::deliveries::github_signature;
use testkit::http::Call;

/// A signed delivery with this body and type.
pub(super) fn delivery(app: &App, content_type: Option<&str>, body: &[u8]) -> Call {
    let call = app
        .delivery("org_a", "wh_1", body)
        .header("x-hub-signature-256", github_signature(SECRET, body));
    match content_type {
        Some(content_type) => call.header("content-type", content_type),
        None => call,
    }
}

async fn github() -> App {
    app(&json!({ "scheme": "github", "secret": SECRET })).await
}

#[tokio::test]
async fn every_kind_of_body_becomes_json() {
    let app = github().await;
    let multipart = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b\r\n\
        Content-Disposition: form-data; name=\"f\"; filename=\"x.bin\"\r\nContent-Type: image/png\r\n\r\n\
        \u{1}\u{2}\r\n--b--\r\n";
    let rows: [(Option<&str>, &[u8], Value); 12] = [
        (Some("application/json"), b"[1,2]", json!([1, 2])),
        (Some("application/cloudevents+json"), b"{\"a\":1}", json!({ "a": 1 })),
        (Some("application/json"), b"\"text\"", json!("text")),
        (Some("application/json"), b"null", Value::Null),
        (Some("application/json"), b"", Value::Null),
        (None, b"{\"a\":1}", json!({ "a": 1 })),
        (None, b"plain", json!("plain")),
        (Some("text/plain; charset=utf-8"), "gr\u{fc}n\n".as_bytes(), json!("gr\u{fc}n\n")),
        (Some("application/octet-stream"), b"\xff\x00", json!("/wA=")),
        (
            Some("application/x-www-form-urlencoded"),
            b"a=1&b=x+y&a=2&%C3%BC=",
            json!({ "a": ["1", "2"], "b": "x y", "\u{fc}": "" }),
        ),
        (Some("application/x-www-form-urlencoded"), b"", Value::Null),
        (
            Some("multipart/form-data; boundary=b"),
            multipart.as_bytes(),
            json!({ "a": "1", "f": { "name": "x.bin", "type": "image/png", "base64": "AQI=" } }),
        ),
    ];
    for (content_type, body, expected) in rows {
        let reply = delivery(&app, content_type, body).send().await;
        assert_eq!(matched(&reply, 200), 1, "{content_type:?}");
        let job = app.redis.queue().only_job().await;
        let trigger = &job.data()["trigger"];
        assert_eq!(trigger["payload"], expected, "{content_type:?}");
        assert_eq!(trigger["request"]["contentType"], json!(content_type));
        app.redis.queue().remove_jobs().await;
    }
}

#[tokio::test]
async fn a_compressed_body_is_verified_as_it_came() {
    let app = github().await;
    let body = gzip(b"{\"a\":1}");
    let call = delivery(&app, Some("application/json"), &body).header("content-encoding", "gzip");
    assert_eq!(matched(&call.send().await, 200), 1);
    assert_eq!(app.redis.queue().only_job().await.payload_text(), "{\"a\":1}");
    let decoded = app
        .delivery("org_a", "wh_1", body)
        .header("content-encoding", "gzip")
        .header("x-hub-signature-256", github_signature(SECRET, b"{\"a\":1}"));
    decoded.send().await.assert_rejected(401, "invalid_signature");
}

/// What is in the body is answered only to those who can sign it.
#[tokio::test]
async fn a_body_is_parsed_after_its_verification() {
    let app = github().await;
    let json = Some("application/json");
    delivery(&app, json, b"{").send().await.assert_rejected(400, "invalid_json");
    let unsigned = delivery(&app, json, b"{").without("x-hub-signature-256");
    unsigned.send().await.assert_rejected(401, "invalid_signature");
    let form = Some("multipart/form-data; boundary=b");
    let reply = delivery(&app, form, b"--b\r\n").send().await;
    reply.assert_rejected(400, "invalid_multipart");
    assert_eq!(reply.json()["details"]["fault"], "incomplete");
    let broken = delivery(&app, json, b"no gzip").header("content-encoding", "gzip");
    broken.send().await.assert_rejected(400, "invalid_json");
    let unknown = delivery(&app, json, b"{}").header("content-encoding", "compress");
    unknown.send().await.assert_rejected(415, "unsupported_media_type");
    app.redis.queue().assert_empty().await;
    app.assert_accounting().await;
}
