//! A run of one seed, and the search through many.

use crate::admission::{Admission, AdmissionSettings};
use crate::metrics::Metrics;
use crate::process::supervisor::{Supervisor, TaskFailures};
use crate::queue::simulation::callers::{self, Process};
use crate::queue::simulation::connector::SimulatedConnector;
use crate::queue::simulation::judge::judge;
use crate::queue::simulation::ledger::Answer;
use crate::queue::simulation::plan::RequestPlan;
use crate::queue::simulation::trace::{Kind, Trace};
use crate::queue::simulation::world::{SharedWorld, World, keep_agenda};
use crate::queue::{IdempotencySettings, Queue, QueueParts, QueueSettings};
use crate::settings::SettingsReader;
use fastrand::Rng;
use futures_util::FutureExt;
use model::Safeguards;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use testkit::seeds;
use tokio::runtime::{Builder, Handle};
use tokio::time::{sleep, timeout};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Permits of a run, which are more than its requests need.
const PERMITS: usize = 256;

/// A time by which everything of a run has ended.
const LONG: Duration = Duration::from_secs(120);

/// What the runs of a thread share.
pub(super) struct Bench {
    settings: QueueSettings,
    metrics: Arc<Metrics>,
    admission: Arc<Admission>,
}

/// What a run has shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The promises that were broken.
    pub(super) faults: Vec<String>,
    /// How often each kind of event was reached.
    pub(super) reached: Vec<u64>,
    pub(super) trace: Vec<String>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let metrics = Metrics::new("v", "c").unwrap();
        let mut file = SettingsReader::default();
        let idempotency = IdempotencySettings::read(&mut file.section("idempotency"));
        let mut limits = AdmissionSettings::read(&mut file.section("limits"));
        limits.in_flight_requests = PERMITS;
        Self {
            settings: QueueSettings::read(&mut file.section("queue"), idempotency),
            admission: Admission::new(&limits, &metrics),
            metrics,
        }
    }

    /// Runs a seed.
    pub(super) fn run(&self, seed: u64, safeguards: Safeguards, is_traced: bool) -> Outcome {
        // The jitter of pauses.
        fastrand::seed(seed);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let world = World::new(Rng::with_seed(seed), safeguards, is_traced);
            let world = Arc::new(Mutex::new(world));
            let mut faults = self.play(&world).await;
            let mut world = world.lock();
            faults.extend(judge(&world));
            let trace = std::mem::replace(&mut world.trace, Trace::new(false));
            let (reached, trace) = trace.into_parts();
            Outcome { faults, reached, trace }
        })
    }

    /// Plays the plan of a run to its end, and returns what was left over.
    async fn play(&self, world: &SharedWorld) -> Vec<String> {
        let plan = world.lock().plan.clone();
        let agenda = AbortOnDropHandle::new(tokio::spawn(keep_agenda(Arc::clone(world))));
        let (supervisor, mut failures) = Supervisor::new();
        let tasks = TaskTracker::new();
        let settings = self.settings(world);
        let start = || {
            let parts = QueueParts::of_one(Arc::clone(&settings), &self.metrics);
            let queue = Queue::start(&parts, &tasks, &supervisor);
            Arc::new(Mutex::new(Some(queue)))
        };
        let processes: Vec<Process> = (0..plan.processes).map(|_| start()).collect();
        let callers = TaskTracker::new();
        for request in plan.requests {
            let processes = processes.clone();
            let (world, admission) = (Arc::clone(world), Arc::clone(&self.admission));
            callers.spawn(callers::call(world, processes, admission, request));
        }
        if let Some(at) = plan.drain_at {
            let (world, processes) = (Arc::clone(world), processes.clone());
            callers.spawn(async move {
                sleep(Duration::from_millis(at)).await;
                world.lock().trace.note(Kind::Drained, format_args!(""));
                for process in &processes {
                    *process.lock() = None;
                }
            });
        }
        callers.close();
        let mut faults = Vec::new();
        if timeout(LONG, callers.wait()).await.is_err() {
            faults.push("a caller still waits".to_owned());
        }
        let healed = Duration::from_millis(plan.heals_at) + plan.enqueue_timeout * 2;
        let elapsed = Duration::from_millis(world.lock().trace.milliseconds());
        sleep(healed.saturating_sub(elapsed)).await;
        if plan.drain_at.is_none() {
            for process in &processes {
                faults.extend(self.check_quiet(world, process).await);
            }
        }
        drop(processes);
        faults.extend(self.check_ended(&tasks, agenda, &mut failures).await);
        faults
    }

    fn settings(&self, world: &SharedWorld) -> Arc<QueueSettings> {
        let plan = world.lock().plan.clone();
        let mut settings = self.settings.clone();
        settings.enqueue_timeout = plan.enqueue_timeout;
        settings.wait_replicas = plan.wait_replicas;
        settings.batch.max_jobs = plan.max_jobs;
        settings.batch.max_bytes = plan.max_bytes;
        settings.batch.max_in_flight = plan.max_in_flight;
        settings.connector = Arc::new(SimulatedConnector(Arc::clone(world)));
        Arc::new(settings)
    }

    /// Once the faults are over, a request is accepted again, and the record of its producer has
    /// nothing else.
    async fn check_quiet(&self, world: &SharedWorld, process: &Process) -> Option<String> {
        let request = RequestPlan {
            at: 0,
            process: 0,
            jobs: 1,
            bytes: 20,
            key: None,
            body: 0,
            leaves_after: None,
            is_slow_for: 0,
            resends: 0,
        };
        for _ in 0..20 {
            let queue = process.lock().clone().unwrap();
            let answer = callers::send(world, queue, &self.admission, &request).await;
            if answer == Some(Answer::Added { matched: 1 }) {
                let world = world.lock();
                return world.ledger.leftovers(&world.servers[world.primary].redis);
            }
            sleep(Duration::from_millis(300)).await;
        }
        Some("no request is accepted after the faults".to_owned())
    }

    /// Every task has ended without a panic, and every permit was returned.
    async fn check_ended(
        &self,
        tasks: &TaskTracker,
        agenda: AbortOnDropHandle<()>,
        failures: &mut TaskFailures,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        tasks.close();
        if timeout(LONG, tasks.wait()).await.is_err() {
            faults.push("a task of the queue has not ended".to_owned());
        }
        drop(agenda);
        // The reconnect loop ends once it has seen that nothing uses it.
        sleep(Duration::from_secs(4)).await;
        let alive = Handle::current().metrics().num_alive_tasks();
        if alive > 0 {
            faults.push(format!("{alive} tasks have not ended"));
        }
        if let Some(failure) = failures.next().now_or_never() {
            faults.push(format!("{failure}"));
        }
        let permits: Vec<_> = std::iter::from_fn(|| self.admission.admit().ok()).collect();
        if permits.len() != PERMITS {
            faults.push(format!("{} permits were not returned", PERMITS - permits.len()));
        }
        faults
    }
}

/// The first seed that breaks a promise, with what it has shown, and how often each kind of event
/// was reached until then.
pub(super) struct Search {
    pub(super) failed: Option<(u64, Outcome)>,
    pub(super) reached: Vec<u64>,
    pub(super) seeds: u64,
}

/// Runs these seeds until one fails.
pub(super) fn search(seeds: std::ops::Range<u64>, safeguards: Safeguards) -> Search {
    let begin = || (Bench::new(), vec![0; Kind::ALL.len()], 0);
    let (failing, states) = seeds::search(seeds, begin, |(bench, reached, count), seed| {
        let outcome = bench.run(seed, safeguards, false);
        *count += 1;
        add(reached, &outcome.reached);
        !outcome.faults.is_empty()
    });
    let failed = failing.map(|seed| (seed, Bench::new().run(seed, safeguards, true)));
    let mut search = Search { failed, reached: vec![0; Kind::ALL.len()], seeds: 0 };
    for (_, reached, count) in states {
        add(&mut search.reached, &reached);
        search.seeds += count;
    }
    search
}

fn add(sums: &mut [u64], counts: &[u64]) {
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}
