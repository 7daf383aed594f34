//! What `check` says about `[endpoints]` together with other sections.

use testkit::hookgate::command;
use testkit::scratch::Scratch;

/// The exit code and the output of `check`.
fn check(text: &str) -> (Option<i32>, String) {
    let files = Scratch::new("endpoints");
    let file = files.write("hookgate.toml", text);
    let output = command(&["check", "--config"]).arg(file).output().expect("the command runs");
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}

#[track_caller]
fn assert_fault(text: &str, fault: &str) {
    let (code, out) = check(text);
    assert_eq!(code, Some(2), "{text}: {out}");
    assert!(out.contains(fault), "{text}: {out}");
}

#[test]
fn addresses_have_nothing_in_common_with_the_route_of_webhooks() {
    for path in ["/api", "/api/webhook", "/api/webhook/workflow", "/api/webhook/workflow/preview"] {
        let fault = "endpoints.path: has addresses in common with /api/webhook/workflow";
        assert_fault(&format!("[endpoints]\npath = \"{path}\"\n"), fault);
    }
    for path in ["/ap", "/api/webhooks", "/api/webhook/work", "/api/webhook/workflows", "/in"] {
        let (code, out) = check(&format!("[endpoints]\npath = \"{path}\"\n"));
        assert_eq!(code, Some(0), "{path}: {out}");
    }
}

#[test]
fn a_verification_is_at_a_place_of_its_own() {
    for (field, other, key) in [
        ("data", "data.webhookId", "webhook_id_field"),
        ("data.webhookId", "data.webhookId", "webhook_id_field"),
        ("data.webhookId.x", "data.webhookId", "webhook_id_field"),
        ("type", "type", "node_type_field"),
        ("id.x", "id", "node_id_field"),
    ] {
        let fault = format!(
            "endpoints.verification_field: is, holds or lies within {other}, the triggers.{key}"
        );
        assert_fault(&format!("[endpoints]\nverification_field = \"{field}\"\n"), &fault);
    }
    let (code, out) = check("[endpoints]\nverification_field = \"data.webhook\"\n");
    assert_eq!(code, Some(0), "{out}");
}

#[test]
fn no_secret_of_a_sender_gets_into_a_job() {
    for path in [
        "node.data",
        "node.data.verification",
        "node.data.verification.secret",
        "workflow.nodes",
        "workflow.nodes.data.verification",
    ] {
        let data = format!("[queue.data]\na = {{ b = \"{{{path}}}\" }}\n");
        let fault = format!(
            "queue.data.a.b: {{{path}}} has secrets of senders: endpoints.verification_field is \"data.verification\""
        );
        assert_fault(&format!("[endpoints]\nenabled = true\n{data}"), &fault);
        let (code, out) = check(&data);
        assert_eq!(code, Some(0), "documents have no such secrets: {out}");
    }
    let (code, out) = check(
        "[endpoints]\nenabled = true\n[queue.data]\na = [\"{node.data.label}\", \"{workflow.data}\"]\n",
    );
    assert_eq!(code, Some(0), "{out}");
}

#[test]
fn warnings_of_named_verifications_are_printed() {
    let section = "[endpoints.verification.ci]\nscheme = \"github\"\nsecret = \"short\"\n";
    let (code, out) = check(section);
    assert_eq!(code, Some(0), "{out}");
    for warning in [
        "warning: endpoints.verification.ci.organizations: is empty: every organization may refer to it",
        "warning: endpoints.verification.ci.scheme: a secret is shorter than 16 bytes",
    ] {
        assert!(out.contains(warning), "{out}");
    }
    assert_fault(
        &section.replace("secret", "sekret"),
        "endpoints.verification.ci.secret: is missing",
    );
    let default = "[endpoints]\ndefault_verification = \"cd\"\n";
    assert_fault(
        &format!("{default}{section}"),
        "endpoints.default_verification: there is no section [endpoints.verification.cd]",
    );
}
