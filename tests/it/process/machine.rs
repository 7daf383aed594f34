//! A machine that lacks a resource or has a wrong clock.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]
#![expect(clippy::indexing_slicing, reason = "a test panics")]
#![expect(clippy::print_stdout, reason = "the figure belongs to the output of the test")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::app::Builder;
use testkit::documents::{trigger, workflow_of};
use testkit::hookgate::{Surroundings, program};
use testkit::ledger::{self, Load};
use testkit::process::Process;
use testkit::raw::Connection;
use testkit::scratch::Scratch;
use testkit::slow::allow_open_files;
use testkit::tokens::{claims, now, token};
use testkit::wait::until;
use testkit::{App, Config, Documents, Hookgate, Mongo};
use tokio::task::JoinSet;

const MEBIBYTE: usize = 1 << 20;

/// Bodies of four times the available memory arrive while Redis accepts nothing.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_rejected_before_memory_runs_out() {
    const MEMORY: usize = 192;
    let app = App::build().limit(&format!("--data={}", MEMORY * MEBIBYTE)).config(|config| {
        config.set("limits.in_flight_bytes", "48MiB").set("queue.enqueue_timeout", "10s");
        config.set("limits.organization.in_flight_share", 1.0);
        config.set("telemetry.log", "info");
    });
    let app = app.start().await;
    app.redis.freeze();
    let filler = "x".repeat(MEBIBYTE - 100);
    let mut flood = JoinSet::new();
    for serial in 0..4 * MEMORY {
        let body = json!({ "webhookId": "wh_1", "serial": serial, "filler": &filler });
        let call = app.post(body.to_string());
        flood.spawn(async move { call.send().await });
    }
    let mut codes = std::collections::BTreeMap::<String, usize>::new();
    for reply in flood.join_all().await {
        assert_eq!(reply.status, 503, "{}", reply.text());
        *codes.entry(reply.code()).or_default() += 1;
    }
    assert!(
        codes.contains_key("overloaded") && codes.contains_key("queue_unavailable"),
        "{codes:?}"
    );
    app.redis.thaw();
    app.hookgate.ready().await;
    until("webhooks are accepted again", async || app.webhook("wh_1").send().await.status == 202)
        .await;
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.value("hookgate_requests_in_flight", &[]), 0.0);
    app.assert_accounting().await;
}

/// The kernel assigns the files in `/proc` of a dumpable process to the user and group that it runs
/// as, and to root otherwise.
#[tokio::test]
async fn memory_is_not_dumpable_by_default() {
    for (configured, is_dumpable) in [(None, false), (Some(false), false), (Some(true), true)] {
        let mut config = Config::new();
        config.set("triggers.file", "/nowhere").set("queue.redis", "redis://127.0.0.1:1/0");
        if let Some(configured) = configured {
            config.set("telemetry.dumpable", configured);
        }
        let mut surroundings = Surroundings::default();
        if rustix::process::geteuid().is_root() {
            // A group of its own, to distinguish it from root.
            let words = ["setpriv", "--regid=65534", "--clear-groups"];
            surroundings.program.extend(words.map(str::to_owned));
            surroundings.program.push(program().to_str().expect("a path in UTF-8").to_owned());
        }
        let hookgate = Hookgate::start_in(config, surroundings).await;
        let memory = fs::metadata(format!("/proc/{}/mem", hookgate.process().pid()));
        let memory = memory.expect("a running process");
        assert_eq!((memory.uid(), memory.gid()) != (0, 0), is_dumpable, "{configured:?}");
    }
}

/// The sum of `check` suffices: the defaults except for fewer connections, with exactly that
/// memory, while callers of every kind use as much as they can.
#[tokio::test(flavor = "multi_thread")]
async fn the_memory_sum_of_check_suffices_for_everything_at_once() {
    const CONNECTIONS: u32 = 4000;
    let scratch = Scratch::new("cgroup");
    let memory = memory_of(CONNECTIONS, &[]).await;
    let at_most = memory["at_most"].as_u64().expect("a number");
    let group = Group::new(at_most);
    let app = large_previews().config(|config| {
        config.set("server.max_connections", CONNECTIONS).set("telemetry.log", "info");
        // Long enough for all callers to be there at once, on a slow machine as well.
        config.set("server.header_timeout", "10m").set("server.body_timeout", "10m");
    });
    let app = match &group {
        Some(group) => {
            let enter = group.entry_script(&scratch);
            app.started_by(&["sh", &enter]).start().await
        }
        None => app.limit(&format!("--data={at_most}")).start().await,
    };
    let mut kept = Everything::send(&app).await;
    // The process is alive and ready, and has slots for new callers when the others have gone.
    assert_eq!(app.hookgate.readiness().await.0, 200);
    let resident = app.hookgate.metrics().await.value("process_resident_memory_bytes", &[]);
    let peak = group.as_ref().map_or(resident, Group::peak);
    println!("{:.0} of {:.0} MiB", peak / MEBIBYTE as f64, at_most as f64 / MEBIBYTE as f64);
    kept.connections.clear();
    until("webhooks are accepted again", async || {
        app.webhook("wh_1").bearer("key_b").send().await.status == 202
    })
    .await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

#[tokio::test]
async fn limits_that_exceed_memory_are_reported_with_their_keys() {
    let small = memory_of(100, &["--data=268435456"]).await;
    assert_eq!(small["limit"], json!({ "bytes": 268_435_456, "by": "RLIMIT_DATA" }));
    let mut config = Config::new();
    config.set("triggers.file", "workflows.json").set("queue.redis", "redis://127.0.0.1:1/");
    let report = check(&config, &["--data=268435456"]).await;
    let warning = report["warnings"][0].as_str().expect("a warning");
    for word in
        ["server.max_connections (", "limits.in_flight_bytes (512 MiB)", "RLIMIT_DATA", "256 MiB"]
    {
        assert!(warning.contains(word), "{warning}");
    }
    assert_eq!(report["ok"], true, "the sum is only a possibility");
    // The service reports it as well.
    let app = App::build().limit("--data=536870912").start().await;
    assert!(app.hookgate.log().contains("lower server.max_connections"), "{}", app.hookgate.log());
    if let Some(group) = Group::new(700 << 20) {
        let scratch = Scratch::new("cgroup");
        let app = App::build().started_by(&["sh", &group.entry_script(&scratch)]).start().await;
        assert!(app.hookgate.log().contains("the cgroup allows 700 MiB"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_cpu_is_not_reported_as_a_fault_of_redis() {
    let scratch = Scratch::new("burners");
    let app = App::build().documents(ledger::documents()).config(|config| {
        config.set("queue.enqueue_timeout", "20s").set("telemetry.log", "info");
    });
    let app = app.start().await;
    let before = app.hookgate.log().lines().count();
    let mut burn = Command::new("sh");
    burn.args(["-c", "while :; do :; done"]);
    let burners: Vec<Process> =
        (0..4).map(|_| Process::start("burner", &burn, &scratch.join("log"))).collect();
    let load = Load::start(&app.caller);
    load.more_accepted(400).await;
    let verdict = load.stop().await.judge(&app.redis).await;
    drop(burners);
    verdict.assert_sound();
    let failed = verdict.nothing + verdict.unknown + verdict.not_sent + verdict.unanswered;
    assert_eq!(failed, 0, "{verdict}");
    // None of Hookgate's watchdogs has reported it as another fault.
    let log = app.hookgate.log();
    assert_eq!(log.lines().skip(before).collect::<Vec<_>>(), [""; 0]);
}

/// A file that may not grow fails like one on a full disk.
#[tokio::test]
async fn a_full_disk_affects_only_the_snapshot() {
    const SIZE: usize = 256 << 10;
    let database = Mongo::shared().await.database().await;
    let mut documents = Documents::two_organizations();
    documents.workflows.extend((0..200).map(|serial| {
        let data = json!({ "webhookId": format!("{serial:0>250}") });
        let node =
            |id| json!({ "id": format!("{id:0>200}"), "type": "WebhookTrigger", "data": data });
        let nodes: Vec<_> = (0..8).map(node).collect();
        json!({ "_id": format!("long_{serial}"), "organizationId": "org_a", "nodes": nodes })
    }));
    database.insert(&documents).await;
    let build = App::build().mongo(&database).limit(&format!("--fsize={SIZE}"));
    let snapshot = PathBuf::from(build.file("index.snapshot", ""));
    fs::remove_file(&snapshot).expect("it was just created");
    let file = snapshot.to_str().expect("a path in UTF-8").to_owned();
    let app = build.config(|config| {
        config.set("triggers.snapshot_file", file).set("telemetry.log", "info");
    });
    let app = app.start().await;
    until("the failed snapshot is logged", async || {
        app.hookgate.log().contains("snapshot not written")
    })
    .await;
    assert!(app.hookgate.log().contains("File too large"));
    for _ in 0..20 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
    until("the service is degraded and ready", async || {
        let (status, report) = app.hookgate.readiness().await;
        status == 200 && report["degraded"].to_string().contains("snapshot: File too large")
    })
    .await;
    let directory = snapshot.parent().expect("the file is in a directory");
    let left = fs::read_dir(directory).expect("the test's own directory").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    let of_it = left.iter().filter(|name| name.to_string_lossy().starts_with("index.snapshot"));
    assert_eq!(of_it.collect::<Vec<_>>(), ["index.snapshot.lock"], "no partial snapshot is left");
    assert_eq!(app.hookgate.log().matches("snapshot not written").count(), 1);
    assert_eq!(app.hookgate.terminate().await, 0);
}

#[tokio::test]
async fn too_few_open_files_prevent_the_start_with_a_reason() {
    let files = Scratch::new("few");
    let mut config = Config::new();
    config.set("triggers.file", "config/workflows.json");
    let file = files.write("hookgate.toml", config.to_string());
    for (command, limits) in [("serve", &[8, 12, 16, 23, 32, 40][..]), ("check", &[8, 12])] {
        for limit in limits {
            let mut few = Command::new("prlimit");
            few.arg(format!("--nofile={limit}:{limit}")).arg("--").arg(program()).arg(command);
            few.arg("--config").arg(&file);
            if command == "check" {
                few.arg("--connect");
            }
            let process = Process::start("few", &few, &files.join(&format!("{command}-{limit}")));
            let code = process.wait().await;
            let output = process.log_text();
            assert_eq!(code, 1, "{command} with {limit}: {output}");
            let sentence = format!("the limit of open files is {limit} ");
            assert!(
                output.contains("too few files can be opened"),
                "{command} with {limit}: {output}"
            );
            assert!(output.contains(&sentence) && !output.contains("panic"), "{limit}: {output}");
        }
    }
    // The reported minimum suffices.
    let app = App::build().limit("--nofile=64:64").start().await;
    for _ in 0..3 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
    assert_eq!(app.hookgate.terminate().await, 0);
}

/// Tokens use the time of day; everything else uses monotonic time.
#[tokio::test]
async fn a_clock_jump_affects_only_the_expiry_of_tokens() {
    let clock = Clock::new("+0");
    let app = clock.app().await;
    let start = now();
    let with = async |serial: usize, change: Value| {
        let mut claims = json!({ "organizationId": "org_a", "sub": "u", "exp": start + 90_000 });
        claims["jti"] = json!(serial);
        claims
            .as_object_mut()
            .expect("an object")
            .extend(change.as_object().expect("an object").clone());
        app.webhook("wh_1").bearer(&token(&claims)).send().await
    };
    let mut kept = Connection::open(app.hookgate.address()).await;
    let mut served = 0;
    for (serial, (clock_says, is_late, is_early)) in [
        ("+0", false, false),
        ("+1h", true, false),
        ("-1h", false, true),
        ("+0", false, false),
        ("@1970-01-02 00:00:00", false, true),
        ("@2200-01-01 00:00:00", true, true),
        ("+0", false, false),
    ]
    .into_iter()
    .enumerate()
    {
        clock.set(clock_says);
        // A token that is seen repeatedly, a new one, and one that began half an hour ago.
        let remembered = with(0, json!({ "exp": start + 1800 })).await;
        let new = with(serial, json!({ "exp": start + 1800 })).await;
        let begun = with(serial, json!({ "nbf": start - 1800 })).await;
        let begun_and_remembered = with(0, json!({ "nbf": start - 1800 })).await;
        for (reply, is_refused) in [
            (remembered, is_late),
            (new, is_late),
            (begun, is_early),
            (begun_and_remembered, is_early),
        ] {
            if is_refused {
                reply.assert_rejected(401, "expired_token");
            } else {
                assert_eq!(reply.status, 202, "{clock_says}: {}", reply.text());
                served += 1;
            }
        }
        // Nothing else depends on the time of day.
        let (head, body) = app.webhook("wh_1").to_http1();
        kept.send([head, body].concat()).await;
        let reply = kept.reply().await.expect("the connection is still open");
        assert_eq!(reply.matched(), 1, "{clock_says}");
        served += 1;
        assert_eq!(app.hookgate.readiness().await.0, 200, "{clock_says}");
    }
    assert_eq!(app.redis.queue().waiting_exactly(served).await.len(), served);
    app.assert_accounting().await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

/// HTTP has no date before 1970, and libraries do not handle one: with such a clock every answer
/// fails, and nothing is lost permanently.
#[tokio::test]
async fn a_clock_before_1970_does_not_end_the_process() {
    let clock = Clock::new("@1970-01-01 00:00:01");
    let app = clock.app().await;
    for _ in 0..3 {
        clock.set("@1969-06-01 00:00:00");
        for credential in ["key_a", &token(&claims("org_a", "u"))] {
            let reply = app.webhook("wh_1").bearer(credential).try_send().await;
            assert!(reply.is_err() || reply.is_ok_and(|reply| [202, 500].contains(&reply.status)));
        }
        clock.set("+0");
        for credential in ["key_a", &token(&claims("org_a", "u"))] {
            until("webhooks are accepted", async || {
                let reply = app.webhook("wh_1").bearer(credential).try_send().await;
                reply.is_ok_and(|reply| reply.status == 202)
            })
            .await;
        }
    }
    for job in app.redis.queue().waiting().await {
        let stamp: i64 = job.text("timestamp").parse().expect("milliseconds");
        assert!(stamp >= 0, "{stamp}");
    }
    until("no closed connection is counted", async || {
        app.hookgate.metrics().await.sum("hookgate_connections") <= 1.0
    })
    .await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

/// The report of `check` on memory with this many connections.
async fn memory_of(connections: u32, limits: &[&str]) -> Value {
    let mut config = Config::new();
    config.set("triggers.file", "workflows.json").set("queue.redis", "redis://127.0.0.1:1/");
    config.set("server.max_connections", connections);
    check(&config, limits).await["memory"].take()
}

/// The report of `check` within limits of the system, as `prlimit` spells them.
async fn check(config: &Config, limits: &[&str]) -> Value {
    let scratch = Scratch::new("check");
    let file = scratch.write("hookgate.toml", config.to_string());
    let mut command = tokio::process::Command::new("prlimit");
    command.args(limits).arg("--").arg(program());
    let output = command.args(["check", "--json", "--config"]).arg(file).output().await;
    serde_json::from_slice(&output.expect("the command runs").stdout).expect("a report")
}

/// Forty workflows whose preview has a mebibyte.
fn large_previews() -> Builder {
    let nodes: Vec<Value> =
        (0..130).map(|node| trigger(&format!("{node}-{}", "n".repeat(220)), "wh_long")).collect();
    let mut documents = Documents::two_organizations();
    let many = (0..40).map(|number| workflow_of(&format!("wf_{number}"), "org_a", json!(nodes)));
    documents.workflows.extend(many);
    App::build().documents(documents)
}

/// Connections of every kind of caller. Each uses as much as it can and stays open.
struct Everything {
    connections: Vec<Connection>,
}

impl Everything {
    async fn send(app: &App) -> Self {
        allow_open_files();
        let head = |path: &str, key: &str, fields: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n{fields}\r\n"
            )
        };
        let (webhook, large) = ("/api/webhook/workflow", "x".repeat(31_000));
        let preview = r#"{"webhookId":"wh_long"}"#;
        let length = |bytes: usize| format!("Content-Length: {bytes}\r\n");
        let kinds = [
            // An unfinished head without a credential.
            format!("POST {webhook} HTTP/1.1\r\nHost: a\r\nX: {large}"),
            // A body that never arrives after a large head, and one that lacks its last byte.
            head(webhook, "key_a", &format!("{}X: {large}\r\n", length(100))),
            head(webhook, "key_b", &length(1 << 20)) + &" ".repeat((1 << 20) - 1),
            // A preview that is never read.
            head(&format!("{webhook}/preview"), "key_a", &length(preview.len())) + preview,
        ];
        let mut connections = Vec::new();
        for (kind, count) in kinds.iter().zip([2000, 1000, 300, 500]) {
            for _ in 0..count {
                let mut connection = Connection::open_narrow(app.hookgate.address()).await;
                // A refused connection may be closed while it sends.
                connection.try_send(kind).await;
                connections.push(connection);
            }
        }
        Self { connections }
    }
}

/// A cgroup with this much memory; `None` if none can be created.
struct Group(PathBuf);

impl Group {
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("hookgate-test-{}-{bytes}", std::process::id());
        let of_version =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        of_version.into_iter().find_map(|(root, file)| {
            let group = Self(Path::new(root).join(&name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(file), bytes.to_string()).ok().map(|()| group)
        })
    }

    /// A script that enters the cgroup and executes its arguments.
    fn entry_script(&self, scratch: &Scratch) -> String {
        let processes = self.0.join("cgroup.procs");
        let script = format!("echo $$ >{} && exec \"$@\"\n", processes.display());
        scratch.write("enter", script).to_str().expect("a path in UTF-8").to_owned()
    }

    /// Peak memory in bytes.
    fn peak(&self) -> f64 {
        let files = ["memory.max_usage_in_bytes", "memory.peak"].map(|file| self.0.join(file));
        let mut texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
        texts.find_map(|text| text.trim().parse().ok()).expect("a number")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The cgroup is empty when its processes have ended, which the tests wait for.
        let _ = fs::remove_dir(&self.0);
    }
}

/// The time of day that Hookgate reads.
struct Clock(Scratch);

impl Clock {
    fn new(text: &str) -> Self {
        let clock = Self(Scratch::new("clock"));
        clock.set(text);
        clock
    }

    fn set(&self, text: &str) {
        let new = self.0.write("clock.new", text);
        fs::rename(new, self.0.join("clock")).expect("the test's own directory");
    }

    async fn app(&self) -> App {
        let library = fs::read_dir("/usr/lib")
            .expect("a directory")
            .flatten()
            .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
        let library = library.into_iter().find(|path| path.exists()).expect("scripts/setup test");
        let file = self.0.join("clock");
        App::build()
            .variable("LD_PRELOAD", library.to_str().expect("a path in UTF-8"))
            .variable("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("a path in UTF-8"))
            .variable("FAKETIME_NO_CACHE", "1")
            .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .start()
            .await
    }
}
