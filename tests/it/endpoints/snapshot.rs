//! A snapshot holds no secret of a sender. So an address is unknown until the first load.

use super::{github, node, read};
use bson::{RawDocumentBuf, rawdoc};
use hookgate::ids::{OrganizationId, WebhookId};
use hookgate::metrics::{LoadReason, Metrics};
use hookgate::mirror::Mirror;
use hookgate::mirror::document::DocumentKey;
use hookgate::mirror::snapshot::{Contents, SourceId};
use hookgate::process::lifecycle::Readiness;
use hookgate::triggers::{TriggerIndex, WorkflowCollection};
use serde_json::json;
use std::fs;
use std::sync::Arc;
use testkit::documents::workflow_of;
use testkit::mongo::document;
use testkit::wait::until;
use testkit::{App, Documents, Mongo};
use tokio::time::Instant;

const SECRET: &str = "a-secret-of-a-sender-0123456789";

#[tokio::test]
async fn a_snapshot_holds_no_secret_and_no_address() {
    let database = Mongo::shared().await.database().await;
    let mut documents = Documents::two_organizations();
    let nodes = json!([node("n1", "wh_in", &github(SECRET))]);
    documents.workflows.push(workflow_of("wf_in", "org_a", nodes));
    database.insert(&documents).await;
    let build = App::build().mongo(&database);
    let file = build.file("index.snapshot", "");
    fs::remove_file(&file).expect("it was just created");
    let build = build.config(|config| {
        config.set("endpoints.enabled", true).set("triggers.snapshot_file", file.clone());
    });
    let app = build.start().await;
    until("there is a snapshot", async || fs::exists(&file).expect("a file")).await;
    assert_eq!(app.webhook("wh_in").send().await.matched(), 1);
    let bytes = fs::read(&file).expect("a snapshot");
    let contains = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(contains("wh_in"), "the trigger is in it");
    assert!(!contains(SECRET) && !contains("github"));

    // The same settings without the database.
    let config = read(&app.hookgate.config);
    let index = TriggerIndex::new(&config.triggers);
    let metrics = Metrics::new("", "").expect("metrics");
    let collection = WorkflowCollection::new(&config.triggers, &index, Arc::clone(&metrics));
    let reporter = Readiness::default().part("workflows");
    let mut mirror = Mirror::new(collection, Arc::clone(index.freshness()), metrics, reporter);
    let [organization, other] =
        ["org_a", "org_b"].map(|id| OrganizationId::new(id).expect("an id"));
    let webhook = WebhookId::new("wh_in").expect("an id");
    let is_unknown =
        || [&organization, &other].iter().all(|owner| index.address(owner, &webhook).is_err());
    assert!(is_unknown(), "before anything is loaded");
    let callers = config.users.callers(config.triggers.max_staleness);
    let saved = index.saved_indexes().into_iter().chain(callers.saved_indexes());
    let source = SourceId::from_parts(&config.source_names());
    let contents = Contents { file: file.into(), source, indexes: saved.collect() };
    let snapshot = contents.find().await.expect("the snapshot of the service");
    mirror.restore(Arc::new(snapshot)).await;
    let matching = index.matching(&organization, &webhook, |matches| matches.len());
    assert_eq!(matching, Ok(1), "the route of webhooks is served");
    assert!(is_unknown(), "from the snapshot");

    let workflows = documents.workflows.into_iter().map(document);
    let workflows = workflows.map(|each| RawDocumentBuf::from_document(&each).expect("a document"));
    let mut load = mirror.begin_load();
    for workflow in workflows {
        let key = DocumentKey::from_document(&workflow).expect("an _id");
        mirror.load(&mut load, &key, &workflow);
    }
    assert!(is_unknown(), "during the load");
    mirror.finish_load(load, LoadReason::Start).await;
    let address = index.address(&organization, &webhook).expect("served at once");
    assert_eq!(address.expect("an address").triggers.len(), 1);
    assert!(index.address(&other, &webhook).is_err(), "not caught up with the stream yet");
    index.freshness().mark_current(Instant::now());
    assert!(index.address(&other, &webhook).expect("the index is current").is_none());
    let key = DocumentKey::from_document(&rawdoc! { "_id": "wf_in" }).expect("an _id");
    let mut load = mirror.begin_load();
    mirror.load(&mut load, &key, &rawdoc! { "_id": "wf_in", "nodes": "none" });
    mirror.finish_load(load, LoadReason::Start).await;
    assert!(index.address(&organization, &webhook).expect("the index is current").is_none());
}
