//! Runs the real binary.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, LazyLock};

use reqwest::StatusCode;
use serde_json::Value;
use tokio::net::TcpStream;

use super::confidential;
use super::config::Config;
use super::metrics::Metrics;
use super::process::Process;
use super::scratch::Scratch;
use super::wait::{until, until_some};

/// The binary under test. Cargo builds it next to the tests and benchmarks: target/debug/hookgate
/// for the test target/debug/deps/it-….
pub fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let own = std::env::current_exe().expect("a test knows its path");
        let program = own.ancestors().nth(2).map(|profile| profile.join("hookgate"));
        program.filter(|program| program.is_file()).expect("the binary is built")
    });
    &PROGRAM
}

/// A command line of the binary, in an environment without any `HOOKGATE_` variable of the caller.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = without_variables(program());
    command.args(arguments);
    command
}

fn without_variables(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().to_ascii_uppercase().starts_with("HOOKGATE") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command line to its end.
pub fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary runs")
}

/// Runs `check --connect --json`; returns its exit code and its report.
pub async fn check_connect(config: &Config) -> (i32, Value) {
    let output = check(config, &["--connect", "--json"]).await;
    let report = serde_json::from_slice(&output.stdout);
    (
        output.status.code().expect("the process exits"),
        report.unwrap_or_else(|_| panic!("{output:?}")),
    )
}

/// Runs `check` with further arguments.
pub async fn check(config: &Config, words: &[&str]) -> Output {
    let directory = Scratch::new("check");
    let mut command = tokio::process::Command::from(command(&["check", "--config"]));
    command.arg(write(config, &directory)).args(words);
    command.output().await.expect("the binary runs")
}

/// `hookgate serve`, killed on drop. Its log is printed when the test panics.
#[derive(Debug)]
pub struct Hookgate {
    pub config: Config,
    // Dropped before the directory that holds its log.
    process: Process,
    directory: Scratch,
    surroundings: Surroundings,
    client: reqwest::Client,
}

/// The environment of a process, apart from its configuration.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Environment variables.
    pub variables: Vec<(String, String)>,
    /// Limits as `prlimit` spells them: `--nofile=256:256`.
    pub limits: Vec<String>,
    /// The command to run instead of the binary under test, if any.
    pub program: Vec<String>,
    /// Where callers connect instead of `server.listen`.
    pub front: Option<SocketAddr>,
    /// The socket that the process gets as from a service manager.
    pub activation: Option<Arc<OwnedFd>>,
}

/// Passes standard input on as systemd passes a socket.
const ACTIVATE: &str = r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@""#;

impl Hookgate {
    /// Starts and waits until `/readyz` answers 200.
    pub async fn start(config: Config) -> Self {
        let hookgate = Self::start_in(config, Surroundings::default()).await;
        hookgate.ready().await;
        hookgate
    }

    /// Starts and waits until the port is open. It opens before Hookgate is ready.
    pub async fn start_unready(mut config: Config) -> Self {
        open_at_once(&mut config);
        let hookgate = Self::start_in(config, Surroundings::default()).await;
        hookgate.open().await;
        hookgate
    }

    /// Starts and waits until `/livez` answers.
    pub async fn start_in(config: Config, surroundings: Surroundings) -> Self {
        let directory = Scratch::new("hookgate");
        let process = launch(&config, &directory, &surroundings);
        // A new connection each time: the admin port closes one that is idle for 10 s or a minute
        // old, and a request that crosses this on its way gets no answer.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        let client = client.build().expect("a client");
        let hookgate = Self { config, process, directory, surroundings, client };
        until_some("/livez answers", async || {
            assert!(hookgate.process.exit_code().is_none(), "hookgate ended: {}", hookgate.log());
            hookgate.client.get(hookgate.admin_url("/livez")).send().await.ok()
        })
        .await;
        hookgate
    }

    /// Waits until `/readyz` answers 200.
    pub async fn ready(&self) {
        until("/readyz answers 200", async || {
            assert!(self.process.exit_code().is_none(), "hookgate ended: {}", self.log());
            self.try_readiness().await.is_some_and(|(status, _)| status == StatusCode::OK)
        })
        .await;
    }

    /// Waits until the port is open.
    pub async fn open(&self) {
        until("the port is open", async || TcpStream::connect(self.address()).await.is_ok()).await;
    }

    /// Waits until `/readyz` answers 503.
    pub async fn unready(&self) {
        until("/readyz answers 503", async || {
            self.readiness().await.0 == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
    }

    /// Status and body of `/readyz`.
    pub async fn readiness(&self) -> (StatusCode, Value) {
        self.try_readiness().await.expect("/readyz answers with JSON")
    }

    /// The address of the ingress port, or of what is in front of it.
    pub fn address(&self) -> SocketAddr {
        if let Some(front) = self.surroundings.front {
            return front;
        }
        self.config.text("server.listen").parse().expect("an address")
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.config.text("admin.listen").parse().expect("an address")
    }

    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin_address())
    }

    pub async fn admin_get(&self, path: &str) -> reqwest::Response {
        self.client.get(self.admin_url(path)).send().await.expect("the admin listener answers")
    }

    pub async fn metrics_text(&self) -> String {
        self.admin_get("/metrics").await.text().await.expect("a string")
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.metrics_text().await)
    }

    /// The process, for signals and its exit code.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Everything that the process wrote to stdout and stderr.
    pub fn log(&self) -> String {
        self.process.log_text()
    }

    /// Writes `self.config` to its file, sends SIGHUP and waits until the reload is done.
    pub async fn reload(&self) {
        let reloads = async || self.metrics().await.sum("hookgate_config_reloads_total");
        let before = reloads().await;
        write(&self.config, &self.directory);
        self.process.signal("HUP");
        until("the configuration is reloaded", async || reloads().await > before).await;
    }

    /// Sends SIGTERM; returns the exit code.
    pub async fn terminate(&self) -> i32 {
        self.process.signal("TERM");
        self.process.wait().await
    }

    pub async fn kill9(&self) {
        self.process.kill9().await;
    }

    /// Kills the process if it runs, starts it again with `self.config`, and waits until it is
    /// ready.
    pub async fn restart(&mut self) {
        self.relaunch().await;
        self.ready().await;
    }

    /// Like [`Hookgate::restart`], but waits only until the port is open, which is before it is
    /// ready.
    pub async fn restart_unready(&mut self) {
        open_at_once(&mut self.config);
        self.relaunch().await;
        self.open().await;
    }

    async fn relaunch(&mut self) {
        self.process.kill9().await;
        self.process = launch(&self.config, &self.directory, &self.surroundings);
        until("/livez answers", async || {
            self.client.get(self.admin_url("/livez")).send().await.is_ok()
        })
        .await;
    }

    async fn try_readiness(&self) -> Option<(StatusCode, Value)> {
        let response = self.client.get(self.admin_url("/readyz")).send().await.ok()?;
        Some((response.status(), response.json().await.ok()?))
    }
}

/// Makes Hookgate open the port whether it is ready or not.
pub fn open_at_once(config: &mut Config) {
    config.set("server.start_timeout", "0s");
}

fn write(config: &Config, directory: &Scratch) -> PathBuf {
    config.secrets().iter().for_each(|secret| confidential::credential(secret));
    directory.write("hookgate.toml", config.to_string())
}

fn launch(config: &Config, directory: &Scratch, surroundings: &Surroundings) -> Process {
    let file = write(config, directory);
    let Surroundings { variables, limits, program: other, activation, .. } = surroundings;
    // `prlimit` becomes the program, under the same pid.
    let mut command = without_variables("prlimit");
    command.args(limits).arg("--");
    if activation.is_some() {
        command.args(["sh", "-c", ACTIVATE, "activate"]);
    }
    command.args(other);
    if other.is_empty() {
        command.arg(program());
    }
    command.args(["serve", "--config"]).arg(file);
    command.env("RUST_BACKTRACE", "1").envs(variables.iter().cloned());
    let socket = activation.as_ref().map(|socket| socket.try_clone().expect("an open socket"));
    Process::start_with_input("hookgate", &command, &directory.join("hookgate.log"), socket)
}
