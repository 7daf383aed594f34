//! The log while its pipe is full or its disk is full.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::OFlags;
use testkit::hookgate::program;
use testkit::process::Process;
use testkit::scratch::Scratch;
use testkit::wait::until;
use testkit::{App, Caller, Config, ports};

/// Bytes that the kernel writes to a pipe atomically.
const PAGE: usize = 4096;

#[tokio::test]
async fn an_unread_log_delays_no_request() {
    let mut piped = Piped::start("debug").await;
    // The pipe is read in the end.
    assert!(piped.read().bytes().all(|byte| byte == b'x'), "a full pipe has no line");
    piped.process.signal("TERM");
    assert_eq!(piped.process.wait().await, 0);
    let log = piped.read();
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].contains("log lines were lost"), "{log}");
    assert!(lines.last().expect("a line").contains("stopped"), "{log}");
}

#[tokio::test]
async fn an_incomplete_line_is_ended_before_the_next() {
    let mut piped = Piped::start("info").await;
    piped.read();
    piped.hang_up("applied").await;
    let log = piped.read();
    assert!(log.contains("were lost") && log.ends_with('\n'), "{log}");
    piped.fill();
    let mut page = [0; PAGE];
    piped.reader.read_exact(&mut page).expect("the pipe is full");
    // The fault in the line is longer than a page.
    piped.other.config.set(&"long".repeat(PAGE), 1);
    piped.other.write();
    piped.hang_up("refused").await;
    let torn = piped.read();
    assert!(torn.contains("longlong") && !torn.ends_with('\n'), "{torn}");
    piped.process.signal("TERM");
    assert_eq!(piped.process.wait().await, 0);
    let log = piped.read();
    assert!(log.starts_with("\nWARN "), "{log}");
    assert!(log.lines().nth(1).is_some_and(|line| line.contains("were lost")), "{log}");
}

#[tokio::test]
async fn a_log_on_a_full_disk_delays_no_request() {
    let app = App::start().await;
    let other = Other::of(&app, "debug");
    let process = other.launch(Path::new("/dev/full"));
    other.serves().await;
    process.signal("TERM");
    assert_eq!(process.wait().await, 0);
}

/// A second Hookgate next to that of an app.
struct Other {
    config: Config,
    directory: Scratch,
}

impl Other {
    fn of(app: &App, level: &str) -> Self {
        let mut config = app.hookgate.config.clone();
        config.set("server.listen", format!("127.0.0.1:{}", ports::free()));
        config.set("admin.listen", format!("127.0.0.1:{}", ports::free()));
        config.set("telemetry.log", level);
        let other = Self { config, directory: Scratch::new("log") };
        other.write();
        other
    }

    fn write(&self) {
        self.directory.write("hookgate.toml", self.config.to_string());
    }

    /// Starts it with its log in this file.
    fn launch(&self, log: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$1" serve --config "$2" 1<>"$3""#, "sh"]);
        command.arg(program()).arg(self.directory.join("hookgate.toml")).arg(log);
        Process::start("hookgate", &command, &self.directory.join("log"))
    }

    async fn serves(&self) {
        let address = self.config.text("server.listen").parse().expect("an address");
        let caller = Caller::new(address);
        until("it serves", async || {
            caller.webhook("wh_1").try_send().await.is_ok_and(|reply| reply.status == 202)
        })
        .await;
    }
}

/// A Hookgate that writes its log into a pipe, which is full before the first line.
struct Piped {
    other: Other,
    reader: File,
    process: Process,
    _app: App,
}

impl Piped {
    /// Starts it and waits until it serves.
    async fn start(level: &str) -> Self {
        let app = App::start().await;
        let other = Other::of(&app, level);
        let pipe = other.directory.join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        // Both ends are non-blocking, so that neither waits for the other.
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag");
        let both_ways =
            OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(&pipe);
        let mut reader = both_ways.expect("a pipe");
        fill(&mut reader);
        let process = other.launch(&pipe);
        other.serves().await;
        Self { other, reader, process, _app: app }
    }

    /// Everything that can be read now.
    fn read(&mut self) -> String {
        let mut text = Vec::new();
        // Reading ends with "would block", which keeps what was read before.
        let _ = self.reader.read_to_end(&mut text);
        String::from_utf8(text).expect("a string")
    }

    /// Sends SIGHUP and waits until the reload has this result.
    async fn hang_up(&self, result: &str) {
        self.process.signal("HUP");
        let counted = format!("hookgate_config_reloads_total{{result=\"{result}\"}} 1");
        let metrics = format!("http://{}/metrics", self.other.config.text("admin.listen"));
        until("the configuration is reloaded", async || {
            let page = reqwest::get(&metrics).await.expect("an answer").text().await;
            page.is_ok_and(|page| page.contains(&counted))
        })
        .await;
    }

    fn fill(&mut self) {
        fill(&mut self.reader);
    }
}

fn fill(pipe: &mut File) {
    while pipe.write(&[b'x'; PAGE]).is_ok() {}
}
