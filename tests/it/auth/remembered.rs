//! A verified token is cached, and its expiry and user are still checked.

use super::{assert_accepted, assert_refused, changed, identity_of, send, with_exp};
use serde_json::json;
use testkit::tokens::{claims, now};
use testkit::wait::until;
use testkit::{App, Documents};

#[tokio::test]
async fn a_cached_token_expires() {
    let app = App::with(|config| {
        config.set("auth.jwt.leeway", "0s");
    })
    .await;
    let token = changed(&json!({ "exp": now() + 3 }));
    assert_accepted(&send(&app, &token).await, &"before its expiry");
    until("the token has expired", async || send(&app, &token).await.status == 401).await;
    assert_refused(&send(&app, &token).await, "expired_token", &"after its expiry");
}

#[tokio::test]
async fn the_user_of_a_cached_token_can_move_and_be_disabled() {
    let mut documents = Documents::two_organizations();
    let app = App::build().documents(documents.clone()).start().await;
    let of_user = with_exp(&json!({ "sub": "user_1" }));
    let of_organization = with_exp(&json!({ "sub": "user_1", "organizationId": "org_a" }));
    let organization = async || identity_of(&app, &of_user).await.0;
    assert_eq!(organization().await, "org_a");
    assert_accepted(&send(&app, &of_organization).await, &"enabled");

    documents.users[0]["organizationId"] = json!("org_b");
    app.replace_documents(&documents);
    until("the user has moved", async || organization().await == "org_b").await;

    documents.users[0]["enabled"] = json!(false);
    app.replace_documents(&documents);
    until("the user is disabled", async || send(&app, &of_user).await.status == 401).await;
    for token in [of_user, of_organization] {
        assert_refused(&send(&app, &token).await, "invalid_token", &"disabled");
    }
}

#[tokio::test]
async fn a_cached_token_is_distinguished_from_every_other() {
    let app = App::start().await;
    let good = super::token(&claims("org_a", "u"));
    assert_accepted(&send(&app, &good).await, &"good");
    let (body, signature) = good.rsplit_once('.').expect("three parts");
    let forged = [
        format!("{body}.{}", signature.chars().rev().collect::<String>()),
        super::swap_claims(&good) + "." + signature,
        format!("{body}.{}", &signature[..signature.len() - 1]),
    ];
    for token in forged {
        assert_refused(&send(&app, &token).await, "invalid_token", &token);
    }
    assert_accepted(&send(&app, &good).await, &"good again");
}
