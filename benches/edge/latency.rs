//! Latency of honest requests, alone and next to slow callers.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::idle::REQUEST;
use testkit::App;
use testkit::raw::Connection;
use testkit::slow::SlowCallers;

const HONEST: usize = 16;
const ROUND: Duration = Duration::from_secs(8);
const ROUNDS: usize = 5;
/// Pause of an honest caller between two requests, long enough to leave the machine time for both
/// sides.
const PAUSE: Duration = Duration::from_millis(8);
/// Pause of a slow caller between two bytes.
const DRIBBLE: Duration = Duration::from_secs(5);

pub async fn measure(slow_callers: usize) {
    let app = App::with(|config| {
        config.set("telemetry.log", "info");
    })
    .await;
    let address = app.hookgate.address();
    round(address, REQUEST, PAUSE, Duration::from_secs(2)).await;
    println!("honest requests of {HONEST} callers, milliseconds\n");
    println!("| | requests | p50 | p99 |\n|---|--:|--:|--:|");
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let alone = round(address, REQUEST, PAUSE, ROUND).await;
        row("alone", &alone);
        let slow = SlowCallers::start(address, slow_callers, DRIBBLE).await;
        let beside = round(address, REQUEST, PAUSE, ROUND).await;
        row(&format!("beside {slow_callers} slow callers"), &beside);
        let (opened, closed) = (slow.fates.opened.load(Ordering::Relaxed), slow.fates.closed());
        assert!(opened - closed >= slow_callers as u64 * 9 / 10, "{:?}", slow.fates);
        drop(slow);
        ratios.push(at(&beside, 99) / at(&alone, 99));
        // Wait until the slow callers have no more effect.
        app.hookgate.ready().await;
    }
    ratios.sort_by(f64::total_cmp);
    println!("\nratio of the p99s: {ratios:.2?}, median {:.2}", ratios[ROUNDS / 2]);
}

/// Latencies in milliseconds, in order, of callers that are all accepted.
pub async fn round(
    address: SocketAddr,
    request: &'static str,
    pause: Duration,
    length: Duration,
) -> Vec<f64> {
    let mut callers = JoinSet::new();
    let end = Instant::now() + length;
    for _ in 0..HONEST {
        callers.spawn(async move {
            let mut connection = Connection::open(address).await;
            let mut latencies = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                connection.send(request).await;
                assert_eq!(connection.reply().await.expect("an answer").status, 202);
                latencies.push(begun.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(pause).await;
            }
            latencies
        });
    }
    let mut all: Vec<f64> = callers.join_all().await.into_iter().flatten().collect();
    all.sort_by(f64::total_cmp);
    all
}

/// The latency that `percent` of a hundred requests do not exceed.
pub fn at(sorted: &[f64], percent: usize) -> f64 {
    sorted[sorted.len() * percent / 100]
}

pub fn row(what: &str, latencies: &[f64]) {
    let (p50, p99) = (at(latencies, 50), at(latencies, 99));
    println!("| {what} | {} | {p50:.2} | {p99:.2} |", latencies.len());
}
