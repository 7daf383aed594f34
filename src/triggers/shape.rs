//! What workflow documents have at the configured paths.

use crate::endpoints::verification::Verification;
use crate::mirror::document::array;
use crate::mirror::path_survey::{PathSurvey, count, documents_of, list};
use crate::mirror::paths::projected;
use crate::triggers::document::{WorkflowRecord, trigger_type};
use crate::triggers::fields::Fields;
use crate::triggers::kept_fields::KeptField;
use crate::triggers::posting::PostingLayout;
use bson::{RawBsonRef, RawDocument};
use std::collections::BTreeMap;

/// Looks for the triggers of whole documents.
pub(super) fn shape(
    documents: &[&RawDocument],
    fields: &Fields,
    layout: &PostingLayout,
) -> PathSurvey {
    let records =
        documents.iter().filter_map(|each| WorkflowRecord::read(each, fields, layout).ok());
    let triggers: usize = records.map(|record| record.triggers.len()).sum();
    let summary = format!(
        "{} in {}, from {} where {} is {}, by {} and {}",
        count(triggers as u64, "trigger"),
        count(documents.len() as u64, "document"),
        fields.nodes,
        fields.node_type,
        fields.node_types.join(" or "),
        fields.webhook_id,
        fields.node_id,
    );
    let mut shape = PathSurvey { summary, missing: Vec::new() };
    shape.expect("document", documents, &fields.organization, true);
    shape.expect_active(documents, &fields.active);
    for KeptField { path, .. } in &fields.kept.workflow {
        shape.expect("document", documents, path, true);
    }
    if shape.expect("document", documents, &fields.nodes, true) {
        let nodes = documents.iter().filter_map(|each| array(each, &fields.nodes).ok());
        let nodes: Vec<&RawDocument> =
            nodes.flat_map(|array| documents_of(RawBsonRef::Array(array))).collect();
        expect_triggers(&mut shape, &nodes, fields);
    }
    shape
}

/// Looks for the trigger nodes among all nodes, and for their ids.
fn expect_triggers(shape: &mut PathSurvey, nodes: &[&RawDocument], fields: &Fields) {
    if !shape.expect("node", nodes, &fields.node_type, true) {
        return;
    }
    let triggers: Vec<&RawDocument> =
        nodes.iter().copied().filter(|node| trigger_type(node, fields).is_some()).collect();
    if triggers.is_empty() && !nodes.is_empty() {
        let types = nodes.iter().filter_map(|node| match projected(node, &fields.node_type) {
            Ok(Some(RawBsonRef::String(node_type))) => Some(node_type.to_owned()),
            _ => None,
        });
        let sentence = format!(
            "no node has a {} of {}; they have {}",
            fields.node_type,
            fields.node_types.join(" or "),
            list(types)
        );
        shape.add_problem(sentence);
    }
    shape.expect("trigger node", &triggers, &fields.webhook_id, true);
    shape.expect("trigger node", &triggers, &fields.node_id, true);
    if let Some(field) = &fields.verification {
        shape.expect("trigger node", &triggers, &field.path, false);
        expect_strong_verifications(shape, &triggers, &field.path);
    }
    for KeptField { path, .. } in &fields.kept.node {
        shape.expect("trigger node", &triggers, path, true);
    }
}

/// Counts the verifications that are valid but weak.
fn expect_strong_verifications(shape: &mut PathSurvey, triggers: &[&RawDocument], path: &str) {
    let mut weak: BTreeMap<&str, u64> = BTreeMap::new();
    for trigger in triggers {
        let Ok(Some(RawBsonRef::Document(description))) = projected(trigger, path) else {
            continue;
        };
        let warnings = Verification::from_document(description).map(|found| found.warnings());
        for warning in warnings.unwrap_or_default() {
            *weak.entry(warning).or_default() += 1;
        }
    }
    for (warning, number) in weak {
        shape.add_problem(format!("{} of trigger nodes: {warning}", count(number, "verification")));
    }
}
