//! Callers who do not wait for their answer.

mod harness;

use harness::App;
use harness::raw::Connection;
use harness::wait::until;

const HEAD: &str =
    "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n";
const BODY: &str = r#"{"webhookId":"wh_1"}"#;

#[tokio::test]
async fn a_request_is_carried_out_whether_or_not_the_caller_is_still_there() {
    let app = App::with(|config| {
        config.set("queue.enqueue_timeout", "30s");
    })
    .await;
    app.redis.freeze();
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(format!("{HEAD}Content-Length: {}\r\n\r\n{BODY}", BODY.len())).await;
    until("the batch is on its way", async || {
        app.hookgate.metrics().await.value("hookgate_batch_jobs_count", &[]) >= 1.0
    })
    .await;
    drop(connection);
    until("the service has seen that the caller is gone", async || {
        app.hookgate.metrics().await.value("hookgate_connections", &[]) < 1.0
    })
    .await;
    app.redis.thaw();

    let job = app.redis.queue().waiting_exactly(1).await.remove(0);
    assert_eq!(job.at("/workflowId"), "wf_1");
    counted_once_as(&app, "client_closed").await;
    assert!(
        (app.hookgate.metrics().await.value("hookgate_jobs_enqueued_total", &[]) - 1.0).abs() < 0.1
    );
}

#[tokio::test]
async fn half_a_request_adds_nothing() {
    let app = App::start().await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(format!("{HEAD}Content-Length: {}\r\n\r\n{BODY}", BODY.len() + 1)).await;
    until("the request is in flight", async || {
        app.hookgate.metrics().await.value("hookgate_requests_in_flight", &[]) >= 1.0
    })
    .await;
    drop(connection);
    counted_once_as(&app, "client_closed").await;
    app.redis.queue().assert_empty().await;
}

#[tokio::test]
async fn what_a_caller_leaves_behind_is_given_free() {
    let app = App::with(|config| {
        config.set("limits.in_flight_requests", 1).set("server.max_connections", 1);
    })
    .await;
    for _ in 0..20 {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(format!("{HEAD}Content-Length: 100\r\n\r\n{{")).await;
        until("the request is in flight", async || {
            app.hookgate.metrics().await.value("hookgate_requests_in_flight", &[]) >= 1.0
        })
        .await;
        drop(connection);
        until("nothing is in flight", async || {
            app.hookgate.metrics().await.value("hookgate_requests_in_flight", &[]) < 1.0
        })
        .await;
    }
    until("webhooks are accepted", async || app.webhook("wh_1").send().await.status == 202).await;
}

/// One request was received: it is counted under this code and under no other.
async fn counted_once_as(app: &App, code: &str) {
    until(&format!("the request is counted as {code}"), async || {
        let metrics = app.hookgate.metrics().await;
        metrics.sum("hookgate_requests_total") >= 1.0
    })
    .await;
    let metrics = app.hookgate.metrics().await;
    assert!(
        (metrics.requests(code) - 1.0).abs() < 0.1,
        "{:?}",
        metrics.series("hookgate_requests_total")
    );
    assert!((metrics.sum("hookgate_requests_total") - 1.0).abs() < 0.1);
}
