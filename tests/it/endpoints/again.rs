//! Deliveries that come again: at the same time, to another process, after a restart.

use super::route::{BODY, SECRET, app, documents, matched};
use redis::cmd;
use serde_json::json;
use testkit::deliveries::endpoints;
use testkit::{App, Caller, Hookgate};
use tokio::task::JoinSet;

#[tokio::test]
async fn copies_at_the_same_time_start_one_job() {
    let app = app(&json!({ "scheme": "github", "secret": SECRET })).await;
    let mut calls = JoinSet::new();
    for copy in 0..200 {
        calls.spawn(app.github_delivery(SECRET, &format!("d-{}", copy % 10), BODY).send());
    }
    let replies = calls.join_all().await;
    assert!(replies.iter().all(|reply| matched(reply, 200) == 1));
    let replayed = |reply: &&testkit::Reply| reply.header("idempotency-replayed").is_some();
    assert_eq!(replies.iter().filter(replayed).count(), 190);
    app.redis.queue().waiting_exactly(10).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_delivery_is_remembered_by_other_processes_and_after_a_restart() {
    let verification = json!({ "scheme": "github", "secret": SECRET });
    let app = app(&verification).await;
    let mut config = app.hookgate.config.clone();
    config.set("server.listen", format!("127.0.0.1:{}", testkit::ports::free()));
    config.set("admin.listen", format!("127.0.0.1:{}", testkit::ports::free()));
    let mut other = Hookgate::start(config).await;
    app.github_delivery(SECRET, "d", BODY).send().await;
    let path = "/api/webhook/in/org_a/wh_1";
    let again = async |hookgate: &Hookgate| {
        let call = Caller::new(hookgate.address()).call(reqwest::Method::POST, path);
        let signature = testkit::deliveries::github_signature(SECRET, BODY.as_bytes());
        let call = call.header("x-hub-signature-256", signature).header("x-github-delivery", "d");
        let reply = call.header("content-type", "application/json").body(BODY).send().await;
        assert_eq!(matched(&reply, 200), 1);
        assert_eq!(reply.header("idempotency-replayed"), Some("true"));
    };
    again(&other).await;
    other.kill9().await;
    other.restart().await;
    again(&other).await;
    app.redis.queue().only_job().await;
}

#[tokio::test]
async fn a_delivery_without_an_id_starts_its_workflow_each_time() {
    let verification = json!({ "scheme": "github", "secret": SECRET, "deliveryId": false });
    let app = app(&verification).await;
    for _ in 0..2 {
        app.github_delivery(SECRET, "d", BODY).send().await;
    }
    app.redis.queue().waiting_exactly(2).await;
}

/// A node that is added has not had the delivery, but the delivery was answered.
#[tokio::test]
async fn the_answer_to_a_copy_is_that_of_the_first() {
    let verification = json!({ "scheme": "github", "secret": SECRET });
    let app = app(&verification).await;
    app.github_delivery(SECRET, "d", BODY).send().await;
    let mut documents = documents(&verification);
    let mut more = documents.workflows[0].clone();
    more["_id"] = json!("wf_2");
    documents.workflows.push(more);
    app.replace_documents(&documents);
    testkit::wait::until("both workflows are known", async || {
        let reply = app.github_delivery(SECRET, "probe", BODY).send().await;
        let count = matched(&reply, 200);
        app.redis.query::<()>(cmd("FLUSHALL").arg("SYNC")).await;
        count == 2
    })
    .await;
    let first = app.github_delivery(SECRET, "e", BODY).send().await;
    assert_eq!(matched(&first, 200), 2);
    app.replace_documents(&self::documents(&verification));
    testkit::wait::until("one workflow is known", async || {
        app.webhook("wh_1").send().await.matched() == 1
    })
    .await;
    let again = app.github_delivery(SECRET, "e", BODY).send().await;
    assert_eq!(matched(&again, 200), 2);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}

#[tokio::test]
async fn an_idempotency_key_means_nothing() {
    let app = app(&json!({ "scheme": "github", "secret": SECRET })).await;
    for id in ["a", "b"] {
        let call = app.github_delivery(SECRET, id, BODY).header("idempotency-key", "k");
        assert_eq!(call.send().await.header("idempotency-replayed"), None);
    }
    let invalid = app.github_delivery(SECRET, "c", BODY).header("idempotency-key", "");
    assert_eq!(matched(&invalid.send().await, 200), 1);
    app.redis.queue().waiting_exactly(3).await;
}

#[tokio::test]
async fn a_delivery_that_redis_refuses_can_come_again() {
    let app = App::build()
        .documents(documents(&json!({ "scheme": "github", "secret": SECRET })))
        .config(endpoints)
        .start()
        .await;
    app.redis.query::<()>(cmd("SET").arg("bull:workflow-runner:wait").arg("x")).await;
    let refused = app.github_delivery(SECRET, "d", BODY).send().await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    app.redis.query::<()>(cmd("DEL").arg("bull:workflow-runner:wait")).await;
    testkit::wait::until("the delivery is accepted", async || {
        let reply = app.github_delivery(SECRET, "d", BODY).send().await;
        reply.status == 200 && reply.header("idempotency-replayed").is_none()
    })
    .await;
    app.redis.queue().only_job().await;
}
