//! The model of the script, which the searches of `model/` and the simulation of the queue rely on,
//! is held against the script on a real Redis: after each of some thousand random calls, both have
//! given the same reply and hold the same.

#![expect(clippy::panic, reason = "a test panics")]

mod history;

use history::{Call, History, Request, Step, history};
use model::Safeguards;
use model::script::{Batch, Counter, Redis, Refusal};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use redis::aio::MultiplexedConnection;
use redis::{Client, cmd};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};
use testkit::size;

const ADD_JOBS: &str = include_str!("../../../../src/queue/batch/add_jobs.lua");
const STATE: &str = include_str!("state.lua");

/// Results of batches, outcomes of requests, and the first words of errors.
const KINDS: [&str; 13] = [
    "*",
    "late",
    "stale",
    "-",
    "A",
    "R",
    "E",
    "X",
    "ERR",
    "OOM",
    "READONLY",
    "NOREPLICAS",
    "WRONGTYPE",
];

/// The lifetime of the records of producers, in milliseconds: less than an hour.
const TTL: u64 = 600_000;

const HOUR: u64 = 60 * 60 * 1000;

#[test]
fn the_model_of_the_script_does_what_the_script_does() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(Server::start());
    let cases = size::from_environment("SCRIPT_HISTORIES", 150);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let seed = [size::from_environment("SCRIPT_SEED", 0); 32];
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let checked = TestRunner::new_with_rng(config, random).run(&history(40), |history| {
        runtime.block_on(server.check(history));
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
    // The random calls have met every kind of reply.
    let kinds = server.seen.into_inner();
    for kind in KINDS {
        assert!(kinds.contains(kind), "{kind} is not among {kinds:?}");
    }
}

/// A real Redis.
struct Server {
    redis: testkit::Redis,
    /// As a user who may do everything.
    admin: MultiplexedConnection,
    /// As the user of the script.
    caller: MultiplexedConnection,
    /// The kinds of replies that were seen.
    seen: RefCell<BTreeSet<String>>,
}

impl Server {
    async fn start() -> Self {
        let redis = testkit::Redis::start().await;
        let url = redis.allow("secret", "~* &* +@all").await;
        let client = Client::open(url).expect("a valid address");
        let caller = client.get_multiplexed_async_connection().await.expect("redis answers");
        Self { admin: redis.connect().await, caller, redis, seen: RefCell::default() }
    }

    async fn check(&self, history: History) {
        let mut model = history.redis.clone();
        self.prepare(&model).await;
        assert_eq!(self.state().await, state(&model), "before the first call");
        for step in &history.steps {
            match step {
                Step::Call(call) => self.call(&history, &mut model, call).await,
                Step::SetPaused(is_paused) if !model.held_keys.contains("q:meta") => {
                    model.meta.is_paused = *is_paused;
                    let command =
                        if *is_paused { "HSET q:meta paused 1" } else { "HDEL q:meta paused" };
                    self.admin(command).await;
                }
                Step::Expire(producer) if !model.held_keys.contains(&*format!("p{producer}")) => {
                    model.producers.remove(&*format!("p{producer}"));
                    self.admin(&format!("DEL p{producer}")).await;
                }
                Step::SetPaused(_) | Step::Expire(_) => {}
            }
            assert_eq!(self.state().await, state(&model), "{step:?}");
        }
    }

    /// Makes a queue as the model has it.
    async fn prepare(&self, model: &Redis) {
        self.admin("FLUSHALL SYNC").await;
        let (right, command) = match model.forbidden {
            Some(command) => ("-", format!("{command:?}").to_lowercase()),
            None => ("+", "get".to_owned()),
        };
        self.admin(&format!("ACL SETUSER some reset on >secret ~* &* +@all {right}{command}"))
            .await;
        for (list, ids) in [("wait", &model.wait), ("paused", &model.paused)] {
            for id in ids {
                self.admin(&format!("LPUSH q:{list} {id}")).await;
            }
        }
        for _ in 0..model.active {
            self.admin("LPUSH q:active 0").await;
        }
        match model.last_id {
            Counter::Absent => {}
            Counter::Number(id) => self.admin(&format!("SET q:id {id}")).await,
            Counter::NotANumber => self.admin("SET q:id x").await,
        }
        for (field, value) in meta(model) {
            self.admin(&format!("HSET q:meta {field} {value}")).await;
        }
        for key in &model.held_keys {
            let command = if is_string(key) { "LPUSH" } else { "SET" };
            self.admin(&format!("{command} {key} held")).await;
        }
    }

    /// Calls the script and the model.
    async fn call(&self, history: &History, model: &mut Redis, call: &Call) {
        let (keys, arguments) = encode(history, call);
        if let Some(refusal) = call.refusal {
            self.refuse_writes(refusal).await;
        }
        let mut command = cmd("EVAL");
        command.arg(ADD_JOBS).arg(keys.len()).arg(&keys).arg(&arguments);
        let reply: Result<String, _> = command.query_async(&mut self.caller.clone()).await;
        if let Some(refusal) = call.refusal {
            self.accept_writes(refusal).await;
        }
        let batch = Batch::parse(&bytes(&keys), &bytes(&arguments)).expect("a call of the script");
        model.refusal = call.refusal;
        let now = reply.as_deref().ok().and_then(|reply| reply.split(' ').nth(1)?.parse().ok());
        let expected =
            model.add_jobs(now.unwrap_or_else(unix_milliseconds), &batch, Safeguards::ALL);
        model.refusal = None;
        match (reply, expected) {
            (Ok(reply), Ok(expected)) => {
                assert_eq!(reply, expected.to_string(), "{call:?}");
                let word = reply.rsplit(' ').next().unwrap_or_default();
                let outcomes = word.chars().filter(char::is_ascii_uppercase).map(String::from);
                self.seen.borrow_mut().extend(outcomes.chain([word.to_owned()]));
            }
            (Err(error), Err(expected)) => {
                let text = [error.code(), error.detail()].map(Option::unwrap_or_default).join(" ");
                assert!(
                    text.starts_with(&expected.to_string()),
                    "{text}, not {expected}: {call:?}"
                );
                self.seen.borrow_mut().extend(text.split(' ').next().map(str::to_owned));
            }
            (reply, expected) => panic!("{reply:?}, not {expected:?}: {call:?}"),
        }
    }

    async fn refuse_writes(&self, refusal: Refusal) {
        self.admin(match refusal {
            Refusal::OutOfMemory => "CONFIG SET maxmemory 1",
            Refusal::ReadOnly => "REPLICAOF 127.0.0.1 1",
            Refusal::TooFewReplicas => "CONFIG SET min-replicas-to-write 1",
        })
        .await;
    }

    async fn accept_writes(&self, refusal: Refusal) {
        self.admin(match refusal {
            Refusal::OutOfMemory => "CONFIG SET maxmemory 0",
            Refusal::ReadOnly => "REPLICAOF NO ONE",
            Refusal::TooFewReplicas => "CONFIG SET min-replicas-to-write 0",
        })
        .await;
    }

    async fn admin(&self, command: &str) {
        let mut words = command.split(' ');
        let mut command = cmd(words.next().expect("a command"));
        command.arg(words.collect::<Vec<_>>());
        let () = command.query_async(&mut self.admin.clone()).await.expect("redis executes it");
    }

    /// Every key with its type, the hours until it expires, and its value.
    async fn state(&self) -> Vec<String> {
        let mut command = cmd("EVAL");
        command.arg(STATE).arg(0);
        let port = self.redis.port();
        let state = command.query_async(&mut self.admin.clone()).await;
        state.unwrap_or_else(|error| panic!("redis on {port}: {error}"))
    }
}

/// What [`Server::state`] returns if Redis holds what the model holds.
fn state(model: &Redis) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |key: &str, kind: &str, value: &str| {
        lines.push(format!("{key} {kind} {value}"));
    };
    for (list, ids) in [("q:wait", &model.wait), ("q:paused", &model.paused)] {
        let ids: Vec<String> = ids.iter().rev().map(i64::to_string).collect();
        if !ids.is_empty() {
            add(list, "list kept", &ids.join(" "));
        }
    }
    if model.active > 0 {
        add("q:active", "list kept", &(0..model.active).map(|_| "0").collect::<Vec<_>>().join(" "));
    }
    match model.last_id {
        Counter::Absent => {}
        Counter::Number(id) => add("q:id", "string kept", &id.to_string()),
        Counter::NotANumber => add("q:id", "string kept", "x"),
    }
    let fields: Vec<String> =
        meta(model).iter().map(|(field, value)| format!("{field}={value}")).collect();
    if !fields.is_empty() {
        add("q:meta", "hash kept", &fields.join(" "));
    }
    if model.events > 0 {
        add("q:events", "stream kept", &model.events.to_string());
    }
    if model.has_marker {
        add("q:marker", "zset kept", "");
    }
    for (id, job) in &model.jobs {
        let (data, name, options, timestamp) = (&job.data, &job.name, &job.options, job.timestamp);
        let value = format!(
            "data={data} delay=0 name={name} opts={options} priority=0 timestamp={timestamp}"
        );
        add(&format!("q:{id}"), "hash kept", &value);
    }
    for (key, record) in &model.producers {
        add(key, &expiring(record.expires_at), &record.text());
    }
    for (key, record) in &model.idempotency {
        add(key, &expiring(record.expires_at), &record.text());
    }
    for key in &model.held_keys {
        add(key, if is_string(key) { "list kept" } else { "string kept" }, "held");
    }
    lines.sort();
    lines
}

/// A string that expires then, on the clock of this machine. Hours are long enough for the pause
/// between a call and this.
fn expiring(at: u64) -> String {
    format!("string {}h", at.saturating_sub(unix_milliseconds()).div_ceil(HOUR))
}

fn meta(model: &Redis) -> BTreeMap<&'static str, String> {
    let meta = &model.meta;
    let fields = [
        ("opts.maxLenEvents", meta.max_events.as_deref().map(str::to_owned)),
        ("paused", meta.is_paused.then(|| "1".to_owned())),
        ("concurrency", meta.concurrency.map(|concurrency| concurrency.to_string())),
        ("version", meta.version.as_deref().map(str::to_owned)),
    ];
    fields.into_iter().filter_map(|(field, value)| Some((field, value?))).collect()
}

/// Whether the script needs a string at this key.
fn is_string(key: &str) -> bool {
    key == "q:id" || !key.starts_with("q:")
}

/// KEYS and ARGV of a call.
fn encode(history: &History, call: &Call) -> (Vec<String>, Vec<String>) {
    let mut keys: Vec<String> = ["wait", "paused", "meta", "id", "events", "marker", "active"]
        .map(|key| format!("q:{key}"))
        .to_vec();
    // The producer of a probe has no record.
    let is_probe = call.requests.is_empty() && !call.is_withdrawal;
    keys.push(if is_probe { "probe".to_owned() } else { format!("p{}", call.producer) });
    let jobs: usize = call.requests.iter().map(Request::jobs).sum();
    let deadline = if call.is_late && !is_probe { 1 } else { 1_u64 << 52 };
    let mut arguments: Vec<String> =
        ["q:", "workflow", "{}", history.layout].map(str::to_owned).into();
    arguments.push(u8::from(history.writes_events).to_string());
    arguments.extend([TTL, call.number, call.mark, deadline, 7].map(|each| each.to_string()));
    arguments.push(if call.is_withdrawal { "-".to_owned() } else { jobs.to_string() });
    for (position, request) in call.requests.iter().enumerate() {
        request.encode(position, &mut keys, &mut arguments);
    }
    (keys, arguments)
}

impl Request {
    fn jobs(&self) -> usize {
        match self {
            Self::Short => 1,
            Self::Long { jobs, .. } => *jobs,
        }
    }

    fn encode(&self, position: usize, keys: &mut Vec<String>, arguments: &mut Vec<String>) {
        let Self::Long { jobs, has_options, key } = self else {
            arguments.push(format!("{{\"short\":{position}}}"));
            return;
        };
        let options = if *has_options { "{\"attempts\":1}" } else { "" };
        let condition =
            key.map_or_else(String::new, |key| format!("{}f {}", key.body, key.hours * HOUR));
        keys.extend(key.map(|key| format!("k{}", key.number)));
        arguments.extend([jobs.to_string(), options.to_owned(), condition, "tail}".to_owned()]);
        arguments.extend((0..*jobs).map(|job| format!("{{{position}-{job},")));
    }
}

/// The clock for the model if the reply does not have that of Redis.
fn unix_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_millis()).expect("a time")
}

fn bytes(texts: &[String]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.clone().into_bytes()).collect()
}
