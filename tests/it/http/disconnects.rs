//! Callers who do not wait for their answer.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use testkit::App;
use testkit::metrics::Metrics;
use testkit::raw::Connection;
use testkit::wait::until;

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

#[tokio::test]
async fn a_whole_request_is_carried_out_though_its_end_is_the_end_of_all() {
    const CALLERS: usize = 200;
    let app = App::start().await;
    let request = format!("{HEAD}Content-Length: {}\r\n\r\n{BODY}", BODY.len());
    // Stopped meanwhile, so that requests and ends are there together when it looks.
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

/// A caller that closes after any byte of its request.
#[tokio::test]
async fn a_caller_may_go_at_every_point() {
    // Fewer than there are requests here: a place that was not given back would show.
    let app = App::with(|config| {
        config.set("limits.in_flight_requests", 30);
    })
    .await;
    let head = format!("{HEAD}Content-Length: {}\r\n\r\n", BODY.len());
    let request = format!("{head}{BODY}");
    for sent in 0..=request.len() {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(&request[..sent]).await;
        connection.finish().await;
        // It may still read, and then learns that its body has not come; half a head gets no answer.
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
    // A head makes a request, and a body a webhook.
    let requests = 1.0 + BODY.len() as f64;
    let metrics = settled(&app).await;
    assert_eq!(metrics.sum("hookgate_requests_total"), requests);
    assert_eq!(metrics.requests("client_closed") + metrics.requests("accepted"), requests);
    assert!(metrics.requests("accepted") <= 1.0);
    assert_eq!(app.redis.queue().waiting_exactly(1).await.len(), 1);

    // Likewise with a reset, which may overtake what was sent before it.
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
    until("the place is free", async || app.webhook("wh_1").send().await.status == 202).await;
}

#[tokio::test]
async fn who_sends_much_at_once_and_goes_is_served_all_the_same() {
    let app = App::with(|config| {
        config.set("queue.enqueue_timeout", "30s").set("server.workers", 1);
    })
    .await;
    app.redis.freeze();
    let request = format!("{HEAD}Content-Length: {}\r\n\r\n{BODY}", BODY.len());
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(request.repeat(2)).await;
    until("the first is on its way", async || {
        app.hookgate.metrics().await.value("hookgate_batch_jobs_count", &[]) >= 1.0
    })
    .await;
    drop(connection);
    app.redis.thaw();
    // The second was received, but not begun: it may be carried out or not, and is counted if it is.
    let metrics = settled(&app).await;
    let counted = metrics.sum("hookgate_requests_total");
    assert!((1.0..=2.0).contains(&counted), "{counted}");
    assert_eq!(metrics.requests("client_closed") + metrics.requests("accepted"), counted);
    until("what was begun is carried out", async || {
        app.redis.queue().waiting_ids().await.len() as f64 == counted
    })
    .await;
}

/// The metrics when nobody is connected any more and nothing is in flight.
async fn settled(app: &App) -> Metrics {
    until("nothing is in flight", async || {
        let metrics = app.hookgate.metrics().await;
        metrics.sum("hookgate_connections") + metrics.sum("hookgate_requests_in_flight") == 0.0
    })
    .await;
    // Another look, since counters are read before gauges.
    app.hookgate.metrics().await
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
