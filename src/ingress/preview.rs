//! Reports what a webhook would start, so that a sender can find out why it started nothing.
//!
//! The report has pages. A page lists workflows of the webhook in the order of their ids, including
//! those that are switched off. If more follow, `next` is the id of the last one of the page.

use crate::admission::Permit;
use crate::ids::{OrganizationId, WebhookId};
use crate::ingress::rejection::Rejection;
use crate::ingress::response::append;
use crate::triggers::{Matches, SkippedNode, TriggerIndex};
use serde::Serialize;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Maximum workflows per page.
pub(super) const PAGE_WORKFLOWS: usize = 1000;

/// Maximum skipped nodes on the first page, those of the webhook itself first.
const MAX_SKIPPED: usize = 100;

/// Bytes after which a page ends early, because the ids of nodes may have any length.
pub(super) const PAGE_BYTES: usize = 1 << 20;

/// The query parameter with the last workflow of the previous page.
const AFTER_PARAMETER: &str = "after";

/// The body of the answer, and the permit that its memory counts against.
#[derive(Debug)]
pub(super) struct Preview {
    pub(super) matched_count: usize,
    pub(super) json: Vec<u8>,
    pub(super) permit: Permit,
}

impl Preview {
    pub(super) fn new(
        triggers: &TriggerIndex,
        organization: &OrganizationId,
        webhook: &WebhookId,
        query: Option<&str>,
        mut permit: Permit,
    ) -> Result<Self, Rejection> {
        let after = parse_after(query);
        let age = triggers.freshness().age().unwrap_or_default();
        let (matched_count, page) = triggers.matching(organization, webhook, |matches| {
            let matched_count = matches.len();
            let page = triggers.inactive(organization, webhook, |inactive| {
                PreviewPage::new(matches, inactive, &after)
            });
            (matched_count, page)
        })?;
        let mut json = Vec::with_capacity(page.workflows.len() + page.inactive.len() + 1024);
        json.extend_from_slice(br#"{"success":true,"data":{"webhookId":"#);
        append(&mut json, webhook.as_str());
        json.extend_from_slice(br#","matchedCount":"#);
        append(&mut json, &matched_count);
        json.extend_from_slice(br#","workflows":["#);
        json.extend_from_slice(&page.workflows);
        json.extend_from_slice(br#"],"inactive":["#);
        json.extend_from_slice(&page.inactive);
        json.push(b']');
        append_position(&mut json, age, page.next.as_deref());
        if after.is_empty() {
            append_skipped(&mut json, triggers.skipped(organization, webhook, MAX_SKIPPED));
        }
        json.extend_from_slice(b"}}");
        permit.resize(json.capacity())?;
        Ok(Self { matched_count, json, permit })
    }
}

/// Appends the age of the index and, if more workflows follow, the last one of the page.
pub(super) fn append_position(json: &mut Vec<u8>, age: Duration, next: Option<&str>) {
    // Milliseconds since the index was last known to equal the database.
    json.extend_from_slice(br#","indexAgeMs":"#);
    append(json, &u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    if let Some(next) = next {
        json.extend_from_slice(br#","next":"#);
        append(json, next);
    }
}

/// A trigger node that is malformed or not configured yet, which may be why nothing starts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SkippedRow {
    workflow_id: String,
    node_id: Option<Box<str>>,
    reason: String,
}

impl SkippedRow {
    fn new((workflow_id, node): (String, SkippedNode)) -> Self {
        Self { workflow_id, reason: node.reason(), node_id: node.id }
    }
}

fn append_skipped(json: &mut Vec<u8>, skipped: Vec<(String, SkippedNode)>) {
    if skipped.is_empty() {
        return;
    }
    let skipped: Vec<_> = skipped.into_iter().map(SkippedRow::new).collect();
    json.extend_from_slice(br#","skippedNodes":"#);
    append(json, &skipped);
}

/// Returns the workflow after which the page begins; empty for the first page.
pub(super) fn parse_after(query: Option<&str>) -> String {
    let query = query.unwrap_or_default().as_bytes();
    let member = form_urlencoded::parse(query).find(|(name, _)| name == AFTER_PARAMETER);
    member.map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// A workflow of a webhook. Rows are ordered by workflow id.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Row<'a> {
    workflow: &'a str,
    /// A JSON array of the matched nodes; `None` if the workflow is switched off.
    node_ids: Option<&'a str>,
}

/// The elements of the two lists as JSON, and the last workflow if more follow.
#[derive(Default)]
struct PreviewPage {
    workflows: Vec<u8>,
    inactive: Vec<u8>,
    next: Option<String>,
}

impl PreviewPage {
    fn new(matches: Matches<'_>, inactive: Matches<'_>, after: &str) -> Self {
        let started = matches
            .map(|each| Row { workflow: each.workflow.as_str(), node_ids: Some(each.node_ids) });
        let not_started =
            inactive.map(|each| Row { workflow: each.workflow.as_str(), node_ids: None });
        let rows = first_rows(started.chain(not_started).filter(|row| row.workflow > after));
        let mut page = Self::default();
        let mut last = None;
        for (count, row) in rows.iter().enumerate() {
            let bytes = page.workflows.len() + page.inactive.len();
            if count == PAGE_WORKFLOWS || bytes >= PAGE_BYTES {
                page.next = last.map(str::to_owned);
                break;
            }
            page.add(row);
            last = Some(row.workflow);
        }
        page
    }

    fn add(&mut self, row: &Row<'_>) {
        let list = if row.node_ids.is_some() { &mut self.workflows } else { &mut self.inactive };
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(br#"{"workflowId":"#);
        append(list, row.workflow);
        if let Some(node_ids) = row.node_ids {
            list.extend_from_slice(br#","nodeIds":"#);
            list.extend_from_slice(node_ids.as_bytes());
        }
        list.push(b'}');
    }
}

/// The first `PAGE_WORKFLOWS` rows in order, and the next one if it exists, which shows that
/// more follow.
fn first_rows<'a>(rows: impl Iterator<Item = Row<'a>>) -> Vec<Row<'a>> {
    let mut first = BinaryHeap::new();
    for row in rows {
        if first.len() <= PAGE_WORKFLOWS {
            first.push(row);
        } else if let Some(mut last) = first.peek_mut().filter(|last| row < **last) {
            *last = row;
        }
    }
    first.into_sorted_vec()
}
