//! The share of the in-flight limits that one of several queues may hold. A queue that stands still
//! leaves the rest to the organizations of the others.

use crate::admission::accounts::Amount;
use crate::admission::error::AdmissionError;
use atomics::in_flight::InFlight;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The share of each of several queues.
const SHARE: f64 = 0.5;

/// What the requests of one of this number of queues may have in flight.
pub(super) fn part_of_queue(queues: usize, in_flight: Amount) -> Amount {
    if queues > 1 { in_flight.share(SHARE) } else { in_flight }
}

/// What the requests of each queue have in flight.
#[derive(Debug)]
pub(super) struct QueueShares {
    max_requests: AtomicUsize,
    max_bytes: AtomicUsize,
    queues: Box<[InFlight]>,
}

impl QueueShares {
    pub(super) fn new(queues: usize, in_flight: Amount) -> Self {
        let Amount { requests, bytes } = part_of_queue(queues, in_flight);
        Self {
            max_requests: AtomicUsize::new(requests),
            max_bytes: AtomicUsize::new(bytes),
            queues: (0..queues).map(|_| InFlight::default()).collect(),
        }
    }

    /// Applies new in-flight limits.
    pub(super) fn reload(&self, in_flight: Amount) {
        let Amount { requests, bytes } = self.part_of_queue(in_flight);
        self.max_requests.store(requests, Ordering::Relaxed);
        self.max_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What the requests of one queue may have in flight.
    pub(super) fn part_of_queue(&self, in_flight: Amount) -> Amount {
        part_of_queue(self.queues.len(), in_flight)
    }

    /// Counts a request with the bytes that it holds already, unless that exceeds the share.
    pub(super) fn reserve_request(&self, queue: usize, bytes: usize) -> Result<(), AdmissionError> {
        let in_flight = self.queue(queue);
        if !in_flight.try_add_request(self.max_requests.load(Ordering::Relaxed)) {
            return Err(AdmissionError::Overloaded);
        }
        let reserved = self.reserve_bytes(queue, bytes, 0);
        reserved.inspect_err(|_| in_flight.end_request())
    }

    /// Reserves `bytes` more for a request that holds `own`. A request that holds all bytes of its
    /// queue is never rejected: sending it later would not help.
    pub(super) fn reserve_bytes(
        &self,
        queue: usize,
        bytes: usize,
        own: usize,
    ) -> Result<(), AdmissionError> {
        let max = self.max_bytes.load(Ordering::Relaxed);
        let is_reserved = self.queue(queue).try_add_bytes(bytes, own, max);
        if is_reserved { Ok(()) } else { Err(AdmissionError::Overloaded) }
    }

    /// Checks that a request that holds `own` bytes could reserve `bytes` more now.
    pub(super) fn check(
        &self,
        queue: usize,
        bytes: usize,
        own: usize,
    ) -> Result<(), AdmissionError> {
        let max = self.max_bytes.load(Ordering::Relaxed);
        let fits = self.queue(queue).has_room_for(bytes, own, max);
        if fits { Ok(()) } else { Err(AdmissionError::Overloaded) }
    }

    pub(super) fn release_bytes(&self, queue: usize, bytes: usize) {
        self.queue(queue).release_bytes(bytes);
    }

    /// Ends a request that holds `bytes`.
    pub(super) fn end_request(&self, queue: usize, bytes: usize) {
        self.release_bytes(queue, bytes);
        self.queue(queue).end_request();
    }

    /// What the requests of a queue have in flight.
    #[cfg(test)]
    pub(super) fn in_flight(&self, queue: usize) -> Amount {
        let in_flight = self.queue(queue);
        Amount { requests: in_flight.requests(), bytes: in_flight.bytes() }
    }

    fn queue(&self, number: usize) -> &InFlight {
        self.queues.get(number).expect("the number of one of several queues")
    }
}
