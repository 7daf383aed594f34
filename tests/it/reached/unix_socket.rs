//! `server.listen = "unix:…"`: the file of the socket, and peers without an address.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::app::Builder;
use testkit::hookgate::{check, command};
use testkit::relay::Relay;
use testkit::wait::until;
use testkit::{App, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{WEBHOOK, client_of_webhook};

/// An app on a Unix socket, the path, and what leads there.
async fn builder(change: impl FnOnce(&mut Config)) -> (Builder, PathBuf, Relay) {
    let build = App::build().config(change);
    let path = build.directory().join("hookgate.sock");
    let relay = Relay::start(path.as_path()).await;
    let build = build.listening(&format!("unix:{}", path.display()), relay.address());
    (build, path, relay)
}

fn with_client_in_jobs(config: &mut Config) {
    let template = "address = \"{clientAddress}\"";
    config.set("queue.data", template.parse::<toml::Table>().expect("TOML"));
    config.set("telemetry.log", "info,hookgate::access=debug");
    config.set("telemetry.format", "json");
}

async fn webhook_over(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).await.expect("hookgate listens");
    let last = WEBHOOK.replace("Host: h", "Host: h\r\nConnection: close");
    stream.write_all(last.as_bytes()).await.expect("an open connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("a file").permissions().mode() & 0o777
}

#[tokio::test]
async fn the_file_has_its_mode_and_is_removed_at_the_end() {
    for (given, expected) in [(None, 0o660), (Some("0606"), 0o606)] {
        let (build, path, _relay) = builder(|config| {
            if let Some(mode) = given {
                config.set("server.unix_mode", mode);
            }
        })
        .await;
        let app = build.start().await;
        assert_eq!(mode(&path), expected);
        let shown = format!("address=\"unix:{}\"", path.display());
        assert!(app.hookgate.log().contains(&shown), "{}", app.hookgate.log());
        assert_eq!(app.hookgate.terminate().await, 0);
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn a_socket_of_a_process_that_was_killed_is_replaced() {
    let (build, path, _relay) = builder(|_| ()).await;
    let mut app = build.start().await;
    app.hookgate.kill9().await;
    assert!(path.exists());
    app.hookgate.restart().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

#[tokio::test]
async fn a_socket_on_which_another_process_accepts_is_left_alone() {
    let (build, path, _relay) = builder(|_| ()).await;
    let app = build.start().await;
    let mut second = app.hookgate.config.clone();
    second.set("admin.listen", format!("127.0.0.1:{}", testkit::ports::free()));
    let file = path.with_extension("toml");
    fs::write(&file, second.to_string()).expect("the test's own directory");
    let serve = command(&["serve", "--config", file.to_str().expect("UTF-8")]).output();
    let output = serve.expect("the binary runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let log = String::from_utf8_lossy(&output.stdout);
    assert!(log.contains("another process accepts connections"), "{log}");
    assert!(webhook_over(&path).await.starts_with("HTTP/1.1 202"));
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_a_fault() {
    let (build, path, _relay) = builder(|_| ()).await;
    fs::write(&path, "precious").expect("the test's own directory");
    let mut config = Config::new();
    config.set("server.listen", format!("unix:{}", path.display()));
    config.set("queue.redis", "redis://127.0.0.1:1");
    config.set("triggers.file", "/nowhere");
    let output = check(&config, &[]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let faults = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(faults.contains("server.listen") && faults.contains("no socket"), "{faults}");
    assert_eq!(fs::read_to_string(&path).expect("it is still there"), "precious");
    drop(build);
}

/// The port opens when the process is ready. A file that appears in between is not touched.
#[tokio::test]
async fn the_path_is_looked_at_again_when_the_port_opens() {
    let (build, path, _relay) = builder(|config| {
        config.set("server.start_timeout", "2s");
        // Nothing answers there, so the process is not ready.
        config.set("queue.redis", "redis://127.0.0.1:1");
    })
    .await;
    let address = format!("redis://127.0.0.1:{}", testkit::ports::free());
    let app = build.redis_address(&address).launch_only().await;
    assert!(!path.exists(), "not open yet");
    let other = UnixListener::bind(&path).expect("the test's own directory");
    assert_eq!(app.hookgate.process().wait().await, 1, "{}", app.hookgate.log());
    assert!(app.hookgate.log().contains("another process accepts"), "{}", app.hookgate.log());
    assert!(fs::symlink_metadata(&path).expect("a file").file_type().is_socket());
    drop(other);
}

#[tokio::test]
async fn a_socket_that_is_removed_by_another_is_reported() {
    let (build, path, _relay) = builder(|_| ()).await;
    let app = build.start().await;
    let degraded = async || app.hookgate.readiness().await.1["degraded"].to_string();
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).expect("the test's own directory");
    until("it is reported", async || degraded().await.contains("the socket is removed")).await;
    fs::write(&path, "").expect("the test's own directory");
    until("it is reported", async || degraded().await.contains("another file")).await;
    assert!(app.hookgate.log().contains("nobody can connect"), "{}", app.hookgate.log());
    fs::rename(&aside, &path).expect("the test's own directory");
    until("it is back", async || !degraded().await.contains("process")).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.hookgate.terminate().await, 0);
}

#[tokio::test]
async fn a_peer_without_an_address_is_called_unix() {
    let (build, _, _relay) = builder(with_client_in_jobs).await;
    let app = build.start().await;
    assert_eq!(client_of_webhook(&app, "forged", "192.0.2.1").await, "unix");
    let job = app.redis.queue().only_job().await;
    assert_eq!(job.data(), json!({ "address": Value::Null }));
}

#[tokio::test]
async fn a_trusted_unix_socket_names_its_clients() {
    let (build, _, _relay) = builder(|config| {
        with_client_in_jobs(config);
        config.set("server.trusted_proxies", vec!["unix", "10.0.0.0/8"]);
    })
    .await;
    let app = build.start().await;
    for (number, (field, expected)) in [
        ("192.0.2.1", "192.0.2.1"),
        ("198.51.100.9, 192.0.2.1, 10.1.1.1", "192.0.2.1"),
        ("[2001:db8::1]:4711, 10.1.1.1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, unknown", "unix"),
        ("192.0.2.1, unix", "unix"),
        ("", "unix"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(client_of_webhook(&app, &format!("r{number}"), field).await, expected);
        let job = app.redis.queue().waiting().await.pop().expect("a job").data();
        let address = if expected == "unix" { Value::Null } else { expected.into() };
        assert_eq!(job, json!({ "address": address }), "{field}");
    }
    let metrics = app.hookgate.metrics_text().await;
    assert!(!metrics.contains("192.0.2."), "no label has an address");
}

/// All connections of a Unix socket come from the proxy that may open the file, so they are bounded
/// only in total.
#[tokio::test]
async fn connections_of_a_unix_socket_are_not_limited_by_address() {
    let (build, path, _relay) = builder(|config| {
        config.set("server.max_connections_per_address", 1);
    })
    .await;
    let app = build.start().await;
    let held = UnixStream::connect(&path).await.expect("hookgate listens");
    until("the connection is open", async || {
        app.hookgate.metrics().await.sum("hookgate_connections") >= 1.0
    })
    .await;
    assert!(webhook_over(&path).await.starts_with("HTTP/1.1 202"));
    drop(held);
}

/// A rolling restart: the socket of the next process appears as soon as the last one drains.
#[tokio::test]
async fn the_next_process_can_start_while_the_last_one_drains() {
    let (build, path, _relay) = builder(testkit::config::patient).await;
    let app = build.start().await;
    let mut slow = UnixStream::connect(&path).await.expect("hookgate listens");
    let (first, rest) = WEBHOOK.split_at(WEBHOOK.len() - 5);
    slow.write_all(first.as_bytes()).await.expect("an open connection");
    app.in_flight(1).await;
    app.hookgate.process().signal("TERM");
    until("the file is removed", async || !path.exists()).await;
    let next = UnixListener::bind(&path).expect("the path is free");
    slow.write_all(rest.as_bytes()).await.expect("an open connection");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_eq!(app.hookgate.process().wait().await, 0);
    assert!(path.exists(), "the file of the next process stays");
    drop(next);
}
