//! Thousands of slow callers do not affect the others.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]
#![expect(clippy::print_stdout, reason = "the test prints the cost of a slow caller")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use testkit::App;
use testkit::size::from_environment;
use testkit::slow::SlowCallers;
use testkit::wait::until;
use tokio::task::JoinSet;

/// Set `SLOW_CALLERS=10000` for more of them.
const COUNT: usize = 2000;

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_slow_callers_do_not_delay_an_honest_load() {
    let count = from_environment("SLOW_CALLERS", COUNT);
    // The rate of bytes and new connections is the same for any number of callers.
    let pause = Duration::from_millis(count as u64 / 2);
    let app = App::with(|config| {
        let limit = format!("{}ms", 3 * pause.as_millis());
        config.set("server.header_timeout", limit.as_str()).set("server.body_timeout", limit);
        // The timeout is long, so that honest requests succeed on a busy machine.
        config.set("telemetry.log", "info").set("queue.enqueue_timeout", "1m");
    })
    .await;
    let memory = async || app.hookgate.metrics().await.value("process_resident_memory_bytes", &[]);
    let before = memory().await;
    let slow = SlowCallers::start(app.hookgate.address(), count, pause).await;

    let mut honest = JoinSet::new();
    for _ in 0..4 {
        let caller = app.caller.clone();
        honest.spawn(async move {
            for _ in 0..250 {
                assert_eq!(caller.webhook("wh_1").send().await.matched(), 1);
            }
        });
    }
    while let Some(ended) = honest.join_next().await {
        ended.expect("every honest request is accepted");
    }
    until("every slow connection has been closed once on average", async || {
        slow.fates.closed() >= count as u64
    })
    .await;
    let grown = memory().await - before;
    println!("{} slow callers: {:.1} KiB each", count, grown / 1024.0 / count as f64);
    // The buffer of a head or a body, and what hyper and Hookgate need besides.
    assert!(grown < count as f64 * 64.0 * 1024.0 + 32e6, "{grown} bytes");

    let fates = Arc::clone(&slow.fates);
    drop(slow);
    let of = |fate: &AtomicU64| fate.load(Ordering::Relaxed);
    assert!(of(&fates.cut) > 0 && of(&fates.timed_out) > 0 && of(&fates.other) == 0, "{fates:?}");
    until("nothing is in flight", async || {
        app.hookgate.metrics().await.sum("hookgate_requests_in_flight") == 0.0
    })
    .await;
    let metrics = app.hookgate.metrics().await;
    let [accepted, timed_out, disconnected] =
        ["accepted", "request_timeout", "client_closed"].map(|code| metrics.requests(code));
    assert_eq!(accepted, 1000.0);
    assert!(timed_out >= of(&fates.timed_out) as f64, "{timed_out} {fates:?}");
    assert_eq!(metrics.sum("hookgate_requests_total"), accepted + timed_out + disconnected);
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 1000);
}
