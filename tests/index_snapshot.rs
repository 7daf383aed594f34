//! `triggers.snapshot_file`: a restart serves while MongoDB is away, and a file that cannot be trusted is refused.

mod harness;

use std::fs;
use std::path::Path;

use harness::mongo::TestDatabase;
use harness::wait::until;
use harness::{App, Documents, Mongo};

#[tokio::test]
async fn a_restart_without_mongodb_serves_what_was_there() {
    let (mut mongo, database) = filled().await;
    let mut app = app(&database).await;
    let file = app.hookgate.config.text("triggers.snapshot_file").to_owned();
    until("there is a snapshot", async || Path::new(&file).exists()).await;
    mongo.kill9().await;
    app.hookgate.restart().await;

    for (key, organization) in [("key_a", "org_a"), ("key_b", "org_b")] {
        assert_eq!(app.webhook("wh_1").bearer(key).send().await.matched(), 1, "{organization}");
    }
    // It may have been taken in the middle of a change: what is not in it is not denied.
    app.webhook("wh_none").send().await.assert_rejected(503, "index_unavailable");
    app.webhook("wh_1").bearer("unknown").send().await.assert_rejected(503, "index_unavailable");
    let (status, report) = app.hookgate.readiness().await;
    assert_eq!(status, 200, "{report}");
    assert!(report["degraded"].to_string().contains("workflows: "), "{report}");

    mongo.restart().await;
    until("misses are believed again", async || app.webhook("wh_none").send().await.status == 202)
        .await;
    until("nothing is degraded", async || {
        let (_, report) = app.hookgate.readiness().await;
        !report["degraded"].to_string().contains("workflows: ")
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_trusted_is_refused() {
    let (mongo, database) = filled().await;
    let mut app = app(&database).await;
    let file = app.hookgate.config.text("triggers.snapshot_file").to_owned();
    until("there is a snapshot", async || Path::new(&file).exists()).await;
    app.hookgate.kill9().await;
    mongo.kill9().await;
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
        fs::write(&file, bytes).expect("our own file");
        refused(&mut app, reason).await;
    }
    // A good one of another source.
    fs::write(&file, &good).expect("our own file");
    app.hookgate.config.set("mongodb.database", "another");
    refused(&mut app, "it is of another database").await;
}

/// Starts, and finds that nothing is served and the log says why.
async fn refused(app: &mut App, reason: &str) {
    let before = app.hookgate.log().len();
    app.hookgate.restart_unready().await;
    until("the log says why", async || app.hookgate.log()[before..].contains(reason)).await;
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
    fs::remove_file(&file).expect("it was just made");
    app.config(|config| {
        config.set("triggers.snapshot_file", file);
    })
    .start()
    .await
}
