//! A machine that has too little of something, or a wrong clock.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

mod harness;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use harness::hookgate::{Surroundings, program};
use harness::ledger::{self, Load};
use harness::process::Process;
use harness::raw::Connection;
use harness::scratch::Scratch;
use harness::tokens::{claims, now, token};
use harness::wait::until;
use harness::{App, Config, Documents, Hookgate, Mongo};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const MEBIBYTE: usize = 1 << 20;

/// Four times the memory that there is comes as bodies while Redis takes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn too_little_memory_is_shed_before_it_is_felt() {
    const MEMORY: usize = 192;
    let app = App::build().limit(&format!("--data={}", MEMORY * MEBIBYTE)).config(|config| {
        config.set("limits.in_flight_bytes", "48MiB").set("queue.enqueue_timeout", "10s");
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
    until("it takes webhooks again", async || app.webhook("wh_1").send().await.status == 202).await;
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.value("hookgate_requests_in_flight", &[]), 0.0);
    assert!(metrics.requests("overloaded") > 400.0, "{codes:?}");
    app.assert_accounting().await;
}

/// The kernel gives the memory of a process that may be dumped to the user and group that it runs as, and to root
/// otherwise.
#[tokio::test]
async fn secrets_in_memory_are_hidden_unless_asked_otherwise() {
    for (asked, is_dumpable) in [(None, false), (Some(false), false), (Some(true), true)] {
        let mut config = Config::new();
        config.set("triggers.file", "/nowhere").set("queue.redis", "redis://127.0.0.1:1/0");
        if let Some(asked) = asked {
            config.set("telemetry.dumpable", asked);
        }
        let mut surroundings = Surroundings::default();
        if rustix::process::geteuid().is_root() {
            // A group of its own, to be told from root.
            let words = ["setpriv", "--regid=65534", "--clear-groups"];
            surroundings.program.extend(words.map(str::to_owned));
            surroundings.program.push(program().to_str().expect("a path of text").to_owned());
        }
        let hookgate = Hookgate::start_in(config, surroundings).await;
        let memory = fs::metadata(format!("/proc/{}/mem", hookgate.process().pid()));
        let memory = memory.expect("a running process");
        assert_eq!((memory.uid(), memory.gid()) != (0, 0), is_dumpable, "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_time_is_no_fault_of_redis() {
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
    // No watchdog of ours has taken it for something else.
    let log = app.hookgate.log();
    assert_eq!(log.lines().skip(before).collect::<Vec<_>>(), [""; 0]);
}

/// A file that may not grow fails as one on a full disk does.
#[tokio::test]
async fn a_full_disk_costs_the_snapshot_alone() {
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
    fs::remove_file(&snapshot).expect("it was just made");
    let file = snapshot.to_str().expect("a path of text").to_owned();
    let app = build.config(|config| {
        config.set("triggers.snapshot_file", file).set("telemetry.log", "info");
    });
    let app = app.start().await;
    until("it is told", async || app.hookgate.log().contains("snapshot not written")).await;
    assert!(app.hookgate.log().contains("File too large"));
    for _ in 0..20 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
    until("it is degraded, and ready", async || {
        let (status, report) = app.hookgate.readiness().await;
        status == 200 && report["degraded"].to_string().contains("snapshot: File too large")
    })
    .await;
    let directory = snapshot.parent().expect("it is in a directory");
    let left = fs::read_dir(directory).expect("our own directory").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    let of_it = left.iter().filter(|name| name.to_string_lossy().starts_with("index.snapshot"));
    assert_eq!(of_it.collect::<Vec<_>>(), ["index.snapshot.lock"], "half a snapshot is none");
    assert_eq!(app.hookgate.log().matches("snapshot not written").count(), 1);
    assert_eq!(app.hookgate.terminate().await, 0);
}

#[tokio::test]
async fn too_few_open_files_end_the_start_with_a_sentence() {
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
            let said = process.log_text();
            assert_eq!(code, 1, "{command} with {limit}: {said}");
            let sentence = format!("the limit of all is {limit} ");
            assert!(said.contains("too few files can be opened"), "{command} with {limit}: {said}");
            assert!(said.contains(&sentence) && !said.contains("panic"), "{limit}: {said}");
        }
    }
    // What is said to be enough is.
    let app = App::build().limit("--nofile=64:64").start().await;
    for _ in 0..3 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
    assert_eq!(app.hookgate.terminate().await, 0);
}

/// Tokens go by the time of day, everything else by time that only goes on.
#[tokio::test]
async fn a_clock_that_jumps_makes_tokens_expire_and_nothing_else() {
    let clock = Clock::new("+0");
    let app = clock.app().await;
    let start = now();
    let with = async |serial: usize, change: Value| {
        let mut claims = json!({ "organizationId": "org_a", "sub": "u", "exp": start + 90_000 });
        claims["jti"] = json!(serial);
        claims.as_object_mut().expect("an object").extend(change.as_object().expect("one").clone());
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
        // One that is seen again and again, one that is new, and one that has begun half an hour ago.
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
        // Nothing else is a matter of the time of day.
        let (head, body) = app.webhook("wh_1").to_http1();
        kept.send([head, body].concat()).await;
        let reply = kept.reply().await.expect("the connection has not aged");
        assert_eq!(reply.matched(), 1, "{clock_says}");
        served += 1;
        assert_eq!(app.hookgate.readiness().await.0, 200, "{clock_says}");
    }
    assert_eq!(app.redis.queue().waiting_exactly(served).await.len(), served);
    app.assert_accounting().await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

/// HTTP has no date before 1970, and no library expects one: such a clock costs every answer, and nothing for good.
#[tokio::test]
async fn a_clock_before_time_began_is_lived_through() {
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
            until("all is well", async || {
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
    until("no connection is counted that is gone", async || {
        app.hookgate.metrics().await.sum("hookgate_connections") <= 1.0
    })
    .await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

/// The time of day as Hookgate sees it.
struct Clock(Scratch);

impl Clock {
    fn new(text: &str) -> Self {
        let clock = Self(Scratch::new("clock"));
        clock.set(text);
        clock
    }

    fn set(&self, text: &str) {
        let new = self.0.write("clock.new", text);
        fs::rename(new, self.0.join("clock")).expect("our own directory");
    }

    async fn app(&self) -> App {
        let library = fs::read_dir("/usr/lib")
            .expect("a directory")
            .flatten()
            .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
        let library = library.into_iter().find(|path| path.exists()).expect("scripts/setup test");
        let file = self.0.join("clock");
        App::build()
            .variable("LD_PRELOAD", library.to_str().expect("a path of text"))
            .variable("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("a path of text"))
            .variable("FAKETIME_NO_CACHE", "1")
            .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .start()
            .await
    }
}
