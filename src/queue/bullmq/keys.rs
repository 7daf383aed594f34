//! The keys of a BullMQ queue and of Hookgate's records.

use crate::metrics::JobState;
use crate::queue::redis::address_setting::RedisServer;
use crate::settings::Section;

/// `queue.prefix` and `queue.name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::queue) struct QueueKeys {
    prefix: String,
    name: String,
}

impl Default for QueueKeys {
    fn default() -> Self {
        Self { prefix: "bull".to_owned(), name: "workflow-runner".to_owned() }
    }
}

impl QueueKeys {
    /// Reads both.
    pub(in crate::queue) fn read(section: &mut Section<'_>, defaults: &Self) -> Self {
        let name = section.name("name", &defaults.name);
        if name.contains(':') {
            section.fault("name", "contains a colon, which BullMQ does not allow");
        }
        Self { prefix: section.name("prefix", &defaults.prefix), name }
    }

    /// In a cluster all keys must be in one slot, which requires a hash tag.
    pub(in crate::queue) fn check_cluster(&self, section: &mut Section<'_>, server: &RedisServer) {
        let tag = self.prefix.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        if server.is_cluster() && tag.is_none_or(|(tag, _)| tag.is_empty()) {
            section.fault("prefix", "needs a hash tag on a cluster, such as \"{bull}\"");
        }
    }

    /// The name of the queue.
    pub(in crate::queue) fn name(&self) -> &str {
        &self.name
    }

    /// The slot of its keys in a cluster.
    pub(in crate::queue) fn slot(&self) -> u16 {
        fred::util::redis_keyslot(self.job_prefix().as_bytes())
    }

    /// The prefix of the keys of jobs, with the colon at its end.
    pub(in crate::queue) fn job_prefix(&self) -> String {
        self.key("")
    }

    /// The first KEYS of the script, in the order that the script documents.
    pub(in crate::queue) fn script_keys(&self) -> [String; 7] {
        ["wait", "paused", "meta", "id", "events", "marker", "active"].map(|key| self.key(key))
    }

    /// The keys that hold the jobs of a state, each with the command that counts them.
    pub(in crate::queue) fn counted_keys(&self, state: JobState) -> Vec<(&'static str, String)> {
        let keys: &[(&str, &str)] = match state {
            JobState::Waiting => &[("LLEN", "wait"), ("LLEN", "paused")],
            JobState::Active => &[("LLEN", "active")],
            JobState::Delayed => &[("ZCARD", "delayed")],
            JobState::Prioritized => &[("ZCARD", "prioritized")],
            JobState::Failed => &[("ZCARD", "failed")],
        };
        keys.iter().map(|(command, key)| (*command, self.key(key))).collect()
    }

    /// The key of the record of a producer. Hookgate's keys do not begin with the prefix of the
    /// queue, so BullMQ does not scan them. In a cluster they are in the slot of the queue.
    pub(in crate::queue) fn producer_key(&self, id: &str) -> String {
        format!("hookgate:{}:{}:producer:{id}", self.prefix, self.name)
    }

    /// The prefix of the keys of idempotency records.
    pub(in crate::queue) fn idempotency_prefix(&self) -> String {
        format!("hookgate:{}:{}:idempotency:", self.prefix, self.name)
    }

    /// Keys that adding jobs does not need: a job of another queue, an idempotency record of that
    /// queue, and an unrelated key.
    pub(in crate::queue) fn foreign_keys(&self) -> [String; 3] {
        let other = Self { prefix: self.prefix.clone(), name: format!("{}-other", self.name) };
        [other.key("1"), other.idempotency_prefix() + "check", "another-key".to_owned()]
    }

    fn key(&self, key: &str) -> String {
        format!("{}:{}:{key}", self.prefix, self.name)
    }
}
