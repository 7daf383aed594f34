//! `server.health_path`: readiness on the port of callers.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use reqwest::Method;
use serde_json::json;
use testkit::hookgate::check;
use testkit::http::Reply;
use testkit::raw::Connection;
use testkit::wait::until;
use testkit::{App, Config};

async fn app(change: impl FnOnce(&mut Config)) -> App {
    App::with(|config| {
        config.set("server.health_path", "/healthz");
        change(config);
    })
    .await
}

fn assert_health(reply: &Reply, status: u16) {
    assert_eq!((reply.status, reply.json()), (status, json!({ "ready": status == 200 })));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn it_answers_without_a_credential_and_is_not_counted() {
    let app = app(|_| ()).await;
    for _ in 0..3 {
        assert_health(&app.caller.call(Method::GET, "/healthz").send().await, 200);
    }
    assert_health(&app.caller.call(Method::GET, "/healthz?a=b").send().await, 200);
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send("HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(connection.head_reply().await.expect("an answer").status, 200);
    // A body that nobody reads is not the next request.
    let body = "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n";
    let head =
        format!("GET /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    for _ in 0..2 {
        connection.send(format!("{head}{body}")).await;
        assert_health(&connection.reply().await.expect("an answer"), 200);
    }
    let refused = app.caller.call(Method::POST, "/healthz").body("{}").send().await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    assert!(refused.body.is_empty());
    assert_eq!(app.hookgate.metrics().await.sum("hookgate_requests_total"), 0.0);
    assert!(!app.hookgate.log().contains("hookgate::access"), "no line of the access log");
    // Everything else is as without it.
    for path in ["/healthz/", "/Healthz", "/livez"] {
        let reply = app.caller.call(Method::GET, path).send().await;
        reply.assert_rejected(404, "not_found");
    }
}

#[tokio::test]
async fn without_the_key_there_is_no_such_path() {
    let app = App::start().await;
    let reply = app.caller.call(Method::GET, "/healthz").send().await;
    reply.assert_rejected(404, "not_found");
}

#[tokio::test]
async fn it_is_503_while_the_process_is_not_ready_and_while_it_drains() {
    let app = app(|config| {
        config.set("server.drain_delay", "2s");
    })
    .await;
    app.redis.freeze();
    let health = async || app.caller.call(Method::GET, "/healthz").send().await;
    until("the process is not ready", async || health().await.status == 503).await;
    assert_health(&health().await, 503);
    assert!(!health().await.text().contains("redis"), "no reason is given to the public");
    app.redis.thaw();
    until("the process is ready", async || health().await.status == 200).await;
    app.hookgate.process().signal("TERM");
    until("the process drains", async || health().await.status == 503).await;
    assert_health(&health().await, 503);
    assert_eq!(app.hookgate.process().wait().await, 0);
}

#[tokio::test]
async fn a_path_of_the_api_or_of_endpoints_is_a_fault() {
    for (path, endpoints, words) in [
        ("/api/health", "/in", "below /api/"),
        ("/api", "/in", "below /api/"),
        ("healthz", "/in", "begin with /"),
        ("/in", "/in", "endpoints.path"),
        ("/in/health", "/in", "endpoints.path"),
        ("/a b", "/in", "plain path"),
    ] {
        let mut config = Config::new();
        config.set("queue.redis", "redis://127.0.0.1:1").set("triggers.file", "/nowhere");
        config.set("server.health_path", path).set("endpoints.path", endpoints);
        let output = check(&config, &[]).await;
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{path}: {printed}");
        assert!(printed.contains("server.health_path") && printed.contains(words), "{printed}");
    }
}
