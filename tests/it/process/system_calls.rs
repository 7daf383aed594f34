//! System calls that fail, as on a machine that is full, out of descriptors or losing its network.
//!
//! strace makes them fail: attached to a running Hookgate from a moment on and until the test ends
//! it, or from the first call of a process. Where it may not attach, nothing is tested, except that
//! the workflow then fails.

#![expect(clippy::indexing_slicing, reason = "a test panics")]
#![expect(clippy::print_stderr, reason = "what is not tested belongs to the output")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use redis::cmd;
use testkit::hookgate::{Surroundings, program};
use testkit::ledger::{self, Load};
use testkit::process::Process;
use testkit::scratch::Scratch;
use testkit::wait::until;
use testkit::{App, Caller, Documents, Hookgate, Mongo};
use tokio::task::JoinSet;

/// The pause of an acceptor after an error, in seconds.
const ERROR_PAUSE: f64 = 0.05;

/// Callers wait in the queue of the kernel, the acceptors pause, and nobody is lost.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_cannot_be_accepted_wait() {
    if !may_trace() {
        return;
    }
    let app = start(App::build()).await;
    for error in ["EMFILE", "ENFILE", "ENOMEM", "EPERM", "ECONNABORTED"] {
        let faults = Faults::begin(&app.hookgate, &[], "accept4", error).await;
        let mut callers = JoinSet::new();
        for _ in 0..8 {
            let call = Caller::new(app.hookgate.address()).webhook("wh_1");
            callers.spawn(async move { call.send().await.status });
        }
        faults.hits(10).await;
        let calls = faults.end().await;
        assert!(calls.values().all(|times| are_paced(times)), "{error}: {calls:?}");
        assert_eq!(callers.join_all().await, [202; 8], "{error}");
        app.hookgate.ready().await;
    }
    let jobs = app.redis.queue().waiting().await;
    assert_eq!(jobs.len(), 5 * 8, "each 202 has one job");
    let metrics = app.hookgate.metrics().await;
    assert!(metrics.sum("hookgate_accept_errors_total") >= 5.0);
    assert_logged(&app.hookgate, "connection could not be accepted");
    assert_no_panic(&app.hookgate);
}

/// Every third connection cannot be accepted at once, and every caller is answered.
#[tokio::test(flavor = "multi_thread")]
async fn accept_errors_between_connections_lose_nobody() {
    if !may_trace() {
        return;
    }
    let app = start(App::build()).await;
    let faults = Faults::begin(&app.hookgate, &[], "accept4", "ECONNABORTED:when=1+3").await;
    for _ in 0..20 {
        let caller = Caller::new(app.hookgate.address());
        assert_eq!(caller.webhook("wh_1").send().await.status, 202);
        assert_eq!(app.hookgate.readiness().await.0, 200);
    }
    faults.hits(5).await;
    faults.end().await;
    assert_eq!(app.redis.queue().waiting().await.len(), 20);
    assert_no_panic(&app.hookgate);
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_waits_change_nothing() {
    if !may_trace() {
        return;
    }
    let app = start(App::build().documents(ledger::documents())).await;
    let load = Load::start(&app.caller);
    let faults = Faults::begin(&app.hookgate, &[], "epoll_wait", "EINTR:when=1+2").await;
    load.more_accepted(100).await;
    faults.hits(20).await;
    assert_eq!(app.hookgate.readiness().await.0, 200);
    let ledger = load.stop().await;
    // The process ends first: a wait that strace lets go of halfway returns ENOSYS.
    assert_eq!(app.hookgate.terminate().await, 0);
    faults.strace.wait().await;
    ledger.judge(&app.redis).await.assert_sound();
    assert_eq!(ledger.all().len(), ledger.count(is_accepted), "nobody is refused");
    assert_no_panic(&app.hookgate);
}

/// Calls of the connection to Redis fail: it is given up, and each 202 has its jobs once.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_redis_whose_calls_fail_is_replaced() {
    if !may_trace() {
        return;
    }
    let app = start(App::build().documents(ledger::documents())).await;
    let load = Load::start(&app.caller);
    for (calls, error) in [
        ("recvfrom,read", "ECONNRESET:when=3"),
        ("recvfrom,read", "ETIMEDOUT:when=2"),
        ("sendto,write,writev,sendmsg", "EPIPE:when=3"),
        ("sendto,write,writev,sendmsg", "ECONNRESET:when=2"),
        ("sendto,write,writev,sendmsg", "EIO:when=2"),
    ] {
        load.more_accepted(20).await;
        let sockets = sockets_to(&app.hookgate, app.redis.port());
        assert!(!sockets.is_empty(), "a connection to Redis");
        let faults = Faults::begin(&app.hookgate, &sockets, calls, error).await;
        faults.hits(1).await;
        until("another connection is in use", async || {
            sockets_to(&app.hookgate, app.redis.port()).iter().any(|it| !sockets.contains(it))
        })
        .await;
        load.more_accepted(20).await;
        faults.end().await;
        app.hookgate.ready().await;
    }
    load.stop().await.judge(&app.redis).await.assert_sound();
    assert_no_panic(&app.hookgate);
}

/// Redis cannot be reached, for any reason: `/readyz` says so, attempts have pauses between them,
/// and all is well again when connections can be made.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_redis_that_cannot_be_made_are_tried_again() {
    if !may_trace() {
        return;
    }
    let app = start(App::build()).await;
    for error in ["ECONNREFUSED", "ETIMEDOUT", "EADDRNOTAVAIL", "ENETUNREACH"] {
        let faults = Faults::begin(&app.hookgate, &[], "connect", error).await;
        let mut kill = cmd("CLIENT");
        kill.arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
        app.redis.query::<usize>(&kill).await;
        app.hookgate.unready().await;
        let reply = app.webhook("wh_1").send().await;
        assert_eq!((reply.status, reply.code().as_str()), (503, "queue_unavailable"), "{error}");
        faults.hits(3).await;
        let calls = faults.end().await;
        assert!(calls.values().all(|times| are_paced(times)), "{error}: {calls:?}");
        app.hookgate.ready().await;
        until("webhooks are accepted again", async || {
            app.webhook("wh_1").send().await.status == 202
        })
        .await;
    }
    assert_no_panic(&app.hookgate);
}

#[tokio::test]
async fn a_log_that_cannot_be_written_delays_no_request() {
    if !may_trace() {
        return;
    }
    let app = App::build().config(|config| {
        config.set("telemetry.log", "debug").set("telemetry.dumpable", true);
    });
    let app = app.start().await;
    let log = standard_output(&app.hookgate);
    for (number, error) in ["ENOSPC", "EIO", "EAGAIN", "EINTR"].into_iter().enumerate() {
        let faults = Faults::begin(&app.hookgate, std::slice::from_ref(&log), "write", error).await;
        for _ in 0..3 {
            assert_eq!(app.webhook("wh_1").send().await.status, 202, "{error}");
        }
        faults.hits(3).await;
        faults.end().await;
        until("the log says how many lines are missing", async || {
            app.webhook("wh_1").send().await;
            app.hookgate.log().matches("log lines were lost").count() > number
        })
        .await;
    }
    assert_no_panic(&app.hookgate);
}

/// The snapshot on disk stays as it was, and the readiness says that it gets old.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_replaced_stays_readable() {
    if !may_trace() {
        return;
    }
    let mongo = Mongo::shared().await;
    let database = mongo.database().await;
    database.insert(&Documents::two_organizations()).await;
    let build = App::build().mongo(&database);
    let directory = build.directory().join("snapshots");
    fs::create_dir(&directory).expect("the test's own directory");
    let file = directory.join("index");
    let name = file.to_str().expect("a path in UTF-8").to_owned();
    let build = build.config(|config| {
        config.set("triggers.snapshot_file", name).set("triggers.max_staleness", "1h");
    });
    let mut app = start(build).await;
    until("there is a snapshot", async || file.exists()).await;
    app.hookgate.kill9().await;
    let good = fs::read(&file).expect("a snapshot");
    let reasons = [
        ("fsync", "EIO:when=1", "Input/output error"),
        ("fsync", "ENOSPC:when=1", "No space left on device"),
        ("rename", "EIO", "Input/output error"),
        ("rename", "ENOSPC", "No space left on device"),
        ("rename", "EXDEV", "cross-device link"),
    ];
    for (call, error, reason) in reasons {
        let hookgate = start_traced(&app, call, error).await;
        until("the failure is reported", async || {
            let degraded = hookgate.readiness().await.1["degraded"].to_string();
            degraded.contains(reason)
        })
        .await;
        assert_eq!(hookgate.readiness().await.0, 200, "{call} {error}");
        assert_logged(&hookgate, "snapshot not written");
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{call} {error}");
        assert_eq!(fs::read(&file).expect("a snapshot"), good, "{call} {error}");
        assert!(temporary_files(&directory).is_empty(), "{call} {error}");
        assert_no_panic(&hookgate);
        hookgate.kill9().await;
    }
    app.hookgate.restart().await;
    until("the snapshot is replaced", async || fs::read(&file).expect("a snapshot") != good).await;
    assert!(!app.hookgate.log().contains("snapshot refused"), "the old one is readable");
}

/// The first connections cannot be made, and the later ones can.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_a_network_ends_with_one() {
    if !may_trace() {
        return;
    }
    let mongo = Mongo::shared().await;
    for error in ["ECONNREFUSED", "ETIMEDOUT", "EADDRNOTAVAIL", "ENETUNREACH"] {
        let database = mongo.database().await;
        database.insert(&Documents::two_organizations()).await;
        let words = traced("connect", &format!("{error}:when=1..3"));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let app = start(App::build().mongo(&database).started_by(&words)).await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{error}");
        app.redis.queue().only_job().await;
        assert_no_panic(&app.hookgate);
    }
}

/// Starts an app that strace may attach to.
async fn start(build: testkit::app::Builder) -> App {
    let build = build.config(|config| {
        config.set("telemetry.dumpable", true);
    });
    build.start().await
}

/// Starts a Hookgate in place of that of the app, with a fault from its first call on.
async fn start_traced(app: &App, call: &str, error: &str) -> Hookgate {
    let mut words = traced(call, error);
    words.push(program().to_str().expect("a path in UTF-8").to_owned());
    let surroundings = Surroundings { program: words, ..Surroundings::default() };
    let hookgate = Hookgate::start_in(app.hookgate.config.clone(), surroundings).await;
    hookgate.ready().await;
    hookgate
}

/// The command that runs another one with this fault. The other one keeps the process id.
fn traced(call: &str, error: &str) -> Vec<String> {
    let mut words = ["strace", "-D", "-f", "-qqq", "-o", "/dev/null"].map(str::to_owned).to_vec();
    words.extend(["-e".to_owned(), format!("trace={call}")]);
    words.extend(["-e".to_owned(), format!("inject={call}:error={error}")]);
    words
}

/// strace while it is attached to a Hookgate. The calls fail until [`Faults::end`].
struct Faults {
    strace: Process,
    trace: PathBuf,
    _directory: Scratch,
}

impl Faults {
    /// Makes these calls fail; those of the files or sockets at `paths`, or all.
    async fn begin(hookgate: &Hookgate, paths: &[String], calls: &str, error: &str) -> Self {
        let directory = Scratch::new("strace");
        let trace = directory.join("trace");
        let mut command = Command::new("strace");
        command.args(["-f", "-ttt", "-p", &hookgate.process().pid().to_string()]);
        command.arg("-o").arg(&trace);
        command.args(paths.iter().flat_map(|path| ["-P", path.as_str()]));
        command.args(["-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:error={error}")]);
        let strace = Process::start("strace", &command, &directory.join("log"));
        until("strace is attached", async || {
            assert_eq!(strace.exit_code(), None, "{}", strace.log_text());
            strace.log_text().contains("attached")
        })
        .await;
        Self { strace, trace, _directory: directory }
    }

    /// Waits until this many calls have failed.
    async fn hits(&self, count: usize) {
        until(&format!("{count} calls fail"), async || {
            self.calls().values().map(Vec::len).sum::<usize>() >= count
        })
        .await;
    }

    /// Lets all further calls succeed. Returns when the calls of each thread failed.
    async fn end(self) -> BTreeMap<String, Vec<f64>> {
        self.strace.signal("TERM");
        self.strace.wait().await;
        self.calls()
    }

    fn calls(&self) -> BTreeMap<String, Vec<f64>> {
        let text = fs::read_to_string(&self.trace).unwrap_or_default();
        let mut calls: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for line in text.lines().filter(|line| line.ends_with("(INJECTED)")) {
            let mut words = line.split_whitespace();
            let (Some(thread), Some(time)) = (words.next(), words.next()) else { continue };
            let time = time.parse().expect("seconds since 1970");
            calls.entry(thread.to_owned()).or_default().push(time);
        }
        calls
    }
}

/// Whether a thread has made pauses between its calls: two tasks of it may fail by turns.
fn are_paced(times: &[f64]) -> bool {
    let span = times.last().zip(times.first()).map_or(0.0, |(last, first)| last - first);
    times.len() as f64 <= 10.0 + 2.0 * span / ERROR_PAUSE
}

/// The connections of a process to a port, as strace and `/proc` name them.
fn sockets_to(hookgate: &Hookgate, port: u16) -> Vec<String> {
    let pid = hookgate.process().pid();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("a running process");
    let remote = format!(":{port:04X}");
    let inodes: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(2).is_some_and(|address| address.ends_with(&remote)))
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("a running process");
    let targets = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let targets = targets.map(|target| target.to_string_lossy().into_owned());
    targets.filter(|target| inodes.contains(target)).collect()
}

fn standard_output(hookgate: &Hookgate) -> String {
    let target = fs::read_link(format!("/proc/{}/fd/1", hookgate.process().pid()));
    target.expect("a running process").to_str().expect("a path in UTF-8").to_owned()
}

fn temporary_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the test's own directory");
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|suffix| suffix == "new")).collect()
}

fn is_accepted(answer: &ledger::Answer) -> bool {
    matches!(answer, ledger::Answer::Accepted { .. })
}

fn assert_logged(hookgate: &Hookgate, text: &str) {
    assert!(hookgate.log().contains(text), "{}", hookgate.log());
}

fn assert_no_panic(hookgate: &Hookgate) {
    assert!(!hookgate.log().contains("panic"), "{}", hookgate.log());
}

/// Whether strace may attach to processes. It may as root, and elsewhere if Yama allows it.
fn may_trace() -> bool {
    static MAY_TRACE: LazyLock<bool> = LazyLock::new(|| {
        let mut sleep = Command::new("sleep").arg("1").spawn().expect("sleep");
        let pid = sleep.id().to_string();
        let traced = Command::new("strace").args(["-o", "/dev/null", "-p", &pid]).output();
        let _ = sleep.wait();
        traced
            .is_ok_and(|output| !String::from_utf8_lossy(&output.stderr).contains("not permitted"))
    });
    if !*MAY_TRACE {
        assert!(
            std::env::var_os("CI").is_none_or(|value| value != "true"),
            "strace may not attach"
        );
        eprintln!("not tested: strace is missing or may not attach");
    }
    *MAY_TRACE
}
