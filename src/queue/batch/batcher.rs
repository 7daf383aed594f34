//! The batcher: requests that wait at the same time share one script call.
//!
//! There is no timer. A batch contains the requests that queued up while earlier calls were under
//! way, so an idle service adds no latency and a busy one makes large batches.

use crate::admission::Permit;
use crate::process::supervisor::Supervisor;
use crate::queue::batch::delivery::Delivery;
use crate::queue::batch::pending::{PendingCaller, PendingRequest};
use crate::queue::batch::settings::BatchSettings;
use crate::queue::bullmq::job::Jobs;
use crate::queue::outcome::{Added, EnqueueError, Enqueued};
use crate::queue::settings::QueueSettings;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// A handle to a batcher.
#[derive(Debug, Clone)]
pub(in crate::queue) struct Batcher {
    /// Bounded by the permits of the requests in it.
    requests: mpsc::UnboundedSender<PendingRequest>,
}

impl Batcher {
    pub(in crate::queue) fn start(
        settings: &Arc<QueueSettings>,
        delivery: Delivery,
        tasks: &TaskTracker,
        supervisor: &Supervisor,
    ) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "every request in it holds a permit, and the number of permits is bounded"
        )]
        let (requests, receiver) = mpsc::unbounded_channel();
        let worker = BatchWorker {
            slots: Arc::new(Semaphore::new(settings.batch.max_in_flight)),
            limits: settings.batch.clone(),
            delivery: Arc::new(delivery),
            receiver,
            carried: None,
            tasks: tasks.clone(),
        };
        tasks.spawn(supervisor.clone().watch("batcher", worker.run()));
        Self { requests }
    }

    pub(in crate::queue) async fn add(
        &self,
        jobs: Jobs,
        deadline: Instant,
        permit: Permit,
    ) -> Result<Added, EnqueueError> {
        let (answer, reply) = oneshot::channel();
        let request = PendingRequest { jobs, deadline, caller: PendingCaller::new(permit, answer) };
        let unavailable = |_| EnqueueError::Unavailable(Enqueued::Nothing);
        self.requests.send(request).map_err(unavailable)?;
        reply.await.unwrap_or(Err(EnqueueError::Unavailable(Enqueued::Unknown)))
    }
}

struct BatchWorker {
    delivery: Arc<Delivery>,
    limits: BatchSettings,
    slots: Arc<Semaphore>,
    receiver: mpsc::UnboundedReceiver<PendingRequest>,
    /// The request that did not fit into the previous batch.
    carried: Option<PendingRequest>,
    tasks: TaskTracker,
}

impl BatchWorker {
    /// Builds batches and hands them to the delivery. Ends when every handle is dropped and every
    /// waiting request has been sent.
    async fn run(mut self) {
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned().await;
            let slot = slot.expect("the semaphore is never closed");
            let Some(batch) = self.next_batch().await else { return };
            self.tasks.spawn(Arc::clone(&self.delivery).deliver(batch, slot));
        }
    }

    /// Waits for a request, and returns it with the waiting requests that fit into its batch.
    async fn next_batch(&mut self) -> Option<Vec<PendingRequest>> {
        let first = match self.carried.take() {
            Some(carried) => carried,
            None => self.receiver.recv().await?,
        };
        // The other tasks of this thread run first, so that requests that have just been read join
        // the batch.
        tokio::task::yield_now().await;
        let limits = &self.limits;
        let (mut jobs, mut bytes) = (first.jobs.weight(), first.jobs.bytes);
        let mut batch = vec![first];
        while let Ok(next) = self.receiver.try_recv() {
            jobs += next.jobs.weight();
            bytes += next.jobs.bytes;
            if jobs > limits.max_jobs || bytes > limits.max_bytes {
                self.carried = Some(next);
                break;
            }
            batch.push(next);
        }
        Some(batch)
    }
}
