//! The operators' port: health, readiness, and what every answer has in common.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use redis::cmd;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::config::countable;
use testkit::hookgate::command;
use testkit::ledger::{self, Answer, Load};
use testkit::metrics::Metrics;
use testkit::raw::{Connection, raw};
use testkit::wait::{until, until_some};
use testkit::{App, Config, Hookgate, Redis, ports};
use tokio::task::JoinSet;

const METRICS: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn livez_answers_without_redis_and_documents() {
    let hookgate = Hookgate::start_unready(alone()).await;
    hookgate.unready().await;
    for path in ["/livez", "/healthz", "/health"] {
        let response = hookgate.admin_get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(hookgate.admin_get(path).await.text().await.expect("a string"), "ok\n");
    }
    assert_eq!(hookgate.admin_get("/readyz").await.status(), 503);
}

#[tokio::test]
async fn readyz_gives_the_reasons() {
    let hookgate = Hookgate::start_unready(alone()).await;
    let report = until_some("all three reasons are given", async || {
        let (status, report) = hookgate.readiness().await;
        assert_eq!((status.as_u16(), &report["ready"]), (503, &json!(false)));
        let all = ["redis", "users", "workflows"].iter().all(|part| says(&report["reasons"], part));
        all.then_some(report)
    })
    .await;
    let members: BTreeSet<&str> =
        report.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(members, BTreeSet::from(["degraded", "ready", "reasons"]));
    let response = hookgate.admin_get("/readyz").await;
    assert_eq!(response.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn a_redis_unsuited_for_a_queue_is_reported() {
    let good = App::build().redis(Redis::start_durable().await).start().await;
    let (status, report) = good.hookgate.readiness().await;
    assert_eq!(status, 200);
    assert_eq!(report, json!({ "ready": true, "reasons": [], "degraded": [] }));

    let _: () =
        good.redis.query(cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("allkeys-lru")).await;
    until("the policy is reported", async || degraded(&good, "maxmemory-policy").await).await;
    let _: () =
        good.redis.query(cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("noeviction")).await;
    until("the policy is no longer reported", async || !degraded(&good, "maxmemory-policy").await)
        .await;

    let volatile = App::start().await;
    until("missing persistence is reported", async || degraded(&volatile, "append-only").await)
        .await;
    let _: () = volatile.redis.query(cmd("CONFIG").arg("SET").arg("save").arg("3600 1")).await;
    until("snapshots suffice", async || !degraded(&volatile, "append-only").await).await;
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let app = App::start().await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for path in ["/nothing", "/metrics/", "/readyz/x", testkit::http::PATH] {
        assert_eq!(app.hookgate.admin_get(path).await.status(), 404, "{path}");
    }
    for path in ["/", "/status.json", "/livez", "/readyz", "/metrics"] {
        let response = client.post(app.hookgate.admin_url(path)).send().await.expect("an answer");
        assert_eq!(response.status(), 405, "{path}");
        assert_eq!(response.headers()["allow"], "GET, HEAD");
        let response = client.head(app.hookgate.admin_url(path)).send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
    }
    // Operators' paths do not exist on the ingress port.
    for path in ["/metrics", "/readyz", "/status.json", "/"] {
        app.caller.call(Method::GET, path).send().await.assert_rejected(404, "not_found");
    }
}

#[tokio::test]
async fn operators_are_answered_while_redis_is_frozen() {
    let app = App::start().await;
    app.redis.freeze();
    let stuck = tokio::spawn(app.webhook("wh_1").send());
    app.hookgate.unready().await;
    for path in ["/livez", "/metrics", "/", "/status.json"] {
        assert_eq!(app.hookgate.admin_get(path).await.status(), 200, "{path}");
    }
    assert!(says(&app.hookgate.readiness().await.1["reasons"], "redis"));
    stuck.await.expect("an answer").assert_rejected(503, "queue_unavailable");
    app.redis.thaw();
    app.hookgate.ready().await;
    // Either a timeout or a lost connection, whichever is noticed first.
    let errors = app.hookgate.metrics().await.sum("hookgate_redis_errors_total");
    assert!((errors - 1.0).abs() < f64::EPSILON, "{errors}");
}

/// More connections than the port accepts at a time, all of them silent.
#[tokio::test]
async fn operators_are_answered_during_a_flood_of_silent_connections() {
    let app = App::with(countable).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Connection::open(app.hookgate.admin_address()).await);
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", app.hookgate.process().pid()));
    assert!(open.expect("its descriptors").count() < 100, "not all connections are accepted");
    // A new connection gets the slot of the one that has been silent for longest.
    let answer =
        raw(app.hookgate.admin_address(), "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

/// More connections than the port serves at a time. Each asks again as soon as it is answered, and
/// opens another when it is closed.
#[tokio::test(flavor = "multi_thread")]
async fn health_is_answered_during_a_flood_of_requests() {
    let app = App::start().await;
    let address = app.hookgate.admin_address();
    let answered = Arc::new(AtomicU64::new(0));
    let mut floods = JoinSet::new();
    for _ in 0..100 {
        let answered = Arc::clone(&answered);
        floods.spawn(async move {
            loop {
                let mut connection = Connection::open(address).await;
                while connection.try_send(METRICS).await && connection.reply().await.is_some() {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    until("the flood is under way", async || answered.load(Ordering::Relaxed) > 200).await;
    assert_alive(&app).await;
    let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(raw(address, request).await.status, 200);
}

/// More connections than the port serves at a time, each of which sends more requests than it reads
/// answers.
#[tokio::test(flavor = "multi_thread")]
async fn health_is_answered_during_a_flood_of_unread_answers() {
    let app = App::start().await;
    let before = resident(&app);
    let address = app.hookgate.admin_address();
    let is_full = Arc::new(AtomicU64::new(0));
    let mut floods = JoinSet::new();
    for _ in 0..100 {
        let is_full = Arc::clone(&is_full);
        floods.spawn(async move {
            loop {
                let mut connection = Connection::open(address).await;
                let pipelined = METRICS.repeat(1000);
                is_full.fetch_add(1, Ordering::Relaxed);
                while connection.try_send(&pipelined).await {}
            }
        });
    }
    until("the flood is under way", async || is_full.load(Ordering::Relaxed) >= 100).await;
    assert_alive(&app).await;
    let grown = resident(&app).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB for unread answers");
}

/// A single such connection could otherwise keep its slot for ever.
#[tokio::test]
async fn a_connection_that_reads_no_answers_is_closed_after_its_timeout() {
    let app = App::start().await;
    let mut connection = Connection::open(app.hookgate.admin_address()).await;
    // Blocks while the other side reads nothing, and fails when it has closed.
    while connection.try_send(METRICS.repeat(1000)).await {}
    assert_alive(&app).await;
}

/// A page in an operator's browser may resolve its own name to this port and read the answers (DNS
/// rebinding).
#[tokio::test]
async fn an_unknown_host_gets_421() {
    let app = App::with(|config| {
        config.set("admin.hosts", vec!["hookgate", "Metrics.Example.com"]);
    })
    .await;
    let address = app.hookgate.admin_address();
    let status = async |target: &str, hosts: &[&str]| {
        let fields: Vec<String> = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
        raw(address, format!("GET {target} HTTP/1.1\r\n{}\r\n", fields.concat())).await.status
    };
    let known =
        ["127.0.0.1", "10.0.0.7:9464", "[::1]", "[fe80::1]:9464", "localhost", "LocalHost:80"];
    let listed = ["hookgate", "hookgate:9464", "HOOKGATE.", "metrics.example.com"];
    for host in known.iter().chain(&listed) {
        assert_eq!(status("/livez", &[host]).await, 200, "{host}");
    }
    let others = [
        "evil.example",
        "hookgate.evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:9464",
        "a@localhost",
        "localhost:x",
        "[::1",
        "[::1]x",
        "::1",
        "0x7f.1",
        "",
    ];
    for host in others {
        for path in
            ["/livez", "/", "/status.json", "/metrics", "/readyz", "/openapi.json", "/nothing"]
        {
            assert_eq!(status(path, &[host]).await, 421, "{host:?} {path}");
        }
    }
    assert_eq!(status("/livez", &["localhost", "evil.example"]).await, 421);
    assert_eq!(status("http://evil.example/livez", &["localhost"]).await, 421);
    assert_eq!(status("http://localhost/livez", &["localhost"]).await, 200);
    // HTTP/1.0 has no Host, and a health check may use it; a browser always sends one.
    assert_eq!(raw(address, "GET /livez HTTP/1.0\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn answers_forbid_caching_sniffing_and_framing() {
    let app = App::start().await;
    for path in ["/", "/status.json", "/livez", "/readyz", "/metrics", "/openapi.json", "/nothing"]
    {
        let response = app.hookgate.admin_get(path).await;
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(response.headers()["cache-control"], "no-store", "{path}");
        let policy = response.headers()["content-security-policy"].to_str().expect("a string");
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
    }
    // The page's only style and its only script are allowed by their digests.
    let response = app.hookgate.admin_get("/").await;
    let policy =
        response.headers()["content-security-policy"].to_str().expect("a string").to_owned();
    let page = response.text().await.expect("a string");
    for element in ["style", "script"] {
        let (_, rest) = page.split_once(&format!("<{element}>")).expect("its beginning");
        let (content, rest) = rest.split_once(&format!("</{element}>")).expect("its end");
        assert!(!rest.contains(&format!("<{element}")), "a second {element}");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content.as_bytes());
        let source = format!("{element}-src 'sha256-{}'", STANDARD.encode(digest));
        assert!(policy.contains(&source), "set {source} in src/admin/status/mod.rs: {policy}");
    }
    for attribute in [" style=", " onclick=", " onload=", "javascript:"] {
        assert!(!page.contains(attribute), "{attribute}");
    }
}

/// Eight callers ask as fast as they can, while jobs arrive and Redis stops and starts.
#[tokio::test(flavor = "multi_thread")]
async fn constant_scrapes_are_answered_truthfully_and_delay_no_request() {
    let mut app = App::build().documents(ledger::documents()).start().await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut operators = JoinSet::new();
    for _ in 0..8 {
        let (is_over, urls) = (
            Arc::clone(&is_over),
            ["/readyz", "/metrics"].map(|path| app.hookgate.admin_url(path)),
        );
        operators.spawn(async move {
            let client = reqwest::Client::new();
            let (mut answered, mut requests, mut answers) = (0, 0.0, BTreeSet::new());
            while !is_over.load(Ordering::Relaxed) {
                let [ready, metrics] = &urls;
                let answer = client.get(ready).send().await.expect("an answer");
                answers.insert(answer.status().as_u16());
                let page = client.get(metrics).send().await.expect("an answer");
                let page = Metrics::parse(&page.text().await.expect("a string"));
                let counted = page.sum("hookgate_requests_total");
                assert!(counted >= requests, "{counted} after {requests}");
                requests = counted;
                answered += 1;
            }
            (answered, answers)
        });
    }
    let load = Load::start(&app.caller);
    load.more_accepted(100).await;
    let refused = |answer: &Answer| !matches!(answer, Answer::Accepted { .. });
    assert_eq!(load.ledger().count(refused), 0, "no caller is refused");
    app.redis.kill9().await;
    app.hookgate.unready().await;
    load.more_refused(50).await;
    app.redis.restart().await;
    app.hookgate.ready().await;
    load.more_accepted(100).await;
    is_over.store(true, Ordering::Relaxed);
    for (answered, answers) in operators.join_all().await {
        assert!(answered > 10 && answers == BTreeSet::from([200, 503]), "{answered} {answers:?}");
    }
    load.stop().await;
    app.assert_accounting().await;
}

/// Asserts that `/livez` repeatedly answers a new connection within the timeout of `hookgate
/// health`.
async fn assert_alive(app: &App) {
    let address = app.hookgate.admin_address().to_string();
    for _ in 0..10 {
        let mut command =
            tokio::process::Command::from(command(&["health", "--address", &address]));
        let output = command.output().await.expect("the binary runs");
        assert!(output.status.success(), "{output:?}");
    }
}

/// Resident KiB, read from the system, because the flood is on the port that has the metrics.
fn resident(app: &App) -> u64 {
    let status = format!("/proc/{}/status", app.hookgate.process().pid());
    let status = std::fs::read_to_string(status).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A configuration without a Redis at its address and without its file.
fn alone() -> Config {
    let mut config = Config::new();
    config.set("queue.redis", testkit::redis::url(ports::free()));
    config.set("triggers.file", "/nowhere/workflows.json");
    config
}

/// Whether a list of `/readyz` has an entry of this part.
fn says(list: &Value, part: &str) -> bool {
    let notes = list.as_array().expect("a list").iter();
    notes.filter_map(Value::as_str).any(|note| note.starts_with(part))
}

async fn degraded(app: &App, word: &str) -> bool {
    let (status, report) = app.hookgate.readiness().await;
    assert_eq!(status, 200, "{report}");
    report.pointer("/degraded").expect("a list").to_string().contains(word)
}
