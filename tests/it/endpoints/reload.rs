//! SIGHUP and `[endpoints]`: named verifications take effect at once, all other keys after a
//! restart.

use std::fs;
use testkit::{App, confidential};
use toml::Value;

const KEY: &str = "endpoints.verification.ci";

async fn reloads(app: &App) -> [String; 2] {
    let metrics = app.hookgate.metrics().await;
    ["applied", "refused"].map(|result| {
        metrics.value("hookgate_config_reloads_total", &[("result", result)]).to_string()
    })
}

#[tokio::test]
async fn named_verifications_are_replaced_and_named_without_their_secrets() {
    let build = App::build();
    let secrets = ["a-first-secret-0123456789", "a-second-secret-0123456789"];
    secrets.into_iter().for_each(confidential::credential);
    let file = build.file("secret", secrets[0]);
    let build = build.config(|config| {
        config.set("endpoints.enabled", true).set("endpoints.default_verification", "ci");
        config.set("endpoints.verification.ci.scheme", "github");
        config.set("endpoints.verification.ci.secret_files", vec![file.clone()]);
    });
    let mut app = build.start().await;
    let warning = format!("{KEY}.organizations: is empty: every organization may refer to it");
    assert!(app.hookgate.log().contains(&warning), "{}", app.hookgate.log());

    // A secret of a file is replaced.
    fs::write(&file, secrets[1]).expect("the test's own file");
    app.hookgate.reload().await;
    let changed = format!("changed=[\"{KEY}.secret_files {file}\"]");
    assert!(app.hookgate.log().contains(&changed), "{}", app.hookgate.log());
    assert_eq!(reloads(&app).await, ["1", "0"]);

    // A section is added, and keys that need a restart are changed.
    let config = &mut app.hookgate.config;
    config.set("endpoints.verification.cd.scheme", "none");
    config.set("endpoints.verification.cd.organizations", vec!["org_a"]);
    config.set("endpoints.path", "/hooks").set("endpoints.delivery_ttl", "1h");
    config.set("endpoints.verification_field", "data.auth");
    app.hookgate.reload().await;
    let log = app.hookgate.log();
    let added = "changed=[\"endpoints.verification.cd.organizations\", \"endpoints.verification.cd.scheme\"]";
    assert!(log.contains(added), "{log}");
    let pending = "changed=[\"endpoints.delivery_ttl\", \"endpoints.path\", \"endpoints.verification_field\"]";
    let is_pending = |line: &str| line.contains(pending) && line.contains("after a restart");
    assert!(log.lines().any(is_pending), "{log}");
    assert_eq!(reloads(&app).await, ["2", "0"]);
    assert!(secrets.iter().all(|secret| !log.contains(secret)));
}

#[tokio::test]
async fn a_faulty_verification_changes_nothing() {
    let build = App::build();
    let file = build.file("secret", "a-first-secret-0123456789");
    let build = build.config(|config| {
        config.set("endpoints.enabled", true).set("endpoints.default_verification", "ci");
        config.set("endpoints.verification.ci.scheme", "github");
        config.set("endpoints.verification.ci.secret_file", file.clone());
    });
    let mut app = build.start().await;
    let good = app.hookgate.config.clone();

    // In each case the attempts of jobs are changed too, which must not take effect.
    app.hookgate.config.set("queue.job.attempts", 9);
    fs::write(&file, "\n").expect("the test's own file");
    app.hookgate.reload().await;
    let log = app.hookgate.log();
    assert!(log.contains(&format!("{file} is empty or blank")), "{log}");
    assert!(log.contains("nothing is changed"), "{log}");
    fs::write(&file, "a-first-secret-0123456789").expect("the test's own file");

    for (key, value, reason) in [
        ("endpoints.verification.ci.scheme", Value::from("githup"), "did you mean github?"),
        ("endpoints.verification.ci.sekret", Value::from("x"), "unknown key"),
        ("endpoints.path", Value::from("in"), "does not begin with /"),
    ] {
        app.hookgate.config.set(key, value);
        app.hookgate.reload().await;
        assert!(app.hookgate.log().contains(reason), "{key}: {}", app.hookgate.log());
        app.hookgate.config = good.clone();
        app.hookgate.config.set("queue.job.attempts", 9);
    }

    // Nodes refer to the default until a restart.
    app.hookgate.config.remove("endpoints.default_verification").remove("endpoints.verification");
    app.hookgate.reload().await;
    let reason = "[endpoints.verification.ci] is in use until a restart";
    assert!(app.hookgate.log().contains(reason), "{}", app.hookgate.log());
    assert_eq!(reloads(&app).await, ["0", "5"]);
    assert_eq!(app.webhook("wh_1").send().await.status, 202);
    assert_eq!(app.redis.queue().only_job().await.opts()["attempts"], 3);
}
