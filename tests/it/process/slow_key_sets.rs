//! A JWK set that is read during a reload: the order in which the two reads end has no effect.

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

/// Long enough for another thread to reach a point that it passes several times a second.
const MEANWHILE: Duration = Duration::from_secs(1);

fn set(secret: &str) -> String {
    jwk_set(&[octet_jwk(secret, "HS256", "key")])
}

async fn is_accepted(app: &App, secret: &str) -> bool {
    let token = sign_with_id(&claims("org_a", "user_1"), Algorithm::HS256, &hmac(secret), "key");
    app.webhook("wh_1").bearer(&token).send().await.status == 202
}

#[tokio::test]
async fn a_read_of_a_set_does_not_undo_a_reload() {
    let build = App::build().failpoints();
    let file = build.file("jwks.json", set(FIRST));
    let name = file.clone();
    let build = build.config(|config| {
        config.set("auth.jwt.jwks_file", name);
    });
    let mut app = build.start().await;
    assert!(is_accepted(&app, SECRET).await && is_accepted(&app, FIRST).await);

    let held = Held::new(&app, "jwks.json");
    tokio::time::sleep(MEANWHILE).await;
    replace(&file, &set(SECOND));
    app.hookgate.config.remove("auth.jwt.jwks_file").set("auth.jwt.secrets", vec![NEW]);
    app.hookgate.reload().await;
    assert!(is_accepted(&app, NEW).await && !is_accepted(&app, SECRET).await);
    drop(held);
    until("the read has ended", async || {
        app.hookgate.metrics().await.value("hookgate_jwks_age_seconds", &[]) < 0.0
    })
    .await;
    for revoked in [SECRET, FIRST, SECOND] {
        assert!(!is_accepted(&app, revoked).await, "{revoked}");
    }
    assert!(is_accepted(&app, NEW).await);
}

#[tokio::test]
async fn a_slow_reload_does_not_restore_an_old_set() {
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
    assert!(is_accepted(&app, FIRST).await);

    // The reload reads the set before this file.
    let held = Held::new(&app, "public.pem");
    app.hookgate.config.set("auth.jwt.leeway", "31s");
    let before = reloads(&app, "applied").await;
    let reloading = app.hookgate.reload();
    let follower = async {
        tokio::time::sleep(MEANWHILE).await;
        replace(&file, &set(SECOND));
        until("the new set is followed", async || is_accepted(&app, SECOND).await).await;
        drop(held);
    };
    tokio::join!(reloading, follower);
    assert!(reloads(&app, "applied").await > before);
    until("the old set is out of use", async || {
        is_accepted(&app, SECOND).await && !is_accepted(&app, FIRST).await
    })
    .await;
}
