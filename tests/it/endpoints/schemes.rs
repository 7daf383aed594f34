//! Schemes over real requests: what accepts, what does not, and what of it reaches a job.

use super::route::{BODY, app, documents, matched};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::App;
use testkit::deliveries::{endpoints, github_signature, verified_trigger};
use testkit::documents::workflow_of;
use testkit::http::Call;
use testkit::wait::until;

const FIRST: &str = "the-first-secret-of-two-0123456789";
const SECOND: &str = "the-second-secret-of-two-0123456789";

fn post(app: &App) -> Call {
    app.delivery("org_a", "wh_1", BODY).header("content-type", "application/json")
}

#[tokio::test]
async fn each_of_two_secrets_accepts() {
    let app = app(&json!({ "scheme": "github", "secrets": [FIRST, SECOND] })).await;
    for (number, secret) in [FIRST, SECOND].into_iter().enumerate() {
        let reply = app.github_delivery(secret, &format!("d-{number}"), BODY).send().await;
        assert_eq!(matched(&reply, 200), 1);
    }
    let reply = app.github_delivery("the-third-secret-0123456789", "d", BODY).send().await;
    reply.assert_rejected(401, "invalid_signature");
}

#[tokio::test]
async fn a_field_that_is_there_twice_is_refused() {
    let app = app(&json!({ "scheme": "github", "secret": FIRST })).await;
    let signature = github_signature(FIRST, BODY.as_bytes());
    let head = format!(
        "POST /api/webhook/in/org_a/wh_1 HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n\
         X-Hub-Signature-256: {signature}\r\nX-Hub-Signature-256: {signature}\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    app.raw(head).await.assert_rejected(401, "invalid_signature");
    assert!(app.hookgate.log().contains("github repeated: x-hub-signature-256"));
}

#[tokio::test]
async fn a_secret_in_a_field_or_in_the_query_reaches_no_job() {
    let build = App::build().documents(documents(
        &json!({ "scheme": "header", "name": "X-Hook-Secret", "secret": FIRST }),
    ));
    let app = build.config(endpoints).config(|config| {
        config.set("queue.forward_headers", vec!["X-Hook-Secret", "X-Event"]);
    });
    let app = app.start().await;
    let call = post(&app).header("x-hook-secret", FIRST).header("x-event", "push");
    assert_eq!(matched(&call.send().await, 200), 1);
    let job = app.redis.queue().only_job().await;
    assert_eq!(job.data()["trigger"]["request"]["headers"], json!({ "x-event": "push" }));
    assert!(!job.data().to_string().contains(FIRST));

    let app = self::app(&json!({ "scheme": "query", "name": "key", "secret": FIRST })).await;
    let path = format!("/api/webhook/in/org_a/wh_1?a=1&key={FIRST}&b=2");
    let reply = app.caller.call(Method::GET, &path).send().await;
    assert_eq!(matched(&reply, 200), 1);
    let job = app.redis.queue().only_job().await;
    assert_eq!(job.data()["trigger"]["request"]["query"], json!({ "a": "1", "b": "2" }));
    assert!(!job.data().to_string().contains(FIRST));
    assert!(!app.hookgate.log().contains(FIRST));
}

#[tokio::test]
async fn basic_credentials_are_compared() {
    let app =
        app(&json!({ "scheme": "basic", "user": "hook", "secret": "a-password-0123456789" })).await;
    let right = post(&app).header("authorization", "Basic aG9vazphLXBhc3N3b3JkLTAxMjM0NTY3ODk=");
    assert_eq!(matched(&right.send().await, 200), 1);
    let wrong = post(&app).header("authorization", "Basic aG9vazphbm90aGVy");
    wrong.send().await.assert_rejected(401, "invalid_signature");
}

#[tokio::test]
async fn only_allowed_addresses_reach_a_trigger() {
    for (networks, accepts) in [
        (json!(["127.0.0.0/8"]), true),
        (json!(["::1", "127.0.0.1"]), true),
        (json!(["203.0.113.0/24", "2001:db8::/32"]), false),
    ] {
        let app = app(&json!({ "scheme": "none", "allowedAddresses": networks })).await;
        let reply = post(&app).send().await;
        assert_eq!(reply.status, if accepts { 200 } else { 401 }, "{networks}");
        // A forwarded address of a peer that is not trusted counts for nothing.
        let forwarded = post(&app).header("x-forwarded-for", "203.0.113.1").send().await;
        assert_eq!(forwarded.status, reply.status, "{networks}");
    }
}

#[tokio::test]
async fn a_url_is_signed_as_its_sender_sees_it() {
    let verification = json!({
        "scheme": "hmac", "secret": FIRST, "algorithm": "sha256", "encoding": "hex",
        "signed": "{method} {url} {body}", "header": "X-Signature", "prefix": "sha256=",
    });
    let build = App::build().documents(documents(&verification)).config(endpoints);
    let app = build.config(|config| {
        config.set("endpoints.public_url", "https://hooks.example.com");
    });
    let app = app.start().await;
    let path = "/api/webhook/in/org_a/wh_1?a=%20b";
    let message = format!("POST https://hooks.example.com{path} {BODY}");
    let call = app.caller.call(Method::POST, path).body(BODY);
    let call = call.header("x-forwarded-host", "evil.example").header("content-type", "text/plain");
    let reply =
        call.header("x-signature", github_signature(FIRST, message.as_bytes())).send().await;
    assert_eq!(matched(&reply, 200), 1);
}

#[tokio::test]
async fn a_node_that_loses_its_verification_is_not_started_any_more() {
    let verification = json!({ "scheme": "github", "secret": FIRST });
    let app = app(&verification).await;
    assert_eq!(matched(&app.github_delivery(FIRST, "1", BODY).send().await, 200), 1);
    let mut documents = documents(&verification);
    let mut replace = |verification: Value| {
        let nodes = json!([verified_trigger("n1", "wh_1", &verification)]);
        documents.workflows[0] = workflow_of("wf_1", "org_a", nodes);
        app.replace_documents(&documents);
    };
    replace(json!({ "scheme": "github", "secret": SECOND }));
    until("the old secret is refused", async || {
        app.github_delivery(FIRST, "1", BODY).send().await.status == 401
    })
    .await;
    assert_eq!(matched(&app.github_delivery(SECOND, "2", BODY).send().await, 200), 1);
    for malformed in [json!({ "scheme": "github" }), Value::Null] {
        replace(malformed.clone());
        until("the address is unknown", async || {
            app.github_delivery(SECOND, "3", BODY).send().await.status == 404
        })
        .await;
    }
    // The route of webhooks starts the node, whatever verification it has.
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

#[tokio::test]
async fn parts_of_an_address_are_decoded_once() {
    let nodes = json!([verified_trigger("n1", "a/b \u{fc}%2F", &json!({ "scheme": "none" }))]);
    let mut documents = documents(&json!({ "scheme": "none" }));
    documents.workflows[0] = workflow_of("wf_1", "org/a", nodes);
    let app = App::build().documents(documents).config(endpoints).start().await;
    let call =
        |path: &str| app.caller.call(Method::POST, &format!("/api/webhook/in/{path}")).body("1");
    let reply = call("org%2Fa/a%2Fb%20%C3%BC%252F").send().await;
    assert_eq!(matched(&reply, 200), 1);
    assert_eq!(reply.json()["data"]["webhookId"], "a/b \u{fc}%2F");
    for path in
        ["org/a/w", "org%2Fa/", "org%2Fa/%", "org%2Fa/%ff", &format!("o/{}", "w".repeat(10_000))]
    {
        call(path).send().await.assert_rejected(404, "not_found");
    }
}
