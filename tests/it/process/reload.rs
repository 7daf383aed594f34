//! SIGHUP: which keys take effect at once, which need a restart, and when a configuration is
//! refused.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use testkit::config::SECRET;
use testkit::keys::{KeyPair, hmac};
use testkit::raw::Connection;
use testkit::tokens::{claims, sign};
use testkit::wait::until;
use testkit::{App, Caller};
use tokio::task::JoinHandle;

const NEW_SECRET: &str = "the-next-secret-of-64-characters-which-is-what-hs512-likes-to-have";

#[tokio::test]
async fn keys_are_rotated_without_a_refused_request() {
    let mut app = App::start().await;
    let (old, new) = (Sender::start(&app, SECRET).await, NEW_SECRET);
    set_secrets(&mut app, &[new, SECRET]).await;
    let new = Sender::start(&app, new).await;
    old.more_accepted().await;
    old.stop().await;

    let last = token(SECRET);
    assert_eq!(app.webhook("wh_1").bearer(&last).send().await.status, 202);
    set_secrets(&mut app, &[NEW_SECRET]).await;
    let refused = app.webhook("wh_1").bearer(&last).send().await;
    refused.assert_rejected(401, "invalid_token");
    new.more_accepted().await;
    new.stop().await;
    app.assert_accounting().await;
}

/// A reload can raise what callers can make the process use, by a limit or by a template that
/// repeats the body in each job.
#[tokio::test]
async fn limits_that_exceed_memory_are_reported_by_a_reload() {
    let build = App::build().limit("--data=4294967296");
    let build = build.config(|config| {
        config.set("server.workers", 8).set("queue.max_fanout_bytes", "512MiB");
        config.set("server.max_connections", 100).set("limits.in_flight_bytes", "8MiB");
    });
    let mut app = build.start().await;
    let warned = |app: &App, key: &str| {
        app.hookgate.log().lines().any(|line| line.contains("callers can") && line.contains(key))
    };
    assert!(!warned(&app, "lower"), "{}", app.hookgate.log());
    let template = "a = [\"{payload}\", \"{workflowId}\"]".parse::<toml::Table>().expect("TOML");
    app.hookgate.config.set("queue.data", template);
    // The number of workers in effect counts.
    app.hookgate.config.set("server.workers", 1);
    app.hookgate.reload().await;
    until("the template is named", async || warned(&app, "queue.max_fanout_bytes (4096 MiB)"))
        .await;
    app.hookgate.config.remove("queue.data").set("limits.in_flight_bytes", "4GiB");
    app.hookgate.reload().await;
    until("the limit is named", async || warned(&app, "limits.in_flight_bytes (8192 MiB)")).await;
}

#[tokio::test]
async fn a_faulty_configuration_changes_nothing_and_is_logged() {
    let mut app = App::start().await;
    let config = &mut app.hookgate.config;
    config.set("auth.jwt.secrets", vec![NEW_SECRET]).set("queue.job.attempts", 7);
    config.set("limits.in_flight_requests", "many").set("server.wrokers", 1);
    app.hookgate.reload().await;
    assert_eq!(reloads(&app).await, ["0", "1"]);
    let log = app.hookgate.log();
    for expected in
        ["limits.in_flight_requests", "server.wrokers", "unknown key", "nothing is changed"]
    {
        assert!(log.contains(expected), "{expected} is logged: {log}");
    }
    assert_eq!(app.webhook("wh_1").bearer(&token(SECRET)).send().await.status, 202);
    app.webhook("wh_1")
        .bearer(&token(NEW_SECRET))
        .send()
        .await
        .assert_rejected(401, "invalid_token");
    assert_eq!(app.redis.queue().only_job().await.opts()["attempts"], 3);
}

#[tokio::test]
async fn a_change_that_conflicts_with_unchanged_keys_is_refused() {
    let mut app = App::start().await;
    let config = &mut app.hookgate.config;
    config.set("server.max_body", "64KiB").set("limits.in_flight_bytes", "64KiB");
    app.hookgate.reload().await;
    assert!(app.hookgate.log().contains("limits.in_flight_bytes"));
    assert_eq!(reloads(&app).await, ["0", "1"]);

    let app = App::with(|config| {
        config.set("auth.api_key.enabled", false);
    });
    let mut app = app.await;
    app.hookgate.config.remove("auth.jwt.secrets").set("auth.api_key.enabled", true);
    app.hookgate.reload().await;
    assert_eq!(reloads(&app).await, ["0", "1"]);
    assert_eq!(app.webhook("wh_1").bearer(&token(SECRET)).send().await.status, 202);
}

#[tokio::test]
async fn changes_that_need_a_restart_are_named_without_secrets() {
    let mut app = App::start().await;
    let config = &mut app.hookgate.config;
    config.set("queue.name", "another").set("server.max_body", "2MiB");
    config.set("queue.redis", "redis://:a-password-of-redis@127.0.0.1:1/0");
    config.set("queue.job.attempts", 9).set("auth.jwt.secrets", vec![NEW_SECRET, SECRET]);
    // The line is logged at every reload while the difference lasts.
    for round in 1..=2 {
        app.hookgate.reload().await;
        let log = app.hookgate.log();
        let warnings = log.lines().filter(|line| line.contains("after a restart"));
        let expected = r#"["queue.name", "queue.redis", "server.max_body"]"#;
        assert_eq!(warnings.filter(|line| line.contains(expected)).count(), round, "{log}");
        assert!(log.contains(r#"changed=["auth.jwt.secrets", "queue.job.attempts"]"#), "{log}");
        for secret in [NEW_SECRET, SECRET, "a-password-of-redis"] {
            assert!(!log.contains(secret));
        }
    }
    assert_eq!(reloads(&app).await, ["2", "0"]);
    assert_eq!(app.webhook("wh_1").send().await.status, 202);
    assert_eq!(app.redis.queue().only_job().await.opts()["attempts"], 9);
}

/// In a container, a replaced file under a bind mount is still the old one, so the file that was
/// read is not the one that was edited.
#[tokio::test]
async fn files_that_were_read_are_logged_with_digest_and_time() {
    let build = App::build();
    let secret = build.file("secret", SECRET);
    let mut app = build
        .config(|config| {
            config.set("telemetry.format", "json").remove("auth.jwt.secrets");
            config.set("auth.jwt.secret_files", vec![secret.clone()]);
        })
        .start()
        .await;
    let digest = |app: &App| sha256(app.hookgate.config.to_string().as_bytes());
    let line = |app: &App, message: &str| {
        let log = app.hookgate.log();
        let mut lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.rfind(|line| line["message"].as_str().is_some_and(|text| text == message))
    };
    let first = digest(&app);
    let started = line(&app, "hookgate starting").expect("a line");
    assert_eq!(started["sha256"], *first, "{started}");
    let read = line(&app, "secret or key file read").expect("a line");
    assert_eq!((&read["file"], &read["sha256"]), (&secret.as_str().into(), &Value::Null), "{read}");
    let dated = std::fs::metadata(&secret).and_then(|metadata| metadata.modified());
    let dated = humantime::format_rfc3339_seconds(dated.expect("the test's own file")).to_string();
    assert_eq!(read["modified"], dated, "{read}");

    app.hookgate.config.set("queue.job.attempts", 9).set("limits.in_flight_requests", 5);
    app.hookgate.config.set("queue.name", "another");
    app.hookgate.reload().await;
    let reported = line(&app, "SIGHUP: configuration reloaded").expect("a line");
    assert_eq!(reported["changed"], json!(["limits.in_flight_requests", "queue.job.attempts"]));
    assert_eq!(reported["sha256"], *digest(&app), "{reported}");
    assert_ne!(*digest(&app), first);
    assert!(reported["modified"].as_str().is_some_and(|time| time.ends_with('Z')), "{reported}");
    let later = line(&app, "SIGHUP: these keys take effect after a restart").expect("a line");
    assert_eq!(later["changed"], json!(["queue.name"]));

    app.hookgate.config.remove("queue.name");
    app.hookgate.reload().await;
    app.hookgate.reload().await;
    let unchanged = line(&app, "SIGHUP: configuration unchanged");
    let unchanged = unchanged.expect("a line");
    assert_eq!((&unchanged["changed"], &unchanged["sha256"]), (&json!([]), &digest(&app).into()));

    app.hookgate.config.set("server.wrokers", 1);
    app.hookgate.reload().await;
    let fault = line(&app, "fault in the configuration").expect("a line");
    assert_eq!(fault["key"], "server.wrokers");
    let text = app.hookgate.config.to_string();
    let at = text.lines().position(|line| line.starts_with("wrokers")).expect("it exists");
    assert_eq!(fault["line"], at + 1, "{fault}");
    let refused = "SIGHUP: configuration has faults; nothing is changed";
    assert_eq!(line(&app, refused).expect("a line")["sha256"], *digest(&app));
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

#[tokio::test]
async fn warnings_are_in_the_log() {
    let mut app = App::build()
        .variable("HOOKGATE__QUUE__NAME", "a")
        .variable("HOOKGATE_PORT", "tcp://10.0.0.1:80")
        .start()
        .await;
    let warnings_of = |app: &App, what: &str| {
        let log = app.hookgate.log();
        log.lines().filter(|line| line.contains("WARN") && line.contains(what)).count()
    };
    let meant = "HOOKGATE__QUUE__NAME is set but has no effect";
    assert_eq!((warnings_of(&app, meant), warnings_of(&app, "HOOKGATE_PORT")), (1, 0));
    assert_eq!(warnings_of(&app, "queue.job"), 0);
    app.hookgate.config.set("queue.job.attempts", 0);
    app.hookgate.reload().await;
    assert_eq!(
        (warnings_of(&app, meant), warnings_of(&app, "queue.job.attempts: 0 is the same as 1")),
        (2, 1)
    );
}

#[tokio::test]
async fn a_secret_is_read_again_from_its_file() {
    let build = App::build();
    let file = build.file("secret", SECRET);
    let path = file.clone();
    let app = build.config(|config| {
        config.remove("auth.jwt.secrets").set("auth.jwt.secret_files", vec![file]);
    });
    let app = app.start().await;
    let [old, new] = [token(SECRET), token(NEW_SECRET)];
    assert_eq!(app.webhook("wh_1").bearer(&old).send().await.status, 202);
    std::fs::write(path, NEW_SECRET).expect("the test's own file");
    app.hookgate.reload().await;
    app.webhook("wh_1").bearer(&old).send().await.assert_rejected(401, "invalid_token");
    assert_eq!(app.webhook("wh_1").bearer(&new).send().await.status, 202);
    assert!(app.hookgate.log().contains("auth.jwt.secret_files"));
}

#[tokio::test]
async fn a_public_key_is_read_again_from_its_file() {
    let build = App::build();
    let [old, new] = [Algorithm::ES256; 2].map(KeyPair::for_algorithm);
    let file = build.file("key.pem", &old.public_pem);
    let path = file.clone();
    let app = build.config(|config| {
        config.set("auth.jwt.algorithms", vec!["ES256"]);
        config.set("auth.jwt.public_key_files", vec![file]);
    });
    let app = app.start().await;
    let [of_old, of_new] = [&old, &new].map(|pair| {
        let key = pair.encoding_key(Algorithm::ES256);
        sign(&claims("org_a", "u"), Algorithm::ES256, &key)
    });
    assert_eq!(app.webhook("wh_1").bearer(&of_old).send().await.status, 202);
    std::fs::write(path, &new.public_pem).expect("the test's own file");
    app.hookgate.reload().await;
    app.webhook("wh_1").bearer(&of_old).send().await.assert_rejected(401, "invalid_token");
    assert_eq!(app.webhook("wh_1").bearer(&of_new).send().await.status, 202);
    assert!(app.hookgate.log().contains("changed=[\"auth.jwt.public_key_files "));
}

#[tokio::test]
async fn changed_limits_take_effect_at_once() {
    let mut app = App::with(|config| {
        config.set("limits.in_flight_requests", 1).set("server.workers", 1);
        config.set("limits.organization.in_flight_share", 1.0);
    })
    .await;
    let mut slow = Connection::open(app.hookgate.address()).await;
    let token = token(SECRET);
    slow.send(format!(
        "POST /api/webhook/workflow HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\ncontent-length: 20\r\n\r\n"
    ))
    .await;
    // Waits by the metrics, because a webhook could take the only permit before the slow request.
    app.in_flight(1).await;
    app.webhook("wh_1").send().await.assert_rejected(503, "overloaded");
    app.hookgate.config.set("limits.in_flight_requests", 2);
    app.hookgate.reload().await;
    assert_eq!(app.webhook("wh_1").send().await.status, 202);
    slow.send("{\"webhookId\":\"wh_1\"}").await;
    assert_eq!(slow.reply().await.expect("an answer").matched(), 1);
}

#[tokio::test]
async fn the_log_level_is_reloaded() {
    for format in ["text", "json"] {
        let mut app = App::with(|config| {
            config.set("telemetry.log", "warn").set("telemetry.format", format);
        })
        .await;
        let reason_is_answered = async |app: &App| {
            app.webhook("wh_1")
                .bearer("x.y.z")
                .send()
                .await
                .assert_rejected(401, "invalid_api_key");
            app.hookgate.log().contains("DEBUG")
        };
        assert!(!reason_is_answered(&app).await);
        app.hookgate.config.set("telemetry.log", "debug");
        app.hookgate.reload().await;
        // The caller does not get the reason of a refused token; the log does.
        app.webhook("wh_1")
            .bearer(&token(NEW_SECRET))
            .send()
            .await
            .assert_rejected(401, "invalid_token");
        until("the reason is in the log", async || app.hookgate.log().contains("DEBUG")).await;
    }
}

async fn set_secrets(app: &mut App, secrets: &[&str]) {
    app.hookgate.config.set("auth.jwt.secrets", secrets.to_vec());
    app.hookgate.reload().await;
}

/// Counts of applied and refused configurations.
async fn reloads(app: &App) -> [String; 2] {
    let metrics = app.hookgate.metrics().await;
    ["applied", "refused"].map(|result| {
        metrics.value("hookgate_config_reloads_total", &[("result", result)]).to_string()
    })
}

fn token(secret: &str) -> String {
    sign(&claims("org_a", "u"), Algorithm::HS256, &hmac(secret))
}

/// Sends webhooks one after the other; each must be accepted.
struct Sender {
    accepted: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Sender {
    async fn start(app: &App, secret: &str) -> Self {
        let (accepted, is_over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (caller, token): (Caller, _) = (app.caller.clone(), token(secret));
        let task = tokio::spawn({
            let (accepted, is_over) = (Arc::clone(&accepted), Arc::clone(&is_over));
            async move {
                while !is_over.load(Ordering::Relaxed) {
                    let reply = caller.webhook("wh_1").bearer(&token).send().await;
                    assert_eq!(reply.status, 202, "{}", reply.text());
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let sender = Self { accepted, is_over, task };
        sender.more_accepted().await;
        sender
    }

    async fn more_accepted(&self) {
        let before = self.accepted.load(Ordering::Relaxed);
        until("more webhooks are accepted", async || {
            assert!(!self.task.is_finished(), "no webhook was refused");
            self.accepted.load(Ordering::Relaxed) > before + 50
        })
        .await;
    }

    async fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await.expect("every webhook was accepted");
    }
}
