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
            batches: Batches { limits: settings.batch.clone(), receiver, carried: None },
            delivery: Arc::new(delivery),
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
    batches: Batches,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// The waiting requests, which become batches in the order in which they arrived.
struct Batches {
    limits: BatchSettings,
    receiver: mpsc::UnboundedReceiver<PendingRequest>,
    /// The request that did not fit into the previous batch.
    carried: Option<PendingRequest>,
}

impl BatchWorker {
    /// Builds batches and hands them to the delivery. Ends when every handle is dropped and every
    /// waiting request has been sent.
    async fn run(mut self) {
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned().await;
            let slot = slot.expect("the semaphore is never closed");
            let Some(batch) = self.batches.next().await else { return };
            self.tasks.spawn(Arc::clone(&self.delivery).deliver(batch, slot));
        }
    }
}

impl Batches {
    /// Waits for a request, and returns it with the waiting requests that fit into its batch.
    async fn next(&mut self) -> Option<Vec<PendingRequest>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Admission, AdmissionSettings};
    use crate::metrics::Metrics;
    use crate::queue::batch::pending::PendingCaller;
    use crate::settings::SettingsReader;
    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::time::Duration;

    /// Jobs and bytes of a request.
    type Size = (usize, usize);

    /// A request that waits, with its position as its deadline.
    fn request(admission: &Arc<Admission>, position: usize, size: Size) -> PendingRequest {
        let jobs = Jobs { heads: vec![Bytes::new(); size.0], bytes: size.1, ..Jobs::default() };
        let (answer, _) = oneshot::channel();
        PendingRequest {
            jobs,
            deadline: Instant::now() + Duration::from_secs(position as u64),
            caller: PendingCaller::new(admission.admit().unwrap(), answer),
        }
    }

    /// The batches of these requests, of which the first ones wait before the first batch is made
    /// and one more arrives before each further batch.
    async fn batches(
        limits: &BatchSettings,
        requests: Vec<PendingRequest>,
        first: usize,
    ) -> Vec<Vec<PendingRequest>> {
        #[expect(clippy::disallowed_methods, reason = "as many requests as the test has")]
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut batches = Batches { limits: limits.clone(), receiver, carried: None };
        let mut requests = requests.into_iter();
        for request in requests.by_ref().take(first.max(1)) {
            sender.send(request).unwrap();
        }
        let (mut sender, mut made) = (Some(sender), Vec::new());
        while let Some(batch) = batches.next().await {
            made.push(batch);
            match (requests.next(), &sender) {
                (Some(request), Some(sender)) => sender.send(request).unwrap(),
                _ => sender = None,
            }
        }
        made
    }

    proptest! {
        #[test]
        fn batches_keep_the_limits_the_order_and_every_request(
            sizes in vec((0..9_usize, 0..1500_usize), 1..40),
            max_jobs in 1..12_usize,
            max_bytes in 1..2000_usize,
            first in 1..40_usize,
        ) {
            let settings = AdmissionSettings::read(&mut SettingsReader::default().section("limits"));
            let admission = Admission::new(&settings, &Metrics::new("v", "c").unwrap());
            let limits = BatchSettings { max_jobs, max_bytes, max_in_flight: 1 };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let batches = runtime.block_on(async {
                let each = sizes.iter().enumerate();
                let requests = each.map(|(position, size)| request(&admission, position, *size));
                batches(&limits, requests.collect(), first).await
            });
            for batch in &batches {
                let jobs: usize = batch.iter().map(|request| request.jobs.weight()).sum();
                let bytes: usize = batch.iter().map(|request| request.jobs.bytes).sum();
                prop_assert!(batch.len() == 1 || (jobs <= max_jobs && bytes <= max_bytes));
            }
            let arrived: Vec<Size> = batches.iter().flatten().map(|request| (request.jobs.heads.len(), request.jobs.bytes)).collect();
            prop_assert_eq!(arrived, sizes);
            prop_assert!(batches.iter().flatten().is_sorted_by_key(|request| request.deadline));
        }
    }
}
