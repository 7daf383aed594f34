//! The first moments of the process: signal handlers, and the configuration.

use crate::app::App;
use crate::app::workers::{ShutdownResult, new_runtime};
use crate::config::{Config, unreadable};
use crate::files::file_access;
use crate::logging::Log;
use crate::process::file_limit;
use crate::process::lifecycle::Signals;
use crate::settings::Fault;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Time limit for reading the configuration at the start. It is longer than for other files,
/// because a program that writes the configuration into a pipe may be slow. The process can be
/// stopped meanwhile.
const CONFIG_LIMIT: Duration = Duration::from_secs(30);

/// A process that is about to serve. Its signal handlers are installed before anything that may
/// take time.
#[derive(Debug)]
pub struct Launch {
    runtime: Runtime,
    signals: Signals,
}

impl Launch {
    pub fn new() -> anyhow::Result<Self> {
        file_limit::require(file_limit::STARTUP_FILES)?;
        let runtime = new_runtime()?;
        let signals = {
            let _entered = runtime.enter();
            Signals::new()?
        };
        Ok(Self { runtime, signals })
    }

    /// Reads the configuration. `None` means that the process was asked to stop before that.
    pub fn load(mut self, path: &Path) -> Option<Result<(Self, Config), Vec<Fault>>> {
        let stopped = self.signals.stop.next();
        let loaded = self.runtime.block_on(async {
            let from = path.to_owned();
            tokio::select! {
                loaded = file_access::run_within(CONFIG_LIMIT, path, move || Config::load(&from)) => {
                    Some(loaded.unwrap_or_else(|error| Err(unreadable(path, &error))))
                }
                _ = stopped => None,
            }
        });
        let failed = match loaded {
            Some(Ok(config)) => return Some(Ok((self, config))),
            Some(Err(faults)) => Some(Err(faults)),
            None => None,
        };
        // Dropping the runtime would wait for a file that hangs.
        self.runtime.shutdown_background();
        failed
    }

    /// Runs the service until a signal stops it. SIGHUP reloads the configuration from `path`.
    pub fn run(self, config: Config, path: PathBuf, log: Log) -> anyhow::Result<ShutdownResult> {
        let Self { runtime, signals } = self;
        let ended = runtime.block_on(App::start(config)?.run(signals, path, log));
        // A name lookup or a file call may still be running on a blocking thread. Its result is not
        // needed.
        runtime.shutdown_background();
        ended
    }
}
