//! Sources of documents: a MongoDB that starts late or dies, a file that is edited and broken.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use mongodb::bson::doc;
use serde_json::json;
use testkit::documents::{trigger, user, workflow};
use testkit::mongo::document;
use testkit::tokens::{claims, now, token};
use testkit::wait::until;
use testkit::{App, Documents, Mongo, mongo, ports};

#[tokio::test]
async fn a_late_mongodb_is_waited_for() {
    let port = ports::free();
    let app = App::build()
        .config(|config| {
            config
                .set("triggers.source", "mongodb")
                .set("mongodb.uri", mongo::uri(port))
                .set("mongodb.database", "late");
        })
        .start_unready()
        .await;
    app.hookgate.unready().await;
    let (_, report) = app.hookgate.readiness().await;
    for part in ["workflows", "users"] {
        assert!(names(&report["reasons"], part), "{report}");
    }
    let without_organization = token(&json!({ "sub": "user_1", "exp": now() + 60 }));
    for credential in ["key_a", &token(&claims("org_a", "user_1")), &without_organization] {
        let reply = app.webhook("wh_1").bearer(credential).send().await;
        reply.assert_rejected(503, "index_unavailable");
        assert_eq!(reply.header("retry-after"), Some("5"));
    }
    app.redis.queue().assert_empty().await;

    let mongo = Mongo::start_on(port).await;
    let database = mongo.database_named("late").await;
    database.insert(&Documents::two_organizations()).await;
    app.hookgate.ready().await;
    until("the key is accepted", async || app.webhook("wh_1").send().await.status == 202).await;
    reaches(&app, "wh_1", 1).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn changes_after_a_restart_of_mongodb_are_followed() {
    let mut mongo = Mongo::start().await;
    let database = mongo.database().await;
    database.insert(&Documents::two_organizations()).await;
    let app = App::build().mongo(&database).start().await;
    for round in 1..=2 {
        mongo.kill9().await;
        let reply = app.webhook("wh_1").send().await;
        assert_eq!(reply.matched(), 1, "a user that was known before still is");
        app.hookgate.ready().await;

        mongo.restart().await;
        let webhook = format!("wh_{round}_again");
        let new = document(workflow(&format!("wf_{round}_again"), "org_a", &webhook));
        database.workflows().insert_one(new).await.expect("inserted");
        reaches(&app, &webhook, 1).await;
        let key = format!("key_{round}_again");
        let new = document(user(&format!("user_{round}_again"), "org_a", &key));
        database.users().insert_one(new).await.expect("inserted");
        until("the new key works", async || {
            app.webhook(&webhook).bearer(&key).send().await.status == 202
        })
        .await;
        let workflows = database.workflows();
        workflows.delete_one(doc! { "nodes.data.webhookId": &webhook }).await.expect("deleted");
        reaches(&app, &webhook, 0).await;
        until("nothing is degraded", async || {
            let (_, report) = app.hookgate.readiness().await;
            !names(&report["degraded"], "workflows") && !names(&report["degraded"], "users")
        })
        .await;
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn an_edited_file_is_followed() {
    let app = App::start().await;
    let mut documents = Documents::two_organizations();
    documents.workflows[0] = workflow("wf_1", "org_a", "wh_2");
    documents.workflows.push(workflow("wf_2", "org_a", "wh_2"));
    documents.users.push(user("user_2", "org_a", "key_2"));
    app.replace_documents(&documents);
    reaches(&app, "wh_2", 2).await;
    reaches(&app, "wh_1", 0).await;
    until("the new key works", async || {
        app.webhook("wh_2").bearer("key_2").send().await.status == 202
    })
    .await;

    // The file is written in place, as editors do.
    documents.workflows[1]["enabled"] = json!(false);
    documents.workflows[2]["organizationId"] = json!("org_b");
    documents.users.pop();
    std::fs::write(app.documents_file(), documents.to_json()).expect("the test's own file");
    reaches(&app, "wh_2", 1).await;
    until("the key is revoked", async || {
        app.webhook("wh_2").bearer("key_2").send().await.status == 401
    })
    .await;
    until("the other organization's workflows have changed", async || {
        let matched = async |webhook| app.webhook(webhook).bearer("key_b").send().await.matched();
        matched("wh_1").await == 0 && matched("wh_2").await == 1
    })
    .await;

    // The users stay in the file; the workflows are removed.
    documents.workflows.clear();
    app.replace_documents(&documents);
    reaches(&app, "wh_2", 0).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_broken_file_keeps_the_last_good_one_in_use() {
    let app = App::start().await;
    // The valid half of a broken file is not used either: here it would leave no user.
    let half_broken = |workflows| json!({ "workflows": workflows, "users": [] }).to_string();
    let texts = ["", "{", "[]", "5"].map(str::to_owned);
    let half_broken = [json!({}), json!(null)].map(half_broken);
    for broken in texts.iter().chain(&half_broken) {
        app.replace_documents_text(broken);
        until(&format!("{broken:?} is reported"), async || {
            // On a busy machine Redis may be degraded too.
            let (_, report) = app.hookgate.readiness().await;
            assert!(!names(&report["reasons"], "workflows"), "{report}");
            names(&report["degraded"], "workflows")
        })
        .await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{broken:?}");

        app.replace_documents(&Documents::two_organizations());
        until("the file is fixed", async || {
            let (_, report) = app.hookgate.readiness().await;
            !names(&report["degraded"], "workflows") && !names(&report["degraded"], "users")
        })
        .await;
    }
    std::fs::remove_file(app.documents_file()).expect("the test's own file");
    until("its absence is reported", async || {
        names(&app.hookgate.readiness().await.1["degraded"], "workflows")
    })
    .await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);

    let mut documents = Documents::two_organizations();
    documents.workflows.push(workflow("wf_2", "org_a", "wh_1"));
    app.replace_documents(&documents);
    reaches(&app, "wh_1", 2).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn an_invalid_document_in_a_file_affects_no_other() {
    let app = App::start().await;
    let mut documents = Documents::two_organizations();
    documents.workflows.push(workflow("wf_2", "org_a", "wh_1"));
    documents.workflows.extend([
        json!(5),
        json!({ "organizationId": "org_a", "nodes": [] }),
        json!({ "_id": { "$oid": "no" }, "organizationId": "org_a", "nodes": [] }),
    ]);
    app.replace_documents(&documents);
    reaches(&app, "wh_1", 2).await;
    let skipped = app.hookgate.metrics().await;
    let of_workflows = [("collection", "workflows")];
    assert_eq!(skipped.value("hookgate_index_skipped_documents_total", &of_workflows), 3.0);
}

#[tokio::test]
async fn the_last_of_two_documents_with_one_id_counts() {
    let app = App::start().await;
    let good = workflow("wf_1", "org_a", "wh_twice");
    let malformed = json!({ "_id": "wf_1", "organizationId": "org_a", "nodes": "none" });
    let mark = |webhook: &str| workflow("wf_mark", "org_a", webhook);
    let mut documents = Documents::two_organizations();
    documents.workflows = vec![malformed.clone(), good.clone(), mark("wh_good_last")];
    app.replace_documents(&documents);
    reaches(&app, "wh_good_last", 1).await;
    // A load is swapped in shard by shard.
    reaches(&app, "wh_twice", 1).await;
    documents.workflows = vec![good, malformed, mark("wh_malformed_last")];
    app.replace_documents(&documents);
    reaches(&app, "wh_malformed_last", 1).await;
    reaches(&app, "wh_twice", 0).await;
}

#[tokio::test]
async fn a_file_broken_at_the_start_is_waited_for() {
    let app = App::start().await;
    let mut config = app.hookgate.config.clone();
    let file = app.documents_file();
    std::fs::write(&file, "{").expect("the test's own file");
    config.set("server.listen", format!("127.0.0.1:{}", ports::free()));
    config.set("admin.listen", format!("127.0.0.1:{}", ports::free()));
    let other = testkit::Hookgate::start_unready(config).await;
    other.unready().await;
    let caller = testkit::Caller::new(other.address());
    caller.webhook("wh_1").send().await.assert_rejected(503, "index_unavailable");

    app.replace_documents(&Documents::two_organizations());
    other.ready().await;
    assert_eq!(caller.webhook("wh_1").send().await.matched(), 1);
}

#[tokio::test]
async fn a_file_may_hold_object_ids_and_malformed_documents() {
    let organization = "65f0a1b2c3d4e5f6a7b8c9d0";
    let flow = "65f0a1b2c3d4e5f6a7b8c9d1";
    let caller = "65f0a1b2c3d4e5f6a7b8c9d2";
    let documents = Documents {
        workflows: vec![
            json!({ "_id": "bad_1", "organizationId": { "$oid": organization }, "nodes": "text" }),
            json!({ "_id": "bad_2", "nodes": [trigger("n1", "wh_1")] }),
            json!({ "_id": 5.5, "organizationId": organization, "nodes": [trigger("n1", "wh_1")] }),
            json!({ "_id": { "$oid": flow }, "organizationId": { "$oid": organization },
                "nodes": [1, null, trigger("n1", "wh_1")] }),
        ],
        users: vec![
            json!({ "_id": "bad_3", "organizationId": organization, "apiKey": 5 }),
            json!({ "_id": { "$oid": caller }, "organizationId": organization, "apiKey": "key_a" }),
        ],
    };
    let app = App::build().documents(documents).start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let job = app.redis.queue().only_job().await;
    assert_eq!(job.at("/workflowId"), flow);
    assert_eq!(job.at("/organizationId"), organization);
    assert_eq!(job.at("/userId"), caller);
    let metrics = app.hookgate.metrics().await;
    for (collection, count) in [("workflows", 3.0), ("users", 0.0)] {
        let skipped =
            metrics.value("hookgate_index_skipped_documents_total", &[("collection", collection)]);
        assert_eq!(skipped, count, "{collection}");
    }
    // Only the malformed key is skipped, not its user.
    assert_eq!(metrics.value("hookgate_index_skipped_api_keys_total", &[]), 1.0);
    let log = app.hookgate.log();
    for id in ["bad_1", "bad_2", "bad_3"] {
        assert_eq!(log.lines().filter(|line| line.contains(id)).count(), 1, "{id}");
    }
}

#[tokio::test]
async fn the_field_names_apply_to_a_file_too() {
    let workflows = json!([
        { "_id": "wf_1", "tenant": "org_a", "graph": { "nodes": [trigger("n1", "wh_1")] }, "enabled": false },
        { "_id": "wf_2", "tenant": "org_a", "graph": "text" },
    ]);
    let users = json!([{ "_id": "user_1", "tenant": "org_a", "access": { "keys": ["key_a"] } }]);
    let app = App::with(|config| {
        config
            .set("triggers.nodes_field", "graph.nodes")
            .set("triggers.organization_field", "tenant")
            .set("triggers.active_field", "")
            .set("users.organization_field", "tenant")
            .set("users.api_key_field", "access.keys");
    })
    .await;
    app.replace_documents_text(&json!({ "workflows": workflows, "users": users }).to_string());
    until("the key is accepted", async || app.webhook("wh_1").send().await.status == 202).await;
    reaches(&app, "wh_1", 1).await;
}

/// Waits for this number of matches with `key_a`.
async fn reaches(app: &App, webhook: &str, count: u64) {
    until(&format!("{webhook} matches {count}"), async || {
        app.webhook(webhook).send().await.has_matched(count)
    })
    .await;
}

/// Whether a list of `/readyz` names this part.
fn names(list: &serde_json::Value, part: &str) -> bool {
    let notes = list.as_array().expect("a list").iter();
    notes.filter_map(serde_json::Value::as_str).any(|note| note.starts_with(part))
}
