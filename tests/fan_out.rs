//! One webhook that starts thousands of workflows: all of them in one step, and nobody else waits for long.

mod harness;

use std::collections::BTreeSet;

use harness::App;
use harness::documents::workflow;
use harness::ledger::{self, Load};

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_workflows_of_one_webhook_are_started_in_one_step() {
    const COUNT: u32 = 10_000;
    let mut documents = ledger::documents();
    let many = (0..COUNT).map(|serial| workflow(&format!("wf_many_{serial}"), "org_a", "wh_many"));
    documents.workflows.extend(many);
    let app = App::build().documents(documents).config(|config| {
        config.set("queue.max_matches", COUNT).set("queue.max_fanout_bytes", "64MiB");
        config.set("queue.enqueue_timeout", "20s");
    });
    let app = app.start().await;
    let load = Load::start(&app.caller);
    load.more_accepted(20).await;
    let wanted: BTreeSet<String> = (0..COUNT).map(|serial| format!("wf_many_{serial}")).collect();
    for round in 1..=3 {
        let large = format!(
            r#"{{"webhookId":"wh_many","request":"many-{round}","a":"{}"}}"#,
            "x".repeat(1000)
        );
        assert_eq!(app.post(large).send().await.matched(), u64::from(COUNT));
        load.more_accepted(20).await;
    }
    let verdict = load.stop().await;
    let jobs = ledger::standing(&app.redis, &app.redis.queue()).await;
    for round in 1..=3 {
        let request = format!("many-{round}");
        let started = jobs.iter().filter_map(|job| job.origin.as_ref());
        let started: Vec<&String> =
            started.filter(|(from, _)| *from == request).map(|(_, workflow)| workflow).collect();
        assert_eq!(started.len(), wanted.len());
        assert!(started.into_iter().all(|workflow| wanted.contains(workflow)));
    }
    let refused = verdict.count(|answer| !matches!(answer, ledger::Answer::Accepted { .. }));
    assert_eq!(refused, 0, "the others were served all the while");
    assert!(jobs.iter().all(|job| job.named == 1), "each is in one list once");
    app.assert_accounting().await;
}
