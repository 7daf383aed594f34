//! Redis and MongoDB away, hung, full, read-only and back, under load: every request gets a true
//! answer, and service returns without intervention.

use mongodb::bson::to_document;
use redis::cmd;

use testkit::ledger::{self, Answer, Load, Verdict};
use testkit::wait::until;
use testkit::{App, Mongo, Redis, ports};

/// Enough requests to show that a state lasts.
const SOME: usize = 40;

#[tokio::test]
async fn a_restart_of_redis_under_load_neither_loses_nor_duplicates_jobs() {
    let mut app = app(Redis::start_durable().await).await;
    let load = Load::start(&app.caller);
    for _ in 0..3 {
        load.more_accepted(SOME).await;
        app.redis.kill9().await;
        app.hookgate.unready().await;
        load.more_refused(SOME).await;
        app.redis.restart().await;
        app.hookgate.ready().await;
        load.more_accepted(SOME).await;
    }
    judged(load, &app).await;
}

#[tokio::test]
async fn a_redis_that_has_not_started_is_waited_for() {
    let redis = Redis::start().await;
    redis.kill9().await;
    let mut app = App::build().redis(redis).start_unready().await;
    until("the index is loaded", async || {
        let reply = app.webhook("wh_1").send().await;
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert_eq!(reply.json()["details"]["enqueued"], "none", "{}", reply.text());
        reply.code() == "queue_unavailable"
    })
    .await;
    let (status, readiness) = app.hookgate.readiness().await;
    assert_eq!((status.as_u16(), &readiness["ready"]), (503, &false.into()));
    assert!(
        readiness["reasons"].as_array().is_some_and(|reasons| !reasons.is_empty()),
        "{readiness}"
    );

    app.redis.restart().await;
    app.hookgate.ready().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.redis.queue().only_job().await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_frozen_redis_is_abandoned_and_used_again_after_the_thaw() {
    let app = app(Redis::start().await).await;
    let load = Load::start(&app.caller);
    for _ in 0..2 {
        load.more_accepted(SOME).await;
        app.redis.freeze();
        app.hookgate.unready().await;
        load.more_refused(SOME).await;
        app.redis.thaw();
        app.hookgate.ready().await;
        load.more_accepted(SOME).await;
    }
    let verdict = judged(load, &app).await;
    assert!(
        verdict.unknown > 0,
        "requests on the wire when Redis froze may have arrived: {verdict}"
    );
}

#[tokio::test]
async fn broken_connections_under_load_neither_lose_nor_duplicate_jobs() {
    let app = app(Redis::start().await).await;
    let load = Load::start(&app.caller);
    for _ in 0..20 {
        load.more_accepted(10).await;
        let _: u64 = app.redis.query(cmd("CLIENT").arg(&["KILL", "TYPE", "normal"])).await;
    }
    app.hookgate.ready().await;
    load.more_accepted(SOME).await;
    judged(load, &app).await;
}

#[tokio::test]
async fn a_lost_script_in_redis_fails_no_request() {
    let app = app(Redis::start().await).await;
    let load = Load::start(&app.caller);
    for _ in 0..20 {
        load.more_accepted(10).await;
        let () = app.redis.query(cmd("SCRIPT").arg("FLUSH")).await;
    }
    load.more_accepted(SOME).await;
    let verdict = judged(load, &app).await;
    assert_eq!(verdict.nothing + verdict.unknown, 0, "{verdict}");
    assert_eq!(verdict.promised_jobs, verdict.standing_jobs);
}

#[tokio::test]
async fn a_redis_that_becomes_a_replica_gets_no_jobs_until_it_is_primary() {
    let app = app(Redis::start().await).await;
    let unused_port = ports::free().to_string();
    let load = Load::start(&app.caller);
    for _ in 0..2 {
        load.more_accepted(SOME).await;
        let () = app.redis.query(cmd("REPLICAOF").arg(&["127.0.0.1", &unused_port])).await;
        app.hookgate.unready().await;
        load.more("surely refused", SOME, |answer| matches!(answer, Answer::Nothing { .. })).await;
        let () = app.redis.query(cmd("REPLICAOF").arg(&["NO", "ONE"])).await;
        app.hookgate.ready().await;
        load.more_accepted(SOME).await;
    }
    judged(load, &app).await;
}

#[tokio::test]
async fn a_full_redis_refuses_requests_as_a_whole() {
    let app = App::build()
        .documents(ledger::documents())
        .config(|config| {
            config.set("queue.memory_watermark", 0.0);
        })
        .start()
        .await;
    let load = Load::start(&app.caller);
    load.more_accepted(SOME).await;
    limit_memory(&app, "1mb").await;
    load.more_refused(SOME).await;
    limit_memory(&app, "0").await;
    load.more_accepted(SOME).await;
    let verdict = judged(load, &app).await;
    // Redis refuses before the first write, so no caller is left in doubt.
    assert_eq!(verdict.unknown, 0, "{verdict}");
    assert_eq!(verdict.promised_jobs, verdict.standing_jobs);
}

#[tokio::test]
async fn a_redis_above_the_watermark_gets_no_jobs() {
    let app = App::start().await;
    let ballast = "x".repeat(40 << 20);
    let () = app.redis.query(cmd("SET").arg("ballast").arg(ballast)).await;
    let mut accepted = 0;
    let mut send = async |expected: u16| {
        let reply = app.webhook("wh_1").send().await;
        if reply.status == 202 {
            accepted += 1;
        } else {
            reply.assert_rejected(503, "queue_unavailable");
            assert_eq!(reply.json()["details"]["enqueued"], "none");
        }
        reply.status == expected
    };
    assert!(send(202).await);
    // The watermark is at 95 %, where Redis itself would still accept some two megabytes.
    let used = app.redis.info("memory", "used_memory").await.parse::<u64>().expect("bytes");
    limit_memory(&app, &(used / 95 * 100).to_string()).await;
    until("webhooks are refused", async || send(503).await).await;
    let () = app.redis.query(cmd("SET").arg("ours").arg("is still taken")).await;
    limit_memory(&app, &(used * 2).to_string()).await;
    until("webhooks are accepted", async || send(202).await).await;
    assert_eq!(app.redis.queue().waiting().await.len(), accepted);
    app.assert_accounting().await;
}

#[tokio::test]
async fn requests_are_served_from_memory_during_a_mongodb_outage() {
    let mut mongo = Mongo::start().await;
    let database = mongo.database().await;
    let documents = ledger::documents();
    for (collection, documents) in
        [(database.workflows(), documents.workflows), (database.users(), documents.users)]
    {
        let documents = documents.iter().map(|document| to_document(document).expect("BSON"));
        collection.insert_many(documents).await.expect("a primary");
    }
    let app = App::build().mongo(&database).start().await;
    let load = Load::start(&app.caller);
    load.more_accepted(SOME).await;
    mongo.kill9().await;
    load.more_accepted(10 * SOME).await;
    assert_eq!(app.hookgate.admin_get("/livez").await.status().as_u16(), 200);
    mongo.restart().await;
    load.more_accepted(SOME).await;
    let verdict = judged(load, &app).await;
    assert_eq!(verdict.nothing + verdict.unknown, 0, "{verdict}");
}

/// An app with the workflows of a load and short timeouts for Redis.
async fn app(redis: Redis) -> App {
    let app = App::build().documents(ledger::documents()).redis(redis);
    app.config(|config| {
        config.set("queue.enqueue_timeout", "700ms");
    })
    .start()
    .await
}

/// Stops the load and compares the jobs in Redis with the answers.
async fn judged(load: Load, app: &App) -> Verdict {
    let verdict = load.stop().await.judge(&app.redis).await;
    verdict.assert_sound();
    assert_eq!(verdict.not_sent + verdict.unanswered, 0, "a request was not answered: {verdict}");
    let other: Vec<_> = verdict.codes.iter().filter(|&code| code != "queue_unavailable").collect();
    assert!(other.is_empty(), "other refusals: {other:?}");
    app.assert_accounting().await;
    verdict
}

async fn limit_memory(app: &App, bytes: &str) {
    let () = app.redis.query(cmd("CONFIG").arg(&["SET", "maxmemory", bytes])).await;
}
