//! Requests that wait at the same moment share one script call.
//!
//! There is no timer: a batch is what has queued up while the calls before it were away, so that an
//! idle service adds no latency and a busy one makes large batches.

use super::delivery::Delivery;
use super::job::Jobs;
use super::{Added, EnqueueError, Enqueued, QueueSettings};
use crate::admission::Permit;
use crate::settings::Section;
use crate::supervisor::Supervisor;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// The section `[queue.batch]`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "they are the keys of the section")]
pub(super) struct BatchSettings {
    /// Jobs in one call; a request with more is a batch of its own.
    max_jobs: usize,
    /// Bytes in one call; likewise.
    max_bytes: usize,
    /// Calls on the wire.
    max_in_flight: usize,
}

impl BatchSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            max_jobs: section.count("max_jobs", 128, 1..=4096),
            max_bytes: section.size("max_bytes", "256KiB", 1024..=(16 << 20)),
            max_in_flight: section.count("max_in_flight", 4, 1..=64),
        }
    }

    /// A request with more bytes is a batch of its own.
    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }
}

/// The way to a batcher.
#[derive(Debug, Clone)]
pub(super) struct Batcher {
    /// Bounded by the permits of those who wait.
    waiting: mpsc::UnboundedSender<Waiting>,
}

/// A request that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) jobs: Jobs,
    pub(super) deadline: Instant,
    pub(super) caller: Caller,
}

/// Who waits for the answer to a request.
#[derive(Debug)]
pub(super) struct Caller {
    /// Held until just before the request is answered, or known to have no answer: fields are dropped in this order.
    permit: Permit,
    answer: oneshot::Sender<Result<Added, EnqueueError>>,
}

impl Caller {
    pub(super) fn answer(self, result: Result<Added, EnqueueError>) {
        // First, since who has been answered may ask again at once, by way of another thread.
        drop(self.permit);
        // An error says that nobody waits for it any more; the jobs are added all the same.
        let _ = self.answer.send(result);
    }
}

impl Batcher {
    pub(super) fn start(
        settings: &Arc<QueueSettings>,
        delivery: Delivery,
        tasks: &TaskTracker,
        supervisor: &Supervisor,
    ) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "each who waits holds a permit, of which there are so many"
        )]
        let (waiting, receiver) = mpsc::unbounded_channel();
        let worker = Worker {
            slots: Arc::new(Semaphore::new(settings.batch.max_in_flight)),
            limits: settings.batch.clone(),
            delivery: Arc::new(delivery),
            receiver,
            carried: None,
            tasks: tasks.clone(),
        };
        tasks.spawn(supervisor.clone().watch("batcher", worker.run()));
        Self { waiting }
    }

    pub(super) async fn add(
        &self,
        jobs: Jobs,
        deadline: Instant,
        permit: Permit,
    ) -> Result<Added, EnqueueError> {
        let (answer, reply) = oneshot::channel();
        let waiting = Waiting { jobs, deadline, caller: Caller { permit, answer } };
        let unavailable = |_| EnqueueError::Unavailable(Enqueued::Nothing);
        self.waiting.send(waiting).map_err(unavailable)?;
        reply.await.unwrap_or(Err(EnqueueError::Unavailable(Enqueued::Unknown)))
    }
}

struct Worker {
    delivery: Arc<Delivery>,
    limits: BatchSettings,
    slots: Arc<Semaphore>,
    receiver: mpsc::UnboundedReceiver<Waiting>,
    /// What did not fit into the batch before.
    carried: Option<Waiting>,
    tasks: TaskTracker,
}

impl Worker {
    /// Ends when nobody can add any more and all that waited has been sent.
    async fn run(mut self) {
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned().await;
            let slot = slot.expect("the semaphore is never closed");
            let Some(batch) = self.next_batch().await else { return };
            self.tasks.spawn(Arc::clone(&self.delivery).deliver(batch, slot));
        }
    }

    /// Waits for a request, and takes along all that wait behind it and fit.
    async fn next_batch(&mut self) -> Option<Vec<Waiting>> {
        let first = match self.carried.take() {
            Some(carried) => carried,
            None => self.receiver.recv().await?,
        };
        // Lets the other tasks of this thread run first: those whose requests have just been read
        // come along.
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
    use crate::settings::Settings;
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};

    /// Asks for room at the very moment it is told of an answer.
    struct AsksAgain {
        admission: Arc<Admission>,
        is_admitted: AtomicBool,
    }

    impl Wake for AsksAgain {
        fn wake(self: Arc<Self>) {
            self.is_admitted.store(self.admission.admit().is_ok(), Ordering::Relaxed);
        }
    }

    #[test]
    fn who_is_answered_has_given_back_its_permit() {
        let mut settings = AdmissionSettings::read(&mut Settings::default().section("limits"));
        settings.in_flight_requests = 1;
        let admission = Admission::new(&settings, &Metrics::new("v", "c").unwrap());
        let (answer, reply) = oneshot::channel();
        let caller = Caller { permit: admission.admit().unwrap(), answer };
        let asks_again = Arc::new(AsksAgain { admission, is_admitted: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&asks_again));
        let mut reply = pin!(reply);
        assert!(reply.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        caller.answer(Ok(Added { matched: 1, is_repeated: false }));
        assert!(asks_again.is_admitted.load(Ordering::Relaxed));
    }
}
