//! What all connections of one queue share.

use crate::metrics::{Metrics, RedisMetrics};
use crate::queue::redis::health::RedisHealth;
use crate::queue::settings::QueueSettings;
use std::sync::Arc;

/// What all connections of one queue share.
#[derive(Debug, Clone)]
pub struct QueueParts {
    pub(in crate::queue) settings: Arc<QueueSettings>,
    pub(in crate::queue) health: Arc<RedisHealth>,
    pub(in crate::queue) metrics: Arc<RedisMetrics>,
    /// The number of the queue among several; `None` for the only one.
    pub(in crate::queue) shard: Option<usize>,
}

impl QueueParts {
    /// The parts of each queue of `[queue]`, in the order of the configuration.
    pub fn of_all(settings: &QueueSettings, metrics: &Metrics) -> Vec<Self> {
        let parts = |(number, settings): (usize, Arc<QueueSettings>)| {
            let shard = settings.are_several().then_some(number);
            Self { shard, ..Self::of_one(settings, metrics) }
        };
        settings.queues().into_iter().enumerate().map(parts).collect()
    }

    /// The parts of the only queue.
    pub fn of_one(settings: Arc<QueueSettings>, metrics: &Metrics) -> Self {
        let metrics = metrics.queue(settings.name());
        let health = Arc::new(RedisHealth::new(settings.shard_name()));
        Self { settings, health, metrics, shard: None }
    }

    /// The name of the queue if there are several.
    pub fn shard_name(&self) -> Option<&str> {
        self.settings.shard_name()
    }
}
