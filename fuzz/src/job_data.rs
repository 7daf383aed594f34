//! Templates of job data: `[queue.data]`, and the jobs that they make.

use bytes::Bytes;
use hookgate::ids::{OrganizationId, RequestId, UserId, WebhookId};
use hookgate::queue::{
    EnqueueRequest, HttpHead, IdempotencySettings, QueueSettings, WorkflowMatch, job_data,
};
use hookgate::settings::SettingsReader;
use serde_json::{Map, Value, json};
use std::time::{Duration, UNIX_EPOCH};

/// When the request was received, in milliseconds since 1970.
const RECEIVED: u64 = 1_700_000_000_123;

/// Lines: a template in JSON, a payload in JSON, and texts for the workflow's id, the organization,
/// the user and the node's type.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(6, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let Ok(Value::Object(template)) = serde_json::from_str(line()) else { return };
    let Ok(payload) = serde_json::from_str::<Map<String, Value>>(line()) else { return };
    let payload = Value::from(payload);
    let texts = [line(), line(), line(), line()];
    let Some(settings) = settings(&template) else { return };
    let [workflow, organization, user, node_type] = texts;
    let Ok(organization) = OrganizationId::new(organization) else { return };
    let user = UserId::new(user).ok();
    // Two jobs of one type and a third of another one, so that heads are copied and not copied.
    let jobs = [(workflow, node_type), ("second \"2\"", node_type), ("", "other")];
    for count in 1..=jobs.len() {
        let jobs = &jobs[..count];
        let written = encode(&settings, jobs, &payload, &organization, user.as_ref());
        for ((workflow, node_type), written) in jobs.iter().zip(written) {
            let values = Values {
                workflow,
                node_type,
                payload: &payload,
                organization: organization.as_str(),
                user: user.as_ref().map(UserId::as_str),
            };
            let written: Value = serde_json::from_slice(&written).expect("JSON");
            assert_eq!(written, values.object(&template), "job of {workflow:?}");
        }
    }
}

/// The settings with this template; `None` if it is refused.
fn settings(template: &Map<String, Value>) -> Option<QueueSettings> {
    let data = toml::Value::try_from(template).ok()?;
    let queue = toml::Table::from_iter([("data".to_owned(), data)]);
    let file = toml::Table::from_iter([("queue".to_owned(), queue.into())]);
    let mut settings = SettingsReader::new(file, std::iter::empty());
    let idempotency = IdempotencySettings::read(&mut settings.section("idempotency"));
    let queue = QueueSettings::read(&mut settings.section("queue"), idempotency);
    settings.into_faults().is_empty().then_some(queue)
}

fn encode(
    settings: &QueueSettings,
    jobs: &[(&str, &str)],
    payload: &Value,
    organization: &OrganizationId,
    user: Option<&UserId>,
) -> Vec<Vec<u8>> {
    let id = RequestId::from_header_or_new(Some(b"request"));
    let webhook = WebhookId::new("hook").expect("an id");
    let payload = Bytes::from(payload.to_string());
    let plain = EnqueueRequest::of_payload(&id, organization, &webhook, payload);
    let request = EnqueueRequest {
        received_at: UNIX_EPOCH + Duration::from_millis(RECEIVED),
        user,
        body: Bytes::from_static(br#"{"webhookId":"hook"}"#),
        head: HttpHead { query: Some("a=1&b=%22&a="), ..plain.head },
        ..plain
    };
    let fields = &settings.template_fields;
    let fields = fields.workflow.iter().map(|field| ("workflow", &field.path));
    let fields = fields.chain(settings.template_fields.node.iter().map(|f| ("node", &f.path)));
    let fields: Vec<String> =
        fields.map(|(of, path)| Value::from(field(of, path)).to_string()).collect();
    let matches = jobs.iter().map(|(workflow, node_type)| WorkflowMatch {
        workflow: *workflow,
        node_ids: r#"["n\"1","n2"]"#,
        node_type,
        field: |number: usize| fields[number].as_str(),
    });
    job_data(settings, &request, matches).expect("within the limit of bytes")
}

/// The value of a field in these checks.
fn field(of: &str, path: &str) -> String {
    format!("\"{path}\" of {of}")
}

/// The values of placeholders in one job.
struct Values<'a> {
    workflow: &'a str,
    node_type: &'a str,
    payload: &'a Value,
    organization: &'a str,
    user: Option<&'a str>,
}

impl Values<'_> {
    fn object(&self, template: &Map<String, Value>) -> Value {
        let members = template.iter().map(|(name, value)| (name.clone(), self.value(value)));
        Value::Object(members.collect())
    }

    fn value(&self, template: &Value) -> Value {
        match template {
            Value::Object(members) => self.object(members),
            Value::Array(elements) => elements.iter().map(|each| self.value(each)).collect(),
            Value::String(text) => self.text(text),
            constant => constant.clone(),
        }
    }

    /// A placeholder alone is its value; within other text it is written out.
    fn text(&self, text: &str) -> Value {
        let mut written = String::new();
        let mut values = Vec::new();
        let mut rest = text;
        while let Some(char) = rest.chars().next() {
            let after = &rest[char.len_utf8()..];
            if !matches!(char, '{' | '}') {
                written.push(char);
                rest = after;
            } else if after.starts_with(char) {
                written.push(char);
                rest = &after[1..];
            } else {
                let (name, after) = after.split_once('}').expect("an accepted template");
                let value = self.placeholder(name);
                match &value {
                    Value::String(text) => written.push_str(text),
                    Value::Null => {}
                    other => written.push_str(&other.to_string()),
                }
                values.push((name, value));
                rest = after;
            }
        }
        match values.as_slice() {
            [(name, value)] if text.len() == name.len() + 2 => value.clone(),
            _ => Value::String(written),
        }
    }

    fn placeholder(&self, name: &str) -> Value {
        match name {
            "workflowId" => self.workflow.into(),
            "nodeType" => self.node_type.into(),
            "nodeId" => "n\"1".into(),
            "nodeIds" => json!(["n\"1", "n2"]),
            "organizationId" => self.organization.into(),
            "userId" => self.user.into(),
            "webhookId" => "hook".into(),
            "requestId" => "request".into(),
            "receivedAt" => RECEIVED.into(),
            "receivedAtIso" => "2023-11-14T22:13:20.123Z".into(),
            "payload" => self.payload.clone(),
            "body" => json!({ "webhookId": "hook" }),
            "rawBody" => r#"{"webhookId":"hook"}"#.into(),
            "rawBodyEncoding" => "utf8".into(),
            "method" => "POST".into(),
            "path" => "/api/webhook/workflow".into(),
            "contentType" | "clientAddress" => Value::Null,
            "query" => json!({ "a": ["1", ""], "b": "\"" }),
            "headers" => json!({}),
            name => {
                let (of, path) = name.split_once('.').expect("a field");
                field(of, path).into()
            }
        }
    }
}
