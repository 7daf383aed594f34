//! `server.listen = "systemd"`: the process takes a socket over from its parent, here the test.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;
use std::time::Duration;

use testkit::hookgate::program;
use testkit::process::Process;
use testkit::raw::Connection;
use testkit::scratch::Scratch;
use testkit::wait::until;
use testkit::{App, Caller, Config};

use super::WEBHOOK;

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[tokio::test]
async fn all_workers_accept_from_the_socket() {
    let (socket, address) = listener();
    let app = App::build().activated_by(socket, address).config(|config| {
        config.set("server.workers", 4);
    });
    let app = app.start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await;
            connection.send(WEBHOOK).await;
            connection.reply().await.expect("an answer").matched()
        });
    }
    assert_eq!(tasks.join_all().await, [1; 100]);
    let log = app.hookgate.log();
    let line = log.lines().find(|line| line.contains("ingress port listening")).expect("a line");
    assert!(line.contains(&address.to_string()) && line.contains("workers=4"), "{line}");
}

/// What arrives before the process is ready waits in the kernel.
#[tokio::test]
async fn a_request_before_the_start_is_answered_after_it() {
    let (socket, address) = listener();
    let mut early = Connection::open(address).await;
    early.send(WEBHOOK).await;
    let app = App::build().activated_by(socket, address).start().await;
    assert_eq!(early.reply().await.expect("an answer").matched(), 1);
    app.redis.queue().only_job().await;
}

/// The socket stays open between the end of a process and the start of the next one.
#[tokio::test]
async fn a_restart_loses_no_connection() {
    let (socket, address) = listener();
    let mut app = App::build().activated_by(socket, address).start().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let stopped = stopped.clone();
        callers.spawn(async move {
            let mut sent = 0_usize;
            while !*stopped.borrow() {
                // Each request has a connection of its own, so none meets the end of an idle one.
                let mut connection = Connection::open(address).await;
                connection.send(WEBHOOK).await;
                let reply = connection.reply().await.expect("no connection is lost");
                assert_eq!(reply.matched(), 1);
                sent += 1;
            }
            sent
        });
    }
    for _ in 0..3 {
        let before = app.redis.queue().waiting().await.len();
        until("callers are served", async || app.redis.queue().waiting().await.len() > before + 20)
            .await;
        assert_eq!(app.hookgate.terminate().await, 0);
        app.hookgate.restart().await;
    }
    stop.send_replace(true);
    let sent: usize = callers.join_all().await.into_iter().sum();
    assert_eq!(app.redis.queue().waiting().await.len(), sent);
}

/// The next process can start when the last one has ended: after the drain timeout at the latest.
#[tokio::test]
async fn a_slow_body_holds_the_socket_no_longer_than_the_drain_timeout() {
    let (socket, address) = listener();
    let build = App::build().activated_by(socket, address).config(|config| {
        testkit::config::patient(config);
        config.set("server.drain_timeout", "1s");
    });
    let mut app = build.start().await;
    let mut slow = Connection::open(address).await;
    slow.send(&WEBHOOK[..WEBHOOK.len() - 5]).await;
    app.in_flight(1).await;
    app.hookgate.process().signal("TERM");
    app.hookgate.unready().await;
    assert_eq!(app.hookgate.process().wait().await, 1, "{}", app.hookgate.log());
    assert!(slow.closed().await.is_empty());
    let mut waiting = Connection::open(address).await;
    waiting.send(WEBHOOK).await;
    app.hookgate.restart().await;
    assert_eq!(waiting.reply().await.expect("an answer").matched(), 1);
}

/// Requests of idle connections: the lame duck stage asks them to connect again.
#[tokio::test]
async fn a_restart_with_a_drain_delay_loses_no_request_of_a_kept_connection() {
    let (socket, address) = listener();
    let build = App::build().activated_by(socket, address).config(|config| {
        config.set("server.drain_delay", "1s");
    });
    let mut app = build.start().await;
    let caller = Caller::new(address);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let sending = tokio::spawn(async move {
        let mut sent = 0_usize;
        while !*stopped.borrow() {
            assert_eq!(caller.webhook("wh_1").send().await.matched(), 1);
            sent += 1;
        }
        sent
    });
    until("the caller is served", async || app.redis.queue().waiting().await.len() > 20).await;
    assert_eq!(app.hookgate.terminate().await, 0);
    app.hookgate.restart().await;
    stop.send_replace(true);
    let sent = sending.await.expect("no request is lost");
    assert_eq!(app.redis.queue().waiting().await.len(), sent);
}

/// Runs `serve` with `server.listen = "systemd"` under a command; returns exit code and output.
fn serve_under(words: &[&str], change: impl FnOnce(&mut Command)) -> (i32, String) {
    let directory = Scratch::new("activation");
    let mut config = Config::new();
    config.set("server.listen", "systemd").set("queue.redis", "redis://127.0.0.1:1");
    config.set("triggers.file", "/nowhere").set("telemetry.format", "json");
    let file = directory.write("hookgate.toml", config.to_string());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(program()).args(["serve", "--config"]).arg(file);
    for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        command.env_remove(name);
    }
    change(&mut command);
    let output = command.output().expect("the binary runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().expect("an exit code"), String::from_utf8_lossy(&text).into_owned())
}

/// Passes standard input as the third descriptor, with this number of sockets and these names.
fn passing(environment: &str) -> [String; 4] {
    let script = format!("exec 3<&0 4<&0; export {environment}; exec \"$@\"");
    ["sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()]
}

#[tokio::test]
async fn a_start_without_a_usable_socket_says_why() {
    let unbound = UnixDatagram::unbound().expect("a socket");
    let (stream, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let tcp = listener().0;
    let own = "LISTEN_FDS=1 LISTEN_PID=$$";
    let cases: [(&str, std::os::fd::OwnedFd, &str); 6] = [
        ("A=b", listener().0.into(), "no socket was passed"),
        ("LISTEN_FDS=1 LISTEN_PID=1", listener().0.into(), "no socket was passed"),
        ("LISTEN_FDS=1", listener().0.into(), "no socket was passed"),
        (own, unbound.into(), "no stream socket"),
        (own, stream.into(), "Accept=no"),
        ("LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=a:b", tcp.into(), "\\\"server\\\""),
    ];
    for (environment, socket, reason) in cases {
        let words = passing(environment);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (code, text) = serve_under(&words, |command| {
            command.stdin(std::process::Stdio::from(socket));
        });
        assert_eq!(code, 1, "{text}");
        let last = text.lines().last().expect("a line");
        assert!(last.contains(reason) && last.contains("server.listen"), "{environment}: {text}");
    }
}

/// Among several sockets, the one with the name is taken.
#[tokio::test]
async fn a_socket_is_chosen_by_its_name() {
    let directory = Scratch::new("named");
    let path = directory.join("other.sock");
    let _other = UnixListener::bind(&path).expect("the test's own directory");
    let (socket, address) = listener();
    // Both descriptors are the same socket; the first one has another name.
    let script = "exec 4<&0 3<&0; export LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=x:server; \
                  exec \"$@\"";
    let app = App::build().activated_by(socket, address);
    // The script runs after the one that passes a single socket, and replaces its variables.
    let app = app.started_by(&["sh", "-c", &script.replace("<&0", "<&3"), "sh"]).start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let log = app.hookgate.log();
    let unused = log.lines().find(|line| line.contains("does not use")).expect("a warning");
    assert!(unused.contains("WARN") && unused.contains("sockets=\"x\""), "{unused}");
}

/// Nobody would accept the connections of such a socket.
#[tokio::test]
async fn a_socket_that_no_listener_asks_for_is_a_warning() {
    let script = "exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=server; \
                  exec \"$@\"";
    let app = App::build().started_by(&["sh", "-c", script, "sh"]).start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let log = app.hookgate.log();
    let unused = log.lines().find(|line| line.contains("does not use")).expect("a warning");
    assert!(unused.contains("sockets=\"server\""), "{unused}");
}

/// The program of systemd for trying socket activation; not on every machine.
#[tokio::test]
async fn the_program_of_systemd_starts_the_process_at_the_first_connection() {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        return;
    }
    let redis = testkit::Redis::start().await;
    let directory = Scratch::new("systemd");
    let port = testkit::ports::free();
    let mut config = Config::new();
    config.set("server.listen", "systemd").set("queue.redis", redis.url());
    let documents = testkit::Documents::two_organizations().to_json();
    let documents = directory.write("workflows.json", documents);
    config.set("triggers.file", documents.to_str().expect("UTF-8"));
    let file = directory.write("hookgate.toml", config.to_string());
    let mut command = Command::new("systemd-socket-activate");
    command.arg(format!("--listen=127.0.0.1:{port}")).arg(program());
    command.args(["serve", "--config"]).arg(file);
    let process = Process::start("systemd", &command, &directory.join("log"));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("the port is open", async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
    let mut connection = Connection::open(address).await;
    connection.send(WEBHOOK).await;
    let reply = tokio::time::timeout(Duration::from_secs(60), connection.reply()).await;
    assert_eq!(reply.expect("in time").expect("an answer").matched(), 1, "{}", process.log_text());
    process.signal("TERM");
    assert_eq!(process.wait().await, 0);
}
