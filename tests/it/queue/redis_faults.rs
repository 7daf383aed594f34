//! Faults of Redis itself: each gets the right answer while it lasts, and service returns without
//! intervention.

#![expect(clippy::float_cmp, reason = "gauges are 0 or 1")]

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, cmd};
use testkit::app::Builder;
use testkit::hookgate::check_connect;
use testkit::redis::documented_rights;
use testkit::wait::until;
use testkit::{App, Redis};
use tokio::time::Instant;

#[tokio::test]
async fn a_loading_redis_is_waited_for() {
    // Each key takes a fifth of a second, so that loading lasts; Redis serves its sockets after
    // each key.
    let redis = Redis::start_slow_to_load(200_000).await;
    let mut app = App::build().redis(redis).config(quick).start().await;
    app.redis.restart_with_keys_to_load().await;
    until("readiness reports the loading", async || readiness(&app).await.contains("loading"))
        .await;
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    app.hookgate.ready().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.redis.queue().only_job().await;
}

#[tokio::test]
async fn a_redis_that_cannot_save_gets_no_jobs() {
    let app = App::with(quick).await;
    let mut admin = app.redis.connect().await;
    let directory: Vec<String> = ask(&mut admin, cmd("CONFIG").arg(&["GET", "dir"])).await;
    // A snapshot cannot replace a directory.
    let conflict = format!("{}/dump.rdb", directory[1]);
    std::fs::create_dir(&conflict).expect("the directory of the test's Redis");
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "save", "3600 1000000"])).await;
    let () = ask(&mut admin, &cmd("BGSAVE")).await;
    app.hookgate.unready().await;
    assert!(readiness(&app).await.contains("snapshot"), "{}", readiness(&app).await);
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    assert_errors(&app, "writes_refused").await;
    app.redis.queue().assert_empty().await;

    std::fs::remove_dir(&conflict).expect("the directory is the test's own");
    let () = ask(&mut admin, &cmd("BGSAVE")).await;
    recovered(&app).await;
}

#[tokio::test]
async fn a_wrong_password_is_reported_and_a_removed_one_is_no_fault() {
    let app = App::with(quick).await;
    let mut admin = app.redis.connect().await;
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "requirepass", "new"])).await;
    // An authenticated connection stays so until it breaks.
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    kill_others(&mut admin).await;
    until("readiness gives the reason", async || readiness(&app).await.contains("NOAUTH")).await;
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "requirepass", ""])).await;
    recovered(&app).await;
}

#[tokio::test]
async fn a_redis_that_runs_an_endless_script_gets_no_jobs() {
    let redis = Redis::start_with(&["--busy-reply-threshold", "100"]).await;
    let app = App::build().redis(redis).config(quick).start().await;
    let mut admin = app.redis.connect().await;
    let endless = app.redis.run_endless_script().await;
    app.hookgate.unready().await;
    let reply = app.webhook("wh_1").send().await;
    reply.assert_rejected(503, "queue_unavailable");
    let () = ask(&mut admin, cmd("SCRIPT").arg("KILL")).await;
    assert!(endless.await.expect("the task does not panic").is_err(), "the script was killed");
    recovered(&app).await;
    // The first webhook was not executed after its deadline, whatever its answer said.
    app.redis.queue().only_job().await;
}

#[tokio::test]
async fn a_batch_in_a_paused_redis_is_not_executed_after_its_deadline() {
    let app = App::with(quick).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let mut admin = app.redis.connect().await;
    let () = ask(&mut admin, cmd("CLIENT").arg(&["PAUSE", "600000", "WRITE"])).await;
    let unknown = app.webhook("wh_1").send().await;
    unknown.assert_not_enqueued("unknown");
    let () = ask(&mut admin, cmd("CLIENT").arg("UNPAUSE")).await;
    recovered(&app).await;
    assert_eq!(app.redis.queue().waiting_ids().await, ["1", "2"], "the second job is the last");
}

#[tokio::test]
async fn a_short_pause_of_redis_fails_no_request() {
    let app = App::with(|config| {
        config.set("queue.enqueue_timeout", "10s");
    })
    .await;
    let mut admin = app.redis.connect().await;
    // Longer than a connection may be silent, shorter than a request may wait.
    let () = ask(&mut admin, cmd("CLIENT").arg(&["PAUSE", "5500", "WRITE"])).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.redis.queue().only_job().await;
}

#[tokio::test]
async fn a_redis_at_its_client_limit_is_retried_with_backoff() {
    let app = App::with(quick).await;
    let mut admin = app.redis.connect().await;
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "maxclients", "1"])).await;
    let begun = Instant::now();
    kill_others(&mut admin).await;
    until("readiness gives the reason", async || {
        readiness(&app).await.contains("max number of clients")
    })
    .await;
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    let mut rejected = async || -> u64 {
        let stats: String = ask(&mut admin, cmd("INFO").arg("stats")).await;
        let line = stats.lines().find_map(|line| line.strip_prefix("rejected_connections:"));
        line.expect("a count").trim().parse().expect("a number")
    };
    // Two connections (the one for jobs and the one of the health check), ten attempts each.
    until("both connections are tried repeatedly", async || rejected().await >= 20).await;
    let elapsed = begun.elapsed();
    assert!(elapsed > Duration::from_secs(2), "20 attempts in {elapsed:?}");
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "maxclients", "100"])).await;
    recovered(&app).await;
}

#[tokio::test]
async fn an_emptied_redis_gets_jobs_again() {
    let app = App::start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let () = app.redis.query(&cmd("FLUSHALL")).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.redis.queue().only_job().await.id, "1");
    let meta = app.redis.queue().key("meta");
    let kept: String = app.redis.query(cmd("HGET").arg(meta).arg("opts.maxLenEvents")).await;
    assert_eq!(kept, "10000");
}

#[tokio::test]
async fn a_redis_without_persistence_loses_jobs_after_a_warning() {
    let mut app = App::start().await;
    until("the log warns", async || app.hookgate.log().contains("a restart loses every job")).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.redis.restart().await;
    app.redis.queue().assert_empty().await;
    recovered(&app).await;
}

#[tokio::test]
async fn a_key_conflict_of_one_request_does_not_affect_others() {
    let app = App::start().await;
    let conflict = app.redis.queue().key("2");
    let () = app.redis.query(cmd("SET").arg(conflict).arg("foreign")).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    assert_errors(&app, "wrongtype").await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.redis.queue().waiting_ids().await, ["1", "3"]);
}

#[tokio::test]
async fn a_missing_right_is_reported_before_the_first_job() {
    for right in ["incrby", "hset", "lpush", "eval"] {
        let app = app_with_rights(&format!("+@all -{right}")).await.start_unready().await;
        let sentence = match right {
            "eval" => "refuses EVAL: NOPERM".to_owned(),
            _ => format!("this user may not {} bull:", right.to_uppercase()),
        };
        until("readiness reports it", async || readiness(&app).await.contains(&sentence)).await;
        until("it is logged", async || app.hookgate.log().contains(&sentence)).await;
        assert_eq!(app.hookgate.readiness().await.0, 503);
        until("workflows are loaded", async || {
            app.webhook("wh_1").send().await.code() == "queue_unavailable"
        })
        .await;
        app.webhook("wh_1").send().await.assert_not_enqueued("none");
        assert_errors(&app, "auth").await;
        app.redis.queue().assert_empty().await;
        let () = app.redis.query(cmd("ACL").arg(&["SETUSER", "some", &format!("+{right}")])).await;
        // Readiness returns without a request: the probe does not rely on the last refusal.
        app.hookgate.ready().await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
}

#[tokio::test]
async fn a_missing_right_that_jobs_do_not_need_degrades() {
    let app = app_with_rights("+@all -zadd").await.start().await;
    until("readiness reports it", async || readiness(&app).await.contains("workers are not woken"))
        .await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

#[tokio::test]
async fn a_redis_without_the_right_to_info_gets_jobs() {
    let app = app_with_rights("+@all -info").await.start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert!(readiness(&app).await.contains("INFO is not permitted"));
}

#[tokio::test]
async fn ids_beyond_exact_integers_are_not_used() {
    let app = App::start().await;
    let id = app.redis.queue().key("id");
    let () = app.redis.query(cmd("SET").arg(&id).arg((1_u64 << 53) - 2)).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    assert_eq!(app.redis.queue().only_job().await.id, "9007199254740991");
}

async fn app_with_rights(rights: &str) -> Builder {
    let redis = Redis::start().await;
    let address = redis.allow("secret", &format!("~* {rights}")).await;
    App::build().redis(redis).redis_address(&address)
}

#[tokio::test]
async fn a_redis_that_may_lose_jobs_is_reported_on_every_channel() {
    let app = App::start().await;
    let mut admin = app.redis.connect().await;
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "maxmemory-policy", "allkeys-lru"])).await;
    for (gauge, word) in [("may_evict", "allkeys-lru"), ("is_volatile", "append-only")] {
        until(&format!("{gauge} is reported"), async || {
            let metrics = app.hookgate.metrics().await;
            let gauge = metrics.value(&format!("hookgate_redis_{gauge}"), &[]);
            gauge == 1.0
                && readiness(&app).await.contains(word)
                && app.hookgate.log().contains(word)
        })
        .await;
    }
    assert_eq!(app.hookgate.readiness().await.0, 200, "the service is still ready");
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "maxmemory-policy", "noeviction"])).await;
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "appendonly", "yes"])).await;
    until("nothing is degraded", async || {
        let (_, report) = app.hookgate.readiness().await;
        let metrics = app.hookgate.metrics().await;
        report["degraded"].as_array().is_some_and(Vec::is_empty)
            && metrics.value("hookgate_redis_may_evict", &[]) == 0.0
            && metrics.value("hookgate_redis_is_volatile", &[]) == 0.0
    })
    .await;
}

/// Every path of a job: with keys, into a paused queue, to a replica, a job that is too large, and
/// a connection that is made again.
#[tokio::test]
async fn the_documented_rights_of_redis_suffice() {
    let redis = Redis::start_with(&["--proto-max-bulk-len", "1mb", "--appendonly", "yes"]).await;
    let replica = redis.start_replica().await;
    let address = redis.allow("secret", &documented_rights()).await;
    let app = App::build().redis(redis).redis_address(&address).config(|config| {
        config.set("queue.wait_replicas", 1).set("server.max_body", "4MiB");
    });
    let app = app.start().await;
    for key in ["k", "k", "another"] {
        let reply = app.webhook("wh_1").header("idempotency-key", key).send().await;
        assert_eq!(reply.matched(), 1);
    }
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 2);
    assert_eq!(app.redis.queue().events().await.len(), 4);
    assert_eq!(replica.queue().waiting_ids().await.len(), 2);
    let large = format!(r#"{{"webhookId":"wh_1","text":"{}"}}"#, "x".repeat(2 << 20));
    app.post(large).send().await.assert_rejected(413, "payload_too_large");
    let () = app.redis.query(cmd("SCRIPT").arg("FLUSH")).await;
    kill_others(&mut app.redis.connect().await).await;
    recovered(&app).await;
    let meta = app.redis.queue().key("meta");
    let () = app.redis.query(cmd("HSET").arg(&meta).arg(&["paused", "1"])).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let (_, report) = app.hookgate.readiness().await;
    assert_eq!(report["degraded"], serde_json::json!([]), "an unknown value is no fault");
    let (code, report) = check_connect(&app.hookgate.config).await;
    assert_eq!((code, &report["redis"]["warnings"]), (0, &serde_json::json!([])), "{report}");
    assert!(!app.hookgate.log().contains("more rights"));
    let log: Vec<redis::Value> = app.redis.query(cmd("ACL").arg("LOG")).await;
    assert!(log.is_empty(), "nothing was refused: {log:?}");
}

#[tokio::test]
async fn a_user_with_further_rights_is_logged_once() {
    let redis = Redis::start().await;
    let wider = documented_rights() + " ~bull:* +config|get";
    let address = redis.allow("secret", &wider).await;
    let app = App::build().redis(redis).redis_address(&address).start().await;
    let warnings = || {
        let log = app.hookgate.log();
        let lines = log.lines().filter(|line| line.contains("more rights"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    until("it is logged", async || !warnings().is_empty()).await;
    kill_others(&mut app.redis.connect().await).await;
    recovered(&app).await;
    let lines = warnings();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for right in ["HMGET bull:workflow-runner-other:1", "CONFIG GET"] {
        assert!(lines[0].contains(right) && lines[0].contains("WARN"), "{lines:?}");
    }
}

fn quick(config: &mut testkit::Config) {
    config.set("queue.enqueue_timeout", "500ms");
}

/// Runs a command on a connection that was made before the fault.
async fn ask<T: FromRedisValue>(connection: &mut MultiplexedConnection, command: &Cmd) -> T {
    command.query_async(connection).await.expect("redis executes the command")
}

async fn kill_others(admin: &mut MultiplexedConnection) {
    let mut kill = cmd("CLIENT");
    let _: u64 = ask(admin, kill.arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])).await;
}

async fn readiness(app: &App) -> String {
    app.hookgate.readiness().await.1.to_string()
}

async fn assert_errors(app: &App, kind: &str) {
    let metrics = app.hookgate.metrics().await;
    assert!(metrics.value("hookgate_redis_errors_total", &[("kind", kind)]) > 0.0, "{kind}");
}

/// Waits until it is ready and a webhook is accepted; that is the only accepted one.
async fn recovered(app: &App) {
    app.hookgate.ready().await;
    until("a webhook is accepted", async || {
        let reply = app.webhook("wh_1").send().await;
        if reply.status != 202 {
            // The connection for jobs may be made later than the one of the health check.
            reply.assert_not_enqueued("none");
        }
        reply.status == 202
    })
    .await;
}
