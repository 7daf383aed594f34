//! What a Redis holds for one queue and its producers.

use super::errors::{Command, RedisError, Refusal};
use super::execution::Execution;
use super::reply::{BatchResult, Reply};
use super::{Batch, Text};
use crate::safeguards::Safeguards;
use std::collections::{BTreeMap, BTreeSet};

/// The default of `opts.maxLenEvents`, which the script writes if it is missing.
pub(super) const MAX_EVENTS: &str = "10000";

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Redis {
    /// Ids of jobs, in the order in which workers take them.
    pub wait: Vec<i64>,
    pub paused: Vec<i64>,
    pub jobs: BTreeMap<i64, Job>,
    /// The id of the last job.
    pub last_id: Counter,
    pub meta: Meta,
    /// Number of jobs that workers have taken.
    pub active: u64,
    pub has_marker: bool,
    /// Number of events that were written, trimmed ones included.
    pub events: u64,
    /// By the key of the producer's record.
    pub producers: BTreeMap<Text, ProducerRecord>,
    pub idempotency: BTreeMap<Text, KeyRecord>,
    /// Keys that hold a value of another type than the script needs.
    pub held_keys: BTreeSet<Text>,
    pub refusal: Option<Refusal>,
    /// A command that the user of the script may not use.
    pub forbidden: Option<Command>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    pub name: Text,
    pub data: Text,
    pub options: Text,
    pub timestamp: u64,
}

/// The value of the key `id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Counter {
    #[default]
    Absent,
    Number(i64),
    NotANumber,
}

/// The fields of the key `meta` that the script reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Meta {
    pub max_events: Option<Text>,
    pub is_paused: bool,
    pub concurrency: Option<u64>,
    /// For example `bullmq:5.61.0`.
    pub version: Option<Text>,
}

/// The record of a producer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProducerRecord {
    pub mark: u64,
    /// The result of each number above the mark, in the order of their execution.
    pub results: Vec<(u64, BatchResult)>,
    pub expires_at: u64,
}

/// The record of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRecord {
    pub fingerprint: Text,
    pub jobs: u64,
    pub expires_at: u64,
}

impl Redis {
    /// Executes the script at `now_ms` on the clock of this server.
    pub fn add_jobs(
        &mut self,
        now_ms: u64,
        batch: &Batch,
        safeguards: Safeguards,
    ) -> Result<Reply, RedisError> {
        self.expire_records(now_ms);
        let result = Execution::new(self, now_ms, batch, safeguards).run()?;
        Ok(Reply { number: batch.number, now_ms, result })
    }

    /// Removes the records whose lifetime is over.
    pub fn expire_records(&mut self, now_ms: u64) {
        self.producers.retain(|_, record| record.expires_at >= now_ms);
        self.idempotency.retain(|_, record| record.expires_at >= now_ms);
    }

    /// Every job in a list, whether the queue was paused or not.
    pub fn listed(&self) -> impl Iterator<Item = i64> {
        self.wait.iter().chain(&self.paused).copied()
    }

    pub(super) fn read_key(&self, key: &str) -> Result<(), RedisError> {
        if self.held_keys.contains(key) { Err(RedisError::WrongType) } else { Ok(()) }
    }
}

impl ProducerRecord {
    /// The text of the record in Redis.
    pub fn text(&self) -> String {
        let entries = self.results.iter().map(|(number, result)| format!(" {number}={result}"));
        entries.fold(self.mark.to_string(), |text, entry| text + &entry)
    }

    /// The recorded result of this number.
    pub fn result(&self, number: u64) -> Option<&BatchResult> {
        self.results.iter().find(|(recorded, _)| *recorded == number).map(|(_, result)| result)
    }
}

impl KeyRecord {
    /// The text of the record in Redis.
    pub fn text(&self) -> String {
        format!("{} {}", self.fingerprint, self.jobs)
    }
}

impl Meta {
    pub(super) fn major_version(&self) -> Option<u64> {
        let version = self.version.as_deref()?.strip_prefix("bullmq:")?;
        version.split_once('.')?.0.parse().ok()
    }
}
