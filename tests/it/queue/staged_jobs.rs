//! Large jobs, whose hashes are written under a temporary name and renamed by the script: they are
//! as whole as small ones, never expire, and leave nothing else in Redis.

use redis::cmd;
use serde_json::json;
use testkit::chaos::{ChaosProxy, Cut, Way};
use testkit::{App, Redis};

/// Bodies around the size from which on jobs are staged, and large ones.
const SIZES: [usize; 6] = [4_000, 8_000, 9_000, 40_000, 300_000, 1_000_000];

#[tokio::test]
async fn jobs_of_every_size_are_whole_and_never_expire() {
    let app = App::start().await;
    for size in SIZES {
        let body = body(size);
        let reply = app.post(body.clone()).header("traceparent", TRACE).send().await;
        assert_eq!(reply.matched(), 1, "{size} bytes");
        assert_eq!(app.post(body).send().await.matched(), 1, "{size} bytes");
    }
    let jobs = app.redis.queue().waiting().await;
    assert_eq!(jobs.len(), 2 * SIZES.len());
    for (position, job) in jobs.iter().enumerate() {
        let size = SIZES[position / 2];
        assert_eq!(job.at("/trigger/payload/filler").len(), size, "job {}", job.id);
        let names: Vec<&str> = job.fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["data", "delay", "name", "opts", "priority", "timestamp"], "{size}");
        assert_eq!(job.text("opts").contains("traceparent"), position % 2 == 0, "{size} bytes");
        assert_eq!(time_to_live(&app.redis, &app.redis.queue().key(&job.id)).await, -1);
    }
    assert_eq!(staged(&app.redis).await, [""; 0]);
}

#[tokio::test]
async fn a_repeat_leaves_no_staged_hash() {
    let app = App::start().await;
    for _ in 0..3 {
        let call = app.post(body(20_000)).header("idempotency-key", "once");
        assert_eq!(call.send().await.matched(), 1);
    }
    let reused = app.post(body(20_001)).header("idempotency-key", "once").send().await;
    reused.assert_rejected(422, "idempotency_key_reused");
    app.redis.queue().only_job().await;
    assert_eq!(staged(&app.redis).await, [""; 0]);
}

#[tokio::test]
async fn a_held_id_refuses_the_request_alone() {
    let app = App::start().await;
    for command in ["SET", "HSET"] {
        let last: Option<u64> = app.redis.query(cmd("GET").arg(app.redis.queue().key("id"))).await;
        let next = app.redis.queue().key(&(last.unwrap_or(0) + 1).to_string());
        let values: &[&str] = if command == "SET" { &["x"] } else { &["x", "1"] };
        let () = app.redis.query(cmd(command).arg(&next).arg(values)).await;
        app.post(body(20_000)).send().await.assert_not_enqueued("none");
        let kind: String = app.redis.query(cmd("TYPE").arg(&next)).await;
        assert_eq!(kind, if command == "SET" { "string" } else { "hash" });
        assert_eq!(staged(&app.redis).await, [""; 0], "{command}");
        let () = app.redis.query(cmd("DEL").arg(&next)).await;
        assert_eq!(app.post(body(20_000)).send().await.matched(), 1);
    }
}

#[tokio::test]
async fn a_full_redis_keeps_nothing() {
    let app = App::start().await;
    let () = app.redis.query(cmd("CONFIG").arg(&["SET", "maxmemory", "1"])).await;
    app.post(body(20_000)).send().await.assert_not_enqueued("none");
    let () = app.redis.query(cmd("CONFIG").arg(&["SET", "maxmemory", "0"])).await;
    assert_eq!(staged(&app.redis).await, [""; 0]);
    app.redis.queue().assert_empty().await;
}

/// The staged hash cannot be written again, so only an attempt without it learns of the first one.
#[tokio::test]
async fn a_full_redis_still_reports_an_added_job() {
    let redis = Redis::start().await;
    let proxy = ChaosProxy::before(&redis, 7).await;
    let app = App::build().redis(redis).redis_address(&proxy.url()).config(|config| {
        config.set("queue.enqueue_timeout", "10s");
    });
    let app = app.start().await;
    // Redis has the script in its cache from now on.
    assert_eq!(app.post(body(20_000)).send().await.matched(), 1);
    proxy.refuse_connections();
    proxy.lose_replies(1, Cut::Reset);
    let call = app.post(body(20_000));
    let call = tokio::spawn(async move { call.send().await });
    app.redis.queue().waiting_exactly(2).await;
    let () = app.redis.query(cmd("CONFIG").arg(&["SET", "maxmemory", "1"])).await;
    proxy.accept_connections();
    assert_eq!(call.await.unwrap().matched(), 1);
    let () = app.redis.query(cmd("CONFIG").arg(&["SET", "maxmemory", "0"])).await;
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 2);
    assert_eq!(staged(&app.redis).await, [""; 0]);
}

/// Whatever the user of Redis may not use, no part of a job remains, and no job expires.
#[tokio::test]
async fn a_missing_right_leaves_no_part_of_a_job() {
    for right in ["multi", "exec", "hset", "pexpire", "renamenx", "persist", "unlink", "evalsha"] {
        let redis = Redis::start().await;
        let address = redis.allow("secret", "~* &* +@all").await;
        let app = App::build().redis(redis).redis_address(&address).start().await;
        let _ = app.redis.allow("secret", &format!("~* &* +@all -{right}")).await;
        let reply = app.post(body(20_000)).send().await;
        // Without MULTI, the commands are executed one by one.
        let is_added = ["multi", "unlink"].contains(&right);
        if is_added {
            assert_eq!(reply.matched(), 1, "{right}");
        } else {
            reply.assert_not_enqueued("none");
        }
        let jobs = app.redis.queue().waiting_ids().await;
        assert_eq!(jobs.len(), usize::from(is_added), "{right}");
        for job in jobs {
            let key = app.redis.queue().key(&job);
            assert_eq!(time_to_live(&app.redis, &key).await, -1, "{right}");
        }
        for key in staged(&app.redis).await {
            assert!(time_to_live(&app.redis, &key).await != -1, "{right}: {key} stays");
        }
        let _ = app.redis.allow("secret", "~* &* +@all").await;
        assert_eq!(app.post(body(20_000)).send().await.matched(), 1, "{right}");
    }
}

/// The script is not in the cache of Redis any more, so that only the staged hash is written by the
/// first transaction.
#[tokio::test]
async fn a_flushed_script_is_sent_again() {
    let app = App::start().await;
    for _ in 0..3 {
        let () = app.redis.query(cmd("SCRIPT").arg("FLUSH")).await;
        assert_eq!(app.post(body(20_000)).send().await.matched(), 1);
    }
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 3);
    assert_eq!(staged(&app.redis).await, [""; 0]);
}

#[tokio::test]
async fn a_transaction_may_break_at_any_byte() {
    let redis = Redis::start().await;
    let proxy = ChaosProxy::before(&redis, 3).await;
    let app = App::build().redis(redis).redis_address(&proxy.url()).config(|config| {
        config.set("queue.enqueue_timeout", "5s");
    });
    let app = app.start().await;
    let mut sent = 0;
    // MULTI and the head of HSET, the payload, the end of HSET, PEXPIRE, the script and EXEC.
    let to_redis = (1..400).step_by(29).chain((400..8_600).step_by(911));
    let to_redis = to_redis.chain((8_600..10_000).step_by(29)).map(|bytes| (Way::ToRedis, bytes));
    let to_client = (1..90).step_by(3).map(|bytes| (Way::ToClient, bytes));
    for (way, bytes) in to_redis.chain(to_client) {
        proxy.cut_one_after(way, bytes, if bytes % 2 == 0 { Cut::Reset } else { Cut::Fin });
        assert_eq!(app.post(body(8_500)).send().await.matched(), 1, "{way:?} {bytes}");
        sent += 1;
    }
    assert_eq!(app.redis.queue().waiting_exactly(sent).await.len(), sent);
    assert!(proxy.counts().cuts > 50, "{:?}", proxy.counts());
    assert_eq!(staged(&app.redis).await, [""; 0]);
    app.assert_accounting().await;
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn body(filler: usize) -> String {
    json!({ "webhookId": "wh_1", "filler": "x".repeat(filler) }).to_string()
}

async fn time_to_live(redis: &Redis, key: &str) -> i64 {
    redis.query(cmd("PTTL").arg(key)).await
}

/// The keys of staged hashes.
async fn staged(redis: &Redis) -> Vec<String> {
    redis.query(cmd("KEYS").arg("hookgate:*:producer:*:*")).await
}
