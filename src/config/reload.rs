//! Reload on SIGHUP: reads the configuration again, and applies the keys that can change while the
//! service runs.

use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::config::memory_budget::MemoryBudget;
use crate::config::{Config, ConfigFile, unreadable};
use crate::endpoints::EndpointsSettings;
use crate::files::file_access;
use crate::files::text_file::Stamp;
use crate::logging::{List, Log};
use crate::metrics::{Metrics, ReloadResult};
use crate::process::last_reload::LastReload;
use crate::process::service_manager::ServiceManager;
use crate::queue::{MissingField, QueueSettings};
use crate::settings::{Fault, RawValues};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::Signal;

/// Keys, and prefixes of keys, that a reload applies. All others need a restart.
const RELOADABLE: [&str; 7] = [
    "auth.jwt.",
    VERIFICATIONS,
    "limits.",
    DATA,
    "queue.forward_headers",
    "queue.job.",
    "telemetry.log",
];

const DATA: &str = "queue.data";
const VERIFICATIONS: &str = "endpoints.verification.";

/// The source of the configuration, and the parts that a reload changes.
#[derive(Debug)]
pub struct Reload {
    pub path: PathBuf,
    pub log: Log,
    /// The values in effect.
    pub raw_values: RawValues,
    pub admission: Arc<Admission>,
    pub authenticator: Arc<Authenticator>,
    /// `[endpoints]` in effect. A reload changes only its named verifications.
    pub endpoints: EndpointsSettings,
    pub queue: QueueSettings,
    /// `server.max_body` in effect. A reload does not change it, and checks other keys against it.
    pub max_body: usize,
    /// `auth.api_key.enabled` in effect. A reload does not change it, and checks other keys against
    /// it.
    pub api_keys_enabled: bool,
    /// The header fields in which callers send credentials. A reload does not change them, and
    /// checks other keys against them.
    pub credential_headers: Vec<String>,
    /// The memory that callers can make the process use with the values in effect.
    pub memory: MemoryBudget,
    pub metrics: Arc<Metrics>,
    /// The result, for the status page.
    pub last: LastReload,
    pub service: ServiceManager,
}

impl Reload {
    /// Reloads the configuration on every SIGHUP. Never returns.
    pub async fn follow(mut self, mut hangups: Signal) {
        while hangups.recv().await.is_some() {
            self.service.reloading();
            let path = self.path.clone();
            let reading = file_access::run(&self.path, move || {
                let file = ConfigFile::read(&path)?;
                Ok((file.stamp.clone(), file.load()))
            });
            match reading.await.unwrap_or_else(|error| Err(unreadable(&self.path, &error))) {
                Ok((stamp, loaded)) => self.reload(loaded, &stamp).await,
                Err(faults) => self.reject(&faults, None),
            }
            self.service.reloaded();
        }
    }

    async fn reload(&mut self, loaded: Result<Config, Vec<Fault>>, stamp: &Stamp) {
        match loaded.and_then(|config| self.check_against_running(config)) {
            Ok(config) => {
                self.apply(config, stamp);
                self.memory.clone().warn().await;
            }
            Err(faults) => self.reject(&faults, Some(stamp)),
        }
    }

    /// Checks the reloadable keys against the keys that stay in effect until a restart.
    fn check_against_running(&self, config: Config) -> Result<Config, Vec<Fault>> {
        let mut faults = Vec::new();
        if config.admission.bytes_of_queue(self.queue.count()) < self.max_body {
            let message = if self.queue.are_several() {
                "is less than twice the server.max_body in effect until a restart"
            } else {
                "is less than the server.max_body in effect until a restart"
            };
            faults.push(Fault::new("limits.in_flight_bytes", message));
        }
        if !self.api_keys_enabled && !config.auth.jwt.has_keys() {
            let message = "no key for tokens, and API keys are off until a restart; all callers \
                           would get 401";
            faults.push(Fault::new("auth.jwt", message));
        }
        for name in config.queue.forwarded(&self.credential_headers) {
            let message = format!("{name} carries a credential until a restart");
            faults.push(Fault::new("queue.forward_headers", message));
        }
        if let Some(name) = self.lost_default(&config) {
            let message = format!("[endpoints.verification.{name}] is in use until a restart");
            faults.push(Fault::new("endpoints.default_verification", message));
        }
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// The verification of nodes without one, if the reload would remove it.
    fn lost_default(&self, config: &Config) -> Option<&str> {
        let EndpointsSettings { enabled, default_verification, .. } = &self.endpoints;
        let name = default_verification.as_deref().filter(|_| *enabled)?;
        (!config.endpoints.verifications.contains(name)).then_some(name)
    }

    fn reject(&self, faults: &[Fault], stamp: Option<&Stamp>) {
        for Fault { key, message, line } in faults {
            tracing::error!(key, line, reason = message, "fault in the configuration");
        }
        let modified = stamp.and_then(Stamp::modified);
        let sha256 = stamp.and_then(Stamp::sha256);
        let message = "SIGHUP: configuration has faults; nothing is changed";
        tracing::error!(modified, sha256, "{message}");
        self.last.refused(faults.iter().map(|fault| fault.key.clone()).collect());
        self.metrics.config_reload(ReloadResult::Refused);
    }

    fn apply(&mut self, config: Config, stamp: &Stamp) {
        let missing = self.queue.reload(&config.queue);
        self.memory.reload(&config.admission, &self.queue);
        let changed = config.raw_values.differences(&self.raw_values);
        let (applied, pending): (Vec<String>, Vec<String>) =
            changed.into_iter().partition(|key| is_applied(key, &missing));
        self.log.reload(&config.telemetry);
        self.admission.reload(&config.admission);
        config.log();
        // If `auth.jwt` has not changed, the cached tokens are still valid.
        if applied.iter().any(|key| key.starts_with("auth.jwt.")) {
            self.authenticator.reload(config.auth.jwt);
        }
        self.endpoints.verifications.replace(&config.endpoints.verifications);
        for key in &applied {
            self.raw_values.copy_key_from(key, &config.raw_values);
        }
        self.last.applied(applied.clone(), pending.clone());
        report(applied, pending, stamp);
        for MissingField { placeholder, reason } in missing {
            tracing::warn!(reason, "SIGHUP: queue.data: {placeholder} needs a restart");
        }
        self.metrics.config_reload(ReloadResult::Applied);
    }
}

/// Whether a reload applies a changed key. `queue.data` waits for a restart if the running index
/// does not keep all fields of its template.
fn is_applied(key: &str, missing: &[MissingField]) -> bool {
    let is_reloadable = RELOADABLE.iter().any(|prefix| key.starts_with(prefix));
    is_reloadable && (missing.is_empty() || key != DATA)
}

/// Logs the keys that have changed, and the version of the file. A file that is replaced under a
/// bind mount keeps its old contents inside the mount, and the version shows that.
fn report(applied: Vec<String>, pending: Vec<String>, stamp: &Stamp) {
    let is_unchanged = applied.is_empty() && pending.is_empty();
    let changed = List(applied);
    let changed = changed.as_value();
    let (modified, sha256) = (stamp.modified(), stamp.sha256());
    if is_unchanged {
        tracing::info!(changed, modified, sha256, "SIGHUP: configuration unchanged");
    } else {
        tracing::info!(changed, modified, sha256, "SIGHUP: configuration reloaded");
    }
    if !pending.is_empty() {
        let changed = List(pending);
        let changed = changed.as_value();
        tracing::warn!(changed, "SIGHUP: these keys take effect after a restart");
    }
}
