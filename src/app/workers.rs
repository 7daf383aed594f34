//! The data plane: worker threads, each with a runtime, a listener and batchers, from the opening
//! of the port to the end of the last request.

use crate::http::listen::{Listener, Listeners, SocketFile};
use crate::http::listener::{self, Server};
use crate::ingress::{Ingress, ServerSettings};
use crate::process::lifecycle::{Condition, Reporter, Shutdown, Stage};
use crate::process::pulse::Pulse;
use crate::process::service_manager::ServiceManager;
use anyhow::Context;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

/// Time that the batchers have after `server.drain_timeout` has passed.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownResult {
    /// The process drained in time, and the jobs of every 202 are in Redis.
    Clean,
    /// A second signal or the end of `server.drain_timeout` stopped the process. Requests may have
    /// been aborted.
    CutShort,
}

/// The parts of a worker.
#[derive(Debug)]
pub struct WorkerParts {
    pub server: Server<Ingress>,
    pub runtime: WorkerRuntime,
    /// What shows the watchdog that the worker makes progress; `None` if there is no watchdog.
    pub pulse: Option<Pulse>,
}

/// The runtime of a worker, and the batchers that run on it.
#[derive(Debug)]
pub struct WorkerRuntime {
    pub runtime: Runtime,
    pub queue_tasks: TaskTracker,
}

impl WorkerRuntime {
    pub fn new() -> io::Result<Self> {
        Ok(Self { runtime: new_runtime()?, queue_tasks: TaskTracker::new() })
    }
}

/// A runtime that runs on the one thread that blocks on it.
pub fn new_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Binds the ingress port.
pub fn bind(settings: &ServerSettings) -> anyhow::Result<Listeners> {
    let bound = Listeners::bind(&settings.listen, settings.workers());
    bound.with_context(|| format!("cannot bind to server.listen {}", settings.listen))
}

/// Starts all workers. They accept no connections until the port is opened.
pub fn start(parts: Vec<WorkerParts>, listeners: Listeners) -> io::Result<(Workers, Port)> {
    let (ended, ends) = mpsc::channel(parts.len());
    let mut waiting = Vec::new();
    for (index, parts) in parts.into_iter().enumerate() {
        let (worker, opened) = oneshot::channel();
        let end = WorkerEnd(ended.clone());
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || run(opened, parts, end))?;
        waiting.push(worker);
    }
    Ok((Workers { ends }, Port { listeners, waiting }))
}

/// The port before it is open. If it is dropped instead of opened, the workers end.
#[derive(Debug)]
pub struct Port {
    listeners: Listeners,
    waiting: Vec<oneshot::Sender<Listener>>,
}

impl Port {
    /// Opens the port once all other parts are ready, or after `server.start_timeout`. Returns only
    /// with an error.
    ///
    /// A process that listens gets its share of the connections to a port that several processes
    /// share. A process that is not ready could only reject its share of the connections, so it
    /// does not listen yet. A process that does not become ready in time opens its port as well,
    /// and its answers give the reason.
    pub async fn open_when_ready(
        self,
        settings: &ServerSettings,
        process: &Reporter,
        service: &ServiceManager,
    ) -> anyhow::Result<Infallible> {
        let ready = tokio::time::timeout(settings.start_timeout, process.others_ready()).await;
        let file = self.open().await;
        let file = file.with_context(|| format!("cannot listen on {}", settings.listen))?;
        if ready.is_err() {
            tracing::warn!(
                "not ready after server.start_timeout; opening the port anyway, requests get 503"
            );
        }
        process.set(Condition::Ready);
        service.opened();
        match file {
            Some(file) => Ok(file.follow(process).await),
            None => std::future::pending().await,
        }
    }

    /// Returns the file of the socket, if it has one.
    async fn open(self) -> io::Result<Option<Arc<SocketFile>>> {
        let listeners = self.listeners.open().await?;
        let file = listeners.first().and_then(Listener::file);
        if let Some(first) = listeners.first() {
            tracing::info!(
                address = first.address(),
                workers = listeners.len(),
                "ingress port listening"
            );
        }
        for (listener, worker) in listeners.into_iter().zip(self.waiting) {
            // If the worker has ended already, `Workers::end` reports it.
            let _ = worker.send(listener);
        }
        Ok(file)
    }
}

/// All workers that were started.
#[derive(Debug)]
pub struct Workers {
    /// Receives one message for each worker that has ended, and closes when all have ended.
    ends: mpsc::Receiver<()>,
}

impl Workers {
    /// Waits until a worker has ended.
    pub async fn end(&mut self) {
        self.ends.recv().await;
    }

    /// Stops the workers: reports not ready, stops accepting, finishes the requests in flight and
    /// flushes the batchers.
    pub async fn drain(
        &mut self,
        settings: &ServerSettings,
        process: &Reporter,
        shutdown: &Shutdown,
    ) -> ShutdownResult {
        process.set(Condition::NotReady("draining".to_owned()));
        shutdown.enter(Stage::LameDuck);
        tokio::time::sleep(settings.drain_delay).await;
        shutdown.enter(Stage::Draining);
        if tokio::time::timeout(settings.drain_timeout, self.all_ended()).await.is_ok() {
            return ShutdownResult::Clean;
        }
        tracing::warn!("drain timeout exceeded, closing open connections");
        shutdown.enter(Stage::Aborting);
        // All connections are closed. The batchers get some time to send the requests that they
        // still hold.
        let _ = tokio::time::timeout(LAST_FLUSH, self.all_ended()).await;
        ShutdownResult::CutShort
    }

    async fn all_ended(&mut self) {
        while self.ends.recv().await.is_some() {}
    }
}

/// Reports when dropped that a worker has ended, by returning or by a panic.
struct WorkerEnd(mpsc::Sender<()>);

impl Drop for WorkerEnd {
    fn drop(&mut self) {
        // The channel has room for one message of each worker. A closed channel can be ignored.
        let _ = self.0.try_send(());
    }
}

/// Runs a worker from its start to its end.
fn run(
    opened: oneshot::Receiver<Listener>,
    WorkerParts { server, runtime, pulse }: WorkerParts,
    _end: WorkerEnd,
) {
    let WorkerRuntime { runtime, queue_tasks } = runtime;
    if let Some(pulse) = pulse {
        runtime.spawn(pulse.beat());
    }
    runtime.block_on(async {
        let connections = TaskTracker::new();
        match opened.await {
            // `serve` consumes the server. After it returns, only connections hold the queue.
            Ok(listener) => {
                let result = listener::serve(listener, server, connections.clone()).await;
                if let Err(error) = result {
                    tracing::error!(%error, "worker cannot accept connections");
                }
            }
            // The process stops before the port is open.
            Err(_) => drop(server),
        }
        connections.close();
        connections.wait().await;
        queue_tasks.close();
        queue_tasks.wait().await;
    });
    // A file call may hang, and dropping the runtime would wait for it.
    runtime.shutdown_background();
}
