//! The section `[queue.batch]`.

use crate::settings::Section;

/// The section `[queue.batch]`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "they are the keys of the section")]
pub(in crate::queue) struct BatchSettings {
    /// Maximum jobs in one call. A request with more is a batch of its own.
    pub(in crate::queue) max_jobs: usize,
    /// Maximum bytes in one call. A request with more is a batch of its own.
    pub(in crate::queue) max_bytes: usize,
    /// Maximum calls on the wire at a time.
    pub(in crate::queue) max_in_flight: usize,
}

impl BatchSettings {
    pub(in crate::queue) fn read(section: &mut Section<'_>) -> Self {
        Self {
            max_jobs: section.count("max_jobs", 128, 1..=4096),
            max_bytes: section.size("max_bytes", "256KiB", 1024..=(16 << 20)),
            max_in_flight: section.count("max_in_flight", 4, 1..=64),
        }
    }
}
