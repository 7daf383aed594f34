//! `queue.wait_replicas`: a 202 only once this many replicas have the jobs, and the failover that
//! it is for.

use redis::cmd;
use serde_json::json;
use testkit::fake_redis::{Answer, FakeRedis};
use testkit::hookgate::check_connect;
use testkit::ledger::{self, Load};
use testkit::sentinel::Sentinel;
use testkit::wait::until;
use testkit::{App, Redis};

#[tokio::test]
async fn an_accepted_job_is_on_the_replica() {
    let (app, replica) = app_with_replica("2s").await;
    for number in 1..=50 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        assert_eq!(
            replica.queue().waiting_ids().await.len(),
            number,
            "each batch waits for the replica"
        );
    }
    // These requests went one by one, with a WAIT for each batch, and one more where the replica
    // was silent for half a second.
    let waits = app.redis.info("commandstats", "cmdstat_wait").await;
    let calls = waits.split([',', '=']).nth(1).and_then(|calls| calls.parse::<usize>().ok());
    assert!(calls.is_some_and(|calls| (50..=55).contains(&calls)), "{waits}");
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_missing_replica_leaves_a_job_in_doubt_until_a_keyed_repeat() {
    let (app, replica) = app_with_replica("500ms").await;
    replica.freeze();
    let send = async || app.webhook("wh_1").header("idempotency-key", "k").send().await;
    let kind = [("kind", "too_few_replicas")];
    until("readiness reports the missing replica", async || {
        send().await.assert_not_enqueued("unknown");
        app.hookgate.metrics().await.value("hookgate_redis_errors_total", &kind) > 0.0
    })
    .await;
    send().await.assert_not_enqueued("unknown");
    // The job is on the primary, once.
    app.redis.queue().only_job().await;

    replica.thaw();
    until("the repeat is accepted", async || send().await.status == 202).await;
    app.redis.queue().only_job().await;
    until("the replica has the job", async || replica.queue().waiting_ids().await.len() == 1).await;
}

#[tokio::test]
async fn a_second_attempt_waits_for_replicas_too() {
    let (app, replica) = app_with_replica("3s").await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    replica.freeze();
    let caller = app.caller.clone();
    let sent = tokio::spawn(async move { caller.webhook("wh_1").send().await });
    until("the job is on the primary", async || app.redis.queue().waiting_ids().await.len() == 2)
        .await;
    // The connection that waits for the replica breaks; the one that asks again has written nothing
    // itself.
    let _: u64 = app.redis.query(cmd("CLIENT").arg(&["KILL", "TYPE", "normal"])).await;
    let resent = async || {
        app.hookgate.metrics().await.value("hookgate_redis_resent_batches_total", &[]) > 0.0
    };
    until("the batch is sent again", resent).await;
    assert!(!sent.is_finished(), "the replica has no job");
    replica.thaw();
    assert_eq!(sent.await.expect("the task does not panic").matched(), 1);
    assert_eq!(replica.queue().waiting_ids().await, ["1", "2"]);
}

#[tokio::test]
async fn a_failover_under_load_neither_loses_nor_duplicates_replicated_jobs() {
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
    assert_eq!(verdict.not_sent + verdict.unanswered, 0, "a request was not answered: {verdict}");
    app.assert_accounting().await;
}

#[tokio::test]
async fn missing_replicas_make_the_service_not_ready() {
    let (app, replica) = app_with_replica("500ms").await;
    replica.kill9().await;
    until("readiness reports the replicas", async || {
        let (status, report) = app.hookgate.readiness().await;
        status == 503 && report["reasons"].to_string().contains("0 of the 1 replicas")
    })
    .await;
    let reply = app.webhook("wh_1").send().await;
    reply.assert_not_enqueued("unknown");
    assert!(reply.text().contains("may have been enqueued"), "{}", reply.text());
    app.redis.queue().only_job().await;
    let metrics = app.hookgate.metrics().await;
    let unknown = [("enqueued", "unknown")];
    assert!(metrics.value("hookgate_unacknowledged_total", &unknown) > 0.0);
    assert!(metrics.value("hookgate_ready", &[]) < 1.0);
}

#[tokio::test]
async fn a_loading_replica_degrades_until_it_is_in_sync() {
    // The primary lets a new replica wait before it sends the data.
    let options = ["--appendonly", "yes", "--repl-diskless-sync-delay", "3600"];
    let app = App::build().redis(Redis::start_with(&options).await).start().await;
    in_sync(&app, 0, 0).await;
    assert_eq!(
        app.hookgate.readiness().await.1["degraded"],
        json!([]),
        "no degradation is reported"
    );
    let port = app.redis.port().to_string();
    let replica = Redis::start_with(&["--replicaof", &format!("127.0.0.1 {port}")]).await;
    in_sync(&app, 0, 1).await;
    let loading = format!("replica 127.0.0.1:{} is still loading", replica.port());
    degraded(&app, &loading).await;
    assert_eq!(app.hookgate.readiness().await.0, 200, "the service is still ready");
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let (code, report) = check_connect(&app.hookgate.config).await;
    let counts = (&report["redis"]["replicas"], &report["redis"]["replicas_in_sync"]);
    assert_eq!((code, counts), (0, (&json!(1), &json!(0))), "{report}");
    assert!(report["redis"]["warnings"].to_string().contains(&loading), "{report}");
    // WAIT does not count the replica.
    let mut waits = app.hookgate.config.clone();
    waits.set("queue.wait_replicas", 1);
    let (code, report) = check_connect(&waits).await;
    let faults = report["redis"]["faults"].to_string();
    assert!(code == 1 && faults.contains("has 0 of the 1 replicas"), "{report}");

    let delay = ["SET", "repl-diskless-sync-delay", "0"];
    let () = app.redis.query(cmd("CONFIG").arg(&delay)).await;
    in_sync(&app, 1, 0).await;
    until("nothing is degraded", async || {
        app.hookgate.readiness().await.1["degraded"] == json!([])
    })
    .await;
    assert_eq!(replica.queue().waiting_ids().await.len(), 1);
}

#[tokio::test]
async fn a_hung_replica_degrades_until_it_continues() {
    let primary = Redis::start_durable().await;
    let replica = primary.start_replica().await;
    let app = App::build().redis(primary).start().await;
    in_sync(&app, 1, 0).await;
    replica.freeze();
    in_sync(&app, 0, 1).await;
    degraded(&app, "has acknowledged nothing for over 10 s").await;
    let logged = "a failover to it would lose jobs";
    until("it is logged", async || app.hookgate.log().contains(logged)).await;
    replica.thaw();
    in_sync(&app, 1, 0).await;
    // Once for each change of the condition, not once a second. On a busy machine the condition may
    // change more than once.
    let log = app.hookgate.log();
    let conditions = log.lines().filter(|line| line.contains("Redis is ready"));
    let hung: Vec<bool> = conditions.map(|line| line.contains(logged)).collect();
    assert!(hung.windows(2).all(|pair| pair != [true, true]), "{log}");
}

/// Replicas that lag by seconds are compared with what was written before, at any rate of writes.
#[tokio::test]
async fn a_lagging_replica_degrades() {
    let redis = Redis::start_durable().await;
    let fake = FakeRedis::before(&redis).await;
    let info = "role:master\r\nconnected_slaves:2\r\n\
                slave0:ip=10.0.0.1,port=1,state=online,offset=999999,lag=0\r\n\
                slave1:ip=10.0.0.2,port=2,state=online,offset=1000000,lag=0\r\n\
                master_replid:a\r\nmaster_repl_offset:1000000\r\n";
    fake.answer_always("INFO", Answer::instead(format!("${}\r\n{info}\r\n", info.len())));
    let app = App::build().redis(redis).redis_address(&fake.url()).start().await;
    in_sync(&app, 1, 1).await;
    degraded(&app, "replica 10.0.0.1:1 is more than 10 s behind").await;
}

async fn in_sync(app: &App, in_sync: usize, out_of_sync: usize) {
    let expected = [("in_sync", in_sync), ("out_of_sync", out_of_sync)];
    until(&format!("{expected:?} replicas are counted"), async || {
        let metrics = app.hookgate.metrics().await;
        expected.iter().all(|(state, count)| {
            let value = metrics.value("hookgate_redis_replicas", &[("state", *state)]);
            (value - *count as f64).abs() < 0.5
        })
    })
    .await;
}

async fn degraded(app: &App, note: &str) {
    until(&format!("{note} is reported"), async || {
        let (_, report) = app.hookgate.readiness().await;
        report.get("degraded").is_some_and(|notes| notes.to_string().contains(note))
    })
    .await;
    let metrics = app.hookgate.metrics().await;
    assert!(metrics.value("hookgate_degraded", &[("part", "redis")]) > 0.5);
}

async fn app_with_replica(enqueue_timeout: &str) -> (App, Redis) {
    let primary = Redis::start().await;
    let replica = primary.start_replica().await;
    let app = App::build().redis(primary).config(|config| {
        config.set("queue.wait_replicas", 1).set("queue.enqueue_timeout", enqueue_timeout);
    });
    (app.start().await, replica)
}
