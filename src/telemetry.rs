//! Logs: one line per event on standard output.

use crate::settings::Section;
use std::fmt;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// The section `[telemetry]`.
#[derive(Debug)]
pub struct TelemetrySettings {
    log: String,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Text,
}

impl TelemetrySettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        let log: String = section.value("log", "info".to_owned());
        if let Err(error) = EnvFilter::try_new(&log) {
            section.fault("log", format!("not a level or filter: {error}"));
        }
        Self { log, format: section.value("format", Format::Json) }
    }

    /// Starts logging for the rest of the process.
    pub fn start(&self) -> anyhow::Result<Log> {
        let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::try_new(&self.log)?);
        let started = match self.format {
            Format::Json => {
                let builder = builder.json().flatten_event(true).with_current_span(false);
                let builder = builder.with_filter_reloading();
                let handle = builder.reload_handle();
                let log = Log(Box::new(move |filter| handle.reload(filter).is_ok()));
                builder.try_init().map(|()| log)
            }
            Format::Text => {
                let builder = builder.with_target(false).with_ansi(std::io::stdout().is_terminal());
                let builder = builder.with_filter_reloading();
                let handle = builder.reload_handle();
                let log = Log(Box::new(move |filter| handle.reload(filter).is_ok()));
                builder.try_init().map(|()| log)
            }
        };
        started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
    }
}

/// The log of the process, while it runs.
pub struct Log(Box<dyn Fn(EnvFilter) -> bool + Send>);

impl Log {
    /// Writes what `telemetry.log` lets through from now on.
    pub fn reload(&self, settings: &TelemetrySettings) {
        let is_taken = EnvFilter::try_new(&settings.log).is_ok_and(&self.0);
        if !is_taken {
            tracing::error!("telemetry.log could not be taken up");
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Log")
    }
}
