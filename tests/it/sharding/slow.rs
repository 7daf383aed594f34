//! Queues that are far away or silent. A slow connection is waited for; a silent queue costs the
//! others nothing.

use super::{Fleet, build_at, servers};
use std::time::Duration;
use testkit::Redis;
use testkit::chaos::{ChaosProxy, Cut, Way};
use testkit::config::patient;
use testkit::wait::until;

/// The time that every reply takes to arrive.
const DELAY: Duration = Duration::from_millis(200);

/// A proxy in front of each server.
async fn proxies(servers: &[Redis]) -> Vec<ChaosProxy> {
    let mut proxies = Vec::new();
    for redis in servers {
        proxies.push(ChaosProxy::before(redis, 1).await);
    }
    proxies
}

#[tokio::test]
async fn requests_wait_while_a_connection_is_slow_to_open() {
    let servers = servers(2).await;
    let proxies = proxies(&servers).await;
    let app = build_at(proxies.iter().map(ChaosProxy::url)).config(patient).start().await;
    let fleet = Fleet::new(app, servers);
    // A handshake has several round trips.
    proxies[1].all().delay(Way::ToClient, DELAY..=DELAY);
    proxies[1].open().cut(Cut::Reset);
    // Some arrive while there is no connection.
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let call = fleet.webhook(fleet.organization_of(1));
        waiting.push(tokio::spawn(call.send()));
        tokio::time::sleep(DELAY / 4).await;
    }
    for reply in waiting {
        assert_eq!(reply.await.expect("an answer").matched(), 1);
    }
}

#[tokio::test]
async fn a_silent_queue_costs_one_that_is_far_away_nothing() {
    let servers = servers(2).await;
    let proxies = proxies(&servers).await;
    let app = build_at(proxies.iter().map(ChaosProxy::url)).config(|config| {
        config.set("queue.enqueue_timeout", "8s");
    });
    let fleet = Fleet::new(app.start().await, servers);
    proxies[0].all().delay(Way::ToClient, DELAY..=DELAY);
    proxies[1].all().black_hole();
    let silent = fleet.organization_of(1);
    let first = fleet.webhook(silent).send().await;
    first.assert_not_enqueued("unknown");
    until("the silent queue is rejected without being asked", async || {
        fleet.accepts(0).await;
        fleet.webhook(silent).send().await.json()["details"]["enqueued"] == "none"
    })
    .await;
    fleet.is_degraded().await;
    fleet.accepts(0).await;
    proxies[1].all().heal();
    until("it is accepted again", async || fleet.webhook(silent).send().await.status == 202).await;
    until("nothing is degraded", async || fleet.degraded().await.is_empty()).await;
}
