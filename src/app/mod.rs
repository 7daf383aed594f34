//! Assembles the process: builds each part from its section, and starts and stops the parts in
//! order.

pub mod launch;
mod queues;
mod status;
pub mod workers;

use crate::admin;
use crate::admin::Admin;
use crate::admission::Admission;
use crate::app::queues::WorkerQueues;
use crate::app::workers::{ShutdownResult, WorkerParts, WorkerRuntime, Workers, new_runtime};
use crate::auth::{Authenticator, Callers, UserCollection};
use crate::config::Config;
use crate::config::memory_budget::MemoryBudget;
use crate::config::reload::Reload;
use crate::http::connection_slots::ConnectionSlots;
use crate::http::listen::Listeners;
use crate::http::listener::Server;
use crate::http::tls::Tls;
use crate::ingress::{
    BodyReader, CredentialFields, Endpoints, HealthCheck, Ingress, ServerSettings, Tracing,
};
use crate::logging::Log;
use crate::metrics::Metrics;
use crate::mirror::left_out::LeftOut;
use crate::mirror::mongo;
use crate::mirror::mongo::Mongo;
use crate::mirror::snapshot::keeper::Keeper;
use crate::mirror::snapshot::{Contents, SourceId};
use crate::mirror::{Freshness, Mirror, file};
use crate::process::file_limit;
use crate::process::heartbeat::Heartbeat;
use crate::process::last_reload::LastReload;
use crate::process::lifecycle::{Readiness, Reporter, Shutdown, Signals, Stage};
use crate::process::service_manager::ServiceManager;
use crate::process::supervisor::Supervisor;
use crate::queue::QueueParts;
use crate::traces::Traces;
use crate::triggers::{DocumentSource, TriggerIndex, WorkflowCollection};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Interval of the upkeep of histograms.
const METRICS_UPKEEP: Duration = Duration::from_secs(2);

/// The parts that live as long as the process.
struct App {
    config: Config,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    callers: Arc<Callers>,
    triggers: Arc<TriggerIndex>,
    /// The parts of each queue.
    queues: Vec<QueueParts>,
    admission: Arc<Admission>,
    left_out_workflows: Arc<LeftOut>,
    left_out_users: Arc<LeftOut>,
    last_reload: LastReload,
    heartbeat: Heartbeat,
    listeners: Listeners,
    admin_listener: std::net::TcpListener,
    /// `None` unless requests are traced.
    traces: Option<Traces>,
}

impl App {
    /// Builds the parts that depend on no other part. Both ports are bound here, so that an address
    /// in use is reported at once.
    fn start(config: Config) -> anyhow::Result<Self> {
        let workers = config.server.workers();
        file_limit::require(file_limit::needed(workers, config.queue.all_connections(workers)))?;
        let admin_address = config.admin.listen;
        let admin_listener = std::net::TcpListener::bind(admin_address)
            .with_context(|| format!("cannot listen on admin.listen {admin_address}"))?;
        admin_listener.set_nonblocking(true)?;
        let listeners = workers::bind(&config.server)?;
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), env!("HOOKGATE_COMMIT"))?;
        let queues = QueueParts::of_all(&config.queue, &metrics);
        Ok(Self {
            admission: Admission::with_queues(queues.len(), &config.admission, &metrics),
            left_out_workflows: Arc::default(),
            left_out_users: Arc::default(),
            last_reload: LastReload::default(),
            queues,
            readiness: Readiness::default(),
            callers: Arc::new(config.users.callers(config.triggers.max_staleness)),
            triggers: Arc::new(TriggerIndex::new(&config.triggers)),
            heartbeat: Heartbeat::default(),
            listeners,
            admin_listener,
            traces: Traces::start(&config.traces, &metrics)?,
            metrics,
            config,
        })
    }

    async fn run(
        self,
        signals: Signals,
        path: PathBuf,
        log: Log,
    ) -> anyhow::Result<ShutdownResult> {
        let Signals { stop: mut signals, hangups } = signals;
        let process = self.readiness.part("process");
        let (supervisor, mut failures) = Supervisor::new();
        supervisor.spawn("heartbeat", self.heartbeat.clone().beat());
        let service = self.start_reports(&supervisor);
        let admin_shutdown = self.start_admin(&path, &supervisor)?;
        let count_interval = self.config.telemetry.queue_interval;
        queues::start_health(&self.queues, count_interval, &self.readiness, &supervisor);
        self.config.log();
        self.warn_of_memory(&supervisor);
        let authenticator =
            Arc::new(Authenticator::new(self.config.auth.clone(), Arc::clone(&self.callers)));
        let keys = self.readiness.part("token keys");
        let follow_keys = authenticator.follow_keys(keys, Arc::clone(&self.metrics));
        supervisor.spawn("token keys", follow_keys);
        self.start_mirrors(&supervisor);
        supervisor.spawn("metrics", upkeep(Arc::clone(&self.metrics)));
        let reload = Reload {
            path,
            log,
            raw_values: self.config.raw_values.clone(),
            admission: Arc::clone(&self.admission),
            authenticator: Arc::clone(&authenticator),
            endpoints: self.config.endpoints.clone(),
            queue: self.config.queue.clone(),
            max_body: self.config.server.body.max_body,
            api_keys_enabled: self.config.auth.api_keys_enabled,
            credential_headers: self.config.auth.credentials.headers.clone(),
            memory: MemoryBudget::without_limit(&self.config),
            metrics: Arc::clone(&self.metrics),
            last: self.last_reload.clone(),
            service: service.clone(),
        };
        supervisor.spawn("reload", reload.follow(hangups));
        supervisor.spawn("limits", self.admission.maintain());

        let tls = self.config.server.tls.clone();
        let tls = tls.map(|settings| Tls::new(settings, &self.metrics)).transpose()?;
        if let Some(tls) = &tls {
            let follow = Arc::clone(tls).follow_files(self.readiness.part("tls"));
            supervisor.spawn("certificate", follow);
        }

        let shutdown = Shutdown::default();
        let parts = self.workers(&authenticator, tls.as_ref(), &shutdown, &supervisor)?;
        let parts = parts.into_iter().map(|parts| WorkerParts { pulse: service.pulse(), ..parts });
        let (mut workers, port) = workers::start(parts.collect(), self.listeners)?;
        let server = &self.config.server;

        tokio::select! {
            signal = signals.next() => tracing::info!(signal, "stopping"),
            failure = failures.next() => return Err(failure.into()),
            () = workers.end() => anyhow::bail!("a worker has exited unexpectedly"),
            Err(error) = port.open_when_ready(server, &process, &service) => return Err(error),
        }
        service.stopping();
        let ended = tokio::select! {
            ended = drain(&mut workers, server, &process, &shutdown, self.traces) => ended,
            failure = failures.next() => return Err(failure.into()),
            signal = signals.next() => {
                tracing::warn!(signal, "second signal received, exiting immediately");
                return Ok(ShutdownResult::CutShort);
            }
        };
        admin_shutdown.enter(Stage::Aborting);
        tracing::info!(clean = ended == ShutdownResult::Clean, "stopped");
        Ok(ended)
    }

    /// Starts to report to the service manager, if one has started the process.
    fn start_reports(&self, supervisor: &Supervisor) -> ServiceManager {
        let (service, reports) = ServiceManager::from_environment();
        if let Some(reports) = reports {
            supervisor.spawn("service manager", reports.send(self.readiness.clone()));
        }
        service
    }

    /// Logs a warning if callers can make the process use more memory than is available. Runs in
    /// the background, because reading the limits may hang.
    fn warn_of_memory(&self, supervisor: &Supervisor) {
        let memory = MemoryBudget::without_limit(&self.config);
        tokio::spawn(supervisor.clone().watch("memory", memory.warn()));
    }

    fn start_admin(&self, config_file: &Path, supervisor: &Supervisor) -> anyhow::Result<Shutdown> {
        let shutdown = Shutdown::default();
        let admin = Admin::new(
            self.config.admin.hosts.clone(),
            Arc::clone(&self.metrics),
            self.readiness.clone(),
            self.heartbeat.clone(),
            self.status_sources(config_file),
        );
        let listener = self.admin_listener.try_clone()?;
        tracing::info!(address = %listener.local_addr()?, "admin port listening");
        let runtime = new_runtime()?;
        let stopping = shutdown.watch();
        let serving = async {
            if let Err(error) = admin::serve(listener, admin, stopping).await {
                tracing::error!(%error, "admin port failed");
            }
        };
        let serving = supervisor.clone().keep("admin", serving);
        thread::Builder::new().name("admin".to_owned()).spawn(move || runtime.block_on(serving))?;
        Ok(shutdown)
    }

    fn start_mirrors(&self, supervisor: &Supervisor) {
        let triggers = &self.config.triggers;
        let metrics = || Arc::clone(&self.metrics);
        let workflows = Mirror::new(
            WorkflowCollection::new(triggers, &self.triggers, metrics()),
            Arc::clone(self.triggers.freshness()),
            metrics(),
            self.readiness.part("workflows"),
        )
        .with_left_out(&self.left_out_workflows);
        let users = Mirror::new(
            UserCollection::new(self.config.users.clone(), &self.callers, metrics()),
            Arc::clone(self.callers.freshness()),
            metrics(),
            self.readiness.part("users"),
        )
        .with_left_out(&self.left_out_users);
        match triggers.source {
            DocumentSource::File => {
                supervisor.spawn("workflows", file::follow(triggers.file.clone(), workflows));
                supervisor.spawn("users", file::follow(triggers.file.clone(), users));
            }
            DocumentSource::MongoDb => {
                self.config.mongodb.warn();
                let following = self.follow_mongo(workflows, users, supervisor.clone());
                tokio::spawn(supervisor.clone().watch("start of the mirrors", following));
            }
        }
    }

    /// Restores the snapshot on disk, if there is one, and then starts to follow MongoDB.
    fn follow_mongo(
        &self,
        mut workflows: Mirror<WorkflowCollection>,
        mut users: Mirror<UserCollection>,
        supervisor: Supervisor,
    ) -> impl Future<Output = ()> + use<> {
        let collections =
            [&self.config.triggers.collection, &self.config.users.collection].map(String::clone);
        let mongo = Arc::new(Mongo::new(self.config.mongodb.clone()));
        let snapshots = self.snapshot_contents().map(|contents| {
            let (reporter, age) =
                (self.readiness.part("snapshot"), self.metrics.snapshot_age.clone());
            (contents, self.freshness(), reporter, age)
        });
        async move {
            if let Some((contents, freshness, reporter, age)) = snapshots {
                let snapshot = contents.find().await.map(Arc::new);
                let taken_at = snapshot.as_ref().map(|snapshot| snapshot.taken_at);
                if let Some(snapshot) = snapshot {
                    workflows.restore(Arc::clone(&snapshot)).await;
                    // This moves the last reference, so that the snapshot is freed on the thread
                    // that restores it.
                    users.restore(snapshot).await;
                }
                let keeper = Keeper::new(contents, freshness, reporter, age, taken_at);
                supervisor.spawn("snapshots", keeper.keep());
            }
            let [workflows_name, users_name] = collections;
            let follow = mongo::follow(Arc::clone(&mongo), workflows_name, workflows);
            supervisor.spawn("workflows", Box::pin(follow));
            supervisor.spawn("users", Box::pin(mongo::follow(mongo, users_name, users)));
        }
    }

    /// The contents of the snapshot on disk. `None` without `triggers.snapshot_file`.
    fn snapshot_contents(&self) -> Option<Contents> {
        let file = self.config.triggers.snapshot_file.clone()?;
        Some(Contents {
            file,
            source: SourceId::from_parts(&self.config.source_names()),
            indexes: self
                .triggers
                .saved_indexes()
                .into_iter()
                .chain(self.callers.saved_indexes())
                .collect(),
        })
    }

    fn freshness(&self) -> Vec<Arc<Freshness>> {
        vec![Arc::clone(self.triggers.freshness()), Arc::clone(self.callers.freshness())]
    }

    /// Builds the parts of all workers.
    fn workers(
        &self,
        authenticator: &Arc<Authenticator>,
        tls: Option<&Arc<Tls>>,
        shutdown: &Shutdown,
        supervisor: &Supervisor,
    ) -> anyhow::Result<Vec<WorkerParts>> {
        let runtimes = (0..self.listeners.workers()).map(|_| WorkerRuntime::new());
        let runtimes = runtimes.collect::<std::io::Result<Vec<_>>>()?;
        let queues = WorkerQueues::start(&self.config.queue, &self.queues, &runtimes, supervisor);
        let settings = &self.config.server;
        let redis_connections = self.config.queue.all_connections(runtimes.len());
        let max_connections = file_limit::cap_connections(
            settings.max_connections,
            (runtimes.len(), settings.max_opening()),
            redis_connections,
        );
        let per_address = settings.max_connections_per_address;
        let slots = ConnectionSlots::new(max_connections, per_address, Arc::clone(&self.metrics));
        let has_tls = settings.tls.is_some();
        let endpoints = Endpoints::new(&self.config.endpoints, has_tls, &self.metrics);
        let health_path = settings.health_path.clone();
        let health = health_path.map(|path| HealthCheck::new(path, self.readiness.clone()));
        let tracing = self.traces.as_ref().map(|traces| Tracing {
            tracer: Arc::clone(&traces.tracer),
            scheme: if has_tls { "https" } else { "http" },
        });
        let worker = |(index, runtime)| {
            let ingress = Ingress {
                admission: Arc::clone(&self.admission),
                authenticator: Arc::clone(authenticator),
                bodies: BodyReader::new(settings.body.clone()),
                client_address: settings.client_address.clone(),
                credentials: CredentialFields::new(&self.config.auth.credentials),
                endpoints: endpoints.clone(),
                health: health.clone(),
                metrics: Arc::clone(&self.metrics),
                tracing: tracing.clone(),
                queues: queues.of_worker(index).context("every queue has a connection")?,
                triggers: Arc::clone(&self.triggers),
            };
            let server = Server {
                handler: Arc::new(ingress),
                limits: settings.connection.clone(),
                metrics: Arc::clone(&self.metrics),
                tls: tls.map(Arc::clone),
                slots: Arc::clone(&slots),
                client_address: settings.client_address.clone(),
                stopping: shutdown.watch(),
            };
            Ok(WorkerParts { server, runtime, pulse: None })
        };
        runtimes.into_iter().enumerate().map(worker).collect()
    }
}

/// Stops the workers, and exports their last spans.
async fn drain(
    workers: &mut Workers,
    server: &ServerSettings,
    process: &Reporter,
    shutdown: &Shutdown,
    traces: Option<Traces>,
) -> ShutdownResult {
    let ended = workers.drain(server, process, shutdown).await;
    if let Some(traces) = traces {
        traces.finish().await;
    }
    ended
}

/// Moves the samples of histograms into their buckets. Never returns.
async fn upkeep(metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(METRICS_UPKEEP);
    loop {
        ticks.tick().await;
        metrics.upkeep();
    }
}
