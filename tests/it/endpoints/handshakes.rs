//! Handshakes: a provider asks whether an address is meant to receive. They start no job.

use super::node;
use super::route::app;
use serde_json::{Value, json};
use testkit::deliveries::hmac_sha256;
use testkit::documents::workflow_of;
use testkit::tokens::now;
use testkit::{App, Documents, Reply};

const SECRET: &str = "secret-of-a-handshake-0123456789";
const PATH: &str = "/api/webhook/in/org_a/wh_1";

fn hex(message: &str) -> String {
    hmac_sha256(SECRET, message.as_bytes())
}

async fn get(app: &App, query: &str) -> Reply {
    app.caller.call(reqwest::Method::GET, &format!("{PATH}?{query}")).send().await
}

#[track_caller]
fn assert_text(reply: &Reply, text: &str) {
    assert_eq!((reply.status, reply.text()), (200, text));
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn slack_gets_its_challenge_after_a_right_signature() {
    let app = app(&json!({ "scheme": "slack", "secret": SECRET })).await;
    let body = r#"{"type":"url_verification","challenge":"3eZbrw1aB"}"#;
    let time = now().to_string();
    let call = |signature: String| {
        let call = app.delivery("org_a", "wh_1", body).header("content-type", "application/json");
        call.header("x-slack-request-timestamp", &time).header("x-slack-signature", signature)
    };
    let signed = call(format!("v0={}", hex(&format!("v0:{time}:{body}")))).send().await;
    assert_eq!(signed.status, 200);
    assert!(signed.text().contains("3eZbrw1aB"), "{}", signed.text());
    let unsigned = call(format!("v0={}", hex("another"))).send().await;
    unsigned.assert_rejected(401, "invalid_signature");
    app.redis.queue().assert_empty().await;
    let handshakes = app.hookgate.metrics().await;
    let handshakes = handshakes.value("hookgate_requests_total", &[("code", "handshake")]);
    assert_eq!(handshakes.to_string(), "1");
    app.assert_accounting().await;
}

#[tokio::test]
async fn zoom_gets_an_hmac_of_its_token_only() {
    let app = app(&json!({ "scheme": "zoom", "secret": SECRET })).await;
    let send = async |token: &str| {
        let body =
            json!({ "event": "endpoint.url_validation", "payload": { "plainToken": token } });
        let (body, time) = (body.to_string(), now().to_string());
        let signature = format!("v0={}", hex(&format!("v0:{time}:{body}")));
        let call = app.delivery("org_a", "wh_1", body).header("content-type", "application/json");
        let call = call.header("x-zm-request-timestamp", time).header("x-zm-signature", signature);
        call.send().await
    };
    let reply = send("qgg8vlvZRS6UYooatFL8Aw").await;
    let expected = json!({
        "plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": hex("qgg8vlvZRS6UYooatFL8Aw"),
    });
    assert_eq!((reply.status, reply.json()), (200, expected));
    // A token that could be a signed message gets no HMAC: it is a delivery like any other.
    let message = send("v0:1:{}").await;
    assert!(!message.text().contains(&hex("v0:1:{}")), "{}", message.text());
}

#[tokio::test]
async fn meta_gets_its_challenge_for_the_token() {
    let verification =
        json!({ "scheme": "meta", "secret": SECRET, "verifyToken": "a-token-of-meta" });
    let app = app(&verification).await;
    let query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=";
    assert_text(&get(&app, &format!("{query}a-token-of-meta")).await, "1158201444");
    for token in ["another", ""] {
        get(&app, &format!("{query}{token}")).await.assert_rejected(401, "invalid_signature");
    }
    app.redis.queue().assert_empty().await;
}

#[tokio::test]
async fn each_of_two_nodes_has_its_token() {
    let meta = |token: &str| json!({ "scheme": "meta", "secret": SECRET, "verifyToken": token });
    let nodes = json!([node("n1", "wh_1", &meta("token-1")), node("n2", "wh_1", &meta("token-2"))]);
    let documents =
        Documents { workflows: vec![workflow_of("wf_1", "org_a", nodes)], users: Vec::new() };
    let app = App::build().documents(documents).config(|config| {
        config.set("endpoints.enabled", true);
    });
    let app = app.start().await;
    let query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=";
    for token in ["token-1", "token-2"] {
        assert_text(&get(&app, &format!("{query}{token}")).await, "1158201444");
    }
    assert_eq!(get(&app, &format!("{query}token-3")).await.status, 401);
    app.redis.queue().assert_empty().await;
}

#[tokio::test]
async fn unsigned_handshakes_echo_what_is_harmless() {
    let dropbox = app(&json!({ "scheme": "dropbox", "secret": SECRET })).await;
    assert_text(&get(&dropbox, "challenge=abc123").await, "abc123");
    for challenge in ["a%0D%0Ab".to_owned(), "x".repeat(513)] {
        let reply = get(&dropbox, &format!("challenge={challenge}")).await;
        reply.assert_rejected(401, "invalid_signature");
    }
    let graph = app(&json!({ "scheme": "microsoft-graph", "secret": SECRET })).await;
    let path = format!("{PATH}?validationToken=Validation%3A+Testing+client");
    let reply = graph.caller.call(reqwest::Method::POST, &path).send().await;
    assert_text(&reply, "Validation: Testing client");
    let monday = app(&json!({ "scheme": "monday", "secret": SECRET })).await;
    let body = r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV"}"#;
    let call = monday.delivery("org_a", "wh_1", body).header("content-type", "application/json");
    let reply = call.send().await;
    let expected: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((reply.status, reply.json()), (200, expected));
    for app in [dropbox, graph, monday] {
        app.redis.queue().assert_empty().await;
    }
}
