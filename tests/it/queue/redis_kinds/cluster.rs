//! A cluster whose nodes are far away or silent while its address is followed.

use super::takes_jobs;
use std::time::Duration;
use testkit::chaos::{ChaosProxy, Way};
use testkit::{App, Redis};

/// An app whose address names these nodes, which need not have the queue. `redis` has it.
async fn start(nodes: &[u16], redis: Redis, timeout: &str) -> App {
    let (first, others) = nodes.split_first().expect("an address names a node");
    let others: Vec<String> = others.iter().map(|port| format!("node=127.0.0.1:{port}")).collect();
    let address = format!("redis-cluster://127.0.0.1:{first}?{}", others.join("&"));
    let app = App::build().redis(redis).redis_address(&address).config(|config| {
        config.set("queue.prefix", "{bull}").set("queue.enqueue_timeout", timeout);
    });
    app.start().await
}

#[tokio::test]
async fn the_only_node_of_an_address_may_be_far_away() {
    let (first, second) = Redis::start_cluster("{bull}").await;
    let proxy = ChaosProxy::before(&first, 1).await;
    // Four round trips need more than a quarter of the time for a connection, which is four seconds.
    let delay = Duration::from_millis(400);
    proxy.all().delay(Way::ToClient, delay..=delay);
    let app = start(&[proxy.port()], second, "8s").await;
    takes_jobs(&app, "{bull}").await;
}

#[tokio::test]
async fn a_silent_node_is_followed_by_the_next_one() {
    let (first, second) = Redis::start_cluster("{bull}").await;
    let proxy = ChaosProxy::before(&second, 1).await;
    proxy.all().black_hole();
    let app = start(&[first.port(), proxy.port()], second, "2s").await;
    takes_jobs(&app, "{bull}").await;
    assert!(proxy.counts().accepted > 0, "the silent node was asked");
}
