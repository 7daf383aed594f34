//! What `check --connect` makes of the first documents, and the paths that it does not find.

use super::{base, configuration};
use serde_json::{Value, json};
use testkit::hookgate::{check, check_connect};
use testkit::scratch::Scratch;
use testkit::{Config, Documents, Mongo, Redis};
use toml::Value as Setting;

/// The documents of an engine with a graph.
fn graph() -> Documents {
    let node = |kind: &str| json!({ "key": "n1", "kind": kind, "config": { "path": "wh_1" } });
    let flow = |id: &str| {
        let nodes = json!([node("hook"), node("hook"), node("mail")]);
        json!({ "_id": id, "nodes": nodes, "edges": [], "name": "A", "owner": { "org": 1 }, "state": "on" })
    };
    let member = |id: i32| json!({ "_id": id, "org": 1, "keys": [{ "hash": "a-secret-key" }, { "hash": "b-secret-key" }] });
    Documents { workflows: vec![flow("w1"), flow("w2")], users: vec![member(1), member(2)] }
}

/// The settings that fit these documents.
const FITTING: [(&str, &str); 8] = [
    ("triggers.organization_field", "owner.org"),
    ("triggers.active_field", "state"),
    ("triggers.node_type_field", "kind"),
    ("triggers.node_id_field", "key"),
    ("triggers.webhook_id_field", "config.path"),
    ("users.organization_field", "org"),
    ("users.active_field", ""),
    ("users.api_key_field", "keys.hash"),
];

fn fitting(config: &mut Config) {
    for (key, path) in FITTING {
        config.set(key, path);
    }
    config.set("triggers.active_values", vec!["on"]).set("triggers.node_types", vec!["hook"]);
}

#[tokio::test]
async fn what_is_found_is_counted_with_its_paths() {
    let (redis, database) = (Redis::start().await, Mongo::shared().await.database().await);
    database.insert(&graph()).await;
    let directory = Scratch::new("shapes");
    let file = directory.write("workflows.json", graph().to_json());
    let mut from_file = base(&redis);
    from_file.set("triggers.source", "file").set("triggers.file", file.to_str().expect("UTF-8"));
    for (mut config, part) in
        [(configuration(&database, &redis), "mongodb"), (from_file, "triggers_file")]
    {
        fitting(&mut config);
        let (code, report) = check_connect(&config).await;
        assert_eq!(code, 0, "{report}");
        let found = &report[part];
        let workflows = "2 triggers in 2 documents, from nodes where kind is hook, by config.path and key; 2 on and 0 off by state";
        assert_eq!(found["workflows"]["first_documents"], workflows);
        assert_eq!(found["users"]["first_documents"], "4 API keys in 2 documents, from keys.hash");
        for collection in ["workflows", "users"] {
            assert_eq!(found[collection]["paths_not_found"], json!([]), "{report}");
        }
        assert_eq!(found["warnings"], json!([]), "{report}");
    }
}

/// A setting each that does not fit these documents, and what is said about it.
fn wrong_paths() -> [(&'static str, Setting, &'static str, String); 11] {
    let flows = "nodes, edges, name, owner, state";
    [
        (
            "triggers.nodes_field",
            "graph.nodes".into(),
            "workflows",
            format!("no document has graph.nodes; they have {flows}"),
        ),
        (
            "triggers.organization_field",
            "tenant".into(),
            "workflows",
            format!("no document has tenant; they have {flows}"),
        ),
        (
            "triggers.organization_field",
            "owner.id".into(),
            "workflows",
            "no document has owner.id; in their owner, they have org".into(),
        ),
        (
            "triggers.active_field",
            "live".into(),
            "workflows",
            format!("no document has live; they have {flows}"),
        ),
        (
            "triggers.node_type_field",
            "type".into(),
            "workflows",
            "no node has type; they have key, kind, config".into(),
        ),
        (
            "triggers.node_types",
            vec!["Webhook", "Form"].into(),
            "workflows",
            "no node has a kind of Form or Webhook; they have hook, mail".into(),
        ),
        (
            "triggers.webhook_id_field",
            "config.hook.path".into(),
            "workflows",
            "no trigger node has config.hook.path; in their config, they have path".into(),
        ),
        (
            "triggers.node_id_field",
            "id".into(),
            "workflows",
            "no trigger node has id; they have key, kind, config".into(),
        ),
        (
            "users.organization_field",
            "tenant".into(),
            "users",
            "no document has tenant; they have org, keys".into(),
        ),
        (
            "users.api_key_field",
            "keys.digest".into(),
            "users",
            "no document has keys.digest; in their keys, they have hash".into(),
        ),
        (
            "users.active_field",
            "state".into(),
            "users",
            "no document has state; they have org, keys".into(),
        ),
    ]
}

/// `[queue.data]` with this placeholder.
fn template(placeholder: &str) -> Setting {
    let table: toml::Table =
        format!("id = \"{{workflowId}}\"\nname = \"{{workflow.name}}\"\na = \"{placeholder}\"")
            .parse()
            .expect("TOML");
    table.into()
}

/// Likewise: values of a switch, and placeholders.
fn wrong_values() -> [(&'static str, Setting, &'static str, String); 4] {
    let flows = "nodes, edges, name, owner, state";
    [
        (
            "triggers.active_values",
            vec!["On", "live"].into(),
            "workflows",
            "no document has a state of \"On\" or \"live\"; they have \"on\"".into(),
        ),
        (
            "queue.data",
            template("{workflow.owner.reb}"),
            "workflows",
            "no document has owner.reb; in their owner, they have org".into(),
        ),
        (
            "queue.data",
            template("v{workflow.reb}"),
            "workflows",
            format!("no document has reb; they have {flows}"),
        ),
        (
            "queue.data",
            template("{node.config.label}"),
            "workflows",
            "no trigger node has config.label; in their config, they have path".into(),
        ),
    ]
}

#[tokio::test]
async fn each_path_that_leads_nowhere_is_named_with_what_is_there_instead() {
    let (redis, database) = (Redis::start().await, Mongo::shared().await.database().await);
    database.insert(&graph()).await;
    for (key, value, collection, sentence) in wrong_paths().into_iter().chain(wrong_values()) {
        let mut config = configuration(&database, &redis);
        fitting(&mut config);
        config.set(key, value);
        let (code, report) = check_connect(&config).await;
        assert_eq!(code, 0, "{report}");
        assert_eq!(report["mongodb"][collection]["paths_not_found"], json!([sentence]), "{key}");
        let warning = json!(format!("collection {collection}: {sentence}"));
        let warnings = report["mongodb"]["warnings"].as_array().expect("a list");
        assert!(warnings.contains(&warning), "{key}: {warnings:?}");
        let text = String::from_utf8(check(&config, &["--connect"]).await.stdout).expect("UTF-8");
        assert!(text.contains(&sentence) && !text.contains("secret-key"), "{text}");
    }
}

#[tokio::test]
async fn a_switch_that_turns_all_documents_off_is_a_warning() {
    let (redis, database) = (Redis::start().await, Mongo::shared().await.database().await);
    let mut documents = graph();
    documents.workflows[0]["state"] = "LIVE".into();
    documents.workflows[1]["state"] = "DRAFT".into();
    for (user, level) in documents.users.iter_mut().zip([json!(7), json!("x".repeat(40))]) {
        user["level"] = level;
    }
    database.insert(&documents).await;
    let mut config = configuration(&database, &redis);
    fitting(&mut config);
    config.set("triggers.active_values", vec!["live", "on"]);
    config.set("users.active_field", "level");
    let report = check_connect(&config).await.1;
    let found = &report["mongodb"];
    for (collection, count, sentence) in [
        (
            "workflows",
            "0 on and 2 off by state",
            r#"no document has a state of "live" or "on"; they have "LIVE", "DRAFT""#,
        ),
        (
            "users",
            "0 on and 0 off by level",
            "no document has a level of true; they have 7, a long string",
        ),
    ] {
        let summary = found[collection]["first_documents"].as_str().expect("text");
        assert!(summary.ends_with(count), "{summary}");
        let warning = json!(format!("collection {collection}: {sentence}"));
        assert!(found["warnings"].as_array().expect("a list").contains(&warning), "{found}");
    }
    config.set("triggers.active_values", vec!["LIVE"]).set("users.active_values", vec![7]);
    let report = check_connect(&config).await.1;
    assert_eq!(report["mongodb"]["warnings"], json!([]), "{report}");
    let summary = report["mongodb"]["workflows"]["first_documents"].as_str().expect("text");
    assert!(summary.ends_with("1 on and 1 off by state"), "{summary}");
}

#[tokio::test]
async fn a_field_that_need_not_be_there_is_no_warning() {
    let (redis, database) = (Redis::start().await, Mongo::shared().await.database().await);
    let mut documents = Documents::two_organizations();
    for each in documents.workflows.iter_mut().chain(&mut documents.users) {
        let fields = each.as_object_mut().expect("an object");
        fields.remove("enabled");
        fields.remove("apiKey");
    }
    database.insert(&documents).await;
    let (_, report) = check_connect(&configuration(&database, &redis)).await;
    let found = &report["mongodb"];
    let not_found = |collection: &str| found[collection]["paths_not_found"].clone();
    let flows = "no document has enabled; they have organizationId, nodes";
    assert_eq!(not_found("workflows"), json!([flows]));
    let users = ["apiKey", "enabled"]
        .map(|path| format!("no document has {path}; they have organizationId"));
    assert_eq!(not_found("users"), json!(users));
    assert_eq!(found["warnings"], json!([]), "{report}");
}

#[tokio::test]
async fn only_documents_that_match_the_filter_are_looked_at() {
    let (redis, database) = (Redis::start().await, Mongo::shared().await.database().await);
    let mut documents = Documents::two_organizations();
    let other = json!({ "_id": 1, "kind": "template", "nodes": 5 });
    documents.workflows.extend((2..150).map(|id| {
        let mut other = other.clone();
        other["_id"] = Value::from(id);
        other
    }));
    database.insert(&documents).await;
    let mut config = configuration(&database, &redis);
    config.set("triggers.filter", r#"{"kind": {"$exists": false}}"#);
    let (_, report) = check_connect(&config).await;
    let found = &report["mongodb"];
    assert_eq!(
        (&found["workflows"]["documents"], &found["workflows"]["skipped"]),
        (&json!(2), &json!(0))
    );
    assert!(
        found["workflows"]["first_documents"]
            .as_str()
            .expect("text")
            .starts_with("2 triggers in 2 ")
    );

    config.set("triggers.filter", r#"{"kind": "flow"}"#);
    let (_, report) = check_connect(&config).await;
    let warning = "no document of collection workflows matches its filter";
    assert_eq!(report["mongodb"]["warnings"], json!([warning]), "{report}");

    // The database knows which operators there are.
    config.set("triggers.filter", r#"{"kind": {"$like": "flow"}}"#);
    let (code, report) = check_connect(&config).await;
    assert_eq!(code, 1, "{report}");
    assert!(report["mongodb"]["faults"].to_string().contains("$like"), "{report}");
}
