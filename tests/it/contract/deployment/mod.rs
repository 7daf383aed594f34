//! What operators get besides the program: alerts, the image, compose.yaml, and the check that
//! every 202 has its jobs.

#![expect(clippy::panic, reason = "a test panics")]

mod compose;
mod dashboard;
mod notices;
mod release;
mod shipped;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use redis::cmd;
use serde_json::{Value, json};
use testkit::scratch::Scratch;
use testkit::{App, Redis};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn promtool_accepts_the_alerts_and_they_fire() {
    let files = Path::new(ROOT).join("config/prometheus");
    promtool(["check", "config"], &files.join("prometheus.yml"));
    promtool(["test", "rules"], &files.join("alerts_test.yml"));
    // The rules are evaluated as rarely as Prometheus does by default.
    let copies = Scratch::new("alerts");
    for name in ["alerts.yml", "alerts_test.yml"] {
        let text = fs::read_to_string(files.join(name)).expect("it exists");
        let often = "evaluation_interval: 15s";
        assert_eq!(text.contains(often), name == "alerts_test.yml");
        copies.write(name, text.replace(often, "evaluation_interval: 1m"));
    }
    promtool(["test", "rules"], &copies.join("alerts_test.yml"));
}

#[test]
fn every_alert_has_a_runbook_and_a_test() {
    let read = |name: &str| fs::read_to_string(Path::new(ROOT).join(name)).expect("it exists");
    let alerts = read("config/prometheus/alerts.yml");
    let tests = read("config/prometheus/alerts_test.yml");
    let page = read("docs/operating/troubleshooting.md");
    let names: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 5, "only {names:?} were found: is the file still read?");
    for name in &names {
        let runbook = format!("runbook: docs/operating/troubleshooting.md#{}", name.to_lowercase());
        assert!(alerts.lines().any(|line| line.trim() == runbook), "{name} has no runbook");
        assert!(tests.contains(name), "no test of a rule expects {name}");
    }
    // The headings are the alerts in their order, each with a paragraph that says how soon to act.
    let paragraphs: Vec<&str> = page.split("\n## ").skip(1).collect();
    let headings = paragraphs.iter().filter_map(|text| text.lines().next());
    assert_eq!(headings.collect::<Vec<_>>(), names);
    for (name, paragraph) in names.iter().zip(&paragraphs) {
        let rule = alerts.split(&format!("- alert: {name}\n")).nth(1).expect("it is there");
        let severity = rule.split("severity: ").nth(1).expect("a severity");
        let severity = severity.split([' ', '}']).next().expect("a word");
        let begins = format!("{name}\n\n*{severity}.* ");
        assert!(paragraph.starts_with(&begins), "{name} is a {severity}: {paragraph}");
    }
}

fn promtool(what: [&str; 2], file: &Path) {
    let output = Command::new("promtool").args(what).arg(file).output();
    let output = output.expect("promtool is on the path");
    assert!(output.status.success(), "{what:?}: {output:?}");
}

#[tokio::test]
async fn alerts_use_existing_metrics() {
    let app = App::start().await;
    let metrics = app.hookgate.metrics().await;
    let known: BTreeSet<&str> = metrics.names().collect();
    let alerts = fs::read_to_string(Path::new(ROOT).join("config/prometheus/alerts.yml"));
    let alerts = alerts.expect("it exists");
    let words = alerts.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
    let used: BTreeSet<&str> = words.filter(|word| word.starts_with("hookgate_")).collect();
    assert!(used.len() > 5, "only {used:?} were found: is the file still read?");
    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_images_build_context_is_a_complete_package() {
    let context = Scratch::new("context");
    let list = fs::read_to_string(Path::new(ROOT).join(".dockerignore")).expect("it exists");
    for name in list.lines().filter_map(|line| line.strip_prefix('!')) {
        let mut copy = Command::new("cp");
        copy.args(["-r", "--parents", name]).arg(context.path()).current_dir(ROOT);
        assert!(copy.status().expect("cp runs").success(), "{name}");
    }
    // The training program of the build is in the context, too.
    let mut train = Command::new("python3");
    let output = train.arg("loadtest/train").current_dir(context.path()).output();
    let output = output.expect("python3 runs");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(printed.contains("say which program"), "{printed}");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--locked"]);
    let output = cargo.current_dir(context.path()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn missing_and_duplicated_jobs_are_found() {
    let app = App::start().await;
    let mut answers = Vec::new();
    for serial in 0..4 {
        let id = format!("run-{serial}");
        let body = json!({ "webhookId": "wh_1", "landed": id }).to_string();
        let matched = app.post(body).send().await.matched();
        answers.push(json!({ "id": id, "code": "accepted", "matched": matched }));
    }
    let files = Scratch::new("landed");
    let file = files.write("answers.jsonl", lines(&answers));
    let judged = judge(&file, &app.redis);
    assert_eq!(judged.status.code(), Some(0), "{judged:?}");

    let key = |id: &str| app.redis.queue().key(id);
    let _: u64 = app.redis.query(cmd("DEL").arg(key("1"))).await;
    let _: u64 = app.redis.query(cmd("COPY").arg(key("2")).arg(key("1000"))).await;
    answers[2] = json!({ "id": "run-2", "code": "overloaded", "enqueued": "none" });
    let file = files.write("answers.jsonl", lines(&answers));
    let judged = judge(&file, &app.redis);
    let printed = String::from_utf8_lossy(&judged.stdout);
    assert_eq!(judged.status.code(), Some(1), "{judged:?}");
    for fault in ["missing: 1\n    run-0", "twice: 1\n    run-1", "refused: 1\n    run-2"] {
        assert!(printed.contains(fault), "{fault} is not in {printed}");
    }
    assert!(!printed.contains("run-3"), "{printed}");
}

#[tokio::test]
async fn an_answer_of_a_proxy_is_in_doubt() {
    let app = App::start().await;
    for id in ["run-0", "run-1"] {
        let body = json!({ "webhookId": "wh_1", "landed": id }).to_string();
        assert_eq!(app.post(body).send().await.matched(), 1);
    }
    let answers = [
        json!({ "id": "run-0", "code": "accepted", "matched": 1 }),
        json!({ "id": "run-1", "code": "not_hookgate" }),
        json!({ "id": "run-2", "code": "no_answer" }),
    ];
    let files = Scratch::new("landed");
    let judged = judge(&files.write("answers.jsonl", lines(&answers)), &app.redis);
    assert_eq!(judged.status.code(), Some(0), "{judged:?}");
    let printed = String::from_utf8_lossy(&judged.stdout);
    assert!(printed.contains("1 accepted with 1 jobs, 2 unsure, 0 refused"), "{printed}");
}

#[test]
fn answers_that_promise_no_job_prove_nothing() {
    let files = Scratch::new("landed");
    for answer in [
        json!({ "id": "run-0", "code": "invalid_token" }),
        json!({ "id": "run-0", "code": "accepted", "matched": 0 }),
    ] {
        let file = files.write("answers.jsonl", lines(&[answer]));
        let mut node = Command::new("node");
        let output = node.arg(script()).arg(&file).args(["--consumed", "/dev/null"]).output();
        let output = output.expect("node runs");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(printed.contains("nothing to look for"), "{printed}");
    }
}

fn lines(answers: &[Value]) -> String {
    let lines: Vec<String> = answers.iter().map(Value::to_string).collect();
    lines.join("\n")
}

fn judge(answers: &Path, redis: &Redis) -> Output {
    let mut node = Command::new("node");
    node.arg(script()).arg(answers).args(["--redis", &redis.url()]);
    node.output().expect("node runs")
}

fn script() -> PathBuf {
    Path::new(ROOT).join("loadtest/landed.mjs")
}
