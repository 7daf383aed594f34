//! Faults of our own: a panic costs a request, a connection or a batch, or it ends the process. Nothing goes on half alive.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use testkit::raw::Connection;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Documents, Mongo, documents};
use tokio::net::TcpStream;

const WEBHOOK: &str = "POST /api/webhook/workflow HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer key_a\r\n\
    Content-Length: 20\r\n\r\n{\"webhookId\":\"wh_1\"}";

#[tokio::test]
async fn in_a_request_it_costs_that_request() {
    let app = App::build().failpoints().start().await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    app.panic_at("request");
    for status in [500, 202] {
        connection.send(WEBHOOK).await;
        let reply = connection.reply().await.expect("the connection goes on");
        assert_eq!(reply.status, status, "{}", reply.text());
        if status == 500 {
            reply.assert_rejected(500, "internal");
            assert_eq!(reply.json()["details"]["enqueued"], "none");
        }
    }
    app.redis.queue().only_job().await;
    let metrics = app.hookgate.metrics().await;
    assert_eq!((metrics.requests("internal"), metrics.requests("accepted")), (1.0, 1.0));
    assert_nothing_is_held(&app).await;
    let log = app.hookgate.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("panic")).collect();
    let is_told = |line: &&str| line.contains("ERROR") && line.contains("place=\"src/");
    assert_eq!(lines.iter().filter(|line| is_told(line)).count(), 1, "{lines:#?}");
}

#[tokio::test]
async fn on_a_connection_it_costs_that_connection() {
    let app = App::build().failpoints().start().await;
    let mut other = Connection::open(app.hookgate.address()).await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    app.panic_at("connection");
    // Behind the request, and before its answer goes out.
    connection.send(WEBHOOK).await;
    assert_eq!(connection.closed().await, b"");
    other.send(WEBHOOK).await;
    assert_eq!(other.reply().await.expect("an answer").matched(), 1);
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.sum("hookgate_requests_total"), 2.0);
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 2);
    drop(other);
    assert_nothing_is_held(&app).await;
}

#[tokio::test]
async fn on_a_stream_it_costs_that_stream() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).failpoints().start().await;
    app.webhook("wh_1").send().await.matched();
    app.panic_at("connection");
    assert!(app.webhook("wh_1").try_send().await.is_err(), "its stream is reset");
    app.webhook("wh_1").send().await.matched();
    assert_eq!(app.hookgate.metrics().await.sum("hookgate_requests_total"), 3.0);
}

/// Places are given back, or the second of two connections would wait for ever.
#[tokio::test]
async fn on_every_connection_it_takes_no_place_away() {
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
async fn behind_a_batch_nobody_is_told_what_is_not_known() {
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
    assert_nothing_is_held(&app).await;
}

#[tokio::test]
async fn a_reader_of_a_stream_is_replaced() {
    let database = Mongo::shared().await.database().await;
    database.insert(&Documents::two_organizations()).await;
    let app = App::build().failpoints().mongo(&database).start().await;
    for round in 0..3 {
        app.panic_at("stream");
        let webhook = format!("wh_new_{round}");
        let workflow = documents::workflow(&format!("wf_new_{round}"), "org_a", &webhook);
        let new = Documents { workflows: vec![workflow], users: vec![] };
        database.insert(&new).await;
        until("the change is seen", async || app.webhook(&webhook).send().await.has_matched(1))
            .await;
    }
    until("all of them have happened", async || {
        app.hookgate.log().matches("a test has asked for a panic").count() >= 3
    })
    .await;
    app.hookgate.ready().await;
}

/// Each of them runs as long as the process, and nothing would be right without it.
#[tokio::test]
async fn in_a_task_that_all_need_it_ends_the_process() {
    let authority = Authority::new();
    let tasks = [
        "admin",
        "batcher",
        "certificate",
        "health of Redis",
        "limits",
        "link",
        "metrics",
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
        // Each is given something to do; all of it fails when the process ends meanwhile.
        if task == "reload" {
            app.hookgate.process().signal("HUP");
        }
        let _ = app.webhook("wh_1").try_send().await;
        let _ = TcpStream::connect(app.hookgate.admin_address()).await;
        let code = app.hookgate.process().wait().await;
        let log = app.hookgate.log();
        assert_eq!(code, 1, "{task}: {log}");
        let told = format!("nothing goes without the task {task:?}, and it has panicked");
        assert!(log.contains(&told), "{task}: {log}");
    }
}

#[tokio::test]
async fn in_a_worker_it_ends_the_process() {
    let app = App::build().failpoints().start().await;
    app.panic_at("worker");
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(WEBHOOK).await;
    assert_eq!(app.hookgate.process().wait().await, 1);
    assert!(app.hookgate.log().contains("a worker has ended by itself"));
}

/// Neither connections nor requests are counted that are there no more.
async fn assert_nothing_is_held(app: &App) {
    until("nothing is held", async || {
        let metrics = app.hookgate.metrics().await;
        let of_requests = metrics.value("hookgate_requests_in_flight", &[]);
        let connections = metrics.value("hookgate_connections", &[]);
        // Callers may keep one for their next request.
        of_requests == 0.0 && connections <= 1.0
    })
    .await;
}
