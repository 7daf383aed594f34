//! The index and the source of its documents.

use crate::admin::status::clip::clip;
use crate::admin::status::exposition::Exposition;
use crate::metrics::Collection;
use crate::mirror::Freshness;
use crate::mirror::left_out::{LeftOut, LeftOutDocument};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Maximum documents of a collection that are named.
const MAX_LEFT_OUT: usize = 20;

/// Where documents come from.
#[derive(Debug, Clone, Serialize)]
pub struct DocumentsSource {
    /// `mongodb` or `file`.
    pub kind: &'static str,
    /// The hosts and ports of MongoDB, without user, password and options; or the path of the file.
    pub address: String,
    /// The database; `None` for a file.
    pub database: Option<String>,
}

/// A collection that is kept in memory.
#[derive(Debug, Clone)]
pub struct CollectionSource {
    pub collection: Collection,
    pub freshness: Arc<Freshness>,
    pub left_out: Arc<LeftOut>,
}

/// The age of the oldest collection; `None` while any is not loaded.
pub(in crate::admin) fn age(collections: &[CollectionSource]) -> Option<Duration> {
    let ages = collections.iter().map(|each| each.freshness.age());
    ages.collect::<Option<Vec<Duration>>>()?.into_iter().max()
}

#[derive(Debug, Serialize)]
pub(super) struct IndexReport {
    source: DocumentsSource,
    /// Of the oldest collection; null before the first load.
    age_seconds: Option<f64>,
    workflows: u64,
    triggers: u64,
    api_keys: u64,
    conflicting_api_keys: u64,
    conflicting_user_ids: u64,
    snapshot_age_seconds: Option<f64>,
    collections: Vec<CollectionReport>,
}

#[derive(Debug, Serialize)]
struct CollectionReport {
    name: &'static str,
    age_seconds: Option<f64>,
    /// Whether a miss is answered as such, and not with 503.
    is_current: bool,
    left_out: LeftOutReport,
}

/// What is left out of a collection.
#[derive(Debug, Serialize)]
struct LeftOutReport {
    count: usize,
    is_complete: bool,
    documents: Vec<DocumentReport>,
}

#[derive(Debug, Serialize)]
struct DocumentReport {
    id: String,
    is_whole: bool,
    reasons: Vec<String>,
}

impl IndexReport {
    pub(super) fn new(
        source: &DocumentsSource,
        collections: &[CollectionSource],
        metrics: &Exposition<'_>,
    ) -> Self {
        let gauge = |name: &str| metrics.count(name, &[]).unwrap_or(0);
        let snapshot_age = metrics.number("hookgate_snapshot_age_seconds", &[]);
        Self {
            source: source.clone(),
            age_seconds: age(collections).map(|age| age.as_secs_f64()),
            workflows: gauge("hookgate_index_workflows"),
            triggers: gauge("hookgate_index_triggers"),
            api_keys: gauge("hookgate_index_api_keys"),
            conflicting_api_keys: gauge("hookgate_index_conflicting_api_keys"),
            conflicting_user_ids: gauge("hookgate_index_conflicting_user_ids"),
            snapshot_age_seconds: snapshot_age.filter(|age| *age > 0.0),
            collections: collections.iter().map(CollectionReport::new).collect(),
        }
    }
}

impl CollectionReport {
    fn new(source: &CollectionSource) -> Self {
        let left_out = source.left_out.report(MAX_LEFT_OUT);
        Self {
            name: source.collection.as_str(),
            age_seconds: source.freshness.age().map(|age| age.as_secs_f64()),
            is_current: source.freshness.can_confirm_miss(),
            left_out: LeftOutReport {
                count: left_out.count,
                is_complete: left_out.is_complete,
                documents: left_out.documents.into_iter().map(DocumentReport::new).collect(),
            },
        }
    }
}

impl DocumentReport {
    fn new(document: LeftOutDocument) -> Self {
        let LeftOutDocument { id, is_whole, reasons } = document;
        Self { id: clip(&id), is_whole, reasons: reasons.iter().map(|each| clip(each)).collect() }
    }
}
