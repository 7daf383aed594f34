//! What happens to the place in the stream: while MongoDB still has it nothing is loaded again, however long it was away; where
//! it is lost, everything is.

use mongodb::bson::doc;
use testkit::agreement::agrees;
use testkit::documents::workflow;
use testkit::edits::Edits;
use testkit::mongo::{TestDatabase, document};
use testkit::wait::until;
use testkit::{App, ChaosProxy, Config, Documents, Mongo};

#[tokio::test]
async fn what_changes_in_an_outage_is_fetched_and_nothing_else() {
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
async fn what_changes_while_the_network_is_away_is_fetched_and_nothing_else() {
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

/// The driver drops a server for good that was once of the wrong kind. A new client finds it, and goes on where the old one
/// was.
#[tokio::test]
async fn a_client_that_gets_no_further_is_replaced_and_nothing_is_loaded_again() {
    let mut mongo = Mongo::start().await;
    let database = filled(&mongo).await;
    let app = App::build().mongo(&database).config(patiently).start().await;
    let mut edits = Edits::default();
    edits.make(&database).await;
    edits.arrive(&app, &database).await;

    mongo.restart_alone().await;
    for collection in ["workflows", "users"] {
        told(&app, &format!("{collection}: not followed: at the address is no member")).await;
    }
    mongo.restart().await;
    edits.make(&database).await;
    edits.arrive(&app, &database).await;
    assert!(loads(&app).await == 0.0, "nothing was loaded again");
}

#[tokio::test]
async fn a_reader_that_the_oplog_has_left_behind_loads_everything() {
    let mongo = Mongo::start_with_short_oplog().await;
    let database = filled(&mongo).await;
    let app = App::build().mongo(&database).config(patiently).start().await;
    let mut edits = Edits::default();
    app.hookgate.process().signal("STOP");
    edits.make(&database).await;
    mongo.roll_oplog().await;
    app.hookgate.process().signal("CONT");
    edits.arrive(&app, &database).await;
    until("the place was lost, and all is loaded", async || loads(&app).await >= 1.0).await;
    edits.make(&database).await;
    edits.arrive(&app, &database).await;
    app.hookgate.ready().await;
}

#[tokio::test]
async fn an_outage_that_was_longer_than_the_oplog_leads_to_a_load() {
    let mongo = Mongo::start_with_short_oplog().await;
    let database = filled(&mongo).await;
    let (app, proxy) = behind_proxy(&mongo, &database).await;
    cut_off(&app, &proxy).await;
    let mut edits = Edits::default();
    edits.make(&database).await;
    mongo.roll_oplog().await;
    proxy.accept_connections();
    edits.arrive(&app, &database).await;
    until("the place was lost, and all is loaded", async || loads(&app).await >= 1.0).await;
    edits.make(&database).await;
    edits.arrive(&app, &database).await;
}

#[tokio::test]
async fn a_collection_that_takes_the_place_of_a_live_one_is_followed() {
    let database = filled(Mongo::shared().await).await;
    let app = App::build().mongo(&database).start().await;
    let mut gone = vec!["wh_1".to_owned()];
    for round in 1..=3 {
        let webhook = format!("wh_{round}_next");
        let next = [("wf_1", "org_a"), ("wf_next", "org_b")];
        let next = next.map(|(id, organization)| document(workflow(id, organization, &webhook)));
        database.collection("next").insert_many(next).await.expect("inserted");
        database.rename("next", "workflows").await;
        agrees(&app, &database, &gone).await;
        // The stream is that of the collection which has the name now.
        let change = doc! { "$set": { "nodes.0.data.webhookId": format!("wh_{round}_edited") } };
        database.workflows().update_one(doc! { "_id": "wf_1" }, change).await.expect("updated");
        gone.push(webhook);
        agrees(&app, &database, &gone).await;
        gone.push(format!("wh_{round}_edited"));
    }
    app.hookgate.ready().await;
}

/// What is looked at are changes, and a miss is to be one however long writing takes meanwhile.
fn patiently(config: &mut Config) {
    config.set("triggers.max_staleness", "10m");
}

async fn filled(mongo: &Mongo) -> TestDatabase {
    let database = mongo.database().await;
    database.insert(&Documents::two_organizations()).await;
    database
}

/// A service whose way to MongoDB can be cut.
async fn behind_proxy(mongo: &Mongo, database: &TestDatabase) -> (App, ChaosProxy) {
    let proxy = ChaosProxy::before_port(mongo.port(), 5).await;
    let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", proxy.port());
    let app = App::build().mongo(database).config(patiently).config(|config| {
        config.set("mongodb.uri", uri);
    });
    (app.start().await, proxy)
}

/// Waits until both streams are known to be lost.
async fn cut_off(app: &App, proxy: &ChaosProxy) {
    proxy.refuse_connections();
    proxy.open().cut(testkit::chaos::Cut::Reset);
    for collection in ["workflows", "users"] {
        told(app, &format!("{collection}: not followed")).await;
    }
}

async fn told(app: &App, note: &str) {
    until(&format!("{note} is told"), async || {
        let (_, report) = app.hookgate.readiness().await;
        report.get("degraded").is_some_and(|notes| notes.to_string().contains(note))
    })
    .await;
}

/// How often workflows have been loaded after a stream was lost.
async fn loads(app: &App) -> f64 {
    let labels = [("collection", "workflows"), ("reason", "stream_lost")];
    app.hookgate.metrics().await.value("hookgate_index_loads_total", &labels)
}
