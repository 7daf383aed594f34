//! What MongoDB returns of a document becomes what the whole document becomes, with kept fields too.

use bson::{RawDocumentBuf, doc};
use hookgate::ids::{OrganizationId, WebhookId};
use hookgate::metrics::Metrics;
use hookgate::mirror::document::DocumentKey;
use hookgate::mirror::{CollectionIndexes, MirroredCollection};
use hookgate::settings::SettingsReader;
use hookgate::triggers::{
    KeptField, KeptFields, Trigger, TriggerIndex, TriggersSettings, WorkflowCollection,
};
use serde_json::{Value, json};
use testkit::Mongo;
use testkit::mongo::{TestDatabase, document};

/// Nodes of all shapes, at the paths of [`SETTINGS`].
fn nodes() -> Vec<Value> {
    let hook = json!({ "path": "wh", "method": "POST", "long": "x".repeat(1000) });
    vec![
        json!({ "key": { "id": 1 }, "meta": { "kind": "hook", "label": "A" }, "config": { "http": hook } }),
        json!({ "key": { "id": 2 }, "meta": { "kind": "$form" }, "config": { "http": { "path": "wh" } } }),
        json!({ "key": { "id": 3 }, "meta": { "kind": "other" }, "config": { "http": hook } }),
        json!({ "key": { "id": 4 }, "meta": [{ "kind": "hook" }], "config": { "http": hook } }),
        json!({ "key": [{ "id": 5 }], "meta": { "kind": "hook" }, "config": { "http": hook } }),
        json!({ "key": { "id": 6 }, "meta": { "kind": "hook" }, "config": [{ "http": hook }] }),
        json!({ "key": { "id": 7 }, "meta": { "kind": "hook" }, "config": { "http": "text" } }),
        json!({ "key": { "id": 8 }, "meta": { "kind": "hook", "label": [1] }, "config": { "http": { "path": "2" } } }),
        json!({ "key": { "id": 9 }, "meta": { "kind": "hook", "tags": [{ "a": 1 }] }, "config": { "http": { "path": "3" } } }),
        json!(null),
        json!("text"),
        json!([{ "key": { "id": 10 } }]),
    ]
}

fn workflows() -> Vec<RawDocumentBuf> {
    let flow = |id: Value, more: Value| {
        let mut flow = json!({ "_id": id, "org": { "id": 7 }, "graph": { "nodes": nodes() } });
        let fields = more.as_object().expect("an object").clone();
        flow.as_object_mut().expect("an object").extend(fields);
        RawDocumentBuf::from_document(&document(flow)).expect("a document")
    };
    let id = "65f0a1b2c3d4e5f6a7b8c9d1";
    vec![
        flow(
            json!(1),
            json!({ "version": { "$numberLong": "4" }, "owner": { "id": { "$oid": id } } }),
        ),
        flow(
            json!(2),
            json!({ "version": 1.5, "owner": [{ "id": 1 }], "at": { "$date": "2026-01-02T03:04:05Z" } }),
        ),
        flow(json!(3), json!({ "version": null, "owner": "text", "on": "off" })),
        flow(json!(4), json!({ "version": "x".repeat(1025) })),
        flow(json!(5), json!({ "graph": { "nodes": "none" } })),
        flow(json!(6), json!({ "graph": [{ "nodes": [] }] })),
        flow(json!(7), json!({ "org": { "id": 7, "name": "Org \"7\"" }, "on": false })),
        flow(json!(8), json!({ "on": { "is": false } })),
        flow(json!(9), json!({ "on": [{ "is": true }] })),
        flow(json!(10), json!({ "on": { "is": "on" } })),
    ]
}

const SETTINGS: &str = r#"
    [triggers]
    nodes_field = "graph.nodes"
    organization_field = "org.id"
    node_type_field = "meta.kind"
    node_id_field = "key.id"
    webhook_id_field = "config.http.path"
"#;

fn settings(
    active_field: &str,
    types: &[&str],
    workflow: &[&str],
    node: &[&str],
) -> TriggersSettings {
    let text = format!("{SETTINGS}\nactive_field = {active_field:?}\nnode_types = {types:?}\n");
    let mut reader = SettingsReader::new(text.parse().expect("TOML"), std::iter::empty());
    let mut settings = TriggersSettings::read(&mut reader.section("triggers"));
    assert_eq!(reader.into_faults(), []);
    let field = |&path: &&str| KeptField { path: path.to_owned(), is_in_text: false };
    let paths = |paths: &[&str]| paths.iter().map(field).collect();
    settings.keep_fields(KeptFields { workflow: paths(workflow), node: paths(node) });
    settings
}

/// Everything that callers find: workflow, node ids, type, and fields; and what is skipped.
fn found(settings: &TriggersSettings, documents: &[RawDocumentBuf]) -> Vec<String> {
    let index = TriggerIndex::new(settings);
    index.freshness().mark_current(tokio::time::Instant::now());
    let metrics = Metrics::new("", "").expect("metrics");
    let mut indexes = CollectionIndexes::new(WorkflowCollection::new(settings, &index, metrics));
    let mut found = Vec::new();
    for document in documents {
        let key = DocumentKey::from_document(document).expect("an _id");
        match indexes.collection().read(document) {
            Ok(record) => {
                let skipped = WorkflowCollection::skipped(&record);
                found.push(format!(
                    "{key}: {} malformed, {} unset",
                    skipped.malformed, skipped.unconfigured
                ));
                indexes.apply(vec![(key, Some(record))]);
            }
            Err(_) => found.push(format!("{key}: malformed")),
        }
    }
    let organization = OrganizationId::new("7").expect("an id");
    let show = |Trigger { workflow, node_ids, node_type, fields }: Trigger<'_>| {
        let fields: Vec<&str> = (0..).map_while(|number| fields.get(number)).collect();
        format!("{} {node_ids} {node_type} {fields:?}", workflow.as_str())
    };
    for webhook in ["wh", "2", "3"].map(|id| WebhookId::new(id).expect("an id")) {
        let active = index
            .matching(&organization, &webhook, |matches| matches.map(show).collect::<Vec<_>>());
        found.extend(active.expect("the index is current"));
        let inactive = index
            .inactive(&organization, &webhook, |matches| matches.map(show).collect::<Vec<_>>());
        found.extend(inactive.into_iter().map(|each| format!("inactive {each}")));
    }
    found
}

async fn projected(database: &TestDatabase, settings: &TriggersSettings) -> Vec<RawDocumentBuf> {
    let index = TriggerIndex::new(settings);
    let metrics = Metrics::new("", "").expect("metrics");
    let projection = WorkflowCollection::new(settings, &index, metrics).projection();
    let workflows = database.collection("workflows").clone_with_type::<RawDocumentBuf>();
    let pipeline = [doc! { "$sort": { "_id": 1 } }, doc! { "$project": projection }];
    let mut cursor = workflows
        .aggregate(pipeline)
        .with_type::<RawDocumentBuf>()
        .await
        .expect("mongod accepts the projection");
    let mut documents = Vec::new();
    while cursor.advance().await.expect("the cursor continues") {
        documents.push(cursor.deserialize_current().expect("a document"));
    }
    documents
}

#[tokio::test]
async fn a_projected_document_becomes_what_the_whole_one_does() {
    let database = Mongo::shared().await.database().await;
    let whole = workflows();
    let workflows = database.collection("workflows").clone_with_type::<RawDocumentBuf>();
    workflows.insert_many(&whole).await.expect("inserted");
    for (active, types) in [
        ("on", &["hook"][..]),
        ("on", &["hook", "$form"]),
        ("on", &["$form"]),
        ("on.is", &["hook"]),
        ("on.is.not", &["hook"]),
    ] {
        for (of_workflow, of_node) in [
            (&[][..], &[][..]),
            (&["version", "owner.id", "at"], &["meta.label", "config.http.method"]),
            (&["org", "version"], &["meta", "config.http.path", "key"]),
            (&["graph.name", "graph.nodes", "org.name"], &["meta.tags.a", "config", "none.at.all"]),
            (&["graph", "_id", "on", "owner"], &["meta.kind.x", "config.http"]),
        ] {
            let settings = settings(active, types, of_workflow, of_node);
            let expected = found(&settings, &whole);
            let read = projected(&database, &settings).await;
            let case = format!("{active} {types:?} {of_workflow:?} {of_node:?}");
            assert_eq!(found(&settings, &read), expected, "{case}");
        }
    }
}

#[tokio::test]
async fn kept_fields_are_those_of_the_workflow_and_its_first_matching_node() {
    let settings = settings(
        "on",
        &["hook", "$form"],
        &["version", "owner.id", "at"],
        &["meta.label", "config.http.method", "key"],
    );
    let found = found(&settings, &workflows());
    let object_id = "\\\"65f0a1b2c3d4e5f6a7b8c9d1\\\"";
    for line in [
        format!(r#"1 ["1","2"] hook ["4", "{object_id}", "null", "\"A\"", "\"POST\"", "{{\"id\":1}}"]"#),
        r#"2 ["1","2"] hook ["1.5", "null", "\"2026-01-02T03:04:05Z\"", "\"A\"", "\"POST\"", "{\"id\":1}"]"#.to_owned(),
        r#"2 ["8"] hook ["1.5", "null", "\"2026-01-02T03:04:05Z\"", "[1]", "null", "{\"id\":8}"]"#.to_owned(),
        "4: malformed".to_owned(),
        "5: malformed".to_owned(),
    ] {
        assert!(found.contains(&line), "{line} in {found:#?}");
    }
}
