//! What a request writes into the queue.

use super::options::JobOptions;
use crate::ids::{OrganizationId, RequestId, UserId, WebhookId, WorkflowId};
use bytes::Bytes;
use serde::Serialize;
use std::time::SystemTime;

/// A request whose jobs are to be added.
#[derive(Debug)]
pub struct Request<'a> {
    pub id: &'a RequestId,
    pub received_at: SystemTime,
    pub organization: &'a OrganizationId,
    pub user: &'a UserId,
    pub webhook: &'a WebhookId,
    /// The payload, in two pieces.
    pub payload: [Bytes; 2],
    pub trace: Option<TraceContext>,
}

impl Request<'_> {
    pub(super) fn payload_bytes(&self) -> usize {
        let [before, behind] = &self.payload;
        before.len() + behind.len()
    }
}

/// A workflow to start.
#[derive(Debug)]
pub struct Match<'a> {
    pub workflow: &'a WorkflowId,
    /// The ids of its matching nodes, as a JSON array.
    pub node_ids: &'a str,
}

/// What the W3C asks everybody to pass on, in bytes. It is stored with every job.
const MAX_TRACESTATE: usize = 512;

/// The context of a trace, as BullMQ's instrumented workers read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext(serde_json::Value);

impl TraceContext {
    /// Takes the headers over if `traceparent` is one by the W3C's grammar.
    pub fn new(traceparent: &[u8], tracestate: Option<&[u8]>) -> Option<Self> {
        let traceparent =
            std::str::from_utf8(traceparent).ok().filter(|text| is_traceparent(text))?;
        let tracestate = tracestate.and_then(|bytes| std::str::from_utf8(bytes).ok());
        let is_short = |text: &&str| (1..=MAX_TRACESTATE).contains(&text.len());
        Some(Self(match tracestate.filter(is_short) {
            Some(tracestate) => {
                serde_json::json!({ "traceparent": traceparent, "tracestate": tracestate })
            }
            None => serde_json::json!({ "traceparent": traceparent }),
        }))
    }
}

/// `<version>-<trace id>-<parent id>-<flags>` in lower-case hex; version ff and ids of zeros are not.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let [version, trace, parent, flags] = parts.as_slice() else { return false };
    [version.len(), trace.len(), parent.len(), flags.len()] == [2, 32, 16, 2]
        && parts.iter().all(is_hex)
        && *version != "ff"
        && trace.bytes().any(|byte| byte != b'0')
        && parent.bytes().any(|byte| byte != b'0')
}

/// The jobs of one request, ready for the script. Their data is `head + tail`: the tail, which
/// holds the payload, crosses the wire once for all of them.
#[derive(Debug)]
pub(super) struct Jobs {
    /// Milliseconds since 1970, in decimal.
    pub(super) timestamp: Bytes,
    /// Options of these jobs; empty where they have those of the queue.
    pub(super) options: Bytes,
    pub(super) tail: Bytes,
    pub(super) heads: Vec<Bytes>,
    /// All of it.
    pub(super) bytes: usize,
}

impl Jobs {
    pub(super) fn encode<'a>(
        request: &Request<'_>,
        matches: impl ExactSizeIterator<Item = Match<'a>>,
        options: &JobOptions,
    ) -> Self {
        let since_epoch =
            request.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let timestamp = Bytes::from(since_epoch.as_millis().to_string());
        let trace = request.trace.as_ref();
        let options =
            trace.map_or_else(Bytes::new, |trace| options.to_json_with_trace(&trace.0).into());
        let heads = heads(request, matches);
        let tail = tail(request, &timestamp);
        let bytes = timestamp.len()
            + options.len()
            + tail.len()
            + heads.iter().map(Bytes::len).sum::<usize>();
        Self { timestamp, options, tail, heads, bytes }
    }
}

/// For each job, its data up to the payload.
fn heads<'a>(
    request: &Request<'_>,
    matches: impl ExactSizeIterator<Item = Match<'a>>,
) -> Vec<Bytes> {
    let mut shared = Vec::with_capacity(160);
    shared.extend_from_slice(br#","organizationId":"#);
    append_json(&mut shared, request.organization.as_str());
    shared.extend_from_slice(br#","userId":"#);
    append_json(&mut shared, request.user.as_str());
    shared.extend_from_slice(br#","trigger":{"type":"WebhookTrigger","nodeIds":"#);
    let mut webhook = br#","webhookId":"#.to_vec();
    append_json(&mut webhook, request.webhook.as_str());
    webhook.extend_from_slice(br#","payload":"#);

    let mut buffer = Vec::with_capacity(matches.len() * (shared.len() + webhook.len() + 64));
    let mut ends = Vec::with_capacity(matches.len());
    for each in matches {
        buffer.extend_from_slice(br#"{"workflowId":"#);
        append_json(&mut buffer, each.workflow.as_str());
        buffer.extend_from_slice(&shared);
        buffer.extend_from_slice(each.node_ids.as_bytes());
        buffer.extend_from_slice(&webhook);
        ends.push(buffer.len());
    }
    let buffer = Bytes::from(buffer);
    let begins = std::iter::once(0).chain(ends.iter().copied());
    begins.zip(&ends).map(|(begin, end)| buffer.slice(begin..*end)).collect()
}

/// The data from the payload on.
fn tail(request: &Request<'_>, timestamp: &[u8]) -> Bytes {
    let [before, behind] = &request.payload;
    let mut tail = Vec::with_capacity(before.len() + behind.len() + RequestId::MAX_BYTES + 64);
    tail.extend_from_slice(before);
    tail.extend_from_slice(behind);
    tail.extend_from_slice(br#"},"requestId":"#);
    append_json(&mut tail, request.id.as_str());
    tail.extend_from_slice(br#","receivedAt":"#);
    tail.extend_from_slice(timestamp);
    tail.push(b'}');
    Bytes::from(tail)
}

fn append_json(buffer: &mut Vec<u8>, text: &str) {
    let mut serializer = serde_json::Serializer::new(buffer);
    text.serialize(&mut serializer).expect("a text can be written as JSON into memory");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use std::time::Duration;

    #[test]
    fn data_has_its_members_in_the_promised_order() {
        let workflows = [WorkflowId::new("w1").unwrap(), WorkflowId::new("w\"2").unwrap()];
        let request = Request {
            id: &RequestId::take_over_or_make(Some(b"r")),
            received_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1234),
            organization: &OrganizationId::new("o").unwrap(),
            user: &UserId::new("u").unwrap(),
            webhook: &WebhookId::new("wh").unwrap(),
            payload: [Bytes::from_static(b"{\"a\":1.0"), Bytes::from_static(b"}")],
            trace: None,
        };
        let options = JobOptions::read(&mut Settings::default().section("queue.job"));
        let matches = workflows.iter().map(|workflow| Match { workflow, node_ids: r#"["n1"]"# });
        let jobs = Jobs::encode(&request, matches, &options);
        let data: Vec<Vec<u8>> =
            jobs.heads.iter().map(|head| [&head[..], &jobs.tail[..]].concat()).collect();
        let expected = |workflow: &str| {
            format!(
                r#"{{"workflowId":"{workflow}","organizationId":"o","userId":"u","trigger":{{"type":"WebhookTrigger","nodeIds":["n1"],"webhookId":"wh","payload":{{"a":1.0}}}},"requestId":"r","receivedAt":1234}}"#
            )
            .into_bytes()
        };
        assert_eq!(data, [expected("w1"), expected(r#"w\"2"#)]);
        assert_eq!(
            jobs.bytes,
            jobs.tail.len() + jobs.timestamp.len() + jobs.heads[0].len() + jobs.heads[1].len()
        );
    }

    #[test]
    fn only_a_traceparent_that_parses_is_taken_over() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::new(good.as_bytes(), Some(b"a=b")).unwrap();
        assert_eq!(context.0, serde_json::json!({ "traceparent": good, "tracestate": "a=b" }));
        for refused in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::new(refused.as_bytes(), None), None, "{refused}");
        }
    }
}
