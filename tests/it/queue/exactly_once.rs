//! Requests and replies that are lost between Hookgate and Redis are sent again and executed once:
//! one test for each way of losing them.

use redis::cmd;
use testkit::chaos::{ChaosProxy, Cut, Way};
use testkit::http::Reply;
use testkit::wait::until;
use testkit::{App, Redis, ports};
use tokio::task::JoinHandle;

#[tokio::test]
async fn a_lost_reply_fails_no_request() {
    for how in [Cut::Reset, Cut::Fin] {
        let (app, proxy) = app("2s").await;
        proxy.lose_replies(1, how);
        // The second attempt is answered from the record of the first. It is no repeat by the
        // caller.
        let reply = app.webhook("wh_1").header("idempotency-key", "k").send().await;
        assert_eq!((reply.matched(), reply.header("idempotency-replayed")), (1, None), "{how:?}");
        app.redis.queue().only_job().await;
        assert_eq!(resent(&app).await, 1, "{how:?}");
    }
}

#[tokio::test]
async fn a_lost_script_call_fails_no_request() {
    for how in [Cut::Reset, Cut::Fin] {
        let (app, proxy) = app("2s").await;
        proxy.lose_requests(1, how);
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{how:?}");
        app.redis.queue().only_job().await;
        assert_eq!(resent(&app).await, 1, "{how:?}");
    }
}

#[tokio::test]
async fn repeated_losses_add_one_job() {
    let (app, proxy) = app("10s").await;
    for round in 1..=3 {
        proxy.lose_replies(5, Cut::Reset);
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        assert_eq!(app.redis.queue().waiting_ids().await.len(), round);
    }
    assert_eq!(resent(&app).await, 15);
}

#[tokio::test]
async fn a_connection_may_break_at_any_byte() {
    let (app, proxy) = app("5s").await;
    let mut sent = 0;
    // A request has some 1,100 bytes, a reply some 30.
    let to_redis = (1..1100).step_by(13).map(|bytes| (Way::ToRedis, bytes));
    let to_client = (1..40).map(|bytes| (Way::ToClient, bytes));
    for (way, bytes) in to_redis.chain(to_client) {
        let how = if bytes % 2 == 0 { Cut::Reset } else { Cut::Fin };
        proxy.cut_one_after(way, bytes, how);
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{way:?} {bytes}");
        sent += 1;
    }
    assert_eq!(app.redis.queue().waiting_exactly(sent).await.len(), sent);
    // A cut may have hit another connection than the one it was planned for.
    assert!(proxy.counts().cuts > 80, "{:?}", proxy.counts());
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_late_attempt_changes_nothing() {
    let (app, proxy) = app("10s").await;
    // A first request uses the connection that is held next.
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    proxy.open().hold_requests();
    // Silence ends the connection; the batch is sent again over the next one and acknowledged.
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert!(resent(&app).await > 0);
    wait_for_clients_to_go(&proxy).await;
    let answers = text(&proxy.deliver_late().await);
    assert!(answers.contains(" *\r\n"), "the late attempt is answered like the first: {answers}");
    assert_eq!(app.redis.queue().waiting_ids().await, ["1", "2"]);
}

#[tokio::test]
async fn an_attempt_below_the_low_water_mark_is_refused() {
    let (app, proxy) = app("2s").await;
    proxy.open().hold_requests();
    for matched in 1..=4 {
        // A later batch of the same worker moves the low-water mark past the number.
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        assert_eq!(app.redis.queue().waiting_ids().await.len(), matched);
    }
    wait_for_clients_to_go(&proxy).await;
    let answers = text(&proxy.deliver_late().await);
    assert!(answers.contains(" stale\r\n"), "{answers}");
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 4);
}

#[tokio::test]
async fn a_batch_that_arrives_after_its_deadline_is_refused() {
    let (app, proxy) = app("500ms").await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    // Nothing passes, neither on these connections nor on new ones, but everything is kept for
    // later.
    proxy.all().hold_requests();
    app.webhook("wh_1").send().await.assert_not_enqueued("unknown");
    wait_for_clients_to_go(&proxy).await;
    let answers = text(&proxy.deliver_late().await);
    assert!(answers.contains(" late\r\n"), "{answers}");
    proxy.all().heal();
    app.hookgate.ready().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.redis.queue().waiting_ids().await, ["1", "2"]);
}

#[tokio::test]
async fn a_batch_in_a_frozen_redis_is_refused_after_the_thaw() {
    let (app, _proxy) = app("500ms").await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.redis.freeze();
    let unknown = app.webhook("wh_1").send().await;
    app.redis.thaw();
    unknown.assert_not_enqueued("unknown");
    app.hookgate.ready().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.redis.queue().waiting_ids().await, ["1", "2"]);
}

#[tokio::test]
async fn a_failover_after_a_lost_reply_adds_nothing() {
    let (app, proxy, replica) = app_with_replica().await;
    proxy.refuse_connections();
    proxy.lose_replies(1, Cut::Reset);
    let sent = send(&app);
    until("the replica has the job", async || replica.queue().waiting_ids().await.len() == 1).await;
    replica.promote().await;
    proxy.redirect(&replica);
    proxy.accept_connections();
    assert_eq!(sent.await.expect("the task does not panic").matched(), 1);
    replica.queue().only_job().await;
    assert_eq!(resent(&app).await, 1);
}

#[tokio::test]
async fn a_failover_after_a_lost_request_loses_nothing() {
    let (app, proxy, replica) = app_with_replica().await;
    proxy.refuse_connections();
    proxy.lose_requests(1, Cut::Reset);
    let sent = send(&app);
    until("the request is lost", async || proxy.counts().refused > 0).await;
    replica.promote().await;
    proxy.redirect(&replica);
    proxy.accept_connections();
    assert_eq!(sent.await.expect("the task does not panic").matched(), 1);
    replica.queue().only_job().await;
    app.redis.queue().assert_empty().await;
}

#[tokio::test]
async fn a_record_of_a_demoted_primary_is_not_trusted() {
    let (app, proxy) = app("1s").await;
    proxy.refuse_connections();
    proxy.lose_replies(1, Cut::Reset);
    let sent = send(&app);
    until("the reply is lost", async || proxy.counts().refused > 0).await;
    app.redis.queue().only_job().await;
    // The server has the record of the batch, but loses it when it synchronizes as a replica.
    let unused_port = ports::free().to_string();
    let () = app.redis.query(cmd("REPLICAOF").arg(&["127.0.0.1", &unused_port])).await;
    proxy.accept_connections();
    sent.await.expect("the task does not panic").assert_not_enqueued("unknown");
}

#[tokio::test]
async fn a_batch_that_was_never_sent_is_certainly_not_enqueued() {
    let (app, proxy) = app("500ms").await;
    proxy.refuse_connections();
    proxy.open().cut(Cut::Reset);
    until("the connections are lost", async || proxy.counts().refused > 3).await;
    let reply = app.webhook("wh_1").send().await;
    reply.assert_not_enqueued("none");
    app.hookgate.unready().await;
    proxy.accept_connections();
    app.hookgate.ready().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.redis.queue().only_job().await;
}

async fn app(enqueue_timeout: &str) -> (App, ChaosProxy) {
    let redis = Redis::start().await;
    let proxy = ChaosProxy::before(&redis, 3).await;
    (start(redis, &proxy, enqueue_timeout).await, proxy)
}

async fn app_with_replica() -> (App, ChaosProxy, Redis) {
    let redis = Redis::start().await;
    let replica = redis.start_replica().await;
    let proxy = ChaosProxy::before(&redis, 3).await;
    (start(redis, &proxy, "30s").await, proxy, replica)
}

/// One worker, so that every batch has the same producer. Redis has its script.
async fn start(redis: Redis, proxy: &ChaosProxy, enqueue_timeout: &str) -> App {
    let app = App::build().redis(redis).redis_address(&proxy.url()).config(|config| {
        config.set("queue.enqueue_timeout", enqueue_timeout).set("server.workers", 1);
    });
    let app = app.start().await;
    let without_jobs = app.webhook("wh_none").header("idempotency-key", "first").send().await;
    assert_eq!(without_jobs.matched(), 0);
    app
}

/// Waits until Hookgate has closed every connection on which something is held.
async fn wait_for_clients_to_go(proxy: &ChaosProxy) {
    until("the clients of the held connections have gone", async || {
        let held = proxy.held();
        held.connections > 0 && held.late == held.connections
    })
    .await;
}

fn send(app: &App) -> JoinHandle<Reply> {
    tokio::spawn(app.webhook("wh_1").send())
}

async fn resent(app: &App) -> u64 {
    let metrics = app.hookgate.metrics().await;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let count = metrics.value("hookgate_redis_resent_batches_total", &[]) as u64;
    count
}

fn text(answers: &[Vec<u8>]) -> String {
    String::from_utf8_lossy(&answers.concat()).into_owned()
}
