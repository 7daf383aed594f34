//! Matching a webhook against many triggers. `benches/index` measures this in more detail.

use crate::settings;
use crate::triggers::{organization, record, webhook};
use criterion::Criterion;
use hookgate::metrics::Metrics;
use hookgate::mirror::CollectionIndexes;
use hookgate::triggers::{TriggerIndex, TriggersSettings, WorkflowCollection};
use std::time::Duration;

const TRIGGERS: u64 = 100_000;

pub fn measure(criterion: &mut Criterion) {
    let mut triggers = TriggersSettings::read(&mut settings("").section("triggers"));
    triggers.max_staleness = Duration::from_secs(24 * 60 * 60);
    let index = TriggerIndex::new(&triggers);
    let collection = WorkflowCollection::new(&triggers, &index, Metrics::new("", "").unwrap());
    let mut indexes = CollectionIndexes::new(collection);
    let mut load = indexes.begin_load();
    for n in 0..TRIGGERS {
        let (document, record) = record(indexes.collection(), n, 0);
        load.upsert(&document, record);
    }
    indexes.finish_load(load);
    index.freshness().mark_current(tokio::time::Instant::now());

    let mut group = criterion.benchmark_group("match");
    for (name, version, found) in [("one workflow", 0, 1), ("none", 1, 0)] {
        // Another name each time, so that the data is as far from the cache as in production.
        let names: Vec<_> = (0..TRIGGERS).map(|n| (organization(n), webhook(n, version))).collect();
        let mut names = names.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (organization, webhook) = names.next().unwrap();
                let matches = index.matching(organization, webhook, |matches| matches.count());
                assert_eq!(matches, Ok(found));
            });
        });
    }
}
