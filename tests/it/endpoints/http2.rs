//! Deliveries over HTTP/2 with TLS.

use super::route::{BODY, INVALID, SECRET, documents, matched};
use reqwest::Version;
use serde_json::{Value, json};
use testkit::deliveries::{PREFIX, endpoints, github_signature, hex};
use testkit::http::Call;
use testkit::samples::{ed25519, sample_of};
use testkit::tls::Authority;
use testkit::tokens::now;
use testkit::{App, Reply};

async fn start(verification: &Value) -> App {
    let build = App::build().documents(documents(verification)).config(endpoints);
    build.tls(&Authority::new()).start().await
}

async fn over_http2(call: Call) -> Reply {
    let reply = call.send().await;
    assert_eq!(reply.version, Version::HTTP_2);
    reply
}

#[tokio::test]
async fn the_url_that_is_signed_has_the_authority() {
    let app = start(&json!({
        "scheme": "hmac", "secret": SECRET, "signed": "{method} {url} {body}",
        "header": "X-Hub-Signature-256", "prefix": "sha256=",
    }))
    .await;
    let path = format!("{PREFIX}/org_a/wh_1?a=%20b&a=1");
    let signed = |origin: &str| {
        let call = app.caller.call(reqwest::Method::PUT, &path).body(BODY);
        let message = format!("PUT {origin}{path} {BODY}");
        call.header("x-hub-signature-256", github_signature(SECRET, message.as_bytes()))
    };
    let address = app.hookgate.address();
    let own = format!("https://{address}");
    assert_eq!(matched(&over_http2(signed(&own)).await, 200), 1);
    // What a proxy or a stranger says of the host counts for nothing.
    let forwarded = signed(&own).header("x-forwarded-host", "evil.example");
    let forwarded = forwarded.header("x-forwarded-proto", "http");
    assert_eq!(matched(&over_http2(forwarded).await, 200), 1);
    for other in [format!("http://{address}"), "https://evil.example".to_owned()] {
        let call = signed(&other).header("x-forwarded-host", "evil.example");
        over_http2(call).await.assert_rejected(401, INVALID);
    }
    app.redis.queue().waiting_exactly(2).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_field_that_is_there_twice_is_refused() {
    let app = start(&json!({ "scheme": "github", "secret": SECRET })).await;
    let call = || app.github_delivery(SECRET, "d", BODY);
    let signature = github_signature(SECRET, BODY.as_bytes());
    for twice in [
        call().add_header("x-hub-signature-256", signature),
        call().add_header("x-hub-signature-256", github_signature("x", b"")),
        call().add_header("x-github-delivery", "e"),
    ] {
        over_http2(twice).await.assert_rejected(401, INVALID);
        assert_eq!(app.last_refusal("wh_1").await, "repeated");
    }
    assert_eq!(matched(&over_http2(call()).await, 200), 1);
}

/// The PING of an interaction has an answer in its body, and that of an event has none.
#[tokio::test]
async fn discord_gets_an_answer_to_each_of_its_pings() {
    let verification = sample_of("discord").verification(&[0]);
    let plain = super::route::app(&verification).await;
    for app in [start(&verification).await, plain] {
        let signed = |key: u8, body: &str| {
            let time = now().to_string();
            let signature = ed25519(key).sign(format!("{time}{body}").as_bytes());
            let call = app.delivery("org_a", "wh_1", body);
            let call = call.header("content-type", "application/json");
            let call = call.header("x-signature-ed25519", hex(signature));
            call.header("x-signature-timestamp", time)
        };
        let interaction = r#"{"application_id":"1","type":1,"version":1}"#;
        let event = r#"{"version":1,"application_id":"1","type":0}"#;
        let reply = signed(0, interaction).send().await;
        assert_eq!((reply.status, reply.json()), (200, json!({ "type": 1 })));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let reply = signed(0, event).send().await;
        assert_eq!((reply.status, reply.text()), (204, ""));
        // Discord sends wrong signatures on purpose, and gives up an address that accepts them.
        for body in [interaction, event] {
            signed(1, body).send().await.assert_rejected(401, INVALID);
        }
        app.redis.queue().assert_empty().await;
        let delivered = r#"{"version":1,"type":1,"event":{"type":"ENTITLEMENT_CREATE"}}"#;
        assert_eq!(matched(&signed(0, delivered).send().await, 200), 1);
        app.redis.queue().only_job().await;
        app.assert_accounting().await;
    }
}

#[tokio::test]
async fn a_token_in_a_field_of_its_own_reaches_no_job() {
    let sample = sample_of("monday");
    let verification = json!({
        "scheme": "jwt", "header": "X-Request-Token", "prefix": "Token ", "secret": sample.key(0),
    });
    let build = App::build().documents(documents(&verification)).config(endpoints);
    let authority = Authority::new();
    let build = build.tls(&authority).config(|config| {
        config.set("queue.forward_headers", vec!["X-Request-Token", "X-Event"]);
    });
    let app = build.start().await;
    let token = sample.jwt("HS256", 0, &json!({ "exp": now() + 60 }).to_string());
    testkit::confidential::credential(&token);
    let call = app.delivery("org_a", "wh_1", BODY).header("x-event", "push");
    let call = call.header("x-request-token", format!("Token {token}"));
    assert_eq!(matched(&over_http2(call).await, 200), 1);
    let data = app.redis.queue().only_job().await.data();
    assert_eq!(data["trigger"]["request"]["headers"], json!({ "x-event": "push" }));
    assert!(!data.to_string().contains(&token));
    app.assert_shows_none_of(&[token, sample.key(0)], &["wh_1"]).await;
}
