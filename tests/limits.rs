//! What one organization may take, and that the others have theirs all the same.

mod harness;

use futures_util::stream;
use harness::wait::{until, until_some};
use harness::{App, Config, Reply};
use std::time::Duration;
use tokio::task::JoinSet;

#[tokio::test]
async fn an_organization_over_its_rate_is_told_when_to_come_back() {
    let app = App::with(|config| slow_rate(config, 3)).await;
    let refused = refused(&app).await;
    assert_eq!(refused.json()["retryable"], true);
    let retry_after: u64 = header(&refused, "retry-after").parse().expect("seconds");
    assert_eq!(retry_after, 1);
    assert_eq!(header(&refused, "ratelimit-policy"), "\"rate\";q=3;w=3");
    assert_eq!(header(&refused, "ratelimit"), format!("\"rate\";r=0;t={retry_after}"));
    for _ in 0..3 {
        assert_eq!(of_b(&app).await.status, 202, "another organization");
    }
    until("there is room again", async || of_a(&app).await.status == 202).await;
    assert!(app.hookgate.log().contains("organization is over its limit organization=\"org_a\""));
    app.assert_accounting().await;
}

#[tokio::test]
async fn no_request_is_read_for_an_organization_over_its_rate() {
    let app = App::with(|config| slow_rate(config, 1)).await;
    refused(&app).await;
    // Its media type is looked at before, what is in it is not.
    let strange = app.post("{").header("content-type", "text/plain").send().await;
    strange.assert_rejected(415, "unsupported_media_type");
    until("it is refused unread", async || app.post("{").send().await.code() == "rate_limited")
        .await;
    app.webhook("wh_1").bearer("nobody").send().await.assert_rejected(401, "invalid_api_key");
}

#[tokio::test]
async fn a_dry_run_counts_and_refuses_nobody() {
    let app = App::with(|config| {
        slow_rate(config, 2);
        config.set("limits.organization.dry_run", true);
    })
    .await;
    until("some are over the limit", async || {
        assert_eq!(of_a(&app).await.status, 202);
        let metrics = app.hookgate.metrics().await;
        metrics.value("hookgate_over_limit_dry_run_total", &[("limit", "rate")]) >= 3.0
    })
    .await;
    assert!(app.hookgate.log().contains("dry_run=true"));
}

#[tokio::test]
async fn one_organization_cannot_hold_all_there_is() {
    let app = App::with(|config| {
        config.set("limits.in_flight_requests", 10);
        config.set("limits.organization.in_flight_share", 0.3);
        config.set("queue.enqueue_timeout", "30s").set("server.workers", 1);
    })
    .await;
    app.redis.freeze();
    let mut held = JoinSet::new();
    for _ in 0..3 {
        held.spawn(app.webhook("wh_1").send());
    }
    app.in_flight(3).await;
    let refused = of_a(&app).await;
    refused.assert_rejected(429, "rate_limited");
    assert_eq!(header(&refused, "retry-after"), "1");
    assert_eq!(
        header(&refused, "ratelimit-policy"),
        "\"in_flight\";q=3;qu=\"concurrent-requests\""
    );
    held.spawn(app.webhook("wh_1").bearer("key_b").send());
    app.in_flight(4).await;
    app.redis.thaw();
    while let Some(reply) = held.join_next().await {
        assert_eq!(reply.expect("an answer").status, 202);
    }
    assert_eq!(of_a(&app).await.status, 202, "what was held has been given back");
    app.assert_accounting().await;
}

#[tokio::test]
async fn one_organization_cannot_hold_all_the_bytes_there_are() {
    let app = App::with(|config| {
        config.set("server.max_body", "64KiB").set("limits.in_flight_bytes", "1MiB");
        config.set("limits.organization.in_flight_share", 0.25);
        config.set("queue.enqueue_timeout", "30s").set("server.workers", 1);
    })
    .await;
    let large = format!("{{\"webhookId\":\"wh_1\",\"pad\":\"{}\"}}", "x".repeat(60_000));
    app.redis.freeze();
    let mut held = JoinSet::new();
    for n in 1..=4 {
        held.spawn(app.post(&*large).send());
        app.in_flight(n).await;
    }
    for call in [app.post(&*large), app.post([]).pieces(stream::iter([Ok(large.clone().into())]))] {
        let refused = call.send().await;
        refused.assert_rejected(429, "rate_limited");
        let policy = "\"in_flight_bytes\";q=262144;qu=\"content-bytes\"";
        assert_eq!(header(&refused, "ratelimit-policy"), policy);
        assert_eq!(header(&refused, "ratelimit"), "\"in_flight_bytes\";r=0;t=1");
    }
    held.spawn(app.webhook("wh_1").send());
    held.spawn(app.post(&*large).bearer("key_b").send());
    app.in_flight(6).await;
    app.redis.thaw();
    while let Some(reply) = held.join_next().await {
        assert_eq!(reply.expect("an answer").status, 202);
    }
    assert_eq!(app.post(large).send().await.status, 202, "what was held has been given back");
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_request_that_is_alone_may_be_larger_than_its_share() {
    let app = App::with(|config| {
        config.set("server.max_body", "64KiB").set("limits.in_flight_bytes", "1MiB");
        config.set("limits.organization.in_flight_share", 0.01);
    })
    .await;
    let large = format!("{{\"webhookId\":\"wh_1\",\"pad\":\"{}\"}}", "x".repeat(60_000));
    for _ in 0..3 {
        assert_eq!(app.post(&*large).send().await.status, 202);
    }
}

#[tokio::test]
async fn limits_are_changed_without_a_restart() {
    let mut app = App::with(|config| slow_rate(config, 1)).await;
    refused(&app).await;
    app.hookgate.config.set("limits.organization.requests_per_second", 0);
    app.hookgate.reload().await;
    for _ in 0..20 {
        assert_eq!(of_a(&app).await.status, 202);
    }
}

#[tokio::test]
async fn a_flood_of_one_organization_leaves_the_others_alone() {
    let app = App::with(|config| {
        // Fewer than the flood would hold, and room for what is refused at the same moment.
        config.set("limits.in_flight_requests", 10);
        config.set("limits.organization.in_flight_share", 0.2);
        config.set("limits.organization.requests_per_second", 50);
        config.set("limits.organization.burst", 50);
    })
    .await;
    let mut flood = JoinSet::new();
    for _ in 0..8 {
        let caller = app.caller.clone();
        flood.spawn(async move {
            let (mut accepted, mut refused) = (0, 0);
            for _ in 0..250 {
                match caller.webhook("wh_1").send().await.status {
                    202 => accepted += 1,
                    429 => refused += 1,
                    other => panic!("answered {other}"),
                }
            }
            (accepted, refused)
        });
    }
    let mut taken = 0;
    while !flood.is_empty() {
        // Far below its limit.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(of_b(&app).await.status, 202);
        taken += 1;
        while let Some(ended) = flood.try_join_next() {
            let (accepted, refused) = ended.expect("the flood goes on to its end");
            assert_eq!(accepted + refused, 250);
            assert!(refused > 0);
        }
    }
    assert!(taken > 0);
    app.assert_accounting().await;
}

/// One request a second, and so many at first.
fn slow_rate(config: &mut Config, burst: i64) {
    config.set("limits.organization.requests_per_second", 1);
    config.set("limits.organization.burst", burst);
}

/// Sends until that is too much.
async fn refused(app: &App) -> Reply {
    let refused = until_some("the limit is reached", async || {
        let reply = of_a(app).await;
        (reply.status != 202).then_some(reply)
    });
    let refused = refused.await;
    refused.assert_rejected(429, "rate_limited");
    refused
}

async fn of_a(app: &App) -> Reply {
    app.webhook("wh_1").send().await
}

async fn of_b(app: &App) -> Reply {
    app.webhook("wh_1").bearer("key_b").send().await
}

fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
    reply.header(name).expect("the header is there")
}
