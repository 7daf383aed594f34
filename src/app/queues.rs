//! The queues of the process: their health checks, and their connections on the runtimes of the
//! workers.

use crate::app::workers::WorkerRuntime;
use crate::process::lifecycle::Readiness;
use crate::process::supervisor::Supervisor;
use crate::queue;
use crate::queue::{Queue, QueueParts, QueueSettings, Queues, ShardMap};
use std::sync::Arc;
use std::time::Duration;

/// Starts the health check of each queue. With several queues, one that works is enough for the
/// process to be ready.
pub(super) fn start_health(
    queues: &[QueueParts],
    count_interval: Duration,
    readiness: &Readiness,
    supervisor: &Supervisor,
) {
    for parts in queues {
        let reporter = match parts.shard_name() {
            None => readiness.part("redis"),
            Some(name) => readiness.part_of_group("redis", format!("redis ({name})")),
        };
        let watch =
            queue::run_health_check(parts.clone(), count_interval, reporter, supervisor.clone());
        supervisor.spawn("health of Redis", watch);
    }
}

/// The connections of all queues, distributed over the runtimes of the workers.
pub(super) struct WorkerQueues {
    map: Arc<ShardMap>,
    workers: usize,
    /// The connections of each queue. Those of the queue with number n begin on the runtime with
    /// number n, so that several queues do not all have theirs on the same one.
    queues: Vec<Vec<Queue>>,
}

impl WorkerQueues {
    /// Opens the connections.
    pub(super) fn start(
        settings: &QueueSettings,
        queues: &[QueueParts],
        runtimes: &[WorkerRuntime],
        supervisor: &Supervisor,
    ) -> Self {
        let workers = runtimes.len();
        let connect = |(number, parts): (usize, &QueueParts)| {
            let connect = |WorkerRuntime { runtime, queue_tasks }: &WorkerRuntime| {
                let _entered = runtime.enter();
                Queue::start(parts, queue_tasks, supervisor)
            };
            let runtimes = runtimes.iter().cycle().skip(number % workers);
            runtimes.take(settings.connections(workers)).map(connect).collect()
        };
        let queues = queues.iter().enumerate().map(connect).collect();
        Self { map: Arc::new(settings.shard_map()), workers, queues }
    }

    /// The queues as a worker uses them: over its own connections, if each has one. `None` if a
    /// queue has no connection.
    pub(super) fn of_worker(&self, index: usize) -> Option<Queues> {
        let queue = |(number, connections): (usize, &Vec<Queue>)| {
            let first = (index + self.workers - number % self.workers) % self.workers;
            let own = connections.iter().skip(first % connections.len().max(1));
            own.step_by(self.workers).cloned().reduce(Queue::merge)
        };
        let queues = self.queues.iter().enumerate().map(queue).collect::<Option<Vec<Queue>>>()?;
        Some(Queues::new(&self.map, queues))
    }
}
