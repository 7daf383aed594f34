//! The contents of Redis after a webhook: every key of BullMQ, and no other.

use std::collections::BTreeMap;

use redis::cmd;
use serde_json::{Value, json};
use testkit::documents::workflow;
use testkit::{App, Documents, Redis};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The defaults of `[queue.job]`.
fn shipped_options() -> Value {
    json!({
        "attempts": 3,
        "backoff": { "type": "exponential", "delay": 1000 },
        "removeOnComplete": { "age": 86400, "count": 10000 },
        "removeOnFail": { "age": 604_800 },
    })
}

#[tokio::test]
async fn a_job_has_the_fields_of_a_plain_add() {
    let app = App::start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);

    let job = app.redis.queue().only_job().await;
    assert_eq!(job.id, "1");
    let fields: Vec<&str> = job.fields.keys().map(String::as_str).collect();
    assert_eq!(fields, ["data", "delay", "name", "opts", "priority", "timestamp"]);
    assert_eq!((job.text("name"), job.text("delay"), job.text("priority")), ("workflow", "0", "0"));
    assert_eq!(job.opts(), shipped_options());
    let received: u64 = job.data()["receivedAt"].as_u64().expect("milliseconds");
    let timestamp: u64 = job.text("timestamp").parse().expect("a plain integer");
    assert!(timestamp >= received && timestamp < received + 60_000, "{timestamp} after {received}");
}

#[tokio::test]
async fn the_queue_keys_equal_those_of_a_plain_add() {
    let app = App::start().await;
    for _ in 0..2 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
    let queue = app.redis.queue();

    assert_eq!(queue.waiting_ids().await, ["1", "2"]);
    let list: Vec<String> =
        app.redis.query(cmd("LRANGE").arg(queue.key("wait")).arg(0).arg(-1)).await;
    assert_eq!(list, ["2", "1"], "the newest first, because workers fetch from the tail");
    let counter: String = app.redis.query(cmd("GET").arg(queue.key("id"))).await;
    assert_eq!(counter, "2");
    assert_eq!(marker(&app.redis).await, [("0".to_owned(), 0.0)]);
    let meta: BTreeMap<String, String> =
        app.redis.query(cmd("HGETALL").arg(queue.key("meta"))).await;
    assert_eq!(meta, BTreeMap::from([("opts.maxLenEvents".to_owned(), "10000".to_owned())]));

    let mut keys: Vec<String> = app.redis.query(cmd("KEYS").arg(queue.key("*"))).await;
    keys.sort();
    assert_eq!(
        keys,
        ["1", "2", "events", "id", "marker", "meta", "wait"].map(|name| queue.key(name))
    );
    for key in keys {
        let ttl: i64 = app.redis.query(cmd("TTL").arg(&key)).await;
        assert_eq!(ttl, -1, "{key} stays");
    }
}

#[tokio::test]
async fn each_job_has_an_added_and_a_waiting_event() {
    let mut documents = Documents::two_organizations();
    documents.workflows.push(workflow("wf_2", "org_a", "wh_1"));
    let app = App::build().documents(documents).start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 2);

    let events = app.redis.queue().events().await;
    for id in ["1", "2"] {
        let of_job: Vec<_> = events.iter().filter(|event| event[1] == pair("jobId", id)).collect();
        assert_eq!(
            of_job,
            [
                &vec![pair("event", "added"), pair("jobId", id), pair("name", "workflow")],
                &vec![pair("event", "waiting"), pair("jobId", id)],
            ]
        );
    }
    assert_eq!(events.len(), 4);
}

#[tokio::test]
async fn events_can_be_disabled() {
    let app = App::with(|config| {
        config.set("queue.events", false);
    })
    .await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.redis.queue().events().await.len(), 0);
    assert_eq!(app.redis.queue().waiting_ids().await, ["1"]);
    assert_eq!(marker(&app.redis).await.len(), 1, "workers are still woken");
}

#[tokio::test]
async fn names_and_prefix_are_as_configured() {
    let app = App::with(|config| {
        config
            .set("queue.name", "hooks")
            .set("queue.prefix", "{other}")
            .set("queue.job_name", "start \"it\"");
    })
    .await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let job = app.redis.queue_named("{other}", "hooks").only_job().await;
    assert_eq!(job.text("name"), "start \"it\"");
    let foreign: Vec<String> = app.redis.query(cmd("KEYS").arg("bull:*")).await;
    assert!(foreign.is_empty(), "{foreign:?}");
}

#[tokio::test]
async fn a_valid_trace_is_in_the_job_option_of_bullmq() {
    let app = App::start().await;
    for broken in
        ["", "x", "{}", "00-0-0-01", &TRACE.replace('b', "g"), &format!("{TRACE}-"), &TRACE[..54]]
    {
        app.webhook("wh_1").header("traceparent", broken).send().await.matched();
    }
    app.webhook("wh_1").header("traceparent", "00-\"-\\-01").send().await.matched();
    let jobs = app.redis.queue().waiting().await;
    assert_eq!(jobs.len(), 8);
    for job in jobs {
        assert_eq!(job.opts().get("tm"), None, "{job:?}");
    }

    let traced = app.webhook("wh_1").header("traceparent", TRACE).send().await;
    assert_eq!(traced.matched(), 1);
    let job = app.redis.queue().waiting().await.pop().expect("the newest job is the last");
    let context: Value = serde_json::from_str(job.opts()["tm"].as_str().expect("tm is a string"))
        .expect("valid JSON");
    assert_eq!(context, json!({ "traceparent": TRACE }));
}

#[tokio::test]
async fn a_paused_queue_gets_jobs_in_the_list_that_the_resume_reads() {
    // The layout, meta.version, and the list that must get the job.
    let cases = [
        ("v5", None, "paused"),
        ("v6", None, "wait"),
        ("auto", None, "paused"),
        ("auto", Some("bullmq:5.81.5"), "paused"),
        ("auto", Some("bullmq:6.0.0"), "wait"),
        ("auto", Some("bullmq:6.7.0"), "wait"),
        ("auto", Some("bullmq:10.1.0"), "wait"),
        ("auto", Some("something else"), "paused"),
    ];
    for layout in ["v5", "v6", "auto"] {
        let app = App::with(|config| {
            config.set("queue.paused_layout", layout);
        })
        .await;
        let queue = app.redis.queue();
        for (_, version, list) in cases.iter().filter(|case| case.0 == layout) {
            let () = app.redis.query(&cmd("FLUSHALL")).await;
            let () = app.redis.query(cmd("HSET").arg(queue.key("meta")).arg("paused").arg(1)).await;
            if let Some(version) = version {
                let () = app
                    .redis
                    .query(cmd("HSET").arg(queue.key("meta")).arg("version").arg(version))
                    .await;
            }
            assert_eq!(app.webhook("wh_1").send().await.matched(), 1);

            let ids: Vec<String> =
                app.redis.query(cmd("LRANGE").arg(queue.key(list)).arg(0).arg(-1)).await;
            assert_eq!(ids, ["1"], "{layout} {version:?}: into {list}");
            assert_eq!(queue.all().await.len(), 1, "{layout} {version:?}: only into that list");
            assert_eq!(marker(&app.redis).await, [], "{layout} {version:?}: no worker is woken");
        }
    }
}

#[tokio::test]
async fn a_flushed_script_cache_fails_no_request() {
    let app = App::start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let () = app.redis.query(cmd("SCRIPT").arg("FLUSH")).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.redis.queue().waiting_ids().await, ["1", "2"]);
}

#[tokio::test]
async fn the_database_of_the_address_is_used() {
    let redis = Redis::start().await;
    let address = redis.url().replace("/0", "/3");
    let app = App::build().redis(redis).redis_address(&address).start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.redis.queue().assert_empty().await;
    let keyspace: String = app.redis.query(cmd("INFO").arg("keyspace")).await;
    assert!(keyspace.contains("db3:") && !keyspace.contains("db0:"), "{keyspace}");
}

async fn marker(redis: &Redis) -> Vec<(String, f64)> {
    let key = redis.queue().key("marker");
    redis.query(cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES")).await
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}
