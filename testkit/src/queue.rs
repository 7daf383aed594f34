//! The contents of a BullMQ queue, read as bytes.

use std::collections::{BTreeMap, BTreeSet};

use redis::cmd;
use serde_json::Value;
use serde_json::value::RawValue;

use super::redis::Redis;
use super::wait::until;

/// A queue by its key prefix, which includes the last colon.
#[derive(Debug)]
pub struct Queue<'a> {
    redis: &'a Redis,
    prefix: String,
}

impl<'a> Queue<'a> {
    pub fn new(redis: &'a Redis, prefix: String) -> Self {
        Self { redis, prefix }
    }

    /// The full name of one of the queue's keys: `queue.key("wait")`.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Ids in `wait`, in the order in which BullMQ workers fetch them.
    pub async fn waiting_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> =
            self.redis.query(cmd("LRANGE").arg(self.key("wait")).arg(0).arg(-1)).await;
        ids.reverse();
        ids
    }

    /// Jobs in `wait`, in the order in which BullMQ workers fetch them.
    pub async fn waiting(&self) -> Vec<Job> {
        self.read(self.waiting_ids().await).await
    }

    /// The one waiting job; any other number fails the test.
    pub async fn only_job(&self) -> Job {
        let mut jobs = self.waiting().await;
        assert_eq!(jobs.len(), 1, "one waiting job expected: {jobs:?}");
        jobs.remove(0)
    }

    pub async fn assert_empty(&self) {
        let jobs = self.all().await;
        assert!(jobs.is_empty(), "no job expected: {jobs:?}");
    }

    /// Removes every job from Redis.
    pub async fn remove_jobs(&self) {
        let ids = self.hash_ids().await.into_iter().map(|id| self.key(&id));
        let keys: Vec<String> = ids.chain([self.key("wait"), self.key("marker")]).collect();
        let () = self.redis.query(cmd("DEL").arg(&keys)).await;
    }

    /// Waits until exactly `count` jobs wait, and returns them.
    pub async fn waiting_exactly(&self, count: usize) -> Vec<Job> {
        until("the queue holds the expected jobs", async || {
            self.waiting_ids().await.len() == count
        })
        .await;
        self.waiting().await
    }

    /// Jobs of every list and set, each once, sorted by id.
    pub async fn all(&self) -> Vec<Job> {
        let mut ids = BTreeSet::new();
        for list in ["wait", "paused", "active"] {
            let found: Vec<String> =
                self.redis.query(cmd("LRANGE").arg(self.key(list)).arg(0).arg(-1)).await;
            ids.extend(found);
        }
        for set in ["delayed", "prioritized", "completed", "failed", "waiting-children"] {
            let found: Vec<String> =
                self.redis.query(cmd("ZRANGE").arg(self.key(set)).arg(0).arg(-1)).await;
            ids.extend(found);
        }
        self.read(ids.into_iter().collect()).await
    }

    /// Ids of the job hashes in Redis, whether or not a list names them.
    pub async fn hash_ids(&self) -> BTreeSet<String> {
        let keys: Vec<String> = self.redis.query(cmd("KEYS").arg(self.key("*"))).await;
        let ids = keys.iter().filter_map(|key| key.strip_prefix(&self.prefix));
        ids.filter(|id| id.bytes().all(|byte| byte.is_ascii_digit())).map(str::to_owned).collect()
    }

    /// The events stream, oldest first: each event as its fields in order.
    pub async fn events(&self) -> Vec<Vec<(String, String)>> {
        type Entry = (String, Vec<(String, String)>);
        let entries: Vec<Entry> =
            self.redis.query(cmd("XRANGE").arg(self.key("events")).arg("-").arg("+")).await;
        entries.into_iter().map(|(_, fields)| fields).collect()
    }

    async fn read(&self, ids: Vec<String>) -> Vec<Job> {
        let mut connection = self.redis.connect().await;
        let mut jobs = Vec::with_capacity(ids.len());
        for id in ids {
            let mut command = cmd("HGETALL");
            let pairs: Vec<(String, Vec<u8>)> =
                command.arg(self.key(&id)).query_async(&mut connection).await.expect("a hash");
            jobs.push(Job { id, fields: pairs.into_iter().collect() });
        }
        jobs
    }
}

/// A job's hash.
#[derive(Debug)]
pub struct Job {
    pub id: String,
    pub fields: BTreeMap<String, Vec<u8>>,
}

impl Job {
    /// A field as a string.
    pub fn text(&self, field: &str) -> &str {
        let bytes = self
            .fields
            .get(field)
            .unwrap_or_else(|| panic!("job {} has no field {field}", self.id));
        std::str::from_utf8(bytes).expect("UTF-8")
    }

    /// The JSON of the job's data, as it is in Redis.
    pub fn data_text(&self) -> &str {
        self.text("data")
    }

    pub fn data(&self) -> Value {
        serde_json::from_str(self.data_text()).expect("data is JSON")
    }

    pub fn opts(&self) -> Value {
        serde_json::from_str(self.text("opts")).expect("opts is JSON")
    }

    /// `trigger.payload`, byte for byte.
    pub fn payload_text(&self) -> &str {
        let data: BTreeMap<&str, &RawValue> =
            serde_json::from_str(self.data_text()).expect("an object");
        let trigger: BTreeMap<&str, &RawValue> =
            serde_json::from_str(data["trigger"].get()).expect("an object");
        trigger["payload"].get()
    }

    /// A member of the data by its JSON pointer, as a string: `job.at("/trigger/webhookId")`.
    pub fn at(&self, pointer: &str) -> String {
        let data = self.data();
        let found = data.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no string at {pointer} of {data}")).to_owned()
    }
}
