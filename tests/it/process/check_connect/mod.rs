//! `hookgate check --connect`: its report on MongoDB and Redis, for people and for scripts.

mod rights;

mod redis_server;

mod reasons;

mod shapes;

use mongodb::bson::doc;
use serde_json::{Value, json};
use testkit::documents::user;
use testkit::hookgate::{check, check_connect};
use testkit::mongo::{Mongo, TestDatabase};
use testkit::scratch::Scratch;
use testkit::{Config, Documents, Redis, mongo, ports};

#[tokio::test]
async fn check_reports_documents_and_what_is_left_out() {
    let redis = Redis::start_durable().await;
    let database = Mongo::shared().await.database().await;
    database.insert(&Documents::two_organizations()).await;
    let broken = doc! { "_id": "wf_broken", "organizationId": "org_a", "nodes": "none" };
    let nodes = [
        doc! { "id": "n1", "type": "WebhookTrigger", "data": {} },
        doc! { "type": "WebhookTrigger", "data": { "webhookId": "w" } },
    ];
    let half_made = doc! { "_id": "wf_new", "organizationId": "org_a", "nodes": nodes.to_vec() };
    database.workflows().insert_many([broken, half_made]).await.expect("inserted");
    let odd = doc! { "_id": "user_odd", "organizationId": "org_a", "apiKey": [5, "key_c"] };
    database.users().insert_one(odd).await.expect("inserted");
    let config = configuration(&database, &redis);
    let (code, report) = check_connect(&config).await;
    assert_eq!((code, &report["ok"]), (0, &json!(true)), "{report}");
    let found = &report["mongodb"];
    assert_eq!(found["version"], "6.0.5");
    assert_eq!(found["replica_set"], "rs0");
    assert_eq!(found["database"], database.name());
    let workflows = json!({
        "collection": "workflows", "exists": true, "documents": 4, "skipped": 1,
        "reasons": ["wf_broken: nodes is not an array"],
        "first_documents": "2 triggers in 4 documents, from nodes where type is WebhookTrigger, by data.webhookId and id; 4 on and 0 off by enabled",
        "paths_not_found": [],
        "skipped_nodes": 1, "skipped_nodes_reasons": ["wf_new, trigger node no. 2: id is missing"],
        "unconfigured_nodes": 1, "unconfigured_nodes_names": ["wf_new, node n1"],
    });
    assert_eq!(found["workflows"], workflows);
    let users = json!({
        "collection": "users", "exists": true, "documents": 3, "skipped": 0, "reasons": [],
        "first_documents": "3 API keys in 3 documents, from apiKey; 3 on and 0 off by enabled", "paths_not_found": [],
        "skipped_api_keys": 1,
        "skipped_api_keys_reasons": ["user_odd, API key no. 1: apiKey is not a string"],
    });
    assert_eq!(found["users"], users);
    let warnings = json!([
        "1 document of collection workflows is skipped",
        "1 trigger node of collection workflows is skipped",
        "1 API key of collection users is skipped",
    ]);
    assert_eq!(found["warnings"], warnings);

    let output = check(&config, &["--connect"]).await;
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    for line in [
        "  version                6.0.5",
        "  replica_set            rs0",
        "  workflows.documents    4",
        "  workflows.reasons      wf_broken: nodes is not an array",
        "  users.skipped          0",
        "  warning:               1 document of collection workflows is skipped",
        "  append_only_file       yes",
        "  missing_rights         none",
    ] {
        assert!(text.lines().any(|each| each == line), "{line} in:\n{text}");
    }
}

#[tokio::test]
async fn every_key_of_the_report_is_documented() {
    let redis = Redis::start().await;
    let database = Mongo::shared().await.database().await;
    let (_, report) = check_connect(&configuration(&database, &redis)).await;
    let page = include_str!("../../../../docs/reference/cli.md");
    let mut keys = Vec::new();
    collect(&report, &mut keys);
    assert!(keys.len() > 30, "{keys:?}");
    for key in keys {
        assert!(page.contains(&format!("`{key}`")), "{key} is not documented");
    }
}

#[tokio::test]
async fn a_missing_collection_is_reported() {
    let redis = Redis::start().await;
    let database = Mongo::shared().await.database().await;
    let (code, report) = check_connect(&configuration(&database, &redis)).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["mongodb"]["workflows"]["exists"], false);
    assert!(report["mongodb"]["warnings"].to_string().contains("workflows does not exist"));
}

#[tokio::test]
async fn a_standalone_server_is_reported() {
    let (redis, port) = (Redis::start().await, ports::free());
    let _mongo = Mongo::start_standalone(port).await;
    let mut config = base(&redis);
    config.set("mongodb.uri", format!("mongodb://127.0.0.1:{port}/?directConnection=true"));
    let (code, report) = check_connect(&config).await;
    assert_eq!((code, &report["ok"]), (1, &json!(false)), "{report}");
    assert_eq!(report["mongodb"]["replica_set"], "none");
    assert!(report["mongodb"]["faults"].to_string().contains("--replSet"), "{report}");
}

#[tokio::test]
async fn unreachable_servers_are_reported_with_their_address() {
    let (mongo, redis) = (ports::free(), ports::free());
    let mut config = Config::new();
    config.set("triggers.source", "mongodb").set("mongodb.uri", mongo::uri(mongo));
    config.set("queue.redis", format!("redis://:a-long-password@127.0.0.1:{redis}/0"));
    let (code, report) = check_connect(&config).await;
    assert_eq!(code, 1, "{report}");
    for (part, port, fault) in [
        (
            "mongodb",
            mongo,
            format!(
                "cannot be used: no primary can be reached: 127.0.0.1:{mongo}: Connection refused"
            ),
        ),
        ("redis", redis, "does not answer: Connection refused".to_owned()),
    ] {
        assert_eq!(report[part]["server"], format!("127.0.0.1:{port}"));
        assert_eq!(report[part]["faults"], json!([fault]));
    }
    assert!(!report.to_string().contains("a-long-password"), "{report}");
}

#[tokio::test]
async fn configuration_faults_are_reported_as_json_too() {
    let mut config = Config::new();
    config.set("server.workers", -1).set("server.body_timeout", "1ms").set("surplus", 1);
    let (code, report) = check_connect(&config).await;
    assert_eq!((code, &report["ok"]), (2, &json!(false)));
    let faults = report["faults"].as_array().expect("a list");
    let keys: Vec<&Value> = faults.iter().map(|fault| &fault["key"]).collect();
    assert_eq!(keys, ["server.body_timeout", "server.workers", "surplus"]);
    assert_eq!(faults[0]["message"], "1ms is not between 100ms and 10m");
    assert_eq!(report["redis"], Value::Null, "no server is contacted");
}

#[tokio::test]
async fn a_file_is_checked_like_a_database() {
    let redis = Redis::start().await;
    let directory = Scratch::new("check");
    let mut documents = Documents::two_organizations();
    documents.workflows.push(json!({ "_id": "wf_broken", "organizationId": "o", "nodes": 1 }));
    documents.users.push(user("user_2", "org_b", "key_a"));
    documents.users.push(json!({ "_id": 42, "organizationId": "org_a" }));
    documents.users.push(json!({ "_id": "42", "organizationId": "org_b" }));
    let file = directory.write("workflows.json", documents.to_json());
    let mut config = Config::new();
    config.set("queue.redis", redis.url()).set("auth.jwt.secrets", vec!["short"]);
    config.set("triggers.file", file.to_str().expect("a path in UTF-8"));
    let (code, report) = check_connect(&config).await;
    assert_eq!((code, &report["mongodb"]), (0, &Value::Null), "{report}");
    let found = &report["triggers_file"];
    assert_eq!(found["workflows"]["skipped"], 1);
    assert_eq!(found["workflows"]["reasons"], json!(["wf_broken: nodes is not an array"]));
    let warnings = json!([
        "1 document of collection workflows is skipped",
        "API keys that belong to users of several organizations are refused: 1, such as those of user_1, user_2",
        "ids that users of several organizations have: 1, such as 42; a token with such an id is refused unless it names an organization",
    ]);
    assert_eq!(found["warnings"], warnings);
    assert!(report["warnings"][0].as_str().is_some_and(|text| text.contains("32 bytes")));

    directory.write("workflows.json", "{\"users\":[]}");
    let (_, report) = check_connect(&config).await;
    assert_eq!(report["triggers_file"]["workflows"]["exists"], false);
    directory.write("workflows.json", "{");
    let (code, report) = check_connect(&config).await;
    assert_eq!(
        (code, &report["triggers_file"]["faults"][0]),
        (1, &json!("not JSON: EOF while parsing an object at line 1 column 1"))
    );
    std::fs::remove_file(file).expect("the file existed");
    let (code, report) = check_connect(&config).await;
    assert_eq!(code, 1);
    assert!(report["triggers_file"]["faults"].to_string().contains("cannot be read"), "{report}");
}

fn base(redis: &Redis) -> Config {
    let mut config = Config::new();
    config.set("triggers.source", "mongodb").set("queue.redis", redis.url());
    config
}

fn configuration(database: &TestDatabase, redis: &Redis) -> Config {
    let mut config = base(redis);
    config.set("mongodb.uri", database.uri()).set("mongodb.database", database.name());
    config
}

fn collect(value: &Value, keys: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        keys.push(key.clone());
        collect(value, keys);
    }
}
