//! Child processes that cannot outlive the test process.
//!
//! A server is started through a small shell script that holds one end of a pipe. When the pipe
//! closes, because the server was dropped or because the test process died in any way, the script
//! kills the server. It reports the server's own pid and, later, its exit status, so that signals
//! and exit codes are those of the real process.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::watch;

use super::confidential;

/// `$1` is the log file, the rest is the command. The shell only reports how the server ended. What
/// the shell gets as standard error becomes the standard input of the server.
const WATCHDOG: &str = r#"
exec 3<&0 4<&2 2>/dev/null
log=$1
shift
"$@" >>"$log" 2>&1 <&4 3<&- 4<&- &
exec 4<&-
pid=$!
{ read -r _ <&3; kill -9 $pid; } >/dev/null 2>&1 &
guard=$!
echo $pid
wait $pid
echo $?
kill -9 $guard
"#;

/// Long enough for a busy machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A running (or ended) child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    pid: u32,
    exit: watch::Receiver<Option<i32>>,
    watchdog: Child,
}

impl Process {
    /// Starts `command`, with its output appended to `log`.
    pub fn start(name: &str, command: &Command, log: &Path) -> Self {
        Self::start_with_input(name, command, log, None)
    }

    /// Like [`Process::start`], with a descriptor as standard input.
    pub fn start_with_input(
        name: &str,
        command: &Command,
        log: &Path,
        input: Option<OwnedFd>,
    ) -> Self {
        OpenOptions::new().create(true).append(true).open(log).expect("a writable log file");
        let mut watchdog = watched(command, log);
        let nothing = || File::open("/dev/null").expect("a device").into();
        watchdog.stderr(input.unwrap_or_else(nothing));
        let mut watchdog = watchdog.spawn().expect("sh");
        let output = watchdog.stdout.take().expect("the output is a pipe");
        let (exited, exit) = watch::channel(None);
        let (started, pid) = mpsc::channel();
        std::thread::spawn(move || report(output, &started, &exited));
        let pid = pid.recv().expect("the watchdog reports the pid first");
        Self { name: name.to_owned(), log: log.to_owned(), pid, exit, watchdog }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The exit code, or 128 plus the signal that ended it; `None` while it runs.
    pub fn exit_code(&self) -> Option<i32> {
        *self.exit.borrow()
    }

    /// Sends a signal by its name: `TERM`, `KILL`, `STOP`, `CONT`, `HUP`, `INT`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid.to_string();
        let status =
            Command::new("sh").args(["-c", r#"kill -s "$1" "$2""#, "kill", name, &pid]).status();
        assert!(status.expect("sh").success(), "cannot send SIG{name} to {} ({pid})", self.name);
    }

    /// Waits for the end; returns the exit code like [`Process::exit_code`].
    pub async fn wait(&self) -> i32 {
        self.wait_within(PATIENCE).await
    }

    pub async fn wait_within(&self, patience: Duration) -> i32 {
        let mut exit = self.exit.clone();
        let ended = tokio::time::timeout(patience, exit.wait_for(Option::is_some)).await;
        let Ok(ended) = ended else {
            panic!("{} did not end within {patience:?}", self.name);
        };
        let code = ended.unwrap_or_else(|_| panic!("the watchdog of {} died", self.name));
        (*code).expect("the process has ended")
    }

    /// Sends SIGKILL and waits for the end.
    pub async fn kill9(&self) {
        if self.exit_code().is_none() {
            self.signal("KILL");
            self.wait().await;
        }
    }

    /// CPU time of all its threads so far, counted in ticks of usually 10 ms.
    pub fn cpu_time(&self) -> Duration {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("the command runs");
        // The name in parentheses may hold anything; user and system time are the 14th and 15th
        // field.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let fields = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("a number")).sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Everything that the process wrote.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} (pid {}) ---\n{}", self.name, self.pid, self.log_text());
        }
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
        if self.name == "hookgate" && !std::thread::panicking() {
            confidential::assert_absent(&self.log_text());
        }
    }
}

fn watched(command: &Command, log: &Path) -> Command {
    let mut watchdog = Command::new("sh");
    watchdog
        .args(["-c", WATCHDOG, "watchdog"])
        .arg(log)
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => watchdog.env(key, value),
            None => watchdog.env_remove(key),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        watchdog.current_dir(directory);
    }
    // Ctrl-C ends the test process. The watchdog has a group of its own and kills the server when
    // the pipe closes.
    watchdog.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    watchdog
}

/// Passes on what the watchdog reports: the pid, then the exit status.
fn report(output: ChildStdout, started: &mpsc::Sender<u32>, exited: &watch::Sender<Option<i32>>) {
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    if let Some(pid) = lines.next().and_then(|line| line.parse().ok()) {
        let _ = started.send(pid);
    }
    if let Some(status) = lines.next().and_then(|line| line.parse().ok()) {
        exited.send_replace(Some(status));
    }
}
