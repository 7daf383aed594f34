//! Counters of what is in flight: requests, and the bytes reserved for them.

use crate::atomic::{AtomicUsize, Ordering};

/// What is in flight, without a bound of its own.
#[derive(Debug)]
pub struct InFlight {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl Default for InFlight {
    fn default() -> Self {
        Self { requests: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }
}

impl InFlight {
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts a request, and returns the requests in flight including it.
    #[inline]
    pub fn add_request(&self) -> usize {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    #[inline]
    pub fn end_request(&self) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a request if at most `max` are in flight with it, and returns whether it did.
    #[inline]
    pub fn try_add_request(&self, max: usize) -> bool {
        let has_room = self.add_request() <= max;
        if !has_room {
            self.end_request();
        }
        has_room
    }

    /// Reserves bytes, and returns the reserved bytes including them.
    #[inline]
    pub fn add_bytes(&self, bytes: usize) -> usize {
        self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
    }

    #[inline]
    pub fn release_bytes(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether [`Self::try_add_bytes`] would reserve these bytes now. Reserves nothing.
    #[inline]
    pub fn has_room_for(&self, bytes: usize, own: usize, max: usize) -> bool {
        is_within(self.bytes().saturating_add(bytes), own.saturating_add(bytes), max)
    }

    /// Reserves bytes if at most `max` are reserved with them, or if no other request has any:
    /// `own` are those of this request. Returns whether it did.
    ///
    /// The bytes are added first, and subtracted again if they exceed the bound. Two requests that
    /// reach the bound at the same time may both be refused.
    #[inline]
    pub fn try_add_bytes(&self, bytes: usize, own: usize, max: usize) -> bool {
        let has_room = is_within(self.add_bytes(bytes), own.saturating_add(bytes), max);
        if !has_room {
            self.release_bytes(bytes);
        }
        has_room
    }
}

/// Whether reserved bytes are at most `max`, or are all of one request, which has `own`.
#[inline]
fn is_within(reserved: usize, own: usize, max: usize) -> bool {
    reserved <= max || reserved == own
}
