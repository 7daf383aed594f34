//! The data plane: threads with a runtime and a listener each, on which batchers live, from the opening of the port to the end of the
//! last request.

use crate::ingress::{self, Listener, ServerSettings, Service};
use crate::lifecycle::{Condition, Reporter, Shutdown, Stage};
use anyhow::Context;
use std::convert::Infallible;
use std::io;
use std::thread;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

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

/// What a worker is made of.
#[derive(Debug)]
pub struct Parts {
    pub listener: Listener,
    pub service: Service,
    pub runtime: WorkerRuntime,
}

/// A worker's runtime, and the batchers that live on it.
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

pub fn new_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Binds one listener for each worker, all on one port.
pub fn bind(settings: &ServerSettings) -> anyhow::Result<Vec<Listener>> {
    let context = || format!("cannot bind to server.listen {}", settings.listen);
    let first = Listener::bind(settings.listen).with_context(context)?;
    let address = first.address()?;
    let mut listeners = vec![first];
    for _ in 1..settings.workers() {
        listeners.push(Listener::bind(address).with_context(context)?);
    }
    Ok(listeners)
}

/// Starts all workers. They serve nobody until the port is opened.
pub fn start(all: Vec<Parts>) -> io::Result<(Workers, Port)> {
    let (ended, ends) = mpsc::channel(all.len());
    let mut waiting = Vec::new();
    for (index, Parts { listener, service, runtime }) in all.into_iter().enumerate() {
        let (worker, opened) = oneshot::channel();
        let end = WorkerEnd(ended.clone());
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || run(opened, service, runtime, end))?;
        waiting.push((listener, worker));
    }
    Ok((Workers { ends }, Port { waiting }))
}

/// The port before it is open. Where it is dropped instead, the workers end.
#[derive(Debug)]
pub struct Port {
    waiting: Vec<(Listener, oneshot::Sender<Listener>)>,
}

impl Port {
    /// Opens when all other parts are ready, or when waiting for that is over. Comes back only with an error.
    ///
    /// A process that listens gets its share of the connections to a common port, and has nothing but refusals for them
    /// before it is ready. One that does not get ready opens too: then callers are told why.
    pub async fn open_when_ready(
        self,
        settings: &ServerSettings,
        process: &Reporter,
    ) -> anyhow::Result<Infallible> {
        let ready = tokio::time::timeout(settings.start_timeout, process.others_ready()).await;
        self.open().with_context(|| format!("cannot listen on {}", settings.listen))?;
        if ready.is_err() {
            tracing::warn!("not ready within server.start_timeout: callers are told why");
        }
        process.set(Condition::Ready);
        std::future::pending().await
    }

    fn open(self) -> io::Result<()> {
        for (listener, _) in &self.waiting {
            listener.listen()?;
        }
        if let Some((first, _)) = self.waiting.first() {
            tracing::info!(address = %first.address()?, workers = self.waiting.len(), "ingress listens");
        }
        for (listener, worker) in self.waiting {
            // Of one that has ended already the process will hear.
            let _ = worker.send(listener);
        }
        Ok(())
    }
}

/// All that have been started.
#[derive(Debug)]
pub struct Workers {
    /// Has one for each that has ended, and closes when all have.
    ends: mpsc::Receiver<()>,
}

impl Workers {
    /// Waits until one of them has ended, or all.
    pub async fn end(&mut self) {
        self.ends.recv().await;
    }

    /// Stops them: no longer ready, no longer accepting, finishing, flushed.
    pub async fn drain(
        &mut self,
        settings: &ServerSettings,
        process: &Reporter,
        shutdown: &Shutdown,
    ) -> Ended {
        process.set(Condition::NotReady("draining".to_owned()));
        shutdown.enter(Stage::Leaving);
        tokio::time::sleep(settings.drain_delay).await;
        shutdown.enter(Stage::Draining);
        if tokio::time::timeout(settings.drain_timeout, self.all_ended()).await.is_ok() {
            return Ended::Clean;
        }
        tracing::warn!("out of time, open connections are closed");
        shutdown.enter(Stage::Cut);
        // Callers are gone now; what the batchers still hold gets a last chance to reach Redis.
        let _ = tokio::time::timeout(LAST_FLUSH, self.all_ended()).await;
        Ended::CutShort
    }

    async fn all_ended(&mut self) {
        while self.ends.recv().await.is_some() {}
    }
}

/// Says that a worker has ended, however it ended.
struct WorkerEnd(mpsc::Sender<()>);

impl Drop for WorkerEnd {
    fn drop(&mut self) {
        // There is room for each worker's; that nobody listens any more is no harm.
        let _ = self.0.try_send(());
    }
}

/// The life of a worker.
fn run(
    opened: oneshot::Receiver<Listener>,
    service: Service,
    WorkerRuntime { runtime, queue_tasks }: WorkerRuntime,
    _end: WorkerEnd,
) {
    runtime.block_on(async {
        let connections = TaskTracker::new();
        match opened.await {
            // The service goes with it, so that only connections hold the queue from then on.
            Ok(listener) => {
                let served = ingress::serve(listener, service, connections.clone()).await;
                if let Err(error) = served {
                    tracing::error!(%error, "worker cannot accept");
                }
            }
            // The process is told to stop before the port is open.
            Err(_) => drop(service),
        }
        connections.close();
        connections.wait().await;
        queue_tasks.close();
        queue_tasks.wait().await;
    });
    // Work on a file may hang, for which nobody waits.
    runtime.shutdown_background();
}
