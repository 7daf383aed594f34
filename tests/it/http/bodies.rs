//! Reading bodies: which callers are asked for one, how many bytes are reserved for it, and for how
//! long.

#![expect(clippy::print_stdout, reason = "the figure belongs to the output of the test")]

use std::time::Duration;

use serde_json::json;
use testkit::App;
use testkit::raw::Connection;
use testkit::wait::{until, until_some};

const MIB: f64 = 1024.0 * 1024.0;

/// The head of a webhook of the caller `key_a`, with further headers.
fn head(more: &str) -> String {
    format!(
        "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n{more}\r\n"
    )
}

fn announcing(length: usize) -> String {
    head(&format!("Content-Length: {length}\r\n"))
}

/// A connection that has sent this part of a request and waits.
async fn waiting(app: &App, sent: impl AsRef<[u8]>) -> Connection {
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(sent).await;
    connection
}

#[tokio::test]
async fn a_request_refused_by_its_head_is_not_asked_for_its_body() {
    let app = App::with(|config| {
        config.set("limits.in_flight_requests", 1).set("server.workers", 1);
    })
    .await;
    let expecting = |more: &str| head(&format!("Expect: 100-continue\r\n{more}"));
    let refused = [
        (expecting("Content-Length: 2000000\r\n"), 413, "payload_too_large"),
        (
            expecting("Content-Length: 20\r\nContent-Type: text/plain\r\n"),
            415,
            "unsupported_media_type",
        ),
        (
            expecting("Content-Length: 20\r\nContent-Encoding: rot13\r\n"),
            415,
            "unsupported_media_type",
        ),
        (expecting("Content-Length: 20\r\n").replace("key_a", "key_x"), 401, "invalid_api_key"),
        (expecting("Content-Length: 20\r\n").replace("workflow", "nothing"), 404, "not_found"),
    ];
    for (request, status, code) in refused {
        app.raw(request).await.assert_rejected(status, code);
    }
    let mut holder = waiting(&app, announcing(20)).await;
    app.in_flight(1).await;
    app.raw(expecting("Content-Length: 20\r\n")).await.assert_rejected(503, "overloaded");
    holder.send(r#"{"webhookId":"wh_1"}"#).await;
    assert_eq!(holder.reply().await.expect("an answer").matched(), 1);

    let mut welcome = waiting(&app, expecting("Content-Length: 20\r\n")).await;
    assert_eq!(welcome.reply().await.expect("an interim answer").status, 100);
    welcome.send(r#"{"webhookId":"wh_1"}"#).await;
    assert_eq!(welcome.reply().await.expect("an answer").matched(), 1);
}

#[tokio::test]
async fn an_announced_body_reserves_nothing_until_it_arrives() {
    let app = App::with(|config| {
        config.set("limits.in_flight_bytes", "8MiB").set("server.workers", 1);
        config.set("limits.organization.in_flight_share", 1.0);
    })
    .await;
    app.webhook("wh_1").send().await;
    let resident =
        async || app.hookgate.metrics().await.value("process_resident_memory_bytes", &[]);
    let before = resident().await;
    let mut callers = Vec::new();
    for serial in 0..200 {
        let first = if serial % 2 == 0 { "" } else { "{" };
        callers.push(waiting(&app, announcing(1 << 20) + first).await);
    }
    app.in_flight(200).await;
    let more = (resident().await - before) / MIB;
    println!("{more:.1} MiB more for 200 bodies that have not begun");
    assert!(more < 40.0, "{more:.1} MiB more");
    let large = json!({ "webhookId": "wh_1", "a": "x".repeat(1_000_000) }).to_string();
    assert_eq!(app.post(large.as_str()).send().await.matched(), 1);
    // Received bytes are reserved, so there is no room for another body. That is answered before it
    // is read.
    for caller in callers.iter_mut().take(8) {
        caller.send(" ".repeat(1_000_000)).await;
    }
    let refused = until_some("all bytes are reserved", async || {
        let reply = app.post(large.as_str()).send().await;
        (reply.status != 202).then_some(reply)
    });
    refused.await.assert_rejected(503, "overloaded");
    app.raw(announcing(1 << 20)).await.assert_rejected(503, "overloaded");
    drop(callers);
    until("the bytes are released", async || app.webhook("wh_1").send().await.status == 202).await;
}

#[tokio::test]
async fn a_body_refused_while_it_arrives_closes_the_connection() {
    let app = App::with(|config| {
        config.set("server.max_body", "64KiB").set("limits.in_flight_bytes", "64KiB");
        config.set("server.workers", 1);
        config.set("limits.organization.in_flight_share", 1.0);
    })
    .await;
    let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
    let mut connection = waiting(&app, head("Transfer-Encoding: chunked\r\n") + &chunk).await;
    app.in_flight(1).await;
    // The body never ends, so anything that follows could only be more of it.
    connection.send(chunk.repeat(4)).await;
    let reply = connection.reply().await.expect("an answer");
    assert!(matches!(reply.status, 413 | 503), "{}", reply.text());
    assert_eq!(connection.closed().await, b"");

    // The body that is read first gets the room, so both are sent again until the holder's is the
    // first.
    let (_holder, mut connection) = until_some("no bytes are left", async || {
        let holder = waiting(&app, announcing(60_000) + &" ".repeat(59_000)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let request = head("Transfer-Encoding: chunked\r\n") + &chunk;
        let mut connection = waiting(&app, request).await;
        let reply = tokio::time::timeout(Duration::from_secs(3), connection.reply()).await;
        let refused = reply.ok().flatten()?;
        refused.assert_rejected(503, "overloaded");
        Some((holder, connection))
    })
    .await;
    assert_eq!(connection.closed().await, b"");
}

#[tokio::test]
async fn a_trickling_body_has_the_same_timeout_as_a_missing_one() {
    let app = App::with(|config| {
        config.set("server.body_timeout", "500ms");
    })
    .await;
    let mut connection = waiting(&app, announcing(100_000)).await;
    let reply = loop {
        connection.send(" ").await;
        // A read that times out loses nothing: received bytes stay with the connection.
        let reply = tokio::time::timeout(Duration::from_millis(20), connection.reply()).await;
        if let Ok(reply) = reply {
            break reply;
        }
    };
    reply.expect("an answer").assert_rejected(408, "request_timeout");
}

#[tokio::test]
async fn a_disconnected_caller_has_its_bytes_released() {
    let app = App::with(|config| {
        config.set("server.max_body", "64KiB").set("limits.in_flight_bytes", "64KiB");
    })
    .await;
    for _ in 0..20 {
        let caller = waiting(&app, announcing(60_000) + "{").await;
        drop(caller);
    }
    let body = json!({ "webhookId": "wh_1", "a": "x".repeat(60_000) }).to_string();
    until("all bytes are released", async || app.post(body.as_str()).send().await.status == 202)
        .await;
}
