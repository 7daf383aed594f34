//! Connections: kept as long as they may be, and not longer.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

mod harness;

use harness::App;
use harness::raw::Connection;
use harness::wait::until;

const WEBHOOK: &str = "POST /api/webhook/workflow HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer key_a\r\n\
    Content-Length: 20\r\n\r\n{\"webhookId\":\"wh_1\"}";

#[tokio::test]
async fn a_connection_serves_many_requests_one_after_another_or_at_once() {
    let app = App::start().await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    for _ in 0..3 {
        connection.send(WEBHOOK).await;
        assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
    }
    connection.send(WEBHOOK.repeat(3)).await;
    for _ in 0..3 {
        assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off() {
    let app = App::with(|config| {
        config.set("server.header_timeout", "300ms");
    })
    .await;
    let mut silent = Connection::open(app.hookgate.address()).await;
    let mut dribbling = Connection::open(app.hookgate.address()).await;
    dribbling.send("POST /api/webhook/wo").await;
    let mut second_head = Connection::open(app.hookgate.address()).await;
    second_head.send(WEBHOOK).await;
    assert_eq!(second_head.reply().await.expect("an answer").matched(), 1);
    second_head.send("POST /").await;
    assert!(silent.closed().await.is_empty());
    assert!(dribbling.closed().await.is_empty());
    assert!(second_head.closed().await.is_empty());
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_its_time() {
    let app = App::with(|config| {
        config.set("server.idle_timeout", "300ms");
    })
    .await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(WEBHOOK).await;
    assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
    assert!(connection.closed().await.is_empty());
    until("the connection is no longer counted", async || {
        app.hookgate.metrics().await.sum("hookgate_connections") == 0.0
    })
    .await;
}

#[tokio::test]
async fn an_old_connection_is_asked_to_close_and_loses_nothing() {
    let app = App::with(|config| {
        config.set("server.max_connection_age", "1s");
    })
    .await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    let mut served = 0;
    loop {
        connection.send(WEBHOOK).await;
        let reply = connection.reply().await.expect("each is answered");
        assert_eq!(reply.matched(), 1);
        served += 1;
        if reply.header("connection") == Some("close") {
            break;
        }
    }
    assert!(served > 0);
    assert!(connection.closed().await.is_empty());
    assert_eq!(app.redis.queue().waiting().await.len(), served);
}

#[tokio::test]
async fn callers_beyond_the_bound_wait_for_a_place() {
    let app = App::with(|config| {
        config.set("server.max_connections", 1).set("server.workers", 2);
    })
    .await;
    let mut connections = Vec::new();
    for _ in 0..8 {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(WEBHOOK).await;
        connections.push(connection);
    }
    // One of them has the place; each is answered when those before it have left. The kernel
    // shares the callers out over the workers, so that nobody knows the order.
    let mut waiting: tokio::task::JoinSet<u64> = tokio::task::JoinSet::new();
    for mut connection in connections {
        waiting.spawn(async move { connection.reply().await.expect("an answer").matched() });
    }
    assert_eq!(waiting.join_all().await, [1; 8]);
}

#[tokio::test]
async fn running_out_of_descriptors_is_survived() {
    const ROOM: usize = 12;
    let app = App::start().await;
    // One connection for operators and those to Redis are open by then.
    app.hookgate.metrics().await;
    let mut first = Connection::open(app.hookgate.address()).await;
    first.send(WEBHOOK).await;
    assert_eq!(first.reply().await.expect("an answer").matched(), 1);
    let pid = app.hookgate.process().pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count();
    limit_open_files(pid, open + ROOM);

    let begun = tokio::time::Instant::now();
    let mut callers = Vec::new();
    for _ in 0..3 * ROOM {
        let mut caller = Connection::open(app.hookgate.address()).await;
        caller.send(WEBHOOK).await;
        callers.push(caller);
    }
    let errors = async || app.hookgate.metrics().await.sum("hookgate_accept_errors_total");
    until("connections could not be accepted, several times", async || errors().await >= 10.0)
        .await;
    first.send(WEBHOOK).await;
    assert_eq!(first.reply().await.expect("an answer").matched(), 1, "who is in is served");
    // Two workers, each with a pause of 50 ms and a line a second.
    let (errors, elapsed) = (errors().await, begun.elapsed());
    let pauses = elapsed.as_secs_f64() / 0.05;
    assert!(errors <= 2.0 * (pauses + 2.0), "{errors} in {elapsed:?}: no pause between them");
    let log = app.hookgate.log();
    let lines = log.matches("connection could not be accepted").count() as u64;
    assert!((1..=2 * (elapsed.as_secs() + 2)).contains(&lines), "{lines} lines in {elapsed:?}");

    // Whoever has been answered leaves, and makes room for another.
    let mut waiting: tokio::task::JoinSet<u64> = tokio::task::JoinSet::new();
    for mut caller in callers {
        waiting.spawn(async move { caller.reply().await.expect("an answer").matched() });
    }
    assert_eq!(waiting.join_all().await, [1; 3 * ROOM]);
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let last = app.hookgate.metrics().await.sum("hookgate_accept_errors_total");
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let later = app.hookgate.metrics().await.sum("hookgate_accept_errors_total");
    assert_eq!(later, last, "with room again nothing is wrong");
}

/// Another limit for a process that runs; it has asked for its own at the start.
fn limit_open_files(pid: u32, files: usize) {
    let status = std::process::Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={files}:{files}")])
        .status();
    assert!(status.expect("prlimit").success());
}

#[tokio::test]
async fn connections_leave_descriptors_for_others() {
    const WORKERS: u32 = 40;
    const FILES: usize = 1200;
    let app = App::build().limit(&format!("--nofile={FILES}:{FILES}")).config(|config| {
        config.set("server.workers", WORKERS).set("server.max_connections", 1_000_000);
        config.set("server.header_timeout", "10m");
    });
    let app = app.start().await;
    let log = app.hookgate.log();
    let told = log.lines().find(|line| line.contains("leaves no room for server.max_connections"));
    let (_, places) = told.expect("a warning").rsplit_once("connections=").expect("a number");
    let places: usize = places.parse().expect("a number");
    // All places are taken, and each worker has one more connection in its hand.
    let mut callers = Vec::new();
    for _ in 0..places + 2 * WORKERS as usize {
        callers.push(Connection::open(app.hookgate.address()).await);
    }
    until("all places are taken", async || {
        app.hookgate.metrics().await.sum("hookgate_connections") == places as f64
    })
    .await;
    // There are descriptors for all connections to Redis to be made anew at once.
    app.redis.freeze();
    app.hookgate.unready().await;
    app.redis.thaw();
    app.hookgate.ready().await;
    callers.truncate(places / 2);
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let errors = app.hookgate.metrics().await.sum("hookgate_accept_errors_total");
    assert_eq!(errors, 0.0);
}

#[tokio::test]
async fn a_caller_who_does_not_read_is_closed_in_its_time() {
    let app = App::with(|config| {
        config.set("server.header_timeout", "1s").set("server.idle_timeout", "1s");
    })
    .await;
    let before = app.hookgate.metrics().await.value("process_resident_memory_bytes", &[]);
    let mut connection = Connection::open(app.hookgate.address()).await;
    // Refusals are longer than these requests; more than all buffers on the way hold.
    let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let writing = async { while connection.try_send(&requests).await {} };
    let closing = until("the connection is closed", async || {
        let metrics = app.hookgate.metrics().await;
        let requests = metrics.requests("not_found");
        requests > 1000.0 && metrics.sum("hookgate_connections") == 0.0
    });
    tokio::join!(writing, closing);
    let metrics = app.hookgate.metrics().await;
    let grown = metrics.value("process_resident_memory_bytes", &[]) - before;
    assert!(grown < 8.0 * 1024.0 * 1024.0, "{grown} bytes for answers that nobody reads");
    assert_eq!(metrics.sum("hookgate_requests_in_flight"), 0.0);
}
