//! HTTP/2: many requests share a connection, and none delays or loses another.

use bytes::Bytes;
use hyper::Version;
use testkit::App;
use testkit::config::patient;
use testkit::http2::{Frame, Frames, Streams, kind};
use testkit::refusals::{self, Row, assert_envelope, small_app_from};
use testkit::tls::Authority;
use testkit::wait::until;

#[tokio::test]
async fn one_connection_serves_many_requests_at_once() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).config(patient).start().await;
    assert_eq!(app.webhook("wh_1").send().await.version, Version::HTTP_2);
    app.redis.freeze();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..80 {
        let call = app.webhook("wh_1");
        waiting.spawn(async move { call.send().await.matched() });
    }
    until("all requests are in flight", async || in_flight(&app).await >= 80.0).await;
    let connections = app.hookgate.metrics().await.value("hookgate_connections", &[]);
    assert!((connections - 1.0).abs() < 0.1, "{connections}");
    app.redis.thaw();
    assert_eq!(waiting.join_all().await, [1; 80]);
    assert_eq!(app.redis.queue().waiting_exactly(81).await.len(), 81);
    app.assert_accounting().await;
}

#[tokio::test]
async fn every_refusal_is_answered_and_keeps_the_connection() {
    let authority = Authority::new();
    let app = small_app_from(App::build().tls(&authority)).await;
    let in_pieces = |count: usize| {
        let pieces = (0..count).map(|_| Ok(Bytes::from(vec![b' '; 256])));
        futures_util::stream::iter(pieces)
    };
    let mut rows = refusals::rows(&app);
    let (status, code) = (413, "payload_too_large");
    let call = app.post("").pieces(in_pieces(4096));
    rows.push(Row { what: "in pieces", call, status, code });
    let call = app.post(vec![b' '; 1 << 20]).bearer("nobody");
    rows.push(Row { what: "large and unread", call, status: 401, code: "invalid_api_key" });
    let count = rows.len();
    for row in rows {
        let reply = row.call.send().await;
        assert_envelope(&reply, row.status, row.code, row.what);
        assert_eq!(reply.version, Version::HTTP_2);
        assert_eq!(reply.header("connection"), None);
    }
    app.redis.queue().assert_empty().await;
    // The body comes in pieces and stays within the bound.
    app.post("").pieces(in_pieces(4)).send().await.assert_rejected(400, "invalid_json");
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let metrics = app.hookgate.metrics().await;
    assert!(
        (metrics.value("hookgate_connections", &[]) - 1.0).abs() < 0.1,
        "one connection for all requests"
    );
    assert!(metrics.sum("hookgate_requests_total") >= count as f64);
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_late_body_ends_only_its_own_stream() {
    let authority = Authority::new();
    let app = App::build()
        .tls(&authority)
        .config(|config| {
            config.set("server.body_timeout", "500ms").set("queue.enqueue_timeout", "1m");
        })
        .start()
        .await;
    let mut streams = Streams::open(&authority, app.hookgate.address()).await;
    let late = streams.begin().await.expect("a stream");
    let mut half = streams.begin().await.expect("a stream");
    half.body.send_data(Bytes::from_static(b"{\"webhookId\":"), false).expect("an open stream");
    app.redis.freeze();
    let mut whole = streams.begin().await.expect("a stream");
    whole.finish("{\"webhookId\":\"wh_1\"}").expect("an open stream");
    late.reply().await.expect("an answer").assert_rejected(408, "request_timeout");
    half.reply().await.expect("an answer").assert_rejected(408, "request_timeout");
    app.redis.thaw();
    assert_eq!(whole.reply().await.expect("an answer").matched(), 1);
    assert_eq!(streams.webhook("wh_1").await.expect("an answer").matched(), 1);
}

#[tokio::test]
async fn a_stream_reset_after_its_body_is_processed() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).config(patient).start().await;
    app.redis.freeze();
    let mut streams = Streams::open(&authority, app.hookgate.address()).await;
    let mut stream = streams.begin().await.expect("a stream");
    stream.finish("{\"webhookId\":\"wh_1\",\"reset\":1}").expect("an open stream");
    until("the batch is in flight", async || {
        app.hookgate.metrics().await.value("hookgate_batch_jobs_count", &[]) >= 1.0
    })
    .await;
    let mut other = streams.begin().await.expect("a stream");
    other.finish("{\"webhookId\":\"wh_1\",\"other\":1}").expect("an open stream");
    stream.body.send_reset(h2::Reason::CANCEL);
    until("the service has received it", async || {
        app.hookgate.metrics().await.requests("client_closed") >= 1.0
    })
    .await;
    app.redis.thaw();
    assert_eq!(other.reply().await.expect("an answer").matched(), 1);
    let jobs = app.redis.queue().waiting_exactly(2).await;
    assert!(jobs.iter().any(|job| job.payload_text() == "{\"reset\":1}"));
    let metrics = app.hookgate.metrics().await;
    let counted = [metrics.requests("client_closed"), metrics.requests("accepted")];
    assert!(counted.iter().all(|count| (count - 1.0).abs() < 0.1), "{counted:?}");
    assert!((metrics.value("hookgate_jobs_enqueued_total", &[]) - 2.0).abs() < 0.1);
}

#[tokio::test]
async fn a_stream_reset_before_its_end_adds_nothing() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).start().await;
    let mut streams = Streams::open(&authority, app.hookgate.address()).await;
    let mut half = streams.begin().await.expect("a stream");
    half.body
        .send_data(Bytes::from_static(b"{\"webhookId\":\"wh_1\"}"), false)
        .expect("an open stream");
    until("the request is in flight", async || in_flight(&app).await >= 1.0).await;
    half.body.send_reset(h2::Reason::CANCEL);
    until("the request is counted", async || {
        app.hookgate.metrics().await.requests("client_closed") >= 1.0
    })
    .await;
    // A body whose length differs from its content-length.
    let headers = [("authorization", "Bearer key_a"), ("content-length", "21")];
    let mut short = streams.begin_with(&headers).await.expect("a stream");
    short.finish("{\"webhookId\":\"wh_1\"}").expect("an open stream");
    assert!(short.reply().await.is_err(), "the stream is reset");
    app.redis.queue().assert_empty().await;
    assert_eq!(streams.webhook("wh_1").await.expect("an answer").matched(), 1);
    until("nothing is in flight", async || in_flight(&app).await < 1.0).await;
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_after_its_timeout() {
    let authority = Authority::new();
    let app = App::build()
        .tls(&authority)
        .config(|config| {
            config.set("server.header_timeout", "2s").set("server.idle_timeout", "2s");
        })
        .start()
        .await;
    let address = app.hookgate.address();
    // A connection without a first request.
    let unused = Frames::open(&authority, address).await;
    // A head that does not end, as the first one and as a later one.
    let mut half = Frames::open(&authority, address).await;
    half.send(&[Frame::head(0, 1, &[])]).await;
    let mut half_later = Frames::open(&authority, address).await;
    let body = Frame::new(kind::DATA, 1, 1, b"{\"webhookId\":\"wh_1\"}".to_vec());
    half_later.send(&[Frame::head(4, 1, &[]), body, Frame::head(0, 3, &[])]).await;
    // A connection with one request, and then only answers to pings.
    let mut idle = Streams::open(&authority, address).await;
    assert_eq!(idle.webhook("wh_1").await.expect("an answer").matched(), 1);
    unused.closed().await;
    half.closed().await;
    half_later.closed().await;
    assert!(idle.closed().await.is_ok(), "a GOAWAY without an error");
    until("no connection is counted", async || {
        app.hookgate.metrics().await.value("hookgate_connections", &[]) < 1.0
    })
    .await;
    assert_eq!(app.redis.queue().waiting().await.len(), 2);
}

#[tokio::test]
async fn an_old_connection_is_asked_to_close_and_loses_nothing() {
    let authority = Authority::new();
    let app = App::build()
        .tls(&authority)
        .config(patient)
        .config(|config| {
            config.set("server.max_connection_age", "1s");
        })
        .start()
        .await;
    let mut streams = Streams::open(&authority, app.hookgate.address()).await;
    let mut open = streams.begin().await.expect("a stream");
    let mut served = 1;
    while let Ok(reply) = streams.webhook("wh_1").await {
        assert_eq!(reply.matched(), 1);
        served += 1;
    }
    assert!(!streams.is_closed(), "a stream is open");
    open.finish("{\"webhookId\":\"wh_1\"}").expect("an open stream");
    assert_eq!(open.reply().await.expect("an answer").matched(), 1);
    assert!(streams.closed().await.is_ok(), "a GOAWAY without an error");
    assert_eq!(app.redis.queue().waiting().await.len(), served);
}

async fn in_flight(app: &App) -> f64 {
    app.hookgate.metrics().await.value("hookgate_requests_in_flight", &[])
}
