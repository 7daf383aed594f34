//! Requests as a caller makes them, and their answers.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, ClientBuilder, Method, Version};
use serde_json::{Value, json};

use super::confidential;

/// Bound on the time of one request: a service that hangs fails one test instead of stopping all of
/// them.
const LIMIT: Duration = Duration::from_secs(90);

/// How long the client keeps an idle connection. Hookgate as shipped closes a connection after ten
/// seconds without a request, and a request that meets that close has no answer.
const IDLE: Duration = Duration::from_secs(5);

/// The path of the webhook endpoint.
pub const PATH: &str = "/api/webhook/workflow";

/// Number of requests that a test sent, to compare with what the service counted.
#[derive(Debug, Default)]
pub struct Counts {
    pub sent: AtomicU64,
    /// Requests without an answer; the service may or may not have counted them.
    pub unanswered: AtomicU64,
}

/// A caller; clones share connections and counts.
#[derive(Debug, Clone)]
pub struct Caller {
    origin: String,
    client: Client,
    counts: Arc<Counts>,
}

impl Caller {
    pub fn new(address: SocketAddr) -> Self {
        Self::at(format!("http://{address}"), Client::builder())
    }

    /// A caller over TLS, with the settings of this builder.
    pub fn over_tls(address: SocketAddr, builder: ClientBuilder) -> Self {
        Self::at(format!("https://{address}"), builder)
    }

    fn at(origin: String, builder: ClientBuilder) -> Self {
        let builder = builder.no_proxy().timeout(LIMIT).pool_idle_timeout(IDLE);
        let client = builder.build().expect("a client");
        Self { origin, client, counts: Arc::default() }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A webhook with this JSON body, by default with the API key `key_a`.
    pub fn post(&self, body: impl Into<Vec<u8>>) -> Call {
        self.call(Method::POST, PATH)
            .header("content-type", "application/json")
            .bearer("key_a")
            .body(body)
    }

    /// [`Caller::post`] of a body that has only this `webhookId`.
    pub fn webhook(&self, webhook: &str) -> Call {
        self.post(json!({ "webhookId": webhook }).to_string())
    }

    /// Any request, without headers.
    pub fn call(&self, method: Method, path: &str) -> Call {
        let url = format!("{}{path}", self.origin);
        Call { caller: self.clone(), method, url, headers: HeaderMap::new(), body: None }
    }
}

/// A request under construction.
#[derive(Debug)]
pub struct Call {
    caller: Caller,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Option<reqwest::Body>,
}

impl Call {
    /// Sets a header, and replaces any of that name.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.headers.insert(name, HeaderValue::from_bytes(value.as_ref()).expect("a header value"));
        self
    }

    /// Adds a header, and keeps those of that name.
    pub fn add_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.headers.append(name, HeaderValue::from_bytes(value.as_ref()).expect("a header value"));
        self
    }

    /// Omits a header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Sets the credential.
    pub fn bearer(self, credential: &str) -> Self {
        confidential::credential(credential);
        self.header("authorization", format!("Bearer {credential}"))
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        confidential::body(&body);
        self.body = Some(body.into());
        self
    }

    /// Head and body as bytes of HTTP/1.1, for a raw connection of the test.
    pub fn to_http1(&self) -> (Vec<u8>, Vec<u8>) {
        self.caller.counts.sent.fetch_add(1, Ordering::Relaxed);
        let body = self.body.as_ref().and_then(reqwest::Body::as_bytes).unwrap_or_default();
        let target = self.url.strip_prefix(&self.caller.origin).expect("an address of Hookgate");
        let mut head = format!("{} {target} HTTP/1.1\r\nHost: hookgate\r\n", self.method);
        if self.body.is_some() {
            write!(head, "Content-Length: {}\r\n", body.len()).expect("a string");
        }
        let mut head = head.into_bytes();
        for (name, value) in &self.headers {
            head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        head.extend(b"\r\n");
        (head, body.to_vec())
    }

    /// Sets a body that is sent in pieces, without its length.
    pub fn pieces<P>(mut self, pieces: P) -> Self
    where
        P: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        self.body = Some(reqwest::Body::wrap_stream(pieces));
        self
    }

    /// Sends, and expects an answer.
    pub async fn send(self) -> Reply {
        self.try_send().await.expect("hookgate answers")
    }

    /// Sends; the error is a connection that could not be made or that broke.
    pub async fn try_send(self) -> reqwest::Result<Reply> {
        self.caller.counts.sent.fetch_add(1, Ordering::Relaxed);
        let mut request = self.caller.client.request(self.method, self.url).headers(self.headers);
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let reply = read(request).await;
        if reply.is_err() {
            self.caller.counts.unanswered.fetch_add(1, Ordering::Relaxed);
        }
        reply
    }
}

async fn read(request: reqwest::RequestBuilder) -> reqwest::Result<Reply> {
    let response = request.send().await?;
    let (status, version) = (response.status().as_u16(), response.version());
    let headers = response.headers().clone();
    Ok(Reply { status, version, headers, body: response.bytes().await?.to_vec() })
}

/// An answer to a request.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header in UTF-8"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The error code; empty if there is none.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether the request was accepted with `count` matches. Callers ask again while the index is
    /// not loaded.
    pub fn has_matched(&self, count: u64) -> bool {
        self.status == 202 && self.matched() == count
    }

    /// `matchedCount` of a 202; any other answer fails the test.
    pub fn matched(&self) -> u64 {
        assert_eq!(self.status, 202, "expected 202: {}", self.text());
        self.json()["data"]["matchedCount"].as_u64().expect("a number")
    }

    /// Asserts an error with this status and code.
    #[track_caller]
    pub fn assert_rejected(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "body: {}", self.text());
    }

    /// Asserts a 503 of the queue with this value of `enqueued`.
    #[track_caller]
    pub fn assert_not_enqueued(&self, enqueued: &str) {
        self.assert_rejected(503, "queue_unavailable");
        assert_eq!(self.json()["details"]["enqueued"], enqueued, "{}", self.text());
    }
}
