//! The position in the change stream. While MongoDB has it, nothing is loaded again, however long
//! MongoDB was away. When it is lost, everything is loaded.

use mongodb::bson::doc;
use testkit::agreement::agrees;
use testkit::documents::workflow;
use testkit::edits::Edits;
use testkit::mongo::{TestDatabase, document};
use testkit::wait::until;
use testkit::{App, ChaosProxy, Config, Documents, Mongo};

#[tokio::test]
async fn changes_during_an_outage_are_read_without_a_load() {
    let mut mongo = Mongo::start().await;
    let database = filled(&mongo).await;
    let app = App::build().mongo(&database).start().await;
    let mut edits = Edits::default();
    for _ in 0..3 {
        edits.make(&database).await;
        mongo.restart().await;
        edits.make(&database).await;
        edits.arrive(&app, &database).await;
    }
    assert!(loads(&app).await == 0.0, "nothing was loaded again");
}

#[tokio::test]
async fn changes_during_a_network_failure_are_read_without_a_load() {
    let mongo = Mongo::start().await;
    let database = filled(&mongo).await;
    let (app, proxy) = behind_proxy(&mongo, &database).await;
    let mut edits = Edits::default();
    edits.make(&database).await;
    edits.arrive(&app, &database).await;
    cut_off(&app, &proxy).await;
    edits.make(&database).await;
    edits.make(&database).await;
    proxy.accept_connections();
    edits.arrive(&app, &database).await;
    assert!(loads(&app).await == 0.0, "nothing was loaded again");
}

/// The driver permanently drops a server that was once of the wrong kind. A new client finds it
/// again and continues from the old position.
#[tokio::test]
async fn a_stuck_client_is_replaced_without_a_load() {
    let mut mongo = Mongo::start().await;
    let database = filled(&mongo).await;
    let app = App::build().mongo(&database).config(with_long_staleness).start().await;
    let mut edits = Edits::default();
    edits.make(&database).await;
    edits.arrive(&app, &database).await;

    mongo.restart_alone().await;
    for collection in ["workflows", "users"] {
        is_reported(
            &app,
            &format!("{collection}: not followed: no server at the address is a member"),
        )
        .await;
    }
    mongo.restart().await;
    edits.make(&database).await;
    edits.arrive(&app, &database).await;
    assert!(loads(&app).await == 0.0, "nothing was loaded again");
}

#[tokio::test]
async fn a_position_older_than_the_oplog_leads_to_a_load() {
    let mongo = Mongo::start_with_short_oplog().await;
    let database = filled(&mongo).await;
    let app = App::build().mongo(&database).config(with_long_staleness).start().await;
    let mut edits = Edits::default();
    app.hookgate.process().signal("STOP");
    edits.make(&database).await;
    mongo.roll_oplog().await;
    app.hookgate.process().signal("CONT");
    edits.arrive(&app, &database).await;
    until("the position is lost and everything is loaded", async || loads(&app).await >= 1.0).await;
    edits.make(&database).await;
    edits.arrive(&app, &database).await;
    app.hookgate.ready().await;
}

#[tokio::test]
async fn an_outage_longer_than_the_oplog_leads_to_a_load() {
    let mongo = Mongo::start_with_short_oplog().await;
    let database = filled(&mongo).await;
    let (app, proxy) = behind_proxy(&mongo, &database).await;
    cut_off(&app, &proxy).await;
    let mut edits = Edits::default();
    edits.make(&database).await;
    mongo.roll_oplog().await;
    proxy.accept_connections();
    edits.arrive(&app, &database).await;
    until("the position is lost and everything is loaded", async || loads(&app).await >= 1.0).await;
    edits.make(&database).await;
    edits.arrive(&app, &database).await;
}

#[tokio::test]
async fn a_collection_renamed_over_another_is_followed() {
    let database = filled(Mongo::shared().await).await;
    let app = App::build().mongo(&database).start().await;
    let mut removed = vec!["wh_1".to_owned()];
    for round in 1..=3 {
        let webhook = format!("wh_{round}_next");
        let next = [("wf_1", "org_a"), ("wf_next", "org_b")];
        let next = next.map(|(id, organization)| document(workflow(id, organization, &webhook)));
        database.collection("next").insert_many(next).await.expect("inserted");
        database.rename("next", "workflows").await;
        agrees(&app, &database, &removed).await;
        // The stream follows the collection that has the name now.
        let change = doc! { "$set": { "nodes.0.data.webhookId": format!("wh_{round}_edited") } };
        database.workflows().update_one(doc! { "_id": "wf_1" }, change).await.expect("updated");
        removed.push(webhook);
        agrees(&app, &database, &removed).await;
        removed.push(format!("wh_{round}_edited"));
    }
    app.hookgate.ready().await;
}

/// The test is about changes, so a miss must stay a miss however long the writes take.
fn with_long_staleness(config: &mut Config) {
    config.set("triggers.max_staleness", "10m");
}

async fn filled(mongo: &Mongo) -> TestDatabase {
    let database = mongo.database().await;
    database.insert(&Documents::two_organizations()).await;
    database
}

/// An app whose connection to MongoDB can be cut.
async fn behind_proxy(mongo: &Mongo, database: &TestDatabase) -> (App, ChaosProxy) {
    let proxy = ChaosProxy::before_port(mongo.port(), 5).await;
    let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", proxy.port());
    let app = App::build().mongo(database).config(with_long_staleness).config(|config| {
        config.set("mongodb.uri", uri);
    });
    (app.start().await, proxy)
}

/// Waits until both streams are reported as lost.
async fn cut_off(app: &App, proxy: &ChaosProxy) {
    proxy.refuse_connections();
    proxy.open().cut(testkit::chaos::Cut::Reset);
    for collection in ["workflows", "users"] {
        is_reported(app, &format!("{collection}: not followed")).await;
    }
}

async fn is_reported(app: &App, note: &str) {
    until(&format!("{note} is reported"), async || {
        let (_, report) = app.hookgate.readiness().await;
        report.get("degraded").is_some_and(|notes| notes.to_string().contains(note))
    })
    .await;
}

/// Number of loads of workflows because a stream was lost.
async fn loads(app: &App) -> f64 {
    let labels = [("collection", "workflows"), ("reason", "stream_lost")];
    app.hookgate.metrics().await.value("hookgate_index_loads_total", &labels)
}
