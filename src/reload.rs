//! SIGHUP: the configuration is read again, and what can change while the service runs does so.

use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::config::Config;
use crate::metrics::{Metrics, ReloadResult};
use crate::queue::QueueSettings;
use crate::settings::{Fault, Given};
use crate::telemetry::Log;
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
            let loaded = Config::load(&self.path).and_then(|config| self.fitting(config));
            match loaded {
                Ok(config) => self.take_up(config),
                Err(faults) => self.refuse(&faults),
            }
        }
    }

    /// What takes effect at once must also be sound beside what does not.
    fn fitting(&self, config: Config) -> Result<Config, Vec<Fault>> {
        let fault =
            |key: &str, message: &str| Fault { key: key.to_owned(), message: message.to_owned() };
        let mut faults = Vec::new();
        if config.admission.in_flight_bytes < self.max_body {
            let message = "is less than the server.max_body that holds until a restart";
            faults.push(fault("limits.in_flight_bytes", message));
        }
        if !self.api_keys_enabled && !config.auth.jwt.has_keys() {
            let message =
                "no key for tokens, and API keys are off until a restart: nobody could call";
            faults.push(fault("auth.jwt", message));
        }
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    fn refuse(&self, faults: &[Fault]) {
        for Fault { key, message } in faults {
            tracing::error!(key, reason = message, "fault in the configuration");
        }
        tracing::error!("SIGHUP: nothing has changed, since the configuration has faults");
        self.metrics.config_reload(ReloadResult::Refused).increment(1);
    }

    fn take_up(&mut self, config: Config) {
        let changed = config.given.differences(&self.given);
        let is_at_once = |key: &String| AT_ONCE.iter().any(|begin| key.starts_with(begin));
        let (at_once, later): (Vec<String>, Vec<String>) =
            changed.into_iter().partition(is_at_once);
        self.log.reload(&config.telemetry);
        self.admission.reload(&config.admission);
        config.auth.jwt.warn();
        // With the same keys, the tokens that they have verified are still good.
        if at_once.iter().any(|key| key.starts_with("auth.jwt.")) {
            self.authenticator.reload(config.auth.jwt);
        }
        self.queue.reload_job_options(&config.queue);
        for key in &at_once {
            self.given.take_over(key, &config.given);
        }
        tracing::info!(changed = ?at_once, "SIGHUP: configuration read again");
        if !later.is_empty() {
            tracing::warn!(changed = ?later, "SIGHUP: these keys take effect after a restart");
        }
        self.metrics.config_reload(ReloadResult::Applied).increment(1);
    }
}
