//! The other commands, and the exit codes.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::Output;

use super::stdout;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use testkit::hookgate::{command, run};
use testkit::process::Process;
use testkit::scratch::Scratch;
use testkit::{App, Config, Hookgate, ports};

#[tokio::test]
async fn a_minted_token_is_accepted_until_its_expiry() {
    let app = App::with(|config| {
        config.set("auth.jwt.issuer", "https://id").set("auth.jwt.audience", vec!["one", "two"]);
        config.set("auth.jwt.user_claims", vec!["account", "sub"]);
        config.set("auth.jwt.algorithms", vec!["RS256", "HS384"]);
    })
    .await;
    for (ttl, seconds) in [(None, 3600), (Some("90s"), 90), (Some("2h 30m"), 9000)] {
        let token = mint(&app.hookgate.config, "user_x", ttl);
        let claims = token.trim().split('.').nth(1).expect("three parts");
        let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64url");
        let claims: Value = serde_json::from_slice(&claims).expect("JSON");
        let time = |claim: &str| claims[claim].as_u64().expect("a time");
        assert_eq!(time("exp") - time("iat"), seconds, "{ttl:?}");

        let reply = app.webhook("wh_1").bearer(token.trim()).send().await;
        assert_eq!(reply.matched(), 1);
    }
    for job in app.redis.queue().waiting().await {
        assert_eq!(
            (job.at("/organizationId"), job.at("/userId")),
            ("org_b".into(), "user_x".into())
        );
    }
}

#[test]
fn the_version_names_the_commit() {
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    let start = format!("hookgate {} (", env!("CARGO_PKG_VERSION"));
    let commit = text.trim().strip_prefix(&start).and_then(|rest| rest.strip_suffix(')'));
    let commit = commit.unwrap_or_else(|| panic!("{text}"));
    let is_hex = commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_hex || commit == "unknown", "{text}");
}

#[test]
fn wrong_usage_exits_with_2() {
    let lines: [&[&str]; 10] = [
        &[],
        &["sreve"],
        &["serve", "--surplus"],
        &["serve", "--config"],
        &["check", "surplus"],
        &["health", "--address", "9464"],
        &["token", "--organization", "a"],
        &["token", "--user", "a"],
        &["token", "--organization", "a", "--user", "b", "--ttl", "soon"],
        &["serve", "--config", "/nowhere/hookgate.toml"],
    ];
    for line in lines {
        let output = run(line);
        assert_eq!(output.status.code(), Some(2), "{line:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{line:?} gives a reason");
    }
}

#[tokio::test]
async fn health_reports_whether_the_service_is_alive() {
    let ask = |address: &str| {
        command(&["health", "--address", address]).output().expect("the binary runs")
    };
    // A process that is not ready is still alive.
    let mut config = Config::new();
    let no_server = testkit::redis::url(ports::free());
    config.set("queue.redis", no_server).set("triggers.file", "config/workflows.json");
    let hookgate = Hookgate::start_unready(config).await;
    let address = hookgate.admin_address().to_string();
    let output = ask(&address);
    assert_eq!((output.status.code(), stdout(&output).trim()), (Some(0), "ok"), "{output:?}");
    // It listens on all IPv4 addresses: 127.0.0.1 answers, and [::1] does not.
    let port = hookgate.admin_address().port();
    for (all, code) in [("0.0.0.0", 0), ("[::]", 1)] {
        let output = ask(&format!("{all}:{port}"));
        assert_eq!(output.status.code(), Some(code), "{all}: {output:?}");
    }

    hookgate.kill9().await;
    let output = ask(&address);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/livez"), "{output:?}");

    // Another process on the port answers with an error.
    let other = TcpListener::bind(hookgate.admin_address()).expect("the port is free again");
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().expect("a connection");
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").expect("the server listens");
    });
    let output = ask(&address);
    answering.join().expect("the server thread has answered");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("answers HTTP/1.1 503"), "{output:?}");
}

#[tokio::test]
async fn health_uses_the_admin_port_of_the_environment_before_the_file() {
    let app = App::start().await;
    let files = Scratch::new("health");
    let listen = app.hookgate.admin_address().to_string();
    let ask = |variable: &str, text: &str| {
        let file = files.write("hookgate.toml", text);
        let mut command = command(&["health"]);
        command.env("HOOKGATE_CONFIG", file).env(variable, &listen);
        command.output().expect("the binary runs")
    };
    // The service was started with another file. SIGHUP would refuse these, and the service would
    // continue.
    for text in ["[server]\nworkers = -1", "not TOML", "[admin]\nlisten = \"127.0.0.1:1\""] {
        for variable in ["HOOKGATE__ADMIN__LISTEN", "hookgate__admin__listen"] {
            let output = ask(variable, text);
            assert_eq!(output.status.code(), Some(0), "{text}: {output:?}");
        }
    }
}

#[test]
fn health_uses_the_default_admin_port() {
    let output = run(&["health"]);
    // Another process on this machine may answer there.
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() || stderr.contains("http://127.0.0.1:9464/livez"),
        "{output:?}"
    );
}

#[test]
fn a_token_without_a_user_exits_with_2() {
    let long = "x".repeat(257);
    for (organization, user) in [("", "u"), ("o", ""), (long.as_str(), "u"), ("o", &long)] {
        let line = ["token", "--config", "config/dev.toml", "--organization", organization];
        let output = command(&line).args(["--user", user]).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}

#[test]
fn a_token_that_cannot_be_signed_exits_with_2() {
    for (key, value) in [("secrets", "[]"), ("algorithms", "[\"RS256\"]")] {
        let files = Scratch::new("token");
        let mut config = Config::new();
        config.set(&format!("auth.jwt.{key}"), value.parse::<toml::Value>().expect("TOML"));
        let output = token(&files, &config, "u", None);
        assert_eq!(output.status.code(), Some(2), "{key}: {output:?}");
    }
}

#[test]
fn a_faulty_configuration_exits_every_command_with_2() {
    let files = Scratch::new("faults");
    let mut config = Config::new();
    config.set("server.workers", -1);
    let file = files.write("hookgate.toml", config.to_string());
    let file = file.to_str().expect("a path in UTF-8");
    for line in [
        &["check", "--config", file][..],
        &["serve", "--config", file],
        &["token", "--organization", "a", "--user", "b", "--config", file],
    ] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(2), "{line:?}");
        let output = [output.stdout, output.stderr].concat();
        assert!(String::from_utf8_lossy(&output).contains("server.workers: "), "{line:?}");
    }
}

#[test]
fn the_file_is_named_by_argument_or_environment() {
    let files = Scratch::new("named");
    let bad = files.write("bad.toml", "surplus = 1");
    let check = |arguments: &[&str]| {
        let mut command = command(&["check"]);
        command.args(arguments).env("HOOKGATE_CONFIG", &bad);
        command.output().expect("the binary runs").status.code()
    };
    assert_eq!(check(&[]), Some(2));
    assert_eq!(check(&["--config", "config/dev.toml"]), Some(0));
    assert_eq!(run(&["check"]).status.code(), Some(0), "config/hookgate.toml by default");
}

#[test]
fn a_variable_that_is_not_utf_8_does_not_stop_the_service() {
    let mut command = command(&["check", "--config", "config/dev.toml"]);
    let output = command.env("SOMEBODY_ELSES", OsStr::from_bytes(b"\xff")).output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    let mut command = self::command(&["check", "--config", "config/dev.toml"]);
    let output = command.env("HOOKGATE__QUEUE__NAME", OsStr::from_bytes(b"a\xff")).output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "a variable of Hookgate does: {output:?}");
    assert!(stdout(&output).contains("queue.name: the environment variable HOOKGATE__QUEUE__NAME"));
}

#[tokio::test]
async fn a_port_in_use_exits_with_1() {
    for key in ["admin.listen", "server.listen"] {
        let files = Scratch::new("clash");
        let config = Config::new();
        let _listener = TcpListener::bind(config.text(key)).expect("a free port");
        let file = files.write("hookgate.toml", config.to_string());
        let mut command = command(&["serve", "--config"]);
        command.arg(file);
        let process = Process::start("hookgate", &command, &files.join("log"));
        assert_eq!(process.wait().await, 1, "{key}");
        let port = config.text(key).rsplit_once(':').expect("an address").1;
        assert!(process.log_text().contains(port), "{}", process.log_text());
    }
}

#[tokio::test]
async fn a_second_service_with_the_same_configuration_exits_with_1() {
    let app = App::start().await;
    let files = Scratch::new("second");
    let file = files.write("hookgate.toml", app.hookgate.config.to_string());
    let mut command = command(&["serve", "--config"]);
    command.arg(file);
    let second = Process::start("hookgate", &command, &files.join("log"));
    assert_eq!(second.wait().await, 1);
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "the first service continues");
}

#[tokio::test]
async fn a_requested_stop_exits_with_0() {
    for signal in ["TERM", "INT", "QUIT"] {
        let app = App::start().await;
        app.hookgate.process().signal(signal);
        assert_eq!(app.hookgate.process().wait().await, 0, "SIG{signal}");
    }
}

/// A token of `org_b`.
fn mint(config: &Config, user: &str, ttl: Option<&str>) -> String {
    let output = token(&Scratch::new("token"), config, user, ttl);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    stdout(&output)
}

fn token(files: &Scratch, config: &Config, user: &str, ttl: Option<&str>) -> Output {
    let file = files.write("hookgate.toml", config.to_string());
    let mut command = command(&["token", "--organization", "org_b", "--user", user, "--config"]);
    command.arg(file).args(ttl.into_iter().flat_map(|ttl| ["--ttl", ttl]));
    command.output().expect("the binary runs")
}
