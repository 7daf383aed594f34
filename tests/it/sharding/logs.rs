//! Lines of the log about one of several queues have its name.

use super::{Fleet, build_at, name};
use redis::cmd;
use serde_json::json;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Redis};
use toml::Value;

/// Waits until these words are logged, and requires that each line with them names one of these
/// queues, and that each of the queues is named.
async fn lines_name(app: &App, words: &str, queues: &[usize]) {
    let names: Vec<String> =
        queues.iter().map(|&queue| format!("queue=\"{}\"", name(queue))).collect();
    let lines = || {
        let log = app.hookgate.log();
        log.lines().filter(|line| line.contains(words)).map(str::to_owned).collect::<Vec<_>>()
    };
    until(&format!("{words:?} is logged for {names:?}"), async || {
        let lines = lines();
        names.iter().all(|name| lines.iter().any(|line| line.contains(name)))
    })
    .await;
    let lines = lines();
    let is_named = |line: &String| names.iter().any(|name| line.contains(name));
    assert!(lines.iter().all(is_named), "{lines:#?}");
}

#[tokio::test]
async fn lines_about_rights_and_batches_name_the_queue() {
    let fleet = Fleet::start(2).await;
    lines_name(&fleet.app, "has more rights than adding jobs needs", &[0, 1]).await;

    fleet.servers[1].freeze();
    let reply = fleet.webhook(fleet.organization_of(1)).send().await;
    reply.assert_not_enqueued("unknown");
    lines_name(&fleet.app, "batch not acknowledged", &[1]).await;
    fleet.servers[1].thaw();
}

#[tokio::test]
async fn lines_about_tls_files_name_the_queue() {
    let authority = Authority::new();
    let (mut servers, mut addresses) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (redis, port) = Redis::start_tls(&authority, "yes").await;
        servers.push(redis);
        addresses.push(format!("rediss://127.0.0.1:{port}"));
    }
    let client = authority.issue();
    let build = build_at(addresses.clone());
    let certificate = build.file("client.pem", &client.chain_pem);
    let key = build.file("client.key", &client.key_pem);
    // Each shard has its own section: the files of a section that shards share are of no one queue.
    let tls = json!({
        "ca_file": authority.authority_file(), "cert_file": certificate, "key_file": &key,
    });
    let shard = |(queue, address): (usize, &String)| {
        let shard = json!({ "redis": address, "name": name(queue), "tls": tls });
        Value::try_from(shard).expect("a table")
    };
    let shards: Vec<Value> = addresses.iter().enumerate().map(shard).collect();
    let build = build.config(|config| {
        config.set("queue.shards", shards);
    });
    let fleet = Fleet::new(build.start().await, servers);

    std::fs::write(&key, "no key").expect("a writable file");
    let () = fleet.servers[1]
        .query(cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]))
        .await;
    lines_name(&fleet.app, "TLS files for Redis are unusable", &[1]).await;
    std::fs::write(&key, &client.key_pem).expect("a writable file");
    let () = fleet.servers[1]
        .query(cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]))
        .await;
    lines_name(&fleet.app, "TLS files for Redis are usable again", &[1]).await;
}
