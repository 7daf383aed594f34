//! Connections: kept as long as they may be, and not longer.

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
        let Some(reply) = connection.reply().await else { break };
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
