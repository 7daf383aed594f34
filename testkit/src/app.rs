//! Redis, documents and Hookgate, connected to each other.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reqwest::ClientBuilder;

use super::config::Config;
use super::documents::Documents;
use super::hookgate::{Hookgate, Surroundings, open_at_once, program};
use super::http::{Call, Caller, Reply};
use super::mongo::TestDatabase;
use super::raw::raw;
use super::redis::Redis;
use super::scratch::Scratch;
use super::tls::Authority;
use super::wait::until;

/// The folder of the files that make Hookgate panic.
const FAILPOINTS: &str = "failpoints";

/// A running Hookgate with a Redis of its own.
#[derive(Debug)]
pub struct App {
    pub hookgate: Hookgate,
    pub redis: Redis,
    pub caller: Caller,
    files: Scratch,
}

impl App {
    /// Starts with two organizations from a file (see [`Documents::two_organizations`]) and
    /// everything else as shipped.
    pub async fn start() -> Self {
        Self::build().start().await
    }

    /// Like [`App::start`], with changes to the configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::build().config(change).start().await
    }

    pub fn build() -> Builder {
        Builder {
            config: Config::new(),
            documents: Documents::two_organizations(),
            files: Scratch::new("app"),
            redis: None,
            redis_address: None,
            surroundings: Surroundings::default(),
            client: None,
        }
    }

    /// See [`Caller::post`].
    pub fn post(&self, body: impl Into<Vec<u8>>) -> Call {
        self.caller.post(body)
    }

    /// See [`Caller::webhook`].
    pub fn webhook(&self, webhook: &str) -> Call {
        self.caller.webhook(webhook)
    }

    /// Sends bytes over a connection of their own; counts as one request.
    pub async fn raw(&self, request: impl AsRef<[u8]>) -> Reply {
        self.caller.counts().sent.fetch_add(1, Ordering::Relaxed);
        raw(self.hookgate.address(), request).await
    }

    /// Replaces the file of the file source in one step.
    pub fn replace_documents(&self, documents: &Documents) {
        self.replace_documents_text(&documents.to_json());
    }

    /// Like [`App::replace_documents`], with any string.
    pub fn replace_documents_text(&self, text: &str) {
        let new = self.files.write("workflows.json.new", text);
        std::fs::rename(new, self.documents_file()).expect("both are in the test's own directory");
    }

    /// Makes Hookgate panic once, when it next reaches this failpoint.
    pub fn panic_at(&self, place: &str) {
        self.files.write(&format!("{FAILPOINTS}/{place}"), "");
    }

    pub fn documents_file(&self) -> PathBuf {
        self.files.join("workflows.json")
    }

    /// Waits until `count` requests are in flight. With one worker, their permits and bytes are
    /// then held before the worker reads another request.
    pub async fn in_flight(&self, count: usize) {
        until(&format!("{count} requests are in flight"), async || {
            self.hookgate.metrics().await.sum("hookgate_requests_in_flight") >= count as f64
        })
        .await;
    }

    /// Asserts that every request that was sent is counted under exactly one code.
    ///
    /// A request is counted at the latest when its answer has been sent, so the last one may show a
    /// moment later.
    pub async fn assert_accounting(&self) {
        let counts = self.caller.counts();
        let sent = counts.sent.load(Ordering::Relaxed);
        let answered = sent - counts.unanswered.load(Ordering::Relaxed);
        let counted = async || self.hookgate.metrics().await.sum("hookgate_requests_total");
        until(&format!("{answered} requests are counted"), async || {
            counted().await >= answered as f64
        })
        .await;
        let counted = counted().await;
        assert!(counted <= sent as f64, "{counted} requests were counted, {sent} were sent");
    }
}

/// The parts that an [`App`] starts with.
#[derive(Debug)]
pub struct Builder {
    config: Config,
    documents: Documents,
    files: Scratch,
    redis: Option<Redis>,
    redis_address: Option<String>,
    surroundings: Surroundings,
    /// The client for TLS, boxed because it is large and every test holds a builder.
    client: Option<Box<ClientBuilder>>,
}

impl Builder {
    pub fn documents(mut self, documents: Documents) -> Self {
        self.documents = documents;
        self
    }

    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Uses this Redis instead of a fresh one without persistence.
    pub fn redis(mut self, redis: Redis) -> Self {
        self.redis = Some(redis);
        self
    }

    /// Uses this address instead of [`Redis::url`], for other spellings of it.
    pub fn redis_address(mut self, address: &str) -> Self {
        self.redis_address = Some(address.to_owned());
        self
    }

    /// Serves TLS with the certificate of this authority; [`App::caller`] trusts it.
    pub fn tls(mut self, authority: &Authority) -> Self {
        self.client = Some(Box::new(authority.client()));
        self.config(|config| {
            config
                .set("server.tls.certificate_file", authority.certificate_file())
                .set("server.tls.key_file", authority.key_file());
        })
    }

    /// Reads this database instead of a file.
    pub fn mongo(self, database: &TestDatabase) -> Self {
        let (uri, name) = (database.uri().to_owned(), database.name().to_owned());
        self.config(|config| {
            config
                .set("triggers.source", "mongodb")
                .set("mongodb.uri", uri)
                .set("mongodb.database", name);
        })
    }

    /// Sets a variable of Hookgate's environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.surroundings.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets `server.listen`; callers connect to `front`, which leads there.
    pub fn listening(mut self, address: &str, front: SocketAddr) -> Self {
        self.surroundings.front = Some(front);
        self.config(|config| {
            config.set("server.listen", address);
        })
    }

    /// Passes a listening socket to the process, as a service manager does.
    pub fn activated_by(mut self, socket: impl Into<OwnedFd>, front: SocketAddr) -> Self {
        self.surroundings.activation = Some(Arc::new(socket.into()));
        self.listening("systemd", front)
    }

    /// The test's own directory.
    pub fn directory(&self) -> &Path {
        self.files.path()
    }

    /// Sets a limit of the system, as `prlimit` spells it: `--nofile=256:256`.
    pub fn limit(mut self, limit: &str) -> Self {
        self.surroundings.limits.push(limit.to_owned());
        self
    }

    /// Runs another build instead of the binary under test.
    pub fn program(mut self, path: &str) -> Self {
        self.surroundings.program.push(path.to_owned());
        self
    }

    /// Starts Hookgate through this command, for example `["nice"]`.
    pub fn started_by(mut self, words: &[&str]) -> Self {
        let words = words.iter().map(|&word| word.to_owned());
        self.surroundings.program = words.chain([text(program())]).collect();
        self
    }

    /// Enables [`App::panic_at`].
    pub fn failpoints(self) -> Self {
        let directory = self.files.join(FAILPOINTS);
        std::fs::create_dir(&directory).expect("the test's own directory");
        self.variable("HOOKGATE_FAILPOINTS", directory.to_str().expect("a path in UTF-8"))
    }

    /// Writes a file that the configuration may name; returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        self.files.write(name, content).to_str().expect("a path in UTF-8").to_owned()
    }

    /// Starts and waits until Hookgate is ready.
    pub async fn start(self) -> App {
        let app = self.launch().await;
        app.hookgate.ready().await;
        app
    }

    /// Starts and waits until the port is open and documents from a file are loaded. The port opens
    /// before Hookgate is ready.
    pub async fn start_unready(self) -> App {
        let app = self.config(open_at_once).launch().await;
        app.hookgate.open().await;
        if app.hookgate.config.text("triggers.source") == "file" {
            until("the file is loaded", async || {
                let (_, report) = app.hookgate.readiness().await;
                let reasons = report["reasons"].to_string();
                !["workflows: ", "users: "].iter().any(|part| reasons.contains(part))
            })
            .await;
        }
        app
    }

    /// Starts and waits until the admin port answers, which is before the port is open.
    pub async fn launch_only(self) -> App {
        self.launch().await
    }

    async fn launch(mut self) -> App {
        let redis = match self.redis.take() {
            Some(redis) => redis,
            None => Redis::start().await,
        };
        let file = self.file("workflows.json", self.documents.to_json());
        self.config.set("triggers.file", file);
        let address = self.redis_address.unwrap_or_else(|| redis.url());
        self.config.set("queue.redis", address);
        let hookgate = Hookgate::start_in(self.config, self.surroundings).await;
        let caller = match self.client {
            Some(client) => Caller::over_tls(hookgate.address(), *client),
            None => Caller::new(hookgate.address()),
        };
        App { hookgate, redis, caller, files: self.files }
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}
