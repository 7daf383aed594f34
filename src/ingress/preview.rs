//! What a webhook would start, for who asks why it has started nothing.

use super::Webhook;
use super::rejection::Rejection;
use crate::ids::OrganizationId;
use crate::queue::{EnqueueError, Queue};
use crate::triggers::{SkippedNode, TriggerIndex};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

/// Workflows that are switched off and named; there may be any number of them.
const INACTIVE: usize = 1000;

/// Skipped nodes that are named; those of the webhook itself come first.
const SKIPPED: usize = 100;

/// The answer, as it is sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Preview {
    webhook_id: String,
    pub(super) matched_count: usize,
    workflows: Vec<Started>,
    /// Switched off; the first of them.
    inactive: Vec<NotStarted>,
    /// Trigger nodes that may be why nothing starts: malformed, or not configured yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped_nodes: Vec<Skipped>,
    /// Milliseconds since the index was known to be as the database is.
    index_age_ms: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    workflow_id: String,
    node_ids: Box<RawValue>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NotStarted {
    workflow_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Skipped {
    workflow_id: String,
    node_id: Option<Box<str>>,
    reason: String,
}

impl Skipped {
    fn new((workflow_id, node): (String, SkippedNode)) -> Self {
        Self { workflow_id, reason: node.reason(), node_id: node.id }
    }
}

impl Preview {
    /// Refused as the webhook itself would be, if it would start too much.
    pub(super) fn of(
        triggers: &TriggerIndex,
        queue: &Queue,
        organization: &OrganizationId,
        Webhook { id: webhook, payload }: &Webhook,
    ) -> Result<Self, Rejection> {
        let bytes = payload.iter().map(Bytes::len).sum();
        let workflows = triggers.matching(organization, webhook, |matches| {
            queue.check_size(matches.len(), bytes)?;
            let started = matches.map(|each| Started {
                workflow_id: each.workflow.as_str().to_owned(),
                node_ids: RawValue::from_string(each.node_ids.to_owned())
                    .expect("it was written as JSON"),
            });
            Ok::<Vec<Started>, EnqueueError>(started.collect())
        })??;
        let inactive = triggers.inactive(organization, webhook, |matches| {
            matches
                .take(INACTIVE)
                .map(|each| NotStarted { workflow_id: each.workflow.as_str().to_owned() })
                .collect()
        });
        let skipped = triggers.skipped(organization, webhook, SKIPPED).into_iter();
        let age = triggers.freshness().age().unwrap_or_default();
        Ok(Self {
            webhook_id: webhook.as_str().to_owned(),
            matched_count: workflows.len(),
            workflows,
            inactive,
            skipped_nodes: skipped.map(Skipped::new).collect(),
            index_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        })
    }
}
