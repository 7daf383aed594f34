//! Random histories of a collection, for tests that compare an index with a model.

use crate::metrics::Metrics;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A step of a history. Documents have numbers; `T` is the content of a document.
#[derive(Debug, Clone)]
pub enum Step<T> {
    /// Documents that are upserted or removed together.
    Change(BTreeMap<u8, Option<T>>),
    /// A complete load. A document may occur twice; its last content counts.
    Reload(Vec<(u8, T)>),
}

/// Histories of this many documents with these contents.
pub fn steps<T: std::fmt::Debug + Clone + 'static>(
    documents: u8,
    contents: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Vec<Step<T>>> {
    let contents = contents.boxed();
    let change = prop::option::weighted(0.7, contents.clone());
    let step = prop_oneof![
        6 => btree_map(0..documents, change, 1..6).prop_map(Step::Change),
        1 => vec((0..documents, contents), 0..usize::from(documents) + 4).prop_map(Step::Reload),
    ];
    vec(step, 1..24)
}

impl<T> Step<T> {
    /// Applies the step to a model.
    pub fn apply_to(self, model: &mut BTreeMap<u8, T>) {
        match self {
            Self::Reload(documents) => *model = documents.into_iter().collect(),
            Self::Change(changes) => {
                for (document, content) in changes {
                    match content {
                        Some(content) => model.insert(document, content),
                        None => model.remove(&document),
                    };
                }
            }
        }
    }
}

/// The value of a metric without labels.
pub(crate) fn gauge(metrics: &Metrics, name: &str) -> usize {
    let page = metrics.render();
    let mut lines = page.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(metric, _)| *metric == name).unwrap().1.parse().unwrap()
}
