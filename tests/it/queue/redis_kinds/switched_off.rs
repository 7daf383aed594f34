//! Servers with disabled commands, or with less in INFO than Redis: jobs are added as BullMQ's are.

use redis::cmd;

use super::{readiness, takes_jobs};
use testkit::fake_redis::{Answer, FakeRedis};
use testkit::hookgate::check_connect;
use testkit::{App, Redis};

const NOT_NEEDED: [&str; 6] = ["PING", "SELECT", "CLIENT", "INFO", "CONFIG", "ROLE"];

#[tokio::test]
async fn commands_that_jobs_do_not_need_may_be_disabled() {
    for switched_off in NOT_NEEDED {
        let app = without(&[switched_off]).await.start().await;
        takes_jobs(&app, "bull").await;
        let report = readiness(&app).await;
        let is_reported = report.contains("INFO is not permitted");
        assert_eq!(is_reported, switched_off == "INFO", "{switched_off}: {report}");
        assert_eq!(check_connect(&app.hookgate.config).await.0, 0, "{switched_off}");
    }
}

#[tokio::test]
async fn refusals_are_reported_with_all_optional_commands_disabled() {
    let app = without(&NOT_NEEDED).await.start().await;
    takes_jobs(&app, "bull").await;
    let (code, report) = check_connect(&app.hookgate.config).await;
    assert_eq!((code, &report["redis"]["version"]), (0, &serde_json::Value::Null), "{report}");
    assert!(report["redis"]["warnings"].to_string().contains("INFO is not permitted"));
    // The script's writes find the same fault as INFO would.
    let unused_port = testkit::ports::free().to_string();
    let () = app.redis.query(cmd("REPLICAOF").arg(&["127.0.0.1", &unused_port])).await;
    app.hookgate.unready().await;
    assert!(readiness(&app).await.contains("READONLY"), "{}", readiness(&app).await);
    let () = app.redis.query(cmd("REPLICAOF").arg(&["NO", "ONE"])).await;
    app.hookgate.ready().await;
}

#[tokio::test]
async fn an_optional_command_of_the_script_degrades_if_disabled() {
    for (switched_off, effect) in
        [("ZADD", "workers are not woken"), ("XADD", "no event reports"), ("DEL", "may not DEL")]
    {
        let app = without(&[switched_off]).await.start().await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{switched_off}");
        assert!(readiness(&app).await.contains(effect), "{}", readiness(&app).await);
    }
}

#[tokio::test]
async fn a_disabled_command_that_the_script_needs_is_named() {
    for switched_off in ["LPUSH", "HSET", "INCRBY", "TIME", "EVAL"] {
        let app = without(&[switched_off]).await.start_unready().await;
        testkit::wait::until(&format!("{switched_off} is named"), async || {
            readiness(&app).await.contains(switched_off)
        })
        .await;
    }
}

#[tokio::test]
async fn missing_info_fields_are_no_fault() {
    let redis = Redis::start_with(&["--appendonly", "yes"]).await;
    let fake = FakeRedis::before(&redis).await;
    let info =
        "# Server\r\nredis_version:7.4.0\r\nused_memory:1000\r\nmaxmemory:0\r\naof_enabled:1\r\n";
    fake.answer_always("INFO", bulk(info));
    let app = App::build().redis(redis).redis_address(&fake.url()).config(|config| {
        config.set("queue.wait_replicas", 0);
    });
    let app = app.start().await;
    takes_jobs(&app, "bull").await;
    let report = readiness(&app).await;
    assert!(report.contains("INFO does not report role, maxmemory_policy"), "{report}");
    assert!(!report.contains("may evict"), "{report}");
    let metrics = app.hookgate.metrics().await;
    assert!(metrics.value("hookgate_redis_may_evict", &[]) < 0.5);
    let (code, report) = check_connect(&app.hookgate.config).await;
    assert_eq!((code, report["redis"]["maxmemory_policy"].is_null()), (0, true), "{report}");
}

#[tokio::test]
async fn valkey_is_reported_with_its_own_version_and_mode() {
    let redis = Redis::start().await;
    let fake = FakeRedis::before(&redis).await;
    let info = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.3\r\n\
                server_mode:standalone\r\nrole:master\r\nused_memory:1000\r\nmaxmemory:0\r\n\
                maxmemory_policy:noeviction\r\naof_enabled:1\r\nconnected_slaves:0\r\n";
    fake.answer_always("INFO", bulk(info));
    let mut config = testkit::Config::new();
    config.set("queue.redis", fake.url());
    let (code, report) = check_connect(&config).await;
    assert_eq!(code, 0, "{report}");
    for (key, value) in [("software", "valkey"), ("version", "8.1.3"), ("mode", "standalone")] {
        assert_eq!(report["redis"][key], value, "{report}");
    }
}

async fn without(commands: &[&str]) -> testkit::app::Builder {
    let options: Vec<&str> =
        commands.iter().flat_map(|command| ["--rename-command", *command, ""]).collect();
    App::build().redis(Redis::start_with(&options).await)
}

fn bulk(text: &str) -> Answer {
    Answer::instead(format!("${}\r\n{text}\r\n", text.len()))
}
