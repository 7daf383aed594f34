//! What the log contains, how often, and what it never contains.

use serde_json::{Value, json};
use testkit::hookgate::{Hookgate, run};
use testkit::scratch::Scratch;
use testkit::wait::until;
use testkit::{App, Caller, Config, Documents, Redis, confidential, documents, tokens};

/// A line end, red by ESC and by C1, another line end, and text from right to left.
const UNSAFE: &str = "\u{1b}[31m\u{9b}31m\n\u{2028}\u{202e}-end";
const ESCAPED: &str = r"\u{1b}[31m\u{9b}31m\n\u{2028}\u{202e}-end";

#[tokio::test]
async fn each_request_has_a_line_at_debug() {
    let app = app("info,hookgate::access=debug", "json").await;
    let webhook = || app.webhook("wh_1").header("x-request-id", "the-first");
    webhook().send().await.matched();
    let other = || app.webhook("wh_1").header("x-request-id", "the-second");
    other().bearer("unknown-key").send().await.assert_rejected(401, "invalid_api_key");
    let third = app.post("{").header("x-request-id", "the-third");
    third.send().await.assert_rejected(400, "invalid_json");
    let lines = requests(&app.hookgate, 3).await;
    for (line, (id, organization, status, code, matches)) in lines.iter().zip([
        ("the-first", json!("org_a"), 202, "accepted", json!(1)),
        ("the-second", Value::Null, 401, "invalid_api_key", Value::Null),
        ("the-third", json!("org_a"), 400, "invalid_json", Value::Null),
    ]) {
        assert_eq!(line["request_id"], id, "{line}");
        assert_eq!(line["organization"], organization, "{line}");
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["code"], code, "{line}");
        assert_eq!(line["matches"], matches, "{line}");
        assert!(line["microseconds"].as_u64() > Some(0), "{line}");
        assert_eq!(line["level"], "DEBUG", "{line}");
    }
}

#[tokio::test]
async fn no_request_is_logged_at_info() {
    let app = app("info", "text").await;
    let before = app.hookgate.log().lines().count();
    for _ in 0..50 {
        app.webhook("wh_1").send().await.matched();
        app.webhook("wh_1")
            .bearer("unknown-key")
            .send()
            .await
            .assert_rejected(401, "invalid_api_key");
        app.webhook("wh_1")
            .bearer("eyJhbGciOiJIUzI1NiJ9.e30.AAAA")
            .send()
            .await
            .assert_rejected(401, "invalid_token");
        app.post("[]").send().await.assert_rejected(400, "body_not_object");
        app.caller
            .call(reqwest::Method::GET, "/nowhere")
            .send()
            .await
            .assert_rejected(404, "not_found");
    }
    assert_eq!(app.hookgate.terminate().await, 0);
    let log = app.hookgate.log();
    let new: Vec<&str> = log.lines().skip(before).collect();
    assert_eq!(new.len(), 2, "stopping and stopped: {new:#?}");
}

#[tokio::test]
async fn a_redis_outage_is_logged_in_few_lines_with_cause_and_server() {
    let redis = Redis::start().await;
    let address = redis.allow("a-long-password", "~* +@all").await;
    let server = format!("127.0.0.1:{}", redis.port());
    let app = App::build().redis(redis).redis_address(&address).config(|config| {
        config.set("telemetry.log", "info").set("queue.enqueue_timeout", "100ms");
    });
    let app = app.start().await;
    let lines_with = |what: &str| -> Vec<String> {
        let log = app.hookgate.log();
        log.lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
    };
    assert!(lines_with("Redis is ready").iter().any(|line| line.contains(&server)), "{server}");
    app.redis.kill9().await;
    app.hookgate.unready().await;
    for _ in 0..40 {
        app.webhook("wh_1").send().await.assert_not_enqueued("none");
    }
    for (what, most) in [("batch not acknowledged", 2), ("connection to Redis lost", 3)] {
        let lines = lines_with(what);
        assert!((1..=most).contains(&lines.len()), "{lines:#?}");
        assert!(
            lines.iter().all(|line| line.contains(" WARN ") && line.contains(&server)),
            "{lines:#?}"
        );
    }
    assert!(
        lines_with("batch not acknowledged").iter().any(|line| line.contains("Connection refused"))
    );
    assert!(lines_with("Redis is not ready").iter().all(|line| line.contains(&server)));
}

#[tokio::test]
async fn a_refused_batch_is_logged_with_the_error_of_redis() {
    let app = app("info", "text").await;
    let memory = async |bytes| {
        app.redis.query::<()>(redis::cmd("CONFIG").arg(&["SET", "maxmemory", bytes])).await;
    };
    // If the service learns the limit before the webhook arrives, there is no batch.
    until("a batch is refused", async || {
        memory("0").await;
        until("webhooks are accepted", async || app.webhook("wh_1").send().await.status == 202)
            .await;
        memory("1").await;
        app.webhook("wh_1").send().await;
        app.hookgate.log().contains("batch not acknowledged")
    })
    .await;
    let log = app.hookgate.log();
    let line = log.lines().find(|line| line.contains("batch not acknowledged"));
    assert!(line.is_some_and(|line| line.contains("OOM command not allowed")), "{line:?}");
}

#[tokio::test]
async fn api_keys_of_several_organizations_are_logged_once() {
    let app = app("info", "text").await;
    let mut documents = Documents::two_organizations();
    for round in 0..5 {
        let key = format!("key_of_two_{round}");
        documents.users.push(documents::user(&format!("user_{round}"), "org_a", &key));
        documents.users.push(documents::user(&format!("other_{round}"), "org_b", &key));
        app.replace_documents(&documents);
        until("the conflict is found", async || {
            let metrics = app.hookgate.metrics().await;
            metrics.value("hookgate_index_conflicting_api_keys", &[]) > f64::from(round)
        })
        .await;
    }
    assert_eq!(app.hookgate.log().matches("several organizations").count(), 1);
}

/// Ids and reasons from documents, tokens and faults of files, in the log and in the report of
/// `check`.
#[tokio::test]
async fn terminal_control_characters_are_escaped_in_the_log_and_report() {
    let odd = |name: &str| format!("{name}{UNSAFE}");
    let mut documents = Documents::two_organizations();
    documents.workflows.extend([
        documents::workflow(&odd("wf"), &odd("org"), &odd("wh")),
        json!({ "_id": odd("broken"), "organizationId": "org_a", "nodes": "none" }),
        documents::workflow_of(
            &odd("half"),
            "org_a",
            json!([{ "id": odd("node"), "type": "WebhookTrigger", "data": { "webhookId": 5 } }]),
        ),
    ]);
    let shared = odd("a-shared-key");
    documents.users.extend([
        documents::user(&odd("user"), &odd("org"), &shared),
        documents::user(&odd("other"), "org_b", &shared),
        json!({ "_id": odd("userless"), "apiKey": "a-key-without-organization" }),
    ]);
    let app = App::build().documents(documents).config(|config| {
        config.set("telemetry.log", "debug").set("telemetry.format", "text");
    });
    let app = app.start().await;
    let token = tokens::token(&tokens::claims(&odd("org"), &odd("user")));
    let body = json!({ "webhookId": odd("wh") }).to_string();
    assert_eq!(app.post(body).bearer(&token).send().await.matched(), 1);
    app.replace_documents_text(&format!("{{\"workflows\": [], \"users\": [], \"{UNSAFE}\": 1"));
    until("the request and the broken file are logged", async || {
        let log = app.hookgate.log();
        log.contains("code=\"accepted\"") && log.contains("not JSON")
    })
    .await;
    let log = app.hookgate.log();
    assert_printable(&log);
    for id in ["org", "broken", "half", "userless"] {
        assert!(log.contains(&format!("{id}{ESCAPED}")), "{id}: {log}");
    }
    let begins = |line: &str| line.starts_with("20") && line.as_bytes().get(10) == Some(&b'T');
    assert!(log.lines().all(begins), "a line is broken: {log}");
}

#[tokio::test]
async fn terminal_control_characters_are_escaped_in_faults() {
    let odd = |name: &str| format!("{name}{UNSAFE}");
    let mut documents = Documents::two_organizations();
    documents
        .workflows
        .push(json!({ "_id": odd("broken"), "organizationId": "org_a", "nodes": "none" }));
    let app = App::build().documents(documents).start().await;
    let check = async |config: &Config| testkit::hookgate::check(config, &["--connect"]).await;
    let report = check(&app.hookgate.config).await;
    let text = String::from_utf8(report.stdout).expect("UTF-8");
    assert_printable(&text);
    assert!(text.contains(&format!("broken{ESCAPED}")), "{text}");

    // A fault that repeats a key of the file, on standard output and, for `serve`, on standard
    // error.
    let mut config = app.hookgate.config.clone();
    config.set("telemetry.log", "info").set("queue.a\u{1b}[31m\nb", 1);
    let report = check(&config).await;
    let text = String::from_utf8(report.stdout).expect("UTF-8");
    assert_printable(&text);
    assert!(text.contains(r"a\u{1b}[31m\nb"), "{text}");
    let output = run(&["serve", "--config", &odd("/nowhere")]);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_printable(&text);
    assert!(text.contains(&format!("/nowhere{ESCAPED}")), "{text}");
}

fn assert_printable(text: &str) {
    let is_unsafe =
        |sign: &char| sign.is_control() && *sign != '\n' || matches!(sign, '\u{2028}' | '\u{202e}');
    let found: Vec<char> = text.chars().filter(is_unsafe).collect();
    assert!(found.is_empty(), "{found:?} in {text}");
    assert!(!text.contains("\n-end"), "a line is broken: {text}");
}

/// The harness finds the strings that it searches every log for, in every escaped form.
/// A process that fails after its log has started says why in the format that was chosen.
#[tokio::test]
async fn the_last_line_of_a_failing_process_is_in_the_format_of_the_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    for (key, level) in
        [("server.listen", "info"), ("admin.listen", "info"), ("server.listen", "off")]
    {
        for format in ["json", "text"] {
            let directory = Scratch::new("failing");
            let mut config = Config::new();
            config.set(key, address.as_str()).set("telemetry.format", format);
            config.set("telemetry.log", level).set("queue.redis", "redis://127.0.0.1:1");
            config.set("triggers.file", "/nowhere");
            let file = directory.write("hookgate.toml", config.to_string());
            let output = run(&["serve", "--config", file.to_str().expect("UTF-8")]);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let log = String::from_utf8(output.stdout).expect("UTF-8");
            let errors = String::from_utf8(output.stderr).expect("UTF-8");
            if level == "off" {
                // Without a log, standard error says it.
                assert!(log.is_empty() && errors.contains(key), "{log} {errors}");
                continue;
            }
            assert!(errors.is_empty(), "{errors}");
            let last = log.lines().last().expect("a line");
            assert!(last.contains("ERROR") && last.contains(&address), "{log}");
            if format == "json" {
                let line: Value = serde_json::from_str(last).expect("JSON");
                assert_eq!(line["message"], "hookgate failed");
                assert!(
                    line["reason"].as_str().is_some_and(|reason| reason.contains(key)),
                    "{last}"
                );
            } else {
                assert!(last.contains("hookgate failed reason="), "{last}");
            }
        }
    }
}

#[tokio::test]
async fn a_leaked_secret_would_be_found() {
    let caller = Caller::new(([127, 0, 0, 1], testkit::ports::free()).into());
    let body = r#"{"webhookId":"wh_1","lead":{"name":"Somebody Confidential"},"note":"a note for nobody"}"#;
    let call = caller.post(body).bearer("a-key-that-is-confidential");
    assert!(call.try_send().await.is_err(), "no server listens");
    let payload = &body[r#"{"webhookId":"wh_1","#.len()..];
    let leaks = [
        format!("{:?}", format!("Bearer {}", "a-key-that-is-confidential")),
        body.to_owned(),
        format!("body={body:?}"),
        json!({ "fields": { "body": format!("{body:?}") } }).to_string(),
        format!("payload={{{payload}"),
        "note=a note for nobody".to_owned(),
    ];
    for leak in leaks {
        let log = format!("INFO a line\nDEBUG {leak}\nINFO another");
        assert_eq!(confidential::leaks(&log), [format!("DEBUG {leak}")]);
    }
    assert!(confidential::leaks("INFO webhook wh_1 of org_a").is_empty());
}

async fn app(log: &str, format: &str) -> App {
    App::with(|config| {
        config.set("telemetry.log", log).set("telemetry.format", format);
    })
    .await
}

/// The log lines of the next `count` requests.
async fn requests(hookgate: &Hookgate, count: usize) -> Vec<Value> {
    let read = || -> Vec<Value> {
        let log = hookgate.log();
        let lines = log.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        lines
            .filter(|line: &Value| {
                line.get("target").is_some_and(|target| target == "hookgate::access")
            })
            .collect()
    };
    until("the requests are logged", async || read().len() >= count).await;
    let lines = read();
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}
