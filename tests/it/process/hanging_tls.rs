//! Files for TLS and for name resolution that hang: servers that do not need them are still
//! reached.

use super::hanging_files::{Held, replace_by_fifo, string_at};
use std::path::Path;
use testkit::hookgate::command;
use testkit::scratch::Scratch;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Config, Redis, ports};

/// An address without a server, whose certificate this file would have to verify.
fn mongodb(authority: &str) -> String {
    format!("mongodb://127.0.0.1:{}/?replicaSet=rs0&tls=true&tlsCAFile={authority}", ports::free())
}

async fn redis(authority: &Authority) -> (Redis, String) {
    let port = ports::free().to_string();
    let (certificate, key) = (authority.certificate_file(), authority.key_file());
    let options = [
        ["--tls-port", &port],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &certificate],
        ["--tls-auth-clients", "no"],
    ];
    (Redis::start_with(&options.concat()).await, format!("rediss://127.0.0.1:{port}"))
}

#[tokio::test]
async fn a_hanging_tls_file_does_not_delay_redis() {
    let authority = Authority::new();
    let (redis, address) = redis(&authority).await;
    let build = App::build().failpoints().redis(redis).redis_address(&address);
    let authorities = build.file("authorities.pem", authority.certificate_pem());
    let build = build.variable("SSL_CERT_FILE", &authorities).variable("SSL_CERT_DIR", "");
    let mongodb = mongodb(&build.file("ca.pem", authority.certificate_pem()));
    let build = build.config(|config| {
        config.set("triggers.source", "mongodb").set("mongodb.uri", mongodb);
    });
    let mut app = build.start_unready().await;
    until("Redis is reached", async || !names(&app, "redis").await).await;

    let held = Held::new(&app, "ca.pem");
    until("it hangs", async || names(&app, "ca.pem does not answer").await).await;
    redis_comes_back(&mut app).await;
    drop(held);

    let _held = Held::new(&app, "a certificate authority file");
    redis_comes_back(&mut app).await;
    until("the hanging file is logged", async || {
        app.hookgate.log().contains("file=\"a certificate authority file\"")
    })
    .await;
    redis_comes_back(&mut app).await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

/// The files of `[queue.tls]` are those of Redis itself, so it has to work without them.
#[tokio::test]
async fn a_hanging_file_of_queue_tls_is_used_as_it_was_read_last() {
    let authority = Authority::new();
    let (redis, address) = redis(&authority).await;
    let build = App::build().failpoints().redis(redis).redis_address(&address);
    let file = build.file("redis-ca.pem", authority.certificate_pem());
    let build = build.config(|config| {
        config.set("queue.tls.ca_file", file);
    });
    let mut app = build.start().await;
    let held = Held::new(&app, "redis-ca.pem");
    redis_comes_back(&mut app).await;
    until("the hanging file is logged", async || {
        app.hookgate.log().contains("redis-ca.pem does not answer")
    })
    .await;
    redis_comes_back(&mut app).await;
    drop(held);
    assert_eq!(app.hookgate.terminate().await, 0);
}

#[tokio::test]
async fn a_hanging_resolver_configuration_does_not_delay_redis() {
    let build = App::build().failpoints();
    let failpoints = Path::new(&build.file("unused", "")).with_file_name("failpoints");
    let _held = Held::in_directory(failpoints, "resolv.conf");
    let build = build.config(|config| {
        config.set("triggers.source", "mongodb");
        config.set("mongodb.uri", "mongodb+srv://cluster.example.invalid/");
    });
    let mut app = build.start_unready().await;
    until("Redis is reached", async || !names(&app, "redis").await).await;
    redis_comes_back(&mut app).await;
    assert!(names(&app, "not loaded yet").await, "the address is still being looked up");
    assert_eq!(app.hookgate.terminate().await, 0);
}

/// Waits for Redis to be used again after it was stopped.
async fn redis_comes_back(app: &mut App) {
    app.redis.kill9().await;
    until("Redis is reported as a reason", async || names(app, "redis").await).await;
    app.redis.restart().await;
    until("Redis is reached", async || !names(app, "redis").await).await;
}

/// Whether this is among the reasons why it is not ready.
async fn names(app: &App, reason: &str) -> bool {
    string_at(&app.hookgate.readiness().await.1, "reasons").contains(reason)
}

#[tokio::test]
async fn a_fifo_as_a_tls_file_is_refused() {
    let directory = Scratch::new("fifos");
    let fifo = directory.join("fifo.pem");
    replace_by_fifo(&fifo);
    let mongodb = mongodb(fifo.to_str().expect("a path in UTF-8"));
    let mut config = Config::new();
    config.set("queue.redis", "rediss://127.0.0.1");
    config.set("triggers.source", "mongodb").set("mongodb.uri", mongodb);
    let config = directory.write("hookgate.toml", config.to_string());
    let mut check = tokio::process::Command::from(command(&["check", "--config"]));
    check.arg(config).env("SSL_CERT_FILE", &fifo).env_remove("SSL_CERT_DIR");
    let output = check.output().await.expect("the command runs");
    assert_eq!(output.status.code(), Some(2));
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    for fault in ["fifo.pem is not a regular file", "a FIFO without a writer"] {
        assert!(output.contains(fault), "{fault}: {output}");
    }
}
