//! SIGHUP: the configuration is read again, and what can change while the service runs does so.

use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::config::{Config, ConfigFile, unreadable};
use crate::file_access;
use crate::metrics::{Metrics, ReloadResult};
use crate::queue::QueueSettings;
use crate::settings::{Fault, Given};
use crate::telemetry::{List, Log};
use crate::text_file::Stamp;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::Signal;

/// Keys, and beginnings of keys, that take effect at once. All others need a restart.
const AT_ONCE: [&str; 4] = ["auth.jwt.", "limits.", "queue.job.", "telemetry.log"];

/// Where the configuration comes from, and what takes it up.
#[derive(Debug)]
pub struct Reload {
    pub path: PathBuf,
    pub log: Log,
    /// What is in effect.
    pub given: Given,
    pub admission: Arc<Admission>,
    pub authenticator: Arc<Authenticator>,
    pub queue: QueueSettings,
    /// `server.max_body` and `auth.api_key.enabled`, which stay as they are and which others depend on.
    pub max_body: usize,
    pub api_keys_enabled: bool,
    pub metrics: Arc<Metrics>,
}

impl Reload {
    /// Reads the configuration at every SIGHUP. Never ends.
    pub async fn follow(mut self, mut hangups: Signal) {
        while hangups.recv().await.is_some() {
            let path = self.path.clone();
            let reading = file_access::run(&self.path, move || {
                let file = ConfigFile::read(&path)?;
                Ok((file.stamp.clone(), file.load()))
            });
            match reading.await.unwrap_or_else(|error| Err(unreadable(&self.path, &error))) {
                Ok((stamp, loaded)) => self.read_again(loaded, &stamp),
                Err(faults) => self.refuse(&faults, None),
            }
        }
    }

    fn read_again(&mut self, loaded: Result<Config, Vec<Fault>>, stamp: &Stamp) {
        match loaded.and_then(|config| self.fitting(config)) {
            Ok(config) => self.take_up(config, stamp),
            Err(faults) => self.refuse(&faults, Some(stamp)),
        }
    }

    /// What takes effect at once must also be sound beside what does not.
    fn fitting(&self, config: Config) -> Result<Config, Vec<Fault>> {
        let mut faults = Vec::new();
        if config.admission.in_flight_bytes < self.max_body {
            let message = "is less than the server.max_body that holds until a restart";
            faults.push(Fault::new("limits.in_flight_bytes", message));
        }
        if !self.api_keys_enabled && !config.auth.jwt.has_keys() {
            let message =
                "no key for tokens, and API keys are off until a restart: nobody could call";
            faults.push(Fault::new("auth.jwt", message));
        }
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    fn refuse(&self, faults: &[Fault], stamp: Option<&Stamp>) {
        for Fault { key, message, line } in faults {
            tracing::error!(key, line, reason = message, "fault in the configuration");
        }
        let modified = stamp.and_then(Stamp::modified);
        let sha256 = stamp.and_then(Stamp::sha256);
        let message = "SIGHUP: nothing has changed, because the configuration has faults";
        tracing::error!(modified, sha256, "{message}");
        self.metrics.config_reload(ReloadResult::Refused).increment(1);
    }

    fn take_up(&mut self, config: Config, stamp: &Stamp) {
        let changed = config.given.differences(&self.given);
        let is_at_once = |key: &String| AT_ONCE.iter().any(|begin| key.starts_with(begin));
        let (at_once, later): (Vec<String>, Vec<String>) =
            changed.into_iter().partition(is_at_once);
        self.log.reload(&config.telemetry);
        self.admission.reload(&config.admission);
        config.log();
        // With the same keys, the tokens that they have verified are still good.
        if at_once.iter().any(|key| key.starts_with("auth.jwt.")) {
            self.authenticator.reload(config.auth.jwt);
        }
        self.queue.reload_job_options(&config.queue);
        for key in &at_once {
            self.given.take_over(key, &config.given);
        }
        report(at_once, later, stamp);
        self.metrics.config_reload(ReloadResult::Applied).increment(1);
    }
}

/// Says what has changed, and which version of the file says so: one that was replaced under a bind mount is still the old
/// one in here.
fn report(at_once: Vec<String>, later: Vec<String>, stamp: &Stamp) {
    let is_unchanged = at_once.is_empty() && later.is_empty();
    let changed = List(at_once);
    let changed = changed.as_value();
    let (modified, sha256) = (stamp.modified(), stamp.sha256());
    if is_unchanged {
        let message = "SIGHUP: configuration read again, and it is as it was";
        tracing::info!(changed, modified, sha256, "{message}");
    } else {
        tracing::info!(changed, modified, sha256, "SIGHUP: configuration read again");
    }
    if !later.is_empty() {
        let changed = List(later);
        let changed = changed.as_value();
        tracing::warn!(changed, "SIGHUP: these keys take effect after a restart");
    }
}
