//! `hookgate example-job`.

use serde_json::{Value, json};
use std::process::Output;
use testkit::hookgate::command;
use testkit::scratch::Scratch;

fn run(text: &str, options: &[&str]) -> Output {
    let files = Scratch::new("example-job");
    let file = files.write("hookgate.toml", text);
    let mut command = command(&["example-job", "--config"]);
    command.arg(file).args(options).output().expect("the command runs")
}

fn example(text: &str) -> (String, Value) {
    example_with(text, &[])
}

fn example_with(text: &str, options: &[&str]) -> (String, Value) {
    let output = run(text, options);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let json = serde_json::from_str(&text).expect("one JSON document");
    (text, json)
}

#[test]
fn an_example_has_the_shape_name_and_options_of_a_job() {
    let (text, job) =
        example("[queue]\njob_name = \"run \\\"it\\\"\"\n[queue.job]\nattempts = 7\n");
    assert_eq!(job["name"], "run \"it\"");
    assert_eq!(job["opts"]["attempts"], 7);
    assert_eq!(job["data"]["trigger"]["type"], "WebhookTrigger");
    let members = ["workflowId", "organizationId", "userId", "trigger", "requestId", "receivedAt"];
    let positions = members.map(|name| text.find(&format!("\"{name}\"")).expect("a member"));
    assert!(positions.is_sorted(), "{text}");
    assert!(text.contains("\n        \"exampleNumber\": 1.0e2\n"), "verbatim: {text}");
}

#[test]
fn an_example_has_made_up_values_for_every_placeholder() {
    let (_, job) = example(
        r#"
        [queue]
        forward_headers = ["X-Event"]
        [queue.data]
        kind = "x"
        flow = "{workflowId}"
        text = "{organizationId}/{workflow.a.b}"
        fields = ["{workflow.a.b}", "{node.data.c}"]
        head = ["{headers}", "{query}", "{clientAddress}", "{contentType}"]
        raw = "{rawBody}"
        "#,
    );
    let raw = r#"{"webhookId":"example-webhook","exampleNumber":1.0e2}"#;
    let query = json!({ "example": "1", "repeated": ["1", "2"] });
    let headers = json!({ "x-event": "example x-event" });
    let expected = json!({
        "kind": "x",
        "flow": "example-workflow",
        "text": "example-organization/example workflow.a.b",
        "fields": ["example workflow.a.b", "example node.data.c"],
        "head": [headers, query, "192.0.2.1", "application/json"],
        "raw": raw,
    });
    assert_eq!(job["data"], expected);
}

#[test]
fn an_example_of_a_delivery_says_how_the_request_came() {
    let (text, job) = example_with("[queue]\nforward_headers = [\"X-Event\"]\n", &["--delivery"]);
    assert_eq!(job["data"]["userId"], Value::Null);
    let request = json!({
        "method": "POST",
        "path": "/api/webhook/in/example-organization/example-webhook",
        "query": { "example": "1", "repeated": ["1", "2"] },
        "headers": { "x-event": "example x-event" },
        "contentType": "application/json",
    });
    assert_eq!(job["data"]["trigger"]["request"], request);
    let members = ["payload", "request", "method", "path", "query", "headers", "contentType"];
    let positions = members.map(|name| text.find(&format!("\"{name}\"")).expect("a member"));
    assert!(positions.is_sorted(), "{text}");
}

#[test]
fn a_template_is_the_shape_of_deliveries_too() {
    let template = "[queue.data]\nflow = \"{workflowId}\"\nuser = \"{userId}\"\nbody = \"{body}\"\n\
                    raw = \"{rawBody}\"\npath = \"{path}\"\n";
    let (_, job) = example_with(template, &["--delivery"]);
    let expected = json!({
        "flow": "example-workflow",
        "user": null,
        "body": { "exampleNumber": 100.0 },
        "raw": r#"{"exampleNumber":1.0e2}"#,
        "path": "/api/webhook/in/example-organization/example-webhook",
    });
    assert_eq!(job["data"], expected);
}

#[test]
fn a_path_with_a_quote_or_a_backslash_is_in_the_example() {
    let (_, job) = example(
        "[queue.data]\nq = '{workflow.a\"b}'\nb = '{node.a\\b}'\ntext = '{workflow.a\"b} {node.a\\b}'\n",
    );
    let [quote, backslash] = ["example workflow.a\"b", "example node.a\\b"];
    let text = format!("{quote} {backslash}");
    assert_eq!(job["data"], json!({ "q": quote, "b": backslash, "text": text }));
}

#[test]
fn an_example_has_the_first_configured_type_of_a_node() {
    let types = "[triggers]\nnode_types = [\"webhook\", \"form\"]\n";
    let (_, job) = example(&format!("{types}[queue.data]\ntype = \"{{nodeType}}\"\n"));
    assert_eq!(job["data"]["type"], "webhook");
    let (_, job) = example(types);
    assert_eq!(job["data"]["trigger"]["type"], "webhook");
}

#[test]
fn a_faulty_configuration_has_no_example() {
    let output = run("[queue.data]\na = \"{nothing}\"\n", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(error.contains("queue.data.a: unknown placeholder {nothing}"), "{error}");
}
