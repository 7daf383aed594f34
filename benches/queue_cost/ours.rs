//! Hookgate's queue, as the ingress uses it.

use std::sync::Arc;

use hookgate::admission::{Admission, AdmissionSettings};
use hookgate::metrics::Metrics;
use hookgate::process::supervisor::Supervisor;
use hookgate::queue::{
    EnqueueRequest, IdempotencySettings, Queue, QueueParts, QueueSettings, WorkflowMatch,
};
use hookgate::settings::SettingsReader;
use tokio_util::task::TaskTracker;

use crate::jobs::{Jobs, share_out};
use crate::meter::{Cost, Meter, own_time_of};
use crate::{MOST_BATCH_BYTES, WARM_UP, new_runtime};

/// Callers for each request of a batch: two batches are on the wire, and the waiting requests fill
/// the next two.
const CALLERS_PER_PLACE: usize = 4;

pub fn measure(url: &str, jobs: &Jobs, batch: usize, events: bool, meter: &mut Meter) -> Cost {
    let runtime = new_runtime();
    let ours = runtime.block_on(async { Ours::open(url, batch, events) });
    let callers = batch * CALLERS_PER_PLACE;
    runtime.block_on(ours.add(&jobs.first(WARM_UP), callers));
    let (calls, sum) = ours.batches();
    let cost =
        meter.measure(jobs, events, || own_time_of(|| runtime.block_on(ours.add(jobs, callers))));
    let (calls_after, sum_after) = ours.batches();
    Cost { batch: Some((sum_after - sum) / (calls_after - calls)), ..cost }
}

/// The options of jobs as the default configuration stores them.
pub async fn stored_options(url: &str, jobs: &Jobs, meter: &mut Meter) -> String {
    meter.reset();
    Ours::open(url, 1, true).add(&jobs.first(1), 1).await;
    meter.field_of_first_job("opts")
}

#[derive(Clone)]
struct Ours {
    queue: Queue,
    metrics: Arc<Metrics>,
    admission: Arc<Admission>,
}

impl Ours {
    /// Opens the queue in a runtime, which then runs it.
    fn open(url: &str, batch: usize, events: bool) -> Self {
        let file = format!(
            "[queue]\nredis = \"{url}\"\nevents = {events}\nenqueue_timeout = \"60s\"\n\
             [queue.batch]\nmax_jobs = {batch}\nmax_bytes = \"{MOST_BATCH_BYTES}B\"\n"
        );
        let mut settings = SettingsReader::new(file.parse().unwrap(), std::iter::empty());
        let idempotency = IdempotencySettings::read(&mut settings.section("idempotency"));
        let queue = Arc::new(QueueSettings::read(&mut settings.section("queue"), idempotency));
        let limits = AdmissionSettings::read(&mut settings.section("limits"));
        let faults = settings.into_faults();
        assert!(faults.is_empty(), "{faults:?}");
        let metrics = Metrics::new("bench", "bench").unwrap();
        let parts = QueueParts::of_one(queue, &metrics);
        let (supervisor, _) = Supervisor::new();
        let queue = Queue::start(&parts, &TaskTracker::new(), &supervisor);
        let admission = Admission::new(&limits, &metrics);
        Self { queue, metrics, admission }
    }

    async fn add(&self, jobs: &Jobs, callers: usize) {
        let (ours, all) = (self.clone(), jobs.clone());
        share_out(callers, jobs.len(), move |index| {
            let (ours, jobs) = (ours.clone(), all.clone());
            async move { ours.enqueue(&jobs, index).await }
        })
        .await;
    }

    /// Handles a request that matches one workflow. Only this function uses the queue's interface
    /// for requests.
    async fn enqueue(&self, jobs: &Jobs, index: usize) {
        let webhook = &jobs.webhooks[index];
        let (id, organization, payload) =
            (&webhook.request, &jobs.organization, webhook.payload.clone());
        let request = EnqueueRequest {
            user: Some(&jobs.user),
            ..EnqueueRequest::of_payload(id, organization, &jobs.webhook, payload)
        };
        let matches = [WorkflowMatch {
            workflow: webhook.workflow.as_str(),
            node_ids: r#"["n1"]"#,
            node_type: "WebhookTrigger",
            field: |_| "null",
        }];
        let jobs = self
            .queue
            .prepare(&request, matches.into_iter())
            .expect("the batch has a bounded size");
        let permit = self.admission.admit().expect("the default bound is far above the callers");
        self.queue.enqueue(jobs, permit).await.expect("Redis accepts the job");
    }

    /// Calls to Redis so far, and jobs in them.
    fn batches(&self) -> (f64, f64) {
        self.metrics.upkeep();
        let metrics = testkit::metrics::Metrics::parse(&self.metrics.render());
        let sum = |what: &str| metrics.sum(&format!("hookgate_batch_jobs_{what}"));
        (sum("count"), sum("sum"))
    }
}
