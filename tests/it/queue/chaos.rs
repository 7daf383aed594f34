//! Thousands of webhooks over connections that are cut at random points. Every answer is compared
//! with the jobs in Redis.
//!
//! The defaults are eight thousand webhooks and a hundred cuts. The long run is
//!
//! ```sh
//! CHAOS_WEBHOOKS=100000 CHAOS_CUTS=1000 cargo test --test it queue::chaos -- --nocapture
//! ```
//!
//! `CHAOS_SEED` changes the points of the cuts.

#![expect(clippy::print_stdout, reason = "a long run prints its counts")]

use std::time::Duration;

use testkit::chaos::ChaosProxy;
use testkit::ledger::{self, Load, Pace};
use testkit::size::from_environment;
use testkit::{App, Redis};

const CALLERS: usize = 32;

/// Bound on the bytes before a cut, about twenty batches.
const WITHIN: u64 = 20 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_cuts_neither_lose_nor_duplicate_jobs() {
    let webhooks: u64 = from_environment("CHAOS_WEBHOOKS", 8000);
    let cuts: usize = from_environment("CHAOS_CUTS", 100);
    let redis = Redis::start().await;
    let proxy = ChaosProxy::before(&redis, from_environment("CHAOS_SEED", 1)).await;
    let app = App::build().documents(ledger::documents()).redis(redis).redis_address(&proxy.url());
    let app = app.start().await;

    let pace = Pace {
        callers: CALLERS,
        pause: Duration::ZERO,
        requests: webhooks.div_ceil(CALLERS as u64),
    };
    let mut load = Load::at(pace, &app.caller);
    for _ in 0..cuts {
        if load.has_ended() {
            break;
        }
        proxy.cut_at_random(1, WITHIN).await;
    }
    let ledger = load.run_out().await;
    let verdict = ledger.judge(&app.redis).await;
    let metrics = app.hookgate.metrics().await;
    let resent = metrics.value("hookgate_redis_resent_batches_total", &[]);
    println!(
        "{} webhooks, {} cuts, {resent} batches sent again; {verdict}",
        pace.requests * CALLERS as u64,
        proxy.counts().cuts
    );
    verdict.assert_sound();
    assert_eq!(verdict.not_sent + verdict.unanswered, 0, "a request was not answered: {verdict}");
    assert!(
        proxy.counts().cuts >= cuts as u64,
        "the load ended before the cuts: {:?}",
        proxy.counts()
    );
    assert!(resent > 0.0, "a cut has hit a batch");
    app.assert_accounting().await;
}
