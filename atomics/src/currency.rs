//! How current a published state is.

use crate::atomic::{AtomicBool, AtomicU64, Ordering};

/// The moment whose state is published, and whether it shows one moment. One thread writes it.
///
/// The writer marks a state as inconsistent before it publishes it, and states its moment
/// afterwards. A reader that finds nothing asks whether it may believe that, looks again, and asks
/// again: then what it has not found is missing in a state that was consistent and current.
#[derive(Debug)]
pub struct Currency {
    /// The moment plus one. 0 if nothing is published yet.
    as_of: AtomicU64,
    /// Whether what is published may have been read in the middle of a change.
    is_inconsistent: AtomicBool,
}

impl Default for Currency {
    fn default() -> Self {
        Self { as_of: AtomicU64::new(0), is_inconsistent: AtomicBool::new(false) }
    }
}

impl Currency {
    /// The moment of the published state; `None` if nothing is published yet.
    #[inline]
    pub fn as_of(&self) -> Option<u64> {
        self.as_of.load(Ordering::Acquire).checked_sub(1)
    }

    #[inline]
    pub fn is_inconsistent(&self) -> bool {
        self.is_inconsistent.load(Ordering::Acquire)
    }

    pub fn mark_inconsistent(&self) {
        self.is_inconsistent.store(true, Ordering::Release);
    }

    /// Records that the published state is that of a moment.
    pub fn mark_current(&self, as_of: u64) {
        self.set_age_origin(as_of);
        self.is_inconsistent.store(false, Ordering::Release);
    }

    /// Records the moment of the published state, without a statement about its consistency.
    pub fn set_age_origin(&self, as_of: u64) {
        self.as_of.store(as_of.saturating_add(1), Ordering::Release);
    }
}
