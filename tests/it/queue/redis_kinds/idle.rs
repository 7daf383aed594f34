//! Load balancers, firewalls and Redis itself close connections that are idle. No request fails
//! because of it.

use std::time::Duration;
use testkit::idle_proxy::{End, IdleProxy};
use testkit::{App, Redis};

#[tokio::test]
async fn a_load_balancer_that_closes_idle_connections_fails_no_request() {
    let ended = through_proxies(Duration::from_secs(2), &[0, 900, 1900, 2000, 2100, 3000]).await;
    // The time is read from an idle connection before it is idle for this long.
    assert_eq!(ended, [0, 0, 0]);
}

/// It closes connections before Hookgate uses them again by itself.
#[tokio::test]
async fn a_very_impatient_load_balancer_fails_no_request() {
    const PAUSES: [u64; 11] = [290, 295, 298, 300, 302, 305, 310, 600, 1200, 3000, 300];
    let ended = through_proxies(Duration::from_millis(300), &PAUSES).await;
    assert!(ended.iter().all(|&ended| ended > 0), "{ended:?}");
}

/// Sends a request after each pause, in milliseconds, through a proxy of each kind; returns how many
/// connections each has ended.
async fn through_proxies(idle: Duration, pauses: &[u64]) -> [usize; 3] {
    let through = |end| Box::pin(through_proxy(idle, end, pauses));
    let (fin, reset, forget) =
        tokio::join!(through(End::Fin), through(End::Reset), through(End::Forget));
    [fin, reset, forget]
}

async fn through_proxy(idle: Duration, end: End, pauses: &[u64]) -> usize {
    let redis = Redis::start().await;
    let proxy = IdleProxy::before_port(redis.port(), idle, end).await;
    let app = App::build().redis(redis).redis_address(&testkit::redis::url(proxy.port()));
    let app = app.start().await;
    for &pause in pauses {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let reply = app.webhook("wh_1").send().await;
        assert_eq!(reply.status, 202, "{end:?} after {pause} ms: {}", reply.text());
    }
    assert_eq!(app.redis.queue().waiting_ids().await.len(), pauses.len(), "{end:?}");
    proxy.ended()
}
