//! A JWK set that is read while the configuration is read again: the order in which the two end decides nothing.

use super::hanging_files::{Held, reloads, replace};
use jsonwebtoken::Algorithm;
use std::time::Duration;
use testkit::App;
use testkit::config::SECRET;
use testkit::keys::{KeyPair, hmac, jwk_set, octet_jwk};
use testkit::tokens::{claims, sign_with_id};
use testkit::wait::until;

const FIRST: &str = "the-first-secret-which-is-long-enough-for-the-digest-of-hs256";
const SECOND: &str = "the-second-secret-which-is-long-enough-for-the-digest-of-hs256";

const NEW: &str = "a-new-secret-which-is-long-enough-for-the-digest-of-hs256";

/// Until another thread is at a place that it comes to several times a second.
const MEANWHILE: Duration = Duration::from_secs(1);

fn set(secret: &str) -> String {
    jwk_set(&[octet_jwk(secret, "HS256", "key")])
}

async fn is_taken(app: &App, secret: &str) -> bool {
    let token = sign_with_id(&claims("org_a", "user_1"), Algorithm::HS256, &hmac(secret), "key");
    app.webhook("wh_1").bearer(&token).send().await.status == 202
}

#[tokio::test]
async fn a_look_at_a_set_does_not_undo_a_reload() {
    let build = App::build().failpoints();
    let file = build.file("jwks.json", set(FIRST));
    let name = file.clone();
    let build = build.config(|config| {
        config.set("auth.jwt.jwks_file", name);
    });
    let mut app = build.start().await;
    assert!(is_taken(&app, SECRET).await && is_taken(&app, FIRST).await);

    let held = Held::new(&app, "jwks.json");
    tokio::time::sleep(MEANWHILE).await;
    replace(&file, &set(SECOND));
    app.hookgate.config.remove("auth.jwt.jwks_file").set("auth.jwt.secrets", vec![NEW]);
    app.hookgate.reload().await;
    assert!(is_taken(&app, NEW).await && !is_taken(&app, SECRET).await);
    drop(held);
    until("the look has ended", async || {
        app.hookgate.metrics().await.value("hookgate_jwks_age_seconds", &[]) < 0.0
    })
    .await;
    for revoked in [SECRET, FIRST, SECOND] {
        assert!(!is_taken(&app, revoked).await, "{revoked}");
    }
    assert!(is_taken(&app, NEW).await);
}

#[tokio::test]
async fn a_reload_that_is_slow_does_not_bring_an_old_set_back() {
    let build = App::build().failpoints();
    let file = build.file("jwks.json", set(FIRST));
    let public = build.file("public.pem", KeyPair::rsa().public_pem);
    let name = file.clone();
    let build = build.config(|config| {
        config.remove("auth.jwt.secrets").set("auth.jwt.jwks_file", name);
        config.set("auth.jwt.algorithms", vec!["HS256", "RS256"]);
        config.set("auth.jwt.public_key_files", vec![public]);
    });
    let mut app = build.start().await;
    assert!(is_taken(&app, FIRST).await);

    // The reload reads the set, and then this file.
    let held = Held::new(&app, "public.pem");
    app.hookgate.config.set("auth.jwt.leeway", "31s");
    let before = reloads(&app, "applied").await;
    let reloading = app.hookgate.reload();
    let follower = async {
        tokio::time::sleep(MEANWHILE).await;
        replace(&file, &set(SECOND));
        until("the new set is followed", async || is_taken(&app, SECOND).await).await;
        drop(held);
    };
    tokio::join!(reloading, follower);
    assert!(reloads(&app, "applied").await > before);
    until("the old set has gone", async || {
        is_taken(&app, SECOND).await && !is_taken(&app, FIRST).await
    })
    .await;
}
