//! Reports to the service manager, in the protocol of `sd_notify`: the port is open, a reload, the
//! end, the watchdog, and a line of text about the state.
//!
//! Messages are sent by one task of the control thread, in order. That thread also follows MongoDB,
//! signals and the health of Redis: while it or a worker hangs, the watchdog gets no message.

use crate::process::lifecycle::Readiness;
use crate::process::pulse::{Pulse, Pulses};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often the text about the state is checked for changes.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Time limit of an attempt to send a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause after an attempt that has failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Maximum bytes of the text about the state.
const MAX_STATUS: usize = 500;

/// Messages that can wait. There are at most two for each signal.
const QUEUE: usize = 64;

/// Reports to the service manager. Without one, nothing happens.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    messages: Option<mpsc::Sender<String>>,
    /// Whether the service manager knows that the service runs, and not yet that it stops.
    is_running: Arc<AtomicBool>,
    /// How often the service manager expects a message of the watchdog; `None`: never.
    watchdog: Option<Duration>,
    workers: Pulses,
}

/// Sends the messages.
#[derive(Debug)]
pub struct Reports {
    address: SocketAddr,
    messages: mpsc::Receiver<String>,
    /// How often the service manager expects a message of the watchdog; `None`: never.
    watchdog: Option<Duration>,
    workers: Pulses,
}

impl ServiceManager {
    /// The service manager that has started the process, and what sends the messages to it.
    pub fn from_environment() -> (Self, Option<Reports>) {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let Some(socket) = variable("NOTIFY_SOCKET") else { return (Self::default(), None) };
        let address = match address_of(socket.as_bytes()) {
            Ok(address) => address,
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET is not usable; reporting nothing");
                return (Self::default(), None);
            }
        };
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_watched =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|time| is_watched && *time > 0);
        let (sender, messages) = mpsc::channel(QUEUE);
        let watchdog = watchdog.map(Duration::from_micros);
        let workers = Pulses::default();
        let reports = Reports { address, messages, watchdog, workers: workers.clone() };
        let manager =
            Self { messages: Some(sender), is_running: Arc::default(), watchdog, workers };
        (manager, Some(reports))
    }

    /// The beats of one more worker, without which the watchdog gets no message; `None` if there is
    /// no watchdog.
    pub fn pulse(&self) -> Option<Pulse> {
        // Twice as often as they are looked at.
        self.watchdog.map(|time| self.workers.add(time / 4))
    }

    /// Reports that the port is open.
    pub fn opened(&self) {
        self.is_running.store(true, Ordering::Relaxed);
        self.send("READY=1".to_owned());
    }

    /// Reports that a reload has begun.
    pub fn reloading(&self) {
        if self.is_running.load(Ordering::Relaxed) {
            let now = clock_gettime(ClockId::Monotonic);
            let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
            self.send(format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
        }
    }

    /// Reports that a reload has ended, whether it has changed anything or not.
    pub fn reloaded(&self) {
        if self.is_running.load(Ordering::Relaxed) {
            self.send("READY=1".to_owned());
        }
    }

    /// Reports that the process stops.
    pub fn stopping(&self) {
        self.is_running.store(false, Ordering::Relaxed);
        self.send("STOPPING=1".to_owned());
    }

    fn send(&self, message: String) {
        if let Some(messages) = &self.messages {
            // The queue is full only if the service manager has read nothing for minutes.
            let _ = messages.try_send(message);
        }
    }
}

impl Reports {
    /// Sends the messages, what the watchdog expects, and the state when it changes. Never ends.
    pub async fn send(mut self, readiness: Readiness) {
        // Twice as often as expected, as sd_watchdog_enabled(3) recommends.
        let mut watchdog = self.watchdog.map(|time| every(time / 2));
        let mut status = every(STATUS_INTERVAL);
        let mut last = String::new();
        let mut are_alive = true;
        loop {
            tokio::select! {
                biased;
                Some(message) = self.messages.recv() => {
                    while !self.report(&message).await {
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
                () = due(&mut watchdog) => {
                    let were_alive = std::mem::replace(&mut are_alive, self.workers.look());
                    if are_alive {
                        self.report("WATCHDOG=1").await;
                    } else if were_alive {
                        tracing::error!("a worker is unresponsive; the watchdog gets no message");
                    }
                }
                _ = status.tick() => {
                    let text = status_text(&readiness);
                    if text != last && self.report(&format!("STATUS={text}")).await {
                        last = text;
                    }
                }
            }
        }
    }

    /// Returns whether the message was sent.
    async fn report(&self, message: &str) -> bool {
        let sent = tokio::time::timeout(SEND_TIMEOUT, self.try_report(message)).await;
        let sent = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if let Err(error) = &sent {
            tracing::debug!(%error, message, "the service manager does not take a message");
        }
        sent.is_ok()
    }

    /// Sends through a new socket each time, so that a service manager that has restarted gets the
    /// message.
    async fn try_report(&self, message: &str) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&self.address)?;
        let socket = tokio::net::UnixDatagram::from_std(socket)?;
        socket.send(message.as_bytes()).await.map(|_| ())
    }
}

/// A path, or the name of an abstract socket after `@`.
fn address_of(socket: &[u8]) -> io::Result<SocketAddr> {
    match socket {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(socket)),
        _ => Err(io::Error::other("neither a path nor an abstract socket")),
    }
}

fn every(time: Duration) -> Interval {
    let mut interval = interval(time.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn due(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => _ = interval.tick().await,
        None => std::future::pending().await,
    }
}

/// The state in one line.
fn status_text(readiness: &Readiness) -> String {
    let report = readiness.report();
    let (state, reasons) = match (report.ready, report.degraded.is_empty()) {
        (false, _) => ("not ready: ", report.reasons),
        (true, false) => ("ready, degraded: ", report.degraded),
        (true, true) => ("ready", Vec::new()),
    };
    let text = format!("{state}{}", reasons.join("; "));
    // A line break would end the value.
    let text: String =
        text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    text.get(..text.floor_char_boundary(MAX_STATUS)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::lifecycle::Condition;

    #[test]
    fn a_service_manager_has_a_path_or_an_abstract_name() {
        let path = address_of(b"/run/notify").unwrap();
        assert_eq!(path.as_pathname().unwrap().to_str(), Some("/run/notify"));
        assert_eq!(address_of(b"@notify").unwrap().as_abstract_name(), Some(&b"notify"[..]));
        for wrong in [&b"notify"[..], b"vsock:2:1234", &[b'/'; 200]] {
            assert!(address_of(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn the_state_is_one_line_of_bounded_length() {
        let readiness = Readiness::default();
        let redis = readiness.part("redis");
        assert_eq!(status_text(&readiness), "not ready: redis: not started");
        redis.set(Condition::Degraded(vec!["no\npersistence".to_owned(), "b".to_owned()]));
        assert_eq!(status_text(&readiness), "ready, degraded: redis: no persistence; redis: b");
        redis.set(Condition::Ready);
        assert_eq!(status_text(&readiness), "ready");
        redis.set(Condition::NotReady("é".repeat(400)));
        assert!((MAX_STATUS - 1..=MAX_STATUS).contains(&status_text(&readiness).len()));
    }

    #[test]
    fn a_reload_before_the_start_or_after_the_end_is_not_reported() {
        let (sender, mut messages) = mpsc::channel(8);
        let manager = ServiceManager { messages: Some(sender), ..ServiceManager::default() };
        manager.reloading();
        manager.reloaded();
        assert!(messages.try_recv().is_err(), "the port is not open yet");
        manager.opened();
        manager.reloading();
        manager.reloaded();
        manager.stopping();
        manager.reloaded();
        let mut sent = Vec::new();
        while let Ok(message) = messages.try_recv() {
            sent.push(message);
        }
        let [ready, reloading, again, stopping] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((ready.as_str(), again.as_str()), ("READY=1", "READY=1"));
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(stopping, "STOPPING=1");
    }
}
