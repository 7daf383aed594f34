//! Logs: one line per event on standard output.

mod json;
mod list;
pub mod printable;

pub use crate::logging::list::List;

use crate::logging::json::JsonLines;
use crate::logging::printable::Escaped;
use crate::process::log_throttle::LogThrottle;
use crate::settings::Section;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::thread;
use std::time::{Duration, SystemTime};
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::time::FormatTime;

/// The number of bytes that a pipe accepts without blocking if it accepts any.
const CHUNK: usize = 4096;

/// The section `[telemetry]`.
#[derive(Debug)]
pub struct TelemetrySettings {
    log: String,
    format: Format,
    /// Whether debuggers may attach and a crash may leave a core dump.
    pub dumpable: bool,
    /// How often the jobs in the queues are counted; zero: never.
    pub queue_interval: Duration,
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
        } else if let Some(word) = log.split(',').map(str::trim).find(|part| is_unknown_level(part))
        {
            // `tracing` reads it as the name of a target, and disables all other targets.
            let message = format!("{word:?} is not one of off, error, warn, info, debug and trace");
            section.fault("log", message);
        }
        Self {
            log,
            format: section.value("format", Format::Json),
            dumpable: section.value("dumpable", false),
            queue_interval: section.duration(
                "queue_interval",
                "15s",
                Duration::ZERO..=Duration::from_secs(3600),
            ),
        }
    }

    /// Starts logging for the rest of the process.
    pub fn start(&self) -> anyhow::Result<Log> {
        let output =
            std::sync::Mutex::new(Output { format: self.format, lost: 0, is_line_open: false });
        let filter = EnvFilter::try_new(&self.log)?;
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(output);
        let started = match self.format {
            Format::Json => {
                let builder = builder.event_format(JsonLines).with_filter_reloading();
                let handle = builder.reload_handle();
                let log = Log(Box::new(move |filter| handle.reload(filter).is_ok()));
                builder.try_init().map(|()| log)
            }
            Format::Text => {
                let builder = builder.with_target(false).with_timer(Milliseconds);
                let builder = builder.with_ansi(std::io::stdout().is_terminal());
                let builder = builder.fmt_fields(format::debug_fn(write_field).delimited(" "));
                let builder = builder.with_filter_reloading();
                let handle = builder.reload_handle();
                let log = Log(Box::new(move |filter| handle.reload(filter).is_ok()));
                builder.try_init().map(|()| log)
            }
        };
        let log = started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
        panic::set_hook(Box::new(log_panic));
        Ok(log)
    }
}

/// Logs a panic. Only a message that is a string literal is logged, because a formatted one may
/// contain data of a caller.
fn log_panic(panic: &PanicHookInfo<'_>) {
    static THROTTLE: Mutex<LogThrottle> = Mutex::new(LogThrottle::new(10, Duration::from_secs(1)));
    if !THROTTLE.lock().allows() {
        return;
    }
    let text = panic.payload().downcast_ref::<&'static str>();
    let place = panic.location().map(ToString::to_string);
    let thread = thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        text,
        place,
        thread = thread.name(),
        backtrace = backtrace.map(tracing::field::display),
        "panic"
    );
}

/// Whether a directive is a single word that is not a level.
fn is_unknown_level(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && part.parse::<LevelFilter>().is_err()
}

/// Writes a field in the text format. Text from outside is always in a field, so it is escaped
/// here.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let mut writer = Escaped(writer);
    match field.name() {
        "message" => write!(writer, "{value:?}"),
        name => write!(writer, "{name}={value:?}"),
    }
}

/// Timestamps of the text format, in milliseconds.
struct Milliseconds;

impl FormatTime for Milliseconds {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        // A clock that was never set may be before 1970, and the formatter panics on such a time.
        let now = SystemTime::now().max(SystemTime::UNIX_EPOCH);
        write!(writer, "{}", humantime::format_rfc3339_millis(now))
    }
}

/// The log of the running process. Holds the function that replaces its filter.
pub struct Log(Box<dyn Fn(EnvFilter) -> bool + Send>);

impl Log {
    /// Applies the filter of `telemetry.log` from now on.
    pub fn reload(&self, settings: &TelemetrySettings) {
        let is_applied = EnvFilter::try_new(&settings.log).is_ok_and(&self.0);
        if !is_applied {
            tracing::error!("telemetry.log could not be applied");
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Log")
    }
}

/// Writes to standard output without blocking. A thread that waits for the reader of the log cannot
/// serve requests, so a line that cannot be written at once is lost. The number of lost lines
/// is logged once output is possible again.
#[derive(Debug)]
struct Output {
    format: Format,
    /// Lines lost after the last one that was written.
    lost: u64,
    /// Whether the last line was written in part.
    is_line_open: bool,
}

impl Write for Output {
    /// Writes one line. The subscriber passes whole lines.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if self.lost > 0 && self.try_write(self.note().as_bytes()) {
            self.lost = 0;
        }
        if self.lost > 0 || !self.try_write(line) {
            self.lost += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Output {
    /// The line that reports the lost ones.
    fn note(&self) -> String {
        let message =
            format!("{} log lines were lost because standard output took no more", self.lost);
        let line_end = if self.is_line_open { "\n" } else { "" };
        match self.format {
            Format::Json => {
                format!("{line_end}{{\"level\":\"WARN\",\"message\":\"{message}\"}}\n")
            }
            Format::Text => format!("{line_end}WARN {message}\n"),
        }
    }

    /// Writes without blocking. Returns whether everything was written.
    fn try_write(&mut self, text: &[u8]) -> bool {
        let written = write_without_blocking(text);
        if written > 0 {
            self.is_line_open = written < text.len();
        }
        written == text.len()
    }
}

/// Writes as much as possible without blocking, and returns the number of written bytes.
fn write_without_blocking(text: &[u8]) -> usize {
    let stdout = rustix::stdio::stdout();
    let mut rest = text;
    while !rest.is_empty() {
        let mut ready = [PollFd::new(&stdout, PollFlags::OUT)];
        if poll(&mut ready, Some(&Timespec::default())) != Ok(1) {
            break;
        }
        let chunk = rest.get(..CHUNK).unwrap_or(rest);
        let Ok(written) = rustix::io::write(stdout, chunk) else { break };
        rest = rest.get(written..).unwrap_or_default();
    }
    text.len() - rest.len()
}
