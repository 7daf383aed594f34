//! `triggers.snapshot_file`: after a restart the service works during an outage of MongoDB, and a
//! file that cannot be trusted is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use testkit::mongo::TestDatabase;
use testkit::wait::until;
use testkit::{App, Documents, Mongo};

#[tokio::test]
async fn a_restart_without_mongodb_serves_the_snapshot() {
    let (mut mongo, database) = filled().await;
    let mut app = app(&database).await;
    let file = snapshot_file(&app);
    until("there is a snapshot", async || file.exists()).await;
    mongo.kill9().await;
    app.hookgate.restart().await;

    for (key, organization) in [("key_a", "org_a"), ("key_b", "org_b")] {
        assert_eq!(app.webhook("wh_1").bearer(key).send().await.matched(), 1, "{organization}");
    }
    // The snapshot may be from the middle of a change, so a miss is answered 503.
    app.webhook("wh_none").send().await.assert_rejected(503, "index_unavailable");
    app.webhook("wh_1").bearer("unknown").send().await.assert_rejected(503, "index_unavailable");
    let (status, report) = app.hookgate.readiness().await;
    assert_eq!(status, 200, "{report}");
    let degraded = report["degraded"].to_string();
    assert!(degraded.contains("workflows: served from a snapshot of"), "{report}");
    assert!(degraded.contains("workflows: loaded, but not yet caught up"), "{report}");
    assert!(!degraded.contains("for more than"), "the snapshot is only seconds old: {report}");

    mongo.restart().await;
    until("misses are answered 202 again", async || {
        app.webhook("wh_none").send().await.status == 202
    })
    .await;
    until("nothing is degraded", async || {
        let (_, report) = app.hookgate.readiness().await;
        !report["degraded"].to_string().contains("workflows: ")
    })
    .await;
}

#[tokio::test]
async fn an_untrusted_snapshot_is_refused() {
    let (mut app, file) = stopped().await;
    let good = fs::read(&file).expect("a snapshot");
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cases = [
        ("its checksum is wrong", flipped(0)),
        ("its checksum is wrong", flipped(good.len() / 2)),
        ("its checksum is wrong", flipped(good.len() - 1)),
        ("its checksum is wrong", good[..good.len() - 1].to_vec()),
        ("it is too short", Vec::new()),
    ];
    for (reason, bytes) in cases {
        fs::write(&file, bytes).expect("the test's own file");
        refused(&mut app, reason).await;
    }
    // A valid snapshot of another source.
    fs::write(&file, &good).expect("the test's own file");
    app.hookgate.config.set("mongodb.database", "another");
    refused(&mut app, "it is from another database").await;
}

/// The time follows the magic and the digest of the source.
const TIME_AT: usize = 16 + 32;

#[tokio::test]
async fn invalid_contents_with_a_valid_checksum_are_refused() {
    let (mut app, file) = stopped().await;
    let good = fs::read(&file).expect("a snapshot");
    let content = &good[..good.len() - SHA256_OUTPUT_LEN];
    let with = |at: usize, bytes: &[u8]| {
        let mut content = content.to_vec();
        content[at..at + bytes.len()].copy_from_slice(bytes);
        content
    };
    let node_ids =
        content.windows(4).position(|bytes| bytes == b"[\"n1").expect("the id of a node");
    let tables = TIME_AT + 8;
    let unreadable = "its contents cannot be read";
    for (reason, content) in [
        ("its time is in the future", with(TIME_AT, &u64::MAX.to_le_bytes())),
        (unreadable, with(node_ids, &[0xff])),
        // The name of the first table, and its length.
        (unreadable, with(tables + 1, b"T")),
        (unreadable, with(tables, &[0x7f])),
        (unreadable, content[..content.len() - 1].to_vec()),
        (unreadable, content[..tables].to_vec()),
        (unreadable, [content, b"more"].concat()),
    ] {
        fs::write(&file, with_checksum(&content)).expect("the test's own file");
        refused(&mut app, reason).await;
    }
    fs::remove_file(&file).expect("the test's own file");
    let made = Command::new("mkfifo").arg(&file).status().expect("mkfifo");
    assert!(made.success());
    refused(&mut app, "it is not a regular file").await;
    app.hookgate.kill9().await;
}

#[tokio::test]
async fn a_snapshot_that_was_read_with_other_settings_is_refused() {
    let (mut app, _) = stopped().await;
    let other: [(&str, toml::Value); 18] = [
        ("mongodb.database", "another".into()),
        ("triggers.collection", "flows".into()),
        ("triggers.nodes_field", "vertices".into()),
        ("triggers.organization_field", "tenant".into()),
        ("triggers.active_field", "live".into()),
        ("triggers.active_values", vec![true].into()),
        ("triggers.filter", "{}".into()),
        ("triggers.node_types", vec!["WebhookTrigger", "Form"].into()),
        ("triggers.node_type_field", "kind".into()),
        ("triggers.node_id_field", "key".into()),
        ("triggers.webhook_id_field", "hook".into()),
        ("users.collection", "members".into()),
        ("users.organization_field", "tenant".into()),
        ("users.api_key_field", "apiKeys.hash".into()),
        ("users.api_key_encoding", "sha256".into()),
        ("users.active_field", "live".into()),
        ("users.active_values", vec!["on"].into()),
        ("users.filter", "{}".into()),
    ];
    for (key, value) in other {
        let before = app.hookgate.config.clone();
        app.hookgate.config.set(key, value);
        refused(&mut app, "it is from another database or collection").await;
        app.hookgate.config = before;
    }
    // It is accepted with the settings that it was read with, and the defaults written out.
    app.hookgate.config.set("triggers.node_types", vec!["WebhookTrigger"]);
    app.hookgate.config.set("triggers.webhook_id_field", "data.webhookId");
    app.hookgate.restart().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

#[tokio::test]
async fn a_snapshot_with_other_fields_for_jobs_is_refused() {
    let (mongo, database) = filled().await;
    let mut app = app(&database).await;
    let file = snapshot_file(&app);
    let template = |text: &str| text.parse::<toml::Table>().expect("TOML");
    let kept = r#"a = "{workflow.x}"
        b = "{workflow.y}"
        c = ["{node.z}"]"#;
    app.hookgate.config.set("queue.data", template(kept));
    until("there is a snapshot", async || file.exists()).await;
    fs::remove_file(&file).expect("the test's own file");
    app.hookgate.restart().await;
    until("there is a snapshot", async || file.exists()).await;
    app.hookgate.kill9().await;
    mongo.kill9().await;
    for (written, changed) in [
        // Another path, of the workflow and of the node.
        ("{workflow.y}", "{workflow.other}"),
        ("{node.z}", "{node.other}"),
        // Another order.
        ("a = ", "d = "),
        // Within a string, where objects and arrays are malformed.
        ("{workflow.x}", "x {workflow.x}"),
        ("{node.z}", "{node.z} z"),
        // Fewer fields, and more.
        ("{node.z}", "{workflow.x}"),
        ("{node.z}", "{node.z}\", \"{node.more}"),
    ] {
        app.hookgate.config.set("queue.data", template(&kept.replace(written, changed)));
        refused(&mut app, "it is from another database or collection").await;
    }
    // The same fields for other members of the data.
    let same = kept.replace("c =", "c1 = 1\nc2 =").replace("a =", "a1 =");
    app.hookgate.config.set("queue.data", template(&same));
    app.hookgate.restart().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

#[tokio::test]
async fn an_old_snapshot_is_reported() {
    let (mut app, file) = stopped().await;
    let mut content = fs::read(&file).expect("a snapshot");
    content.truncate(content.len() - SHA256_OUTPUT_LEN);
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let hour_ago = hour_ago.duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let hour_ago = u64::try_from(hour_ago).expect("milliseconds fit 64 bits").to_le_bytes();
    content[TIME_AT..TIME_AT + 8].copy_from_slice(&hour_ago);
    fs::write(&file, with_checksum(&content)).expect("the test's own file");
    app.hookgate.restart().await;
    let old = "snapshot: no snapshot has been written for more than 5m";
    until("the fault is reported", async || degraded(&app).await.contains(old)).await;
    let age = app.hookgate.metrics().await.value("hookgate_snapshot_age_seconds", &[]);
    assert!((3600.0..7200.0).contains(&age), "{age}");
}

#[tokio::test]
async fn two_processes_with_one_file_take_turns() {
    let (_mongo, database) = filled().await;
    let one = app(&database).await;
    let file = snapshot_file(&one);
    until("there is a snapshot", async || file.exists()).await;
    assert_eq!(fs::metadata(&file).expect("a snapshot").permissions().mode() & 0o777, 0o600);
    let shared = file.to_str().expect("a path in UTF-8").to_owned();
    let build = App::build().mongo(&database).config(|config| {
        config.set("triggers.snapshot_file", shared);
    });
    let other = build.start().await;
    let problem = "another process keeps its snapshots in the same file";
    until("the fault is reported", async || degraded(&other).await.contains(problem)).await;
    assert!(!degraded(&one).await.contains(problem));
    // The next process removes what a killed one has left.
    one.hookgate.kill9().await;
    let leftover = PathBuf::from(format!("{}.0123456789abcdef.new", file.display()));
    fs::write(&leftover, "half a snapshot").expect("the test's own file");
    fs::remove_file(&file).expect("the test's own file");
    until("the other process writes", async || file.exists()).await;
    until("no file is left", async || !leftover.exists()).await;
    until("the fault is gone", async || !degraded(&other).await.contains("snapshot: ")).await;
    assert_eq!(other.hookgate.terminate().await, 0);
}

/// An app that has written a snapshot; it is stopped, and so is its MongoDB.
async fn stopped() -> (App, PathBuf) {
    let (mongo, database) = filled().await;
    let app = app(&database).await;
    let file = snapshot_file(&app);
    until("there is a snapshot", async || file.exists()).await;
    app.hookgate.kill9().await;
    mongo.kill9().await;
    (app, file)
}

fn with_checksum(content: &[u8]) -> Vec<u8> {
    [content, digest(&SHA256, content).as_ref()].concat()
}

fn snapshot_file(app: &App) -> PathBuf {
    app.hookgate.config.text("triggers.snapshot_file").into()
}

async fn degraded(app: &App) -> String {
    let (_, report) = app.hookgate.readiness().await;
    report.get("degraded").expect("a list").to_string()
}

/// Starts the app; asserts that nothing is served and that the log gives the reason.
async fn refused(app: &mut App, reason: &str) {
    let before = app.hookgate.log().len();
    app.hookgate.restart_unready().await;
    until("the log gives the reason", async || app.hookgate.log()[before..].contains(reason)).await;
    app.webhook("wh_1").send().await.assert_rejected(503, "index_unavailable");
    assert_eq!(app.hookgate.readiness().await.0, 503);
}

async fn filled() -> (Mongo, TestDatabase) {
    let mongo = Mongo::start().await;
    let database = mongo.database().await;
    database.insert(&Documents::two_organizations()).await;
    (mongo, database)
}

async fn app(database: &TestDatabase) -> App {
    let app = App::build().mongo(database);
    let file = app.file("index.snapshot", "");
    fs::remove_file(&file).expect("it was just created");
    app.config(|config| {
        config.set("triggers.snapshot_file", file).set("triggers.max_staleness", "1h");
    })
    .start()
    .await
}
