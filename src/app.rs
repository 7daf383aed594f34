//! Puts the parts together: builds each from its section, starts them in order, stops them in order.

use crate::admin::{self, Admin};
use crate::admission::Admission;
use crate::auth::{Authenticator, Callers, UsersView};
use crate::config::Config;
use crate::descriptors;
use crate::ingress::{self, BodyReader, Ingress, Listener, ServerSettings, Service, Tls};
use crate::lifecycle::{self, Condition, Readiness, Reporter, Shutdown, Stage, StopSignals};
use crate::metrics::Metrics;
use crate::mirror::mongo::{self, Mongo};
use crate::mirror::snapshot::{Snapshot, Snapshots, SourceId};
use crate::mirror::{Mirror, file};
use crate::queue::{self, Health, Queue};
use crate::reload::Reload;
use crate::telemetry::Log;
use crate::triggers::{Source, TriggerIndex, WorkflowsView};
use anyhow::Context;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

/// How often histograms are tidied up.
const METRICS_UPKEEP: Duration = Duration::from_secs(2);

/// How long the batchers may go on when the time for the drain is over.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As asked, and every 202 is in Redis.
    Clean,
    /// Told twice, or out of time: requests may have been cut off.
    CutShort,
}

/// Runs the service until it is told to stop. The configuration is read again from its file when that is asked for.
pub fn run(config: Config, path: PathBuf, log: Log) -> anyhow::Result<Ended> {
    let runtime = new_runtime()?;
    let ended = runtime.block_on(App::start(config)?.run(path, log));
    // A look-up of a name may still be under way on a thread of its own; nobody needs it.
    runtime.shutdown_background();
    ended
}

/// The parts that live as long as the process.
struct App {
    config: Config,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    callers: Arc<Callers>,
    triggers: Arc<TriggerIndex>,
    health: Arc<Health>,
    listeners: Vec<Listener>,
    admin_listener: std::net::TcpListener,
}

impl App {
    /// Builds what needs nobody else. Both ports are bound here, so that a clash shows at once.
    fn start(config: Config) -> anyhow::Result<Self> {
        let admin_address = config.admin.listen;
        let admin_listener = std::net::TcpListener::bind(admin_address)
            .with_context(|| format!("cannot listen on admin.listen {admin_address}"))?;
        admin_listener.set_nonblocking(true)?;
        let listeners = bind(&config.server)?;
        Ok(Self {
            metrics: Metrics::new(env!("CARGO_PKG_VERSION"), env!("HOOKGATE_COMMIT"))?,
            readiness: Readiness::default(),
            callers: Arc::new(Callers::new(config.triggers.max_staleness)),
            triggers: Arc::new(TriggerIndex::new(config.triggers.max_staleness)),
            health: Arc::default(),
            listeners,
            admin_listener,
            config,
        })
    }

    async fn run(mut self, path: PathBuf, log: Log) -> anyhow::Result<Ended> {
        let mut signals = StopSignals::new()?;
        let hangups = lifecycle::hangups()?;
        let process = self.readiness.part("process");
        let mut background = JoinSet::new();
        let admin_shutdown = self.start_admin()?;
        self.start_health(&mut background);
        self.config.auth.jwt.warn();
        let authenticator =
            Arc::new(Authenticator::new(self.config.auth.clone(), Arc::clone(&self.callers)));
        background.spawn(never(authenticator.follow_keys()));
        self.start_mirrors(&mut background);
        background.spawn(never(upkeep(Arc::clone(&self.metrics))));
        let admission = Admission::new(&self.config.admission, &self.metrics);
        let reload = Reload {
            path,
            log,
            given: self.config.given.clone(),
            admission: Arc::clone(&admission),
            authenticator: Arc::clone(&authenticator),
            queue: self.config.queue.clone(),
            max_body: self.config.server.body.max_body,
            api_keys_enabled: self.config.auth.api_keys_enabled,
            metrics: Arc::clone(&self.metrics),
        };
        background.spawn(never(reload.follow(hangups)));
        background.spawn(never(admission.prune()));

        let tls = self.config.server.tls.clone().map(Tls::new).transpose()?;
        if let Some(tls) = &tls {
            let follow = Arc::clone(tls).follow_files(self.readiness.part("tls"));
            background.spawn(never(follow));
        }

        let shutdown = Shutdown::default();
        let mut workers =
            self.start_workers(&authenticator, &admission, tls.as_ref(), &shutdown)?;
        process.set(Condition::Ready);

        tokio::select! {
            signal = signals.next() => tracing::info!(signal, "stopping"),
            ended = background.join_next() => return Err(fault_of(ended)),
            _ = workers.recv() => anyhow::bail!("a worker has ended by itself"),
        }
        let ended = tokio::select! {
            ended = drain(&self.config.server, &process, &shutdown, &mut workers) => ended,
            signal = signals.next() => {
                tracing::warn!(signal, "told again, stopping at once");
                return Ok(Ended::CutShort);
            }
        };
        background.shutdown().await;
        admin_shutdown.enter(Stage::Cut);
        tracing::info!(clean = ended == Ended::Clean, "stopped");
        Ok(ended)
    }

    fn start_admin(&self) -> anyhow::Result<Shutdown> {
        let shutdown = Shutdown::default();
        let admin = Admin {
            metrics: Arc::clone(&self.metrics),
            readiness: self.readiness.clone(),
            freshness: vec![
                Arc::clone(self.triggers.freshness()),
                Arc::clone(self.callers.freshness()),
            ],
            build: crate::BUILD,
        };
        let listener = self.admin_listener.try_clone()?;
        tracing::info!(address = %listener.local_addr()?, "admin listens");
        let runtime = new_runtime()?;
        let serving = admin::serve(listener, admin, shutdown.watch());
        thread::Builder::new().name("admin".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(serving) {
                tracing::error!(%error, "admin port has failed");
            }
        })?;
        Ok(shutdown)
    }

    fn start_health(&self, background: &mut JoinSet<anyhow::Error>) {
        let settings = Arc::new(self.config.queue.clone());
        let (health, metrics) = (Arc::clone(&self.health), Arc::clone(&self.metrics));
        let watch = queue::watch(settings, health, self.readiness.part("redis"), metrics);
        background.spawn(never(watch));
    }

    fn start_mirrors(&self, background: &mut JoinSet<anyhow::Error>) {
        let triggers = &self.config.triggers;
        let metrics = || Arc::clone(&self.metrics);
        let mut workflows = Mirror::new(
            WorkflowsView::new(triggers, &self.triggers, metrics()),
            Arc::clone(self.triggers.freshness()),
            metrics(),
            self.readiness.part("workflows"),
        );
        let mut users = Mirror::new(
            UsersView::new(self.config.users.clone(), &self.callers, metrics()),
            Arc::clone(self.callers.freshness()),
            metrics(),
            self.readiness.part("users"),
        );
        match triggers.source {
            Source::File => {
                background.spawn(never(file::follow(triggers.file.clone(), workflows)));
                background.spawn(never(file::follow(triggers.file.clone(), users)));
            }
            Source::MongoDb => {
                if let Some(snapshots) = self.snapshots() {
                    match Snapshot::read(&snapshots.file, snapshots.source) {
                        Ok(None) => {}
                        Ok(Some(snapshot)) => {
                            workflows.restore(&snapshot);
                            users.restore(&snapshot);
                        }
                        Err(error) => {
                            let file = snapshots.file.display();
                            tracing::warn!(%file, error = format!("{error:#}"), "snapshot refused");
                        }
                    }
                    background.spawn(never(snapshots.keep()));
                }
                let mongo = Arc::new(Mongo::new(self.config.mongodb.clone()));
                let follow =
                    mongo::follow(Arc::clone(&mongo), triggers.collection.clone(), workflows);
                background.spawn(never(Box::pin(follow)));
                let follow = mongo::follow(mongo, self.config.users.collection.clone(), users);
                background.spawn(never(Box::pin(follow)));
            }
        }
    }

    /// What is kept on disk, if it is to be.
    fn snapshots(&self) -> Option<Snapshots> {
        let Config { triggers, users, mongodb, .. } = &self.config;
        let file = triggers.snapshot_file.clone()?;
        let names = [mongodb.database()];
        let names = names.into_iter().chain(triggers.source_names()).chain(users.source_names());
        Some(Snapshots {
            file,
            source: SourceId::of(&names.collect::<Vec<_>>()),
            tables: self.triggers.tables().into_iter().chain(self.callers.tables()).collect(),
            freshness: vec![
                Arc::clone(self.triggers.freshness()),
                Arc::clone(self.callers.freshness()),
            ],
        })
    }

    /// Starts the workers: a thread, a runtime and a listener each. What comes back tells of each
    /// that has ended, and closes when all have.
    fn start_workers(
        &mut self,
        authenticator: &Arc<Authenticator>,
        admission: &Arc<Admission>,
        tls: Option<&Arc<Tls>>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<mpsc::Receiver<()>> {
        let open = descriptors::room_for(self.config.server.max_connections);
        let open = Arc::new(Semaphore::new(open));
        let listeners = std::mem::take(&mut self.listeners);
        let runtimes = (0..listeners.len())
            .map(|_| WorkerRuntime::new())
            .collect::<anyhow::Result<Vec<_>>>()?;
        let queues = self.start_queues(&runtimes);
        let workers = runtimes.len();
        let (ended, ends) = mpsc::channel(workers);
        for (index, (listener, runtime)) in listeners.into_iter().zip(runtimes).enumerate() {
            let own = queues.iter().skip(index % queues.len()).step_by(workers).cloned();
            let queue = own.reduce(Queue::and).context("there is at least one queue")?;
            let ingress = Arc::new(Ingress {
                admission: Arc::clone(admission),
                authenticator: Arc::clone(authenticator),
                bodies: BodyReader::new(self.config.server.body.clone()),
                metrics: Arc::clone(&self.metrics),
                queue,
                triggers: Arc::clone(&self.triggers),
            });
            let service = Service {
                ingress,
                settings: self.config.server.clone(),
                tls: tls.map(Arc::clone),
                open: Arc::clone(&open),
                stopping: shutdown.watch(),
            };
            let worker = Worker { listener, service, _end: WorkerEnd(ended.clone()) };
            thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || worker.run(runtime))?;
        }
        Ok(ends)
    }

    /// Opens the connections to Redis, shared out over the runtimes of the workers.
    fn start_queues(&self, runtimes: &[WorkerRuntime]) -> Vec<Queue> {
        let settings = Arc::new(self.config.queue.clone());
        let connections =
            if settings.connections == 0 { runtimes.len() } else { settings.connections };
        let start = |runtime: &WorkerRuntime| {
            let _entered = runtime.runtime.enter();
            Queue::start(&settings, &self.health, &self.metrics, &runtime.queue_tasks)
        };
        runtimes.iter().cycle().take(connections).map(start).collect()
    }
}

/// A worker's runtime, and the batchers that live on it.
struct WorkerRuntime {
    runtime: Runtime,
    queue_tasks: TaskTracker,
}

impl WorkerRuntime {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { runtime: new_runtime()?, queue_tasks: TaskTracker::new() })
    }
}

struct Worker {
    listener: Listener,
    service: Service,
    _end: WorkerEnd,
}

/// Says that a worker has ended, however it ended.
struct WorkerEnd(mpsc::Sender<()>);

impl Drop for WorkerEnd {
    fn drop(&mut self) {
        // There is room for each worker's; that nobody listens any more is no harm.
        let _ = self.0.try_send(());
    }
}

impl Worker {
    fn run(self, WorkerRuntime { runtime, queue_tasks }: WorkerRuntime) {
        runtime.block_on(async {
            let connections = TaskTracker::new();
            // The ingress goes with it, so that only connections hold the queue from then on.
            let served = ingress::serve(self.listener, self.service, connections.clone()).await;
            if let Err(error) = served {
                tracing::error!(%error, "worker cannot accept");
            }
            connections.close();
            connections.wait().await;
            queue_tasks.close();
            queue_tasks.wait().await;
        });
    }
}

/// Stops the workers: no longer ready, no longer accepting, finishing, flushed.
async fn drain(
    settings: &ServerSettings,
    process: &Reporter,
    shutdown: &Shutdown,
    workers: &mut mpsc::Receiver<()>,
) -> Ended {
    process.set(Condition::NotReady("draining".to_owned()));
    shutdown.enter(Stage::Leaving);
    tokio::time::sleep(settings.drain_delay).await;
    shutdown.enter(Stage::Draining);
    if tokio::time::timeout(settings.drain_timeout, all_ended(workers)).await.is_ok() {
        return Ended::Clean;
    }
    tracing::warn!("out of time, open connections are closed");
    shutdown.enter(Stage::Cut);
    // Callers are gone now; what the batchers still hold gets a last chance to reach Redis.
    let _ = tokio::time::timeout(LAST_FLUSH, all_ended(workers)).await;
    Ended::CutShort
}

async fn all_ended(workers: &mut mpsc::Receiver<()>) {
    while workers.recv().await.is_some() {}
}

/// One listener for each worker, all on one port.
fn bind(settings: &ServerSettings) -> anyhow::Result<Vec<Listener>> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let workers = if settings.workers == 0 { cores } else { settings.workers };
    let context = || format!("cannot listen on server.listen {}", settings.listen);
    let first = Listener::bind(settings.listen).with_context(context)?;
    let address: SocketAddr = first.address()?;
    tracing::info!(%address, workers, "ingress listens");
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(Listener::bind(address).with_context(context)?);
    }
    Ok(listeners)
}

fn new_runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn upkeep(metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(METRICS_UPKEEP);
    loop {
        ticks.tick().await;
        metrics.upkeep();
    }
}

/// A task that goes on for ever; that it has ended is a fault.
async fn never(task: impl Future<Output = ()>) -> anyhow::Error {
    task.await;
    anyhow::anyhow!("a background task has ended")
}

fn fault_of(ended: Option<Result<anyhow::Error, tokio::task::JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok(error)) => error,
        Some(Err(error)) => anyhow::Error::new(error).context("a background task has failed"),
        None => anyhow::anyhow!("there are no background tasks"),
    }
}
