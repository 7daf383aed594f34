//! What the service manager learns: the test reads the datagrams that systemd would read.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use testkit::app::Builder;
use testkit::process::PATIENCE;
use testkit::scratch::Scratch;
use testkit::wait::until;
use testkit::{App, Config};

/// The socket of the service manager.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _directory: Scratch,
}

impl Manager {
    fn new() -> Self {
        let directory = Scratch::new("manager");
        let path = directory.join("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("the test's own directory");
        Self::with(socket, path.to_str().expect("UTF-8"), directory)
    }

    fn abstract_name() -> Self {
        let name = format!("hookgate-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("a free name");
        Self::with(socket, &format!("@{name}"), Scratch::new("manager"))
    }

    fn with(socket: UnixDatagram, name: &str, directory: Scratch) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        Self { socket, name: name.to_owned(), _directory: directory }
    }

    fn build(&self) -> Builder {
        App::build().variable("NOTIFY_SOCKET", &self.name)
    }

    /// Reads until a message begins with `prefix`; returns it and those before it.
    fn read_to(&self, prefix: &str) -> (String, Vec<String>) {
        let mut before = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = self.socket.recv(&mut buffer).expect("a message in time");
            let message = String::from_utf8_lossy(&buffer[..read]).into_owned();
            if message.starts_with(prefix) {
                return (message, before);
            }
            before.push(message);
        }
    }

    /// Fills the queue of the socket, so that it takes no more messages until it is read.
    fn fill(&self) {
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.set_nonblocking(true).expect("a socket");
        let address = self.socket.local_addr().expect("an address");
        sender.connect_addr(&address).expect("the manager's own socket");
        while sender.send(b"OF=another").is_ok() {}
    }

    /// Forgets what has arrived.
    fn clear(&self) {
        self.socket.set_nonblocking(true).expect("a socket");
        while self.socket.recv(&mut [0; 4096]).is_ok() {}
        self.socket.set_nonblocking(false).expect("a socket");
    }

    /// Whether a message has arrived.
    fn has_message(&self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket");
        let has_message = self.socket.recv(&mut [0; 4096]).is_ok();
        self.socket.set_nonblocking(false).expect("a socket");
        has_message
    }
}

#[tokio::test]
async fn it_learns_of_the_start_reloads_and_the_end() {
    for manager in [Manager::new(), Manager::abstract_name()] {
        let app = manager.build().start().await;
        let (_, before) = manager.read_to("READY=1");
        assert!(before.iter().all(|message| message.starts_with("STATUS=")), "{before:?}");
        app.hookgate.reload().await;
        let (reloading, _) = manager.read_to("RELOADING=1");
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a time");
        assert!(time.parse::<u64>().expect("a number") > 0);
        manager.read_to("READY=1");
        // A reload that is refused has ended, too.
        fs::write(app.documents_file(), "{}").expect("a file of the test");
        app.hookgate.process().signal("TERM");
        let (_, before) = manager.read_to("STOPPING=1");
        assert!(before.iter().all(|message| message.starts_with("STATUS=")), "{before:?}");
        assert_eq!(app.hookgate.process().wait().await, 0);
    }
}

#[tokio::test]
async fn a_refused_reload_ends_as_well() {
    let manager = Manager::new();
    let mut app = manager.build().start().await;
    manager.read_to("READY=1");
    app.hookgate.config.set("server.no_such_key", 1);
    app.hookgate.reload().await;
    manager.read_to("RELOADING=1");
    manager.read_to("READY=1");
    assert!(app.hookgate.log().contains("nothing is changed"), "{}", app.hookgate.log());
}

#[tokio::test]
async fn it_is_ready_when_the_port_is_open_and_not_before() {
    let manager = Manager::new();
    let build = manager.build().config(|config: &mut Config| {
        config.set("server.start_timeout", "3s");
    });
    // Redis is away, so the port opens after the timeout.
    let address = format!("redis://127.0.0.1:{}", testkit::ports::free());
    let app = build.redis_address(&address).launch_only().await;
    let (_, before) = manager.read_to("READY=1");
    assert!(app.hookgate.log().contains("opening the port anyway"), "{}", app.hookgate.log());
    let status = before.iter().find(|message| message.starts_with("STATUS=not ready: "));
    assert!(status.is_some_and(|status| status.contains("redis")), "{before:?}");
}

#[tokio::test]
async fn its_text_says_what_the_process_waits_for() {
    let manager = Manager::new();
    let app = manager.build().start().await;
    manager.read_to("READY=1");
    manager.read_to("STATUS=ready");
    app.redis.freeze();
    let (status, _) = manager.read_to("STATUS=not ready: ");
    assert!(status.contains("redis: ") && !status["STATUS=".len()..].contains('\n'), "{status}");
    app.redis.thaw();
    manager.read_to("STATUS=ready");
}

/// A message that must arrive is sent again until the service manager reads.
#[tokio::test]
async fn the_start_and_the_end_arrive_however_late_they_are_read() {
    let manager = Manager::new();
    manager.fill();
    let app = manager.build().start().await;
    let refused = |message: &str| {
        let log = app.hookgate.log();
        let refused = |line: &&str| line.contains("does not take") && line.contains(message);
        log.lines().filter(refused).count()
    };
    until("it is sent twice", async || refused("READY=1") >= 2).await;
    manager.read_to("READY=1");
    app.hookgate.process().signal("TERM");
    manager.read_to("STOPPING=1");
    assert_eq!(app.hookgate.process().wait().await, 0);
}

/// The watchdog shows that the control thread and the workers make progress. It stops when one of
/// them hangs, and not when anything else does.
#[tokio::test]
async fn the_watchdog_shows_a_thread_that_hangs() {
    let manager = Manager::new();
    let build = manager.build().failpoints().variable("WATCHDOG_USEC", "400000");
    let directory = build.directory().join("failpoints");
    let app = build.start().await;
    for _ in 0..3 {
        manager.read_to("WATCHDOG=1");
    }
    app.redis.freeze();
    manager.clear();
    manager.read_to("WATCHDOG=1");
    app.redis.thaw();
    let stop = async |hold: &str| {
        let hold = directory.join(hold);
        fs::write(&hold, "").expect("the test's own directory");
        until("the messages stop", async || {
            manager.clear();
            tokio::time::sleep(Duration::from_secs(1)).await;
            !manager.has_message()
        })
        .await;
        hold
    };
    let hold = stop("hold control thread").await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "the workers serve");
    fs::remove_file(&hold).expect("the test's own file");
    manager.read_to("WATCHDOG=1");
    let hold = stop("hold worker thread").await;
    assert!(app.hookgate.log().contains("a worker is unresponsive"), "{}", app.hookgate.log());
    assert_eq!(app.hookgate.readiness().await.0, 200, "the control thread runs");
    fs::remove_file(&hold).expect("the test's own file");
    manager.read_to("WATCHDOG=1");
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

#[tokio::test]
async fn the_watchdog_of_another_process_is_not_fed() {
    let manager = Manager::new();
    let build = manager.build().variable("WATCHDOG_USEC", "100000").variable("WATCHDOG_PID", "1");
    let app = build.start().await;
    manager.read_to("READY=1");
    app.hookgate.process().signal("TERM");
    let (_, before) = manager.read_to("STOPPING=1");
    assert!(!before.iter().any(|message| message.contains("WATCHDOG")), "{before:?}");
    assert_eq!(app.hookgate.process().wait().await, 0);
}

/// A service manager that reads nothing delays nothing.
#[tokio::test]
async fn a_service_manager_that_does_not_read_delays_nothing() {
    let manager = Manager::new();
    let app = manager.build().variable("WATCHDOG_USEC", "2000").start().await;
    // The queue of the socket is full after some hundred messages at most.
    until("a message is not taken", async || {
        app.hookgate.log().contains("does not take a message")
    })
    .await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.hookgate.reload().await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

#[tokio::test]
async fn an_unusable_address_is_a_warning() {
    let app = App::build().variable("NOTIFY_SOCKET", "vsock:2:1234").start().await;
    assert!(app.hookgate.log().contains("NOTIFY_SOCKET is not usable"), "{}", app.hookgate.log());
    let directory = Scratch::new("manager");
    let gone = directory.join("gone.sock");
    let app = App::build().variable("NOTIFY_SOCKET", gone.to_str().expect("UTF-8"));
    let app = app.start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}
