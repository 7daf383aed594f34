//! Bodies of each kind as large as `server.max_body`, and one byte larger.

use super::bodies::delivery;
use super::route::{SECRET, documents, matched};
use crate::http::compressed::encoders::gzip;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use testkit::App;
use testkit::deliveries::endpoints;

const MAX: usize = 64 << 10;

async fn start() -> App {
    let documents = documents(&json!({ "scheme": "github", "secret": SECRET }));
    let build = App::build().documents(documents).config(endpoints);
    let build = build.config(|config| {
        config.set("server.max_body", "64KiB");
    });
    build.start().await
}

/// A kind of body: what is before and after the bytes that fill it.
struct Kind {
    content_type: &'static str,
    before: &'static str,
    filler: u8,
    after: &'static str,
    /// The payload by the bytes that fill it.
    payload: fn(&str) -> Value,
}

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    Kind { content_type: "application/json", before: "{\"a\":\"", filler: b'x', after: "\"}", payload: |filled| json!({ "a": filled }) },
    Kind { content_type: "application/json", before: "[", filler: b' ', after: "7]", payload: |_| json!([7]) },
    Kind { content_type: "application/x-www-form-urlencoded", before: "a=1&b=", filler: b'x', after: "", payload: |filled| json!({ "a": "1", "b": filled }) },
    Kind { content_type: "multipart/form-data; boundary=b", before: "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n", filler: b'x', after: "\r\n--b--\r\n", payload: |filled| json!({ "a": filled }) },
    Kind { content_type: "multipart/form-data; boundary=b", before: "--b\r\nContent-Disposition: form-data; name=\"a\"; filename=\"f\"\r\nContent-Type: x/y\r\n\r\n", filler: b'x', after: "\r\n--b--\r\n", payload: |filled| json!({ "a": { "name": "f", "type": "x/y", "base64": base64(filled) } }) },
    Kind { content_type: "text/plain", before: "", filler: b'x', after: "", payload: |filled| json!(filled) },
    // Each byte becomes six.
    Kind { content_type: "text/plain", before: "", filler: 1, after: "", payload: |filled| json!(filled) },
    Kind { content_type: "application/octet-stream", before: "", filler: b'x', after: "", payload: |filled| json!(base64(filled)) },
];

fn base64(filled: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(filled)
}

impl Kind {
    /// What fills a body of this size.
    fn filled(&self, size: usize) -> String {
        let length = size - self.before.len() - self.after.len();
        String::from_utf8(vec![self.filler; length]).expect("ASCII")
    }

    fn body(&self, size: usize) -> Vec<u8> {
        [self.before, &self.filled(size), self.after].concat().into_bytes()
    }

    async fn assert_delivered(&self, app: &App) {
        let job = app.redis.queue().only_job().await;
        let expected = (self.payload)(&self.filled(MAX));
        let data = job.data();
        let is_expected = data.pointer("/trigger/payload") == Some(&expected);
        assert!(is_expected, "{}", self.content_type);
        app.redis.queue().remove_jobs().await;
    }
}

#[tokio::test]
async fn a_body_of_each_kind_has_the_same_bound() {
    let app = start().await;
    for kind in KINDS {
        let largest = delivery(&app, Some(kind.content_type), &kind.body(MAX)).send().await;
        assert_eq!(matched(&largest, 200), 1, "{}", kind.content_type);
        kind.assert_delivered(&app).await;
        let larger = delivery(&app, Some(kind.content_type), &kind.body(MAX + 1));
        larger.send().await.assert_rejected(413, "payload_too_large");
    }
    app.redis.queue().assert_empty().await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_compressed_body_of_each_kind_has_the_bound_when_it_is_decoded() {
    let app = start().await;
    for kind in KINDS {
        let send = async |size: usize| {
            let call = delivery(&app, Some(kind.content_type), &gzip(&kind.body(size)));
            call.header("content-encoding", "gzip").send().await
        };
        assert_eq!(matched(&send(MAX).await, 200), 1, "{}", kind.content_type);
        kind.assert_delivered(&app).await;
        send(MAX + 1).await.assert_rejected(413, "payload_too_large");
    }
    app.redis.queue().assert_empty().await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_body_without_a_length_has_the_bound_too() {
    let app = start().await;
    for kind in KINDS {
        let send = async |size: usize| {
            let body = kind.body(size);
            let call = delivery(&app, Some(kind.content_type), &body);
            let mut rest = Bytes::from(body);
            let pieces = std::iter::from_fn(move || {
                let piece = rest.split_to(rest.len().min(10_000));
                (!piece.is_empty()).then_some(Ok(piece))
            });
            call.pieces(stream::iter(pieces)).send().await
        };
        assert_eq!(matched(&send(MAX).await, 200), 1, "{}", kind.content_type);
        kind.assert_delivered(&app).await;
        send(MAX + 1).await.assert_rejected(413, "payload_too_large");
    }
    app.redis.queue().assert_empty().await;
}
