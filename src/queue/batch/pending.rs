//! Requests that wait for their batch, and their callers.

use crate::admission::Permit;
use crate::queue::bullmq::job::Jobs;
use crate::queue::outcome::{Added, EnqueueError};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A request that waits for its batch.
#[derive(Debug)]
pub(in crate::queue) struct PendingRequest {
    pub(in crate::queue) jobs: Jobs,
    pub(in crate::queue) deadline: Instant,
    pub(in crate::queue) caller: PendingCaller,
}

/// The caller that waits for the answer to a request.
#[derive(Debug)]
pub(in crate::queue) struct PendingCaller {
    /// Released just before the caller is answered, or before it learns that there is no answer:
    /// fields are dropped in this order.
    permit: Permit,
    answer: oneshot::Sender<Result<Added, EnqueueError>>,
}

impl PendingCaller {
    pub(in crate::queue) fn new(
        permit: Permit,
        answer: oneshot::Sender<Result<Added, EnqueueError>>,
    ) -> Self {
        Self { permit, answer }
    }

    pub(in crate::queue) fn answer(self, result: Result<Added, EnqueueError>) {
        // Released first, because an answered caller may send its next request at once, on another
        // thread.
        drop(self.permit);
        // An error means that the caller no longer waits. Its jobs are added nevertheless.
        let _ = self.answer.send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Admission, AdmissionSettings};
    use crate::metrics::Metrics;
    use crate::settings::SettingsReader;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};

    /// Requests a permit at the moment it is woken by an answer.
    struct PermitOnWake {
        admission: Arc<Admission>,
        is_admitted: AtomicBool,
    }

    impl Wake for PermitOnWake {
        fn wake(self: Arc<Self>) {
            self.is_admitted.store(self.admission.admit().is_ok(), Ordering::Relaxed);
        }
    }

    #[test]
    fn an_answered_caller_has_returned_its_permit() {
        let mut settings =
            AdmissionSettings::read(&mut SettingsReader::default().section("limits"));
        settings.in_flight_requests = 1;
        let admission = Admission::new(&settings, &Metrics::new("v", "c").unwrap());
        let (answer, reply) = oneshot::channel();
        let caller = PendingCaller { permit: admission.admit().unwrap(), answer };
        let on_wake = Arc::new(PermitOnWake { admission, is_admitted: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&on_wake));
        let mut reply = pin!(reply);
        assert!(reply.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        caller.answer(Ok(Added { matched: 1, is_repeated: false }));
        assert!(on_wake.is_admitted.load(Ordering::Relaxed));
    }
}
