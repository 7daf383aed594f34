//! The configuration: which faults are reported and how, where values come from, and what the
//! shipped files contain.

mod command_line;

mod token_keys;

mod secrets;

mod tls;

mod wrong_values;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;

use jsonwebtoken::Algorithm;
use testkit::hookgate::{Surroundings, command, run};
use testkit::keys::hmac;
use testkit::scratch::Scratch;
use testkit::tokens::{claims, sign};
use testkit::{Caller, Config, Documents, Hookgate, Redis};
use toml::{Table, Value};

const SHIPPED: &str = include_str!("../../../../config/hookgate.toml");

#[test]
fn all_faults_are_reported_at_once_with_their_keys() {
    let text = r#"
        surplus = 1
        [server]
        listen = "nowhere"
        workers = -1
        body_timeout = "soon"
        max_body = "1"
        [auth.jwt]
        algorithms = ["HS257"]
        jwks_file = "/nowhere/jwks.json"
        [auth.jwt.more]
        surplus = 1
        [queue]
        redis = "http://127.0.0.1"
        [queue.job]
        priority = 1
        [quue]
        name = "a"
        [telemetry]
        log = "warning"
    "#;
    let expected = [
        "auth.jwt.algorithms",
        "auth.jwt.jwks_file",
        "auth.jwt.more",
        "queue.job.priority",
        "queue.redis",
        "quue",
        "server.body_timeout",
        "server.listen",
        "server.max_body",
        "server.workers",
        "surplus",
        "telemetry.log",
    ];
    let found = faults(text);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected);
    assert!(found["queue.job.priority"].contains(' '), "a reason: {found:?}");
    assert!(found["server.listen"].contains("0.0.0.0:2212"), "how it is written: {found:?}");
}

#[test]
fn an_unknown_key_is_refused_in_every_table() {
    assert_eq!(keys(&faults(&with_line("", "surplus = 1"))), ["surplus"]);
    let tables: Vec<&str> = SHIPPED.lines().filter_map(header).collect();
    assert!(tables.len() > 8, "{tables:?}");
    for table in tables {
        let found = faults(&with_line(table, "surplus = 1"));
        assert_eq!(keys(&found), [format!("{table}.surplus")]);
    }
}

#[test]
fn a_value_of_a_wrong_type_is_refused_for_every_key() {
    let known = hookgate::config::Config::known_keys();
    let mut config = Config::parse("");
    for key in known.keys() {
        // The one key whose value is any table.
        let wrong = match key.as_str() {
            "queue.data" => Value::from("text"),
            _ => Value::Table(Table::from_iter([("surplus".to_owned(), 1.into())])),
        };
        config.set(key, wrong);
    }
    assert_eq!(keys(&faults(&config.to_string())), known.keys().cloned().collect::<Vec<_>>());
}

/// Values of the right type, or nearly, that no key accepts.
const REFUSED: [(&str, &str); 79] = [
    ("triggers.node_types", "[]"),
    ("triggers.node_types", "[\"\"]"),
    ("triggers.nodes_field", "\"graph..nodes\""),
    ("triggers.node_type_field", "\"\""),
    ("triggers.node_id_field", "\"data.\""),
    ("triggers.webhook_id_field", "\"data.$hook\""),
    ("triggers.active_values", "[1.5]"),
    ("triggers.filter", "\"{\""),
    ("users.api_key_field", "\".hash\""),
    ("users.active_values", "[[\"on\"]]"),
    ("server.workers", "1025"),
    ("server.max_connections", "0"),
    ("server.max_body", "\"1023B\""),
    ("server.max_body", "\"65MiB\""),
    ("server.max_body", "1048576"),
    ("server.max_body", "\"1 pound\""),
    ("server.header_timeout", "\"0s\""),
    ("server.content_encodings", "[\"gzip\", \"rot13\"]"),
    ("server.content_encodings", "[\"GZIP\"]"),
    ("server.content_encodings", "\"gzip\""),
    ("server.body_timeout", "\"0s\""),
    ("server.body_timeout", "15"),
    ("server.body_timeout", "\"15\""),
    ("server.body_timeout", "\"-1s\""),
    ("server.idle_timeout", "\"2h\""),
    ("server.max_connection_age", "\"10ms\""),
    ("server.drain_delay", "\"1h\""),
    ("server.listen", "\"127.0.0.1\""),
    ("server.listen", "\"127.0.0.1:65536\""),
    ("admin.listen", "9464"),
    ("auth.jwt.algorithms", "[]"),
    ("auth.jwt.algorithms", "[\"none\"]"),
    ("auth.jwt.algorithms", "[\"hs256\"]"),
    ("auth.jwt.secrets", "[\"\"]"),
    ("auth.jwt.leeway", "\"1h\""),
    ("auth.jwt.user_claims", "[]"),
    ("auth.jwt.issuer", "[1]"),
    ("auth.api_key.enabled", "\"yes\""),
    ("mongodb.uri", "\"http://127.0.0.1\""),
    ("mongodb.database", "\"\""),
    ("triggers.source", "\"redis\""),
    ("triggers.collection", "\"\""),
    ("triggers.nodes_field", "\"\""),
    ("users.collection", "\"\""),
    ("users.api_key_encoding", "\"md5\""),
    ("queue.redis", "\"127.0.0.1:6379\""),
    ("queue.redis", "\"\""),
    ("queue.name", "\"a:b\""),
    ("queue.name", "\"\""),
    ("queue.prefix", "\"\""),
    ("queue.job_name", "\"\""),
    ("queue.enqueue_timeout", "\"1ms\""),
    ("queue.paused_layout", "\"v7\""),
    ("queue.connections", "1025"),
    ("queue.max_matches", "0"),
    ("queue.max_fanout_bytes", "\"1B\""),
    ("queue.memory_watermark", "1.1"),
    ("queue.memory_watermark", "-0.1"),
    ("queue.memory_watermark", "nan"),
    ("queue.data", "[]"),
    ("queue.forward_headers", "[\"Cookie\"]"),
    ("queue.forward_headers", "[\"a b\"]"),
    ("queue.job.attempts", "-1"),
    ("queue.job.attempts", "1.5"),
    ("queue.job.backoff", "-1"),
    ("queue.job.backoff", "{ delay = 5 }"),
    ("queue.job.backoff", "{ type = \"fixed\", delay = 5, surplus = 1 }"),
    ("queue.job.backoff", "{ type = \"fixed\", jitter = 2 }"),
    ("queue.job.removeOnComplete", "{ ages = 1 }"),
    ("queue.job.removeOnFail", "-1"),
    ("queue.job.keepLogs", "-1"),
    ("queue.job.stackTraceLimit", "\"many\""),
    ("queue.batch.max_jobs", "0"),
    ("queue.batch.max_bytes", "\"1B\""),
    ("queue.batch.max_in_flight", "65"),
    ("limits.in_flight_requests", "0"),
    ("limits.in_flight_bytes", "\"1KiB\""),
    ("telemetry.log", "\"hookgate=loud\""),
    ("telemetry.format", "\"xml\""),
];

#[test]
fn values_out_of_bounds_are_refused() {
    for (key, value) in REFUSED {
        assert_eq!(keys(&faults(&with_value(key, value))), [key], "{value}");
    }
    for key in ["priority", "delay", "lifo", "jobId", "repeat", "parent", "deduplication"] {
        let found = faults(&with_value(&format!("queue.job.{key}"), "1"));
        assert!(found[&format!("queue.job.{key}")].contains(' '), "a reason: {found:?}");
    }
}

#[test]
fn values_within_their_bounds_are_accepted() {
    let valid = [
        ("server.workers", "1"),
        ("server.max_body", "\"64MiB\""),
        ("server.max_body", "\"1024B\""),
        ("server.drain_timeout", "\"0s\""),
        ("server.listen", "\"[::1]:80\""),
        ("auth.jwt.issuer", "[\"a\", \"b\"]"),
        ("triggers.active_field", "\"\""),
        ("users.active_field", "\"\""),
        ("mongodb.uri", "\"mongodb+srv://cluster.example.com\""),
        ("queue.redis", "\"rediss://user:password@redis.example.com:6380/3\""),
        ("queue.memory_watermark", "0"),
        ("queue.memory_watermark", "1.0"),
        ("queue.job.backoff", "500"),
        ("queue.job.backoff", "{ type = \"fixed\", delay = 5, jitter = 0.5 }"),
        ("queue.job.removeOnComplete", "true"),
        ("queue.job.removeOnFail", "100"),
        ("queue.job.keepLogs", "0"),
        ("telemetry.log", "\"info,hookgate::queue=debug\""),
    ];
    for (key, value) in valid {
        assert_eq!(faults(&with_value(key, value)), BTreeMap::new(), "{key} = {value}");
    }
}

#[test]
fn conflicting_settings_are_refused() {
    let cluster = "[queue]\nredis = \"redis-cluster://127.0.0.1:7000\"\n";
    assert_eq!(keys(&faults(cluster)), ["queue.prefix"]);
    assert!(faults(&format!("{cluster}prefix = \"{{bull}}\"\n")).is_empty());

    let no_credentials = "[auth.api_key]\nenabled = false\n";
    assert_eq!(keys(&faults(no_credentials)), ["auth.jwt"]);
    assert!(faults(&format!("{no_credentials}[auth.jwt]\nsecrets = [\"a\"]\n")).is_empty());
}

#[test]
fn invalid_toml_is_reported_with_its_line() {
    let (code, out) = check("[server]\n\nlisten = \n", &[]);
    assert!(code == 2 && out.contains("(line 3)"), "{code}: {out}");
    for (line, hint) in [
        ("a = {workflowId}", "; a placeholder is a string, with quotes around it (line 2)"),
        ("a = { b = {workflow._id} }", "; a placeholder is a string"),
        ("a = null", "; TOML has no null (line 2)"),
    ] {
        let (code, out) = check(&format!("[queue.data]\n{line}\n"), &[]);
        assert!(code == 2 && out.contains(hint), "{out}");
    }
    let output = run(&["check", "--config", "/nowhere/hookgate.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&output).contains("/nowhere/hookgate.toml"), "{output:?}");
}

#[tokio::test]
async fn the_environment_takes_precedence_over_the_file() {
    let redis = Redis::start().await;
    let files = Scratch::new("environment");
    let documents = files.write("workflows.json", Documents::two_organizations().to_json());
    let mut config = Config::new();
    let (listen, url) = (config.text("server.listen").to_owned(), redis.url());
    config.set("server.listen", "nowhere").set("queue.redis", "nowhere").set("triggers.file", 1);
    config.set("queue.job.attempts", 7);
    config.set("queue.job.backoff", Value::Table("type = \"fixed\"\ndelay = 5".parse().unwrap()));
    let variables = [
        ("HOOKGATE__SERVER__LISTEN", listen.as_str()),
        ("hookgate__Queue__redis", &url),
        ("HOOKGATE__TRIGGERS__FILE", documents.to_str().expect("a path in UTF-8")),
        ("HOOKGATE__QUEUE__JOB__BACKOFF__DELAY", "9"),
        ("HOOKGATE__QUEUE__JOB__REMOVEONFAIL", "{ count = 3 }"),
        ("HOOKGATE__QUEUE__JOB_NAME", "12"),
        ("HOOKGATE__AUTH__JWT__SECRETS", "[\"first-secret-from-outside\", \"second\"]"),
        ("HOOKGATE__AUTH__JWT__USER_CLAIMS", "sub"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let surroundings = Surroundings { variables, ..Surroundings::default() };
    let mut hookgate = Hookgate::start_in(config, surroundings).await;
    hookgate.ready().await;
    hookgate.config.set("server.listen", listen.as_str());

    let caller = Caller::new(hookgate.address());
    for secret in ["first-secret-from-outside", "second"] {
        let token = sign(&claims("org_a", "u"), Algorithm::HS256, &hmac(secret));
        assert_eq!(caller.webhook("wh_1").bearer(&token).send().await.matched(), 1);
    }
    let jobs = redis.queue().waiting().await;
    let options = jobs[0].opts();
    assert_eq!(jobs[0].text("name"), "12");
    assert_eq!(options["attempts"], 7, "from the file");
    assert_eq!(options["backoff"], serde_json::json!({ "type": "fixed", "delay": 9 }));
    assert_eq!(options["removeOnFail"], serde_json::json!({ "count": 3 }));
}

#[test]
fn unknown_variables_and_bad_values_of_the_environment_are_refused() {
    let rows = [
        ("HOOKGATE__SERVER__LISTN", "127.0.0.1:1", "server.listn"),
        ("HOOKGATE__SERVER", "1", "server"),
        ("HOOKGATE__SERVER__WORKERS", "many", "server.workers"),
        ("hookgate__server__workers", "-1", "server.workers"),
        ("HOOKGATE__QUEUE__JOB__BACKOFF__DELAY", "soon", "queue.job.backoff"),
        ("HOOKGATE__QUEUE__JOB__PRIORITY", "1", "queue.job.priority"),
    ];
    for (variable, value, key) in rows {
        let (code, out) = check(SHIPPED, &[(variable, value)]);
        assert_eq!((code, keys(&reported(&out))), (2, vec![key.to_owned()]), "{variable}: {out}");
    }
    let (_, out) = check(SHIPPED, &[("HOOKGATE__SERVER__LISTN", "a")]);
    assert!(out.contains("HOOKGATE__SERVER__LISTN"), "{out}");
    assert!(out.contains("did you mean HOOKGATE__SERVER__LISTEN?"), "{out}");
}

/// Kubernetes sets variables for every service. Those of a service whose name begins with
/// `hookgate` look like Hookgate's.
#[test]
fn variables_of_other_programs_give_at_most_a_warning() {
    let silent = [
        ("HOOKGATE_SERVICE_HOST", "10.0.0.1"),
        ("HOOKGATE_SERVICE_PORT_HTTP", "80"),
        ("HOOKGATE_PORT", "tcp://10.0.0.1:80"),
        ("HOOKGATE_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("HOOKGATE_SERVER_PORT", "tcp://10.0.0.1:80"),
    ];
    let (code, out) = check(SHIPPED, &silent);
    assert!(code == 0 && !out.contains("HOOKGATE_"), "{out}");

    let rows = [
        // Variables of services named hookgate--server and hookgate--auth--jwt.
        ("HOOKGATE__SERVER_SERVICE_HOST", "10.0.0.1", ""),
        ("HOOKGATE__SERVER_PORT", "tcp://10.0.0.1:80", ""),
        ("HOOKGATE__SURPLUS", "1", ""),
        ("HOOKGATE__", "1", ""),
        ("HOOKGATE__QUUE__NAME", "a", "did you mean HOOKGATE__QUEUE__NAME?"),
        ("hookgate__limit__organisation__burst", "1", "HOOKGATE__LIMITS__ORGANIZATION__BURST?"),
    ];
    for (variable, value, meant) in rows {
        let (code, out) = check(SHIPPED, &[(variable, value)]);
        let warning = format!("  warning: {} is set", variable.to_ascii_uppercase());
        let line = out.lines().find(|line| line.starts_with(&warning));
        assert!(code == 0 && line.is_some_and(|line| line.contains(meant)), "{variable}: {out}");
        assert_eq!(out.contains("did you mean"), !meant.is_empty(), "{variable}: {out}");
    }
}

#[test]
fn each_fault_is_reported_with_its_line() {
    let text = "surplus = 1\n\n[server]\nlisten = \"nowhere\"\nworkers = 5\nmax_body = 3\n\n[queue.job]\n\
                backoff = { type = \"fixed\",\n delay = -1 }\n[quue]\nname = 1\n[auth]\njwt.secrets = [\"\"]\n";
    let (code, out) = check(text, &[("HOOKGATE__SERVER__WORKERS", "-1")]);
    assert_eq!(code, 2);
    let lines: BTreeMap<String, Option<String>> = reported(&out)
        .into_iter()
        .map(|(key, message)| {
            let line = message.rsplit_once(" (line ").and_then(|(_, rest)| rest.strip_suffix(')'));
            (key, line.map(str::to_owned))
        })
        .collect();
    let expected = [
        ("auth.jwt.secrets", Some("14")),
        ("queue.job.backoff", Some("9")),
        ("quue", Some("11")),
        ("server.listen", Some("4")),
        ("server.max_body", Some("6")),
        // Values of the environment.
        ("server.workers", None),
        ("surplus", Some("1")),
    ];
    let expected = expected.map(|(key, line)| (key.to_owned(), line.map(str::to_owned)));
    assert_eq!(lines, BTreeMap::from(expected), "{out}");

    // JSON output has lines too, and a byte order mark does not count.
    let files = Scratch::new("lines");
    for (text, line) in [("\u{feff}[server]\nlisten = 1\n", 2), ("a = 1\nb =\n", 2), ("\nb = 1", 2)]
    {
        let file = files.write("hookgate.toml", text);
        let output = command(&["check", "--json", "--config"]).arg(file).output();
        let report = output.expect("the binary runs").stdout;
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        assert_eq!(report["faults"][0]["line"], line, "{report}");
    }
    let file = files.write("hookgate.toml", b"# one\n# two: \xff\n");
    let output = command(&["check", "--config"]).arg(file).output().expect("the binary runs");
    assert!(stdout(&output).contains("UTF-8 (line 2)"), "{output:?}");
}

#[test]
fn a_misspelled_key_gets_a_suggestion() {
    for (text, key, meant) in [
        ("[server]\nwrokers = 1\n", "server.wrokers", "server.workers"),
        ("[server]\nmaxBody = \"1MiB\"\n", "server.maxBody", "server.max_body"),
        ("[server]\nmax-connection = 1\n", "server.max-connection", "server.max_connections"),
        ("[server.tsl]\nkey_file = \"\"\n", "server.tsl", "server.tls"),
        ("[queue.job]\nremove_on_fail = 1\n", "queue.job.remove_on_fail", "queue.job.removeOnFail"),
        ("[quueue]\nname = \"a\"\n", "quueue", "queue"),
    ] {
        let found = faults(text);
        assert_eq!(keys(&found), [key]);
        assert!(found[key].contains(&format!("did you mean {meant}?")), "{found:?}");
    }
    for text in ["[server]\nnothing_like_it = 1\n", "[else]\n", "server = 1\n"] {
        let found = faults(text);
        assert!(!found.values().any(|message| message.contains("did you mean")), "{found:?}");
    }
}

#[test]
fn a_count_of_one_fault_is_singular() {
    let (_, one) = check("surplus = 1\n", &[]);
    assert!(one.lines().next().is_some_and(|line| line.ends_with(": 1 fault")), "{one}");
    let (_, two) = check("surplus = 1\nmore = 1\n", &[]);
    assert!(two.lines().next().is_some_and(|line| line.ends_with(": 2 faults")), "{two}");
}

#[test]
fn a_value_of_a_wrong_type_is_reported_with_the_expected_type() {
    for (key, value, wanted) in [
        ("server.body_timeout", "15", "a string such as \"5s\""),
        ("server.max_body", "1048576", "a string such as \"1MiB\""),
        ("server.listen", "2212", "a string such as \"0.0.0.0:2212\""),
        ("server.workers", "\"two\"", "a whole number such as 0"),
        ("server.workers", "-1", "a whole number such as 0"),
        ("server.content_encodings", "\"gzip\"", "a list such as [\"gzip\","),
        ("queue.name", "5", "a string such as \"workflow-runner\""),
        ("queue.memory_watermark", "\"half\"", "a number such as 0.9"),
        ("auth.api_key.enabled", "1", "true or false"),
        ("auth.jwt.secrets", "\"a\"", "a list"),
        ("auth.jwt.jwks_file", "1", "a string"),
    ] {
        let found = faults(&with_value(key, value));
        assert!(found[key].contains(&format!("expected {wanted}")), "{found:?}");
    }
    let variables = [("HOOKGATE__SERVER__WORKERS", "many"), ("HOOKGATE__TELEMETRY__FORMAT", "xml")];
    let (_, out) = check("", &variables);
    for expected in
        ["expected a whole number such as 0", "unknown value \"xml\"; known are \"json\", \"text\""]
    {
        assert!(out.contains(expected), "{out}");
    }
}

#[test]
fn settings_that_bullmq_interprets_differently_give_a_warning() {
    let backoff = "queue.job.backoff";
    for (key, value, warning) in [
        ("queue.job.attempts", "0", "never tried again"),
        (backoff, "{ type = \"linear\", delay = 5 }", "no strategy \"linear\""),
        (backoff, "{ type = \"exponental\", delay = 5 }", "did you mean \"exponential\"?"),
        (backoff, "{ type = \"Fixed\", delay = 5 }", "did you mean \"fixed\"?"),
        (backoff, "{ type = \"exponential\" }", "no delay"),
    ] {
        let (code, out) = check(&with_value(key, value), &[]);
        let line = out.lines().find(|line| line.starts_with(&format!("  warning: {key}: ")));
        assert!(code == 0 && line.is_some_and(|line| line.contains(warning)), "{value}: {out}");
    }
    let (_, out) = check(SHIPPED, &[]);
    assert!(!out.contains("queue.job"), "{out}");
}

#[test]
fn the_shipped_files_have_no_faults() {
    for file in ["config/hookgate.toml", "config/dev.toml", "config/compose/hookgate.toml"] {
        let output = run(&["check", "--config", file]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let uncommented: String = SHIPPED
        .lines()
        .map(|line| if commented(line).is_some() { &line[2..] } else { line })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_ne!(uncommented, SHIPPED);
    assert!(faults(&uncommented).is_empty(), "commented keys are valid as well");
}

#[test]
fn the_shipped_file_names_every_key_with_its_default() {
    let known = hookgate::config::Config::known_keys();
    let (defaults, without): (BTreeMap<_, _>, BTreeMap<_, _>) =
        known.iter().partition(|(_, default)| default.is_some());

    let mut stated = BTreeMap::new();
    let shipped: Table = SHIPPED.parse().expect("TOML");
    flatten("", &shipped, &|key| known.contains_key(key), &mut stated);
    let defaults: BTreeMap<String, Value> = defaults
        .into_iter()
        .filter_map(|(key, default)| Some((key.clone(), default.clone()?)))
        .collect();
    for key in stated.keys().chain(defaults.keys()) {
        assert_eq!(stated.get(key), defaults.get(key), "{key} (file, code)");
    }

    let mut table = "";
    let mut commented_out = BTreeSet::new();
    for line in SHIPPED.lines() {
        table = header(line).unwrap_or(table);
        commented_out.extend(commented(line).map(|key| format!("{table}.{key}")));
    }
    assert_eq!(commented_out, without.into_keys().cloned().collect());
}

/// Keys and values of a table, down to keys that are settings.
fn flatten(
    path: &str,
    table: &Table,
    is_setting: &dyn Fn(&str) -> bool,
    found: &mut BTreeMap<String, Value>,
) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(inner) if !is_setting(&path) => flatten(&path, inner, is_setting, found),
            value => {
                found.insert(path, value.clone());
            }
        }
    }
}

/// The name in a line such as `[queue.job]`.
fn header(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.split_once(']').map(|(name, _)| name)
}

/// The key in a line such as `# keepLogs = 100`.
fn commented(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix("# ")?.split_once(" = ")?;
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then_some(key)
}

/// The shipped file with one further line, in a table such as `queue.job` or at the top.
fn with_line(table: &str, line: &str) -> String {
    let first = if table.is_empty() { line } else { "" };
    SHIPPED.lines().fold(first.to_owned(), |text, each| {
        let added = if header(each) == Some(table) { line } else { "" };
        text + "\n" + each + "\n" + added
    })
}

/// A file that holds only this key.
fn with_value(key: &str, value: &str) -> String {
    let (table, name) = key.rsplit_once('.').expect("a key in a table");
    format!("[{table}]\n{name} = {value}\n")
}

/// The exit code and the output of `check`.
fn check(text: &str, variables: &[(&str, &str)]) -> (i32, String) {
    let files = Scratch::new("check");
    let file = files.write("hookgate.toml", text);
    let mut command = command(&["check", "--config"]);
    let output =
        command.arg(file).envs(variables.iter().copied()).output().expect("the command runs");
    assert!(output.stderr.is_empty(), "{output:?}");
    (output.status.code().expect("an exit code"), stdout(&output))
}

/// The faults that `check` finds in a file; asserts that its exit code agrees.
fn faults(text: &str) -> BTreeMap<String, String> {
    let (code, out) = check(text, &[]);
    let faults = reported(&out);
    assert_eq!(code, if faults.is_empty() { 0 } else { 2 }, "{out}");
    faults
}

/// Faults by key. Without faults, the warnings.
fn reported(output: &str) -> BTreeMap<String, String> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(": "));
    let faults = lines.filter(|(key, _)| *key != "warning");
    faults.map(|(key, message)| (key.to_owned(), message.to_owned())).collect()
}

fn keys(faults: &BTreeMap<String, String>) -> Vec<String> {
    faults.keys().cloned().collect()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}
