//! What a request writes into the queue.

use super::idempotency::Idempotency;
use super::options::JobOptions;
use super::trace::TraceContext;
use crate::ids::{OrganizationId, RequestId, UserId, WebhookId};
use bytes::Bytes;
use serde::Serialize;
use std::ops::Range;
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
    pub idempotency: Option<Idempotency>,
}

impl Request<'_> {
    pub(super) fn payload_bytes(&self) -> usize {
        let [before, behind] = &self.payload;
        before.len() + behind.len()
    }
}

/// A workflow to start.
#[derive(Debug)]
pub struct Match<'a, W> {
    pub workflow: W,
    /// The ids of its matching nodes, as a JSON array.
    pub node_ids: &'a str,
}

/// The jobs of one request, ready for the script. Their data is `head + tail`: the tail, which
/// holds the payload, crosses the wire once for all of them.
#[derive(Debug, Default)]
pub struct Jobs {
    /// Options of these jobs; empty where they have those of the queue.
    pub(super) options: Bytes,
    /// Empty where there is one job, whose head is all of it.
    pub(super) tail: Bytes,
    pub(super) heads: Vec<Bytes>,
    pub(super) idempotency: Option<Idempotency>,
    /// All of it.
    pub(super) bytes: usize,
}

impl Jobs {
    pub(super) fn encode<'a>(
        request: &Request<'_>,
        matches: impl ExactSizeIterator<Item = Match<'a, impl AsRef<str>>>,
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

    /// What they count for in a batch: a request without a job has a key to be looked for.
    pub(super) fn weight(&self) -> usize {
        self.heads.len().max(1)
    }

    /// Whether there is no job, and no idempotency key to look for.
    pub(super) fn is_nothing(&self) -> bool {
        self.heads.is_empty() && self.idempotency.is_none()
    }

    /// Whether there is nothing to say of them beyond the data of one job.
    pub(super) fn is_ordinary(&self) -> bool {
        self.heads.len() == 1
            && self.tail.is_empty()
            && self.options.is_empty()
            && self.idempotency.is_none()
    }
}

/// The data of the jobs: what is their own, and what they share.
fn data<'a>(
    request: &Request<'_>,
    matches: impl ExactSizeIterator<Item = Match<'a, impl AsRef<str>>>,
) -> (Vec<Bytes>, Bytes) {
    let count = matches.len();
    let mut buffer = Vec::with_capacity(count * 320 + request.payload_bytes() + 128);
    let mut ends = Vec::with_capacity(count);
    let mut pieces = Pieces::default();
    for each in matches {
        append_head(&mut buffer, request, &each, &mut pieces);
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
    let begins = std::iter::once(0).chain(ends.iter().copied());
    (begins.zip(&ends).map(|(begin, end)| buffer.slice(begin..*end)).collect(), tail)
}

/// What all heads of a request have in common: written for the first, and copied from there.
#[derive(Default)]
struct Pieces {
    caller: Option<Range<usize>>,
    webhook: Option<Range<usize>>,
}

/// The data of a job up to the payload.
fn append_head(
    buffer: &mut Vec<u8>,
    request: &Request<'_>,
    each: &Match<'_, impl AsRef<str>>,
    pieces: &mut Pieces,
) {
    buffer.extend_from_slice(br#"{"workflowId":"#);
    append_json(buffer, each.workflow.as_ref());
    append_once(buffer, &mut pieces.caller, |buffer| {
        buffer.extend_from_slice(br#","organizationId":"#);
        append_json(buffer, request.organization.as_str());
        buffer.extend_from_slice(br#","userId":"#);
        append_json(buffer, request.user.as_str());
        buffer.extend_from_slice(br#","trigger":{"type":"WebhookTrigger","nodeIds":"#);
    });
    buffer.extend_from_slice(each.node_ids.as_bytes());
    append_once(buffer, &mut pieces.webhook, |buffer| {
        buffer.extend_from_slice(br#","webhookId":"#);
        append_json(buffer, request.webhook.as_str());
        buffer.extend_from_slice(br#","payload":"#);
    });
}

/// Copies a piece to the end, or writes it there if it is nowhere yet.
fn append_once(
    buffer: &mut Vec<u8>,
    piece: &mut Option<Range<usize>>,
    write: impl FnOnce(&mut Vec<u8>),
) {
    if let Some(piece) = piece {
        buffer.extend_from_within(piece.clone());
    } else {
        let begin = buffer.len();
        write(buffer);
        *piece = Some(begin..buffer.len());
    }
}

/// The data from the payload on.
fn append_tail(buffer: &mut Vec<u8>, request: &Request<'_>) {
    let since_epoch =
        request.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let [before, behind] = &request.payload;
    buffer.extend_from_slice(before);
    buffer.extend_from_slice(behind);
    buffer.extend_from_slice(br#"},"requestId":"#);
    append_json(buffer, request.id.as_str());
    buffer.extend_from_slice(br#","receivedAt":"#);
    buffer.extend_from_slice(since_epoch.as_millis().to_string().as_bytes());
    buffer.push(b'}');
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
        let workflows = ["w1", "w\"2"];
        let request = Request {
            id: &RequestId::take_over_or_make(Some(b"r")),
            received_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1234),
            organization: &OrganizationId::new("o").unwrap(),
            user: &UserId::new("u").unwrap(),
            webhook: &WebhookId::new("wh").unwrap(),
            payload: [Bytes::from_static(b"{\"a\":1.0"), Bytes::from_static(b"}")],
            trace: None,
            idempotency: None,
        };
        let options = JobOptions::read(&mut Settings::default().section("queue.job"));
        let matches = workflows.iter().map(|workflow| Match { workflow, node_ids: r#"["n1"]"# });
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
        assert!(!jobs.is_ordinary());
        assert_eq!(jobs.bytes, jobs.tail.len() + jobs.heads[0].len() + jobs.heads[1].len());

        let matches =
            workflows.iter().take(1).map(|workflow| Match { workflow, node_ids: r#"["n1"]"# });
        let only = Jobs::encode(&request, matches, &options);
        assert_eq!(data(&only), [expected("w1")]);
        assert!(only.is_ordinary());
        let none = Jobs::encode(&request, std::iter::empty::<Match<'_, &str>>(), &options);
        assert_eq!((none.heads.len(), none.bytes), (0, 0));
    }

    #[test]
    fn texts_are_written_as_json_has_them() {
        let alone = ('\0'..='\u{ff}').map(String::from);
        for text in alone.chain([String::new(), "größer \"1\"\\ \u{2028}".to_owned()]) {
            let mut buffer = Vec::new();
            append_json(&mut buffer, &text);
            assert_eq!(buffer, serde_json::to_vec(&text).unwrap());
        }
    }
}
