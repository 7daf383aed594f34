//! The rights of Redis users, and the effect of each missing one.

use serde_json::{Value, json};

use super::redis_server::config;
use testkit::Redis;
use testkit::hookgate::check_connect;
use testkit::redis::documented_rights;
use testkit::sentinel::Sentinel;

const PASSWORD: &str = "rights-for-some";

#[tokio::test]
async fn the_documented_rights_suffice() {
    let redis = Redis::start_durable().await;
    let (code, found) = check(&redis, &documented_rights()).await;
    assert_eq!(code, 0, "{found}");
    assert_eq!(found["missing_rights"], json!([]));
    assert_eq!(found["warnings"], json!([]));
    assert!(found["notes"].to_string().contains("CONFIG GET is not permitted"), "{found}");
    assert_eq!(found["save"], Value::Null);
    let log: Vec<redis::Value> = redis.query(redis::cmd("ACL").arg("LOG")).await;
    assert!(log.is_empty(), "nothing was refused: {log:?}");
}

#[tokio::test]
async fn further_rights_give_a_warning() {
    let redis = Redis::start_durable().await;
    let narrow = documented_rights();
    let job = "HMGET bull:workflow-runner-other:1";
    for (more, expected) in [
        ("~bull:*", job),
        ("~bull:workflow-runner*", job),
        ("~hookgate:*", "HMGET hookgate:bull:workflow-runner-other:idempotency:check"),
        ("%R~*", "HMGET another-key"),
        ("~* +@all", "HGETALL another-key"),
        ("+config|get", "CONFIG GET"),
        ("+config|set", "CONFIG SET"),
        ("+keys", "KEYS *"),
        ("+@dangerous", "FLUSHALL"),
    ] {
        let (code, found) = check(&redis, &format!("{narrow} {more}")).await;
        let warnings = found["warnings"].to_string();
        assert_eq!(code, 0, "{more}: {found}");
        assert!(warnings.contains("more rights") && warnings.contains(expected), "{more}: {found}");
    }
}

#[tokio::test]
async fn the_documented_rights_suffice_on_a_cluster_and_with_sentinel() {
    let rights = documented_rights();
    let in_cluster = rights.replace("bull:", "{bull}:");
    let (first, second) = Redis::start_cluster("{bull}").await;
    second.allow(PASSWORD, &in_cluster).await;
    let address = first.allow(PASSWORD, &in_cluster).await;
    let mut config = config(&address.replace("redis://", "redis-cluster://").replace("/0", ""));
    config.set("queue.prefix", "{bull}");
    let (code, report) = check_connect(&config).await;
    assert_eq!((code, &report["redis"]["missing_rights"]), (0, &json!([])), "{report}");
    assert_eq!(report["redis"]["faults"], json!([]));

    let primary = Redis::start().await;
    let sentinel = Sentinel::start(&primary, 0).await;
    primary.allow(PASSWORD, &rights).await;
    let address = sentinel.url().replace("127.0.0.1", &format!("some:{PASSWORD}@127.0.0.1"));
    let (code, report) = check_connect(&super::redis_server::config(&address)).await;
    assert_eq!((code, &report["redis"]["faults"]), (0, &json!([])), "{report}");
}

#[tokio::test]
async fn each_missing_right_of_the_script_is_reported() {
    let redis = Redis::start().await;
    let all = documented_rights();
    for (right, key) in [
        ("get", "hookgate:bull:workflow-runner:producer:check"),
        ("set", "hookgate:bull:workflow-runner:producer:check"),
        ("pexpire", "hookgate:bull:workflow-runner:producer:check"),
        ("incrby", "bull:workflow-runner:id"),
        ("hset", "bull:workflow-runner:meta"),
        ("del", "bull:workflow-runner:1"),
        ("renamenx", "hookgate:bull:workflow-runner:producer:check"),
        ("persist", "bull:workflow-runner:1"),
        ("unlink", "hookgate:bull:workflow-runner:producer:check"),
        ("lpush", "bull:workflow-runner:wait"),
        ("zadd", "bull:workflow-runner:marker"),
        ("xadd", "bull:workflow-runner:events"),
    ] {
        let allowed = format!("+{right}");
        let words: Vec<&str> = all.split(' ').filter(|word| *word != allowed).collect();
        let (code, found) = check(&redis, &words.join(" ")).await;
        assert_eq!(code, 1, "{right}: {found}");
        let expected = format!("{} {key}", right.to_uppercase());
        let missing = found["missing_rights"].as_array().expect("a list");
        assert!(missing.contains(&Value::from(expected.as_str())), "{right}: {found}");
        assert!(
            missing.iter().all(|each| each.as_str().unwrap().starts_with(&right.to_uppercase()))
        );
        assert_eq!(found["faults"].as_array().map(Vec::len), Some(missing.len()), "{found}");
        assert!(found["faults"].to_string().contains(&format!("may not {expected}: ")), "{found}");
    }
}

#[tokio::test]
async fn each_missing_right_outside_the_script_is_reported() {
    let redis = Redis::start().await;
    let all = documented_rights();
    for (right, code, list, expected) in [
        (" +eval", 1, "faults", "EVAL is refused: NOPERM"),
        (" +evalsha", 1, "faults", "may not EVALSHA: jobs are refused"),
        (" +multi", 1, "faults", "may not MULTI: jobs are refused"),
        (" +exec", 1, "faults", "may not EXEC: jobs are refused"),
        (" +hmget", 1, "faults", "HMGET is refused: NOPERM"),
        (" +time", 1, "faults", "does not answer: NOPERM"),
        (" +info", 0, "warnings", "INFO is not permitted"),
        (" +zcard", 0, "warnings", "hookgate_queue_jobs is unknown: NOPERM"),
        (
            " ~hookgate:bull:workflow-runner:*",
            1,
            "faults",
            "may not SET hookgate:bull:workflow-runner:producer:check",
        ),
        (" +wait", 0, "notes", "CONFIG GET is not permitted"),
    ] {
        let words: Vec<&str> = all.split(' ').filter(|word| *word != right.trim()).collect();
        let (found_code, found) = check(&redis, &words.join(" ")).await;
        assert_eq!(found_code, code, "{right}: {found}");
        assert!(found[list].to_string().contains(expected), "{right}: {found}");
    }
    let address = redis.allow(PASSWORD, &all.replace(" +wait", "")).await;
    let mut waits = config(&address);
    waits.set("queue.wait_replicas", 1);
    let (_, report) = check_connect(&waits).await;
    assert_eq!(report["redis"]["missing_rights"], json!(["WAIT"]));
}

async fn check(redis: &Redis, rights: &str) -> (i32, Value) {
    let address = redis.allow(PASSWORD, rights).await;
    let (code, report) = check_connect(&config(&address)).await;
    (code, report.get("redis").cloned().unwrap_or_default())
}
