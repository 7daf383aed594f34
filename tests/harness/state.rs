//! Everything that a queue has left in Redis, ready to be compared with another queue.

use std::collections::BTreeMap;

use redis::{FromRedisValue, cmd};
use serde_json::{Value, json};

use super::queue::Queue;
use super::redis::Redis;

/// A queue's keys without their prefix: type, whether it expires, and content.
///
/// What differs between two runs of the same is levelled: times are `"<time>"`, stream entries lose their ids, and the JSON
/// in `data` and `opts` of a job is parsed, since the order of members means nothing.
pub async fn state(redis: &Redis, queue: &Queue<'_>) -> BTreeMap<String, Value> {
    let mut state = BTreeMap::new();
    for name in names(redis, queue).await {
        if name == "stalled-check" {
            // A worker's note to other workers, gone after half a minute.
            continue;
        }
        let key = queue.key(&name);
        let kind: String = redis.query(cmd("TYPE").arg(&key)).await;
        let expires: i64 = redis.query(cmd("PTTL").arg(&key)).await;
        let content = content(redis, &name, &key, &kind).await;
        state.insert(name, json!({ "type": kind, "expires": expires >= 0, "content": content }));
    }
    state
}

/// Makes `to` the same as `from`, key by key.
pub async fn copy(redis: &Redis, from: &Queue<'_>, to: &Queue<'_>) {
    for name in names(redis, from).await {
        let copied: u8 = redis.query(cmd("COPY").arg(from.key(&name)).arg(to.key(&name))).await;
        assert_eq!(copied, 1, "{name}");
    }
}

async fn names(redis: &Redis, queue: &Queue<'_>) -> Vec<String> {
    let keys: Vec<String> = redis.query(cmd("KEYS").arg(queue.key("*"))).await;
    let prefix = queue.key("");
    keys.iter().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect()
}

async fn content(redis: &Redis, name: &str, key: &str, kind: &str) -> Value {
    match kind {
        "string" => json!(redis.query::<String>(cmd("GET").arg(key)).await),
        "list" => json!(range::<Vec<String>>(redis, "LRANGE", key).await),
        "hash" => {
            let fields: BTreeMap<String, String> = redis.query(cmd("HGETALL").arg(key)).await;
            Value::Object(fields.into_iter().map(|(name, text)| field(name, text)).collect())
        }
        "set" => {
            let mut members: Vec<String> = redis.query(cmd("SMEMBERS").arg(key)).await;
            members.sort();
            json!(members)
        }
        "zset" => {
            let mut command = cmd("ZRANGE");
            command.arg(key).arg(0).arg(-1).arg("WITHSCORES");
            let members: Vec<(String, String)> = redis.query(&command).await;
            let is_time = matches!(name, "completed" | "failed" | "delayed");
            let level = |score| if is_time { TIME.to_owned() } else { score };
            json!(members.into_iter().map(|(id, score)| (id, level(score))).collect::<Vec<_>>())
        }
        "stream" => {
            type Entry = (String, Vec<(String, String)>);
            let mut command = cmd("XRANGE");
            let entries: Vec<Entry> = redis.query(command.arg(key).arg("-").arg("+")).await;
            json!(entries.into_iter().map(|(_, fields)| fields).collect::<Vec<_>>())
        }
        other => panic!("{key} is a {other}"),
    }
}

async fn range<T: FromRedisValue>(redis: &Redis, command: &str, key: &str) -> T {
    redis.query(cmd(command).arg(key).arg(0).arg(-1)).await
}

const TIME: &str = "<time>";

fn field(name: String, text: String) -> (String, Value) {
    let value = match name.as_str() {
        "data" | "opts" => serde_json::from_str(&text).expect("JSON"),
        "timestamp" | "processedOn" | "finishedOn" => {
            assert!(text.len() == 13 && text.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
            json!(TIME)
        }
        _ => json!(text),
    };
    (name, value)
}
