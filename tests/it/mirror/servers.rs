//! Servers that are standalone, not yet in a replica set, or in a set whose primary changes.

use mongodb::Client;
use mongodb::bson::doc;
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use serde_json::Value;
use testkit::agreement::{agrees, reaches};
use testkit::documents::workflow;
use testkit::mongo::{TestDatabase, document};
use testkit::wait::{until, until_some};
use testkit::{App, Documents, Mongo, ports};

#[tokio::test]
async fn a_replica_set_initiated_after_the_start_is_followed() {
    let mongo = Mongo::start_uninitiated(ports::free());
    let database = mongo.database().await;
    let app = App::build().mongo(&database).start_unready().await;
    not_ready(&app, "not initialized").await;

    mongo.initiate(&[mongo.port()]).await;
    mongo.writable().await;
    database.insert(&Documents::two_organizations()).await;
    app.hookgate.ready().await;
    wait_for_users(&app).await;
    agrees(&app, &database, &[]).await;
}

#[tokio::test]
async fn a_standalone_server_is_reported_until_it_joins_a_replica_set() {
    for options in ["directConnection=true", "replicaSet=rs0"] {
        let mut mongo = Mongo::start_standalone(ports::free()).await;
        let database = mongo.database().await;
        database.insert(&Documents::two_organizations()).await;
        let uri = format!("mongodb://127.0.0.1:{}/?{options}", mongo.port());
        let app = App::build()
            .mongo(&database)
            .config(|config| {
                config.set("mongodb.uri", uri);
            })
            .start_unready()
            .await;
        not_ready(&app, "replica set").await;

        // Not SIGKILL: a single server acknowledges writes that are not on its disk yet.
        mongo.process().signal("TERM");
        mongo.process().wait().await;
        mongo.restart_as_member(&[]).await;
        mongo.initiate(&[mongo.port()]).await;
        mongo.writable().await;
        app.hookgate.ready().await;
        agrees(&app, &database, &[]).await;
        let new = document(workflow("wf_new", "org_a", "wh_new"));
        database.workflows().insert_one(new).await.expect("inserted");
        reaches(&app, "key_a", "wh_new", 1).await;
    }
}

#[tokio::test]
async fn no_change_is_lost_when_the_primary_steps_down_or_dies() {
    let mut members: Vec<Mongo> = Vec::new();
    for _ in 0..3 {
        members.push(Mongo::start_uninitiated(ports::free()));
    }
    let ports: Vec<u16> = members.iter().map(Mongo::port).collect();
    members[0].initiate(&ports).await;
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let uri = format!("mongodb://{}/?replicaSet=rs0", hosts.join(","));
    let mut options = ClientOptions::parse(&uri).await.expect("a valid uri");
    // Acknowledged writes survive a change of the primary.
    options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).build());
    let client = Client::with_options(options).expect("valid options");
    let database = TestDatabase::new(&uri, client.database("stepdown"));
    until("a primary accepts writes", async || {
        database.database().create_collection("workflows").await.is_ok()
    })
    .await;
    database.insert(&Documents::two_organizations()).await;
    let app = App::build().mongo(&database).start().await;

    let mut removed = Vec::new();
    let mut serial = 0;
    for fault in 0..3 {
        let (_, before) = primary(&members).await;
        if fault < 2 {
            let admin = members[before].client().await.database("admin");
            let step_down = doc! { "replSetStepDown": 20, "secondaryCatchUpPeriodSecs": 5 };
            let (stepped_down, ()) = tokio::join!(
                admin.run_command(step_down),
                write(&database, &mut serial, &mut removed)
            );
            stepped_down.expect("another member is electable");
        } else {
            members[before].kill9().await;
            write(&database, &mut serial, &mut removed).await;
        }
        agrees(&app, &database, &removed).await;
        let (_, after) = primary(&members).await;
        assert_ne!(before, after, "another member is primary");
    }
    app.hookgate.ready().await;
    app.assert_accounting().await;
    let metrics = app.hookgate.metrics().await;
    let reloads = metrics.get(
        "hookgate_index_loads_total",
        &[("collection", "workflows"), ("reason", "stream_lost")],
    );
    assert_eq!(reloads, Some(0.0), "the stream continues from its position");
}

#[tokio::test]
async fn an_address_with_options_of_other_drivers_is_followed() {
    let mongo = Mongo::shared().await;
    let database = mongo.database().await;
    database.insert(&Documents::two_organizations()).await;
    let ignored = [
        "timeoutMS=1",
        "socketTimeoutMS=1",
        "waitQueueTimeoutMS=1",
        "maxPoolSize=0",
        "maxConnecting=0",
        "heartbeatFrequencyMS=1",
        "serverSelectionTimeoutMS=0",
        "maxStalenessSeconds=1",
        "readPreference=secondary",
        "uuidRepresentation=standard",
        "useNewUrlParser=true",
        "useUnifiedTopology=true",
        &format!("appName={}", "x".repeat(200)),
    ]
    .join("&");
    for compressor in ["snappy", "zlib", "zstd"] {
        let by_compressor = async || {
            let admin = mongo.client().await.database("admin");
            let status = admin.run_command(doc! { "serverStatus": 1 }).await.expect("a status");
            let network = status.get_document("network").expect("a document");
            let compression = network.get_document("compression").expect("a document");
            let counts = compression.get_document(compressor).expect("a document");
            let compressed = counts.get_document("compressor").expect("a document");
            compressed.get_i64("bytesOut").expect("a number")
        };
        let before = by_compressor().await;
        let uri = format!(
            "{}&{ignored}&w=0&journal=true&retryWrites=true&compressors={compressor}",
            database.uri()
        );
        let app = App::build().mongo(&database).config(|config| {
            config.set("mongodb.uri", uri);
        });
        let app = app.start().await;
        agrees(&app, &database, &[]).await;
        assert!(by_compressor().await > before, "{compressor} is in use");
        let log = app.hookgate.log();
        for option in ignored.split('&') {
            let name = option.split('=').next().unwrap_or_default();
            assert_eq!(log.matches(&format!("{name} is ignored")).count(), 1, "{name}: {log}");
        }
    }
}

/// Writes twenty workflows, some of which change or are deleted, under any primary.
async fn write(database: &TestDatabase, serial: &mut u32, removed: &mut Vec<String>) {
    let workflows = database.workflows();
    for _ in 0..20 {
        *serial += 1;
        let (id, webhook) = (format!("wf_{serial}_new"), format!("wh_{serial}_new"));
        let new = document(workflow(&id, "org_a", &webhook));
        let by_id = || doc! { "_id": &id };
        until("the workflow is inserted", async || {
            let replaced = workflows.replace_one(by_id(), new.clone()).upsert(true);
            replaced.await.is_ok()
        })
        .await;
        removed.push(webhook);
        if serial.is_multiple_of(3) {
            until("the workflow is deleted", async || workflows.delete_one(by_id()).await.is_ok())
                .await;
        } else {
            let next = format!("wh_{serial}_next");
            let change = doc! { "$set": { "nodes.0.data.webhookId": next } };
            until("the workflow is updated", async || {
                workflows.update_one(by_id(), change.clone()).await.is_ok()
            })
            .await;
        }
    }
}

/// The member that reports to be primary, and its index.
async fn primary(members: &[Mongo]) -> (&Mongo, usize) {
    until_some("there is a primary", async || {
        for (at, member) in members.iter().enumerate() {
            if member.process().exit_code().is_none() && member.is_writable().await {
                return Some((member, at));
            }
        }
        None
    })
    .await
}

/// Waits until both collections give a reason that contains this.
async fn not_ready(app: &App, reason: &str) {
    app.hookgate.unready().await;
    for part in ["workflows", "users"] {
        until(&format!("{part} gives its reason"), async || {
            let (_, report) = app.hookgate.readiness().await;
            let reasons = report.get("reasons").and_then(Value::as_array).expect("a list");
            reasons.iter().filter_map(Value::as_str).any(|each| {
                each.starts_with(&format!("{part}: not loaded: ")) && each.contains(reason)
            })
        })
        .await;
    }
    app.webhook("wh_1").send().await.assert_rejected(503, "index_unavailable");
}

async fn wait_for_users(app: &App) {
    until("the key is accepted", async || app.webhook("wh_1").send().await.status == 202).await;
}
