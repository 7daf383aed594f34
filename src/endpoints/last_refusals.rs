//! The last refusal of each verification of an address, for its preview.

use crate::endpoints::verification::{Digest, Refusal};
use parking_lot::Mutex;
use std::time::SystemTime;

/// Verifications that are remembered. An address has fewer, but named ones can change.
const MAX_REMEMBERED: usize = 32;

/// Why and when a delivery was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRefusal {
    pub at: SystemTime,
    pub refusal: Refusal,
}

/// The last refusal of each verification, by its identity. The one that is unchanged for longest is
/// forgotten first.
#[derive(Debug, Default)]
pub struct LastRefusals(Mutex<Vec<(Digest, LastRefusal)>>);

impl LastRefusals {
    pub fn set(&self, verification: Digest, refusal: LastRefusal) {
        let mut refusals = self.0.lock();
        refusals.retain(|(known, _)| *known != verification);
        if refusals.len() == MAX_REMEMBERED {
            refusals.remove(0);
        }
        refusals.push((verification, refusal));
    }

    pub fn get(&self, verification: Digest) -> Option<LastRefusal> {
        let refusals = self.0.lock();
        let found = refusals.iter().find(|(known, _)| *known == verification);
        found.map(|(_, refusal)| refusal.clone())
    }
}
