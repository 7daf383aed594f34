//! Callers that do not wait for their answer.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use testkit::App;
use testkit::metrics::Metrics;
use testkit::raw::Connection;
use testkit::wait::until;

const HEAD: &str =
    "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n";
const BODY: &str = r#"{"webhookId":"wh_1"}"#;

#[tokio::test]
async fn a_complete_request_is_processed_after_its_caller_disconnects() {
    let app = App::with(|config| {
        config.set("queue.enqueue_timeout", "30s");
    })
    .await;
    app.redis.freeze();
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(format!("{HEAD}Content-Length: {}\r\n\r\n{BODY}", BODY.len())).await;
    until("the batch is in flight", async || {
        app.hookgate.metrics().await.value("hookgate_batch_jobs_count", &[]) >= 1.0
    })
    .await;
    drop(connection);
    until("the service has noticed the caller's disconnect", async || {
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
async fn an_incomplete_request_adds_nothing() {
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
async fn a_disconnected_caller_has_its_permit_released() {
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

#[tokio::test]
async fn a_request_followed_by_a_close_is_processed() {
    const CALLERS: usize = 200;
    let app = App::start().await;
    let request = format!("{HEAD}Content-Length: {}\r\n\r\n{BODY}", BODY.len());
    // Hookgate is stopped, so that it finds requests and the ends of their connections together.
    app.hookgate.process().signal("STOP");
    for caller in 0..CALLERS {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(request.repeat(1 + caller % 2)).await;
        connection.finish().await;
        drop(connection);
    }
    app.hookgate.process().signal("CONT");
    let requests = CALLERS + CALLERS / 2;
    assert_eq!(app.redis.queue().waiting_exactly(requests).await.len(), requests);
    let metrics = settled(&app).await;
    assert_eq!(metrics.sum("hookgate_requests_total"), requests as f64);
}

/// A caller closes after any byte of its request.
#[tokio::test]
async fn a_caller_may_disconnect_at_any_byte() {
    // The bound is lower than the number of requests, so that a permit that is not released would
    // show. On a busy machine, all requests of one pass are in flight at a time.
    let app = App::with(|config| {
        config.set("limits.in_flight_requests", 30);
        config.set("limits.organization.in_flight_share", 1.0);
    })
    .await;
    let head = format!("{HEAD}Content-Length: {}\r\n\r\n", BODY.len());
    let request = format!("{head}{BODY}");
    for sent in 0..=request.len() {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(&request[..sent]).await;
        connection.finish().await;
        // The caller may still read, and is then answered that its body has not arrived. Half a
        // head gets no answer.
        let answer = connection.reply().await;
        let status = answer.as_ref().map(|answer| answer.status);
        match sent.checked_sub(head.len()) {
            None => assert_eq!(status, None, "{sent} bytes"),
            Some(body) if body < BODY.len() => {
                assert_eq!(status.unwrap_or(408), 408, "{sent} bytes");
            }
            Some(_) => assert_eq!(status.unwrap_or(202), 202),
        }
        assert_eq!(connection.closed().await, b"");
    }
    // A complete head counts as a request, and a complete body adds a job.
    let requests = 1.0 + BODY.len() as f64;
    let metrics = settled(&app).await;
    assert_eq!(metrics.sum("hookgate_requests_total"), requests);
    assert_eq!(metrics.requests("client_closed") + metrics.requests("accepted"), requests);
    assert!(metrics.requests("accepted") <= 1.0);
    assert_eq!(app.redis.queue().waiting_exactly(1).await.len(), 1);

    // The same with a reset, which may overtake what was sent before it.
    for sent in 0..=request.len() {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(&request[..sent]).await;
        connection.reset();
    }
    let metrics = settled(&app).await;
    let counted = metrics.sum("hookgate_requests_total");
    assert!(counted <= 2.0 * requests, "{counted}");
    assert_eq!(metrics.requests("client_closed") + metrics.requests("accepted"), counted);
    let jobs = app.redis.queue().waiting_ids().await.len();
    assert!(jobs <= 2, "{jobs}");
    until("the permit is released", async || app.webhook("wh_1").send().await.status == 202).await;
}

#[tokio::test]
async fn pipelined_requests_before_a_disconnect_are_processed() {
    let app = App::with(|config| {
        config.set("queue.enqueue_timeout", "30s").set("server.workers", 1);
    })
    .await;
    app.redis.freeze();
    let request = format!("{HEAD}Content-Length: {}\r\n\r\n{BODY}", BODY.len());
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(request.repeat(2)).await;
    until("the first request is in flight", async || {
        app.hookgate.metrics().await.value("hookgate_batch_jobs_count", &[]) >= 1.0
    })
    .await;
    drop(connection);
    app.redis.thaw();
    // The second request was received but not begun. It may be processed or not, and is counted if
    // it is.
    let metrics = settled(&app).await;
    let counted = metrics.sum("hookgate_requests_total");
    assert!((1.0..=2.0).contains(&counted), "{counted}");
    assert_eq!(metrics.requests("client_closed") + metrics.requests("accepted"), counted);
    until("every request that was begun is done", async || {
        app.redis.queue().waiting_ids().await.len() as f64 == counted
    })
    .await;
}

/// The metrics once no caller is connected and nothing is in flight.
async fn settled(app: &App) -> Metrics {
    until("nothing is in flight", async || {
        let metrics = app.hookgate.metrics().await;
        metrics.sum("hookgate_connections") + metrics.sum("hookgate_requests_in_flight") == 0.0
    })
    .await;
    // Reads again, because counters are read before gauges.
    app.hookgate.metrics().await
}

/// Waits until the one request is counted under this code and under no other.
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
