//! A flood of large bodies with wrong signatures: it takes no more than its share, and others are
//! accepted beside it.

use super::limits::{from, start};
use super::route::{BODY, SECRET, matched};
use reqwest::Method;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::App;
use testkit::deliveries::github_signature;
use testkit::wait::until_some;
use tokio::task::JoinSet;

/// Clients of the flood. Each sends one body after the other.
const CLIENTS: usize = 32;

/// The bytes in flight, of which a quarter is the share of deliveries that are not verified.
const IN_FLIGHT_BYTES: &str = "16MiB";

async fn app() -> App {
    start(|config| {
        config.set("endpoints.failed_verifications_per_minute", 0);
        config.set("limits.in_flight_bytes", IN_FLIGHT_BYTES);
        config.set("telemetry.log", "info");
    })
    .await
}

/// Bodies of 1 MiB with wrong signatures, until it is stopped.
struct Flood {
    is_stopped: Arc<AtomicBool>,
    clients: JoinSet<Vec<u16>>,
}

impl Flood {
    fn start(app: &App) -> Self {
        let is_stopped = Arc::<AtomicBool>::default();
        let body = vec![b'x'; 1 << 20];
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (caller, body) = (app.caller.clone(), body.clone());
            let is_stopped = Arc::clone(&is_stopped);
            clients.spawn(async move {
                let mut statuses = Vec::new();
                while !is_stopped.load(Ordering::Relaxed) {
                    let path = "/api/webhook/in/org_a/wh_1";
                    let call = caller.call(Method::POST, path).body(body.clone());
                    let call = from(&format!("203.0.113.{number}"), call);
                    let call = call.header("x-hub-signature-256", github_signature("x", b""));
                    // A connection that is closed under a body has no answer.
                    statuses.extend(call.try_send().await.map(|reply| reply.status));
                }
                statuses
            });
        }
        Self { is_stopped, clients }
    }

    /// The statuses of all answers.
    async fn stop(self) -> Vec<u16> {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.clients.join_all().await.concat()
    }
}

/// Sends an honest delivery as a provider does: again until it is accepted. Returns how often.
async fn deliver(app: &App, id: &str) -> usize {
    let mut times = 0;
    until_some("the delivery is accepted", async || {
        times += 1;
        let reply = from("198.51.100.1", app.github_delivery(SECRET, id, BODY)).send().await;
        // The share of all unverified deliveries may be used up.
        if reply.status == 503 {
            reply.assert_rejected(503, "overloaded");
            return None;
        }
        assert_eq!(matched(&reply, 200), 1);
        Some(times)
    })
    .await
}

/// Resident memory, in MiB.
async fn resident(app: &App) -> f64 {
    let metrics = app.hookgate.metrics().await;
    metrics.value("process_resident_memory_bytes", &[]) / f64::from(1 << 20)
}

#[tokio::test]
async fn a_flood_of_wrong_signatures_leaves_room_for_others() {
    let app = app().await;
    let before = resident(&app).await;
    let flood = Flood::start(&app);
    for number in 0..50 {
        deliver(&app, &format!("d-{number}")).await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
    let grown = resident(&app).await - before;
    let statuses = flood.stop().await;
    assert!(statuses.iter().all(|status| matches!(status, 401 | 503)), "{statuses:?}");
    assert!(statuses.contains(&401));
    assert!(grown < 64.0, "{grown} MiB more");
    app.redis.queue().waiting_exactly(100).await;
    assert_eq!(deliver(&app, "last").await, 1);
}
