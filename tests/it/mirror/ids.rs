//! Ids of every kind: in documents, in tokens and of the owners of API keys.

use serde_json::{Value, json};
use testkit::documents::{trigger, user};
use testkit::tokens::{now, token};
use testkit::{App, Documents, Mongo, confidential};

const OBJECT_ID: &str = "65f0a1b2c3d4e5f6a7b8c9d0";
const UUID: &str = "0189f7e4-7a2b-7c3d-8e4f-5a6b7c8d9e0f";

/// An id as documents have it, its text form, and how tokens may claim it.
fn ids() -> Vec<(Value, &'static str, Vec<Value>)> {
    let upper = |id: &str| json!(id.to_uppercase());
    vec![
        (json!("Org-1"), "Org-1", vec![json!("Org-1")]),
        (json!({ "$oid": OBJECT_ID }), OBJECT_ID, vec![json!(OBJECT_ID), upper(OBJECT_ID)]),
        (json!(42), "42", vec![json!(42), json!("42"), json!(42.0)]),
        (
            json!({ "$numberLong": "9007199254740993" }),
            "9007199254740993",
            vec![json!(9_007_199_254_740_993_i64), json!("9007199254740993")],
        ),
        (json!({ "$numberDouble": "-7.0" }), "-7", vec![json!(-7), json!("-7")]),
        (json!({ "$uuid": UUID }), UUID, vec![json!(UUID), upper(UUID)]),
    ]
}

/// A workflow and a user whose organization, user, workflow and node all have this id.
fn documents(id: &Value) -> Documents {
    let node = json!({ "id": id, "type": "WebhookTrigger", "data": { "webhookId": "wh_1" } });
    let workflow = json!({ "_id": id, "organizationId": id, "nodes": [node] });
    confidential::credential("key_a");
    let owner = json!({ "_id": id, "organizationId": id, "apiKey": "key_a" });
    Documents { workflows: vec![workflow], users: vec![owner] }
}

#[tokio::test]
async fn ids_of_every_kind_are_matched_and_reach_jobs_as_text() {
    for (id, text, claims) in ids() {
        let database = Mongo::shared().await.database().await;
        database.insert(&documents(&id)).await;
        for build in [App::build().mongo(&database), App::build().documents(documents(&id))] {
            let app = build.start().await;
            let own = claims.iter().flat_map(|claim| {
                let exp = now() + 60;
                [
                    json!({ "sub": claim, "organizationId": claim, "exp": exp }),
                    json!({ "sub": claim, "exp": exp }),
                ]
            });
            let credentials = own.map(|claims| token(&claims)).chain(["key_a".to_owned()]);
            for credential in credentials {
                let reply = app.webhook("wh_1").bearer(&credential).send().await;
                assert_eq!(reply.matched(), 1, "{id} {credential}");
                let data = app.redis.queue().only_job().await.data();
                for pointer in ["/workflowId", "/organizationId", "/userId", "/trigger/nodeIds/0"] {
                    assert_eq!(data.pointer(pointer), Some(&json!(text)), "{id} {pointer}");
                }
                app.redis.queue().remove_jobs().await;
            }
            // A claimed organization is trusted, and a user that is not known keeps its name.
            for claim in &claims {
                let claims =
                    json!({ "sub": "stranger", "organizationId": claim, "exp": now() + 60 });
                let reply = app.webhook("wh_1").bearer(&token(&claims)).send().await;
                assert_eq!(reply.matched(), 1, "{id}");
                let data = app.redis.queue().only_job().await.data();
                let ids = (data.pointer("/organizationId"), data.pointer("/userId"));
                assert_eq!(ids, (Some(&json!(text)), Some(&json!("stranger"))), "{claim}");
                app.redis.queue().remove_jobs().await;
            }
        }
    }
}

#[tokio::test]
async fn one_organization_may_be_written_in_several_kinds() {
    let flow = |id: &str, organization: Value| json!({ "_id": id, "organizationId": organization, "nodes": [trigger("n1", "wh_1")] });
    let workflows = vec![
        flow("integer", json!(42)),
        flow("long", json!({ "$numberLong": "42" })),
        flow("double", json!({ "$numberDouble": "42.0" })),
        flow("text", json!("42")),
        flow("other", json!("042")),
        flow("object_id", json!({ "$oid": OBJECT_ID })),
        flow("hex", json!(OBJECT_ID.to_uppercase())),
        flow("uuid", json!({ "$uuid": UUID })),
        flow("uuid_text", json!(UUID.to_uppercase())),
    ];
    // Two users of one organization may share a key, however their documents write it.
    let mut users = Vec::new();
    for (index, organization) in
        [json!(42), json!("42"), json!({ "$oid": OBJECT_ID }), json!(OBJECT_ID.to_uppercase())]
            .into_iter()
            .enumerate()
    {
        let mut user = user(&format!("user_{index}"), "", ["key_a", "key_b"][index / 2]);
        user["organizationId"] = organization;
        users.push(user);
    }
    let app = App::build().documents(Documents { workflows, users }).start().await;
    for (key, matched) in [("key_a", 4), ("key_b", 2)] {
        assert_eq!(app.webhook("wh_1").bearer(key).send().await.matched(), matched, "{key}");
    }
    for (claim, matched) in [
        (json!(42), 4),
        (json!("42"), 4),
        (json!("042"), 1),
        (json!(OBJECT_ID), 2),
        (json!(OBJECT_ID.to_uppercase()), 2),
        (json!(UUID.to_uppercase()), 2),
    ] {
        let token = token(&json!({ "sub": "someone", "organizationId": claim, "exp": now() + 60 }));
        assert_eq!(app.webhook("wh_1").bearer(&token).send().await.matched(), matched, "{claim}");
    }
    // The same key of idempotency means the same request, however the organization is spelled.
    for (claim, replayed) in
        [(json!(OBJECT_ID), None), (json!(OBJECT_ID.to_uppercase()), Some("true"))]
    {
        let token = token(&json!({ "sub": "someone", "organizationId": claim, "exp": now() + 60 }));
        let call = app.webhook("wh_1").bearer(&token).header("idempotency-key", "once");
        assert_eq!(call.send().await.header("idempotency-replayed"), replayed);
    }
}

#[tokio::test]
async fn values_that_are_no_ids_are_malformed() {
    for id in [
        json!(1.5),
        json!({ "$numberDouble": "9007199254740992" }),
        json!({ "$binary": { "base64": "AAAAAAAAAAAAAAAAAAAAAA==", "subType": "03" } }),
        json!({ "$date": "2026-01-01T00:00:00Z" }),
        json!({ "$numberDecimal": "42" }),
        json!(true),
    ] {
        let database = Mongo::shared().await.database().await;
        let mut documents = Documents::two_organizations();
        let node = trigger("n1", "wh_1");
        documents.workflows.push(json!({ "_id": id, "organizationId": "org_a", "nodes": [node] }));
        documents.workflows.push(json!({ "_id": "wf_bad", "organizationId": id, "nodes": [node] }));
        documents.users.push(json!({ "_id": id, "organizationId": "org_a" }));
        documents.users.push(json!({ "_id": "user_bad", "organizationId": id }));
        // The last document written may be read twice.
        documents.users.push(json!({ "_id": "user_last", "organizationId": "org_a" }));
        database.insert(&documents).await;
        let app = App::build().mongo(&database).start().await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{id}");
        for collection in ["workflows", "users"] {
            let name = "hookgate_index_skipped_documents_total";
            let labels = [("collection", collection)];
            let skipped = app.hookgate.metrics().await.value(name, &labels);
            assert!((skipped - 2.0).abs() < 0.5, "{id} {collection} {skipped}");
        }
    }
}
