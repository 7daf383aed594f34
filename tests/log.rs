//! The log, when nobody reads it.

mod harness;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use harness::hookgate::program;
use harness::process::Process;
use harness::scratch::Scratch;
use harness::wait::until;
use harness::{App, Caller, ports};
use rustix::fs::OFlags;

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nobody() {
    let app = App::start().await;
    let mut config = app.hookgate.config.clone();
    let listen = format!("127.0.0.1:{}", ports::free());
    config.set("server.listen", listen.as_str());
    config.set("admin.listen", format!("127.0.0.1:{}", ports::free()));
    let directory = Scratch::new("log");
    let file = directory.write("hookgate.toml", config.to_string());
    let pipe = directory.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    // For both ways, so that neither end waits for the other; and full before the first line.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag");
    let both_ways = OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(&pipe);
    let mut reader = both_ways.expect("a pipe");
    while reader.write(&[b'x'; 4096]).is_ok() {}

    let mut command = Command::new("sh");
    command.args(["-c", r#"exec "$1" serve --config "$2" 1<>"$3""#, "sh"]);
    command.arg(program()).arg(file).arg(&pipe);
    let process = Process::start("hookgate", &command, &directory.join("log"));
    let caller = Caller::new(listen.parse().expect("an address"));
    until("it serves", async || {
        caller.webhook("wh_1").try_send().await.is_ok_and(|reply| reply.status == 202)
    })
    .await;

    // Somebody comes to read after all.
    assert!(read_all(&mut reader).bytes().all(|byte| byte == b'x'), "a line on a full pipe");
    process.signal("TERM");
    assert_eq!(process.wait().await, 0);
    let log = read_all(&mut reader);
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].contains("lines of the log were lost"), "{log}");
    assert!(lines.last().expect("a line").contains("stopped"), "{log}");
}

/// What is there to be read.
fn read_all(pipe: &mut File) -> String {
    let mut text = Vec::new();
    // It ends in "would block", which leaves what was read before.
    let _ = pipe.read_to_end(&mut text);
    String::from_utf8(text).expect("text")
}
