//! The report on a Redis server.

use redis::cmd;
use serde_json::{Value, json};

use testkit::calls::{Calls, PYTHON};
use testkit::hookgate::{check_connect, command};
use testkit::scratch::Scratch;
use testkit::sentinel::Sentinel;
use testkit::{App, Config, Redis, node};

#[tokio::test]
async fn a_suitable_redis_has_no_warnings() {
    let redis =
        Redis::start_with(&["--appendonly", "yes", "--maxmemory", "100mb", "--save", "60 1"]).await;
    let (code, report) = check_connect(&config(&redis.url())).await;
    assert_eq!((code, &report["ok"], &report["mongodb"]), (0, &json!(true), &Value::Null));
    let found = &report["redis"];
    for (key, expected) in [
        ("server", json!(format!("127.0.0.1:{}", redis.port()))),
        ("software", json!("redis")),
        ("mode", json!("standalone")),
        ("role", json!("master")),
        ("replicas", json!(0)),
        ("maxmemory_bytes", json!(100 << 20)),
        ("maxmemory_policy", json!("noeviction")),
        ("append_only_file", json!(true)),
        ("save", json!("60 1")),
        ("bullmq_version", Value::Null),
        ("queue_is_paused", json!(false)),
        ("jobs_waiting", json!(0)),
        ("missing_rights", json!([])),
        ("faults", json!([])),
    ] {
        assert_eq!(found[key], expected, "{key}");
    }
    assert_eq!(warnings(&report), [""; 0]);
    assert_eq!(found["version"], redis.info("server", "redis_version").await);
    assert!(found["used_memory_bytes"].as_u64() > Some(0), "{found}");
    assert!(found["round_trip_us"].as_u64() > Some(0), "{found}");
    let keys: u64 = redis.query(&cmd("DBSIZE")).await;
    assert_eq!(keys, 0, "the check has written nothing");
}

/// All warnings except the one that Redis' default user, which may do everything, leads to.
fn warnings(report: &Value) -> Vec<String> {
    let warnings = report.pointer("/redis/warnings").and_then(Value::as_array);
    let texts = warnings.expect("a list").iter().filter_map(Value::as_str).map(str::to_owned);
    let (of_rights, others): (Vec<_>, Vec<_>) =
        texts.partition(|text| text.contains("more rights"));
    assert_eq!(of_rights.len(), 1, "{report}");
    others
}

#[tokio::test]
async fn settings_that_may_lose_jobs_are_warnings() {
    let redis = Redis::start_with(&["--maxmemory-policy", "allkeys-lru"]).await;
    let (code, report) = check_connect(&config(&redis.url())).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!(warnings(&report).len(), 2, "{report}");
    for word in ["maxmemory-policy is allkeys-lru", "neither append-only file nor snapshots"] {
        assert!(report["redis"]["warnings"].to_string().contains(word), "{word}: {report}");
    }
}

#[tokio::test]
async fn redis_limits_below_those_of_the_service_are_warnings() {
    let settings =
        ["proto-max-bulk-len", "client-query-buffer-limit", "maxmemory-clients", "maxmemory"];
    let redis = Redis::start_durable().await;
    for setting in settings {
        let bytes = if setting == "maxmemory" { "8mb" } else { "1mb" };
        let before: Vec<String> = redis.query(cmd("CONFIG").arg(&["GET", setting])).await;
        let () = redis.query(cmd("CONFIG").arg(&["SET", setting, bytes])).await;
        let (code, report) = check_connect(&config(&redis.url())).await;
        assert_eq!(code, 0, "{report}");
        let warnings = warnings(&report);
        let key = if setting == "maxmemory" { "queue.max_fanout_bytes" } else { "server.max_body" };
        assert_eq!(warnings.len(), 1, "{report}");
        let warning = &warnings[0];
        assert!(warning.starts_with(setting) && warning.contains(key), "{warning}");
        let () = redis.query(cmd("CONFIG").arg(&["SET", setting, &before[1]])).await;
    }
    let mut small = config(&redis.url());
    let () = redis.query(cmd("CONFIG").arg(&["SET", "proto-max-bulk-len", "1mb"])).await;
    small.set("server.max_body", "512KiB");
    let (_, report) = check_connect(&small).await;
    assert_eq!(warnings(&report), [""; 0]);
}

#[tokio::test]
async fn a_redis_that_would_refuse_jobs_is_a_fault() {
    let redis = Redis::start().await;
    let replica = redis.start_replica().await;
    assert_fault(&config(&replica.url()), "is a replica and refuses writes").await;

    let mut with_replicas = config(&redis.url());
    with_replicas.set("queue.wait_replicas", 2);
    assert_fault(&with_replicas, "has 1 of the 2 replicas").await;

    let () = redis.query(cmd("CONFIG").arg(&["SET", "maxmemory", "1mb"])).await;
    assert_fault(&config(&redis.url()), "is full: over queue.memory_watermark").await;
    let () = redis.query(cmd("CONFIG").arg(&["SET", "maxmemory", "0"])).await;

    let () = redis.query(cmd("SET").arg("bull:workflow-runner:meta").arg("somebody's")).await;
    assert_fault(&config(&redis.url()), "HMGET is refused: WRONGTYPE").await;

    let wrong = redis.url().replace("127.0.0.1", "nobody:at-any-rate@127.0.0.1");
    assert_fault(&config(&wrong), "does not answer: WRONGPASS").await;

    redis.freeze();
    assert_fault(&config(&redis.url()), "does not answer: ").await;
    redis.thaw();
}

#[tokio::test]
async fn the_report_shows_the_state_of_the_queue() {
    let app = App::start().await;
    app.webhook("wh_1").send().await.matched();
    let (_, report) = check_connect(&app.hookgate.config).await;
    let of = |report: &Value, key: &str| report["redis"][key].clone();
    assert_eq!(of(&report, "jobs_waiting"), 1);
    assert_eq!(of(&report, "paused_layout"), "v5", "there is no version");

    node::queue(&app.redis, "workflow-runner", &["pause"]).await;
    let (_, report) = check_connect(&app.hookgate.config).await;
    let version = of(&report, "bullmq_version");
    assert!(version.as_str().is_some_and(|version| version.starts_with("bullmq:6.")), "{version}");
    assert_eq!(of(&report, "queue_is_paused"), true);
    assert_eq!(of(&report, "paused_layout"), "v6");
    app.webhook("wh_1").send().await.matched();
    let (_, report) = check_connect(&app.hookgate.config).await;
    assert_eq!(of(&report, "jobs_waiting"), 2, "the job is where the report says");

    let mut config = app.hookgate.config.clone();
    config.set("queue.paused_layout", "v5");
    assert_eq!(of(&check_connect(&config).await.1, "paused_layout"), "v5");
}

#[tokio::test]
async fn an_ambiguous_pause_is_reported() {
    let (redis, mut calls) = (Redis::start().await, Calls::start());
    let config = config(&redis.url());
    let mut python = async |method, with| {
        calls.queue(PYTHON, &redis, "workflow-runner").call(method, with).await;
    };
    python("pause", json!([])).await;
    assert_pause(&config, "v5", Some("its meta.version does not identify the release")).await;
    let mut decided = config.clone();
    decided.set("queue.paused_layout", "v6");
    assert_pause(&decided, "v6", None).await;

    python("addBulk", json!([[{ "name": "other", "data": {} }]])).await;
    assert_pause(&config, "v6", None).await;
    let paused = redis.queue().key("paused");
    let () = redis.query(cmd("LPUSH").arg(&paused).arg("2")).await;
    assert_pause(&config, "v6", Some("both lists of the paused queue have jobs")).await;
    assert_pause(&decided, "v6", None).await;

    let () = redis.query(cmd("HDEL").arg(redis.queue().key("meta")).arg("paused")).await;
    assert_pause(&config, "v5", Some("resume the queue again")).await;
    assert_pause(&decided, "v6", Some("resume the queue again")).await;
    for method in ["pause", "resume"] {
        python(method, json!([])).await;
    }
    assert_pause(&config, "v5", None).await;
}

/// Asserts the layout, and the warning next to the one that this Redis has no persistence.
async fn assert_pause(config: &Config, layout: &str, warning: Option<&str>) {
    let (code, report) = check_connect(config).await;
    let at = |pointer: &str| report.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!((code, at("/redis/paused_layout")), (0, json!(layout)), "{report}");
    let warnings = warnings(&report);
    assert_eq!(warnings.len(), 1 + usize::from(warning.is_some()), "{report}");
    let texts = warnings.concat();
    assert!(warning.is_none_or(|warning| texts.contains(warning)), "{report}");
}

#[tokio::test]
async fn the_server_found_by_sentinel_or_cluster_is_named() {
    let primary = Redis::start().await;
    let sentinel = Sentinel::start(&primary, 0).await;
    let (_, report) = check_connect(&config(&sentinel.url())).await;
    assert_eq!(report["redis"]["server"], format!("127.0.0.1:{}", primary.port()), "{report}");

    let (first, second) = Redis::start_cluster("{bull}").await;
    let mut config = config(&format!("redis-cluster://127.0.0.1:{}", first.port()));
    config.set("queue.prefix", "{bull}");
    let (code, report) = check_connect(&config).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["redis"]["server"], format!("127.0.0.1:{}", second.port()), "{report}");
    assert_eq!(report["redis"]["mode"], "cluster");
    assert_eq!(report["redis"]["missing_rights"], json!([]));
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn rights_are_unknown_on_redis_6() {
    let redis = Redis::start_6().await;
    let (code, report) = check_connect(&config(&redis.url())).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["redis"]["missing_rights"], Value::Null);
    assert!(
        report["redis"]["warnings"].to_string().contains("Redis 7.0 and later does"),
        "{report}"
    );
    assert_eq!(report["redis"]["jobs_waiting"], 0);
}

#[tokio::test]
async fn environment_keys_are_named_without_their_values() {
    let redis = Redis::start().await;
    let address = redis.allow("a-long-password", "~* +@all").await;
    let directory = Scratch::new("environment");
    let file = directory.write("hookgate.toml", config("redis://127.0.0.1:1/0").to_string());
    for format in [None, Some("--json")] {
        let mut command = tokio::process::Command::from(command(&["check", "--connect"]));
        command.arg("--config").arg(&file).args(format).env("HOOKGATE__QUEUE__REDIS", &address);
        command.env("HOOKGATE__QUEUE__JOB__BACKOFF__DELAY", "77777");
        let output = command.output().await.expect("the command runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(!text.contains("a-long-password") && !text.contains("77777"), "{text}");
        for key in ["queue.redis", "queue.job.backoff.delay"] {
            assert!(text.contains(key), "{text}");
        }
    }
}

pub(super) fn config(address: &str) -> Config {
    let mut config = Config::new();
    config.set("queue.redis", address).set("queue.enqueue_timeout", "1s");
    config
}

async fn assert_fault(config: &Config, fault: &str) {
    let (code, report) = check_connect(config).await;
    assert_eq!((code, report.get("ok")), (1, Some(&json!(false))), "{fault}: {report}");
    let faults = report.pointer("/redis/faults").map(Value::to_string);
    assert!(faults.is_some_and(|faults| faults.contains(fault)), "{fault}: {report}");
}
