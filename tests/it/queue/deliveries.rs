//! Deliveries that come again: the id of a delivery adds its jobs once, for a lifetime of its own.
//! The queue is used as the ingress uses it.

use hookgate::admission::{Admission, AdmissionSettings};
use hookgate::ids::{OrganizationId, RequestId, WebhookId};
use hookgate::metrics::Metrics;
use hookgate::process::supervisor::Supervisor;
use hookgate::queue::{
    Added, EnqueueError, EnqueueRequest, Enqueued, HttpHead, Idempotency, IdempotencySettings,
    Origin, Queue, QueueParts, QueueSettings, WorkflowMatch,
};
use hookgate::settings::SettingsReader;
use redis::cmd;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use testkit::Redis;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

const MINUTE: Duration = Duration::from_secs(60);

/// The queue of one process.
#[derive(Clone)]
struct Process {
    queue: Queue,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
}

/// What a delivery is recognized by.
#[derive(Clone, Copy)]
struct Delivery {
    organization: &'static str,
    webhook: &'static str,
    verification: u8,
    id: &'static str,
    lifetime: Duration,
}

const FIRST: Delivery = Delivery {
    organization: "org_a",
    webhook: "wh_1",
    verification: 1,
    id: "evt_1",
    lifetime: Duration::from_secs(90 * 60),
};

impl Process {
    fn start(redis: &Redis) -> Self {
        Self::start_with(redis, "")
    }

    fn start_with(redis: &Redis, settings: &str) -> Self {
        let file = format!(
            "[queue]\nredis = \"{}\"\nenqueue_timeout = \"20s\"\n\
             [queue.batch]\nmax_in_flight = 1\n{settings}",
            redis.url()
        );
        let mut file = SettingsReader::new(file.parse().expect("TOML"), std::iter::empty());
        let idempotency = IdempotencySettings::read(&mut file.section("idempotency"));
        let settings = Arc::new(QueueSettings::read(&mut file.section("queue"), idempotency));
        let limits = AdmissionSettings::read(&mut file.section("limits"));
        assert_eq!(file.into_faults(), []);
        let metrics = Metrics::new("test", "test").expect("the only metrics");
        let (parts, (supervisor, _)) = (QueueParts::of_one(settings, &metrics), Supervisor::new());
        let queue = Queue::start(&parts, &TaskTracker::new(), &supervisor);
        Self { queue, admission: Admission::new(&limits, &metrics), metrics }
    }

    /// Adds the jobs of a delivery that starts this many workflows.
    async fn deliver(&self, delivery: Delivery, matches: usize) -> Added {
        self.add(delivery, Some(delivery.idempotency()), r#"{"n":1.0e2}"#, matches).await
    }

    async fn add(
        &self,
        delivery: Delivery,
        idempotency: Option<Idempotency>,
        payload: &str,
        matches: usize,
    ) -> Added {
        self.send(delivery, idempotency, payload, matches).await.expect("Redis accepts the jobs")
    }

    async fn send(
        &self,
        delivery: Delivery,
        idempotency: Option<Idempotency>,
        payload: &str,
        matches: usize,
    ) -> Result<Added, EnqueueError> {
        let id = RequestId::from_header_or_new(Some(b"request"));
        let (organization, webhook) = (delivery.organization(), delivery.webhook());
        let payload = payload.to_owned().into();
        let plain = EnqueueRequest::of_payload(&id, &organization, &webhook, payload);
        let request = EnqueueRequest {
            origin: Origin::Delivery,
            head: HttpHead { query: Some("a=1&a=2"), path: "/in/a%20b", ..plain.head },
            idempotency,
            ..plain
        };
        let matches = (0..matches).map(|_| WorkflowMatch {
            workflow: "wf",
            node_ids: r#"["n1"]"#,
            node_type: "WebhookTrigger",
            field: |_| "null",
        });
        let jobs = self.queue.prepare(&request, matches)?;
        self.queue.enqueue(jobs, self.admission.admit().expect("a permit")).await
    }

    /// The calls of the script that have added jobs.
    fn calls(&self) -> f64 {
        self.metrics.upkeep();
        testkit::metrics::Metrics::parse(&self.metrics.render()).sum("hookgate_batch_jobs_count")
    }
}

impl Delivery {
    fn organization(&self) -> OrganizationId {
        OrganizationId::new(self.organization).expect("an id")
    }

    fn webhook(&self) -> WebhookId {
        WebhookId::new(self.webhook).expect("an id")
    }

    fn idempotency(&self) -> Idempotency {
        let (organization, webhook) = (self.organization(), self.webhook());
        let digest = [self.verification; 32];
        Idempotency::of_delivery(&organization, &webhook, &digest, self.id, self.lifetime)
    }
}

#[tokio::test]
async fn a_delivery_is_remembered_for_its_own_lifetime_whatever_its_body() {
    for settings in ["", "[idempotency]\nttl = \"0s\"\n", "[idempotency]\nttl = \"1s\"\n"] {
        let redis = Redis::start().await;
        let process = Process::start_with(&redis, settings);
        assert_eq!(process.deliver(FIRST, 3).await, added(3));
        let life = only_lifetime(&redis).await;
        assert!((80 * MINUTE..=90 * MINUTE).contains(&life), "{life:?} with {settings:?}");
        // The answer is that of the first, whatever matches now.
        for (payload, matches) in [("{}", 3), ("[]", 5), (r#""text""#, 1), ("null", 0)] {
            let again = process.add(FIRST, Some(FIRST.idempotency()), payload, matches).await;
            assert_eq!(again, repeated(3), "{payload}");
        }
        assert_eq!(redis.queue().waiting_ids().await.len(), 3);
        assert!(only_lifetime(&redis).await <= life, "a repeat does not prolong the record");
    }
}

#[tokio::test]
async fn a_delivery_with_another_part_is_another_one() {
    let redis = Redis::start().await;
    let process = Process::start(&redis);
    let deliveries = [
        FIRST,
        Delivery { organization: "org_b", ..FIRST },
        Delivery { webhook: "wh_2", ..FIRST },
        Delivery { verification: 2, ..FIRST },
        Delivery { id: "evt_2", ..FIRST },
    ];
    for delivery in deliveries {
        assert_eq!(process.deliver(delivery, 1).await, added(1));
    }
    for delivery in deliveries {
        assert_eq!(process.deliver(delivery, 1).await, repeated(1));
    }
    // An `Idempotency-Key` with the text of the id is not the delivery.
    let organization = FIRST.organization();
    let key = process.queue.idempotency(&organization, FIRST.id.as_bytes(), b"{}").expect("valid");
    assert_eq!(process.add(FIRST, key, "{}", 1).await, added(1));
    // Neither is a delivery without an id.
    for _ in 0..2 {
        assert_eq!(process.add(FIRST, None, "{}", 1).await, added(1));
    }
    assert_eq!(redis.queue().waiting_ids().await.len(), 8);
    assert_eq!(lifetimes(&redis).await.len(), 6);
}

/// The records of one batch have the lifetimes of their requests.
#[tokio::test]
async fn deliveries_of_one_batch_are_added_once_and_live_as_long_as_each_says() {
    let redis = Redis::start().await;
    let process = Process::start(&redis);
    assert_eq!(process.add(FIRST, None, "{}", 1).await, added(1));
    let before = process.calls();
    let short = Delivery { lifetime: 20 * MINUTE, ..FIRST };
    let long = Delivery { id: "evt_2", lifetime: 40 * MINUTE, ..FIRST };
    let calls = [short, long, short, long, short].map(|delivery| process.deliver(delivery, 2));
    let answers = futures_util::future::join_all(calls).await;
    assert_eq!(answers, [added(2), added(2), repeated(2), repeated(2), repeated(2)]);
    assert_eq!((process.calls() - before).to_string(), "1", "they are one batch");
    assert_eq!(redis.queue().waiting_ids().await.len(), 5);
    let lives = lifetimes(&redis).await;
    let [first, second] = lives.as_slice() else { panic!("two records expected: {lives:?}") };
    assert!((15 * MINUTE..=20 * MINUTE).contains(first), "{lives:?}");
    assert!((35 * MINUTE..=40 * MINUTE).contains(second), "{lives:?}");
}

#[tokio::test]
async fn a_delivery_to_two_processes_and_after_a_restart_is_added_once() {
    let redis = Redis::start().await;
    let processes = [Process::start(&redis), Process::start(&redis)];
    let mut calls = JoinSet::new();
    for number in 0..100 {
        let process = processes[number % 2].clone();
        calls.spawn(async move { process.deliver(FIRST, 4).await });
    }
    let answers = calls.join_all().await;
    let firsts = answers.iter().filter(|answer| **answer == added(4)).count();
    let repeats = answers.iter().filter(|answer| **answer == repeated(4)).count();
    assert_eq!((firsts, repeats), (1, 99));
    drop(processes);
    assert_eq!(Process::start(&redis).deliver(FIRST, 4).await, repeated(4));
    assert_eq!(redis.queue().waiting_ids().await.len(), 4);
}

#[tokio::test]
async fn a_record_is_written_with_the_jobs_only() {
    let redis = Redis::start().await;
    let process = Process::start(&redis);
    assert_eq!(process.deliver(FIRST, 0).await, added(0));
    assert_eq!(records(&redis).await, [""; 0], "no workflow matches");
    // Redis refuses the whole batch, or the second job of the request.
    for held in ["wait", "2"] {
        let key = redis.queue().key(held);
        let () = redis.query(cmd("SET").arg(&key).arg("foreign")).await;
        let refused = process.send(FIRST, Some(FIRST.idempotency()), "{}", 2).await;
        assert_eq!(refused, Err(EnqueueError::Unavailable(Enqueued::Nothing)), "{held}");
        assert_eq!(records(&redis).await, [""; 0], "{held}");
        let () = redis.query(cmd("DEL").arg(&[&key, &redis.queue().key("id")])).await;
    }
    assert_eq!(process.deliver(FIRST, 2).await, added(2));
    assert_eq!(process.deliver(FIRST, 2).await, repeated(2));
    assert_eq!(redis.queue().waiting_ids().await.len(), 2);
}

/// A large job is staged: its hash is written before the script finds out that it is a repeat.
#[tokio::test]
async fn a_large_delivery_that_comes_again_leaves_nothing() {
    let redis = Redis::start().await;
    let process = Process::start(&redis);
    let payload = format!("\"{}\"", "x".repeat(100_000));
    for expected in [added(1), repeated(1), repeated(1)] {
        let answer = process.add(FIRST, Some(FIRST.idempotency()), &payload, 1).await;
        assert_eq!(answer, expected);
    }
    let job = redis.queue().only_job().await;
    assert_eq!(job.payload_text(), payload);
    let staged: Vec<String> = redis.query(cmd("KEYS").arg("hookgate:*:producer:*:*")).await;
    assert_eq!(staged, [""; 0]);
}

#[tokio::test]
async fn the_job_of_a_delivery_says_how_the_request_came() {
    let redis = Redis::start().await;
    let process = Process::start(&redis);
    assert_eq!(process.deliver(FIRST, 1).await, added(1));
    let job = redis.queue().only_job().await;
    let (data, received_at) = (job.data_text(), job.data()["receivedAt"].clone());
    let expected = format!(
        r#"{{"workflowId":"wf","organizationId":"org_a","userId":null,"trigger":{{"type":"WebhookTrigger","nodeIds":["n1"],"webhookId":"wh_1","payload":{{"n":1.0e2}},"request":{{"method":"POST","path":"/in/a%20b","query":{{"a":["1","2"]}},"headers":{{}},"contentType":null}}}},"requestId":"request","receivedAt":{received_at}}}"#
    );
    assert_eq!(data, expected);
}

/// The page about Redis says how many bytes a record takes.
#[tokio::test]
async fn a_record_takes_at_most_250_bytes_of_redis() {
    let redis = Redis::start().await;
    let process = Process::start(&redis);
    assert_eq!(process.deliver(FIRST, 1).await, added(1));
    let keys = records(&redis).await;
    let bytes: u64 = redis.query(cmd("MEMORY").arg("USAGE").arg(&keys)).await;
    assert!(bytes <= 250, "{bytes} bytes");
    let text: String = redis.query(cmd("GET").arg(&keys)).await;
    assert_eq!(text, "0 1");
    let parts = BTreeSet::from([FIRST.organization, FIRST.webhook, FIRST.id]);
    assert!(parts.iter().all(|part| !keys[0].contains(part)), "{keys:?}");
}

fn added(matched: usize) -> Added {
    Added { matched, is_repeated: false }
}

fn repeated(matched: usize) -> Added {
    Added { matched, is_repeated: true }
}

async fn records(redis: &Redis) -> Vec<String> {
    redis.query(cmd("KEYS").arg("hookgate:*:idempotency:*")).await
}

/// How long each record lives from now on, the shortest first.
async fn lifetimes(redis: &Redis) -> Vec<Duration> {
    let mut lives = Vec::new();
    for record in records(redis).await {
        let life: i64 = redis.query(cmd("PTTL").arg(&record)).await;
        lives.push(Duration::from_millis(u64::try_from(life).expect("it expires")));
    }
    lives.sort();
    lives
}

async fn only_lifetime(redis: &Redis) -> Duration {
    let lives = lifetimes(redis).await;
    assert_eq!(lives.len(), 1, "{lives:?}");
    lives.iter().copied().sum()
}
