//! The job options, named as in BullMQ, and the JSON that is stored with each job.

use crate::settings::{Section, nearest};
use bytes::Bytes;
use serde_json::{Map, Value as Json};
use toml::Value;

/// The section `[queue.job]`, as BullMQ stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::queue) struct JobOptions {
    members: Map<String, Json>,
    /// The JSON that is stored with a job without a trace context.
    pub(in crate::queue) json: Bytes,
}

/// Options of BullMQ that must not be configured, each with the reason.
const REFUSED: [(&str, &str); 11] = [
    (
        "priority",
        "jobs with a priority wait behind every job without one; use a queue of their own",
    ),
    ("delay", "delayed jobs are hidden from workers; delay in the workflow instead"),
    ("lifo", "the newest job first starves the older ones"),
    ("jobId", "job ids come from BullMQ's counter"),
    ("deduplication", "every accepted webhook runs"),
    ("repeat", "a webhook starts each workflow once"),
    ("parent", "a webhook is not part of a flow"),
    (
        "timestamp",
        "Hookgate sets it when it sends the jobs to Redis; receivedAt in the data is the time of receipt",
    ),
    ("sizeLimit", "server.max_body limits the size"),
    ("telemetry", "it comes from the traceparent of each request"),
    ("debounce", "BullMQ has replaced it"),
];

/// The built-in backoff strategies of BullMQ.
const STRATEGIES: [&str; 2] = ["exponential", "fixed"];

impl JobOptions {
    pub(in crate::queue) fn read(section: &mut Section<'_>) -> Self {
        let mut options = Map::new();
        let attempts = section.number("attempts", 3, 0..=1_000_000);
        options.insert("attempts".to_owned(), attempts.into());
        if attempts == 0 {
            section.warning("attempts", "0 is the same as 1: a failed job is never tried again");
        }
        let backoff = entry(section, "backoff", "backoff", Some(default_backoff()), backoff);
        warn_about_backoff(section, backoff.as_ref());
        options.extend(backoff);
        for (key, default) in [
            ("removeOnComplete", keep(&[("age", 86_400), ("count", 10_000)])),
            ("removeOnFail", keep(&[("age", 604_800)])),
        ] {
            options.extend(entry(section, key, key, Some(default), retention));
        }
        options.extend(entry(section, "keepLogs", "kl", None, whole_number));
        options.extend(entry(section, "stackTraceLimit", "stackTraceLimit", None, whole_number));
        for (key, reason) in REFUSED {
            section.unsupported(key, reason);
        }
        let json = Json::Object(options.clone()).to_string().into();
        Self { members: options, json }
    }

    /// The JSON of these options with a trace context, which is a map of header names to values.
    pub(in crate::queue) fn to_json_with_trace(&self, context: &Json) -> String {
        let mut options = self.members.clone();
        // BullMQ stores the context as a string that contains JSON. A BullMQ worker that reads any
        // other value there stops permanently.
        options.insert("tm".to_owned(), context.to_string().into());
        Json::Object(options).to_string()
    }
}

/// Reads one option; `stored` is its name in Redis.
fn entry(
    section: &mut Section<'_>,
    key: &str,
    stored: &str,
    default: Option<Value>,
    check: fn(&Value) -> Result<Json, &'static str>,
) -> Option<(String, Json)> {
    let value = match default {
        Some(default) => section.value(key, default),
        None => section.optional(key)?,
    };
    match check(&value) {
        Ok(json) => Some((stored.to_owned(), json)),
        Err(message) => {
            section.fault(key, message);
            None
        }
    }
}

fn default_backoff() -> Value {
    let mut backoff = toml::Table::new();
    backoff.insert("type".to_owned(), "exponential".into());
    backoff.insert("delay".to_owned(), 1000.into());
    Value::Table(backoff)
}

fn keep(members: &[(&str, i64)]) -> Value {
    let members = members.iter().map(|(key, value)| ((*key).to_owned(), Value::Integer(*value)));
    Value::Table(members.collect())
}

fn whole_number(value: &Value) -> Result<Json, &'static str> {
    match value {
        Value::Integer(number) if *number >= 0 => Ok((*number).into()),
        _ => Err("not a whole number of 0 or more"),
    }
}

fn backoff(value: &Value) -> Result<Json, &'static str> {
    const MESSAGE: &str = "not milliseconds and not { type = \"fixed\" or \"exponential\", delay = milliseconds, jitter = 0 to 1 }";
    let table = match value {
        Value::Integer(_) => {
            return Ok(
                serde_json::json!({ "type": "fixed", "delay": whole_number(value).map_err(|_| MESSAGE)? }),
            );
        }
        Value::Table(table) => table,
        _ => return Err(MESSAGE),
    };
    let mut json = Map::new();
    for (key, value) in table {
        let value = match (key.as_str(), value) {
            // Other names refer to custom strategies of the BullMQ worker.
            ("type", Value::String(name)) if !name.is_empty() => name.as_str().into(),
            ("delay", value) => whole_number(value).map_err(|_| MESSAGE)?,
            ("jitter", Value::Float(jitter)) if (0.0..=1.0).contains(jitter) => (*jitter).into(),
            ("jitter", Value::Integer(jitter @ (0 | 1))) => (*jitter).into(),
            _ => return Err(MESSAGE),
        };
        json.insert(key.clone(), value);
    }
    if json.contains_key("type") { Ok(Json::Object(json)) } else { Err(MESSAGE) }
}

/// Warns of backoffs with which BullMQ does not retry as the configuration suggests.
fn warn_about_backoff(section: &mut Section<'_>, backoff: Option<&(String, Json)>) {
    let Some((_, backoff)) = backoff else { return };
    let name = backoff["type"].as_str().unwrap_or_default();
    if !STRATEGIES.contains(&name) {
        let nearest = nearest(name, STRATEGIES);
        let hint = nearest.map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
        let message = format!(
            "BullMQ has no strategy {name:?}: BullMQ workers without a custom backoffStrategy fail to retry{hint}"
        );
        section.warning("backoff", message);
    } else if backoff.get("delay").is_none() {
        section.warning("backoff", "has no delay: a failed job is retried immediately");
    }
}

fn retention(value: &Value) -> Result<Json, &'static str> {
    const MESSAGE: &str =
        "not true, false, a number of jobs, or { age = seconds, count = jobs, limit = jobs }";
    match value {
        Value::Boolean(all) => Ok((*all).into()),
        Value::Integer(_) => whole_number(value).map_err(|_| MESSAGE),
        Value::Table(table)
            if table.keys().all(|key| matches!(key.as_str(), "age" | "count" | "limit")) =>
        {
            let member = |(key, value): (&String, &Value)| {
                whole_number(value).map(|number| (key.clone(), number)).map_err(|_| MESSAGE)
            };
            Ok(Json::Object(table.iter().map(member).collect::<Result<_, _>>()?))
        }
        _ => Err(MESSAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SettingsReader;
    use serde_json::json;

    fn read(file: &str) -> (Json, Vec<String>) {
        let mut settings = SettingsReader::new(toml::from_str(file).unwrap(), std::iter::empty());
        let options = JobOptions::read(&mut settings.section("queue.job"));
        let faults = settings.into_faults().iter().map(ToString::to_string).collect();
        (serde_json::from_slice(&options.json).unwrap(), faults)
    }

    #[test]
    fn options_are_stored_in_the_format_of_bullmq() {
        let week = 604_800;
        let expected = json!({
            "attempts": 3, "backoff": { "type": "exponential", "delay": 1000 },
            "removeOnComplete": { "age": 86_400, "count": 10_000 }, "removeOnFail": { "age": week },
        });
        assert_eq!(read("").0, expected);
        let (options, faults) = read(
            "[queue.job]\nattempts = 0\nbackoff = 250\nremoveOnComplete = true\nremoveOnFail = 5\nkeepLogs = 7\nstackTraceLimit = 2\n",
        );
        let expected = json!({
            "attempts": 0, "backoff": { "type": "fixed", "delay": 250 }, "removeOnComplete": true,
            "removeOnFail": 5, "kl": 7, "stackTraceLimit": 2,
        });
        assert_eq!(options, expected);
        assert!(faults.is_empty());
    }

    #[test]
    fn forbidden_and_invalid_options_are_faults() {
        let (_, faults) = read(
            "[queue.job]\npriority = 1\nlifo = true\nattempts = -1\nbackoff = { delay = 1 }\nnone = 1\n",
        );
        let keys: Vec<&str> = faults.iter().map(|fault| fault.split_once(':').unwrap().0).collect();
        assert_eq!(
            keys,
            [
                "queue.job.attempts",
                "queue.job.backoff",
                "queue.job.lifo",
                "queue.job.none",
                "queue.job.priority"
            ]
        );
    }

    #[test]
    fn the_trace_context_is_stored_as_a_string_of_json() {
        let mut settings = SettingsReader::default();
        let options = JobOptions::read(&mut settings.section("queue.job"));
        let json = options.to_json_with_trace(&json!({ "traceparent": "00-a" }));
        let parsed: Json = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["tm"], r#"{"traceparent":"00-a"}"#);
    }
}
