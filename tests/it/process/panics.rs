//! Panics in Hookgate: each costs a request, a connection or a batch, or it ends the process.
//! Nothing continues half alive.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use testkit::raw::Connection;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Documents, Mongo, documents};
use tokio::net::TcpStream;

const WEBHOOK: &str = "POST /api/webhook/workflow HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer key_a\r\n\
    Content-Length: 20\r\n\r\n{\"webhookId\":\"wh_1\"}";

#[tokio::test]
async fn a_panic_in_a_request_fails_that_request() {
    let app = App::build().failpoints().start().await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    app.panic_at("request");
    for status in [500, 202] {
        connection.send(WEBHOOK).await;
        let reply = connection.reply().await.expect("the connection continues");
        assert_eq!(reply.status, status, "{}", reply.text());
        if status == 500 {
            reply.assert_rejected(500, "internal");
            assert_eq!(reply.json()["details"]["enqueued"], "none");
        }
    }
    app.redis.queue().only_job().await;
    let metrics = app.hookgate.metrics().await;
    assert_eq!((metrics.requests("internal"), metrics.requests("accepted")), (1.0, 1.0));
    wait_until_nothing_is_counted(&app).await;
    let log = app.hookgate.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("panic")).collect();
    let is_told = |line: &&str| line.contains("ERROR") && line.contains("place=\"src/");
    assert_eq!(lines.iter().filter(|line| is_told(line)).count(), 1, "{lines:#?}");
}

#[tokio::test]
async fn a_panic_on_a_connection_closes_that_connection() {
    let app = App::build().failpoints().start().await;
    let mut other = Connection::open(app.hookgate.address()).await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    app.panic_at("connection");
    // The panic comes after the request and before its answer is sent.
    connection.send(WEBHOOK).await;
    assert_eq!(connection.closed().await, b"");
    other.send(WEBHOOK).await;
    assert_eq!(other.reply().await.expect("an answer").matched(), 1);
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.sum("hookgate_requests_total"), 2.0);
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 2);
    drop(other);
    wait_until_nothing_is_counted(&app).await;
}

#[tokio::test]
async fn a_panic_on_a_stream_resets_that_stream() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).failpoints().start().await;
    app.webhook("wh_1").send().await.matched();
    app.panic_at("connection");
    assert!(app.webhook("wh_1").try_send().await.is_err(), "the stream is reset");
    app.webhook("wh_1").send().await.matched();
    assert_eq!(app.hookgate.metrics().await.sum("hookgate_requests_total"), 3.0);
}

/// Slots are released, or the second of two connections would wait for ever.
#[tokio::test]
async fn panics_on_connections_leak_no_slot() {
    let app = App::build().failpoints().config(|config| {
        config.set("server.max_connections", 1).set("limits.in_flight_requests", 1);
    });
    let app = app.start().await;
    for _ in 0..5 {
        let mut connection = Connection::open(app.hookgate.address()).await;
        app.panic_at("connection");
        connection.send(WEBHOOK).await;
        assert_eq!(connection.closed().await, b"");
    }
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

#[tokio::test]
async fn a_panic_after_a_batch_leaves_its_requests_in_doubt() {
    let app = App::build().failpoints().start().await;
    app.panic_at("delivery");
    app.webhook("wh_1").send().await.assert_not_enqueued("unknown");
    app.redis.queue().only_job().await;
    let unacknowledged = async |enqueued| {
        let metrics = app.hookgate.metrics().await;
        metrics.value("hookgate_unacknowledged_total", &[("enqueued", enqueued)])
    };
    assert_eq!((unacknowledged("unknown").await, unacknowledged("none").await), (1.0, 0.0));
    for _ in 0..4 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
    assert_eq!(unacknowledged("unknown").await, 1.0);
    wait_until_nothing_is_counted(&app).await;
}

#[tokio::test]
async fn a_panicked_stream_reader_is_replaced() {
    let database = Mongo::shared().await.database().await;
    database.insert(&Documents::two_organizations()).await;
    let app = App::build().failpoints().mongo(&database).start().await;
    for round in 0..3 {
        app.panic_at("stream");
        let webhook = format!("wh_new_{round}");
        let workflow = documents::workflow(&format!("wf_new_{round}"), "org_a", &webhook);
        let new = Documents { workflows: vec![workflow], users: vec![] };
        database.insert(&new).await;
        until("the change is followed", async || app.webhook(&webhook).send().await.has_matched(1))
            .await;
    }
    until("all panics have happened", async || {
        app.hookgate.log().matches("a test has requested a panic").count() >= 3
    })
    .await;
    app.hookgate.ready().await;
}

/// Each of these tasks runs as long as the process and is critical.
#[tokio::test]
async fn a_panic_in_a_critical_task_ends_the_process() {
    let authority = Authority::new();
    let tasks = [
        "admin",
        "batcher",
        "certificate",
        "health of Redis",
        "limits",
        "metrics",
        "reconnect",
        "reload",
        "token keys",
        "users",
        "workflows",
    ];
    let database = Mongo::shared().await.database().await;
    database.insert(&Documents::two_organizations()).await;
    for task in tasks {
        let app = App::build().failpoints().tls(&authority).mongo(&database).start().await;
        app.panic_at(task);
        // Each task gets something to do; requests fail if the process ends meanwhile.
        if task == "reload" {
            app.hookgate.process().signal("HUP");
        }
        let _ = app.webhook("wh_1").try_send().await;
        let _ = TcpStream::connect(app.hookgate.admin_address()).await;
        let code = app.hookgate.process().wait().await;
        let log = app.hookgate.log();
        assert_eq!(code, 1, "{task}: {log}");
        let reason = format!("critical task {task:?} panicked");
        assert!(log.contains(&format!("reason={reason:?}")), "{task}: {log}");
    }
}

#[tokio::test]
async fn a_panic_in_a_worker_ends_the_process() {
    let app = App::build().failpoints().start().await;
    app.panic_at("worker");
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(WEBHOOK).await;
    assert_eq!(app.hookgate.process().wait().await, 1);
    assert!(app.hookgate.log().contains("a worker has exited unexpectedly"));
}

/// Waits until no closed connection and no finished request is counted.
async fn wait_until_nothing_is_counted(app: &App) {
    until("nothing is held", async || {
        let metrics = app.hookgate.metrics().await;
        let of_requests = metrics.value("hookgate_requests_in_flight", &[]);
        let connections = metrics.value("hookgate_connections", &[]);
        // Callers may keep one connection for their next request.
        of_requests == 0.0 && connections <= 1.0
    })
    .await;
}
