//! `[queue.data]` and `queue.forward_headers` take effect on SIGHUP.

use super::set_template;
use serde_json::json;
use testkit::App;

async fn newest_job(app: &App) -> serde_json::Value {
    let call = app.webhook("wh_1").header("x-event", "e1");
    assert_eq!(call.send().await.matched(), 1);
    app.redis.queue().waiting().await.pop().expect("a job").data()
}

async fn newest_opts(app: &App) -> serde_json::Value {
    app.redis.queue().waiting().await.pop().expect("a job").opts()
}

async fn refused_reloads(app: &App) -> f64 {
    app.hookgate.metrics().await.value("hookgate_config_reloads_total", &[("result", "refused")])
}

#[tokio::test]
async fn a_template_is_replaced_without_a_restart() {
    let mut app = App::start().await;
    assert_eq!(newest_job(&app).await["workflowId"], "wf_1");

    set_template(&mut app.hookgate.config, "flow = \"{workflowId}\"\nh = \"{headers}\"");
    app.hookgate.reload().await;
    assert_eq!(newest_job(&app).await, json!({ "flow": "wf_1", "h": {} }));

    app.hookgate.config.set("queue.forward_headers", vec!["X-Event"]);
    app.hookgate.reload().await;
    assert_eq!(newest_job(&app).await, json!({ "flow": "wf_1", "h": { "x-event": "e1" } }));
    let log = app.hookgate.log();
    for key in ["queue.data", "queue.forward_headers"] {
        assert!(log.contains(&format!("changed=[\"{key}\"]")), "{log}");
    }
    assert!(!log.contains("after a restart"), "{log}");

    app.hookgate.config.remove("queue.data").remove("queue.forward_headers");
    app.hookgate.reload().await;
    assert_eq!(newest_job(&app).await["trigger"]["nodeIds"], json!(["n1"]));
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_faulty_template_changes_nothing() {
    let mut app = App::start().await;
    set_template(&mut app.hookgate.config, "flow = \"{workfloId}\"");
    app.hookgate.reload().await;
    assert_eq!(refused_reloads(&app).await, 1.0);
    assert!(app.hookgate.log().contains("did you mean {workflowId}?"));
    set_template(&mut app.hookgate.config, "flow = \"{workflowId}\"");
    app.hookgate.config.set("queue.forward_headers", vec!["cookie"]);
    app.hookgate.reload().await;
    assert_eq!(refused_reloads(&app).await, 2.0);
    assert_eq!(newest_job(&app).await["workflowId"], "wf_1");
}

/// The index of a running process keeps only the fields that its first template used. A template
/// with others waits for a restart, and all other keys take effect.
#[tokio::test]
async fn a_further_field_of_a_document_needs_a_restart() {
    let mut app = App::with(|config| {
        set_template(config, "a = \"{workflow.version}\"\nb = \"{node.data.x}\"");
    })
    .await;
    let config = &mut app.hookgate.config;
    set_template(config, "a = \"{workflow.version}\"\nc = \"{workflow.name}\"\nd = [\"{node.y}\"]");
    config.set("queue.job.attempts", 7).set("queue.forward_headers", vec!["x-event"]);
    app.hookgate.reload().await;
    assert_eq!(refused_reloads(&app).await, 0.0);
    let log = app.hookgate.log();
    for placeholder in ["{workflow.name}", "{node.y}"] {
        assert!(log.contains(&format!("{placeholder} needs a restart")), "{log}");
    }
    assert!(log.contains("the index does not keep this field yet"), "{log}");
    assert!(!log.contains("{workflow.version} needs"), "{log}");
    for keys in [
        "reloaded changed=[\"queue.forward_headers\", \"queue.job.attempts\"]",
        "after a restart changed=[\"queue.data\"]",
    ] {
        assert!(log.contains(keys), "{keys}: {log}");
    }
    assert_eq!(newest_job(&app).await, json!({ "a": null, "b": null }));
    assert_eq!(newest_opts(&app).await["attempts"], 7);
    // It is pending until the restart, and named again by each reload.
    app.hookgate.config.set("queue.job.attempts", 8);
    app.hookgate.reload().await;
    let log = app.hookgate.log();
    assert_eq!(log.matches("{node.y} needs a restart").count(), 2, "{log}");

    // Fewer fields, and those fields again, need no restart.
    set_template(&mut app.hookgate.config, "b = \"{node.data.x}\"");
    app.hookgate.reload().await;
    assert_eq!(newest_job(&app).await, json!({ "b": null }));
    set_template(&mut app.hookgate.config, "a = \"{workflow.version}\"");
    app.hookgate.reload().await;
    assert_eq!(newest_job(&app).await, json!({ "a": null }));
    // Within a string a field must not be an object, which the index has not checked.
    set_template(&mut app.hookgate.config, "a = \"v{workflow.version}\"");
    app.hookgate.reload().await;
    assert_eq!(refused_reloads(&app).await, 0.0);
    let log = app.hookgate.log();
    assert!(log.contains("{workflow.version} needs a restart"), "{log}");
    assert!(log.contains("its value is not checked for use within a string"), "{log}");
    assert_eq!(newest_job(&app).await, json!({ "a": null }));

    set_template(&mut app.hookgate.config, "a = \"v{workflow.version}\"\nc = \"{workflow.name}\"");
    app.hookgate.restart().await;
    assert_eq!(newest_job(&app).await, json!({ "a": "v", "c": null }));
}
