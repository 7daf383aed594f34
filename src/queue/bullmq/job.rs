//! Encodes the jobs of a request.

use crate::queue::bullmq::data::{self, TooManyBytes};
use crate::queue::bullmq::idempotency::Idempotency;
use crate::queue::bullmq::job_data::JobData;
use crate::queue::bullmq::options::JobOptions;
use crate::queue::bullmq::request::{EnqueueRequest, WorkflowMatch};
use crate::queue::bullmq::trace::TraceContext;
use crate::traces::ParentSpan;
use bytes::Bytes;
use std::time::SystemTime;

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
    /// Set if the request is traced.
    pub(in crate::queue) traced: Option<Box<TracedJobs>>,
}

/// What the spans of the jobs of a request need.
#[derive(Debug)]
pub(in crate::queue) struct TracedJobs {
    /// The span of the request.
    pub(in crate::queue) parent: ParentSpan,
    pub(in crate::queue) encoded_at: SystemTime,
}

impl Jobs {
    /// Fails if the data of all jobs has more than `max_bytes`.
    pub(in crate::queue) fn encode<'a>(
        request: &EnqueueRequest<'_>,
        matches: impl ExactSizeIterator<
            Item = WorkflowMatch<'a, impl AsRef<str>, impl Fn(usize) -> &'a str>,
        >,
        options: &JobOptions,
        data: &JobData,
        max_bytes: usize,
    ) -> Result<Self, TooManyBytes> {
        let trace = request.trace.as_ref();
        let options = trace
            .map_or_else(Bytes::new, |trace| options.to_json_with_trace(trace.as_json()).into());
        let (heads, tail) = data::encode(request, matches, data, max_bytes)?;
        let idempotency = request.idempotency.clone();
        let bytes = options.len()
            + tail.len()
            + heads.iter().map(Bytes::len).sum::<usize>()
            + idempotency.as_ref().map_or(0, Idempotency::bytes);
        let parent = trace.and_then(TraceContext::span).cloned();
        let traced = parent.map(|parent| TracedJobs { parent, encoded_at: SystemTime::now() });
        Ok(Self { options, tail, heads, idempotency, bytes, traced: traced.map(Box::new) })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{OrganizationId, RequestId, UserId, WebhookId};
    use crate::queue::bullmq::request::Origin;
    use crate::settings::SettingsReader;
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_data_of_a_job_has_the_documented_order_of_members() {
        let workflows = ["w1", "w\"2"];
        let id = RequestId::from_header_or_new(Some(b"r"));
        let (organization, user) = (OrganizationId::new("o").unwrap(), UserId::new("u").unwrap());
        let webhook = WebhookId::new("wh").unwrap();
        let request = EnqueueRequest {
            received_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1234),
            user: Some(&user),
            payload: [Bytes::from_static(b"{\"a\":1.0"), Bytes::from_static(b"}")],
            ..EnqueueRequest::of_payload(&id, &organization, &webhook, Bytes::new())
        };
        let options = JobOptions::read(&mut SettingsReader::default().section("queue.job"));
        let (data_settings, _) = JobData::read(&mut SettingsReader::default().section("queue"));
        let encode = |workflows: &[&'static str], max_bytes| {
            let matches = workflows.iter().map(|workflow| WorkflowMatch {
                workflow,
                node_ids: r#"["n1"]"#,
                node_type: "WebhookTrigger",
                field: |_| "null",
            });
            Jobs::encode(&request, matches, &options, &data_settings, max_bytes)
        };
        let jobs = encode(&workflows, usize::MAX).unwrap();
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

        let only = encode(&workflows[..1], usize::MAX).unwrap();
        assert_eq!(data(&only), [expected("w1")]);
        assert!(only.is_short_form());
        let none = encode(&[], 0).unwrap();
        assert_eq!((none.heads.len(), none.bytes), (0, 0));

        let bytes: usize = data(&jobs).iter().map(Vec::len).sum();
        assert!(encode(&workflows, bytes).is_ok());
        assert_eq!(encode(&workflows, bytes - 1).unwrap_err(), TooManyBytes(bytes));
    }
    /// The payload and what the head says cross the wire once for all jobs.
    #[test]
    fn the_jobs_of_a_delivery_share_what_the_request_says() {
        let id = RequestId::from_header_or_new(Some(b"r"));
        let organization = OrganizationId::new("o").unwrap();
        let webhook = WebhookId::new("wh").unwrap();
        let payload = Bytes::from_static(b"[1.0]");
        let request = EnqueueRequest {
            origin: Origin::Delivery,
            received_at: SystemTime::UNIX_EPOCH,
            ..EnqueueRequest::of_payload(&id, &organization, &webhook, payload)
        };
        let options = JobOptions::read(&mut SettingsReader::default().section("queue.job"));
        let (data, _) = JobData::read(&mut SettingsReader::default().section("queue"));
        let matches = ["w1", "w2"].map(|workflow| WorkflowMatch {
            workflow,
            node_ids: "[]",
            node_type: "t",
            field: |_| "null",
        });
        let jobs =
            Jobs::encode(&request, matches.into_iter(), &options, &data, usize::MAX).unwrap();
        let head = |workflow: &str| {
            format!(
                r#"{{"workflowId":"{workflow}","organizationId":"o","userId":null,"trigger":{{"type":"t","nodeIds":[]"#
            )
        };
        assert_eq!(jobs.heads, [head("w1"), head("w2")]);
        let tail = r#","webhookId":"wh","payload":[1.0],"request":{"method":"POST","path":"/api/webhook/workflow","query":{},"headers":{},"contentType":null}},"requestId":"r","receivedAt":0}"#;
        assert_eq!(jobs.tail, tail);
    }
}
