//! The jobs that every producer adds.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hookgate::ids::{OrganizationId, RequestId, UserId, WebhookId, WorkflowId};
use serde_json::Value;
use tokio::task::JoinSet;

/// A webhook that starts one workflow.
pub struct Webhook {
    pub request: RequestId,
    pub workflow: WorkflowId,
    pub payload: Bytes,
    /// The job's data as Hookgate builds it from the members above, for producers that take data as
    /// a whole.
    pub data: Value,
}

/// Many webhooks, and the caller that sends them.
#[derive(Clone)]
pub struct Jobs {
    pub organization: Arc<OrganizationId>,
    pub user: Arc<UserId>,
    pub webhook: Arc<WebhookId>,
    pub webhooks: Arc<[Webhook]>,
    /// Bytes of a job's data.
    pub data_bytes: usize,
}

impl Jobs {
    pub fn new(count: usize, data_bytes: usize) -> Self {
        Self {
            organization: Arc::new(OrganizationId::new("org_a").unwrap()),
            user: Arc::new(UserId::new("user_1").unwrap()),
            webhook: Arc::new(WebhookId::new("wh_1").unwrap()),
            webhooks: (0..count).map(|serial| Webhook::new(serial, data_bytes)).collect(),
            data_bytes,
        }
    }

    pub fn len(&self) -> usize {
        self.webhooks.len()
    }

    /// The first few.
    pub fn first(&self, count: usize) -> Self {
        if count < self.len() { Self::new(count, self.data_bytes) } else { self.clone() }
    }

    /// The data of all jobs, one per line.
    pub fn to_lines(&self) -> String {
        self.webhooks.iter().fold(String::new(), |mut lines, webhook| {
            writeln!(lines, "{}", webhook.data).unwrap();
            lines
        })
    }
}

impl Webhook {
    fn new(serial: usize, data_bytes: usize) -> Self {
        let (request, workflow) = (format!("request-{serial:024}"), format!("wf_{serial:06}"));
        let data = |payload: &str| {
            format!(
                r#"{{"workflowId":"{workflow}","organizationId":"org_a","userId":"user_1","trigger":{{"type":"WebhookTrigger","nodeIds":["n1"],"webhookId":"wh_1","payload":{payload}}},"requestId":"{request}","receivedAt":1700000000000}}"#
            )
        };
        let payload = |text: &str| format!(r#"{{"text":"{text}"}}"#);
        let text = "x".repeat(data_bytes - data(&payload("")).len());
        Self {
            data: serde_json::from_str(&data(&payload(&text))).unwrap(),
            payload: payload(&text).into(),
            request: RequestId::from_header_or_new(Some(request.as_bytes())),
            workflow: WorkflowId::new(&workflow).unwrap(),
        }
    }
}

/// Adds `count` jobs by `callers` callers, each of which waits for its job before it adds the next.
pub async fn share_out<Adding: Future<Output = ()> + Send>(
    callers: usize,
    count: usize,
    add: impl Fn(usize) -> Adding + Send + Sync + 'static,
) {
    let next = AtomicUsize::new(0);
    let shared = Arc::new((next, add));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            let (next, add) = &*shared;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                add(index).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no caller fails");
    }
}
