//! Faults between MongoDB and the index: the last good index serves meanwhile, and afterwards the
//! index equals the database without a restart.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use testkit::agreement::{agrees, reaches};
use testkit::documents::{trigger, workflow};
use testkit::edits::Edits;
use testkit::mongo::{TestDatabase, document};
use testkit::wait::until;
use testkit::{App, ChaosProxy, Documents, Mongo};

/// Errors for a change stream or a read: history lost, fatal, position lost, invalid token, too
/// large, time limit, cursor not found.
const CODES: [i32; 7] = [286, 280, 136, 260, 10334, 50, 43];

/// More documents than the first batch of a load has.
const TWO_BATCHES: usize = 12_000;

#[tokio::test]
async fn a_stream_is_resumed_after_any_error() {
    follow_through_each_error(&["getMore"]).await;
}

#[tokio::test]
async fn a_read_is_retried_after_any_error() {
    follow_through_each_error(&["aggregate"]).await;
}

#[tokio::test]
async fn a_server_that_refuses_every_command_is_retried() {
    follow_through_each_error(&["aggregate", "getMore", "ping", "listCollections"]).await;
}

/// Changes both collections during each error, with and without the label that lets the driver
/// resume.
async fn follow_through_each_error(commands: &[&str]) {
    let (mongo, database, app) = followed().await;
    let mut edits = Edits::default();
    for code in CODES {
        for labels in [vec![], vec!["ResumableChangeStreamError"]] {
            let how = doc! { "errorCode": code, "errorLabels": labels };
            let fault = mongo.fail(commands, how).await;
            edits.make(&database).await;
            fault.hit(2).await;
            assert_matches(&app, "wh_steady", 1).await;
            edits.make(&database).await;
            assert_matches(&app, "wh_steady", 1).await;
            fault.end().await;
            edits.arrive(&app, &database).await;
        }
    }
    wait_until_not_degraded(&app).await;
    app.assert_accounting().await;
}

/// The driver resumes a stream by opening another cursor. If that fails too, the old cursor is at
/// its end, which looks like a collection without changes.
#[tokio::test]
async fn a_lost_cursor_is_not_read_as_a_quiet_stream() {
    let (mut mongo, database, app) = followed().await;
    let mut edits = Edits::default();
    for _ in 0..2 {
        let [set, point] =
            Mongo::failing_from_the_start(&["aggregate"], doc! { "closeConnection": true });
        mongo.restart_as_member(&[&set, &point]).await;
        mongo.writable().await;
        let fault = mongo.fault().await;
        // Two attempts of each of the two streams.
        fault.hit(8).await;
        edits.make(&database).await;
        assert_matches(&app, "wh_steady", 1).await;
        fault.end().await;
        edits.arrive(&app, &database).await;
        wait_until_not_degraded(&app).await;
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_frozen_server_delays_changes_and_no_request() {
    let (mongo, database, app) = followed().await;
    mongo.freeze();
    let mut edits = Edits::default();
    let thaw = async {
        // Longer than a heartbeat and its timeout: the driver marks the server as unknown.
        tokio::time::sleep(Duration::from_secs(12)).await;
        mongo.thaw();
    };
    let thawed = AtomicBool::new(false);
    let calls = async {
        while !thawed.load(Ordering::Relaxed) {
            assert_matches(&app, "wh_steady", 1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let writes = async {
        edits.make(&database).await;
        thawed.store(true, Ordering::Relaxed);
    };
    tokio::join!(thaw, calls, writes);
    edits.arrive(&app, &database).await;
    wait_until_not_degraded(&app).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn an_unanswered_stream_read_is_abandoned() {
    follow_through_lost_answers("getMore").await;
}

#[tokio::test]
async fn an_unanswered_read_is_abandoned() {
    follow_through_lost_answers("aggregate").await;
}

/// Heartbeats are answered, so the driver sees no fault.
async fn follow_through_lost_answers(command: &str) {
    let (mongo, database, app) = followed().await;
    let mut edits = Edits::default();
    let an_hour = doc! { "blockConnection": true, "blockTimeMS": 3_600_000 };
    let fault = mongo.fail_times(2, &[command], an_hour).await;
    edits.make(&database).await;
    fault.hit(2).await;
    assert_matches(&app, "wh_steady", 1).await;
    edits.arrive(&app, &database).await;
    wait_until_not_degraded(&app).await;
}

#[tokio::test]
async fn a_server_replaced_by_an_older_one_is_followed() {
    let mongo = Mongo::start().await;
    let port = mongo.port();
    let database = mongo.database().await;
    database.insert(&with_steady()).await;
    let app = App::build().mongo(&database).start().await;
    let mut edits = Edits::default();
    edits.make(&database).await;
    edits.arrive(&app, &database).await;
    // The stream then continues from a time without changes, which the other server accepts as
    // well.
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(mongo);

    let mongo = Mongo::start_on(port).await;
    let restored = database.on(&mongo).await;
    restored.insert(&with_steady()).await;
    agrees(&app, &restored, &["wh_new_1".to_owned(), "wh_1_1".to_owned()]).await;
    let mut edits = Edits::default();
    edits.make(&restored).await;
    edits.arrive(&app, &restored).await;
    wait_until_not_degraded(&app).await;
}

#[tokio::test]
async fn silent_connections_are_replaced() {
    let mongo = Mongo::start().await;
    let database = mongo.database().await;
    database.insert(&with_steady()).await;
    let proxy = ChaosProxy::before_port(mongo.port(), 4).await;
    let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", proxy.port());
    let app = App::build()
        .mongo(&database)
        .config(|config| {
            config.set("mongodb.uri", uri);
        })
        .start()
        .await;
    let mut edits = Edits::default();
    edits.make(&database).await;
    edits.arrive(&app, &database).await;

    proxy.open().black_hole();
    edits.make(&database).await;
    assert_matches(&app, "wh_steady", 1).await;
    edits.arrive(&app, &database).await;
    wait_until_not_degraded(&app).await;

    for _ in 0..5 {
        proxy.cut_at_random(2, 4096).await;
        edits.make(&database).await;
        edits.arrive(&app, &database).await;
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn an_aborted_load_is_never_visible() {
    let mongo = Mongo::start().await;
    let database = mongo.database().await;
    database.insert(&with_steady()).await;
    insert_many(&database, TWO_BATCHES).await;
    let fault = mongo.fail(&["getMore"], doc! { "errorCode": 43 }).await;
    let app = App::build().mongo(&database).start_unready().await;
    fault.hit(4).await;
    app.hookgate.unready().await;
    until("the reason is reported", async || {
        let (_, report) = app.hookgate.readiness().await;
        report["reasons"].to_string().contains("workflows: not loaded")
    })
    .await;
    app.webhook("wh_many_0").send().await.assert_rejected(503, "index_unavailable");
    fault.end().await;
    app.hookgate.ready().await;
    let samples = [0, TWO_BATCHES / 2, TWO_BATCHES - 1].map(|serial| format!("wh_many_{serial}"));
    for webhook in &samples {
        assert_matches(&app, webhook, 1).await;
    }

    // The same for a reload: callers see the previous state as a whole, and nothing else.
    let mut edits = Edits::default();
    let fault = mongo.fail(&["getMore"], doc! { "errorCode": 286 }).await;
    edits.make(&database).await;
    let ended = AtomicBool::new(false);
    let calls = async {
        while !ended.load(Ordering::Relaxed) {
            for webhook in &samples {
                assert_matches(&app, webhook, 1).await;
            }
        }
    };
    let faults = async {
        fault.hit(8).await;
        fault.end().await;
        wait_until_complete(&app, &database).await;
        ended.store(true, Ordering::Relaxed);
    };
    tokio::join!(calls, faults);
    edits.arrive_among_others(&app).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn changes_during_the_first_load_are_in_the_index() {
    let mongo = Mongo::start().await;
    let database = mongo.database().await;
    database.insert(&with_steady()).await;
    insert_many(&database, TWO_BATCHES).await;
    let stop = AtomicBool::new(false);
    let writer = async {
        let mut changed = Vec::new();
        let workflows = database.workflows();
        for round in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // The serial numbers visit each id once, all over the collection.
            let serial = (round * 7919) % TWO_BATCHES;
            let id = format!("many_{serial}");
            let (old, new) = (format!("wh_many_{serial}"), format!("wh_new_{serial}"));
            if round % 3 == 0 {
                workflows.delete_one(doc! { "_id": &id }).await.expect("deleted");
                changed.push((old, 0));
            } else {
                let change = doc! { "$set": { "nodes.0.data.webhookId": &new } };
                workflows.update_one(doc! { "_id": &id }, change).await.expect("updated");
                changed.extend([(old, 0), (new, 1)]);
            }
        }
        changed
    };
    let boot = async {
        let app = App::build().mongo(&database).start().await;
        stop.store(true, Ordering::Relaxed);
        app
    };
    let (changed, app) = tokio::join!(writer, boot);
    assert!(changed.len() > 20, "{} changes", changed.len());
    wait_until_complete(&app, &database).await;
    for (webhook, count) in &changed {
        reaches(&app, "key_a", webhook, *count).await;
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_change_of_nine_megabytes_is_followed() {
    let database = Mongo::shared().await.database().await;
    database.insert(&with_steady()).await;
    let app = App::build().mongo(&database).start().await;
    let nine_megabytes = |fill: &str| fill.repeat(9 << 20);
    let mut huge = document(workflow("wf_huge", "org_a", "wh_huge"));
    huge.insert("notes", nine_megabytes("a"));
    database.workflows().insert_one(huge).await.expect("inserted");
    reaches(&app, "key_a", "wh_huge", 1).await;
    for (round, fill) in ["b", "c"].into_iter().enumerate() {
        // The event would hold the document and the change, which together exceed the bound of a
        // reply.
        let webhook = format!("wh_huge_{round}");
        let change = doc! { "$set": {
            "notes": nine_megabytes(fill), "nodes.0.data.webhookId": &webhook,
        } };
        database.workflows().update_one(doc! { "_id": "wf_huge" }, change).await.expect("updated");
        reaches(&app, "key_a", &webhook, 1).await;
    }
    let mut edits = Edits::default();
    edits.make(&database).await;
    edits.arrive(&app, &database).await;
    let loads = app.hookgate.metrics().await;
    let reloads = loads.get(
        "hookgate_index_loads_total",
        &[("collection", "workflows"), ("reason", "stream_lost")],
    );
    assert_eq!(reloads.unwrap_or_default().to_string(), "0", "no reload was needed");
}

/// A MongoDB with [`with_steady`], and an app that follows it.
async fn followed() -> (Mongo, TestDatabase, App) {
    let mongo = Mongo::start().await;
    let database = mongo.database().await;
    database.insert(&with_steady()).await;
    let app = App::build().mongo(&database).start().await;
    (mongo, database, app)
}

/// The two organizations, and a workflow on `wh_steady` that no test changes.
fn with_steady() -> Documents {
    let mut documents = Documents::two_organizations();
    documents.workflows.push(workflow("wf_steady", "org_a", "wh_steady"));
    documents
}

async fn insert_many(database: &TestDatabase, count: usize) {
    let many = (0..count).map(|serial| {
        let nodes = json!([trigger("n1", &format!("wh_many_{serial}"))]);
        let id = format!("many_{serial}");
        document(json!({ "_id": id, "organizationId": "org_a", "nodes": nodes }))
    });
    database.workflows().insert_many(many).await.expect("inserted");
}

/// Asserts the number of matches.
async fn assert_matches(app: &App, webhook: &str, count: u64) {
    assert_eq!(app.webhook(webhook).send().await.matched(), count, "{webhook}");
}

/// Waits until the index has as many workflows as the collection.
async fn wait_until_complete(app: &App, database: &TestDatabase) {
    let count = database.workflows().count_documents(Document::new()).await.expect("counted");
    until(&format!("the index holds {count} workflows"), async || {
        app.hookgate.metrics().await.get("hookgate_index_workflows", &[]) == Some(count as f64)
    })
    .await;
}

/// Waits until the two collections are not degraded.
async fn wait_until_not_degraded(app: &App) {
    until("nothing is degraded", async || {
        let (status, report) = app.hookgate.readiness().await;
        let notes = report.get("degraded").and_then(Value::as_array).expect("a list");
        let is_ours = |note: &Value| {
            let note = note.as_str().unwrap_or_default();
            note.starts_with("workflows") || note.starts_with("users")
        };
        status == 200 && !notes.iter().any(is_ours)
    })
    .await;
}
