//! Ids of users in a token: hex digits are compared without regard to case, as in an `ObjectId` or
//! a UUID.

use super::{assert_accepted, assert_refused, identity_of, merged, send, with_exp};
use serde_json::{Value, json};
use testkit::documents::user;
use testkit::wait::until;
use testkit::{App, Documents};

const LOWER: &str = "64d2f9c5e8a1d4e001a0b1c3";
const UPPER: &str = "64D2F9C5E8A1D4E001A0B1C4";
const UUID: &str = "0189f7e4-7a2b-7c3d-8e4f-5a6b7c8d9e0f";

fn documents() -> Documents {
    let mut documents = Documents::two_organizations();
    for id in [LOWER, UPPER, UUID] {
        documents.users.push(user(id, "org_b", ""));
    }
    documents.users.push(user("Abc", "org_b", ""));
    documents
}

fn token(user: &str, more: &Value) -> String {
    with_exp(&merged(&json!({ "sub": user }), more))
}

#[tokio::test]
async fn a_users_id_matches_in_upper_case() {
    let app = App::build().documents(documents()).start().await;
    let spellings = [LOWER, UPPER, UUID].into_iter().flat_map(|id| {
        let mixed = id.replacen('e', "E", 1).replacen('A', "a", 1);
        [id.to_owned(), id.to_lowercase(), id.to_uppercase(), mixed].map(|spelling| (id, spelling))
    });
    for (id, spelling) in spellings {
        let identity = identity_of(&app, &token(&spelling, &json!({}))).await;
        assert_eq!(identity, ("org_b".to_owned(), id.to_owned()), "{spelling}");
    }
    // The organization in a token is trusted. The user is named as in its document if it belongs to
    // the organization.
    let claimed = json!({ "organizationId": "org_a" });
    let identity = identity_of(&app, &token(&LOWER.to_uppercase(), &claimed)).await;
    assert_eq!(identity, ("org_a".to_owned(), LOWER.to_owned()));
    let stranger = "F".repeat(24);
    let identity = identity_of(&app, &token(&stranger, &claimed)).await;
    assert_eq!(identity, ("org_a".to_owned(), stranger.clone()));
    for other in ["ABC", "abc", &stranger, &LOWER.replace('c', "C").replace('3', "G")] {
        assert_refused(&send(&app, &token(other, &json!({}))).await, "invalid_token", &other);
    }
}

#[tokio::test]
async fn a_disabled_user_is_refused_in_every_spelling() {
    let mut documents = documents();
    let app = App::build().documents(documents.clone()).start().await;
    let tokens: Vec<String> = [LOWER, UPPER, UUID]
        .into_iter()
        .flat_map(|id| [id.to_lowercase(), id.to_uppercase()])
        .flat_map(|id| {
            [json!({}), json!({ "organizationId": "org_a" })].map(|more| token(&id, &more))
        })
        .collect();
    for token in &tokens {
        assert_accepted(&send(&app, token).await, token);
    }
    for user in &mut documents.users {
        user["enabled"] = json!(false);
    }
    app.replace_documents(&documents);
    for token in &tokens {
        until("the user is disabled", async || send(&app, token).await.status == 401).await;
        assert_refused(&send(&app, token).await, "invalid_token", token);
    }
}

#[tokio::test]
async fn the_organization_of_a_token_decides_which_of_two_users_is_meant() {
    let users = |is_a_on: bool, is_b_on: bool| {
        let mut documents = Documents::two_organizations();
        for (id, organization, enabled) in [
            (json!(42), "org_a", is_a_on),
            (json!("42"), "org_b", is_b_on),
            (json!({ "$oid": LOWER }), "org_a", is_a_on),
            (json!(LOWER), "org_b", is_b_on),
        ] {
            let user = json!({ "_id": id, "organizationId": organization, "enabled": enabled });
            documents.users.push(user);
        }
        documents
    };
    let app = App::build().documents(users(false, true)).start().await;
    let claimed =
        |user: &str, organization: &str| token(user, &json!({ "organizationId": organization }));
    let ids = ["42".to_owned(), LOWER.to_owned(), LOWER.to_uppercase()];
    for id in &ids {
        let reply = send(&app, &claimed(id, "org_a")).await;
        assert_refused(&reply, "invalid_token", id);
        let identity = identity_of(&app, &claimed(id, "org_b")).await;
        assert_eq!(identity, ("org_b".to_owned(), id.to_lowercase()));
        // Without an organization, either user may be meant.
        let reply = send(&app, &token(id, &json!({}))).await;
        assert_refused(&reply, "invalid_token", id);
    }
    let conflicts = app.hookgate.metrics().await.value("hookgate_index_conflicting_user_ids", &[]);
    assert!((conflicts - 2.0).abs() < f64::EPSILON, "{conflicts} ids conflict");
    assert!(app.hookgate.log().contains("users of several organizations have equal ids"));

    app.replace_documents(&users(true, false));
    for id in &ids {
        until("the users are switched", async || {
            send(&app, &claimed(id, "org_b")).await.status == 401
        })
        .await;
        let identity = identity_of(&app, &claimed(id, "org_a")).await;
        assert_eq!(identity, ("org_a".to_owned(), id.to_lowercase()));
    }
}
