//! Properties of all templates: whatever the template and the body, the data of each job is JSON
//! that equals the template with its values, and the payload stands in it byte for byte.

use crate::ids::{OrganizationId, RequestId, UserId, WebhookId};
use crate::queue::bullmq::job::Jobs;
use crate::queue::bullmq::job_data::JobData;
use crate::queue::bullmq::options::JobOptions;
use crate::queue::bullmq::request::{
    EnqueueRequest, HeaderFields, HttpHead, Origin, WorkflowMatch,
};
use crate::settings::SettingsReader;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use toml::Value;

/// All placeholders, and a field of each kind of document.
const PLACEHOLDERS: [&str; 22] = [
    "workflowId",
    "organizationId",
    "userId",
    "webhookId",
    "requestId",
    "nodeId",
    "nodeIds",
    "nodeType",
    "receivedAt",
    "receivedAtIso",
    "payload",
    "body",
    "rawBody",
    "rawBodyEncoding",
    "method",
    "path",
    "contentType",
    "clientAddress",
    "query",
    "headers",
    "workflow.version",
    "node.data.label",
];

#[derive(Debug)]
struct Headers;

impl HeaderFields for Headers {
    fn visit_values(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        match name {
            "content-type" => visit(b"application/json; x=\"y\""),
            "x-twice" => {
                visit(b"1");
                visit(b"\xfc\"");
            }
            _ => {}
        }
    }
}

/// A request, and the payload and body in it.
struct Sent<'a> {
    payload: &'a str,
    body: &'a str,
    user: Option<&'a UserId>,
    origin: Origin,
}

const WORKFLOWS: [&str; 5] = ["w1", "w\"2", "", "w4", "w\\5"];
const NODE_IDS: [&str; 5] =
    [r#"["n\"\\","n2"]"#, r#"["n1"]"#, r#"["\\"]"#, r#"["n1","n2"]"#, r#"["n5"]"#];
/// Parts of the data are copied from the job before if its type is the same: it stays, changes,
/// stays and changes back.
const NODE_TYPES: [&str; 5] =
    ["WebhookTrigger", "WebhookTrigger", "a \"b\"", "a \"b\"", "WebhookTrigger"];
const FIELDS: [[&str; 2]; 5] = [
    ["7.50", r#""a\"b""#],
    ["null", "true"],
    [r#""""#, "-1e400"],
    ["7.50", "null"],
    [r#""long enough to differ""#, "0"],
];

fn encode(template: &toml::Table, sent: &Sent<'_>, count: usize) -> Jobs {
    let mut queue = toml::Table::new();
    queue.insert("data".to_owned(), Value::Table(template.clone()));
    queue.insert("forward_headers".to_owned(), Value::from(vec!["X-Twice", "x-absent", "x-twice"]));
    let file = toml::Table::from_iter([("queue".to_owned(), Value::Table(queue))]);
    let mut settings = SettingsReader::new(file, std::iter::empty());
    let (data, fields) = JobData::read(&mut settings.section("queue"));
    let options = JobOptions::read(&mut settings.section("queue.job"));
    assert_eq!(settings.into_faults(), []);
    let (before, after) = sent.payload.as_bytes().split_at(sent.payload.len() / 2);
    let id = RequestId::from_header_or_new(Some(b"r\"1"));
    let (organization, webhook) =
        (OrganizationId::new("o\n1").unwrap(), WebhookId::new("wh").unwrap());
    let request = EnqueueRequest {
        origin: sent.origin,
        received_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_470_574_005),
        user: sent.user,
        payload: [before, after].map(Bytes::copy_from_slice),
        body: Bytes::copy_from_slice(sent.body.as_bytes()),
        head: HttpHead {
            method: "POST",
            path: "/a%22",
            query: Some("a=1&b=%22&a=2+3&c"),
            client_address: Some("2001:db8::1".parse().unwrap()),
            headers: &Headers,
        },
        ..EnqueueRequest::of_payload(&id, &organization, &webhook, Bytes::new())
    };
    let is_workflow = |number: usize| number < fields.workflow.len();
    let matches = (0..count).map(|job| WorkflowMatch {
        workflow: WORKFLOWS[job],
        node_ids: NODE_IDS[job],
        node_type: NODE_TYPES[job],
        field: move |number| FIELDS[job][usize::from(!is_workflow(number))],
    });
    Jobs::encode(&request, matches, &options, &data, usize::MAX).unwrap()
}

/// What a placeholder is in a job, as JSON.
fn value(name: &str, sent: &Sent<'_>, job: usize) -> String {
    let string = |text: &str| Json::from(text).to_string();
    match name {
        "workflowId" => string(WORKFLOWS[job]),
        "organizationId" => string("o\n1"),
        "userId" => sent.user.map_or_else(|| "null".to_owned(), |user| string(user.as_str())),
        "webhookId" => string("wh"),
        "requestId" => string("r\"1"),
        "nodeId" => {
            let ids: Vec<String> = serde_json::from_str(NODE_IDS[job]).unwrap();
            string(&ids[0])
        }
        "nodeIds" => NODE_IDS[job].to_owned(),
        "nodeType" => string(NODE_TYPES[job]),
        "receivedAt" => "1795470574005".to_owned(),
        "receivedAtIso" => string("2026-11-23T21:49:34.005Z"),
        "body" if sent.origin == Origin::Webhook => sent.body.to_owned(),
        "payload" | "body" => sent.payload.to_owned(),
        "rawBody" => string(sent.body),
        "rawBodyEncoding" => string("utf8"),
        "method" => string("POST"),
        "path" => string("/a%22"),
        "contentType" => string("application/json; x=\"y\""),
        "clientAddress" => string("2001:db8::1"),
        "query" => json!({ "a": ["1", "2 3"], "b": "\"", "c": "" }).to_string(),
        "headers" => json!({ "x-twice": "1, \u{fc}\"" }).to_string(),
        "workflow.version" => FIELDS[job][0].to_owned(),
        "node.data.label" => FIELDS[job][1].to_owned(),
        other => panic!("{other}"),
    }
}

/// The content of a value within a string.
fn text(name: &str, sent: &Sent<'_>, job: usize) -> String {
    let json = value(name, sent, job);
    match serde_json::from_str::<String>(&json) {
        Ok(text) => text,
        Err(_) if json == "null" => String::new(),
        Err(_) => json,
    }
}

/// Asserts that JSON is what the template says, whatever the order of its members.
fn assert_matches(raw: &RawValue, template: &Value, sent: &Sent<'_>, job: usize) {
    let raw_json = raw.get();
    match template {
        Value::Table(members) => {
            let found: BTreeMap<String, &RawValue> = serde_json::from_str(raw_json).unwrap();
            assert!(found.keys().eq(members.keys()), "{raw_json}");
            for (name, template) in members {
                assert_matches(found[name], template, sent, job);
            }
        }
        Value::Array(elements) => {
            let found: Vec<&RawValue> = serde_json::from_str(raw_json).unwrap();
            assert_eq!(found.len(), elements.len());
            for (found, template) in found.iter().zip(elements) {
                assert_matches(found, template, sent, job);
            }
        }
        Value::String(string) => match placeholder(string) {
            Some(name) if name == "query" || name == "headers" => {
                let expected: Json = serde_json::from_str(&value(name, sent, job)).unwrap();
                assert_eq!(serde_json::from_str::<Json>(raw_json).unwrap(), expected);
            }
            // A raw value has no white space around it.
            Some(name) => assert_eq!(raw_json, value(name, sent, job).trim()),
            None => {
                let found: String = serde_json::from_str(raw_json).unwrap();
                assert_eq!(found, filled(string, sent, job));
            }
        },
        other => assert_eq!(
            toml::from_str::<toml::Table>(&format!("a = {raw_json}")).unwrap()["a"],
            *other
        ),
    }
}

fn placeholder(string: &str) -> Option<&str> {
    let name = string.strip_prefix('{')?.strip_suffix('}')?;
    PLACEHOLDERS.contains(&name).then_some(name)
}

/// A string with its placeholders replaced.
fn filled(string: &str, sent: &Sent<'_>, job: usize) -> String {
    let (mut filled, mut rest) = (String::new(), string);
    while let Some(first) = rest.chars().next() {
        let found = PLACEHOLDERS.iter().find(|name| rest.starts_with(&format!("{{{name}}}")));
        if rest.starts_with("{{") || rest.starts_with("}}") {
            filled.push(first);
            rest = &rest[2..];
        } else if let Some(name) = found {
            filled.push_str(&text(name, sent, job));
            rest = &rest[name.len() + 2..];
        } else {
            filled.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    filled
}

fn any_string() -> impl Strategy<Value = Value> {
    let is_part = |name: &&str| !["nodeIds", "payload", "body", "query", "headers"].contains(name);
    let in_text: Vec<&str> = PLACEHOLDERS.into_iter().filter(is_part).collect();
    let part = prop_oneof![
        proptest::sample::select(in_text).prop_map(|name| format!("{{{name}}}")),
        "[a-z \"\\\\\u{1}\u{e4}]{1,3}",
        Just("{{".to_owned()),
        Just("}}".to_owned()),
    ];
    prop_oneof![
        3 => proptest::sample::select(&PLACEHOLDERS[..])
            .prop_map(|name| Value::String(format!("{{{name}}}"))),
        1 => proptest::collection::vec(part, 0..5).prop_map(|parts| Value::String(parts.concat())),
    ]
}

fn any_template() -> impl Strategy<Value = toml::Table> {
    let leaf = prop_oneof![
        4 => any_string(),
        1 => any::<i64>().prop_map(Value::Integer),
        1 => any::<bool>().prop_map(Value::Boolean),
        1 => (-1e9..1e9_f64).prop_map(Value::Float),
    ];
    let value = leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            any_table(inner).prop_map(Value::Table),
        ]
    });
    any_table(value)
}

fn any_table(value: impl Strategy<Value = Value>) -> impl Strategy<Value = toml::Table> {
    let members = proptest::collection::btree_map("[a-z\"{}\u{e4}. ]{0,3}", value, 0..5);
    members.prop_map(|members| members.into_iter().collect())
}

/// Bodies with a payload that is a part of them, with numbers, escapes and white space that JSON
/// libraries change.
fn any_body() -> impl Strategy<Value = (String, String)> {
    let value = proptest::sample::select(
        &["1.0e2", "123456789012345678901234567890", r#""\u0041\ud800""#, "[ ]", "{ \"a\" :-0 }"][..],
    );
    let members = proptest::collection::btree_map("[a-c\u{e4}]{1,2}", value, 0..4);
    members.prop_map(|members| {
        let members = members.iter().map(|(name, value)| format!("\"{name}\" : {value}"));
        let members = members.collect::<Vec<_>>().join(" ,\t");
        let comma = if members.is_empty() { "" } else { "," };
        (format!("{{{members}}}"), format!(" {{\"webhookId\":\"wh\"{comma}{members}}}\n"))
    })
}

fn origin(is_delivery: bool) -> Origin {
    if is_delivery { Origin::Delivery } else { Origin::Webhook }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_data_of_every_job_equals_the_template(
        template in any_template(),
        (payload, body) in any_body(),
        has_user in any::<bool>(),
        is_delivery in any::<bool>(),
        count in 1..=5_usize,
    ) {
        let user = UserId::new("u").unwrap();
        let (user, origin) = (has_user.then_some(&user), origin(is_delivery));
        let sent = Sent { payload: &payload, body: &body, user, origin };
        let jobs = encode(&template, &sent, count);
        prop_assert_eq!(jobs.heads.len(), count);
        for (job, head) in jobs.heads.iter().enumerate() {
            prop_assert!(!head.is_empty());
            let data = String::from_utf8([&head[..], &jobs.tail[..]].concat()).unwrap();
            let data: &RawValue = serde_json::from_str(&data).unwrap();
            assert_matches(data, &Value::Table(template.clone()), &sent, job);
        }
    }
}

/// The number of times that the payload crosses the wire for two jobs.
fn payloads_on_the_wire(template: &str) -> usize {
    let payload = r#"{"n":1.0e2}"#;
    let body = r#"{"webhookId":"wh","n":1.0e2}"#;
    let sent = Sent { payload, body, user: None, origin: Origin::Webhook };
    let jobs = encode(&toml::from_str(template).unwrap(), &sent, 2);
    let wire = jobs.heads.concat();
    let wire = String::from_utf8([&wire[..], &jobs.tail[..]].concat()).unwrap();
    wire.matches("1.0e2").count()
}

#[test]
fn the_payload_crosses_the_wire_once_wherever_an_order_allows_it() {
    for (template, expected) in [
        // Before and after values of a job.
        ("a = \"{payload}\"\nb = \"{workflowId}\"", 1),
        ("a = \"{workflowId}\"\nb = \"{payload}\"", 1),
        // In an object with a value of a job, with further ones after it.
        ("a = { p = \"{payload}\", w = \"{workflowId}\" }\nb = \"{nodeId}\"", 1),
        (
            "a = { b = { p = \"{payload}\", w = \"{nodeIds}\" }, c = \"{nodeType}\" }\nd = \"x-{nodeId}\"\ne = [\"{workflow.version}\"]",
            1,
        ),
        // In the last element of an array.
        (
            "a = [\"{workflowId}\", { p = \"{payload}\", w = \"{nodeId}\" }]\nb = { c = \"{nodeId}\" }",
            1,
        ),
        // In a string after a value of a job.
        ("a = \"{workflowId} {rawBody}\"\nb = \"{nodeId}\"", 1),
        // Twice, and without a value of a job.
        ("a = \"{payload}\"\nb = \"{body}\"\nc = \"{workflowId}\"", 2),
        ("a = \"{payload}\"", 1),
        // The larger part is written once, if two objects have values of a job.
        (
            "a = { p = \"{payload}\", w = \"{workflowId}\" }\nb = { q = \"{query}\", w = \"{nodeId}\" }",
            1,
        ),
        // No order puts the payload after all values of a job.
        ("a = [\"{payload}\", \"{workflowId}\"]", 2),
        ("a = \"{rawBody} {workflowId}\"", 2),
        (
            "a = { p = \"{payload}\", w = \"{workflowId}\" }\nb = { p = \"{payload}\", w = \"{nodeId}\" }",
            3,
        ),
    ] {
        assert_eq!(payloads_on_the_wire(template), expected, "{template}");
    }
}
