//! The log lines of refused credentials: one line with the request's id and the reason, and nothing
//! of the credential.

use super::{changed, merged, with_exp};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use testkit::documents::user;
use testkit::keys::hmac;
use testkit::tokens::{claims, forge, now, sign_with_id};
use testkit::wait::until_some;
use testkit::{App, Documents};

#[tokio::test]
async fn every_refused_credential_is_logged_with_its_request_id() {
    let mut documents = Documents::two_organizations();
    documents.users.push(merged(&user("off", "org_a", "key_off"), &json!({ "enabled": false })));
    let app = App::build().documents(documents).config(|config| {
        config.set("telemetry.log", "info,hookgate::auth=debug").set("telemetry.format", "json");
        config.set("auth.jwt.issuer", "https://id");
    });
    let app = app.start().await;
    let other = hmac("a-secret-that-is-not-of-this-service-0123456789");
    let bearer = |credential: String| format!("Bearer {credential}");
    let good = json!({ "iss": "https://id" });
    let of = |change: Value| bearer(changed(&merged(&good, &change)));
    let with_header = |header: Value| bearer(forge(&header, &claims("org_a", "u"), b"x"));
    let rows = [
        ("Basic a2V5OnNlY3JldA==".to_owned(), "no bearer credential"),
        (bearer("not-a-known-key-0001".to_owned()), "not the key"),
        (bearer("prefix-1.id-1.secret-1".to_owned()), "not the key"),
        (bearer("key_off".to_owned()), "switched off"),
        (with_header(json!({ "alg": "none" })), "alg is not a supported"),
        (with_header(json!({ "alg": "RS256" })), "auth.jwt.algorithms"),
        (with_header(json!({ "alg": "HS256", "crit": ["exp"] })), "crit"),
        (with_header(json!({ "alg": "HS256", "kid": 1 })), "kid"),
        (with_header(json!({ "alg": "HS256" })), "signature"),
        (bearer(forge(&json!({ "alg": "HS256" }), &json!("no claims"), b"x")), "signature"),
        (
            bearer(sign_with_id(&claims("org_a", "u"), Algorithm::HS256, &other, "an-id")),
            "signature",
        ),
        (of(json!({ "exp": now() - 3600 })), "exp has passed"),
        (of(json!({ "nbf": now() + 3600 })), "nbf is in the future"),
        (of(json!({ "exp": "soon" })), "exp is missing"),
        (of(json!({ "iss": "https://other" })), "iss"),
        (of(json!({ "sub": true })), "user_claims"),
        (of(json!({ "organizationId": true })), "organization_claim"),
        (of(json!({ "sub": "off" })), "switched off"),
        (bearer(with_exp(&merged(&good, &json!({ "sub": "stranger" })))), "user is unknown"),
    ];
    for (serial, (authorization, reason)) in rows.into_iter().enumerate() {
        let id = format!("request-{serial}");
        let call = app.webhook("wh_1").header("authorization", &authorization);
        let reply = call.header("x-request-id", &id).send().await;
        assert_eq!(reply.status, 401, "{reason}: {}", reply.text());
        assert_logged(&app, &id, reason).await;
        let credential = authorization.split(' ').next_back().expect("a credential");
        assert!(!app.hookgate.log().contains(credential), "{reason}");
    }
    let call = app.webhook("wh_1").without("authorization").header("x-request-id", "none");
    assert_eq!(call.send().await.status, 401);
    assert_logged(&app, "none", "no Authorization").await;
    // An accepted credential has no line.
    let good = app.webhook("wh_1").header("x-request-id", "accepted").send().await;
    assert_eq!(good.matched(), 1);
    assert!(!app.hookgate.log().contains("\"accepted\""));
}

async fn assert_logged(app: &App, id: &str, reason: &str) {
    let line = until_some("the refusal is in the log", async || {
        let log = app.hookgate.log();
        log.lines().find(|line| line.contains(&format!("\"{id}\""))).map(str::to_owned)
    })
    .await;
    let line: Value = serde_json::from_str(&line).expect("JSON");
    let says = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
    assert_eq!(["target", "level", "request_id"].map(says), ["hookgate::auth", "DEBUG", id]);
    assert!(says("reason").contains(reason), "{reason}: {line}");
    let log = app.hookgate.log();
    assert_eq!(log.lines().filter(|line| line.contains(&format!("\"{id}\""))).count(), 1, "{id}");
}
