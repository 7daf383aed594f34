//! Refusals: the contract's table of errors, row by row, and the order of the checks.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]
#![expect(clippy::indexing_slicing, reason = "a test panics")]

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use serde_json::Value;
use testkit::documents::workflow;
use testkit::http::{PATH, Reply};
use testkit::raw::Connection;
use testkit::refusals::{self, MARK, Row, assert_envelope, padded, small_app};
use testkit::wait::{until, until_some};
use testkit::{App, Documents};
use tokio::time::Instant;

/// How long the service reads on after an answer, so that the caller can read it.
const LINGER: Duration = Duration::from_secs(5);

#[tokio::test]
async fn every_row_of_the_error_table_is_answered() {
    let app = small_app().await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    let mut codes = BTreeSet::new();
    for row in refusals::rows(&app) {
        let (head, body) = row.call.to_http1();
        connection.send([head, body].concat()).await;
        let reply = connection.reply().await.expect(row.what);
        assert_envelope(&reply, row.status, row.code, row.what);
        assert_is_kept(&app, &mut connection, &reply, row.what).await;
        codes.insert(row.code);
    }
    assert_eq!(codes.len(), 14, "{codes:?}");
    app.assert_accounting().await;
    assert!(!app.hookgate.log().contains(MARK), "a log line repeats what a caller sent");
}

/// Client libraries send a body after its head, and large bodies while the answer is already there.
#[tokio::test]
async fn a_body_sent_after_its_refusal_keeps_the_connection() {
    let app = small_app().await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    let depends_on_the_head = |row: &Row| [401, 404, 405, 415].contains(&row.status);
    for row in refusals::rows(&app).into_iter().filter(depends_on_the_head) {
        let (head, body) = row.call.to_http1();
        connection.send(head).await;
        let reply = connection.reply().await.expect(row.what);
        assert_envelope(&reply, row.status, row.code, row.what);
        connection.send(body).await;
        assert_is_kept(&app, &mut connection, &reply, row.what).await;
    }
    let anonymous = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\n";
    let large = "x".repeat(64 << 10);
    let announced = format!("{anonymous}Content-Length: {}\r\n\r\n", large.len());
    let chunked = format!("{anonymous}Transfer-Encoding: chunked\r\n\r\n");
    let half = &large[..large.len() / 2];
    let chunks = format!("8000\r\n{half}\r\n8000;x=y\r\n{half}\r\n0\r\nA: trailer\r\n\r\n");
    for (head, body) in [(announced, large), (chunked, chunks)] {
        connection.send(head).await;
        let reply = connection.reply().await.expect("an answer");
        reply.assert_rejected(401, "missing_credentials");
        connection.send(body).await;
        assert_is_kept(&app, &mut connection, &reply, "64 KiB").await;
    }
}

/// The length of a chunked body does not show whether it was read to its end.
#[tokio::test]
async fn a_refusal_after_a_chunked_body_keeps_the_connection() {
    let app = small_app().await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    let depends_on_the_body = |row: &Row| [400, 413, 422].contains(&row.status);
    let mut rows: Vec<(Row, bool)> = Vec::new();
    for asks_first in [false, true] {
        let refused = refusals::rows(&app).into_iter().filter(depends_on_the_body);
        rows.extend(refused.map(|row| (row, asks_first)));
    }
    rows.push((decoded_too_large(&app), false));
    assert!(rows.len() > 70, "{}", rows.len());
    for (row, asks_first) in rows {
        let (head, body) = row.call.to_http1();
        let head = String::from_utf8(head).expect("a string");
        let (before, after) = head.split_once("Content-Length: ").expect("a length");
        let (_, after) = after.split_once("\r\n").expect("the rest of the head");
        let expect = if asks_first { "Expect: 100-continue\r\n" } else { "" };
        connection.send(format!("{before}Transfer-Encoding: chunked\r\n{expect}{after}")).await;
        if asks_first {
            let interim = connection.reply().await.expect(row.what);
            assert_eq!(interim.status, 100, "{}", interim.text());
        }
        if !body.is_empty() {
            let length = format!("{:x}\r\n", body.len());
            connection.send([length.as_bytes(), &body, b"\r\n"].concat()).await;
        }
        connection.send("0\r\n\r\n").await;
        let reply = connection.reply().await.expect(row.what);
        assert_envelope(&reply, row.status, row.code, row.what);
        assert_is_kept(&app, &mut connection, &reply, row.what).await;
    }
}

/// The end of a body may follow the chunk that exceeds the limit.
#[tokio::test]
async fn a_last_chunk_over_the_limit_keeps_the_connection() {
    let app = small_app().await;
    let head = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let chunk = |length: usize| format!("{length:x}\r\n{}\r\n", " ".repeat(length));
    let mut connection = Connection::open(app.hookgate.address()).await;
    for (what, pieces) in [
        ("all at once", vec![format!("{}{}0\r\n\r\n", chunk(1000), chunk(25))]),
        ("the end by itself", vec![chunk(1000), chunk(25), "0\r\n\r\n".to_owned()]),
        ("in one chunk", vec![chunk(1025), "0\r\n\r\n".to_owned()]),
        ("with a trailer", vec![chunk(1025), "0\r\nA: b\r\n\r\n".to_owned()]),
        ("one more after it", vec![chunk(1025), chunk(60 << 10), "0\r\n\r\n".to_owned()]),
    ] {
        connection.send(head).await;
        for piece in pieces {
            connection.send(piece).await;
        }
        let reply = connection.reply().await.expect(what);
        assert_envelope(&reply, 413, "payload_too_large", what);
        assert_is_kept(&app, &mut connection, &reply, what).await;
    }
    // The service does not wait for a missing end, and says so in its answer.
    connection.send(format!("{head}{}", chunk(1025))).await;
    let reply = connection.reply().await.expect("an answer");
    assert_envelope(&reply, 413, "payload_too_large", "no end");
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(connection.closed().await, b"");
}

/// Bytes in flight are counted as they come, too.
#[tokio::test]
async fn a_last_chunk_without_room_keeps_the_connection() {
    const LENGTH: usize = 40 << 10;
    for (bytes, share, status, code) in
        [("64KiB", 1.0, 503, "overloaded"), ("128KiB", 0.5, 429, "rate_limited")]
    {
        let app = App::with(|config| {
            config.set("server.max_body", "48KiB").set("limits.in_flight_bytes", bytes);
            config.set("limits.organization.in_flight_share", share);
        });
        let app = app.await;
        let mut connection = Connection::open(app.hookgate.address()).await;
        let head =
            "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n";
        // The bytes that another request holds.
        let mut other = Connection::open(app.hookgate.address()).await;
        other.send(format!("{head}Content-Length: {LENGTH}\r\n\r\n{{")).await;
        until("the request is in flight", async || {
            app.hookgate.metrics().await.sum("hookgate_requests_in_flight") >= 1.0
        })
        .await;
        let chunk = format!("{LENGTH:x}\r\n{}\r\n0\r\n\r\n", padded(LENGTH));
        connection.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}")).await;
        let reply = connection.reply().await.expect("an answer");
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{}", reply.text());
        assert_eq!(reply.header("connection"), None, "{}", reply.text());
        drop(other);
        until("there is room again", async || {
            let (head, body) = app.webhook("wh_1").to_http1();
            connection.send([head, body].concat()).await;
            connection.reply().await.expect("an answer").status == 202
        })
        .await;
    }
}

/// A body that is small as it is sent, and larger than the limit when decoded.
fn decoded_too_large(app: &App) -> Row {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(padded(1025).as_bytes()).expect("memory");
    let body = encoder.finish().expect("memory");
    let call = app.post(body).header("content-encoding", "gzip");
    Row { what: "larger when decoded", call, status: 413, code: "payload_too_large" }
}

#[tokio::test]
async fn a_caller_that_is_still_sending_can_read_its_refusal() {
    let app = small_app().await;
    let before = memory(&app).await;
    let start = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer";
    let announced = "Content-Length: 1073741824\r\n\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n40000000\r\n";
    for (head, status) in [
        (format!("{start} key_a\r\n{announced}"), 413),
        (format!("{start} key_a\r\n{chunked}"), 413),
        (format!("{start} unknown\r\n{announced}"), 401),
        (format!("{start} unknown\r\n{chunked}"), 401),
        (format!("{start} key_a\r\nA: "), 431),
        ("NONSENSE\r\n\r\n".to_owned(), 400),
    ] {
        let (mut connection, reply) = until_some("the caller sends all in time", async || {
            send_and_then_read(&app, &head).await
        })
        .await;
        assert_eq!(reply.status, status, "{head:?} {}", reply.text());
        if !head.contains("unknown\r\nTransfer") {
            assert_eq!(reply.header("connection"), Some("close"), "{head:?}");
        }
        assert_eq!(connection.closed().await, b"");
    }
    let grown = memory(&app).await - before;
    assert!(grown < 8.0 * 1024.0 * 1024.0, "{grown} bytes for refused bodies");
    app.redis.queue().assert_empty().await;
}

/// Sends a head and 32 MiB before it reads the answer, as many libraries do. A reset would cost the
/// caller the answer on some systems. `None` if sending took longer than the service waits for it.
async fn send_and_then_read(app: &App, head: &str) -> Option<(Connection, Reply)> {
    let mut connection = Connection::open(app.hookgate.address()).await;
    let begun = Instant::now();
    connection.send(head).await;
    let mebibyte = vec![b' '; 1 << 20];
    let mut is_open = true;
    for _ in 0..32 {
        is_open = is_open && connection.try_send(&mebibyte).await;
    }
    let reply = if is_open { connection.reply().await } else { None };
    if reply.is_none() {
        assert!(begun.elapsed() > LINGER, "{head:?}: a reset");
    }
    Some((connection, reply?))
}

async fn memory(app: &App) -> f64 {
    app.hookgate.metrics().await.value("process_resident_memory_bytes", &[])
}

/// Asserts that a connection that was not asked to close serves the next request.
async fn assert_is_kept(app: &App, connection: &mut Connection, reply: &Reply, what: &str) {
    assert_eq!(reply.header("connection"), None, "{what}");
    let (head, body) = app.webhook("wh_1").to_http1();
    connection.send([head, body].concat()).await;
    assert_eq!(connection.reply().await.expect(what).matched(), 1, "after {what}");
}

#[tokio::test]
async fn head_is_refused_without_a_body() {
    let app = App::start().await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send("HEAD /api/webhook/workflow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let reply = connection.head_reply().await.expect("an answer");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    connection
        .send("POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await;
    connection.reply().await.expect("the next answer").assert_rejected(401, "missing_credentials");
}

#[tokio::test]
async fn an_oversized_body_is_refused_with_the_limit() {
    let app = small_app().await;
    let reply = app.post(padded(1025)).send().await;
    assert!(figures(&reply).contains(&1024), "{}", reply.text());
    assert_eq!(app.post(padded(1024)).send().await.status, 202, "exactly the limit");

    // The length is announced, and the body is never sent.
    let head = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n";
    app.raw(format!("{head}Content-Length: 1025\r\n\r\n"))
        .await
        .assert_rejected(413, "payload_too_large");
    // The length is not announced.
    let chunk = format!("400\r\n{}\r\n", " ".repeat(1024));
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    app.raw(chunked).await.assert_rejected(413, "payload_too_large");
    app.assert_accounting().await;
}

#[tokio::test]
async fn invalid_json_is_refused_with_its_position_and_kind() {
    let app = App::start().await;
    let open = |levels: usize| format!(r#"{{"webhookId":"wh_1","a":{}"#, "[".repeat(levels));
    let deep = open(128) + &"]".repeat(128) + "}";
    for (body, kind, offset) in [
        (&b""[..], "syntax", 0),
        (br#"{"webhookId":"wh_1""#, "syntax", 19),
        (br#"{"webhookId":"wh_1"} x"#, "syntax", 21),
        (b"{\n \"webhookId\":\"wh_1\",\n \"a\": tru }", "syntax", 32),
        (br#"{"webhookId":"wh_1","a":01}"#, "syntax", 25),
        (br#"{"webhookId":"wh_1","a":1e400,}"#, "syntax", 30),
        (b"\xef\xbb\xbf{\"webhookId\":\"wh_1\"}", "syntax", 0),
        (b"{\"webhookId\":\"wh_1\",\"a\":\"\xc3\xbc\xff\"}", "utf8", 27),
        (b"{\"webhookId\":\"wh_1\",\"a\":\"\xe2\x82", "utf8", 25),
        (deep.as_bytes(), "depth", 151),
        // The first fault is the one that is reported.
        (br#"{"webhookId":,"a":"\xff"}"#, "syntax", 13),
    ] {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).expect("memory");
        let compressed = encoder.finish().expect("memory");
        let compressed = app.post(compressed).header("content-encoding", "gzip");
        for call in [app.post(body), compressed] {
            let reply = call.send().await;
            assert_envelope(&reply, 400, "invalid_json", kind);
            let expected = serde_json::json!({ "kind": kind, "offset": offset });
            assert_eq!(reply.json()["details"], expected, "{}", body.escape_ascii());
        }
    }
    let reply = app.webhook("wh_1").header("content-encoding", "gzip").send().await;
    assert_eq!(reply.json()["details"], serde_json::json!({ "kind": "encoding" }));
    let head = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n";
    let reply = app.raw(format!("{head}Transfer-Encoding: chunked\r\n\r\nxyz\r\n")).await;
    assert_envelope(&reply, 400, "invalid_json", "chunks");
    assert_eq!(reply.json()["details"], serde_json::json!({ "kind": "framing" }));
    app.assert_accounting().await;
}

#[tokio::test]
async fn an_empty_webhook_id_matches_nothing() {
    let mut documents = Documents::two_organizations();
    documents.workflows.push(workflow("wf_empty", "org_a", ""));
    let app = App::build().documents(documents).start().await;
    for body in [r#"{"webhookId":""}"#, r#"{"a":1e400,"webhookId":""}"#] {
        let reply = app.post(body).send().await;
        assert_eq!((reply.status, reply.matched()), (202, 0), "{}", reply.text());
        assert_eq!(reply.json()["data"]["webhookId"], "");
        let preview = app.caller.call(Method::POST, "/api/webhook/workflow/preview");
        let reply = preview.bearer("key_a").body(body).send().await;
        assert_eq!((reply.status, &reply.json()["data"]["matchedCount"]), (200, &0.into()));
    }
    app.redis.queue().assert_empty().await;
    assert_eq!(app.hookgate.metrics().await.sum("hookgate_unmatched_total"), 2.0);
    app.assert_accounting().await;
}

#[tokio::test]
async fn an_oversized_fan_out_is_refused_with_its_size_and_the_limit() {
    let app = small_app().await;
    let reply = app.webhook("wh_4").send().await;
    reply.assert_rejected(413, "fanout_too_large");
    assert!(figures(&reply).contains(&4) && figures(&reply).contains(&3), "{}", reply.text());

    // Three times 460 bytes of payload, with 223 bytes around each, are one byte over the 2 KiB.
    let body =
        |length: usize| format!(r#"{{"webhookId":"wh_3","a":"{}"}}"#, "x".repeat(length - 8));
    let reply = app.post(body(460)).send().await;
    reply.assert_rejected(413, "fanout_too_large");
    assert!(figures(&reply).contains(&2048) && figures(&reply).contains(&2049), "{}", reply.text());
    assert_eq!(app.post(body(459)).send().await.matched(), 3);
}

#[tokio::test]
async fn the_first_reason_in_the_contracts_order_is_answered() {
    let app = small_app().await;
    let too_large = || app.post(format!("[{MARK}{}", " ".repeat(2000)));
    let bad = || too_large().header("content-type", "text/plain");

    app.caller.call(Method::GET, "/nowhere").send().await.assert_rejected(404, "not_found");
    app.caller
        .call(Method::PUT, PATH)
        .body("{")
        .send()
        .await
        .assert_rejected(405, "method_not_allowed");
    bad().without("authorization").send().await.assert_rejected(401, "missing_credentials");
    bad().bearer("unknown").send().await.assert_rejected(401, "invalid_api_key");
    bad().send().await.assert_rejected(415, "unsupported_media_type");
    too_large().send().await.assert_rejected(413, "payload_too_large");
    app.post("[").send().await.assert_rejected(400, "invalid_json");
    app.post("[1]").send().await.assert_rejected(400, "body_not_object");
    app.post(r#"{"webhookId":1}"#).send().await.assert_rejected(400, "missing_webhook_id");
    app.webhook("wh_4").send().await.assert_rejected(413, "fanout_too_large");
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_caller_is_refused_before_its_body_is_requested() {
    let app = App::start().await;
    let head = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n";
    app.raw(format!("{head}\r\n")).await.assert_rejected(401, "missing_credentials");
    let expecting = format!("{head}Expect: 100-continue\r\nAuthorization: Bearer unknown\r\n\r\n");
    app.raw(expecting).await.assert_rejected(401, "invalid_api_key");

    let mut connection = Connection::open(app.hookgate.address()).await;
    let head = head.replace("1000", "20");
    connection
        .send(format!("{head}Expect: 100-continue\r\nAuthorization: Bearer key_a\r\n\r\n"))
        .await;
    assert_eq!(connection.reply().await.expect("an interim answer").status, 100);
    connection.send(r#"{"webhookId":"wh_1"}"#).await;
    assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
}

#[tokio::test]
async fn an_unread_body_is_not_read_as_the_next_request() {
    let app = App::start().await;
    let inner = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n\
                 Content-Length: 20\r\n\r\n{\"webhookId\":\"wh_1\"}";
    let outer = format!(
        "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}",
        inner.len()
    );
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(&outer).await;
    connection.reply().await.expect("an answer").assert_rejected(404, "not_found");
    connection.finish().await;
    assert_eq!(connection.closed().await, b"", "there is no further answer");
    app.redis.queue().assert_empty().await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_refused() {
    let app = App::with(|config| {
        config.set("server.body_timeout", "300ms");
    })
    .await;
    let head = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n";
    for request in [
        format!("{head}Content-Length: 1000\r\n\r\n{{\"webhookId\":"),
        format!("{head}Content-Length: 1000\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\n{{\"web\r\n"),
    ] {
        let reply = app.raw(request).await;
        assert_envelope(&reply, 408, "request_timeout", "slow body");
    }
    app.redis.queue().assert_empty().await;
    app.assert_accounting().await;
}

/// Every number in `details`.
fn figures(reply: &Reply) -> BTreeSet<u64> {
    let body = reply.json();
    let details = body["details"].as_object().into_iter().flat_map(|details| details.values());
    details.filter_map(Value::as_u64).collect()
}
