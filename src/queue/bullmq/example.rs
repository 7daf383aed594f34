//! An example of a job, for `hookgate example-job`.

use crate::ids::{OrganizationId, RequestId, UserId, WebhookId};
use crate::queue::bullmq::job::Jobs;
use crate::queue::bullmq::job_data::JobData;
use crate::queue::bullmq::json_string::append_string;
use crate::queue::bullmq::options::JobOptions;
use crate::queue::bullmq::request::{
    EnqueueRequest, HeaderFields, HttpHead, Origin, WorkflowMatch,
};
use crate::queue::bullmq::template_fields::TemplateFields;
use crate::queue::settings::QueueSettings;
use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr};

/// The body of the example, and its payload. Workers get both byte for byte, so it has a number
/// that JSON libraries change. The whole body of a delivery is its payload.
const BODY: &str = r#"{"webhookId":"example-webhook","exampleNumber":1.0e2}"#;
const PAYLOAD: &str = r#"{"exampleNumber":1.0e2}"#;

const WEBHOOK_PATH: &str = "/api/webhook/workflow";
const DELIVERY_PATH: &str = "/api/webhook/in/example-organization/example-webhook";

/// Header fields whose values consist of their names.
#[derive(Debug)]
struct ExampleHeaders;

impl HeaderFields for ExampleHeaders {
    fn visit_values(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        match name {
            "content-type" => visit(b"application/json"),
            _ => visit(format!("example {name}").as_bytes()),
        }
    }
}

/// A job as these settings would write it, with made-up values: its name, data and options as one
/// JSON document. `node_type` is a type of trigger nodes.
pub fn example_job(
    settings: &QueueSettings,
    node_type: &str,
    origin: Origin,
) -> anyhow::Result<String> {
    let TemplateFields { workflow, node } = &settings.template_fields;
    let workflow = workflow.iter().map(|field| format!("example workflow.{}", field.path));
    let node = node.iter().map(|field| format!("example node.{}", field.path));
    let as_json = |text: String| serde_json::Value::from(text).to_string();
    let fields: Vec<String> = workflow.chain(node).map(as_json).collect();
    let example = WorkflowMatch {
        workflow: "example-workflow",
        node_ids: r#"["example-node"]"#,
        node_type,
        field: |number: usize| fields.get(number).map_or("null", String::as_str),
    };
    let (options, data) = (settings.job.load(), settings.data.load());
    let jobs = encode(example, origin, &options, &data)?;
    let mut json = br#"{"name":"#.to_vec();
    append_string(&mut json, &settings.job_name);
    json.extend_from_slice(br#","data":"#);
    jobs.heads.iter().for_each(|head| json.extend_from_slice(head));
    json.extend_from_slice(br#","opts":"#);
    json.extend_from_slice(&options.json);
    json.push(b'}');
    Ok(indented(&String::from_utf8(json)?))
}

/// The data of each job that these settings write for a request, for tests; `None` if there are
/// more than `queue.max_fanout_bytes`.
pub fn job_data<'a>(
    settings: &QueueSettings,
    request: &EnqueueRequest<'_>,
    matches: impl ExactSizeIterator<
        Item = WorkflowMatch<'a, impl AsRef<str>, impl Fn(usize) -> &'a str>,
    >,
) -> Option<Vec<Vec<u8>>> {
    let (options, data) = (settings.job.load(), settings.data.load());
    let jobs = Jobs::encode(request, matches, &options, &data, settings.max_fanout_bytes).ok()?;
    Some(jobs.heads.iter().map(|head| [&head[..], &jobs.tail[..]].concat()).collect())
}

fn encode<'a>(
    example: WorkflowMatch<'a, &str, impl Fn(usize) -> &'a str>,
    origin: Origin,
    options: &JobOptions,
    data: &JobData,
) -> anyhow::Result<Jobs> {
    let id = RequestId::from_header_or_new(Some(b"example-request"));
    let organization = OrganizationId::new("example-organization")?;
    let user = UserId::new("example-user")?;
    let webhook = WebhookId::new("example-webhook")?;
    let (user, path, body) = match origin {
        Origin::Webhook => (Some(&user), WEBHOOK_PATH, BODY),
        Origin::Delivery => (None, DELIVERY_PATH, PAYLOAD),
    };
    let payload = Bytes::from_static(PAYLOAD.as_bytes());
    let plain = EnqueueRequest::of_payload(&id, &organization, &webhook, payload);
    let request = EnqueueRequest {
        origin,
        user,
        body: Bytes::from_static(body.as_bytes()),
        head: HttpHead {
            path,
            query: Some("example=1&repeated=1&repeated=2"),
            client_address: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
            headers: &ExampleHeaders,
            ..plain.head
        },
        ..plain
    };
    let jobs = Jobs::encode(&request, std::iter::once(example), options, data, usize::MAX);
    jobs.map_err(|_| anyhow::anyhow!("the data of the example is too long"))
}

/// The same JSON with each member and element on a line of its own. Numbers and strings stay as
/// they are written.
fn indented(json: &str) -> String {
    let (mut text, mut depth) = (String::with_capacity(2 * json.len()), 0);
    let (mut in_string, mut is_escaped) = (false, false);
    let mut last = ' ';
    for character in json.chars() {
        let is_first = matches!(last, '{' | '[') && !in_string;
        match character {
            _ if in_string => {
                in_string = character != '"' || is_escaped;
                is_escaped = character == '\\' && !is_escaped;
            }
            '}' | ']' => {
                depth -= 1;
                if !is_first {
                    start_line(&mut text, depth);
                }
            }
            _ => {
                if is_first {
                    start_line(&mut text, depth);
                }
                in_string = character == '"';
                depth += usize::from(matches!(character, '{' | '['));
            }
        }
        text.push(character);
        // A brace within a string is no brace.
        last = if in_string { ' ' } else { character };
        match last {
            ',' => start_line(&mut text, depth),
            ':' => text.push(' '),
            _ => {}
        }
    }
    text
}

fn start_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.push_str(&"  ".repeat(depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_otherwise_unchanged() {
        let json = r#"{"a":[],"b":{},"c":[1.0e2,"x:{\",[\\"],"d":{"e":null}}"#;
        let expected = r#"{
  "a": [],
  "b": {},
  "c": [
    1.0e2,
    "x:{\",[\\"
  ],
  "d": {
    "e": null
  }
}"#;
        assert_eq!(indented(json), expected);
    }
}
