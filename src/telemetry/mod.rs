//! Logs: one line per event on standard output.

mod json;

use crate::log_rate::LogRate;
use crate::printable::Escaped;
use crate::settings::Section;
use json::JsonLines;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::error::Error;
use std::fmt;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::time::FormatTime;

/// What a pipe takes without making us wait, if it takes anything.
const PIECE: usize = 4096;

/// The section `[telemetry]`.
#[derive(Debug)]
pub struct TelemetrySettings {
    log: String,
    format: Format,
    /// Whether the memory of the process may be looked into.
    pub dumpable: bool,
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
        } else if let Some(word) = log.split(',').map(str::trim).find(|part| is_no_level(part)) {
            // It would be the name of a part of the program, and silence all others.
            let message = format!("{word:?} is no level: off, error, warn, info, debug or trace");
            section.fault("log", message);
        }
        Self {
            log,
            format: section.value("format", Format::Json),
            dumpable: section.value("dumpable", false),
        }
    }

    /// Starts logging for the rest of the process.
    pub fn start(&self) -> anyhow::Result<Log> {
        let output = Mutex::new(Output { format: self.format, lost: 0, is_torn: false });
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

/// Texts as one field of a line: an array in JSON. `tracing` passes on texts, numbers and errors, and of these an error alone
/// lets its type be seen.
#[derive(Debug)]
pub struct List(pub Vec<String>);

impl List {
    pub fn as_value(&self) -> &(dyn Error + 'static) {
        self
    }
}

impl fmt::Display for List {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0)
    }
}

impl Error for List {}

/// A panic as a line of the log. A text that was put together may hold what a caller has sent: only fixed ones are told.
fn log_panic(panic: &PanicHookInfo<'_>) {
    static RATE: Mutex<LogRate> = Mutex::new(LogRate::new(10, Duration::from_secs(1)));
    if !RATE.lock().unwrap_or_else(PoisonError::into_inner).allows() {
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

/// A word alone that is not a level.
fn is_no_level(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && part.parse::<LevelFilter>().is_err()
}

/// A field of a line for people. Every text from outside is in one, so here it is escaped.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let mut writer = Escaped(writer);
    match field.name() {
        "message" => write!(writer, "{value:?}"),
        name => write!(writer, "{name}={value:?}"),
    }
}

/// What people read needs no microseconds.
struct Milliseconds;

impl FormatTime for Milliseconds {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        // A clock that has never been set may stand before 1970, which has no such form.
        let now = SystemTime::now().max(SystemTime::UNIX_EPOCH);
        write!(writer, "{}", humantime::format_rfc3339_millis(now))
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

/// Standard output, as long as somebody reads it. Who waits for the reader of a log serves nobody, so
/// a line that does not go out at once is lost, and the number of lost lines is told afterwards.
#[derive(Debug)]
struct Output {
    format: Format,
    lost: u64,
    /// Whether the last line that went out has no end.
    is_torn: bool,
}

impl Write for Output {
    /// Takes a whole line, as the subscriber gives it.
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
    fn note(&self) -> String {
        let message = format!("{} lines of the log were lost: nobody read it", self.lost);
        let end_of_torn = if self.is_torn { "\n" } else { "" };
        match self.format {
            Format::Json => {
                format!("{end_of_torn}{{\"level\":\"WARN\",\"message\":\"{message}\"}}\n")
            }
            Format::Text => format!("{end_of_torn}WARN {message}\n"),
        }
    }

    /// Whether all of it went out without waiting.
    fn try_write(&mut self, text: &[u8]) -> bool {
        let written = write_at_once(text);
        if written > 0 {
            self.is_torn = written < text.len();
        }
        written == text.len()
    }
}

/// Writes what goes out without waiting, and answers how many bytes that were.
fn write_at_once(text: &[u8]) -> usize {
    let stdout = rustix::stdio::stdout();
    let mut rest = text;
    while !rest.is_empty() {
        let mut ready = [PollFd::new(&stdout, PollFlags::OUT)];
        if poll(&mut ready, Some(&Timespec::default())) != Ok(1) {
            break;
        }
        let piece = rest.get(..PIECE).unwrap_or(rest);
        let Ok(written) = rustix::io::write(stdout, piece) else { break };
        rest = rest.get(written..).unwrap_or_default();
    }
    text.len() - rest.len()
}
