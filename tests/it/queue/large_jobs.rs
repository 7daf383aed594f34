//! Jobs that Redis refuses for their size: only their own callers are affected.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::time::Duration;

use redis::cmd;
use serde_json::json;
use testkit::chaos::{ChaosProxy, Cut};
use testkit::http::Reply;
use testkit::wait::until;
use testkit::{App, Redis};
use tokio::task::JoinSet;

/// The lowest value that Redis allows for either limit.
const MIB: usize = 1 << 20;

/// A body within the default of `server.max_body` whose job is larger than 1 MiB.
const OVER: usize = 1_048_546;

#[tokio::test]
async fn a_job_over_a_limit_of_redis_is_refused_before_it_is_sent() {
    for setting in ["proto-max-bulk-len", "client-query-buffer-limit"] {
        let redis = Redis::start_with(&[&format!("--{setting}"), "1mb"]).await;
        let app = App::build().redis(redis).start().await;
        for _ in 0..20 {
            let reply = large(&app, OVER).send().await;
            reply.assert_rejected(413, "payload_too_large");
            let body = reply.json();
            assert_eq!(body["retryable"], false, "{setting}");
            assert_eq!(body["details"]["maxBytes"], MIB, "{setting}: {body}");
            assert!(body["details"]["bytes"].as_u64() > Some(MIB as u64), "{setting}: {body}");
        }
        assert_eq!(large(&app, MIB - read_with(setting)).send().await.matched(), 1);
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        assert_eq!(app.redis.queue().waiting_ids().await.len(), 2);
        let log = app.hookgate.log();
        assert!(log.contains(&format!("setting=\"{setting}\"")), "{log}");
        assert_eq!(connections_made(&app), 2, "one for jobs, one for health: {log}");
        let errors = app.hookgate.metrics().await;
        assert!(errors.value("hookgate_redis_errors_total", &[("kind", "too_large")]) >= 20.0);
        app.assert_accounting().await;
    }
}

#[tokio::test]
async fn a_raised_limit_applies_at_once() {
    let redis = Redis::start_with(&["--proto-max-bulk-len", "1mb"]).await;
    let app = App::build().redis(redis).start().await;
    large(&app, OVER).send().await.assert_rejected(413, "payload_too_large");
    let () = app.redis.query(cmd("CONFIG").arg(&["SET", "proto-max-bulk-len", "2mb"])).await;
    until("the job is accepted", async || large(&app, OVER).send().await.status == 202).await;
    app.redis.queue().only_job().await;
}

/// Bytes besides the body that count against this limit, with room for the job. Newer servers count
/// what they have read with an argument.
fn read_with(setting: &str) -> usize {
    if setting == "proto-max-bulk-len" { 1000 } else { 20_000 }
}

/// Redis reports neither its limits nor, as a rule, why it closes the connection.
#[tokio::test]
async fn a_job_that_breaks_connections_is_isolated() {
    for setting in ["proto-max-bulk-len", "client-query-buffer-limit"] {
        let options = [&format!("--{setting}"), "1mb", "--rename-command", "CONFIG", ""];
        let redis = Redis::start_with(&options.map(|option| option as &str)).await;
        let app = App::build().redis(redis).start().await;
        let (large_ones, others) = with_other_callers(&app, OVER, 8).await;
        for reply in &large_ones {
            // This limit shows without CONFIG.
            if setting == "proto-max-bulk-len" {
                reply.assert_rejected(413, "payload_too_large");
                assert_eq!(reply.json()["details"]["maxBytes"], MIB);
            } else {
                reply.assert_not_enqueued("none");
            }
        }
        assert_eq!(app.redis.queue().waiting_ids().await.len(), others, "{setting}");
        // The shared connection breaks twice at most; then the size is known.
        let made = connections_made(&app);
        assert!(made <= 4, "{setting}: {made} connections\n{}", app.hookgate.log());
        assert!(!app.hookgate.log().contains("Redis is not ready"), "{setting}");
        // A smaller job is accepted, alone or not.
        assert_eq!(large(&app, MIB - read_with(setting)).send().await.matched(), 1);
        app.assert_accounting().await;
    }
}

/// Redis disconnects the client with the most memory, without an error, although no single limit is
/// exceeded.
#[tokio::test]
async fn a_job_that_gets_its_client_evicted_affects_no_other_caller() {
    let redis = Redis::start_with(&["--maxmemory-clients", "1mb"]).await;
    let app = App::build().redis(redis).start().await;
    large(&app, OVER).send().await.assert_rejected(413, "payload_too_large");
    let bytes = MIB - 2000;
    let (large_ones, others) = with_other_callers(&app, bytes, 8).await;
    let accepted = large_ones.iter().filter(|reply| reply.status == 202).count();
    for reply in large_ones.iter().filter(|reply| reply.status != 202) {
        reply.assert_not_enqueued("none");
    }
    assert!(accepted < large_ones.len(), "Redis refuses at least one large job");
    assert_eq!(app.redis.queue().waiting_ids().await.len(), others + accepted);
    let log = app.hookgate.log();
    assert!(log.contains("maxmemory-clients 1048576"), "{log}");
    assert!(!log.contains("Redis is not ready"), "{log}");
    app.assert_accounting().await;
}

#[tokio::test]
async fn only_the_request_that_breaks_connections_is_refused() {
    let options = ["--client-query-buffer-limit", "1mb", "--rename-command", "CONFIG", ""];
    let app = App::build().redis(Redis::start_with(&options).await).config(|config| {
        config
            .set("server.workers", 1)
            .set("queue.enqueue_timeout", "20s")
            .set("queue.batch.max_bytes", "4MiB")
            .set("queue.batch.max_in_flight", 1);
    });
    let app = app.start().await;
    app.redis.freeze();
    let mut calls = JoinSet::new();
    calls.spawn(app.webhook("wh_1").send());
    until("the first one is on the wire", async || in_flight(&app).await == 1.0).await;
    for _ in 0..12 {
        calls.spawn(app.webhook("wh_1").send());
    }
    calls.spawn(large(&app, OVER).send());
    until("all others wait after it", async || in_flight(&app).await == 14.0).await;
    app.redis.thaw();
    let replies = calls.join_all().await;
    let (accepted, refused): (Vec<_>, Vec<_>) =
        replies.iter().partition(|reply| reply.status == 202);
    assert_eq!((accepted.len(), refused.len()), (13, 1), "{}", app.hookgate.log());
    refused[0].assert_not_enqueued("none");
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 13);
    app.assert_accounting().await;
}

/// The connection breaks for reasons other than the size of the jobs.
#[tokio::test]
async fn repeated_failovers_cost_only_latency() {
    let redis = Redis::start().await;
    let proxy = ChaosProxy::before(&redis, 11).await;
    let app = App::build().redis(redis).redis_address(&proxy.url()).config(|config| {
        config.set("queue.enqueue_timeout", "10s").set("server.workers", 1);
    });
    let app = app.start().await;
    let mut sent = 0;
    for lost in 1..=6 {
        for is_reply in [false, true] {
            if is_reply {
                proxy.lose_replies(lost, Cut::Reset);
            } else {
                proxy.lose_requests(lost, Cut::Reset);
            }
            let reply = large(&app, 300_000).send().await;
            assert_eq!(reply.matched(), 1, "{lost} {is_reply}");
            sent += 1;
            assert_eq!(app.redis.queue().waiting_ids().await.len(), sent, "{lost} {is_reply}");
        }
    }
    let errors = app.hookgate.metrics().await.sum("hookgate_redis_errors_total");
    assert!(errors < 1.0, "{errors}");
}

/// Sends `count` large webhooks for one organization, one after the other, while the other
/// organization sends small ones. Returns the answers to the large ones and the number of small
/// ones, all of which were accepted.
async fn with_other_callers(app: &App, bytes: usize, count: usize) -> (Vec<Reply>, usize) {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let caller = app.caller.clone();
    let others = tokio::spawn(async move {
        let mut accepted = 0;
        while !*stopped.borrow() {
            assert_eq!(caller.webhook("wh_1").send().await.matched(), 1, "another caller");
            accepted += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        accepted
    });
    let mut replies = Vec::new();
    for _ in 0..count {
        replies.push(large(app, bytes).send().await);
    }
    stop.send_replace(true);
    (replies, others.await.expect("all other requests are accepted"))
}

/// A webhook of the other organization with a body of `bytes` bytes.
fn large(app: &App, bytes: usize) -> testkit::http::Call {
    let empty = json!({ "webhookId": "wh_1", "text": "" }).to_string().len();
    let body = json!({ "webhookId": "wh_1", "text": "x".repeat(bytes - empty) });
    app.post(body.to_string()).bearer("key_b")
}

/// Connections made to Redis for the shared connection.
fn connections_made(app: &App) -> usize {
    app.hookgate.log().matches("connected to Redis").count()
}

async fn in_flight(app: &App) -> f64 {
    app.hookgate.metrics().await.value("hookgate_requests_in_flight", &[])
}
