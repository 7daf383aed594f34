//! The metrics of the configuration in effect.

use crate::metrics::labels::ReloadResult;
use crate::metrics::register::{handle, register_gauge};
use metrics::{Counter, Gauge, counter, describe_counter};
use std::time::{SystemTime, UNIX_EPOCH};

/// Handles to the metrics of the configuration.
#[derive(Debug)]
pub(super) struct ConfigMetrics {
    reloads: Vec<Counter>,
    last_success: Gauge,
    last_success_at: Gauge,
}

impl ConfigMetrics {
    pub(super) fn register() -> Self {
        let metrics = Self {
            reloads: reloads(),
            last_success: register_gauge(
                "hookgate_config_last_reload_success",
                "1 if the last reload of the configuration was applied, or there was none since the start; 0 if it was refused.",
            ),
            last_success_at: register_gauge(
                "hookgate_config_last_reload_success_timestamp_seconds",
                "When the configuration in effect was read, in seconds since 1970.",
            ),
        };
        metrics.read();
        metrics
    }

    pub(super) fn reloaded(&self, result: ReloadResult) {
        handle::<Counter>(&self.reloads, result as usize).increment(1);
        match result {
            ReloadResult::Applied => self.read(),
            ReloadResult::Refused => self.last_success.set(0.0),
        }
    }

    /// Records that the configuration in effect was read now.
    fn read(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_success.set(1.0);
        self.last_success_at.set(now.as_secs_f64());
    }
}

fn reloads() -> Vec<Counter> {
    let name = "hookgate_config_reloads_total";
    describe_counter!(name, "Reloads of the configuration on SIGHUP, by result.");
    ReloadResult::ALL.iter().map(|result| counter!(name, "result" => result.as_str())).collect()
}
