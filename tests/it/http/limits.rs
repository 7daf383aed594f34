//! Limits of one organization, and the share that is left to the others.

use futures_util::stream;
use std::time::Duration;
use testkit::documents::workflow;
use testkit::raw::Connection;
use testkit::wait::{until, until_some};
use testkit::{App, Config, Documents, Reply};
use tokio::task::JoinSet;

#[tokio::test]
async fn an_organization_over_its_rate_gets_a_retry_after() {
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
async fn no_body_is_read_for_an_organization_over_its_rate() {
    let app = App::with(|config| slow_rate(config, 1)).await;
    refused(&app).await;
    // The media type is checked before the rate; the content is not read.
    let strange = app.post("{").header("content-type", "text/plain").send().await;
    strange.assert_rejected(415, "unsupported_media_type");
    until("the request is refused unread", async || {
        app.post("{").send().await.code() == "rate_limited"
    })
    .await;
    app.webhook("wh_1").bearer("nobody").send().await.assert_rejected(401, "invalid_api_key");
}

#[tokio::test]
async fn a_dry_run_counts_and_refuses_no_request() {
    let app = App::with(|config| {
        slow_rate(config, 2);
        config.set("limits.organization.dry_run", true);
    })
    .await;
    until("some requests are over the limit", async || {
        assert_eq!(of_a(&app).await.status, 202);
        let metrics = app.hookgate.metrics().await;
        metrics.value("hookgate_over_limit_dry_run_total", &[("limit", "rate")]) >= 3.0
    })
    .await;
    assert!(app.hookgate.log().contains("dry_run=true"));
}

#[tokio::test]
async fn one_organization_cannot_use_all_permits() {
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
    assert_eq!(of_a(&app).await.status, 202, "everything reserved is released");
    app.assert_accounting().await;
}

#[tokio::test]
async fn one_organization_cannot_reserve_all_bytes() {
    let app = App::with(|config| {
        config.set("server.max_body", "64KiB").set("limits.in_flight_bytes", "1MiB");
        config.set("limits.organization.in_flight_share", 0.25);
        config.set("queue.enqueue_timeout", "30s").set("server.workers", 1);
    })
    .await;
    let large = large(60_000);
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
    assert_eq!(app.post(large).send().await.status, 202, "everything reserved is released");
    app.assert_accounting().await;
}

/// Announcing a body costs nothing: 260 callers of one organization announce more bytes than the
/// limit and send none.
#[tokio::test]
async fn announced_bodies_that_never_arrive_block_no_other_request() {
    let app = App::start().await;
    let address = app.hookgate.address();
    let mut silent = Vec::new();
    for _ in 0..260 {
        let mut connection = Connection::open(address).await;
        connection.send(head("key_a", 1 << 20, "")).await;
        silent.push(connection);
    }
    until("all callers wait", async || requests_in_flight(&app).await >= 260.0).await;
    let large = large(1_000_000);
    for key in ["key_b", "key_a"] {
        assert_eq!(app.post(&*large).bearer(key).send().await.matched(), 1, "{key}");
    }
    drop(silent);
    until("all callers have disconnected", async || requests_in_flight(&app).await < 1.0).await;
}

/// Received bytes are reserved step by step; as shipped, the share of the organization bounds them.
#[tokio::test]
async fn the_default_share_of_an_organization_is_half() {
    let app = App::with(|config| {
        config.set("limits.in_flight_bytes", "5MiB").set("limits.in_flight_requests", 20);
    })
    .await;
    let address = app.hookgate.address();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::open(address).await;
        connection.send(head("key_a", 1 << 20, "") + &" ".repeat(1_000_000)).await;
        held.push(connection);
    }
    // These bytes fit next to all of one body and half of the other, but not next to both.
    let refused = until_some("the organization's half of the bytes is reserved", async || {
        let mut connection = Connection::open(address).await;
        connection.send(head("key_a", 600_000, "")).await;
        let reply = tokio::time::timeout(Duration::from_millis(100), connection.reply()).await;
        reply.ok().flatten()
    })
    .await;
    refused.assert_rejected(429, "rate_limited");
    let policy = "\"in_flight_bytes\";q=2621440;qu=\"content-bytes\"";
    assert_eq!(header(&refused, "ratelimit-policy"), policy);
    let large = large(1_000_000);
    app.post(&*large).send().await.assert_rejected(429, "rate_limited");
    assert_eq!(app.post(&*large).bearer("key_b").send().await.matched(), 1);
    // A request over its share, or over every limit, is refused before any of its body is sent.
    for (length, status, code) in
        [(1 << 20, 429, "rate_limited"), (2 << 20, 413, "payload_too_large")]
    {
        app.raw(head("key_a", length, "")).await.assert_rejected(status, code);
    }
    for _ in 2..10 {
        let mut connection = Connection::open(address).await;
        connection.send(head("key_a", 20, "")).await;
        held.push(connection);
    }
    until("the organization's half of the requests is in flight", async || {
        requests_in_flight(&app).await >= 10.0
    })
    .await;
    let refused = of_a(&app).await;
    refused.assert_rejected(429, "rate_limited");
    assert!(header(&refused, "ratelimit-policy").starts_with("\"in_flight\";q=10;"));
    assert_eq!(of_b(&app).await.status, 202);
    drop(held);
    until("everything reserved is released", async || of_a(&app).await.status == 202).await;
}

/// Requests whose bodies do not come keep their heads in memory.
#[tokio::test]
async fn heads_of_admitted_requests_count_as_in_flight() {
    let app = App::with(|config| {
        config.set("server.max_body", "64KiB").set("limits.in_flight_bytes", "1MiB");
    })
    .await;
    let address = app.hookgate.address();
    let fields = format!("X-Filler: {}\r\n", "x".repeat(30_000));
    let mut held = Vec::new();
    // Half a mebibyte holds sixteen of them, with little room for their bodies.
    let refused = until_some("the heads have filled the limit", async || {
        let mut connection = Connection::open(address).await;
        connection.send(head("key_a", 100, &fields)).await;
        let reply = tokio::time::timeout(Duration::from_millis(50), connection.reply()).await;
        held.push(connection);
        reply.ok().flatten()
    })
    .await;
    refused.assert_rejected(429, "rate_limited");
    assert!((10..40).contains(&held.len()), "{} heads are in memory", held.len());
    // Requests without a valid credential are answered at once, whatever their size, and reserve
    // nothing.
    app.raw(head("nobody", 100, &fields)).await.assert_rejected(401, "invalid_api_key");
    assert_eq!(of_b(&app).await.status, 202);
    drop(held);
    until("everything reserved is released", async || of_a(&app).await.status == 202).await;
}

#[tokio::test]
async fn the_rate_limit_counts_jobs_as_well_as_requests() {
    let app = many_workflows(|config| {
        config.set("limits.organization.jobs_per_second", 1);
        config.set("limits.organization.jobs_burst", 10);
    })
    .await;
    // The request has more jobs than a burst. It is admitted once, because it could not be sent
    // later either.
    assert_eq!(app.webhook("wh_many").send().await.matched(), 50);
    for webhook in ["wh_many", "wh_1"] {
        let refused = app.webhook(webhook).send().await;
        refused.assert_rejected(429, "rate_limited");
        assert_eq!(header(&refused, "ratelimit-policy"), "\"jobs\";q=10;qu=\"jobs\";w=10");
        let wait: u64 = header(&refused, "retry-after").parse().expect("seconds");
        assert!((10..=50).contains(&wait), "{wait} s");
        assert_eq!(header(&refused, "ratelimit"), format!("\"jobs\";r=0;t={wait}"));
    }
    assert_eq!(app.webhook("wh_none").send().await.matched(), 0, "the request starts nothing");
    assert_eq!(of_b(&app).await.matched(), 1, "another organization");
    assert_eq!(app.redis.queue().waiting_exactly(51).await.len(), 51);
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_dry_run_counts_jobs_over_the_limit() {
    let app = many_workflows(|config| {
        config.set("limits.organization.jobs_per_second", 1);
        config.set("limits.organization.dry_run", true);
    })
    .await;
    for _ in 0..3 {
        assert_eq!(app.webhook("wh_many").send().await.matched(), 50);
    }
    let metrics = app.hookgate.metrics().await;
    let counted = metrics.value("hookgate_over_limit_dry_run_total", &[("limit", "jobs")]);
    assert!((1.0..=2.0).contains(&counted), "{counted}");
}

#[tokio::test]
async fn a_lone_request_may_exceed_the_share_of_its_organization() {
    let app = App::with(|config| {
        config.set("server.max_body", "64KiB").set("limits.in_flight_bytes", "1MiB");
        config.set("limits.organization.in_flight_share", 0.01);
    })
    .await;
    let large = large(60_000);
    for _ in 0..3 {
        assert_eq!(app.post(&*large).send().await.status, 202);
    }
}

#[tokio::test]
async fn limits_change_without_a_restart() {
    let mut app = App::with(|config| slow_rate(config, 1)).await;
    refused(&app).await;
    app.hookgate.config.set("limits.organization.requests_per_second", 0);
    app.hookgate.reload().await;
    for _ in 0..20 {
        assert_eq!(of_a(&app).await.status, 202);
    }
}

#[tokio::test]
async fn a_flood_of_one_organization_does_not_affect_the_others() {
    let app = App::with(|config| {
        // The bound is lower than the flood would reach, with room for requests that are refused at
        // the same moment.
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
    let mut served = 0;
    while !flood.is_empty() {
        // This is far below its limit.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(of_b(&app).await.status, 202);
        served += 1;
        while let Some(ended) = flood.try_join_next() {
            let (accepted, refused) = ended.expect("the flood ends without a panic");
            assert_eq!(accepted + refused, 250);
            assert!(refused > 0);
        }
    }
    assert!(served > 0);
    app.assert_accounting().await;
}

/// The head of a webhook with this key, which announces a body.
fn head(key: &str, length: usize, fields: &str) -> String {
    format!(
        "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\
         Content-Length: {length}\r\n{fields}\r\n"
    )
}

/// A webhook of about `bytes` bytes.
fn large(bytes: usize) -> String {
    format!("{{\"webhookId\":\"wh_1\",\"pad\":\"{}\"}}", "x".repeat(bytes))
}

/// An app with fifty workflows of `org_a` on `wh_many`.
async fn many_workflows(change: impl FnOnce(&mut Config)) -> App {
    let mut documents = Documents::two_organizations();
    let many = (0..50).map(|serial| workflow(&format!("wf_many_{serial}"), "org_a", "wh_many"));
    documents.workflows.extend(many);
    App::build().documents(documents).config(change).start().await
}

/// Sets a rate of one request a second with this burst.
fn slow_rate(config: &mut Config, burst: i64) {
    config.set("limits.organization.requests_per_second", 1);
    config.set("limits.organization.burst", burst);
}

/// Sends until a request is over the limit.
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

async fn requests_in_flight(app: &App) -> f64 {
    app.hookgate.metrics().await.value("hookgate_requests_in_flight", &[])
}
