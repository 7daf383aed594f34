//! The cost of extreme documents.

use crate::contenders::Index;
use crate::meter::own_time_of;
use crate::triggers::{document_at, webhook};
use bson::RawDocumentBuf;
use hookgate::mirror::MirroredCollection;
use hookgate::mirror::document::DocumentKey;
use std::slice::from_ref;
use std::time::Duration;

const MANY: u64 = 100_000;

/// Milliseconds to upsert a workflow with very many webhooks, and to remove it.
pub fn many_webhooks(index: &mut Index) -> [f64; 2] {
    let n = index.triggers;
    let document = document_at(n, n, (0..MANY).map(|version| webhook(n, version)));
    [true, false].map(|is_put| milliseconds(apply(index, from_ref(&document), is_put)))
}

/// Milliseconds to upsert a workflow at a webhook that starts very many, and to upsert a thousand
/// of them again.
pub fn many_workflows(index: &mut Index) -> [f64; 2] {
    let first = index.triggers;
    let document = |n| document_at(first + n, first, [webhook(first, 0)].into_iter());
    let all: Vec<_> = (0..=MANY).map(document).collect();
    apply(index, &all[1..], true);
    let costs = [&all[..1], &all[..1000]].map(|some| milliseconds(apply(index, some, true)));
    apply(index, &all, false);
    costs
}

fn apply(index: &mut Index, documents: &[RawDocumentBuf], is_put: bool) -> Duration {
    let records = documents.iter().map(|document| {
        let record = is_put.then(|| index.indexes.collection().read(document).unwrap());
        (DocumentKey::from_document(document).unwrap(), record)
    });
    let records = records.collect();
    own_time_of(|| index.indexes.apply(records))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
