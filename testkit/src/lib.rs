//! The harness of the black-box tests: real servers, the real binary, requests over real sockets.
//!
//! Most tests need only [`App`]:
//!
//! ```ignore
//! // Starts Redis and `hookgate serve` with a file of documents.
//! let app = App::with(|config| { config.set("queue.job.attempts", 5); }).await;
//! // Sends with the API key `key_a` of `org_a`.
//! let reply = app.webhook("wh_1").send().await;
//! assert_eq!(reply.matched(), 1);
//! // Reads the job from Redis as bytes.
//! let job = app.redis.queue().only_job().await;
//! assert_eq!(job.at("/workflowId"), "wf_1");
//! // Every request is counted once.
//! app.assert_accounting().await;
//! ```
//!
//! | module | offers |
//! |---|---|
//! | [`app`] | [`App`]: `start`, `with(change)`, `build()` with `documents`, `config`, `redis`, `mongo`, `file`, `variable`, `limit`, `failpoints`; `post`, `webhook`, `raw`, `panic_at`, `replace_documents`, `assert_accounting` |
//! | [`hookgate`] | [`Hookgate`]: `start`, `start_unready`, `start_in` (variables, limits), `ready`, `unready`, `readiness`, `metrics`, `terminate` (SIGTERM, exit code), `kill9`, `restart`, `process().signal("INT")`, `log`; `check`, `check_connect` and `run(&["token", …])` for the other commands |
//! | [`http`] | [`Caller`] (cloneable, for tasks under load), `Call`, `Reply` with `matched`, `code`, `assert_rejected` |
//! | [`raw`](mod@raw) | `raw(address, bytes)` and `Connection` for requests that a client library would not send |
//! | [`refusals`] | `rows(&app)`: the requests that are refused, for any transport; `assert_envelope` |
//! | [`relay`] | [`relay::Relay`]: a TCP port in front of a Unix socket, or one that sends a header of the PROXY protocol; `build().listening(address, front)` |
//! | [`redis`] | [`Redis`]: `start`, `start_durable`, `start_with(options)`, `start_on(port, options)`, `start_replica`, `promote`, `kill9`, `restart`, `freeze`, `thaw`, `query`, `info`, `allow`, `start_cluster`, `start_tls`, `in_database`; `TESTKIT_REDIS_SERVER` names another program |
//! | [`cluster`] | `Cluster`: primaries with their slots; `move_slot`, `reshard`, `add_primary`, `add_replica`, `remove` |
//! | [`size`] | `from_environment(name, default)`: the size of a test |
//! | [`slow`] | [`slow::SlowCallers`]: thousands of connections that dribble heads and bodies |
//! | [`sentinel`] | `Sentinel`: watches a primary, fails over to a replica; `start_with` a user or TLS |
//! | [`idle_proxy`] | [`idle_proxy::IdleProxy`] in front of a server: closes connections that are idle, as a load balancer does |
//! | [`chaos`] | [`ChaosProxy`] in front of a Redis: `open`, `future`, `all` with `cut`, `cut_after`, `stall`, `black_hole`, `hold_requests`, `release`, `split`, `gather`, `delay`, `insert_before_reply`, `heal`; `deliver_late`, `lose_requests`, `lose_replies`, `cut_one_after`, `cut_at_random`, `refuse_connections`, `redirect`; `counts`, `held` |
//! | [`fake_redis`] | [`FakeRedis`] in front of a Redis: `answer_next`, `answer_always` with [`fake_redis::Answer`], `answer_normally`; `calls`, `calls_of` |
//! | [`raw_redis`], [`resp`] | a client of Redis that sends raw bytes; a parser that finds where requests and replies end |
//! | [`queue`] | `redis.queue()`: `waiting`, `only_job`, `waiting_exactly(n)`, `all`, `hash_ids`, `events`; `Job` with `payload_text`, `data`, `opts`, `at` |
//! | [`state`] | `state`: every key of a queue, normalized so that two queues can be compared; `copy` |
//! | [`ledger`] | [`ledger::Load`], a few callers under load, and their [`ledger::Ledger`], which compares their answers with the jobs in Redis |
//! | [`node`] | the official library: [`node::Worker`], `node::queue(redis, name, &["pause"])`, `node::board` |
//! | [`calls`] | [`calls::Calls`]: many calls of the official `Queue`, of any release and of Python, with one process for each library |
//! | [`official`] | [`official::Official`]: each supported release with its worker, `pause()` and `resume()` |
//! | [`mongo`] | [`Mongo`]: `shared` (one per test binary), `start` (one to kill), `start_on(port)`, `start_uninitiated`, `start_standalone`, `freeze`, `thaw`, `restart`, `restart_alone`, `start_with_short_oplog` with `roll_oplog`, `database()` (fresh name) with `insert(documents)`, `rename`; `document(json)` |
//! | [`mongo_faults`] | `mongo.fail(&["getMore"], doc! { "errorCode": 286 })`: commands of Hookgate fail until `end`; `hit(n)` |
//! | [`network`] | [`network::Network`]: nodes with addresses of their own in network namespaces, and a router that drops packets: `cut`, `part`, `lose`, `heal`; `Redis::start_in(node, options)`, `Mongo::start_in(node)`, `node.entrance()` for other commands. As root only |
//! | [`agreement`] | `agrees(app, database, gone)`: waits until callers match exactly what the collections hold |
//! | [`edits`] | [`edits::Edits`]: changes of every kind, `make` and `arrive` |
//! | [`deliveries`] | `endpoints(config)`, `verified_trigger`, signatures; `app.delivery`, `app.github_delivery` |
//! | [`samples`] | `samples::SAMPLES`: a delivery of each preset, signed as the provider's page says |
//! | [`documents`] | workflows and users in the contract's shape, `Documents::two_organizations` |
//! | [`http2`] | `http2::Streams`, whose streams a test begins, ends and resets; `http2::Frames`, for frames that no client library would send |
//! | [`tls`] | [`tls::Authority`]: certificates in files that a test replaces, `client()` for [`Caller::over_tls`], `connect` for bytes; `build().tls(&authority)` |
//! | [`tokens`], [`keys`] | JWTs of every algorithm, forged JWTs, key pairs as PEM and JWK |
//! | [`key_server`] | [`key_server::KeyServer`]: publishes a JWK set over HTTP or TLS; `publish`, `answer` with [`key_server::Answer`], `fetches`, `stop`, `resume` |
//! | [`confidential`] | credentials and bodies of the tests, which no log of Hookgate may hold; each log is searched for them when its process ends |
//! | [`collector`] | [`collector::Collector`] of OTLP: `start`, `start_tls`, `start_on(port)`; `answer` with [`collector::Answer`], `spans`, `request(id, spans)`, `exports`, `resource`, `header` |
//! | [`config`] | [`Config`]: TOML by key path; `patient`, which raises the timeouts |
//! | [`browser`] | [`browser::Browser`]: Chromium with one page; `open`, `read`, `tick`, `set_visible`, `screenshot` |
//! | [`metrics`] | Prometheus text, parsed |
//! | [`process`], [`scratch`], [`ports`] | child processes and directories that cannot outlive the test process; free ports |
//! | [`python`](mod@python) | `python(packages)`: Python with packages of `.tools` |
//! | [`wait`] | `until(what, async || …)`: waits for a condition, never for a time |
//!
//! Servers are killed when they are dropped, and also when the test process dies. Their logs are
//! printed when a test panics.
#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test panics")]
#![expect(
    clippy::return_self_not_must_use,
    clippy::new_without_default,
    reason = "a test that drops a builder fails anyway"
)]
#![expect(clippy::missing_panics_doc, reason = "a function panics to fail its test")]
#![expect(clippy::print_stderr, reason = "logs of a failed test belong to its output")]
#![expect(clippy::needless_pass_by_value, reason = "documents are written as literals")]

use std::path::Path;

pub mod agreement;
pub mod app;
pub mod browser;
pub mod calls;
pub mod chaos;
mod chaos_faults;
mod chaos_line;
pub mod cluster;
pub mod collector;
pub mod confidential;
pub mod config;
pub mod deliveries;
pub mod documents;
pub mod edits;
pub mod fake_redis;
pub mod hookgate;
pub mod http;
pub mod http2;
pub mod idle_proxy;
pub mod key_server;
pub mod keys;
pub mod ledger;
#[cfg(test)]
mod ledger_judgement;
pub mod metrics;
pub mod mongo;
pub mod mongo_faults;
pub mod network;
pub mod node;
pub mod official;
pub mod ports;
pub mod process;
pub mod python;
pub mod queue;
pub mod raw;
pub mod raw_redis;
pub mod redis;
pub mod refusals;
pub mod relay;
pub mod resp;
pub mod samples;
pub mod scratch;
pub mod seeds;
pub mod sentinel;
pub mod size;
pub mod slow;
pub mod state;
pub mod tls;
pub mod tokens;
pub mod wait;

/// The root of the project's checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the testkit is in the root folder")
}

pub use app::App;
pub use chaos::ChaosProxy;
pub use config::Config;
pub use documents::Documents;
pub use fake_redis::FakeRedis;
pub use hookgate::Hookgate;
pub use http::{Caller, Reply};
pub use mongo::Mongo;
pub use redis::Redis;
