//! Latency of one organization's requests while another one sends ten times its limit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::idle::REQUEST;
use crate::latency::{at, round, row};
use testkit::App;
use testkit::raw::Connection;

/// Limit of each organization in requests a second.
const LIMIT: i64 = 500;
/// Connections of the organization that sends ten times its limit, and the interval at which each
/// sends.
const NOISY: usize = 50;
const EVERY: Duration = Duration::from_millis(10);
/// Pause of an honest caller between two requests: sixteen callers stay below half of their limit.
const PAUSE: Duration = Duration::from_millis(80);
const ROUND: Duration = Duration::from_secs(8);
const ROUNDS: usize = 5;

const HONEST_REQUEST: &str = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_b\r\n\
    Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"webhookId\":\"wh_1\"}";

pub async fn measure() {
    let limited = start(LIMIT).await;
    let unlimited = start(0).await;
    println!("\nan organization below its limit of {LIMIT} a second, milliseconds\n");
    println!("| | requests | p50 | p99 |\n|---|--:|--:|--:|");
    let (mut ratios, mut unlimited_ratios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let alone = honest(&limited).await;
        row("alone", &alone);
        for (app, what, ratios) in
            [(&limited, "with limits", &mut ratios), (&unlimited, "without", &mut unlimited_ratios)]
        {
            let noise = Noise::start(app.hookgate.address());
            let beside = honest(app).await;
            let (accepted, refused) = noise.stop().await;
            let name = format!("next to another, {what}: {accepted} accepted, {refused} refused");
            row(&name, &beside);
            ratios.push(at(&beside, 99) / at(&alone, 99));
        }
    }
    for (what, mut ratios) in [("with limits", ratios), ("without", unlimited_ratios)] {
        ratios.sort_by(f64::total_cmp);
        println!("\nratio of the p99s {what}: {ratios:.2?}, median {:.2}", ratios[ROUNDS / 2]);
    }
}

async fn start(limit: i64) -> App {
    let app = App::with(|config| {
        config.set("telemetry.log", "info");
        config.set("limits.organization.requests_per_second", limit);
    })
    .await;
    round(app.hookgate.address(), HONEST_REQUEST, PAUSE, Duration::from_secs(1)).await;
    app
}

/// Latencies of callers that must all be accepted.
async fn honest(app: &App) -> Vec<f64> {
    round(app.hookgate.address(), HONEST_REQUEST, PAUSE, ROUND).await
}

/// An organization that sends at a fixed rate, whatever the answers.
struct Noise {
    is_over: Arc<AtomicBool>,
    counts: Arc<[AtomicU64; 2]>,
    callers: JoinSet<()>,
}

impl Noise {
    fn start(address: SocketAddr) -> Self {
        let (is_over, counts) = (Arc::<AtomicBool>::default(), Arc::<[AtomicU64; 2]>::default());
        let mut callers = JoinSet::new();
        for _ in 0..NOISY {
            let (is_over, counts) = (Arc::clone(&is_over), Arc::clone(&counts));
            callers.spawn(async move {
                let mut connection = Connection::open(address).await;
                let mut ticks = interval(EVERY);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                while !is_over.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    connection.send(REQUEST).await;
                    let status = connection.reply().await.expect("an answer").status;
                    assert!(matches!(status, 202 | 429), "answered {status}");
                    counts[usize::from(status == 429)].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { is_over, counts, callers }
    }

    /// Number of accepted and of refused requests.
    async fn stop(self) -> (u64, u64) {
        self.is_over.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
        let count = |at: usize| self.counts[at].load(Ordering::Relaxed);
        (count(0), count(1))
    }
}
