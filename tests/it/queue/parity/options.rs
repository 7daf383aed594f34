//! Every option of `[queue.job]`, in each of its forms.

use serde_json::{Map, Value, json};

/// TOML of the section; options that are not named have their defaults.
pub const OPTIONS: &[&str] = &[
    "",
    "attempts = 0",
    "attempts = 1",
    "attempts = 2",
    "attempts = 1000000",
    "backoff = 0",
    "backoff = 250",
    r#"backoff = { type = "fixed" }"#,
    r#"backoff = { type = "fixed", delay = 0 }"#,
    r#"backoff = { type = "fixed", delay = 1500 }"#,
    r#"backoff = { type = "fixed", delay = 1500, jitter = 0.5 }"#,
    r#"backoff = { type = "exponential", delay = 86400000 }"#,
    r#"backoff = { type = "exponential", delay = 1500, jitter = 0 }"#,
    r#"backoff = { type = "exponential", delay = 1500, jitter = 0.0 }"#,
    r#"backoff = { type = "exponential", delay = 1500, jitter = 0.333 }"#,
    r#"backoff = { type = "exponential", delay = 1500, jitter = 1 }"#,
    r#"backoff = { type = "of our own / \"ö\"" }"#,
    r#"backoff = { type = "ours", delay = 10 }"#,
    r#"backoff = { type = "ours", delay = 10, jitter = 0.25 }"#,
    "removeOnComplete = true",
    "removeOnComplete = false",
    "removeOnComplete = 0",
    "removeOnComplete = 1",
    "removeOnComplete = 100000",
    "removeOnComplete = {}",
    "removeOnComplete = { age = 0 }",
    "removeOnComplete = { age = 3600 }",
    "removeOnComplete = { count = 0 }",
    "removeOnComplete = { count = 5 }",
    "removeOnComplete = { age = 3600, count = 1000 }",
    "removeOnComplete = { age = 3600, limit = 10 }",
    "removeOnComplete = { age = 3600, count = 1000, limit = 10 }",
    "removeOnFail = true",
    "removeOnFail = false",
    "removeOnFail = 0",
    "removeOnFail = 1",
    "removeOnFail = 100000",
    "removeOnFail = {}",
    "removeOnFail = { age = 0 }",
    "removeOnFail = { age = 3600 }",
    "removeOnFail = { count = 0 }",
    "removeOnFail = { count = 5 }",
    "removeOnFail = { age = 3600, count = 1000 }",
    "removeOnFail = { age = 3600, limit = 10 }",
    "removeOnFail = { age = 3600, count = 1000, limit = 10 }",
    "keepLogs = 0",
    "keepLogs = 20",
    "stackTraceLimit = 0",
    "stackTraceLimit = 3",
    // Several options together.
    "attempts = 0\nbackoff = 0\nremoveOnComplete = true\nremoveOnFail = true\nkeepLogs = 0\nstackTraceLimit = 0",
    "attempts = 1\nremoveOnComplete = false\nremoveOnFail = false\nkeepLogs = 1",
    "attempts = 9\nbackoff = 1000\nremoveOnComplete = 10\nremoveOnFail = { age = 60 }\nstackTraceLimit = 1",
    EVERY_OPTION,
    // The number has more digits than an official producer keeps.
    "backoff = { type = \"fixed\", delay = 1234567890123456 }\nremoveOnFail = { age = 123456789012345 }",
    "backoff = { type = \"exponential\", delay = 1, jitter = 0.12345678901234567 }",
];

const EVERY_OPTION: &str = r#"
    attempts = 5
    backoff = { type = "exponential", delay = 1500, jitter = 0.5 }
    removeOnComplete = { age = 3600, count = 1000, limit = 100 }
    removeOnFail = 50
    keepLogs = 20
    stackTraceLimit = 3
"#;

/// The options as a caller gives them to an official library.
pub fn public(options: &str) -> Map<String, Value> {
    let mut all = json!({
        "attempts": 3,
        "backoff": { "type": "exponential", "delay": 1000 },
        "removeOnComplete": { "age": 86_400, "count": 10_000 },
        "removeOnFail": { "age": 604_800 },
    });
    let all = all.as_object_mut().expect("an object");
    all.extend(toml::from_str::<Map<String, Value>>(options).expect("TOML"));
    std::mem::take(all)
}
