//! Random histories of documents, for tests that hold what is read of them against a model.

use crate::metrics::Metrics;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What happens to the documents of a collection, each of which has a number and says something.
#[derive(Debug, Clone)]
pub enum Step<T> {
    /// Documents that are put or removed together.
    Change(BTreeMap<u8, Option<T>>),
    /// All there are from now on, of which some come twice.
    Reload(Vec<(u8, T)>),
}

/// Steps with so many documents.
pub fn steps<T: std::fmt::Debug + Clone + 'static>(
    documents: u8,
    says: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Vec<Step<T>>> {
    let says = says.boxed();
    let change = prop::option::weighted(0.7, says.clone());
    let step = prop_oneof![
        6 => btree_map(0..documents, change, 1..6).prop_map(Step::Change),
        1 => vec((0..documents, says), 0..usize::from(documents) + 4).prop_map(Step::Reload),
    ];
    vec(step, 1..24)
}

impl<T> Step<T> {
    /// Does to a model what has been done to the collection.
    pub fn apply_to(self, model: &mut BTreeMap<u8, T>) {
        match self {
            Self::Reload(documents) => *model = documents.into_iter().collect(),
            Self::Change(changes) => {
                for (document, says) in changes {
                    match says {
                        Some(says) => model.insert(document, says),
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
    lines.find(|(each, _)| *each == name).unwrap().1.parse().unwrap()
}
