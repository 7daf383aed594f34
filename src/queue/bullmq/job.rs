//! Encodes the jobs of a request.

use crate::ids::{OrganizationId, RequestId, UserId, WebhookId};
use crate::process::unix_time;
use crate::queue::bullmq::idempotency::Idempotency;
use crate::queue::bullmq::options::JobOptions;
use crate::queue::bullmq::trace::TraceContext;
use bytes::Bytes;
use serde::Serialize;
use std::ops::Range;
use std::time::SystemTime;

/// A request whose jobs are to be added.
#[derive(Debug)]
pub struct EnqueueRequest<'a> {
    pub id: &'a RequestId,
    pub received_at: SystemTime,
    pub organization: &'a OrganizationId,
    pub user: &'a UserId,
    pub webhook: &'a WebhookId,
    /// The payload, in two pieces around the removed `webhookId`.
    pub payload: [Bytes; 2],
    pub trace: Option<TraceContext>,
    pub idempotency: Option<Idempotency>,
}

impl EnqueueRequest<'_> {
    pub(in crate::queue) fn payload_bytes(&self) -> usize {
        let [before, after] = &self.payload;
        before.len() + after.len()
    }
}

/// A workflow to start.
#[derive(Debug)]
pub struct WorkflowMatch<'a, W> {
    pub workflow: W,
    /// The ids of its matching nodes, as a JSON array.
    pub node_ids: &'a str,
}

/// The jobs of one request, encoded for the script. The data of a job is `head + tail`. The tail
/// contains the payload and crosses the wire once for all jobs.
#[derive(Debug, Default)]
pub struct Jobs {
    /// Options of these jobs; empty if they have the options of the queue.
    pub(in crate::queue) options: Bytes,
    /// Empty if there is one job. Its head is then all of its data.
    pub(in crate::queue) tail: Bytes,
    pub(in crate::queue) heads: Vec<Bytes>,
    pub(in crate::queue) idempotency: Option<Idempotency>,
    /// Total bytes of the other fields.
    pub(in crate::queue) bytes: usize,
}

impl Jobs {
    pub(in crate::queue) fn encode<'a>(
        request: &EnqueueRequest<'_>,
        matches: impl ExactSizeIterator<Item = WorkflowMatch<'a, impl AsRef<str>>>,
        options: &JobOptions,
    ) -> Self {
        let trace = request.trace.as_ref();
        let options = trace
            .map_or_else(Bytes::new, |trace| options.to_json_with_trace(trace.as_json()).into());
        let (heads, tail) = data(request, matches);
        let idempotency = request.idempotency.clone();
        let bytes = options.len()
            + tail.len()
            + heads.iter().map(Bytes::len).sum::<usize>()
            + idempotency.as_ref().map_or(0, Idempotency::bytes);
        Self { options, tail, heads, idempotency, bytes }
    }

    /// The number of jobs that the request counts for in a batch. A request without jobs counts for
    /// one, because its idempotency key is looked up.
    pub(in crate::queue) fn weight(&self) -> usize {
        self.heads.len().max(1)
    }

    /// Whether there is neither a job nor an idempotency key to look up.
    pub(in crate::queue) fn is_noop(&self) -> bool {
        self.heads.is_empty() && self.idempotency.is_none()
    }

    /// Whether the request is sent in the short form, as the data of its only job.
    pub(in crate::queue) fn is_short_form(&self) -> bool {
        self.heads.len() == 1
            && self.tail.is_empty()
            && self.options.is_empty()
            && self.idempotency.is_none()
    }
}

/// Encodes the data of the jobs: the head of each, and the tail that they share.
fn data<'a>(
    request: &EnqueueRequest<'_>,
    matches: impl ExactSizeIterator<Item = WorkflowMatch<'a, impl AsRef<str>>>,
) -> (Vec<Bytes>, Bytes) {
    let count = matches.len();
    let mut buffer = Vec::with_capacity(count * 320 + request.payload_bytes() + 128);
    let mut ends = Vec::with_capacity(count);
    let mut template = HeadTemplate::default();
    for each in matches {
        append_head(&mut buffer, request, &each, &mut template);
        ends.push(buffer.len());
    }
    if count > 0 {
        append_tail(&mut buffer, request);
    }
    if let [only] = ends.as_mut_slice() {
        *only = buffer.len();
    }
    let buffer = Bytes::from(buffer);
    let tail = buffer.slice(ends.last().copied().unwrap_or(0)..);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    (starts.zip(&ends).map(|(start, end)| buffer.slice(start..*end)).collect(), tail)
}

/// Where the parts that all heads of a request share are in the buffer. They are encoded for the
/// first head and copied for the others.
#[derive(Default)]
struct HeadTemplate {
    caller: Option<Range<usize>>,
    webhook: Option<Range<usize>>,
}

/// Appends the data of a job up to the payload.
fn append_head(
    buffer: &mut Vec<u8>,
    request: &EnqueueRequest<'_>,
    each: &WorkflowMatch<'_, impl AsRef<str>>,
    template: &mut HeadTemplate,
) {
    buffer.extend_from_slice(br#"{"workflowId":"#);
    append_json(buffer, each.workflow.as_ref());
    append_once(buffer, &mut template.caller, |buffer| {
        buffer.extend_from_slice(br#","organizationId":"#);
        append_json(buffer, request.organization.as_str());
        buffer.extend_from_slice(br#","userId":"#);
        append_json(buffer, request.user.as_str());
        buffer.extend_from_slice(br#","trigger":{"type":"WebhookTrigger","nodeIds":"#);
    });
    buffer.extend_from_slice(each.node_ids.as_bytes());
    append_once(buffer, &mut template.webhook, |buffer| {
        buffer.extend_from_slice(br#","webhookId":"#);
        append_json(buffer, request.webhook.as_str());
        buffer.extend_from_slice(br#","payload":"#);
    });
}

/// Appends a part: copies it from `range` if it was encoded before, otherwise encodes it and sets
/// `range`.
fn append_once(
    buffer: &mut Vec<u8>,
    range: &mut Option<Range<usize>>,
    write: impl FnOnce(&mut Vec<u8>),
) {
    if let Some(range) = range {
        buffer.extend_from_within(range.clone());
    } else {
        let start = buffer.len();
        write(buffer);
        *range = Some(start..buffer.len());
    }
}

/// Appends the data from the payload to the end.
fn append_tail(buffer: &mut Vec<u8>, request: &EnqueueRequest<'_>) {
    let received_at = unix_time::milliseconds(request.received_at);
    let [before, after] = &request.payload;
    buffer.extend_from_slice(before);
    buffer.extend_from_slice(after);
    buffer.extend_from_slice(br#"},"requestId":"#);
    append_json(buffer, request.id.as_str());
    buffer.extend_from_slice(br#","receivedAt":"#);
    buffer.extend_from_slice(received_at.to_string().as_bytes());
    buffer.push(b'}');
}

fn append_json(buffer: &mut Vec<u8>, string: &str) {
    let mut serializer = serde_json::Serializer::new(buffer);
    string.serialize(&mut serializer).expect("writing a string as JSON to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SettingsReader;
    use std::time::Duration;

    #[test]
    fn the_data_of_a_job_has_the_documented_order_of_members() {
        let workflows = ["w1", "w\"2"];
        let request = EnqueueRequest {
            id: &RequestId::from_header_or_new(Some(b"r")),
            received_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1234),
            organization: &OrganizationId::new("o").unwrap(),
            user: &UserId::new("u").unwrap(),
            webhook: &WebhookId::new("wh").unwrap(),
            payload: [Bytes::from_static(b"{\"a\":1.0"), Bytes::from_static(b"}")],
            trace: None,
            idempotency: None,
        };
        let options = JobOptions::read(&mut SettingsReader::default().section("queue.job"));
        let matches =
            workflows.iter().map(|workflow| WorkflowMatch { workflow, node_ids: r#"["n1"]"# });
        let jobs = Jobs::encode(&request, matches, &options);
        let data = |jobs: &Jobs| -> Vec<Vec<u8>> {
            jobs.heads.iter().map(|head| [&head[..], &jobs.tail[..]].concat()).collect()
        };
        let expected = |workflow: &str| {
            format!(
                r#"{{"workflowId":"{workflow}","organizationId":"o","userId":"u","trigger":{{"type":"WebhookTrigger","nodeIds":["n1"],"webhookId":"wh","payload":{{"a":1.0}}}},"requestId":"r","receivedAt":1234}}"#
            )
            .into_bytes()
        };
        assert_eq!(data(&jobs), [expected("w1"), expected(r#"w\"2"#)]);
        assert!(!jobs.is_short_form());
        assert_eq!(jobs.bytes, jobs.tail.len() + jobs.heads[0].len() + jobs.heads[1].len());

        let matches = workflows
            .iter()
            .take(1)
            .map(|workflow| WorkflowMatch { workflow, node_ids: r#"["n1"]"# });
        let only = Jobs::encode(&request, matches, &options);
        assert_eq!(data(&only), [expected("w1")]);
        assert!(only.is_short_form());
        let none = Jobs::encode(&request, std::iter::empty::<WorkflowMatch<'_, &str>>(), &options);
        assert_eq!((none.heads.len(), none.bytes), (0, 0));
    }

    #[test]
    fn strings_are_encoded_as_json() {
        let characters = ('\0'..='\u{ff}').map(String::from);
        for string in characters.chain([String::new(), "größer \"1\"\\ \u{2028}".to_owned()]) {
            let mut buffer = Vec::new();
            append_json(&mut buffer, &string);
            assert_eq!(buffer, serde_json::to_vec(&string).unwrap());
        }
    }
}
