//! A token that was verified before is remembered, and looked at all the same.

use super::{assert_refused, assert_taken, changed, send, speaks_for, with_exp};
use serde_json::json;
use testkit::tokens::{claims, now};
use testkit::wait::until;
use testkit::{App, Documents};

#[tokio::test]
async fn it_expires_in_its_time() {
    let app = App::with(|config| {
        config.set("auth.jwt.leeway", "0s");
    })
    .await;
    let token = changed(&json!({ "exp": now() + 3 }));
    assert_taken(&send(&app, &token).await, &"before");
    until("it has expired", async || send(&app, &token).await.status == 401).await;
    assert_refused(&send(&app, &token).await, "expired_token", &"behind");
}

#[tokio::test]
async fn its_user_can_move_and_be_switched_off() {
    let mut documents = Documents::two_organizations();
    let app = App::build().documents(documents.clone()).start().await;
    let of_user = with_exp(&json!({ "sub": "user_1" }));
    let of_organization = with_exp(&json!({ "sub": "user_1", "organizationId": "org_a" }));
    let organization = async || speaks_for(&app, &of_user).await.0;
    assert_eq!(organization().await, "org_a");
    assert_taken(&send(&app, &of_organization).await, &"on");

    documents.users[0]["organizationId"] = json!("org_b");
    app.replace_documents(&documents);
    until("the user has moved", async || organization().await == "org_b").await;

    documents.users[0]["enabled"] = json!(false);
    app.replace_documents(&documents);
    until("the user is off", async || send(&app, &of_user).await.status == 401).await;
    for token in [of_user, of_organization] {
        assert_refused(&send(&app, &token).await, "invalid_token", &"off");
    }
}

#[tokio::test]
async fn it_is_told_from_every_other() {
    let app = App::start().await;
    let good = super::token(&claims("org_a", "u"));
    assert_taken(&send(&app, &good).await, &"good");
    let (body, signature) = good.rsplit_once('.').expect("three parts");
    let forged = [
        format!("{body}.{}", signature.chars().rev().collect::<String>()),
        super::swap_claims(&good) + "." + signature,
        format!("{body}.{}", &signature[..signature.len() - 1]),
    ];
    for token in forged {
        assert_refused(&send(&app, &token).await, "invalid_token", &token);
    }
    assert_taken(&send(&app, &good).await, &"good again");
}
