//! Logs: one line per event on standard output.

use crate::settings::Section;
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
    pub fn start(&self) -> anyhow::Result<()> {
        let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::try_new(&self.log)?);
        let started = match self.format {
            Format::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
            Format::Text => {
                builder.with_target(false).with_ansi(std::io::stdout().is_terminal()).try_init()
            }
        };
        started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
    }
}
