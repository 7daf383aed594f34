//! Encoding the jobs of a request for Redis.

use crate::body::body;
use crate::{SIZES, settings};
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use hookgate::ids::{OrganizationId, RequestId, UserId};
use hookgate::ingress::Webhook;
use hookgate::metrics::Metrics;
use hookgate::process::supervisor::Supervisor;
use hookgate::queue::{
    EnqueueRequest, IdempotencySettings, Queue, QueueParts, QueueSettings, WorkflowMatch,
};
use std::sync::Arc;
use tokio_util::task::TaskTracker;

const MATCHES: [usize; 2] = [1, 100];

pub fn measure(criterion: &mut Criterion) {
    // No task runs in it, so that nothing connects to Redis.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let queue = queue();
    let (organization, user) =
        (OrganizationId::new("org_a").unwrap(), UserId::new("user_1").unwrap());
    let id = RequestId::from_header_or_new(None);
    let mut group = criterion.benchmark_group("encode");
    for size in SIZES {
        let webhook = Webhook::parse(&Bytes::from(body("wh_1", size))).unwrap();
        for matches in MATCHES {
            group.throughput(Throughput::Elements(matches as u64));
            group.bench_function(format!("{size} for {matches}"), |bencher| {
                bencher.iter(|| {
                    let request = EnqueueRequest {
                        user: Some(&user),
                        payload: webhook.payload.clone(),
                        ..EnqueueRequest::of_payload(&id, &organization, &webhook.id, Bytes::new())
                    };
                    let one = || WorkflowMatch {
                        workflow: "665f1c2e9b3e4a0012ab34cd",
                        node_ids: r#"["n1"]"#,
                        node_type: "WebhookTrigger",
                        field: |_| "null",
                    };
                    queue.prepare(&request, (0..matches).map(|_| one())).unwrap()
                });
            });
        }
    }
}

fn queue() -> Queue {
    let mut settings = settings("[queue]\nmax_fanout_bytes = \"512MiB\"\n");
    let idempotency = IdempotencySettings::read(&mut settings.section("idempotency"));
    let queue = QueueSettings::read(&mut settings.section("queue"), idempotency);
    assert_eq!(settings.into_faults(), []);
    let metrics = Metrics::new("", "").unwrap();
    let (supervisor, _) = Supervisor::new();
    let parts = QueueParts::of_one(Arc::new(queue), &metrics);
    Queue::start(&parts, &TaskTracker::new(), &supervisor)
}
