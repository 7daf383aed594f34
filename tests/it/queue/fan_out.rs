//! One webhook that starts thousands of workflows: all of them in one step, without long delays for
//! other callers.

use std::collections::BTreeSet;

use testkit::App;
use testkit::documents::workflow;
use testkit::ledger::{self, Load};
use testkit::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_workflows_are_started_in_one_step() {
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
    assert_eq!(refused, 0, "the other callers were served");
    assert!(jobs.iter().all(|job| job.named == 1), "each job is in one list once");
    app.assert_accounting().await;
}

/// The refusal depends neither on the load nor on repeats, so it is not a 503.
#[tokio::test]
async fn jobs_that_never_fit_are_refused_permanently() {
    let mut documents = ledger::documents();
    let many = (0..2000).map(|serial| workflow(&format!("wf_{serial}"), "org_a", "wh_many"));
    documents.workflows.extend(many);
    let app = App::build().documents(documents).config(|config| {
        config.set("server.max_body", "128KiB").set("limits.in_flight_bytes", "128KiB");
    });
    let app = app.start().await;
    let reply = app.webhook("wh_many").send().await;
    reply.assert_rejected(413, "fanout_too_large");
    let body = reply.json();
    assert_eq!(body["retryable"], false);
    assert_eq!(
        (&body["details"]["matches"], &body["details"]["maxBytes"]),
        (&2000.into(), &131_072.into())
    );
    assert!(body["details"]["bytes"].as_u64().is_some_and(|bytes| bytes > 131_072), "{body}");
    // A request slightly larger than the limit, counting head and body, is admitted when it is
    // alone.
    let head = "{\"webhookId\":\"wh_one\",\"a\":\"";
    let mut documents = ledger::documents();
    documents.workflows.push(workflow("wf_one", "org_a", "wh_one"));
    app.replace_documents(&documents);
    until("the workflow matches", async || app.webhook("wh_one").send().await.has_matched(1)).await;
    let body = format!("{head}{}\"}}", "x".repeat(131_072 - 300 - head.len() - 2));
    assert_eq!(app.post(body).send().await.matched(), 1);
    app.assert_accounting().await;
}
