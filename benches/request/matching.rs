//! What a webhook starts, out of many triggers. `benches/index` says more about that.

use crate::settings;
use crate::triggers::{organization, record, webhook};
use criterion::Criterion;
use hookgate::metrics::Metrics;
use hookgate::mirror::View;
use hookgate::triggers::{TriggerIndex, TriggersSettings, WorkflowsView};
use std::time::Duration;

const TRIGGERS: u64 = 100_000;

pub fn measure(criterion: &mut Criterion) {
    let index = TriggerIndex::new(Duration::from_secs(24 * 60 * 60));
    let triggers = TriggersSettings::read(&mut settings("").section("triggers"));
    let mut view = WorkflowsView::new(&triggers, &index, Metrics::new("", "").unwrap());
    let mut load = view.begin_load();
    for n in 0..TRIGGERS {
        let (document, record) = record(&view, n, 0);
        view.load(&mut load, &document, record);
    }
    view.finish_load(load);
    index.freshness().set(tokio::time::Instant::now());

    let mut group = criterion.benchmark_group("match");
    for (name, version, found) in [("one workflow", 0, 1), ("none", 1, 0)] {
        // Another one each time, so that what is looked at is as far away as it would be.
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
