//! Which refusal comes first: the order in which a delivery is checked.

use super::limits::{assert_limited, from, start, wrong};
use super::route::{BODY, INVALID, SECRET};
use reqwest::Method;
use serde_json::json;
use testkit::deliveries::{PREFIX, endpoints, github_signature, hmac_sha256, verified_trigger};
use testkit::documents::workflow_of;
use testkit::http::Call;
use testkit::tokens::now;
use testkit::wait::until;
use testkit::{App, Documents};

const OVER_LIMIT: &str = "203.0.113.7";
const OTHER: &str = "203.0.113.8";

/// A request from a client to a path of an endpoint.
fn call(app: &App, client: &str, method: Method, path: &str) -> Call {
    from(client, app.caller.call(method, &format!("{PREFIX}/{path}")))
}

/// The head of a delivery whose body is announced, but never sent.
async fn announced(app: &App, client: &str, webhook: &str, fields: &str) -> testkit::Reply {
    let head = format!(
        "POST {PREFIX}/org_a/{webhook} HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {client}\r\n\
         {fields}\r\n\r\n"
    );
    app.raw(head).await
}

const TOO_LARGE: &str = "Content-Length: 1000000000";
const UNSUPPORTED: &str = "Content-Encoding: compress\r\nContent-Length: 5";

#[tokio::test]
async fn the_path_comes_before_the_limit_of_failures() {
    let app = start(|_| ()).await;
    for _ in 0..5 {
        wrong(&app, OVER_LIMIT).send().await.assert_rejected(401, INVALID);
    }
    assert_limited(&wrong(&app, OVER_LIMIT).send().await);
    let delivered = call(&app, OVER_LIMIT, Method::POST, "org_a/wh_1/x");
    delivered.send().await.assert_rejected(404, "not_found");
    for webhook in ["wh_1", "unknown"] {
        let traced = call(&app, OVER_LIMIT, Method::TRACE, &format!("org_a/{webhook}"));
        traced.send().await.assert_rejected(405, "method_not_allowed");
    }
    // An unknown address, too.
    let unknown = call(&app, OVER_LIMIT, Method::POST, "org_a/unknown").body(BODY);
    unknown.send().await.assert_rejected(404, "unknown_webhook");
}

#[tokio::test]
async fn the_limit_of_failures_comes_before_the_head_of_the_body() {
    let app = start(|_| ()).await;
    for _ in 0..5 {
        wrong(&app, OVER_LIMIT).send().await.assert_rejected(401, INVALID);
    }
    for fields in [TOO_LARGE, UNSUPPORTED] {
        assert_limited(&announced(&app, OVER_LIMIT, "wh_1", fields).await);
        let unknown = announced(&app, OTHER, "unknown", fields).await;
        unknown.assert_rejected(404, "unknown_webhook");
    }
    let refused = announced(&app, OTHER, "wh_1", TOO_LARGE).await;
    refused.assert_rejected(413, "payload_too_large");
    let refused = announced(&app, OTHER, "wh_1", UNSUPPORTED).await;
    refused.assert_rejected(415, "unsupported_media_type");
    // None of these was a failure of the client.
    let right = from(OTHER, app.github_delivery(SECRET, "d", BODY));
    assert_eq!(right.send().await.status, 200);
    app.assert_accounting().await;
}

/// Only an answer to a right signature says what is wrong with the body.
#[tokio::test]
async fn the_verification_comes_before_the_contents_of_the_body() {
    let app = start(|_| ()).await;
    let rows: [(&str, &str, &[u8], &str); 4] = [
        ("content-type", "application/json", b"{", "invalid_json"),
        ("content-type", "application/json", b"\"\xff\"", "invalid_json"),
        ("content-encoding", "gzip", b"no gzip", "invalid_json"),
        ("content-type", "multipart/form-data; boundary=b", b"--b\r\n", "invalid_multipart"),
    ];
    for (name, value, body, code) in rows {
        let call = || {
            let call = app.delivery("org_a", "wh_1", body).header(name, value);
            from(OTHER, call).header("x-hub-signature-256", github_signature(SECRET, body))
        };
        call().send().await.assert_rejected(400, code);
        let unsigned = call().header("x-hub-signature-256", github_signature("x", body));
        unsigned.send().await.assert_rejected(401, INVALID);
    }
    app.redis.queue().assert_empty().await;
}

/// A provider that cannot confirm an address switches it off, so a busy organization must not
/// prevent it.
#[tokio::test]
async fn a_handshake_comes_before_the_rate_of_the_organization() {
    let mut documents = Documents::two_organizations();
    let schemes = ["github", "slack", "dropbox"];
    documents.workflows = schemes.map(workflow).to_vec();
    let build = App::build().documents(documents).config(endpoints).config(|config| {
        config.set("limits.organization.requests_per_second", 1);
    });
    let app = build.start().await;
    let is_over = async || {
        let call = app.delivery("org_a", "github", BODY);
        let signature = github_signature(SECRET, BODY.as_bytes());
        let reply = call.header("x-hub-signature-256", signature).send().await;
        if reply.status != 200 {
            reply.assert_rejected(429, "rate_limited");
        }
        reply.status == 429
    };
    until("handshakes are answered while the organization is over its rate", async || {
        let before = is_over().await;
        assert_handshakes(&app).await;
        before && is_over().await
    })
    .await;
    app.assert_accounting().await;
}

/// A workflow with an address of the name of its scheme.
fn workflow(scheme: &str) -> serde_json::Value {
    let verification = json!({ "scheme": scheme, "secret": SECRET });
    workflow_of(scheme, "org_a", json!([verified_trigger("n1", scheme, &verification)]))
}

async fn assert_handshakes(app: &App) {
    let get = app.caller.call(Method::GET, &format!("{PREFIX}/org_a/dropbox?challenge=abc"));
    let unsigned = get.send().await;
    assert_eq!((unsigned.status, unsigned.text()), (200, "abc"));
    let (body, time) = (r#"{"type":"url_verification","challenge":"3eZ"}"#, now());
    let signature = hmac_sha256(SECRET, format!("v0:{time}:{body}").as_bytes());
    let signed = app.delivery("org_a", "slack", body);
    let signed = signed.header("x-slack-request-timestamp", time.to_string());
    let signed = signed.header("x-slack-signature", format!("v0={signature}")).send().await;
    assert_eq!((signed.status, signed.text().contains("3eZ")), (200, true));
}
