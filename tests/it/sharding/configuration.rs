//! `[[queue.shards]]` and `[queue.sharding]`: their faults, the environment, and `check`.

use super::{build, name, servers, shard};
use std::io::Write;
use std::process::{Output, Stdio};
use testkit::hookgate::{check, check_connect, command};
use testkit::scratch::Scratch;
use testkit::tls::Authority;
use testkit::{Config, confidential};

const TWO: &str = "[[queue.shards]]\nname = \"q-0\"\n[[queue.shards]]\nname = \"q-1\"\n";

fn config(text: &str) -> Config {
    let mut config = Config::parse(text);
    config.set("auth.jwt.secrets", vec![testkit::config::SECRET]);
    config.set("triggers.source", "file").set("triggers.file", "workflows.json");
    config
}

/// The lines of a report about faults.
async fn faults(text: &str) -> Vec<String> {
    let output = check(&config(text), &[]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

#[tokio::test]
async fn every_fault_has_the_key_of_its_shard() {
    let pin = |pin: &str| format!("{TWO}[queue.sharding]\npin = {pin}\n");
    let with = |line: &str| format!("{TWO}{line}\n");
    for (text, key, message) in [
        (with("weight = 0"), "queue.shards.1.weight", "1 and 100"),
        (with("weight = 101"), "queue.shards.1.weight", "1 and 100"),
        (with("weight = 1.5"), "queue.shards.1.weight", "a whole number"),
        (with("wieght = 2"), "queue.shards.1.wieght", "did you mean queue.shards.1.weight?"),
        (with("redis = 'http://a'"), "queue.shards.1.redis", "redis://"),
        (with("redis = 'redis://:-cluster://@a'"), "queue.shards.1.redis", "%2F"),
        (with("redis_file = '/none'"), "queue.shards.1.redis_file", "cannot read"),
        (with("redis = 'redis-cluster://a'"), "queue.shards.1.prefix", "hash tag"),
        (with("[[queue.shards]]\nname = 'q-0'"), "queue.shards.2.name", "two shards"),
        (with("[[queue.shards]]\nname = 'a:b'"), "queue.shards.2.name", "colon"),
        ("[[queue.shards]]\n[[queue.shards]]\n".to_owned(), "queue.shards.1.name", "two shards"),
        ("[queue]\nshards = 'a'\n".to_owned(), "queue.shards", "array of tables"),
        ("[queue]\nshards = [1]\n".to_owned(), "queue.shards", "array of tables"),
        (pin("{ org = 'q-2' }"), "queue.sharding.pin", "q-0, q-1"),
        (pin("{ org = 1 }"), "queue.sharding.pin", "not a string"),
        // What is wrong with a default is wrong once, where it is.
        (format!("[queue]\nredis = 'http://a'\n{TWO}"), "queue.redis", "redis://"),
        (format!("[queue]\nredis = 'http://a'\n{TWO}tls = {{}}\n"), "queue.redis", "redis://"),
        (format!("[limits]\nin_flight_bytes = '1MiB'\n{TWO}"), "limits.in_flight_bytes", "half"),
        (pin("{ '' = 'q-1' }"), "queue.sharding.pin", "empty"),
        (pin("'q-1'"), "queue.sharding.pin", "table"),
        (
            pin("{ 65a1b2c3d4e5f60718293a4b = 'q-0', 65A1B2C3D4E5F60718293A4B = 'q-1' }"),
            "queue.sharding.pin",
            "twice",
        ),
        (
            "[queue.sharding]\npin = { org = 'q-1' }\n".to_owned(),
            "queue.sharding.pin",
            "workflow-runner",
        ),
    ] {
        let [fault] =
            faults(&text).await.try_into().unwrap_or_else(|all| panic!("{text}: {all:?}"));
        assert!(fault.starts_with(&format!("{key}: ")), "{text}: {fault}");
        assert!(fault.contains(message), "{text}: {fault}");
    }
    // A shard may not lose the TLS of `[queue]` by its address, unless it has a section of its own.
    let authority = Authority::new();
    let tls = format!("[queue.tls]\nca_file = '{}'\n", authority.authority_file());
    let secure = TWO.replace("name", "redis = 'rediss://a'\nname");
    let accepts = async |text: String| check(&config(&text), &[]).await.status.success();
    assert!(accepts(format!("{tls}{secure}")).await);
    let plain = format!("{tls}{secure}[[queue.shards]]\nname = 'q-2'\nredis = 'redis://b'\n");
    let [fault] = faults(&plain).await.try_into().expect("one fault");
    assert!(fault.starts_with("queue.shards.2.redis: does not use TLS"), "{fault}");
    assert!(accepts(format!("{plain}tls = {{}}\n")).await);
    // The address of all shards may not lose it either, and is reported once.
    let default = format!("[queue]\nredis = 'redis://a'\n{tls}{TWO}");
    let [fault] = faults(&default).await.try_into().expect("one fault");
    assert!(fault.starts_with("queue.redis: does not use TLS"), "{fault}");
    // A cluster that all shards have by default needs a tag in the prefix of each.
    let cluster = format!("[queue]\nredis = 'redis-cluster://a'\n{TWO}prefix = '{{bull-1}}'\n");
    let [fault] = faults(&cluster).await.try_into().expect("one fault");
    assert!(fault.starts_with("queue.shards.0.prefix: "), "{fault}");
}

#[tokio::test]
async fn two_shards_in_one_slot_of_one_cluster_are_warned_of() {
    let warns = async |addresses: [&str; 2], prefixes: [&str; 2]| {
        let shard = |queue: usize| {
            let (address, prefix) = (addresses[queue], prefixes[queue]);
            format!(
                "[[queue.shards]]\nname = 'q-{queue}'\nredis = '{address}'\nprefix = '{prefix}'\n"
            )
        };
        let output = check(&config(&[shard(0), shard(1)].concat()), &[]).await;
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.contains("queue.shards.1.prefix: is in the slot of queue.shards.0")
    };
    let (first, second) = ("redis-cluster://a?node=b:1", "redis-cluster://c?node=b:1");
    assert!(warns([first, first], ["{bull}", "x{bull}"]).await);
    assert!(warns([first, second], ["{bull}", "{bull}"]).await, "they have a node in common");
    assert!(!warns([first, second], ["{bull-0}", "{bull-1}"]).await);
    assert!(!warns([first, "redis-cluster://c"], ["{bull}", "{bull}"]).await);
    assert!(!warns(["redis://a", "redis://a"], ["{bull}", "{bull}"]).await);
}

#[tokio::test]
async fn no_fault_repeats_an_address() {
    let secret = "pa55word-of-the-shard";
    confidential::credential(secret);
    for shard in [
        format!("redis = 'redis://:{secret}@host:99999'"),
        format!("redis = 'redis://:{secret}@host'\nweight = 'x'"),
        format!("redis = ['redis://:{secret}@host']"),
    ] {
        let text = format!("[queue]\nredis = 'redis://:{secret}@default'\n{TWO}{shard}\n");
        let found = faults(&text).await;
        assert!(!found.is_empty() && !found.join("\n").contains(secret), "{found:?}");
    }
    let text = format!("[queue]\nredis = 'redis://:{secret}@default'\n{TWO}redis = 5\n");
    assert!(!faults(&text).await.join("\n").contains(secret));
}

#[test]
fn the_environment_sets_keys_of_a_shard_by_its_number_and_adds_shards() {
    let files = Scratch::new("shard");
    let file = files.write("hookgate.toml", config(TWO).to_string());
    let run = |variables: &[(&str, &str)]| -> Output {
        let mut command = command(&["shard", "--config"]);
        command.arg(&file).arg("org_pinned").envs(variables.iter().copied());
        command.output().expect("the binary runs")
    };
    let pin = ("HOOKGATE__QUEUE__SHARDING__PIN", "{ org_pinned = \"new\" }");
    let unknown = run(&[pin]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    for variable in ["HOOKGATE__QUEUE__SHARDS__0__NAME", "HOOKGATE__QUEUE__SHARDS__2__NAME"] {
        let output = run(&[pin, (variable, "new")]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "org_pinned\tnew\n", "{output:?}");
    }
    let all = ("HOOKGATE__QUEUE__SHARDS", "[{ name = \"new\" }, { name = \"other\" }]");
    assert_eq!(String::from_utf8_lossy(&run(&[pin, all]).stdout), "org_pinned\tnew\n");
    let output = run(&[("HOOKGATE__QUEUE__SHARDS__7__NAME", "new")]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "a gap: {output:?}");
    assert!(errors.contains("HOOKGATE__QUEUE__SHARDS__7__NAME"), "{errors}");
}

#[test]
fn shard_reads_organizations_from_its_arguments_and_its_input() {
    let config = config(TWO);
    let arguments = ["org_1", "org_2"].map(str::to_owned);
    let expected = String::from_utf8(shard(&config, &arguments).stdout).expect("UTF-8");
    assert_eq!(expected.lines().count(), 2);
    let files = Scratch::new("shard");
    let mut command = command(&["shard", "-", "--config"]);
    command.arg(files.write("hookgate.toml", config.to_string()));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().expect("the binary runs");
    let mut input = process.stdin.take().expect("a pipe");
    input.write_all(b"org_1\r\n\norg_2").expect("it reads");
    drop(input);
    let output = process.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8(output.stdout).expect("UTF-8"), expected);
    assert!(output.status.success());

    let long = shard(&config, &["x".repeat(257)]);
    assert_eq!(long.status.code(), Some(2), "{long:?}");
    assert_eq!(shard(&config, &[]).status.code(), Some(2), "no organization");
    let one = shard(&self::config(""), &arguments);
    let one = String::from_utf8(one.stdout).expect("UTF-8");
    assert_eq!(one, "org_1\tworkflow-runner\norg_2\tworkflow-runner\n");
}

#[tokio::test]
async fn check_looks_at_each_queue() {
    let servers = servers(2).await;
    let app = build(&servers).start().await;
    let config = &app.hookgate.config;
    let (code, report) = check_connect(config).await;
    assert_eq!((code, &report["redis"]), (0, &serde_json::Value::Null), "{report}");
    for (queue, redis) in servers.iter().enumerate() {
        let found = &report["queues"][name(queue)];
        let server = found["server"].as_str().expect("a server");
        assert!(server.ends_with(&format!(":{}", redis.port())), "{report}");
        assert_eq!(found["faults"], serde_json::json!([]));
    }
    servers[1].kill9().await;
    let (code, report) = check_connect(config).await;
    assert_eq!((code, &report["ok"]), (1, &false.into()), "{report}");
    assert_eq!(report["queues"][name(0)]["faults"], serde_json::json!([]));
    assert!(report["queues"][name(1)]["faults"].to_string().contains("does not answer"));
    let output = check(config, &["--connect"]).await;
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.lines().any(|line| line == "Redis (workflow-runner-1)"), "{text}");
}
