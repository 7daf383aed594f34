//! TLS to Redis by `[queue.tls]`: a private authority, a client certificate, and files that change.

use redis::cmd;
use serde_json::Value;

use super::takes_jobs;
use testkit::hookgate::{check, check_connect};
use testkit::node::{self, Worker};
use testkit::scratch::Scratch;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Config, Redis};

const PASSWORD: &str = "a-pa55word-of-redis";

/// Trusts the authority and presents its certificate.
fn with_files_of(authority: &Authority, config: &mut Config) {
    config
        .set("queue.tls.ca_file", authority.authority_file())
        .set("queue.tls.cert_file", authority.certificate_file())
        .set("queue.tls.key_file", authority.key_file());
}

fn address(scheme: &str, port: u16) -> String {
    format!("{scheme}://:{PASSWORD}@127.0.0.1:{port}/0")
}

async fn start(authority: &Authority) -> (Redis, u16) {
    let (redis, port) = Redis::start_tls(authority, "yes").await;
    // The port without TLS, which the test uses, stays open to everybody.
    let password = format!(">{PASSWORD}");
    let () = redis.query(cmd("ACL").arg(&["SETUSER", "default", "nopass"])).await;
    let user = ["SETUSER", "some", "on", &password, "~*", "&*", "+@all"];
    let () = redis.query(cmd("ACL").arg(&user)).await;
    (redis, port)
}

#[tokio::test]
async fn a_private_authority_and_a_client_certificate_are_used() {
    let authority = Authority::new();
    let (mut redis, port) = start(&authority).await;
    for scheme in ["rediss", "valkeys"] {
        let address = format!("{scheme}://some:{PASSWORD}@127.0.0.1:{port}");
        let app = App::build().redis(redis).redis_address(&address);
        let app = app.config(|config| with_files_of(&authority, config)).start().await;
        takes_jobs(&app, "bull").await;
        let (code, report) = check_connect(&app.hookgate.config).await;
        assert_eq!(code, 0, "{report}");
        let worker = Worker::start(&app.redis, "workflow-runner", &[]).await;
        node::idle(&app.redis, "workflow-runner").await;
        assert_eq!(worker.close().await.completed.len(), 2);
        App { redis, .. } = app;
        let () = redis.query(&cmd("FLUSHALL")).await;
    }
}

#[tokio::test]
async fn each_failure_of_tls_has_its_reason() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (mut redis, port) = start(&authority).await;
    let all = "TLSv1.2 TLSv1.3";
    for (protocols, reason, change) in [
        (all, "the server requires a client certificate", Change::NoCertificate),
        ("TLSv1.2", "it may require a client certificate", Change::NoCertificate),
        (all, "does not trust the authority of the client certificate", Change::OtherCertificate),
        (all, "not signed by a trusted authority", Change::OtherAuthority),
        (all, "WRONGPASS", Change::OtherPassword),
    ] {
        let () = redis.query(cmd("CONFIG").arg(&["SET", "tls-protocols", protocols])).await;
        let mut user = address("rediss", port).replace("://:", "://some:");
        if matches!(change, Change::OtherPassword) {
            user = user.replace(PASSWORD, "another-pa55word");
        }
        let app = App::build().redis(redis).redis_address(&user).config(|config| {
            with_files_of(&authority, config);
            match change {
                Change::NoCertificate => {
                    config.remove("queue.tls.cert_file").remove("queue.tls.key_file");
                }
                Change::OtherCertificate => {
                    config.set("queue.tls.cert_file", other.certificate_file());
                    config.set("queue.tls.key_file", other.key_file());
                }
                Change::OtherAuthority => {
                    config.set("queue.tls.ca_file", other.authority_file());
                }
                Change::OtherPassword => {}
            }
        });
        let app = app.start_unready().await;
        until(&format!("{protocols}: {reason} is given"), async || {
            app.hookgate.readiness().await.1["reasons"].to_string().contains(reason)
        })
        .await;
        let (code, report) = check_connect(&app.hookgate.config).await;
        assert_eq!(code, 1, "{report}");
        assert!(report["redis"]["faults"].to_string().contains(reason), "{report}");
        App { redis, .. } = app;
    }
}

#[derive(Clone, Copy)]
enum Change {
    NoCertificate,
    OtherCertificate,
    OtherAuthority,
    OtherPassword,
}

#[tokio::test]
async fn changed_files_are_used_from_the_next_connection_on() {
    let (authority, new) = (Authority::new(), Authority::new());
    let (redis, port) = Redis::start_tls(&authority, "yes").await;
    let build = App::build().redis(redis).redis_address(&format!("rediss://127.0.0.1:{port}"));
    let client = authority.issue();
    let trusted = build.file("ca.pem", authority.certificate_pem());
    let certificate = build.file("client.pem", &client.chain_pem);
    let key = build.file("client.key", &client.key_pem);
    let write = |file: &str, text: &str| std::fs::write(file, text).expect("a writable file");
    let files = [trusted.clone(), certificate.clone(), key.clone()];
    let build = build.config(|config| {
        let [trusted, certificate, key] = files;
        config.set("queue.tls.ca_file", trusted).set("queue.tls.cert_file", certificate);
        config.set("queue.tls.key_file", key);
    });
    let mut app = build.start().await;
    takes_a_job(&app).await;

    // Unusable files: what was read last stays in use.
    write(&key, "no key");
    reconnects(&mut app).await;
    let log = app.hookgate.log();
    assert!(
        log.contains("TLS files for Redis are unusable") && log.contains("key_file: "),
        "{log}"
    );
    write(&key, &client.key_pem);
    reconnects(&mut app).await;
    assert!(app.hookgate.log().contains("TLS files for Redis are usable again"));

    // Redis, its authority and the client certificate change. Nothing else is done.
    let client = new.issue();
    write(&trusted, &new.certificate_pem());
    write(&certificate, &client.chain_pem);
    write(&key, &client.key_pem);
    authority.replace_authority(&new.certificate_pem());
    authority.replace(&new.issue());
    takes_a_job(&app).await;
    reconnects(&mut app).await;
    let (code, report) = check_connect(&app.hookgate.config).await;
    assert_eq!(code, 0, "{report}");
}

/// Restarts Redis and waits until it gets jobs again.
async fn reconnects(app: &mut App) {
    app.redis.kill9().await;
    app.hookgate.unready().await;
    app.redis.restart().await;
    app.hookgate.ready().await;
    takes_a_job(app).await;
}

async fn takes_a_job(app: &App) {
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

#[tokio::test]
async fn faults_of_the_section_are_found_before_the_start() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = Scratch::new("tls");
    let file = |name: &str, text: &str| files.write(name, text).display().to_string();
    let (empty, garbage) = (file("empty", ""), file("garbage", "-----BEGIN CERTIFICATE-----\nx"));
    let (certificate, key) = (authority.certificate_file(), authority.key_file());
    let tls = "rediss://127.0.0.1";
    for (address, [ca_file, cert_file, key_file], faulty, fault) in [
        (tls, ["/nowhere", "", ""], "queue.tls.ca_file", "cannot read /nowhere"),
        (tls, [&empty, "", ""], "queue.tls.ca_file", "contains no certificate in PEM"),
        (tls, [&garbage, "", ""], "queue.tls.ca_file", "is not PEM"),
        (tls, ["", &certificate, ""], "queue.tls.key_file", "is required if cert_file is set"),
        (tls, ["", "", &key], "queue.tls.cert_file", "is required if key_file is set"),
        (tls, ["", &certificate, &certificate], "queue.tls.key_file", "no unencrypted private key"),
        (tls, ["", &key, &key], "queue.tls.cert_file", "contains no certificate in PEM"),
        (tls, ["", &certificate, &other.key_file()], "queue.tls.key_file", "does not belong to"),
        ("redis://127.0.0.1", ["", &certificate, &key], "queue.redis", "does not use TLS"),
        ("unix:///run/redis.sock", [&certificate, "", ""], "queue.redis", "does not use TLS"),
    ] {
        let mut config = Config::new();
        config.set("queue.redis", address).set("triggers.file", "config/workflows.json");
        config.set("queue.tls.ca_file", ca_file).set("queue.tls.cert_file", cert_file);
        config.set("queue.tls.key_file", key_file);
        let output = check(&config, &["--json"]).await;
        let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(output.status.code(), Some(2), "{fault}: {report}");
        let found = report["faults"].as_array().expect("a list");
        assert_eq!((found.len(), &found[0]["key"]), (1, &faulty.into()), "{report}");
        assert!(found[0]["message"].to_string().contains(fault), "{fault}: {report}");
    }
}
