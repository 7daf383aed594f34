//! Compressed bodies: what is accepted, what is refused, and the bounds on the cost of both.

#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test panics")]
#![expect(clippy::print_stdout, reason = "the figure belongs to the output of the test")]

pub(crate) mod encoders;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use encoders::{ENCODINGS, bomb, brotli, encode, gzip, zstd_frame};
use serde_json::{Value, json};
use testkit::App;
use testkit::http::{Call, Reply};
use testkit::raw::Connection;
use testkit::wait::until;
use tokio::task::{JoinHandle, JoinSet};

const BODY: &str = "{ \"a\" : 1.0,\"webhookId\":\"wh_1\", \"b\":\"gr\u{fc}n\" }";
const PAYLOAD: &str = "{ \"a\" : 1.0,\"b\":\"gr\u{fc}n\" }";

fn call(app: &App, encoding: &str, encoded: impl Into<Vec<u8>>) -> Call {
    app.post(encoded).header("content-encoding", encoding)
}

async fn send(app: &App, encoding: &str, encoded: impl Into<Vec<u8>>) -> Reply {
    call(app, encoding, encoded).send().await
}

/// Asserts that there are `count` jobs and that each has this payload.
async fn assert_payloads(app: &App, count: usize, payload: &str) {
    let jobs = app.redis.queue().waiting().await;
    assert_eq!(jobs.len(), count);
    for job in jobs {
        assert_eq!(job.payload_text(), payload);
    }
}

/// A body of `bytes` bytes when decoded.
fn long(bytes: usize) -> Vec<u8> {
    let head = r#"{"webhookId":"wh_1","a":""#;
    format!("{head}{}\"}}", "0123456789".repeat(bytes).split_at(bytes - head.len() - 2).0).into()
}

#[tokio::test]
async fn the_payload_is_the_decoded_bytes() {
    let app = App::start().await;
    let spellings = [
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("deflate", "deflate"),
        ("Br", "br"),
        ("zstd", "zstd"),
        ("identity, zstd", "zstd"),
        (" , br ,", "br"),
    ];
    for (header, encoding) in spellings {
        assert_eq!(send(&app, header, encode(encoding, BODY.as_bytes())).await.matched(), 1);
    }
    for header in ["", "identity", "Identity, identity"] {
        assert_eq!(send(&app, header, BODY).await.matched(), 1);
    }
    // Two lines of the header are one list.
    let encoded = gzip(BODY.as_bytes());
    let head = format!(
        "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n\
         Content-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        encoded.len()
    );
    assert_eq!(app.raw([head.as_bytes(), &encoded].concat()).await.matched(), 1);
    assert_payloads(&app, spellings.len() + 4, PAYLOAD).await;
    app.assert_accounting().await;
}

/// `{"webhookId":"wh_1","n":1.0,"text":"grün grün grün grün grün"}`, encoded by the named programs.
const OTHER_ENCODERS: [(&str, &str, &str); 7] = [
    (
        "gzip(1)",
        "gzip",
        "H4sIAAAAAAACA6tWKk9NysjPz/ZMUbJSKs+IN1TSUcpTsjLUM9BRKkmtKAGKphcd3pOngINUqgUALhtKV0MAAAA=",
    ),
    (
        "Node",
        "gzip",
        "H4sIAAAAAAAAA6tWKk9NysjPz/ZMUbJSKs+IN1TSUcpTsjLUM9BRKkmtKFGyUkovOrwnTwEHqVQLAC4bSldDAAAA",
    ),
    (
        "Python",
        "gzip",
        "H4sIAP2iBWsC/6tWKk9NysjPz/ZMUbJSKs+IN1TSUcpTsjLUM9BRKkmtKAGKphcd3pOngINUqgUALhtKV0MAAAA=",
    ),
    ("Node", "deflate", "eJyrVipPTcrIz8/2TFGyUirPiDdU0lHKU7Iy1DPQUSpJrShRslJKLzq8J08BB6lUCwALuRl+"),
    ("Node, raw", "deflate", "q1YqT03KyM/P9kxRslIqz4g3VNJRylOyMtQz0FEqSa0oUbJSSi86vCdPAQepVAsA"),
    (
        "Node",
        "br",
        "G0IA+I3UYs0Z7gTitlRl+Ygv0ZIEUTwIFywGc7VZOn0pCT8a1QE9vMvp1daauYFjRREcGpOwAWP/5wEC",
    ),
    (
        "zstd(1)",
        "zstd",
        "KLUv/QRonQEAxAJ7IndlYmhvb2tJZCI6IndoXzEiLCJuIjoxLjAsInRleHQiOiJncsO8biAifQEASl3KcoBd/w==",
    ),
];

#[tokio::test]
async fn bodies_of_other_encoders_are_accepted() {
    let app = App::start().await;
    for (program, encoding, encoded) in OTHER_ENCODERS {
        let reply = send(&app, encoding, STANDARD.decode(encoded).expect("base64")).await;
        assert_eq!(reply.status, 202, "{program}, {encoding}: {}", reply.text());
    }
    let payload = "{\"n\":1.0,\"text\":\"gr\u{fc}n gr\u{fc}n gr\u{fc}n gr\u{fc}n gr\u{fc}n\"}";
    assert_payloads(&app, OTHER_ENCODERS.len(), payload).await;
}

#[tokio::test]
async fn a_compressed_body_may_have_several_parts() {
    let app = App::start().await;
    let (first, second) = BODY.as_bytes().split_at(15);
    let parts = [
        ("gzip", [gzip(first), gzip(b""), gzip(second)].concat()),
        ("zstd", [encode("zstd", first), encode("zstd", second)].concat()),
        ("zstd", [encoders::zstd_skippable(b"abc"), encode("zstd", BODY.as_bytes())].concat()),
        ("zstd", [encode("zstd", BODY.as_bytes()), encoders::zstd_skippable(b"")].concat()),
        ("zstd", zstd_frame(23, BODY.as_bytes())),
        ("deflate", encoders::raw_deflate(BODY.as_bytes())),
        ("br", brotli(BODY.as_bytes(), 24, false)),
        ("br", brotli(BODY.as_bytes(), 10, false)),
    ];
    for (encoding, encoded) in &parts {
        let reply = send(&app, encoding, encoded.as_slice()).await;
        assert_eq!(reply.status, 202, "{encoding}: {}", reply.text());
    }
    assert_payloads(&app, parts.len(), PAYLOAD).await;
}

/// An empty part takes 20 bytes, or 8, and costs as much as a small body.
#[tokio::test]
async fn a_body_has_no_more_than_64_parts() {
    let app = App::start().await;
    let mut accepted = 0;
    for (encoding, empty) in [
        ("gzip", gzip(b"")),
        ("zstd", encode("zstd", b"")),
        ("zstd", encoders::zstd_skippable(b"")),
    ] {
        for (at_first, at_last) in [(63, 0), (0, 63), (31, 32)] {
            let body = encode(encoding, BODY.as_bytes());
            let parts = [empty.repeat(at_first), body, empty.repeat(at_last)].concat();
            let reply = send(&app, encoding, parts.as_slice()).await;
            assert_eq!(reply.status, 202, "{encoding}: {}", reply.text());
            accepted += 1;
            let more = [empty.as_slice(), &parts].concat();
            send(&app, encoding, more).await.assert_rejected(400, "invalid_json");
        }
        let many = empty.repeat((1 << 20) / empty.len());
        send(&app, encoding, many).await.assert_rejected(400, "invalid_json");
    }
    assert_payloads(&app, accepted, PAYLOAD).await;
}

#[tokio::test]
async fn an_undecodable_body_is_refused_and_its_connection_kept() {
    let app = App::start().await;
    let mut rows: Vec<(&str, &str, Vec<u8>)> = Vec::new();
    for encoding in ENCODINGS {
        let good = encode(encoding, BODY.as_bytes());
        rows.push(("empty", encoding, Vec::new()));
        rows.push(("plain", encoding, BODY.into()));
        rows.push(("first byte", encoding, good[..1].to_vec()));
        rows.push(("half", encoding, good[..good.len() / 2].to_vec()));
        rows.push(("without the last byte", encoding, good[..good.len() - 1].to_vec()));
        rows.push(("a byte more", encoding, [&good, &b"\0"[..]].concat()));
        rows.push(("another more", encoding, [&good, BODY.as_bytes()].concat()));
    }
    for (encoding, distance) in [("gzip", 8), ("gzip", 1), ("deflate", 1)] {
        let mut damaged = encode(encoding, BODY.as_bytes());
        let at = damaged.len() - distance;
        damaged[at] ^= 1;
        rows.push(("checksum or length", encoding, damaged));
    }
    for encoding in ["deflate", "br"] {
        rows.push(("twice", encoding, encode(encoding, BODY.as_bytes()).repeat(2)));
    }
    rows.push(("nested", "gzip", gzip(&gzip(BODY.as_bytes()))));
    rows.push(("window of 16 MiB", "zstd", zstd_frame(24, BODY.as_bytes())));
    rows.push(("window of 2 GiB", "zstd", zstd_frame(31, BODY.as_bytes())));
    rows.push(("large window", "br", brotli(BODY.as_bytes(), 26, true)));
    rows.push(("only skipped frames", "zstd", encoders::zstd_skippable(b"abc")));

    let mut connection = Connection::open(app.hookgate.address()).await;
    for (what, encoding, encoded) in rows {
        let head = format!(
            "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n\
             Content-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
            encoded.len()
        );
        connection.send([head.as_bytes(), &encoded].concat()).await;
        let reply = connection.reply().await.unwrap_or_else(|| panic!("{what}, {encoding}"));
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "invalid_json"),
            "{what}, {encoding}"
        );
    }
    app.redis.queue().assert_empty().await;
}

#[tokio::test]
async fn an_unknown_encoding_is_refused_with_the_accepted_ones() {
    let app = App::start().await;
    for header in ["compress", "gzip, br", "gzip, gzip", "gzip;q=1", "rot13"] {
        let reply = send(&app, header, gzip(&gzip(BODY.as_bytes()))).await;
        reply.assert_rejected(415, "unsupported_media_type");
        assert_eq!(reply.header("accept-encoding"), Some("gzip, deflate, br, zstd"), "{header}");
    }
    // A content-encoding of the answer would be misleading.
    let reply = call(&app, "gzip", gzip(BODY.as_bytes())).header("content-type", "text/plain");
    let reply = reply.send().await;
    reply.assert_rejected(415, "unsupported_media_type");
    assert_eq!(reply.header("accept-encoding"), None);

    for (configured, accepted) in [(vec!["br", "gzip"], "br, gzip"), (Vec::new(), "identity")] {
        let app = App::with(|config| {
            config.set("server.content_encodings", configured);
        })
        .await;
        let reply = send(&app, "zstd", encode("zstd", BODY.as_bytes())).await;
        reply.assert_rejected(415, "unsupported_media_type");
        assert_eq!(reply.header("accept-encoding"), Some(accepted));
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
}

#[tokio::test]
async fn the_encoded_and_the_decoded_size_are_bounded() {
    let app = App::with(|config| {
        config.set("server.max_body", "64KiB");
    })
    .await;
    let too_large = |reply: &Reply, what: &str| {
        assert_eq!((reply.status, reply.code().as_str()), (413, "payload_too_large"), "{what}");
        assert_eq!(reply.json()["details"], json!({ "maxBytes": 65536 }), "{what}");
    };
    for encoding in ENCODINGS {
        let reply = send(&app, encoding, encode(encoding, &long(65536))).await;
        assert_eq!(reply.status, 202, "{encoding}: {}", reply.text());
        too_large(&send(&app, encoding, encode(encoding, &long(65537))).await, encoding);
    }
    // The body is small when decoded, but too large as it is sent.
    let padded =
        [encoders::zstd_skippable(&vec![0; 66_000]), encode("zstd", BODY.as_bytes())].concat();
    too_large(&send(&app, "zstd", padded).await, "as sent");
    assert_eq!(app.redis.queue().waiting().await.len(), 4);
}

#[tokio::test]
async fn a_decompression_bomb_stays_within_its_limit() {
    let bombs = ENCODINGS.map(|encoding| (encoding, bomb(encoding)));
    let app = App::with(|config| {
        config.set("server.workers", 2);
    })
    .await;
    assert_eq!(send(&app, "gzip", gzip(BODY.as_bytes())).await.matched(), 1);
    let before = peak(&app);
    for (encoding, bomb) in bombs {
        assert!(bomb.len() <= 1 << 20, "{encoding}: {} bytes are refused as they are", bomb.len());
        let mut calls = JoinSet::new();
        for _ in 0..8 {
            calls.spawn(call(&app, encoding, bomb.as_slice()).send());
        }
        for reply in calls.join_all().await {
            reply.assert_rejected(413, "payload_too_large");
        }
    }
    // The windows are requested and never filled.
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        calls.spawn(call(&app, "zstd", zstd_frame(23, b"{}")).send());
        calls.spawn(call(&app, "br", brotli(b"{}", 24, false)).send());
    }
    for reply in calls.join_all().await {
        reply.assert_rejected(400, "missing_webhook_id");
    }
    let more = peak(&app) - before;
    println!("at most {more} KiB more");
    // Eight bodies as sent, two decoders for each worker of 24 MiB while their window grows, and
    // windows that the allocator has not returned yet. Eight decoders at a time would use 192 MiB.
    assert!(more < 160 << 10, "{more} KiB more");
}

/// Peak memory of the process, in KiB.
fn peak(app: &App) -> u64 {
    let status = format!("/proc/{}/status", app.hookgate.process().pid());
    let status = std::fs::read_to_string(status).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn decoding_does_not_delay_other_requests() {
    let bombs = ENCODINGS.map(|encoding| (encoding, bomb(encoding)));
    let app = App::with(|config| {
        config.set("server.workers", 1).set("server.max_body", "64MiB");
        config.set("limits.in_flight_bytes", "1GiB");
    })
    .await;
    let in_flight = async || app.hookgate.metrics().await.value("hookgate_requests_in_flight", &[]);
    // On a busy machine all bodies may be decoded before the test measures; then it tries again.
    for _ in 0..10 {
        let bombs = bombs.clone();
        let large = bombs.map(|(encoding, bomb)| tokio::spawn(call(&app, encoding, bomb).send()));
        let is_over = || large.iter().all(JoinHandle::is_finished);
        until("large bodies are decoded", async || in_flight().await >= 1.0 || is_over()).await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        let was_meanwhile = !is_over();
        for call in large {
            call.await.expect("the task does not panic").assert_rejected(413, "payload_too_large");
        }
        if was_meanwhile {
            return;
        }
    }
    panic!("large bodies were decoded before any other request was served");
}

#[tokio::test]
async fn decoded_bytes_are_reserved_too() {
    let app = App::with(|config| {
        config.set("server.max_body", "64KiB").set("limits.in_flight_bytes", "64KiB");
        config.set("limits.organization.in_flight_share", 1.0);
    })
    .await;
    let reply = send(&app, "gzip", gzip(&long(60_000))).await;
    assert!(matches!(reply.status, 202 | 503), "{}", reply.text());
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        calls.spawn(call(&app, "gzip", gzip(&long(20_000))).send());
    }
    let replies = calls.join_all().await;
    let accepted = replies.iter().filter(|reply| reply.status == 202).count();
    for reply in replies.iter().filter(|reply| reply.status != 202) {
        reply.assert_rejected(503, "overloaded");
    }
    assert!(accepted > 0, "no request was accepted");
    // All reserved bytes are released.
    until("the bytes are released", async || {
        send(&app, "gzip", gzip(&long(20_000))).await.status == 202
    })
    .await;
}

#[tokio::test]
async fn an_idempotency_key_is_bound_to_the_decoded_bytes() {
    let app = App::start().await;
    let plain = app.post(BODY).header("idempotency-key", "k").send().await;
    assert_eq!((plain.matched(), plain.header("idempotency-replayed")), (1, None));
    for encoding in ENCODINGS {
        let encoded = call(&app, encoding, encode(encoding, BODY.as_bytes()));
        let repeat = encoded.header("idempotency-key", "k").send().await;
        assert_eq!((repeat.matched(), repeat.header("idempotency-replayed")), (1, Some("true")));
    }
    let other = call(&app, "gzip", gzip(br#"{"webhookId":"wh_1"}"#));
    other
        .header("idempotency-key", "k")
        .send()
        .await
        .assert_rejected(422, "idempotency_key_reused");
    let details: Value = app.redis.queue().only_job().await.data();
    assert_eq!(details["trigger"]["payload"]["a"], 1.0);
}
