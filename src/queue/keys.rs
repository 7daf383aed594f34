//! The keys of a BullMQ queue.

use crate::settings::Section;

/// `queue.prefix` and `queue.name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueueName {
    prefix: String,
    name: String,
}

impl QueueName {
    /// `in_cluster`: all keys must lie in one slot, which takes a hash tag.
    pub(super) fn read(section: &mut Section<'_>, in_cluster: bool) -> Self {
        let name = section.name("name", "workflow-runner");
        if name.contains(':') {
            section.fault("name", "holds a colon, which BullMQ does not allow");
        }
        let prefix = section.name("prefix", "bull");
        let tag = prefix.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        if in_cluster && tag.is_none_or(|(tag, _)| tag.is_empty()) {
            section.fault("prefix", "needs a hash tag on a cluster, such as \"{bull}\"");
        }
        Self { prefix, name }
    }

    /// What the keys of jobs begin with, the colon at its end included.
    pub(super) fn job_prefix(&self) -> String {
        self.key("")
    }

    /// The KEYS of the script, in its order.
    pub(super) fn script_keys(&self) -> [String; 7] {
        ["wait", "paused", "meta", "id", "events", "marker", "active"].map(|key| self.key(key))
    }

    /// The record of a producer. Like all keys of ours it lies outside of what BullMQ looks through, and in a
    /// cluster in the same slot.
    pub(super) fn producer_key(&self, id: &str) -> String {
        format!("hookgate:{}:{}:producer:{id}", self.prefix, self.name)
    }

    /// What the records of idempotency keys begin with.
    pub(super) fn idempotency_prefix(&self) -> String {
        format!("hookgate:{}:{}:idempotency:", self.prefix, self.name)
    }

    /// A job of another queue, a record of ours for that queue, and a key of nobody we know.
    pub(super) fn foreign_keys(&self) -> [String; 3] {
        let other = Self { prefix: self.prefix.clone(), name: format!("{}-other", self.name) };
        [other.key("1"), other.idempotency_prefix() + "check", "another-key".to_owned()]
    }

    fn key(&self, key: &str) -> String {
        format!("{}:{}:{key}", self.prefix, self.name)
    }
}
