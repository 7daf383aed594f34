//! A stale index serves its hits and denies nothing.

use serde_json::json;
use testkit::documents::{user, workflow};
use testkit::mongo::document;
use testkit::tokens::{claims, now, token};
use testkit::wait::until;
use testkit::{App, Documents, Mongo};

#[tokio::test]
async fn a_stale_index_serves_hits_and_answers_503_to_misses() {
    let mongo = Mongo::start().await;
    let database = mongo.database().await;
    database.insert(&Documents::two_organizations()).await;
    let app = App::build().mongo(&database).config(|config| {
        config.set("triggers.max_staleness", "1s");
    });
    let app = app.start().await;
    let without_organization = token(&json!({ "sub": "user_9", "exp": now() + 60 }));
    let misses = [
        ("webhook", "wh_none", "key_a", 202),
        ("key", "wh_1", "unknown", 401),
        ("user", "wh_1", without_organization.as_str(), 401),
    ];
    let send = async |webhook, credential| app.webhook(webhook).bearer(credential).send().await;
    // On a busy machine the index may be older than a second at times.
    wait_for_answers(&app, misses).await;

    mongo.process().signal("STOP");
    for (what, webhook, credential, _) in misses {
        until(&format!("an unknown {what} is no longer denied"), async || {
            let reply = send(webhook, credential).await;
            reply.status == 503 && reply.code() == "index_unavailable"
        })
        .await;
    }
    let reply = app.webhook("wh_none").send().await;
    assert_eq!(reply.header("retry-after"), Some("5"));
    // A hit is served, however old the index is.
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let jwt = token(&claims("org_a", "user_1"));
    assert_eq!(app.webhook("wh_1").bearer(&jwt).send().await.matched(), 1);
    for part in ["workflows", "users"] {
        until(&format!("{part} are degraded"), async || {
            let (status, report) = app.hookgate.readiness().await;
            assert_eq!(status, 200, "{report}");
            report["degraded"].to_string().contains(&format!("{part}: last confirmed current"))
        })
        .await;
    }
    assert!(app.hookgate.metrics().await.value("hookgate_index_age_seconds", &[]) > 1.0);

    mongo.process().signal("CONT");
    wait_for_answers(&app, misses).await;
    until("nothing is degraded", async || {
        !app.hookgate.readiness().await.1["degraded"].to_string().contains("last confirmed current")
    })
    .await;
    database
        .workflows()
        .insert_one(document(workflow("wf_2", "org_a", "wh_none")))
        .await
        .expect("inserted");
    database
        .users()
        .insert_one(document(user("user_9", "org_a", "unknown")))
        .await
        .expect("inserted");
    until("changes are followed", async || {
        let reply = app.webhook("wh_none").bearer("unknown").send().await;
        reply.status == 202 && reply.matched() == 1
    })
    .await;
    app.assert_accounting().await;
}

/// Waits until each miss is answered with its status. A miss is its description, webhook,
/// credential and status.
async fn wait_for_answers(app: &App, misses: [(&str, &str, &str, u16); 3]) {
    for (what, webhook, credential, status) in misses {
        until(&format!("an unknown {what} is answered {status}"), async || {
            app.webhook(webhook).bearer(credential).send().await.status == status
        })
        .await;
    }
}

#[tokio::test]
async fn a_file_that_stays_broken_becomes_stale() {
    let app = App::with(|config| {
        config.set("triggers.max_staleness", "1s");
    })
    .await;
    until("a miss is answered 202", async || app.webhook("wh_none").send().await.status == 202)
        .await;
    app.replace_documents_text("{");
    until("a miss is answered 503", async || app.webhook("wh_none").send().await.status == 503)
        .await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.replace_documents(&Documents::two_organizations());
    until("a miss is answered 202", async || app.webhook("wh_none").send().await.status == 202)
        .await;
}
