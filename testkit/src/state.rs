//! Everything that a queue has left in Redis, in a form that can be compared with another queue.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Cmd, FromRedisValue, cmd, pipe};
use serde_json::{Value, json};

use super::queue::Queue;
use super::redis::Redis;

/// Values by the name of the key.
pub type State = BTreeMap<String, Value>;

/// A queue's keys without their prefix: type, whether it expires, and content.
///
/// Differences between two identical runs are normalized: times are `"<time>"`, stream entries lose
/// their ids, and the JSON in `data` and `opts` of a job is parsed, because the order of members
/// has no meaning.
pub async fn state(redis: &Redis, queue: &Queue<'_>) -> State {
    let mut connection = redis.connect().await;
    let mut names = names(redis, queue).await;
    // A message among BullMQ workers, which expires after half a minute.
    names.retain(|name| name != "stalled-check");
    if names.is_empty() {
        return State::new();
    }
    let (mut types, mut lives) = (pipe(), pipe());
    for name in &names {
        types.cmd("TYPE").arg(queue.key(name));
        lives.cmd("PTTL").arg(queue.key(name));
    }
    let types: Vec<String> = types.query_async(&mut connection).await.expect("types");
    let lives: Vec<i64> = lives.query_async(&mut connection).await.expect("lives");
    let mut reads = pipe();
    for (name, kind) in names.iter().zip(&types) {
        reads.add_command(read(&queue.key(name), kind));
    }
    let contents: Vec<redis::Value> = reads.query_async(&mut connection).await.expect("contents");
    let mut state = State::new();
    for (((name, kind), life), content) in names.into_iter().zip(types).zip(lives).zip(contents) {
        let content = level(&name, &kind, content);
        state.insert(name, json!({ "type": kind, "expires": life >= 0, "content": content }));
    }
    state
}

/// Makes `to` the same as `from`, key by key.
pub async fn copy(redis: &Redis, from: &Queue<'_>, to: &Queue<'_>) {
    let mut connection = redis.connect().await;
    for name in names(redis, from).await {
        let mut command = cmd("COPY");
        command.arg(from.key(&name)).arg(to.key(&name));
        let copied: u8 = command.query_async(&mut connection).await.expect("a copy");
        assert_eq!(copied, 1, "{name}");
    }
}

async fn names(redis: &Redis, queue: &Queue<'_>) -> Vec<String> {
    let keys: Vec<String> = redis.query(cmd("KEYS").arg(queue.key("*"))).await;
    let prefix = queue.key("");
    keys.iter().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect()
}

fn read(key: &str, kind: &str) -> Cmd {
    let (name, rest): (_, &[&str]) = match kind {
        "string" => ("GET", &[]),
        "list" => ("LRANGE", &["0", "-1"]),
        "hash" => ("HGETALL", &[]),
        "set" => ("SMEMBERS", &[]),
        "zset" => ("ZRANGE", &["0", "-1", "WITHSCORES"]),
        "stream" => ("XRANGE", &["-", "+"]),
        other => panic!("{key} is a {other}"),
    };
    let mut command = cmd(name);
    command.arg(key).arg(rest);
    command
}

fn level(name: &str, kind: &str, content: redis::Value) -> Value {
    match kind {
        "string" => json!(given::<String>(content)),
        "list" => json!(given::<Vec<String>>(content)),
        "hash" => {
            let fields: BTreeMap<String, String> = given(content);
            Value::Object(fields.into_iter().map(|(name, text)| field(name, text)).collect())
        }
        "set" => json!(given::<BTreeSet<String>>(content)),
        "zset" => {
            let mut members: Vec<(String, String)> = given(content);
            if matches!(name, "completed" | "failed" | "delayed") {
                // Scores are times; members with the same score are in the order of their ids.
                for (_, score) in &mut members {
                    TIME.clone_into(score);
                }
                members.sort();
            }
            json!(members)
        }
        _ => {
            let entries: Vec<(String, Vec<(String, String)>)> = given(content);
            json!(entries.into_iter().map(|(_, fields)| fields).collect::<Vec<_>>())
        }
    }
}

fn given<T: FromRedisValue>(content: redis::Value) -> T {
    T::from_redis_value(content).expect("the number format of Redis")
}

const TIME: &str = "<time>";

fn field(name: String, text: String) -> (String, Value) {
    let value = match name.as_str() {
        "data" => serde_json::from_str(&text).expect("JSON"),
        "opts" => by_value(serde_json::from_str(&text).expect("JSON")),
        "timestamp" | "processedOn" | "finishedOn" => {
            assert!(text.len() == 13 && text.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
            json!(TIME)
        }
        _ => json!(text),
    };
    (name, value)
}

/// Normalizes numbers, because JSON has one kind of them: `1.0` is `1`.
pub fn by_value(json: Value) -> Value {
    match json {
        Value::Number(number) => {
            // Rust formats a whole float without a decimal point.
            let text = number.as_f64().map_or_else(String::new, |float| float.to_string());
            text.parse::<i64>().map_or(Value::Number(number), Value::from)
        }
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, by_value(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(by_value).collect(),
        other => other,
    }
}
