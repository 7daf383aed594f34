//! `queue.wait_replicas`: a 202 when so many replicas have the jobs, and not before; and what it is for, a failover.

use redis::cmd;
use testkit::ledger::{self, Load};
use testkit::sentinel::Sentinel;
use testkit::wait::until;
use testkit::{App, Redis};

#[tokio::test]
async fn what_is_accepted_is_on_the_replica() {
    let (app, replica) = app_with_replica("2s").await;
    for number in 1..=50 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        assert_eq!(replica.queue().waiting_ids().await.len(), number, "without waiting for it");
    }
    // These went one by one, with a WAIT for each batch; one more only where the replica was silent for half a second.
    let waits = app.redis.info("commandstats", "cmdstat_wait").await;
    let calls = waits.split([',', '=']).nth(1).and_then(|calls| calls.parse::<usize>().ok());
    assert!(calls.is_some_and(|calls| (50..=55).contains(&calls)), "{waits}");
    app.assert_accounting().await;
}

#[tokio::test]
async fn without_the_replica_nobody_can_say_and_a_repeat_with_a_key_settles_it() {
    let (app, replica) = app_with_replica("500ms").await;
    replica.freeze();
    let send = async || app.webhook("wh_1").header("idempotency-key", "k").send().await;
    let kind = [("kind", "too_few_replicas")];
    until("the replica is missed", async || {
        send().await.assert_not_enqueued("unknown");
        app.hookgate.metrics().await.value("hookgate_redis_errors_total", &kind) > 0.0
    })
    .await;
    send().await.assert_not_enqueued("unknown");
    // It is on the primary, and was added once.
    app.redis.queue().only_job().await;

    replica.thaw();
    until("the repeat is accepted", async || send().await.status == 202).await;
    app.redis.queue().only_job().await;
    until("the replica has it", async || replica.queue().waiting_ids().await.len() == 1).await;
}

#[tokio::test]
async fn a_batch_that_is_asked_for_again_waits_for_replicas_too() {
    let (app, replica) = app_with_replica("3s").await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    replica.freeze();
    let caller = app.caller.clone();
    let sent = tokio::spawn(async move { caller.webhook("wh_1").send().await });
    until("the job is on the primary", async || app.redis.queue().waiting_ids().await.len() == 2)
        .await;
    // The connection that waits for the replica breaks; the one that asks again has written nothing itself.
    let _: u64 = app.redis.query(cmd("CLIENT").arg(&["KILL", "TYPE", "normal"])).await;
    let resent = async || {
        app.hookgate.metrics().await.value("hookgate_redis_resent_batches_total", &[]) > 0.0
    };
    until("it is asked for again", resent).await;
    assert!(!sent.is_finished(), "the replica has nothing");
    replica.thaw();
    assert_eq!(sent.await.expect("no panic").matched(), 1);
    assert_eq!(replica.queue().waiting_ids().await, ["1", "2"]);
}

#[tokio::test]
async fn a_failover_under_load_loses_and_doubles_nothing_that_a_replica_had() {
    let primary = Redis::start().await;
    let replica = primary.start_replica().await;
    let sentinel = Sentinel::start(&primary, 1).await;
    let app = App::build()
        .documents(ledger::documents())
        .redis(primary)
        .redis_address(&sentinel.url())
        .config(|config| {
            config.set("queue.wait_replicas", 1);
        })
        .start()
        .await;
    let load = Load::start(&app.caller);
    load.more_accepted(100).await;
    sentinel.fail_over(&replica).await;
    load.more_accepted(100).await;
    let verdict = load.stop().await.judge(&replica).await;
    verdict.assert_sound();
    assert_eq!(verdict.not_sent + verdict.unanswered, 0, "somebody was not answered: {verdict}");
    app.assert_accounting().await;
}

#[tokio::test]
async fn replicas_that_are_asked_for_and_not_there_are_a_reason_not_to_be_ready() {
    let (app, replica) = app_with_replica("500ms").await;
    replica.kill9().await;
    until("readiness tells of the replicas", async || {
        let (status, report) = app.hookgate.readiness().await;
        status == 503 && report["reasons"].to_string().contains("0 of the 1 replicas")
    })
    .await;
    let reply = app.webhook("wh_1").send().await;
    reply.assert_not_enqueued("unknown");
    assert!(reply.text().contains("may have taken"), "{}", reply.text());
    app.redis.queue().only_job().await;
    let metrics = app.hookgate.metrics().await;
    let unknown = [("enqueued", "unknown")];
    assert!(metrics.value("hookgate_unacknowledged_total", &unknown) > 0.0);
    assert!(metrics.value("hookgate_ready", &[]) < 1.0);
}

async fn app_with_replica(enqueue_timeout: &str) -> (App, Redis) {
    let primary = Redis::start().await;
    let replica = primary.start_replica().await;
    let app = App::build().redis(primary).config(|config| {
        config.set("queue.wait_replicas", 1).set("queue.enqueue_timeout", enqueue_timeout);
    });
    (app.start().await, replica)
}
