//! What a webhook would start, for who asks why it has started nothing.
//!
//! It comes in pages. A page is a stretch of the webhook's workflows in the order of their ids, those that are switched off
//! among them, and `next` names the last one if there are more.

use super::rejection::Rejection;
use super::response::append;
use crate::admission::Permit;
use crate::ids::{OrganizationId, WebhookId};
use crate::triggers::{Matches, SkippedNode, TriggerIndex};
use serde::Serialize;
use std::collections::BinaryHeap;

/// Workflows of a page.
const PAGE: usize = 1000;

/// Skipped nodes that the first page names; those of the webhook itself come first.
const SKIPPED: usize = 100;

/// Bytes after which a page ends early: the ids of a workflow's nodes may be of any length.
const PAGE_BYTES: usize = 1 << 20;

/// The query member that names the last workflow of the page before.
const AFTER: &str = "after";

/// The answer, as it is sent, and what holds it.
#[derive(Debug)]
pub(super) struct Preview {
    pub(super) matched_count: usize,
    pub(super) text: Vec<u8>,
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
        let after = after(query);
        let age = triggers.freshness().age().unwrap_or_default();
        let (matched_count, page) = triggers.matching(organization, webhook, |matches| {
            let matched_count = matches.len();
            let page = triggers
                .inactive(organization, webhook, |inactive| Page::new(matches, inactive, &after));
            (matched_count, page)
        })?;
        let mut text = Vec::with_capacity(page.workflows.len() + page.inactive.len() + 1024);
        text.extend_from_slice(br#"{"success":true,"data":{"webhookId":"#);
        append(&mut text, webhook.as_str());
        text.extend_from_slice(br#","matchedCount":"#);
        append(&mut text, &matched_count);
        text.extend_from_slice(br#","workflows":["#);
        text.extend_from_slice(&page.workflows);
        text.extend_from_slice(br#"],"inactive":["#);
        text.extend_from_slice(&page.inactive);
        // Milliseconds since the index was known to be as the database is.
        text.extend_from_slice(br#"],"indexAgeMs":"#);
        append(&mut text, &u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        if let Some(next) = page.next {
            text.extend_from_slice(br#","next":"#);
            append(&mut text, &next);
        }
        if after.is_empty() {
            append_skipped(&mut text, triggers.skipped(organization, webhook, SKIPPED));
        }
        text.extend_from_slice(b"}}");
        permit.hold_instead(text.capacity())?;
        Ok(Self { matched_count, text, permit })
    }
}

/// A trigger node that may be why nothing starts: malformed, or not configured yet.
#[derive(Serialize)]
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

fn append_skipped(text: &mut Vec<u8>, skipped: Vec<(String, SkippedNode)>) {
    if skipped.is_empty() {
        return;
    }
    let skipped: Vec<_> = skipped.into_iter().map(Skipped::new).collect();
    text.extend_from_slice(br#","skippedNodes":"#);
    append(text, &skipped);
}

/// The page begins after this workflow; empty for the first page.
fn after(query: Option<&str>) -> String {
    let query = query.unwrap_or_default().as_bytes();
    let member = form_urlencoded::parse(query).find(|(name, _)| name == AFTER);
    member.map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// A workflow of a webhook. They are in the order of their ids.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Row<'a> {
    workflow: &'a str,
    /// As a JSON array; `None`: it is switched off.
    node_ids: Option<&'a str>,
}

/// Members of the two lists as JSON, and the last workflow if there are more.
#[derive(Default)]
struct Page {
    workflows: Vec<u8>,
    inactive: Vec<u8>,
    next: Option<String>,
}

impl Page {
    fn new(matches: Matches<'_>, inactive: Matches<'_>, after: &str) -> Self {
        let started = matches
            .map(|each| Row { workflow: each.workflow.as_str(), node_ids: Some(each.node_ids) });
        let not_started =
            inactive.map(|each| Row { workflow: each.workflow.as_str(), node_ids: None });
        let rows = first_of(started.chain(not_started).filter(|row| row.workflow > after));
        let mut page = Self::default();
        let mut last = None;
        for (count, row) in rows.iter().enumerate() {
            let bytes = page.workflows.len() + page.inactive.len();
            if count == PAGE || bytes >= PAGE_BYTES {
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

/// The first `PAGE` rows in order, plus the next one if there is one.
fn first_of<'a>(rows: impl Iterator<Item = Row<'a>>) -> Vec<Row<'a>> {
    let mut first = BinaryHeap::new();
    for row in rows {
        if first.len() <= PAGE {
            first.push(row);
        } else if let Some(mut last) = first.peek_mut().filter(|last| row < **last) {
            *last = row;
        }
    }
    first.into_sorted_vec()
}
