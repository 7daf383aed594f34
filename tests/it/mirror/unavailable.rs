//! Answers 503: before the index is loaded, while the queue accepts no jobs, and at Hookgate's own
//! limits.

#![expect(clippy::indexing_slicing, reason = "a test panics")]
#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::cmd;
use serde_json::json;
use testkit::http::Reply;
use testkit::raw::Connection;
use testkit::tokens::{claims, now, token};
use testkit::wait::{until, until_some};
use testkit::{App, Config};
use tokio::task::JoinSet;

#[tokio::test]
async fn before_the_index_is_loaded_requests_get_503() {
    let app = App::build().config(without_mongodb).start_unready().await;
    let without_organization = token(&json!({ "sub": "user_1", "exp": now() + 60 }));
    for credential in
        ["key_a", "unknown", &token(&claims("org_a", "user_1")), &without_organization]
    {
        let reply = app.webhook("wh_1").bearer(credential).send().await;
        assert_unavailable(&reply, "index_unavailable", "5", "none");
    }
    // Refusals that do not need the index are still answered.
    let jwt = token(&claims("org_a", "user_1"));
    app.webhook("wh_1")
        .without("authorization")
        .send()
        .await
        .assert_rejected(401, "missing_credentials");
    app.webhook("wh_1")
        .bearer("eyJhbGciOiJIUzI1NiJ9.e30.AAAA")
        .send()
        .await
        .assert_rejected(401, "invalid_token");
    let text = app.webhook("wh_1").bearer(&jwt).header("content-type", "text/plain").send().await;
    text.assert_rejected(415, "unsupported_media_type");
    app.post("{").bearer(&jwt).send().await.assert_rejected(400, "invalid_json");
    app.post("{}").bearer(&jwt).send().await.assert_rejected(400, "missing_webhook_id");

    app.redis.queue().assert_empty().await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_lost_redis_is_reported_and_used_again_when_it_returns() {
    let mut app = App::with(quick).await;
    app.redis.kill9().await;
    let reply = app.webhook("wh_1").send().await;
    reply.assert_rejected(503, "queue_unavailable");
    let enqueued = &reply.json()["details"]["enqueued"];
    assert!(enqueued == "none" || enqueued == "unknown", "{enqueued}");
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(
        app.webhook("wh_none").send().await.matched(),
        0,
        "a request without jobs does not need Redis"
    );

    app.redis.restart().await;
    until("webhooks are accepted again", async || app.webhook("wh_1").send().await.status == 202)
        .await;
    app.hookgate.ready().await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_redis_that_does_not_answer_leaves_jobs_in_doubt() {
    let app = App::with(quick).await;
    // Both requests use one caller's connection, so that the second one uses a connection to Redis
    // that exists.
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(request()).await;
    assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
    app.redis.freeze();
    connection.send(request()).await;
    let reply = connection.reply().await.expect("an answer");
    app.redis.thaw();
    assert_unavailable(&reply, "queue_unavailable", "1", "unknown");
    until("webhooks are accepted again", async || app.webhook("wh_1").send().await.status == 202)
        .await;
}

#[tokio::test]
async fn a_redis_without_memory_gets_no_jobs() {
    let app = App::with(|config| {
        config.set("queue.memory_watermark", 0.0);
    })
    .await;
    let () = app.redis.query(cmd("CONFIG").arg("SET").arg("maxmemory").arg("1")).await;
    let reply = app.webhook("wh_1").send().await;
    assert_unavailable(&reply, "queue_unavailable", "1", "none");
    app.redis.queue().assert_empty().await;

    let () = app.redis.query(cmd("CONFIG").arg("SET").arg("maxmemory").arg("0")).await;
    until("webhooks are accepted again", async || app.webhook("wh_1").send().await.status == 202)
        .await;
}

#[tokio::test]
async fn a_redis_near_its_memory_limit_gets_no_jobs() {
    let app = App::start().await;
    let memory: String = app.redis.query(cmd("INFO").arg("memory")).await;
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("a line");
    let used: u64 = used.trim().parse().expect("a number");
    // Memory is over nine tenths of the maximum, but not over it.
    let () = app.redis.query(cmd("CONFIG").arg("SET").arg("maxmemory").arg(used + used / 20)).await;
    let refused = until_some("a webhook is refused", async || {
        let reply = app.webhook("wh_1").send().await;
        (reply.status != 202).then_some(reply)
    })
    .await;
    assert_unavailable(&refused, "queue_unavailable", "1", "none");

    let () = app.redis.query(cmd("CONFIG").arg("SET").arg("maxmemory").arg(used * 4)).await;
    until("webhooks are accepted again", async || app.webhook("wh_1").send().await.status == 202)
        .await;
}

/// Slightly below the watermark, the organization that starts most is refused and the others are
/// not.
#[tokio::test]
async fn a_redis_that_fills_up_refuses_the_largest_organization_first() {
    let app = App::start().await;
    for _ in 0..40 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
    for _ in 0..3 {
        assert_eq!(app.webhook("wh_1").bearer("key_b").send().await.matched(), 1);
    }
    // Large enough that the memory of the test itself does not matter.
    let filler = vec![0_u8; 20 << 20];
    let () = app.redis.query(cmd("SET").arg("filler").arg(filler)).await;
    let used = until_some("Redis has freed its copy of the command", async || {
        let used: u64 = app.redis.info("memory", "used_memory").await.parse().expect("a number");
        (used < 30 << 20).then_some(used)
    })
    .await;
    // Between 0.85 and 0.9 of the maximum, with room for what is added meanwhile.
    let maxmemory = used * 1000 / 865;
    let () = app.redis.query(cmd("CONFIG").arg("SET").arg("maxmemory").arg(maxmemory)).await;
    let refused = until_some("the organization that starts most is refused", async || {
        let reply = app.webhook("wh_1").send().await;
        (reply.status != 202).then_some(reply)
    })
    .await;
    assert_unavailable(&refused, "queue_unavailable", "1", "none");
    let refused = app.hookgate.metrics().await.value("hookgate_over_watermark_total", &[]);
    assert_eq!(refused, 1.0);
    for _ in 0..3 {
        assert_eq!(app.webhook("wh_1").bearer("key_b").send().await.matched(), 1);
        assert_unavailable(&app.webhook("wh_1").send().await, "queue_unavailable", "1", "none");
    }
    assert_eq!(app.webhook("wh_none").send().await.matched(), 0, "the request starts nothing");
    assert_eq!(app.hookgate.metrics().await.value("hookgate_over_watermark_total", &[]), 4.0);
    let () = app.redis.query(cmd("CONFIG").arg("SET").arg("maxmemory").arg(used * 4)).await;
    until("there is room again", async || app.webhook("wh_1").send().await.status == 202).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_read_only_redis_gets_no_jobs() {
    let app = App::with(quick).await;
    let unused_port = testkit::ports::free();
    let () = app.redis.query(cmd("REPLICAOF").arg("127.0.0.1").arg(unused_port)).await;
    app.webhook("wh_1").send().await.assert_rejected(503, "queue_unavailable");
    app.hookgate.unready().await;

    let () = app.redis.query(cmd("REPLICAOF").arg("NO").arg("ONE")).await;
    until("webhooks are accepted again", async || app.webhook("wh_1").send().await.status == 202)
        .await;
    app.hookgate.ready().await;
}

#[tokio::test]
async fn a_request_over_the_in_flight_limit_is_answered_at_once() {
    let app = App::with(|config| {
        config.set("limits.in_flight_requests", 1).set("server.workers", 1);
    })
    .await;
    // One request holds the only permit while its body does not come.
    let mut holder = Connection::open(app.hookgate.address()).await;
    holder.send(head_of(20)).await;
    app.in_flight(1).await;

    let reply = app.webhook("wh_1").send().await;
    assert_unavailable(&reply, "overloaded", "1", "none");
    let anonymous = app.webhook("wh_1").without("authorization").send().await;
    anonymous.assert_rejected(503, "overloaded");
    // The refusal does not read the body and keeps the connection.
    let mut refused = Connection::open(app.hookgate.address()).await;
    for _ in 0..3 {
        refused.send(head_of(20)).await;
        assert_unavailable(&refused.reply().await.expect("an answer"), "overloaded", "1", "none");
        refused.send(r#"{"webhookId":"wh_1"}"#).await;
    }
    app.caller
        .call(reqwest::Method::GET, "/nowhere")
        .send()
        .await
        .assert_rejected(404, "not_found");

    holder.send(r#"{"webhookId":"wh_1"}"#).await;
    assert_eq!(holder.reply().await.expect("an answer").matched(), 1);
    refused.send(request()).await;
    assert_eq!(refused.reply().await.expect("an answer").matched(), 1);
    until("the permit is released", async || app.webhook("wh_1").send().await.status == 202).await;
}

#[tokio::test]
async fn a_request_over_the_byte_limit_is_answered_at_once() {
    let app = App::with(|config| {
        config.set("server.max_body", "64KiB").set("limits.in_flight_bytes", "64KiB");
        config.set("server.workers", 1);
        config.set("limits.organization.in_flight_share", 1.0);
    })
    .await;
    let mut holder = Connection::open(app.hookgate.address()).await;
    let mut body = json!({ "webhookId": "wh_1", "a": "x".repeat(60_000) }).to_string();
    holder.send(head_of(body.len())).await;
    let last = body.pop().expect("a brace");
    holder.send(&body).await;

    let other = json!({ "webhookId": "wh_1", "a": "y".repeat(60_000) }).to_string();
    // Waits by the metrics, because a test request could take the permit before the other one.
    app.in_flight(1).await;
    let refused = app.post(other.as_str()).send().await;
    assert_unavailable(&refused, "overloaded", "1", "none");

    holder.send(last.to_string()).await;
    assert_eq!(holder.reply().await.expect("an answer").matched(), 1);
    until("the bytes are released", async || app.post(other.as_str()).send().await.status == 202)
        .await;
}

#[tokio::test]
async fn connections_over_the_bound_do_not_displace_others() {
    let app = App::with(|config| {
        config.set("server.max_connections", 4);
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(request()).await;
        assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
        open.push(connection);
    }
    let mut extra = Connection::open(app.hookgate.address()).await;
    extra.send(request()).await;
    for connection in &mut open {
        connection.send(request()).await;
        assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
    }
    drop((open, extra));
    until("there is room again", async || app.webhook("wh_1").try_send().await.is_ok()).await;
}

#[tokio::test]
async fn honest_requests_succeed_during_a_flood() {
    const BOUND: i64 = 8;
    let app = App::with(|config| {
        config.set("limits.in_flight_requests", BOUND);
        config.set("limits.organization.in_flight_share", 1.0);
    })
    .await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut flood = JoinSet::new();
    for _ in 0..8 * BOUND {
        let (caller, is_over) = (app.caller.clone(), Arc::clone(&is_over));
        flood.spawn(async move {
            let mut accepted = 0;
            while !is_over.load(Ordering::Relaxed) {
                let reply = caller.webhook("wh_1").send().await;
                if reply.status != 202 {
                    assert_unavailable(&reply, "overloaded", "1", "none");
                }
                accepted += u64::from(reply.status == 202);
            }
            accepted
        });
    }
    let metrics = async || app.hookgate.metrics().await;
    until("the limit is reached", async || metrics().await.requests("overloaded") >= 100.0).await;
    // No caller is locked out: a caller that tries again is accepted.
    for _ in 0..20 {
        until("an honest caller is accepted", async || {
            app.webhook("wh_1").send().await.status == 202
        })
        .await;
    }
    is_over.store(true, Ordering::Relaxed);
    let accepted = 20 + flood.join_all().await.into_iter().sum::<u64>();
    app.assert_accounting().await;
    let metrics = metrics().await;
    assert_eq!(metrics.requests("accepted"), accepted as f64);
    let counted = metrics.requests("accepted") + metrics.requests("overloaded");
    assert_eq!(metrics.sum("hookgate_requests_total"), counted);
    assert_eq!(metrics.value("hookgate_requests_in_flight", &[]), 0.0);
    assert_eq!(app.redis.queue().waiting_ids().await.len() as u64, accepted);
}

fn without_mongodb(config: &mut Config) {
    config
        .set("triggers.source", "mongodb")
        .set("mongodb.uri", testkit::mongo::uri(testkit::ports::free()));
}

fn quick(config: &mut Config) {
    config.set("queue.enqueue_timeout", "500ms");
}

fn head_of(length: usize) -> String {
    let head = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n";
    format!("{head}Content-Length: {length}\r\n\r\n")
}

fn request() -> String {
    format!("{}{}", head_of(20), r#"{"webhookId":"wh_1"}"#)
}

fn assert_unavailable(reply: &Reply, code: &str, retry_after: &str, enqueued: &str) {
    reply.assert_rejected(503, code);
    assert_eq!(reply.header("retry-after"), Some(retry_after), "{}", reply.text());
    assert_eq!(reply.json()["retryable"], true);
    assert_eq!(reply.json()["details"]["enqueued"], enqueued, "{}", reply.text());
}
