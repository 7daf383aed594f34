//! The addresses of endpoints in the document, and their answers.

use super::document::{Cases, Document};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::deliveries::{endpoints, github_signature, hmac_sha256, verified_trigger};
use testkit::documents::workflow_of;
use testkit::http::Call;
use testkit::{App, Documents, Reply};

pub(super) const ADDRESS: &str = "/api/webhook/in/{organization}/{webhookId}";

pub(super) const ADDRESS_PREVIEW: &str = "/api/webhook/in/{organization}/{webhookId}/preview";

const SECRET: &str = "It's a Secret to Everybody";

/// The webhooks of `org_a`, each with its verification.
fn verifications() -> [(&'static str, Value); 7] {
    [
        ("wh_github", json!({ "scheme": "github", "secret": SECRET })),
        ("wh_slack", json!({ "scheme": "slack", "secret": SECRET })),
        ("wh_dropbox", json!({ "scheme": "dropbox", "secret": SECRET })),
        ("wh_monday", json!({ "scheme": "monday", "secret": SECRET })),
        ("wh_200", json!({ "scheme": "none" })),
        ("wh_202", json!({ "scheme": "none", "status": 202 })),
        ("wh_204", json!({ "scheme": "none", "status": 204 })),
    ]
}

/// Starts with these addresses. One failed delivery of a client to an address is the limit.
async fn app() -> App {
    let mut documents = Documents::two_organizations();
    for (webhook, verification) in verifications() {
        let nodes = json!([verified_trigger("n1", webhook, &verification)]);
        documents.workflows.push(workflow_of(&format!("wf_{webhook}"), "org_a", nodes));
    }
    let app = App::build().documents(documents).config(endpoints).config(|config| {
        config.set("endpoints.failed_verifications_per_minute", 1).set("server.max_body", "1KiB");
        config.set("server.trusted_proxies", vec!["127.0.0.0/8"]);
    });
    app.start().await
}

fn to(app: &App, method: Method, webhook: &str) -> Call {
    app.caller.call(method, &format!("/api/webhook/in/org_a/{webhook}"))
}

fn json_to(app: &App, webhook: &str, body: &str) -> Call {
    to(app, Method::POST, webhook).header("content-type", "application/json").body(body)
}

/// Requests to addresses that are refused, with their paths in the document.
pub(super) async fn refusals() -> Vec<(&'static str, Reply)> {
    let app = app().await;
    let multipart = to(&app, Method::POST, "wh_200").header("content-type", "multipart/form-data");
    let zipped = json_to(&app, "wh_200", "{}").header("content-encoding", "snappy");
    let failed = || json_to(&app, "wh_github", "{}").header("x-forwarded-for", "192.0.2.1");
    let stale = json_to(&app, "wh_slack", "{}")
        .header("x-slack-request-timestamp", "1000")
        .header("x-slack-signature", format!("v0={}", hmac_sha256(SECRET, b"v0:1000:{}")));
    let preview = || to(&app, Method::POST, "wh_github/preview");
    let calls = [
        (ADDRESS, 404, json_to(&app, "unknown", "{}")),
        (ADDRESS, 404, json_to(&app, "%ff", "{}")),
        (ADDRESS, 405, to(&app, Method::TRACE, "wh_200")),
        (ADDRESS, 400, multipart.body("x")),
        (ADDRESS, 400, json_to(&app, "wh_200", "{")),
        (ADDRESS, 413, json_to(&app, "wh_200", &"1".repeat(2000))),
        (ADDRESS, 415, zipped),
        (ADDRESS, 401, failed()),
        (ADDRESS, 401, stale),
        (ADDRESS, 429, failed()),
        (ADDRESS_PREVIEW, 401, preview()),
        (ADDRESS_PREVIEW, 404, preview().bearer("key_b")),
    ];
    let mut replies = Vec::new();
    for (path, status, call) in calls {
        let reply = call.send().await;
        assert_eq!(reply.status, status, "{}", reply.text());
        replies.push((path, reply));
    }
    replies
}

#[tokio::test]
async fn deliveries_are_answered_as_described() {
    let (document, app) = (Document::read(), app().await);
    let body = r#"{"action":"opened"}"#;
    let github = || {
        let call = json_to(&app, "wh_github", body).header("x-github-delivery", "d-1");
        call.header("x-hub-signature-256", github_signature(SECRET, body.as_bytes()))
    };
    let preview = to(&app, Method::POST, "wh_github/preview").bearer("key_a");
    // Of another client, because a client may ask for one unknown address.
    let unknown = to(&app, Method::OPTIONS, "unknown").header("x-forwarded-for", "192.0.2.2");
    let calls = [
        (ADDRESS, "post", 200, github()),
        (ADDRESS, "post", 200, github()),
        (ADDRESS, "post", 401, json_to(&app, "wh_github", body)),
        (ADDRESS_PREVIEW, "post", 200, preview),
        (ADDRESS, "post", 202, json_to(&app, "wh_202", body)),
        (ADDRESS, "put", 204, to(&app, Method::PUT, "wh_204")),
        (ADDRESS, "get", 200, to(&app, Method::GET, "wh_200")),
        (ADDRESS, "patch", 200, to(&app, Method::PATCH, "wh_200")),
        (ADDRESS, "delete", 200, to(&app, Method::DELETE, "wh_200")),
        (ADDRESS, "head", 200, to(&app, Method::HEAD, "wh_200")),
        (ADDRESS, "head", 404, to(&app, Method::HEAD, "unknown")),
        (ADDRESS, "options", 204, to(&app, Method::OPTIONS, "wh_200")),
        (ADDRESS, "options", 404, unknown),
        (ADDRESS, "get", 200, to(&app, Method::GET, "wh_dropbox?challenge=c-1")),
        (ADDRESS, "post", 200, json_to(&app, "wh_monday", r#"{"challenge":"c-1"}"#)),
    ];
    let mut cases = Cases::default();
    for (path, method, status, call) in calls {
        let reply = call.send().await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        cases.add_reply(&document, path, method, &reply);
    }
    cases.judge(&document);
    app.redis.queue().waiting_exactly(6).await;
}
