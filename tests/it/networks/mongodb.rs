//! A Hookgate that does not reach MongoDB.

use testkit::documents::{Documents, workflow};
use testkit::http::{Caller, Reply};
use testkit::wait::until;

use super::load::{key_of, organization};
use super::site::{HOOKGATES, Layout, MONGODB};
use super::{judged, rounds, run, some};

/// It accepts what it knows, says that it may not know everything, and catches up by itself.
#[test]
fn a_hookgate_without_mongodb_accepts_what_it_knows() {
    let layout = Layout::steady().mongodb().config(|config| {
        config.set("triggers.max_staleness", "3s").set("queue.enqueue_timeout", "3s");
    });
    run(layout, async |site| {
        let load = site.load().await;
        for round in 0..rounds() {
            let webhook = format!("wh-of-round-{round}");
            site.network.part(&[HOOKGATES[0]], &[MONGODB]);
            let new = workflow(&format!("wf-{round}"), &organization(0), &webhook);
            let new = Documents { workflows: vec![new], users: Vec::new() };
            site.database.as_ref().expect("a database").insert(&new).await;
            let preview = async |hookgate: usize| {
                let caller = Caller::new(site.hookgates[hookgate].address());
                let path = format!("{}/preview", testkit::http::PATH);
                let call = caller.call(reqwest::Method::POST, &path);
                let call = call.header("content-type", "application/json");
                let body = serde_json::json!({ "webhookId": webhook }).to_string();
                let reply: Reply = call.bearer(&key_of(&organization(0))).body(body).send().await;
                (reply.status, reply.json()["data"]["matchedCount"].as_u64())
            };
            until("the other Hookgate has the workflow", async || {
                preview(1).await == (200, Some(1))
            })
            .await;
            until("a miss is not believed", async || preview(0).await.0 == 503).await;
            load.more_accepted(some(), &[0, 1]).await;
            site.network.heal();
            until("the Hookgate catches up", async || preview(0).await == (200, Some(1))).await;
            load.more_accepted(some(), &[0, 1]).await;
        }
        let refused = load.requests();
        let refused = refused
            .iter()
            .flat_map(|request| &request.tries)
            .filter(|each| !matches!(each.answer, testkit::ledger::Answer::Accepted { .. }));
        assert_eq!(refused.count(), 0);
        judged(site, load).await.assert_nothing_lost();
    });
}
