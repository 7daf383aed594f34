//! The jobs of an organization are at the queue that `hookgate shard` names, by all routes.

use super::{Fleet, name, organization_of, organizations, places};
use redis::cmd;
use std::collections::BTreeSet;
use testkit::deliveries::github_signature;
use testkit::official::Official;
use testkit::wait::until;
use toml::Table;

const BODY: &str = r#"{"number":7.0}"#;

#[tokio::test]
async fn workers_of_each_queue_get_the_jobs_of_its_organizations() {
    let fleet = Fleet::start(3).await;
    assert_eq!(fleet.places.values().collect::<BTreeSet<_>>().len(), 3, "{:?}", fleet.places);
    let mut workers = Vec::new();
    for (queue, redis) in fleet.servers.iter().enumerate() {
        let release = Official::ALL[queue % Official::ALL.len()];
        workers.push(release.worker(redis, &name(queue), &[]).await);
    }
    for organization in organizations() {
        for _ in 0..3 {
            assert_eq!(fleet.webhook(&organization).send().await.matched(), 1);
        }
    }
    for (queue, worker) in workers.into_iter().enumerate() {
        let own = organizations().iter().filter(|each| fleet.places[*each] == queue).count();
        worker.reports("completed", own * 3).await;
        let reports = worker.close().await;
        assert_eq!((reports.completed.len(), reports.failed.len()), (own * 3, 0));
        for job in &reports.completed {
            assert_eq!(fleet.places[organization_of(job)], queue, "{job}");
        }
        let metrics = fleet.app.hookgate.metrics().await;
        let label = [("queue", name(queue))];
        let label = label.each_ref().map(|(label, queue)| (*label, queue.as_str()));
        let value = |metric: &str| metrics.value(metric, &label);
        assert_eq!(value("hookgate_jobs_enqueued_total"), (own * 3) as f64);
        assert!(value("hookgate_batch_jobs_count") > 0.0);
    }
    fleet.app.assert_accounting().await;
}

#[tokio::test]
async fn deliveries_to_endpoints_go_to_the_queue_of_their_organization() {
    let fleet = Fleet::start(2).await;
    let mut expected = [0, 0];
    for organization in organizations() {
        let call = fleet.app.delivery(&organization, "wh", BODY);
        let call = call.header("x-github-delivery", format!("delivery of {organization}"));
        let signature = github_signature(super::SECRET, BODY.as_bytes());
        let reply = call.header("x-hub-signature-256", signature).send().await;
        assert_eq!((reply.status, &reply.json()["data"]["matchedCount"]), (200, &1.into()));
        expected[fleet.places[&organization]] += 1;
    }
    assert_eq!(fleet.waiting().await, expected);
    assert!(expected.iter().all(|count| *count > 0));
}

#[tokio::test]
async fn all_spellings_of_an_organization_have_one_queue() {
    let fleet = Fleet::start(2).await;
    let organization = "65a1b2c3d4e5f60718293a4b";
    let upper = organization.to_ascii_uppercase();
    let config = &fleet.app.hookgate.config;
    assert_eq!(places(config, std::slice::from_ref(&upper))[&upper], fleet.places[organization]);
    for spelling in [organization, &upper] {
        let token = testkit::tokens::token(&testkit::tokens::claims(spelling, "user"));
        assert_eq!(fleet.app.webhook("wh").bearer(&token).send().await.matched(), 1);
    }
    assert_eq!(fleet.waiting().await[fleet.places[organization]], 2);
}

#[tokio::test]
async fn an_idempotency_key_is_known_at_the_queue_of_its_organization() {
    let fleet = Fleet::start(2).await;
    for queue in [0, 1, 0, 1] {
        let call = fleet.webhook(fleet.organization_of(queue)).header("idempotency-key", "same");
        assert_eq!(call.send().await.matched(), 1);
    }
    assert_eq!(fleet.waiting().await, [1, 1]);
    for (queue, redis) in fleet.servers.iter().enumerate() {
        let pattern = format!("hookgate:bull:{}:idempotency:*", name(queue));
        let records: Vec<String> = redis.query(cmd("KEYS").arg(pattern)).await;
        assert_eq!(records.len(), 1, "{records:?}");
    }
}

#[tokio::test]
async fn a_pin_moves_its_organization_alone_and_only_a_restart_applies_it() {
    let mut fleet = Fleet::start(2).await;
    let pinned = fleet.organization_of(0).to_owned();
    let mut pins = Table::new();
    pins.insert(pinned.clone(), name(1).into());
    fleet.app.hookgate.config.set("queue.sharding.pin", pins);
    fleet.app.hookgate.reload().await;
    let is_named =
        |line: &str| line.contains("after a restart") && line.contains("queue.sharding.pin");
    until("the log names the pins", async || fleet.app.hookgate.log().lines().any(is_named)).await;
    assert_eq!(fleet.webhook(&pinned).send().await.matched(), 1);
    assert_eq!(fleet.waiting().await, [1, 0]);

    fleet.app.hookgate.restart().await;
    assert_eq!(fleet.webhook(&pinned).send().await.matched(), 1);
    assert_eq!(fleet.waiting().await, [1, 1]);
    let mut expected = fleet.places.clone();
    expected.insert(pinned, 1);
    assert_eq!(places(&fleet.app.hookgate.config, &organizations()), expected);
}

#[tokio::test]
async fn changed_shards_need_a_restart_and_are_named() {
    let mut fleet = Fleet::start(2).await;
    let shards = [0, 1].map(|queue| {
        Table::from_iter([
            ("redis".to_owned(), fleet.servers[queue].url().into()),
            ("name".to_owned(), name(queue).into()),
            ("weight".to_owned(), 9.into()),
        ])
    });
    fleet.app.hookgate.config.set("queue.shards", shards.to_vec());
    fleet.app.hookgate.reload().await;
    let is_named =
        |line: &str| line.contains("after a restart") && line.contains("queue.shards.1.weight");
    until("the log names the weight", async || fleet.app.hookgate.log().lines().any(is_named))
        .await;
}

#[tokio::test]
async fn queues_may_be_several_on_one_redis() {
    let redis = testkit::Redis::start().await;
    let shards = ["{a}", "{b}"].map(|prefix| {
        let queue = usize::from(prefix == "{b}");
        Table::from_iter([
            ("prefix".to_owned(), prefix.into()),
            ("name".to_owned(), name(queue).into()),
        ])
    });
    let build = testkit::App::build().redis(redis).documents(super::documents());
    let build = build.config(|config| {
        config.set("queue.shards", shards.to_vec()).set("queue.connections", 3);
    });
    let app = build.start().await;
    let fleet = Fleet::new(app, Vec::new());
    for organization in organizations() {
        assert_eq!(fleet.webhook(&organization).send().await.matched(), 1);
    }
    for (queue, prefix) in ["{a}", "{b}"].into_iter().enumerate() {
        let jobs = fleet.app.redis.queue_named(prefix, &name(queue)).waiting().await;
        let own = fleet.places.values().filter(|place| **place == queue).count();
        assert_eq!(jobs.len(), own);
        for job in jobs {
            let data = job.data();
            let organization = data["organizationId"].as_str().expect("an organization");
            assert_eq!(fleet.places[organization], queue);
        }
    }
}

#[tokio::test]
async fn the_connection_to_each_queue_has_a_name() {
    let fleet = Fleet::start(3).await;
    for redis in &fleet.servers {
        let clients: String = redis.query(cmd("CLIENT").arg("LIST")).await;
        assert!(clients.contains(" name=hookgate "), "{clients}");
    }
}
