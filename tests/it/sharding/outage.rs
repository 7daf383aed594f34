//! One of several queues is away, hung or full: the organizations of the others do not notice.

use super::{Fleet, build, name, servers};
use futures_util::future::join_all;
use redis::cmd;
use testkit::Config;
use testkit::config::patient;
use testkit::wait::until;

/// The part of `/readyz` about the queue with the number 1.
const PART: &str = "redis (workflow-runner-1)";

/// Few requests at a time, so that those that wait would displace others.
const IN_FLIGHT: usize = 8;

fn few_at_a_time(config: &mut Config) {
    config.set("limits.in_flight_requests", i64::try_from(IN_FLIGHT).expect("small"));
    config.set("limits.organization.in_flight_share", 1.0);
}

impl Fleet {
    pub(super) async fn is_degraded(&self) {
        until("/readyz names the queue", async || {
            self.degraded().await.iter().any(|note| note.starts_with(PART))
        })
        .await;
        let metrics = self.app.hookgate.metrics().await;
        assert_eq!(metrics.value("hookgate_degraded", &[("part", PART)]), 1.0);
        assert_eq!(metrics.value("hookgate_ready", &[]), 1.0);
    }

    /// As many requests at a time as are admitted, several times over. If those of the queue
    /// that is lost waited for it, later ones would be over its share, and get another code.
    async fn refuses_at_once(&self, queue: usize) {
        for _ in 0..3 {
            let organization = self.organization_of(queue);
            let calls = (0..IN_FLIGHT / 2).map(|_| self.webhook(organization).send());
            for reply in join_all(calls).await {
                reply.assert_not_enqueued("none");
            }
        }
    }

    pub(super) async fn accepts(&self, queue: usize) {
        assert_eq!(self.webhook(self.organization_of(queue)).send().await.matched(), 1);
    }
}

#[tokio::test]
async fn a_dead_queue_affects_its_own_organizations_alone() {
    let mut fleet = Fleet::start_with(3, few_at_a_time).await;
    assert_eq!(fleet.degraded().await, [""; 0]);
    fleet.servers[1].kill9().await;
    fleet.is_degraded().await;
    fleet.refuses_at_once(1).await;
    fleet.accepts(0).await;
    fleet.accepts(2).await;
    let metrics = fleet.app.hookgate.metrics().await;
    let refused = |queue| {
        let labels = [("queue", queue), ("enqueued", "none")];
        metrics.value("hookgate_unacknowledged_total", &labels)
    };
    assert!(refused("workflow-runner-1") >= 12.0);
    assert_eq!(refused("workflow-runner-0"), 0.0);
    let status = fleet.app.hookgate.admin_get("/status.json").await.text().await.expect("JSON");
    assert!(status.contains(PART), "{status}");

    for line in ["connection to Redis lost", "Redis is not ready"] {
        let log = fleet.app.hookgate.log();
        let lines: Vec<&str> = log.lines().filter(|each| each.contains(line)).collect();
        assert!(!lines.is_empty(), "{log}");
        let is_named = |line: &&str| line.contains("queue=\"workflow-runner-1\"");
        assert!(lines.iter().all(is_named), "{lines:#?}");
    }

    fleet.servers[1].restart().await;
    let own = fleet.organization_of(1);
    until("it is accepted again", async || fleet.webhook(own).send().await.status == 202).await;
    until("nothing is degraded", async || fleet.degraded().await.is_empty()).await;
    fleet.app.assert_accounting().await;
}

#[tokio::test]
async fn the_service_is_not_ready_only_without_any_queue() {
    let mut fleet = Fleet::start(2).await;
    for server in &fleet.servers {
        server.kill9().await;
    }
    fleet.app.hookgate.unready().await;
    let (_, report) = fleet.app.hookgate.readiness().await;
    for queue in 0..2 {
        let reasons = report["reasons"].to_string();
        assert!(reasons.contains(&name(queue)), "{report}");
        fleet.webhook(fleet.organization_of(queue)).send().await.assert_not_enqueued("none");
    }
    fleet.servers[0].restart().await;
    fleet.app.hookgate.ready().await;
    fleet.is_degraded().await;
    fleet.accepts(0).await;
    fleet.webhook(fleet.organization_of(1)).send().await.assert_not_enqueued("none");
}

#[tokio::test]
async fn a_service_starts_without_one_of_its_queues() {
    let servers = servers(2).await;
    servers[1].kill9().await;
    let app = build(&servers).start().await;
    let mut fleet = Fleet::new(app, servers);
    fleet.is_degraded().await;
    fleet.accepts(0).await;
    fleet.refuses_at_once(1).await;
    fleet.servers[1].restart().await;
    until("nothing is degraded", async || fleet.degraded().await.is_empty()).await;
    fleet.accepts(1).await;
}

#[tokio::test]
async fn a_silent_queue_does_not_delay_the_start() {
    let servers = servers(2).await;
    servers[1].freeze();
    // Redis may be silent for as long as the test waits for the service to be ready.
    let app = build(&servers).config(patient).start().await;
    let fleet = Fleet::new(app, servers);
    fleet.is_degraded().await;
    fleet.accepts(0).await;
    fleet.servers[1].thaw();
    until("nothing is degraded", async || fleet.degraded().await.is_empty()).await;
    fleet.accepts(1).await;
}

#[tokio::test]
async fn a_hung_queue_holds_half_of_what_may_be_in_flight() {
    let fleet = Fleet::start_with(2, |config| {
        patient(config);
        few_at_a_time(config);
    })
    .await;
    fleet.servers[1].freeze();
    let waiting: Vec<_> = (0..IN_FLIGHT / 2)
        .map(|_| tokio::spawn(fleet.webhook(fleet.organization_of(1)).send()))
        .collect();
    fleet.app.in_flight(IN_FLIGHT / 2).await;
    let over = || fleet.webhook(fleet.organization_of(1)).send();
    over().await.assert_rejected(503, "overloaded");
    for reply in join_all((0..3).map(|_| fleet.webhook(fleet.organization_of(0)).send())).await {
        assert_eq!(reply.matched(), 1);
    }
    over().await.assert_rejected(503, "overloaded");
    fleet.servers[1].thaw();
    for reply in join_all(waiting).await {
        assert_eq!(reply.expect("an answer").matched(), 1);
    }
    assert_eq!(fleet.waiting().await, [3, IN_FLIGHT / 2]);
    fleet.accepts(1).await;
}

#[tokio::test]
async fn a_queue_above_the_watermark_gets_no_jobs_and_the_others_do() {
    let fleet = Fleet::start(2).await;
    let limit = async |bytes: &str| {
        let set = cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).to_owned();
        let () = fleet.servers[1].query(&set).await;
    };
    let used: u64 = fleet.servers[1].info("memory", "used_memory").await.parse().expect("a number");
    limit(&(used + used / 20).to_string()).await;
    let own = fleet.organization_of(1);
    until("the queue refuses", async || fleet.webhook(own).send().await.status == 503).await;
    fleet.webhook(own).send().await.assert_not_enqueued("none");
    fleet.accepts(0).await;
    fleet.is_degraded().await;
    let log = fleet.app.hookgate.log();
    let line = log.lines().find(|line| line.contains("memory of Redis crossed"));
    assert!(line.expect("it is logged").contains("queue=\"workflow-runner-1\""), "{log}");
    limit("0").await;
    until("it is accepted again", async || fleet.webhook(own).send().await.status == 202).await;
}
