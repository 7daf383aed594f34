//! HTTP/2 attacks: the connection is closed or held within its bounds, and other callers are
//! served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::App;
use testkit::http2::{ACK, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, Frames};
use testkit::http2::{REFUSED_STREAM, block, kind};
use testkit::tls::Authority;
use testkit::wait::until;
use tokio::io::AsyncWriteExt;

/// Bound on the memory of a flood: a connection holds 12 MiB at worst, the rest is the allocator's.
const MEMORY: f64 = 32.0 * 1024.0 * 1024.0;

struct Target {
    app: App,
    authority: Authority,
    memory: f64,
}

impl Target {
    async fn start() -> Self {
        let authority = Authority::new();
        let app = Box::pin(App::build().tls(&authority).start()).await;
        for _ in 0..20 {
            assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        }
        let memory = memory(&app).await;
        Self { app, authority, memory }
    }

    async fn frames(&self) -> Frames {
        Frames::open(&self.authority, self.app.hookgate.address()).await
    }

    /// Sends groups of frames until the other side closes; returns its error codes.
    async fn flood(&self, mut flock: impl FnMut(u32) -> Vec<Frame>) -> Vec<u32> {
        let mut frames = self.frames().await;
        for number in 0..2000 {
            if !frames.send(&flock(number)).await {
                break;
            }
            if number % 100 == 0 {
                assert_eq!(self.app.webhook("wh_1").send().await.matched(), 1);
            }
        }
        let codes = frames.closed().await;
        self.assert_unharmed().await;
        codes
    }

    async fn assert_unharmed(&self) {
        assert_eq!(self.app.webhook("wh_1").send().await.matched(), 1);
        let memory = memory(&self.app).await;
        assert!(memory < self.memory + MEMORY, "{} bytes became {memory}", self.memory);
        until("nothing is in flight", async || {
            self.app.hookgate.metrics().await.value("hookgate_requests_in_flight", &[]) < 1.0
        })
        .await;
    }
}

async fn memory(app: &App) -> f64 {
    app.hookgate.metrics().await.value("process_resident_memory_bytes", &[])
}

#[tokio::test]
async fn opening_and_resetting_streams_ends_the_connection() {
    let target = Target::start().await;
    let codes = target
        .flood(|number| {
            let streams = (0..50).map(|stream| (number * 50 + stream) * 2 + 1);
            let pair = |stream| [Frame::head(END_HEADERS, stream, &[]), Frame::reset(stream)];
            streams.flat_map(pair).collect()
        })
        .await;
    assert_eq!(codes, [ENHANCE_YOUR_CALM]);
}

#[tokio::test]
async fn an_endless_head_ends_the_connection() {
    let target = Target::start().await;
    for piece in [vec![], vec![0; 1], Frame::head(0, 1, &[("a", &"x".repeat(9000))]).payload] {
        let codes = target
            .flood(|number| {
                let piece = Frame::new(kind::CONTINUATION, 0, 1, piece.clone());
                if number == 0 { vec![Frame::head(0, 1, &[])] } else { vec![piece; 10] }
            })
            .await;
        assert!(codes.iter().all(|code| *code != 0) && !codes.is_empty(), "{codes:?}");
    }
}

#[tokio::test]
async fn empty_data_frames_end_the_connection() {
    let target = Target::start().await;
    let codes = target
        .flood(|number| match number {
            0 => vec![Frame::head(END_HEADERS, 1, &[])],
            _ => vec![Frame::new(kind::DATA, 0, 1, []); 100],
        })
        .await;
    assert_eq!(codes, [ENHANCE_YOUR_CALM]);
}

#[tokio::test]
async fn malformed_streams_end_the_connection() {
    let target = Target::start().await;
    let codes = target
        .flood(|number| {
            // The body that the head announces never comes.
            let streams = (0..50).map(|stream| (number * 50 + stream) * 2 + 1);
            let faulty =
                |stream| Frame::head(END_HEADERS | END_STREAM, stream, &[("content-length", "9")]);
            streams.map(faulty).collect()
        })
        .await;
    assert_eq!(codes, [ENHANCE_YOUR_CALM]);
}

#[tokio::test]
async fn pings_and_settings_are_answered_in_bounded_memory() {
    let target = Target::start().await;
    for (kind, payload) in [(kind::PING, vec![0; 8]), (kind::SETTINGS, vec![])] {
        let mut frames = target.frames().await;
        for _ in 0..200 {
            assert!(frames.send(&vec![Frame::new(kind, 0, 0, payload.clone()); 100]).await);
        }
        until("all frames are answered", async || {
            frames.count(kind, |frame| frame.flags == ACK) >= 20_000
        })
        .await;
        target.assert_unharmed().await;
    }
}

#[tokio::test]
async fn pings_with_unread_answers_use_bounded_memory() {
    let target = Target::start().await;
    let address = target.app.hookgate.address();
    let mut stream = target.authority.connect(address, &["h2"]).await.expect("a handshake");
    let flood: Vec<u8> =
        vec![Frame::new(kind::PING, 0, 0, [0; 8]); 1000].iter().flat_map(Frame::bytes).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.expect("an open connection");
    // The answers fill the buffers of both sides; then the service stops reading, whatever is sent.
    // Later it closes the connection, because its own pings are not answered.
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        while stream.write_all(&flood).await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (mut last, mut stood_still) = (0, 0);
    until("the service stops reading", async || {
        target.assert_unharmed().await;
        let now = sent.load(Ordering::Relaxed);
        stood_still = if now == last { stood_still + 1 } else { 0 };
        last = now;
        stood_still == 20 || sending.is_finished()
    })
    .await;
    sending.abort();
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused_and_the_others_time_out() {
    let authority = Authority::new();
    let app = App::build()
        .tls(&authority)
        .config(|config| {
            config.set("server.body_timeout", "2s");
        })
        .start()
        .await;
    let mut frames = Frames::open(&authority, app.hookgate.address()).await;
    let heads: Vec<Frame> =
        (0..150).map(|number| Frame::head(END_HEADERS, number * 2 + 1, &[])).collect();
    assert!(frames.send(&heads).await);
    until("the streams beyond the bound are refused", async || {
        frames.count(kind::RST_STREAM, |frame| frame.code() == REFUSED_STREAM) == 50
    })
    .await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    until("the other streams are answered", async || frames.count(kind::HEADERS, |_| true) == 100)
        .await;
    let metrics = app.hookgate.metrics().await;
    assert!((metrics.requests("request_timeout") - 100.0).abs() < 0.1, "once each");
    assert_eq!(frames.count(kind::GOAWAY, |_| true), 0);
    let body = Frame::new(kind::DATA, END_STREAM, 301, b"{\"webhookId\":\"wh_1\"}".to_vec());
    assert!(frames.send(&[Frame::head(END_HEADERS, 301, &[]), body]).await);
    until("the connection still serves", async || {
        frames.count(kind::HEADERS, |frame| frame.stream == 301) == 1
    })
    .await;
}

#[tokio::test]
async fn a_large_head_is_refused_on_its_own_stream() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).start().await;
    let value = "x".repeat(8000);
    let fits = app.webhook("wh_1").header("a", &value).header("b", &value).header("c", &value);
    assert_eq!(fits.send().await.matched(), 1);
    let mut frames = Frames::open(&authority, app.hookgate.address()).await;
    let large = Frame::head(0, 1, &[("a", &value)]);
    let rest = |flags| Frame::new(kind::CONTINUATION, flags, 1, block(&[("b", &value)]));
    assert!(frames.send(&[large, rest(0), rest(0), rest(0), rest(END_HEADERS)]).await);
    until("the request is refused", async || {
        frames.count(kind::HEADERS, |frame| frame.stream == 1) == 1
    })
    .await;
    assert_eq!(frames.count(kind::GOAWAY, |_| true), 0);
    let body = Frame::new(kind::DATA, END_STREAM, 3, b"{\"webhookId\":\"wh_1\"}".to_vec());
    assert!(frames.send(&[Frame::head(END_HEADERS, 3, &[]), body]).await);
    until("the connection still serves", async || {
        frames.count(kind::HEADERS, |frame| frame.stream == 3) == 1
    })
    .await;
}
