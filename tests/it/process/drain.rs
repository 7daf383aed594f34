//! The drain delay: callers are asked to go elsewhere before the port closes, and all that they
//! still send is served.

use testkit::config::patient;
use testkit::http2::Streams;
use testkit::raw::Connection;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Config};
use tokio::net::TcpStream;

const WEBHOOK: &str = "POST /api/webhook/workflow HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer key_a\r\n\
    Content-Length: 20\r\n\r\n{\"webhookId\":\"wh_1\"}";

#[tokio::test]
async fn answers_in_the_drain_delay_close_their_connection() {
    let app = App::with(with_long_drain_delay).await;
    let mut waiting = Connection::open(app.hookgate.address()).await;
    waiting.send(WEBHOOK).await;
    let reply = waiting.reply().await.expect("an answer");
    assert_eq!((reply.matched(), reply.header("connection")), (1, None));
    app.hookgate.process().signal("TERM");
    app.hookgate.unready().await;
    let (_, readiness) = app.hookgate.readiness().await;
    assert_eq!(readiness["ready"], false, "{readiness}");
    // An idle connection is served once more, and so is a new one; a refusal closes its connection
    // as well.
    let mut new = Connection::open(app.hookgate.address()).await;
    for connection in [&mut waiting, &mut new] {
        connection.send(WEBHOOK).await;
        let reply = connection.reply().await.expect("an answer");
        assert_eq!((reply.matched(), reply.header("connection")), (1, Some("close")));
        assert!(connection.closed().await.is_empty());
    }
    let refused = app.raw("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!((refused.status, refused.header("connection")), (404, Some("close")));
    assert_eq!(app.hookgate.process().exit_code(), None, "the process is still in the drain delay");
    assert_eq!(app.hookgate.process().wait().await, 0);
    assert!(TcpStream::connect(app.hookgate.address()).await.is_err());
    assert_eq!(app.redis.queue().waiting().await.len(), 3);
}

#[tokio::test]
async fn http2_connections_get_a_goaway_in_the_drain_delay() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).config(with_long_drain_delay).start().await;
    let address = app.hookgate.address();
    let mut used = Streams::open(&authority, address).await;
    assert_eq!(used.webhook("wh_1").await.expect("an answer").matched(), 1);
    let mut open = used.begin().await.expect("a stream");
    app.hookgate.process().signal("TERM");
    app.hookgate.unready().await;
    // The GOAWAY comes at once, while a stream is still open.
    until("no stream is accepted any more", async || used.webhook("wh_1").await.is_err()).await;
    open.finish("{\"webhookId\":\"wh_1\"}").expect("an open stream");
    assert_eq!(open.reply().await.expect("an answer").matched(), 1);
    assert!(used.closed().await.is_ok(), "a GOAWAY without an error");
    // New connections are answered, whether their first request comes at once or after a while.
    for _ in 0..3 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
    let mut late = Streams::open(&authority, address).await;
    assert_eq!(late.webhook("wh_1").await.expect("an answer").matched(), 1);
    assert!(late.closed().await.is_ok(), "a GOAWAY without an error");
    assert_eq!(app.hookgate.process().exit_code(), None, "the process is still in the drain delay");
    assert_eq!(app.hookgate.process().wait().await, 0);
}

#[tokio::test]
async fn stopping_with_open_streams_loses_no_request() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).config(patient).start().await;
    let mut streams = Streams::open(&authority, app.hookgate.address()).await;
    let unused = Streams::open(&authority, app.hookgate.address()).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(streams.begin().await.expect("a stream"));
    }
    app.redis.freeze();
    let (whole, late) = open.split_at_mut(5);
    for stream in whole {
        stream.finish("{\"webhookId\":\"wh_1\"}").expect("an open stream");
    }
    until("all requests are in flight", async || {
        app.hookgate.metrics().await.value("hookgate_requests_in_flight", &[]) >= 10.0
    })
    .await;
    app.hookgate.process().signal("TERM");
    app.hookgate.unready().await;
    for stream in late {
        stream.finish("{\"webhookId\":\"wh_1\"}").expect("an open stream");
    }
    app.redis.thaw();
    for stream in open {
        assert_eq!(stream.reply().await.expect("an answer").matched(), 1);
    }
    assert!(streams.closed().await.is_ok(), "a GOAWAY without an error");
    // It has sent nothing and does not delay the exit.
    let _ = unused.closed().await;
    assert_eq!(app.hookgate.process().wait().await, 0);
    assert_eq!(app.redis.queue().waiting().await.len(), 10);
}

/// Leaves time for checks before the port closes.
fn with_long_drain_delay(config: &mut Config) {
    config.set("server.drain_delay", "8s");
}
