//! Requests that are malformed HTTP/1.1, byte by byte: their answers, and whether the connection
//! continues.
//!
//! Most of it is the behaviour of hyper, pinned here; `docs/operating/tls-and-proxies.md` says what
//! a proxy must do.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]
#![expect(clippy::indexing_slicing, reason = "a test panics")]

use testkit::App;
use testkit::raw::Connection;
use testkit::wait::until;
use tokio::task::JoinSet;

/// A head without its end; the request lacks only its body.
const START: &str = "POST /api/webhook/workflow HTTP/1.1\r\nAuthorization: Bearer key_a\r\n";
const BODY: &str = r#"{"webhookId":"wh_1"}"#;
const CHUNKS: &str = "7\r\n{\"webho\r\nd\r\nokId\":\"wh_1\"}\r\n0\r\n\r\n";

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// 202, and the connection serves the next request.
    Accepted,
    /// 202, and the connection is closed.
    AcceptedAndClosed,
    /// Refused with a code, and the connection serves the next request.
    Refused(u16, &'static str),
    /// Refused with a code, and the connection is closed.
    RefusedAndClosed(u16, &'static str),
    /// Refused without an envelope and not counted, because it is not a request; the connection is
    /// closed.
    NoRequest(u16),
}

use Outcome::{Accepted, AcceptedAndClosed, NoRequest, Refused, RefusedAndClosed};

type Row = (&'static str, Vec<u8>, Outcome);

#[tokio::test]
async fn every_malformed_shape_has_its_outcome() {
    let app = App::with(|config| {
        config.set("server.max_body", "1KiB");
    })
    .await;
    let (mut jobs, mut counted) = (0, 0);
    let rows = [request_lines(), hosts(), fields(), lengths(), chunks()];
    let mut wrong = Vec::new();
    for (what, request, expected) in rows.into_iter().flatten() {
        let (outcome, accepted, answered) = outcome_of(&app, &request).await;
        if outcome != expected {
            wrong.push(format!("{what}: {outcome:?}, not {expected:?}"));
        }
        jobs += accepted;
        counted += answered;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        app.redis.queue().waiting_ids().await.len(),
        jobs,
        "only a request that is answered 202 adds a job"
    );
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.sum("hookgate_requests_total"), counted as f64);
    assert_eq!(metrics.sum("hookgate_requests_in_flight"), 0.0);
}

/// Sends a request and another after it. Returns what became of the first, how many were accepted,
/// and how many of the answers were to requests.
async fn outcome_of(app: &App, request: &[u8]) -> (Outcome, usize, usize) {
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(request).await;
    let to_head = request.starts_with(b"HEAD");
    let reply = if to_head { connection.head_reply().await } else { connection.reply().await };
    let reply = reply.expect("an answer");
    connection.send(format!("{START}Host: a\r\nContent-Length: 20\r\n\r\n{BODY}")).await;
    let next = connection.reply().await;
    if let Some(next) = &next {
        assert_eq!(next.matched(), 1, "the next request is valid");
        connection.finish().await;
    }
    assert_eq!(connection.closed().await, b"", "at most two answers to two requests");
    let code = if to_head || reply.body.is_empty() { String::new() } else { reply.code() };
    let code: &'static str = code.leak();
    let is_asked_to_close = reply.header("connection") == Some("close");
    assert!(next.is_none() || !is_asked_to_close, "{reply:?}");
    let is_request = reply.header("x-request-id").is_some();
    let outcome = match (reply.status, next.is_some()) {
        (202, true) => Accepted,
        (202, false) => AcceptedAndClosed,
        (status, true) => Refused(status, code),
        (status, false) if is_request => RefusedAndClosed(status, code),
        (status, false) => NoRequest(status),
    };
    let accepted = usize::from(reply.status == 202) + usize::from(next.is_some());
    (outcome, accepted, usize::from(is_request) + usize::from(next.is_some()))
}

/// Sends valid requests with random changes, and random bytes.
#[tokio::test]
async fn no_input_ends_the_process() {
    const CALLERS: u64 = 8;
    const REQUESTS: u64 = 250;
    let app = App::start().await;
    let mut callers = JoinSet::new();
    for seed in 0..CALLERS {
        let address = app.hookgate.address();
        callers.spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut accepted = 0;
            for _ in 0..REQUESTS {
                let mut connection = Connection::open(address).await;
                connection.send(mangled(&mut random)).await;
                connection.finish().await;
                let answers = connection.closed().await;
                accepted += answers.windows(12).filter(|part| part == b"HTTP/1.1 202").count();
            }
            accepted
        });
    }
    let accepted: usize = callers.join_all().await.into_iter().sum();
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    until("nothing is in flight", async || {
        app.hookgate.metrics().await.sum("hookgate_requests_in_flight") == 0.0
    })
    .await;
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.requests("internal"), 0.0, "the task does not panic");
    assert!(metrics.requests("accepted") > accepted as f64, "{accepted}");
    until("there are as many jobs as are counted", async || {
        let jobs = app.redis.queue().waiting_ids().await.len() as f64;
        jobs == app.hookgate.metrics().await.sum("hookgate_jobs_enqueued_total")
    })
    .await;
}

fn mangled(random: &mut fastrand::Rng) -> Vec<u8> {
    let starts = [
        format!("{START}Host: a\r\nContent-Length: 20\r\n\r\n{BODY}"),
        format!("{START}Host: a\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"),
    ];
    let mut bytes = random.choice(starts).expect("one of the two starts").into_bytes();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..bytes.len());
        let end = (at + random.usize(1..40)).min(bytes.len());
        match random.u8(..6) {
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] ^= 1 << random.u8(..8),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.extend_from_within(at..end),
            4 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => bytes = (0..random.usize(1..500)).map(|_| random.u8(..)).collect(),
        }
        if bytes.is_empty() {
            bytes.push(b'P');
        }
    }
    bytes
}

fn request_lines() -> Vec<Row> {
    let row = |what, line: &str, outcome| {
        let rest =
            format!("Host: a\r\nAuthorization: Bearer key_a\r\nContent-Length: 20\r\n\r\n{BODY}");
        (what, format!("{line}\r\n{rest}").into_bytes(), outcome)
    };
    let path = "/api/webhook/workflow";
    let long = format!("POST /{} HTTP/1.1", "a".repeat(20_000));
    vec![
        row("origin form", &format!("POST {path} HTTP/1.1"), Accepted),
        row("query", &format!("POST {path}?a=b&webhookId=x HTTP/1.1"), Accepted),
        row("fragment", &format!("POST {path}#a HTTP/1.1"), Accepted),
        row("absolute form", &format!("POST http://else.where{path} HTTP/1.1"), Accepted),
        row("absolute form, https", &format!("POST https://a{path}?b HTTP/1.1"), Accepted),
        row("absolute form, no path", "POST http://a HTTP/1.1", Refused(404, "not_found")),
        row("authority form", "CONNECT a:443 HTTP/1.1", Refused(404, "not_found")),
        row("authority form, POST", "POST a:443 HTTP/1.1", Refused(404, "not_found")),
        row("asterisk form", "OPTIONS * HTTP/1.1", Refused(404, "not_found")),
        row("asterisk form, POST", "POST * HTTP/1.1", Refused(404, "not_found")),
        row("HEAD", &format!("HEAD {path} HTTP/1.1"), Refused(405, "")),
        row("GET with a body", &format!("GET {path} HTTP/1.1"), Refused(405, "method_not_allowed")),
        row("lower case", &format!("post {path} HTTP/1.1"), Refused(405, "method_not_allowed")),
        row(
            "dot segments",
            "POST /api/webhook/../webhook/workflow HTTP/1.1",
            Refused(404, "not_found"),
        ),
        row("empty line before", &format!("\r\n\r\nPOST {path} HTTP/1.1"), Accepted),
        row("1.0", &format!("POST {path} HTTP/1.0"), AcceptedAndClosed),
        row("0.9", &format!("POST {path}"), NoRequest(400)),
        row("2.0", &format!("POST {path} HTTP/2.0"), NoRequest(400)),
        row("1.2", &format!("POST {path} HTTP/1.2"), NoRequest(400)),
        row("no version", &format!("POST {path} "), NoRequest(400)),
        row("two spaces", &format!("POST  {path} HTTP/1.1"), NoRequest(400)),
        row("a space in the path", &format!("POST {path} x HTTP/1.1"), NoRequest(400)),
        row("NUL in the path", &format!("POST {path}\0 HTTP/1.1"), NoRequest(400)),
        row("an unknown method", &format!("PO(ST {path} HTTP/1.1"), NoRequest(400)),
        row("no path", "POST HTTP/1.1", NoRequest(400)),
        row("TLS", "\x16\x03\x01\x02", NoRequest(400)),
        row("a long path", &long, Refused(404, "not_found")),
    ]
}

fn hosts() -> Vec<Row> {
    let row = |what, hosts: &str, outcome| {
        (what, format!("{START}{hosts}Content-Length: 20\r\n\r\n{BODY}").into_bytes(), outcome)
    };
    let of_1_0 = START.replace("1.1", "1.0");
    let old = |what, hosts: &str, outcome| {
        (what, format!("{of_1_0}{hosts}Content-Length: 20\r\n\r\n{BODY}").into_bytes(), outcome)
    };
    vec![
        row("a host", "Host: hooks.example.com:8443\r\n", Accepted),
        row("an address", "Host: [::1]:80\r\n", Accepted),
        row("an empty host", "Host:\r\n", Accepted),
        row("no host", "", NoRequest(400)),
        row("two hosts", "Host: a\r\nHost: b\r\n", NoRequest(400)),
        row("the same host twice", "Host: a\r\nHost: a\r\n", NoRequest(400)),
        row("a host that is a list", "Host: a, b\r\n", NoRequest(400)),
        row("a host with a path", "Host: a/b\r\n", NoRequest(400)),
        row("a host with a user", "Host: b@a\r\n", NoRequest(400)),
        old("1.0 without a host", "", AcceptedAndClosed),
        old("1.0 with keep-alive", "Host: a\r\nConnection: keep-alive\r\n", Accepted),
        old("1.0 with two hosts", "Host: a\r\nHost: b\r\n", NoRequest(400)),
    ]
}

fn fields() -> Vec<Row> {
    let row = |what, field: &[u8], outcome| {
        let head = format!("{START}Host: a\r\nContent-Length: 20\r\n").into_bytes();
        (what, [&head, field, b"\r\n\r\n", BODY.as_bytes()].concat(), outcome)
    };
    let many = |count: usize| vec!["A: b"; count].join("\r\n").into_bytes();
    let large = format!("A: {}", "b".repeat(40_000)).into_bytes();
    let token = format!("X-Key: {}", "k".repeat(4096));
    vec![
        row("Connection: close", b"Connection: close", AcceptedAndClosed),
        row("Connection: close among others", b"Connection: te, close", AcceptedAndClosed),
        row("an upgrade", b"Connection: upgrade\r\nUpgrade: h2c", Accepted),
        row("two credentials", b"Authorization: Bearer key_b", Refused(401, "missing_credentials")),
        row("a value of 4 KiB", token.as_bytes(), Accepted),
        row("obs-text", b"A: caf\xe9", Accepted),
        row("a tab in a value", b"A: b\tc", Accepted),
        row("96 fields more", &many(96), Accepted),
        row("101 fields more", &many(101), NoRequest(431)),
        row("a head of 30 KB", &large[..30_000], Accepted),
        row("a head of 40 KB", &large, NoRequest(431)),
        row("a bare LF", b"A: b\nC: d", Accepted),
        row("a bare CR", b"A: b\rC: d", NoRequest(400)),
        row("folding", b"A: b\r\n c", NoRequest(400)),
        row("folding before the first field", b" A: b", NoRequest(400)),
        row("a space before the colon", b"A : b", NoRequest(400)),
        row("no colon", b"A", NoRequest(400)),
        row("no name", b": b", NoRequest(400)),
        row("NUL in a value", b"A: b\0c", NoRequest(400)),
        row("a control byte in a value", b"A: b\x01c", NoRequest(400)),
        row("DEL in a value", b"A: b\x7fc", NoRequest(400)),
        row("NUL in a name", b"A\0: b", NoRequest(400)),
        row("a byte in a name", b"\xc3\xa4: b", NoRequest(400)),
    ]
}

fn lengths() -> Vec<Row> {
    let row = |what, fields: &str, body: &str, outcome| {
        (what, format!("{START}Host: a\r\n{fields}\r\n\r\n{body}").into_bytes(), outcome)
    };
    let chunked = "Transfer-Encoding: chunked";
    let no_lengths = ["20, 20", "+20", "-20", "0x14", "20.5", "18446744073709551636"]
        .map(|length| row(length, &format!("Content-Length: {length}"), BODY, NoRequest(400)));
    let no_encodings = [
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, chunked",
        "xchunked",
        "\"chunked\"",
        "chunked;a=b",
        "identity",
        "\x0bchunked",
    ]
    .map(|encoding| {
        row(encoding, &format!("Transfer-Encoding: {encoding}"), CHUNKS, NoRequest(400))
    });
    let mut rows = vec![
        row("no length", "A: b", "", Refused(400, "invalid_json")),
        row("a length of zero", "Content-Length: 0", "", Refused(400, "invalid_json")),
        row("the same length twice", "Content-Length: 20\r\nContent-Length: 20", BODY, Accepted),
        row("two lengths", "Content-Length: 20\r\nContent-Length: 21", BODY, NoRequest(400)),
        row("an empty length", "Content-Length:", BODY, NoRequest(400)),
        row("2^64 - 1", "Content-Length: 18446744073709551615", BODY, NoRequest(431)),
        row(
            "a gigabyte",
            "Content-Length: 1073741824",
            BODY,
            RefusedAndClosed(413, "payload_too_large"),
        ),
        row(
            "length, then chunked",
            &format!("Content-Length: 20\r\n{chunked}"),
            CHUNKS,
            AcceptedAndClosed,
        ),
        row(
            "chunked, then length",
            &format!("{chunked}\r\nContent-Length: 7"),
            CHUNKS,
            AcceptedAndClosed,
        ),
        row("chunked", chunked, CHUNKS, Accepted),
        row("an empty encoding", "Transfer-Encoding:", CHUNKS, NoRequest(400)),
        row("chunked twice", &format!("{chunked}\r\n{chunked}"), CHUNKS, NoRequest(400)),
        row("Chunked", "Transfer-Encoding: Chunked", CHUNKS, Accepted),
        row(
            "a name with an underscore",
            "Transfer_Encoding: chunked",
            "",
            Refused(400, "invalid_json"),
        ),
        (
            "chunked in 1.0",
            format!("{}Host: a\r\n{chunked}\r\n\r\n{CHUNKS}", START.replace("1.1", "1.0"))
                .into_bytes(),
            NoRequest(400),
        ),
    ];
    rows.extend(no_lengths);
    rows.extend(no_encodings);
    rows
}

fn chunks() -> Vec<Row> {
    let row = |what, body: &str, outcome| {
        let head = format!("{START}Host: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        (what, format!("{head}{body}").into_bytes(), outcome)
    };
    let end = "0\r\n\r\n";
    let extension = |length: usize| format!("14;{}\r\n{BODY}\r\n{end}", "x".repeat(length));
    let large = format!("800\r\n{}\r\n{end}", " ".repeat(0x800));
    let broken = RefusedAndClosed(400, "invalid_json");
    // The last chunk is longer than its size.
    let no_sizes = ["xyz", "0x14", "-14", "10000000000000014", "13"]
        .map(|size| row(size, &format!("{size}\r\n{BODY}\r\n{end}"), broken));
    let mut rows = vec![
        row("one chunk", &format!("14\r\n{BODY}\r\n{end}"), Accepted),
        row("leading zeros", &format!("00014\r\n{BODY}\r\n{end}"), Accepted),
        row("an extension", &format!("14;a=\"b\"\r\n{BODY}\r\n{end}"), Accepted),
        row("an extension of 20 KB", &extension(20_000), broken),
        row(
            "trailers",
            &format!("14\r\n{BODY}\r\n0\r\nContent-Length: 9\r\nHost: b\r\n\r\n"),
            Accepted,
        ),
        row("no size", &format!("\r\n{BODY}\r\n{end}"), broken),
        row("bare LF", &format!("14\n{BODY}\n0\n\n"), broken),
        row("too large", &large, Refused(413, "payload_too_large")),
    ];
    rows.extend(no_sizes);
    rows
}
