//! What Redis itself can do to us: each fault gets the right answer while it lasts, and service returns by itself.

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
async fn a_redis_that_is_loading_is_waited_for() {
    // A fifth of a second for each key, so that loading lasts, and a look at the sockets behind each.
    let redis = Redis::start_slow_to_load(200_000).await;
    let mut app = App::build().redis(redis).config(quick).start().await;
    app.redis.restart_with_keys_to_load().await;
    until("readiness tells of the loading", async || readiness(&app).await.contains("loading"))
        .await;
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    app.hookgate.ready().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.redis.queue().only_job().await;
}

#[tokio::test]
async fn a_redis_that_cannot_save_takes_nothing() {
    let app = App::with(quick).await;
    let mut admin = app.redis.connect().await;
    let directory: Vec<String> = ask(&mut admin, cmd("CONFIG").arg(&["GET", "dir"])).await;
    // A snapshot cannot take the place of a directory.
    let in_the_way = format!("{}/dump.rdb", directory[1]);
    std::fs::create_dir(&in_the_way).expect("the directory of our own Redis");
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "save", "3600 1000000"])).await;
    let () = ask(&mut admin, &cmd("BGSAVE")).await;
    app.hookgate.unready().await;
    assert!(readiness(&app).await.contains("snapshot"), "{}", readiness(&app).await);
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    assert_errors(&app, "writes_refused").await;
    app.redis.queue().assert_empty().await;

    std::fs::remove_dir(&in_the_way).expect("it is ours");
    let () = ask(&mut admin, &cmd("BGSAVE")).await;
    recovered(&app).await;
}

#[tokio::test]
async fn a_password_that_was_set_is_told_and_one_that_was_lifted_is_not_missed() {
    let app = App::with(quick).await;
    let mut admin = app.redis.connect().await;
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "requirepass", "new"])).await;
    // Who is in stays in until the connection breaks.
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    kill_others(&mut admin).await;
    until("readiness says why", async || readiness(&app).await.contains("NOAUTH")).await;
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "requirepass", ""])).await;
    recovered(&app).await;
}

#[tokio::test]
async fn a_redis_that_runs_somebody_elses_endless_script_takes_nothing() {
    let redis = Redis::start_with(&["--busy-reply-threshold", "100"]).await;
    let app = App::build().redis(redis).config(quick).start().await;
    let mut admin = app.redis.connect().await;
    let endless = app.redis.run_endless_script().await;
    app.hookgate.unready().await;
    let reply = app.webhook("wh_1").send().await;
    reply.assert_rejected(503, "queue_unavailable");
    let () = ask(&mut admin, cmd("SCRIPT").arg("KILL")).await;
    assert!(endless.await.expect("no panic").is_err(), "it was killed");
    recovered(&app).await;
    // Whatever was said of the first one: it was not carried out after its time.
    app.redis.queue().only_job().await;
}

#[tokio::test]
async fn what_waits_in_a_paused_redis_is_not_carried_out_after_its_deadline() {
    let app = App::with(quick).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let mut admin = app.redis.connect().await;
    let () = ask(&mut admin, cmd("CLIENT").arg(&["PAUSE", "600000", "WRITE"])).await;
    let unknown = app.webhook("wh_1").send().await;
    unknown.assert_not_enqueued("unknown");
    let () = ask(&mut admin, cmd("CLIENT").arg("UNPAUSE")).await;
    recovered(&app).await;
    assert_eq!(app.redis.queue().waiting_ids().await, ["1", "2"], "the second one is the last");
}

#[tokio::test]
async fn a_short_pause_is_not_noticed() {
    let app = App::with(|config| {
        config.set("queue.enqueue_timeout", "10s");
    })
    .await;
    let mut admin = app.redis.connect().await;
    // Longer than a session may be silent, shorter than a request may wait.
    let () = ask(&mut admin, cmd("CLIENT").arg(&["PAUSE", "5500", "WRITE"])).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.redis.queue().only_job().await;
}

#[tokio::test]
async fn a_redis_without_room_for_connections_is_not_stormed() {
    let app = App::with(quick).await;
    let mut admin = app.redis.connect().await;
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "maxclients", "1"])).await;
    let begun = Instant::now();
    kill_others(&mut admin).await;
    until("readiness says why", async || readiness(&app).await.contains("max number of clients"))
        .await;
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    let mut rejected = async || -> u64 {
        let stats: String = ask(&mut admin, cmd("INFO").arg("stats")).await;
        let line = stats.lines().find_map(|line| line.strip_prefix("rejected_connections:"));
        line.expect("a count").trim().parse().expect("a number")
    };
    // Two connections (the one for jobs and the one for health), ten attempts each.
    until("they have tried again and again", async || rejected().await >= 20).await;
    let taken = begun.elapsed();
    assert!(taken > Duration::from_secs(2), "20 attempts in {taken:?}");
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "maxclients", "100"])).await;
    recovered(&app).await;
}

#[tokio::test]
async fn a_redis_that_was_emptied_is_filled_again() {
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
async fn a_redis_without_persistence_loses_what_it_acknowledged_and_that_was_said_before() {
    let mut app = App::start().await;
    until("the log warns", async || app.hookgate.log().contains("a restart loses every job")).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.redis.restart().await;
    app.redis.queue().assert_empty().await;
    recovered(&app).await;
}

#[tokio::test]
async fn a_key_that_is_in_the_way_of_one_request_does_not_touch_others() {
    let app = App::start().await;
    let in_the_way = app.redis.queue().key("2");
    let () = app.redis.query(cmd("SET").arg(in_the_way).arg("foreign")).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    assert_errors(&app, "wrongtype").await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.redis.queue().waiting_ids().await, ["1", "3"]);
}

#[tokio::test]
async fn a_right_that_is_missing_is_told_before_there_is_a_job() {
    for right in ["incrby", "hset", "lpush", "eval"] {
        let app = app_with_rights(&format!("+@all -{right}")).await.start_unready().await;
        let sentence = match right {
            "eval" => "refuses EVAL: NOPERM".to_owned(),
            _ => format!("this user may not {} bull:", right.to_uppercase()),
        };
        until("it is told", async || readiness(&app).await.contains(&sentence)).await;
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
        // Nobody has to try for it: a refusal does not speak for Redis for ever.
        app.hookgate.ready().await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
}

#[tokio::test]
async fn a_right_without_which_jobs_are_taken_degrades() {
    let app = app_with_rights("+@all -zadd").await.start().await;
    until("it is told", async || readiness(&app).await.contains("workers are not woken")).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

#[tokio::test]
async fn a_redis_that_may_not_be_asked_about_itself_takes_jobs() {
    let app = app_with_rights("+@all -info").await.start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert!(readiness(&app).await.contains("may not be asked for INFO"));
}

#[tokio::test]
async fn ids_that_can_no_longer_be_told_apart_are_not_given_out() {
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
async fn a_redis_that_may_lose_jobs_is_told_on_every_channel() {
    let app = App::start().await;
    let mut admin = app.redis.connect().await;
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "maxmemory-policy", "allkeys-lru"])).await;
    for (gauge, word) in [("may_evict", "allkeys-lru"), ("is_volatile", "append-only")] {
        until(&format!("{gauge} is told"), async || {
            let metrics = app.hookgate.metrics().await;
            let gauge = metrics.value(&format!("hookgate_redis_{gauge}"), &[]);
            gauge == 1.0
                && readiness(&app).await.contains(word)
                && app.hookgate.log().contains(word)
        })
        .await;
    }
    assert_eq!(app.hookgate.readiness().await.0, 200, "it is ready all the same");
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "maxmemory-policy", "noeviction"])).await;
    let () = ask(&mut admin, cmd("CONFIG").arg(&["SET", "appendonly", "yes"])).await;
    until("nothing is left to tell", async || {
        let (_, report) = app.hookgate.readiness().await;
        let metrics = app.hookgate.metrics().await;
        report["degraded"].as_array().is_some_and(Vec::is_empty)
            && metrics.value("hookgate_redis_may_evict", &[]) == 0.0
            && metrics.value("hookgate_redis_is_volatile", &[]) == 0.0
    })
    .await;
}

/// Every way that a job takes: with keys, into a paused queue, to a replica, one that is too large, and a connection that is
/// made again.
#[tokio::test]
async fn the_rights_that_the_readme_asks_for_are_enough() {
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
    assert_eq!(report["degraded"], serde_json::json!([]), "what is not known is no trouble");
    let (code, report) = check_connect(&app.hookgate.config).await;
    assert_eq!((code, &report["redis"]["warnings"]), (0, &serde_json::json!([])), "{report}");
    assert!(!app.hookgate.log().contains("more rights"));
    let log: Vec<redis::Value> = app.redis.query(cmd("ACL").arg("LOG")).await;
    assert!(log.is_empty(), "something was refused: {log:?}");
}

#[tokio::test]
async fn a_user_with_more_rights_is_logged_once() {
    let redis = Redis::start().await;
    let wider = documented_rights() + " ~bull:* +config|get";
    let address = redis.allow("secret", &wider).await;
    let app = App::build().redis(redis).redis_address(&address).start().await;
    let told = || {
        let log = app.hookgate.log();
        let lines = log.lines().filter(|line| line.contains("more rights"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    until("it is logged", async || !told().is_empty()).await;
    kill_others(&mut app.redis.connect().await).await;
    recovered(&app).await;
    let lines = told();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for right in ["HMGET bull:workflow-runner-other:1", "CONFIG GET"] {
        assert!(lines[0].contains(right) && lines[0].contains("WARN"), "{lines:?}");
    }
}

fn quick(config: &mut testkit::Config) {
    config.set("queue.enqueue_timeout", "500ms");
}

/// On a connection that was made before the fault.
async fn ask<T: FromRedisValue>(connection: &mut MultiplexedConnection, command: &Cmd) -> T {
    command.query_async(connection).await.expect("redis carries out the command")
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

/// Waits until it is ready and a webhook is accepted, which is the only one that is.
async fn recovered(app: &App) {
    app.hookgate.ready().await;
    until("a webhook is accepted", async || {
        let reply = app.webhook("wh_1").send().await;
        if reply.status != 202 {
            // The connection for jobs may be made later than the one for health.
            reply.assert_not_enqueued("none");
        }
        reply.status == 202
    })
    .await;
}
