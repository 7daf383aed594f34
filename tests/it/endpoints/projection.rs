//! What MongoDB returns of a node gives the same address as the whole node.

use super::{github, node};
use bson::RawDocumentBuf;
use hookgate::endpoints::EndpointsSettings;
use hookgate::ids::{OrganizationId, WebhookId};
use hookgate::metrics::Metrics;
use hookgate::mirror::document::DocumentKey;
use hookgate::mirror::{CollectionIndexes, MirroredCollection};
use hookgate::settings::SettingsReader;
use hookgate::triggers::{NodeVerification, TriggerIndex, TriggersSettings, WorkflowCollection};
use mongodb::bson::doc;
use serde_json::{Value, json};
use testkit::Mongo;
use testkit::documents::workflow_of;
use testkit::mongo::{TestDatabase, document};

fn settings(field: &str, default: &str) -> TriggersSettings {
    let text = format!(
        "[endpoints]\nenabled = true\nverification_field = {field:?}\ndefault_verification = {default:?}\n\
         [endpoints.verification.ci]\nscheme = \"none\"\n"
    );
    let mut reader = SettingsReader::new(text.parse().expect("TOML"), std::iter::empty());
    let mut settings = TriggersSettings::read(&mut reader.section("triggers"));
    settings.keep_verifications(&EndpointsSettings::read(&mut reader.section("endpoints")));
    assert_eq!(reader.into_faults(), []);
    settings
}

/// Nodes of all shapes, each with a webhook of its own.
fn nodes() -> Vec<Value> {
    let secret = "a-secret-of-a-sender-0123456789";
    let long = "x".repeat(20_000);
    let with = |id: &str, more: Value| {
        let mut node = node(id, id, &Value::Null);
        let fields = more.as_object().expect("an object").clone();
        node.as_object_mut().expect("an object").extend(fields);
        node
    };
    vec![
        node("n1", "n1", &github(secret)),
        node("n2", "n2", &json!("ci")),
        node("n3", "n3", &json!("$name")),
        node("n4", "n4", &json!([{ "scheme": "none" }])),
        node("n5", "n5", &json!({ "scheme": "none", "status": { "$numberLong": "204" } })),
        node("n6", "n6", &json!({ "scheme": "hmac", "secret": long })),
        node("n7", "n7", &Value::Null),
        with("n8", json!({ "more": { "auth": github(secret) } })),
        with("n9", json!({ "more": [{ "auth": github(secret) }] })),
        with("n10", json!({ "more": [] })),
        with("n11", json!({ "more": "text" })),
        with("n12", json!({ "more": { "auth": { "secret": secret } } })),
        with("n13", json!({ "more": { "auth": false } })),
        json!({ "id": "n14", "type": "WebhookTrigger", "data": { "webhookId": "n14" } }),
    ]
}

/// What is known at every address, and the parts that are skipped.
fn found(settings: &TriggersSettings, workflow: &RawDocumentBuf) -> Vec<String> {
    let index = TriggerIndex::new(settings);
    index.freshness().mark_current(tokio::time::Instant::now());
    let metrics = Metrics::new("", "").expect("metrics");
    let mut indexes = CollectionIndexes::new(WorkflowCollection::new(settings, &index, metrics));
    let record = indexes.collection().read(workflow).expect("a workflow");
    let mut found = vec![format!("{:?}", WorkflowCollection::skipped(&record))];
    let key = DocumentKey::from_document(workflow).expect("an _id");
    indexes.apply(vec![(key, Some(record))]);
    let organization = OrganizationId::new("org_a").expect("an id");
    for number in 1..=nodes().len() {
        let webhook = WebhookId::new(&format!("n{number}")).expect("an id");
        let address = index.address(&organization, &webhook).expect("the index is current");
        let Some(address) = address else { continue };
        let nodes = address.triggers.iter().flat_map(|trigger| &trigger.nodes);
        found.extend(nodes.map(|node| match &node.verification {
            NodeVerification::Described(verification) => {
                let (scheme, status) = (verification.scheme(), verification.status().code());
                format!("{} {scheme} {status} {:?}", node.id, verification.identity().as_bytes())
            }
            other => format!("{} {other:?}", node.id),
        }));
    }
    found
}

async fn projected(database: &TestDatabase, settings: &TriggersSettings) -> RawDocumentBuf {
    let index = TriggerIndex::new(settings);
    let metrics = Metrics::new("", "").expect("metrics");
    let projection = WorkflowCollection::new(settings, &index, metrics).projection();
    let workflows = database.collection("workflows").clone_with_type::<RawDocumentBuf>();
    let mut cursor = workflows
        .aggregate([doc! { "$project": projection }])
        .with_type::<RawDocumentBuf>()
        .await
        .expect("mongod accepts the projection");
    assert!(cursor.advance().await.expect("the cursor continues"), "a document");
    cursor.deserialize_current().expect("a document")
}

#[tokio::test]
async fn a_projected_node_has_the_address_of_the_whole_one() {
    let database = Mongo::shared().await.database().await;
    let workflow = document(workflow_of("wf", "org_a", json!(nodes())));
    let whole = RawDocumentBuf::from_document(&workflow).expect("a document");
    database.workflows().insert_one(workflow).await.expect("inserted");
    for (field, default, addresses) in [
        ("data.verification", "", 6),
        ("data.verification", "ci", 14),
        ("more.auth", "", 5),
        ("more.auth", "ci", 14),
        ("more", "", 6),
    ] {
        let settings = settings(field, default);
        let (whole, projected) =
            (found(&settings, &whole), found(&settings, &projected(&database, &settings).await));
        // A reason differs where an array is in the way: a projection shows only that it is none of
        // what it should be.
        let without_reasons = |found: &[String]| -> Vec<String> {
            let addresses = found.iter().skip(1);
            addresses
                .map(|text| text.split("Malformed").next().unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(without_reasons(&whole), without_reasons(&projected), "{field} {default}");
        assert_eq!(whole.len() - 1, addresses, "{field} {default}: {whole:#?}");
    }
}
