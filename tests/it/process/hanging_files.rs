//! Files that hang, as on a network file system whose server is down: nothing else stops for them.
//!
//! A failpoint makes a file hang for as long as a test wants (`src/process/failpoint.rs`), like
//! such a file system. A FIFO without a writer hangs every program that simply opens it.

use jsonwebtoken::Algorithm;
use rustix::fs::{CWD, FileType, mknodat};
use serde_json::Value;
use std::path::{Path, PathBuf};
use testkit::config::SECRET;
use testkit::documents::workflow;
use testkit::hookgate::{command, run};
use testkit::keys::{hmac, jwk_set, octet_jwk};
use testkit::mongo::TestDatabase;
use testkit::process::Process;
use testkit::scratch::Scratch;
use testkit::tls::Authority;
use testkit::tokens::{claims, sign_with_id};
use testkit::wait::until;
use testkit::{App, Config, Documents, Mongo};

const NEW_SECRET: &str = "another-secret-which-is-long-enough-for-the-digest-of-hs256";

#[tokio::test]
async fn a_hanging_jwk_set_delays_nothing_else() {
    let set = |secret| jwk_set(&[octet_jwk(secret, "HS256", "key")]);
    let build = App::build().failpoints();
    let file = build.file("jwks.json", set(SECRET));
    let name = file.clone();
    let build = build.config(|config| {
        config.remove("auth.jwt.secrets").set("auth.jwt.jwks_file", name);
    });
    let (app, database) = on_mongo(build).await;
    let is_accepted = async |secret| {
        let token =
            sign_with_id(&claims("org_a", "user_1"), Algorithm::HS256, &hmac(secret), "key");
        app.webhook("wh_1").bearer(&token).send().await.status == 202
    };
    assert!(is_accepted(SECRET).await);

    let held = Held::new(&app, "jwks.json");
    is_degraded(&app, "jwks_file").await;
    assert_everything_else_works(&app, &database, "held").await;
    assert!(is_accepted(SECRET).await, "the last good set stays in use");
    replace(&file, &set(NEW_SECRET));
    drop(held);
    until("the new set is read", async || is_accepted(NEW_SECRET).await).await;
    is_not_degraded(&app, "jwks_file").await;
    assert_eq!(log_lines(&app, "file access timed out"), 1);

    replace_by_fifo(&file);
    is_degraded(&app, "jwks_file").await;
    assert_everything_else_works(&app, &database, "fifo").await;
    replace(&file, &set(SECRET));
    until("the set is read again", async || is_accepted(SECRET).await).await;

    let _held = Held::new(&app, "jwks.json");
    is_degraded(&app, "jwks_file").await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

#[tokio::test]
async fn a_hanging_certificate_delays_nothing_else() {
    let authority = Authority::new();
    let (app, database) = on_mongo(App::build().tls(&authority).failpoints()).await;
    let certificate = authority.certificate_file();
    let text = std::fs::read_to_string(&certificate).expect("it exists");

    let held = Held::new(&app, file_name(&certificate));
    is_degraded(&app, "tls").await;
    assert_everything_else_works(&app, &database, "held").await;
    drop(held);
    is_not_degraded(&app, "tls").await;

    replace_by_fifo(&certificate);
    is_degraded(&app, "tls").await;
    assert_everything_else_works(&app, &database, "fifo").await;
    replace(&certificate, &text);
    is_not_degraded(&app, "tls").await;

    let _held = Held::new(&app, file_name(&authority.key_file()));
    is_degraded(&app, "tls").await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

#[tokio::test]
async fn a_hanging_configuration_is_refused_and_named() {
    let build = App::build().failpoints();
    let secret = build.file("secret", SECRET);
    let path = secret.clone();
    let build = build.config(|config| {
        config.remove("auth.jwt.secrets").set("auth.jwt.secret_files", vec![path]);
    });
    let (app, database) = on_mongo(build).await;

    for name in ["hookgate.toml", "secret"] {
        let held = Held::new(&app, name);
        let before = reloads(&app, "refused").await;
        app.hookgate.process().signal("HUP");
        assert_everything_else_works(&app, &database, name).await;
        until("the reload is refused", async || reloads(&app, "refused").await > before).await;
        // A file that still hangs is not waited for.
        app.hookgate.reload().await;
        let expected = format!("{name} does not answer");
        assert!(app.hookgate.log().contains(&expected), "{expected}: {}", app.hookgate.log());
        drop(held);
        let before = reloads(&app, "applied").await;
        until("the document is read again", async || {
            app.hookgate.reload().await;
            reloads(&app, "applied").await > before
        })
        .await;
    }

    replace_by_fifo(&secret);
    let before = reloads(&app, "refused").await;
    app.hookgate.process().signal("HUP");
    assert_everything_else_works(&app, &database, "fifo").await;
    until("the reload is refused", async || reloads(&app, "refused").await > before).await;
    replace(&secret, SECRET);
    let before = reloads(&app, "applied").await;
    app.hookgate.reload().await;
    assert!(reloads(&app, "applied").await > before);

    let _held = Held::new(&app, "hookgate.toml");
    app.hookgate.process().signal("HUP");
    assert_eq!(app.hookgate.terminate().await, 0);
}

#[tokio::test]
async fn a_hanging_file_of_workflows_delays_nothing_else() {
    let app = App::build().failpoints().start().await;
    let mut documents = Documents::two_organizations();

    let held = Held::new(&app, "workflows.json");
    is_degraded(&app, "workflows: ").await;
    is_degraded(&app, "users: ").await;
    health_of_redis_is_checked(&app).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "the last good file is served");
    documents.workflows.push(workflow("wf_held", "org_a", "wh_held"));
    app.replace_documents(&documents);
    drop(held);
    until("the file is read", async || app.webhook("wh_held").send().await.has_matched(1)).await;
    is_not_degraded(&app, "workflows: ").await;

    replace_by_fifo(app.documents_file());
    is_degraded(&app, "workflows: ").await;
    health_of_redis_is_checked(&app).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    documents.workflows.push(workflow("wf_fifo", "org_a", "wh_fifo"));
    app.replace_documents(&documents);
    until("the file is read", async || app.webhook("wh_fifo").send().await.has_matched(1)).await;

    let _held = Held::new(&app, "workflows.json");
    is_degraded(&app, "workflows: ").await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

#[tokio::test]
async fn a_hanging_snapshot_delays_nothing_else() {
    let build = App::build().failpoints();
    let file = build.file("snapshot", "");
    std::fs::remove_file(&file).expect("the test's own file");
    let failpoints = Path::new(&file).with_file_name("failpoints");
    let name = file.clone();
    let build = build.config(|config| {
        config.set("triggers.snapshot_file", name).set("server.start_timeout", "1s");
    });
    // The file hangs from the start and without an end.
    let held = Held::in_directory(failpoints, "snapshot");
    let (build, database) = with_mongo(build).await;
    let app = build.start().await;
    assert_everything_else_works(&app, &database, "held").await;
    assert_eq!(log_lines(&app, "file access timed out"), 1);
    assert!(!Path::new(&file).exists());
    drop(held);
    until("the file is written", async || Path::new(&file).exists()).await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

#[tokio::test]
async fn a_process_that_hangs_writing_a_snapshot_can_be_stopped() {
    let build = App::build().failpoints();
    let file = build.file("snapshot", "");
    std::fs::remove_file(&file).expect("the test's own file");
    let name = file.clone();
    let build = build.config(|config| {
        config.set("triggers.snapshot_file", name);
    });
    let failpoints = Path::new(&file).with_file_name("failpoints");
    let _held = Held::in_directory(&failpoints, "written snapshot");
    let _kernel = Held::in_directory(&failpoints, "meminfo");
    let (app, _database) = on_mongo(build).await;
    let is_being_written = async || {
        let entries = std::fs::read_dir(failpoints.with_file_name("")).expect("a directory");
        let mut names = entries.flatten().map(|entry| entry.file_name());
        names.any(|name| name.to_string_lossy().ends_with(".new"))
    };
    until("the snapshot is being written", is_being_written).await;
    // Files of the kernel may hang as well: a container can have other files in their place.
    until("the memory is unknown", async || {
        app.hookgate.log().contains("/proc/meminfo does not answer")
    })
    .await;
    assert_eq!(app.hookgate.terminate().await, 0);
    assert!(is_being_written().await, "the process still hangs");
}

#[tokio::test]
async fn a_process_that_hangs_reading_its_configuration_can_be_stopped() {
    let directory = Scratch::new("start");
    let config = directory.write("hookgate.toml", Config::new().to_string());
    let start = || {
        let mut command = command(&["serve", "--config"]);
        command.arg(&config).env("HOOKGATE_FAILPOINTS", directory.path());
        Process::start("hookgate", &command, &directory.join("log"))
    };
    let held = Held::in_directory(directory.path(), "hookgate.toml");
    let process = start();
    until("the process handles its signals", async || catches_sigterm(&process)).await;
    process.signal("TERM");
    assert_eq!(process.wait().await, 0);

    let process = start();
    assert_eq!(process.wait().await, 2);
    assert!(process.log_text().contains("hookgate.toml does not answer"), "{process:?}");
    drop(held);

    replace_by_fifo(&config);
    let process = start();
    assert_eq!(process.wait().await, 2);
    assert!(process.log_text().contains("a FIFO without a writer"), "{process:?}");
}

#[tokio::test]
async fn a_hung_control_thread_fails_livez() {
    let app = App::build().failpoints().start().await;
    let status = async || app.hookgate.admin_get("/livez").await.status().as_u16();
    let health = || {
        let address = app.hookgate.admin_address().to_string();
        run(&["health", "--address", &address]).status.code()
    };
    assert_eq!((status().await, health()), (200, Some(0)));
    let held = Held::new(&app, "control thread");
    until("/livez fails", async || status().await == 503).await;
    let answer = app.hookgate.admin_get("/livez").await.text().await.expect("a string");
    assert_eq!(answer, "control thread has been unresponsive for 30 s\n");
    assert_eq!(health(), Some(1));
    // Requests are still served.
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    drop(held);
    until("/livez answers", async || status().await == 200).await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

/// A failpoint of Hookgate, mostly a file, that hangs until this is dropped.
pub(super) struct Held(PathBuf);

impl Held {
    pub(super) fn new(app: &App, name: &str) -> Self {
        Self::in_directory(app.documents_file().with_file_name("failpoints"), name)
    }

    pub(super) fn in_directory(directory: impl AsRef<Path>, name: &str) -> Self {
        let failpoint = directory.as_ref().join(format!("hold {name}"));
        std::fs::write(&failpoint, "").expect("the test's own directory");
        Self(failpoint)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn file_name(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).expect("a path in UTF-8")
}

pub(super) fn replace(path: &str, text: &str) {
    let new = format!("{path}.new");
    std::fs::write(&new, text).expect("the test's own file");
    std::fs::rename(new, path).expect("the test's own file");
}

/// Replaces a file by a FIFO.
pub(super) fn replace_by_fifo(path: impl AsRef<Path>) {
    let new = path.as_ref().with_extension("fifo");
    mknodat(CWD, &new, FileType::Fifo, 0o600.into(), 0).expect("a new FIFO");
    std::fs::rename(new, path).expect("the test's own file");
}

async fn with_mongo(build: testkit::app::Builder) -> (testkit::app::Builder, TestDatabase) {
    let database = Mongo::shared().await.database().await;
    database.insert(&Documents::two_organizations()).await;
    (build.mongo(&database), database)
}

async fn on_mongo(build: testkit::app::Builder) -> (App, TestDatabase) {
    let (build, database) = with_mongo(build).await;
    (build.start().await, database)
}

/// Asserts that a change of MongoDB is followed, the health of Redis is checked, and operators are
/// answered.
async fn assert_everything_else_works(app: &App, database: &TestDatabase, name: &str) {
    let webhook = format!("wh_{name}");
    let workflow = workflow(&format!("wf_{name}"), "org_a", &webhook);
    database.insert(&Documents { workflows: vec![workflow], users: vec![] }).await;
    until("the change is followed", async || app.webhook(&webhook).send().await.has_matched(1))
        .await;
    health_of_redis_is_checked(app).await;
}

async fn health_of_redis_is_checked(app: &App) {
    let names_redis = async || {
        let (_, report) = app.hookgate.readiness().await;
        string_at(&report, "reasons").contains("redis")
    };
    app.redis.freeze();
    until("the silence of Redis is noticed", names_redis).await;
    app.redis.thaw();
    app.hookgate.ready().await;
    assert_eq!(app.hookgate.admin_get("/livez").await.status().as_u16(), 200);
}

async fn degraded(app: &App) -> String {
    string_at(&app.hookgate.readiness().await.1, "degraded")
}

/// The value of `/readyz` under a name, as a string.
pub(super) fn string_at(report: &Value, name: &str) -> String {
    report.get(name).map(Value::to_string).unwrap_or_default()
}

async fn is_degraded(app: &App, part: &str) {
    until(&format!("{part} is degraded"), async || degraded(app).await.contains(part)).await;
}

async fn is_not_degraded(app: &App, part: &str) {
    until(&format!("{part} is not degraded"), async || !degraded(app).await.contains(part)).await;
}

pub(super) async fn reloads(app: &App, result: &str) -> f64 {
    let metrics = app.hookgate.metrics().await;
    metrics.value("hookgate_config_reloads_total", &[("result", result)])
}

fn log_lines(app: &App, text: &str) -> usize {
    app.hookgate.log().lines().filter(|line| line.contains(text)).count()
}

/// Whether it has a handler for SIGTERM, signal 15.
fn catches_sigterm(process: &Process) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|caught| u64::from_str_radix(caught.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << 14) != 0)
}
