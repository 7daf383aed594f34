//! What a webhook would start, for who asks why it has started nothing.

use crate::ids::{OrganizationId, WebhookId};
use crate::triggers::{TriggerIndex, Unknown};
use serde::Serialize;
use serde_json::value::RawValue;

/// The answer, as it is sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Preview {
    webhook_id: String,
    matched_count: usize,
    workflows: Vec<Started>,
    /// Switched off.
    inactive: Vec<NotStarted>,
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

impl Preview {
    pub(super) fn of(
        triggers: &TriggerIndex,
        organization: &OrganizationId,
        webhook: &WebhookId,
    ) -> Result<Self, Unknown> {
        let workflows: Vec<Started> = triggers.matching(organization, webhook, |matches| {
            let started = matches.map(|each| Started {
                workflow_id: each.workflow.as_str().to_owned(),
                node_ids: RawValue::from_string(each.node_ids.to_owned())
                    .expect("it was written as JSON"),
            });
            started.collect()
        })?;
        let inactive = triggers.inactive(organization, webhook, |matches| {
            matches
                .map(|each| NotStarted { workflow_id: each.workflow.as_str().to_owned() })
                .collect()
        });
        let age = triggers.freshness().age().unwrap_or_default();
        Ok(Self {
            webhook_id: webhook.as_str().to_owned(),
            matched_count: workflows.len(),
            workflows,
            inactive,
            index_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        })
    }
}
