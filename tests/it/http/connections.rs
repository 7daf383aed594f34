//! How long connections are kept, and when they are closed.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use testkit::config::{countable, patient};
use testkit::metrics::Metrics;
use testkit::raw::Connection;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Caller};
use tokio::net::TcpSocket;

const WEBHOOK: &str = "POST /api/webhook/workflow HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer key_a\r\n\
    Content-Length: 20\r\n\r\n{\"webhookId\":\"wh_1\"}";

#[tokio::test]
async fn a_connection_serves_sequential_and_pipelined_requests() {
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
async fn an_unfinished_head_is_timed_out() {
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
async fn an_idle_connection_is_closed_after_its_timeout() {
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
        let reply = connection.reply().await.expect("each request is answered");
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
async fn callers_beyond_the_bound_wait_for_a_slot() {
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
    // One caller has the slot. Each is answered when those before it have left. The kernel
    // distributes the callers over the workers, so the order is arbitrary.
    let mut waiting: tokio::task::JoinSet<u64> = tokio::task::JoinSet::new();
    for mut connection in connections {
        waiting.spawn(async move { connection.reply().await.expect("an answer").matched() });
    }
    assert_eq!(waiting.join_all().await, [1; 8]);
}

/// Timeouts are long, so that only the need for a slot ends a connection.
async fn with_slots(count: usize) -> App {
    App::with(|config| {
        patient(config);
        config.set("server.max_connections", u32::try_from(count).expect("a small number"));
    })
    .await
}

async fn evicted(app: &App) -> f64 {
    app.hookgate.metrics().await.sum("hookgate_connections_evicted_total")
}

#[tokio::test]
async fn a_connection_without_a_request_is_evicted_for_a_new_one() {
    const SLOTS: usize = 20;
    let refused = WEBHOOK.replace("key_a", "nobody").replace(": 20", ": 1000000");
    let kinds = ["", "POST /api", "POST / HTTP/1.1\r\nX: ", WEBHOOK, refused.as_str()];
    let app = with_slots(SLOTS).await;
    let mut silent = Vec::new();
    for kind in kinds.iter().cycle().take(3 * SLOTS) {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(kind).await;
        silent.push(connection);
    }
    for _ in 0..SLOTS {
        let mut honest = Connection::open(app.hookgate.address()).await;
        honest.send(WEBHOOK).await;
        assert_eq!(honest.reply().await.expect("an answer").matched(), 1);
        silent.push(honest);
    }
    assert!(evicted(&app).await >= (2 * SLOTS) as f64);
    let open = app.hookgate.metrics().await.sum("hookgate_connections");
    assert!(open <= SLOTS as f64, "{open}");
    // The other end has closed, and the service has not only forgotten the connection.
    for mut connection in silent.into_iter().take(SLOTS) {
        connection.closed().await;
    }
}

#[tokio::test]
async fn the_longest_idle_connection_is_evicted_first() {
    let app = with_slots(3).await;
    let mut connections = Vec::new();
    for _ in 0..3 {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(WEBHOOK).await;
        assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
        connections.push(connection);
    }
    // The second one waits for the rest of its request; the first one was answered last.
    let (head, rest) = WEBHOOK.split_at(WEBHOOK.len() - 5);
    connections[1].send(head).await;
    connections[0].send(WEBHOOK).await;
    assert_eq!(connections[0].reply().await.expect("an answer").matched(), 1);
    until("the second body is being read", async || {
        app.hookgate.metrics().await.sum("hookgate_requests_in_flight") == 1.0
    })
    .await;
    let mut new = Connection::open(app.hookgate.address()).await;
    new.send(WEBHOOK).await;
    assert_eq!(new.reply().await.expect("an answer").matched(), 1);
    assert!(connections[2].closed().await.is_empty());
    assert_eq!(evicted(&app).await, 1.0);
    connections[1].send(rest).await;
    for connection in [0, 1] {
        if connection == 0 {
            connections[0].send(WEBHOOK).await;
        }
        let reply = connections[connection].reply().await;
        assert_eq!(reply.expect("an answer").matched(), 1, "{connection}");
    }
}

#[tokio::test]
async fn a_connection_being_answered_is_not_evicted() {
    let app = with_slots(4).await;
    let (head, rest) = WEBHOOK.split_at(WEBHOOK.len() - 5);
    let mut busy = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(head).await;
        busy.push(connection);
    }
    until("all bodies are being read", async || {
        app.hookgate.metrics().await.sum("hookgate_requests_in_flight") == 4.0
    })
    .await;
    let mut new = Connection::open(app.hookgate.address()).await;
    new.send(WEBHOOK).await;
    for connection in &mut busy {
        connection.send(rest).await;
        assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
    }
    assert_eq!(new.reply().await.expect("an answer").matched(), 1);
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 5);
}

#[tokio::test]
async fn a_silent_tls_connection_is_evicted_too() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).config(|config| {
        patient(config);
        config.set("server.max_connections", 10);
    });
    let app = app.start().await;
    let mut silent = Vec::new();
    for kind in ["", "\x16\x03\x01"].iter().cycle().take(30) {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(kind).await;
        silent.push(connection);
    }
    for _ in 0..20 {
        // Each client has a connection of its own, which stays open.
        let caller = Caller::over_tls(app.hookgate.address(), authority.client());
        assert_eq!(caller.webhook("wh_1").send().await.matched(), 1);
    }
    assert!(evicted(&app).await >= 20.0);
}

#[tokio::test]
async fn connections_of_an_address_are_bounded() {
    let app = App::with(|config| {
        patient(config);
        let address = config.text("server.listen").replace("127.0.0.1", "[::]");
        config.set("server.listen", address).set("server.max_connections_per_address", 3);
    })
    .await;
    let port = app.hookgate.address().port();
    // These addresses are in one IPv6 network, but are counted as the IPv4 addresses that they map.
    let from = async |last: u8| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, last], 0).into()).expect("a loopback address");
        socket.connect(([127, 0, 0, 1], port).into()).await.expect("hookgate listens").into()
    };
    let mut of_one = Vec::new();
    for _ in 0..3 {
        let mut connection: Connection = from(2).await;
        connection.send(WEBHOOK).await;
        assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
        of_one.push(connection);
    }
    for _ in 0..5 {
        let mut surplus: Connection = from(2).await;
        assert!(surplus.closed().await.is_empty());
    }
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.sum("hookgate_connections_refused_total"), 5.0);
    assert_eq!(metrics.sum("hookgate_connections"), 3.0);
    let mut other: Connection = from(3).await;
    other.send(WEBHOOK).await;
    assert_eq!(other.reply().await.expect("an answer").matched(), 1);
    // A closed connection makes room for another.
    drop(of_one.pop());
    until("another one is served", async || {
        let mut next: Connection = from(2).await;
        next.send(WEBHOOK).await;
        next.reply().await.is_some_and(|reply| reply.matched() == 1)
    })
    .await;
}

#[tokio::test]
async fn the_service_survives_running_out_of_descriptors() {
    const ROOM: usize = 12;
    let app = App::with(countable).await;
    // One connection for operators and those to Redis are open by then.
    let operator = reqwest::Client::builder().no_proxy().build().expect("a client");
    let metrics = async || {
        let page = operator.get(app.hookgate.admin_url("/metrics")).send().await;
        Metrics::parse(&page.expect("an answer").text().await.expect("a string"))
    };
    metrics().await;
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
    let errors = async || metrics().await.sum("hookgate_accept_errors_total");
    until("connections could not be accepted, several times", async || errors().await >= 10.0)
        .await;
    first.send(WEBHOOK).await;
    assert_eq!(
        first.reply().await.expect("an answer").matched(),
        1,
        "a connected caller is served"
    );
    // Each of the two workers pauses for 50 ms after an error and logs one line a second.
    let (errors, elapsed) = (errors().await, begun.elapsed());
    let pauses = elapsed.as_secs_f64() / 0.05;
    assert!(
        errors <= 2.0 * (pauses + 2.0),
        "{errors} errors in {elapsed:?}: no pause between them"
    );
    let log = app.hookgate.log();
    let lines = log.matches("connection could not be accepted").count() as u64;
    assert!((1..=2 * (elapsed.as_secs() + 2)).contains(&lines), "{lines} lines in {elapsed:?}");

    // A caller that has been answered leaves and makes room for another.
    let mut waiting: tokio::task::JoinSet<u64> = tokio::task::JoinSet::new();
    for mut caller in callers {
        waiting.spawn(async move { caller.reply().await.expect("an answer").matched() });
    }
    assert_eq!(waiting.join_all().await, [1; 3 * ROOM]);
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let last = app.hookgate.metrics().await.sum("hookgate_accept_errors_total");
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let later = app.hookgate.metrics().await.sum("hookgate_accept_errors_total");
    assert_eq!(later, last, "there are no errors once there is room");
}

/// Sets another limit for a running process, which has raised its own at the start.
fn limit_open_files(pid: u32, files: usize) {
    let status = std::process::Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={files}:{files}")])
        .status();
    assert!(status.expect("prlimit").success());
}

#[tokio::test]
async fn connections_of_callers_leave_descriptors_for_redis() {
    const WORKERS: u32 = 40;
    const FILES: usize = 1200;
    let app = App::build().limit(&format!("--nofile={FILES}:{FILES}")).config(|config| {
        config.set("server.workers", WORKERS).set("server.max_connections", 1_000_000);
        config.set("server.header_timeout", "10m");
    });
    let app = app.start().await;
    let log = app.hookgate.log();
    let warning =
        log.lines().find(|line| line.contains("leaves no room for server.max_connections"));
    let (_, slots) = warning.expect("a warning").rsplit_once("connections=").expect("a number");
    let slots: usize = slots.parse().expect("a number");
    // All slots are in use, and each worker has accepted one more connection.
    let mut callers = Vec::new();
    for _ in 0..slots + 2 * WORKERS as usize {
        callers.push(Connection::open(app.hookgate.address()).await);
    }
    until("all slots are in use", async || {
        app.hookgate.metrics().await.sum("hookgate_connections") == slots as f64
    })
    .await;
    // There are descriptors to make all connections to Redis again at once.
    app.redis.freeze();
    app.hookgate.unready().await;
    app.redis.thaw();
    app.hookgate.ready().await;
    callers.truncate(slots / 2);
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let errors = app.hookgate.metrics().await.sum("hookgate_accept_errors_total");
    assert_eq!(errors, 0.0);
}

#[tokio::test]
async fn a_caller_that_reads_no_answers_is_closed_after_its_timeout() {
    let app = App::with(|config| {
        config.set("server.header_timeout", "1s").set("server.idle_timeout", "1s");
    })
    .await;
    let before = app.hookgate.metrics().await.value("process_resident_memory_bytes", &[]);
    let mut connection = Connection::open(app.hookgate.address()).await;
    // Refusals are longer than these requests, and do not fit into all buffers on the way.
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
    assert!(grown < 8.0 * 1024.0 * 1024.0, "{grown} bytes for unread answers");
    assert_eq!(metrics.sum("hookgate_requests_in_flight"), 0.0);
}
