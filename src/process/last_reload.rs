//! The result of the last reload of the configuration, for the status page.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::SystemTime;

/// The last reload since the start; none before the first.
#[derive(Debug, Clone, Default)]
pub struct LastReload(Arc<Mutex<Option<Reloaded>>>);

/// The result of a reload. It has the names of keys, and no values.
#[derive(Debug, Clone)]
pub struct Reloaded {
    pub at: SystemTime,
    /// The keys that were applied.
    pub changed: Vec<String>,
    /// The keys that have changed and take effect after a restart.
    pub pending: Vec<String>,
    /// The keys with faults. If there is one, nothing was applied.
    pub faults: Vec<String>,
}

impl Reloaded {
    pub fn is_applied(&self) -> bool {
        self.faults.is_empty()
    }
}

impl LastReload {
    pub fn applied(&self, changed: Vec<String>, pending: Vec<String>) {
        self.set(changed, pending, Vec::new());
    }

    pub fn refused(&self, faults: Vec<String>) {
        self.set(Vec::new(), Vec::new(), faults);
    }

    fn set(&self, changed: Vec<String>, pending: Vec<String>, faults: Vec<String>) {
        let at = SystemTime::now();
        *self.0.lock() = Some(Reloaded { at, changed, pending, faults });
    }

    pub fn get(&self) -> Option<Reloaded> {
        self.0.lock().clone()
    }
}
