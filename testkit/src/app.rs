//! The whole: Redis, documents and Hookgate, wired together.

use std::path::{Path, PathBuf};
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

/// Where files are that ask Hookgate to panic.
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
    /// Two organizations from a file (see [`Documents::two_organizations`]), everything else as shipped.
    pub async fn start() -> Self {
        Self::build().start().await
    }

    /// As [`App::start`], with changes to the configuration.
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

    /// Sends bytes on a connection of their own; counts as one request.
    pub async fn raw(&self, request: impl AsRef<[u8]>) -> Reply {
        self.caller.counts().sent.fetch_add(1, Ordering::Relaxed);
        raw(self.hookgate.address(), request).await
    }

    /// Replaces what the file source reads, in one step.
    pub fn replace_documents(&self, documents: &Documents) {
        self.replace_documents_text(&documents.to_json());
    }

    /// As [`App::replace_documents`], with any text.
    pub fn replace_documents_text(&self, text: &str) {
        let new = self.files.write("workflows.json.new", text);
        std::fs::rename(new, self.documents_file()).expect("both in our own directory");
    }

    /// Has Hookgate panic once when it next comes by this place in its code.
    pub fn panic_at(&self, place: &str) {
        self.files.write(&format!("{FAILPOINTS}/{place}"), "");
    }

    pub fn documents_file(&self) -> PathBuf {
        self.files.join("workflows.json")
    }

    /// Waits until so many requests have begun and not ended. With one worker, what these hold is then held before another
    /// request is looked at.
    pub async fn in_flight(&self, count: usize) {
        until(&format!("{count} requests are in flight"), async || {
            self.hookgate.metrics().await.sum("hookgate_requests_in_flight") >= count as f64
        })
        .await;
    }

    /// The sum identity: every request that was sent is counted under exactly one code.
    ///
    /// A request is counted at the latest when its answer has gone out, so the last one may show a moment later.
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

/// What an [`App`] starts with.
#[derive(Debug)]
pub struct Builder {
    config: Config,
    documents: Documents,
    files: Scratch,
    redis: Option<Redis>,
    redis_address: Option<String>,
    surroundings: Surroundings,
    /// For TLS. On the heap: it is large, and every test holds one.
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

    /// In place of a fresh Redis without persistence.
    pub fn redis(mut self, redis: Redis) -> Self {
        self.redis = Some(redis);
        self
    }

    /// In place of [`Redis::url`], for other spellings of it.
    pub fn redis_address(mut self, address: &str) -> Self {
        self.redis_address = Some(address.to_owned());
        self
    }

    /// Speaks TLS with the certificate of this authority, and so does [`App::caller`].
    pub fn tls(mut self, authority: &Authority) -> Self {
        self.client = Some(Box::new(authority.client()));
        self.config(|config| {
            config
                .set("server.tls.certificate_file", authority.certificate_file())
                .set("server.tls.key_file", authority.key_file());
        })
    }

    /// Reads this database in place of a file.
    pub fn mongo(self, database: &TestDatabase) -> Self {
        let (uri, name) = (database.uri().to_owned(), database.name().to_owned());
        self.config(|config| {
            config
                .set("triggers.source", "mongodb")
                .set("mongodb.uri", uri)
                .set("mongodb.database", name);
        })
    }

    /// A variable of Hookgate's environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.surroundings.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A limit of the system, as `prlimit` takes it: `--nofile=256:256`.
    pub fn limit(mut self, limit: &str) -> Self {
        self.surroundings.limits.push(limit.to_owned());
        self
    }

    /// In place of the binary under test: another build of it.
    pub fn program(mut self, path: &str) -> Self {
        self.surroundings.program.push(path.to_owned());
        self
    }

    /// Starts Hookgate by these words, which go before its own: `["nice"]`.
    pub fn started_by(mut self, words: &[&str]) -> Self {
        let words = words.iter().map(|&word| word.to_owned());
        self.surroundings.program = words.chain([text(program())]).collect();
        self
    }

    /// Lets [`App::panic_at`] work.
    pub fn failpoints(self) -> Self {
        let directory = self.files.join(FAILPOINTS);
        std::fs::create_dir(&directory).expect("our own directory");
        self.variable("HOOKGATE_FAILPOINTS", directory.to_str().expect("a path of text"))
    }

    /// A file that the configuration may name; gives its path as text.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        self.files.write(name, content).to_str().expect("a path of text").to_owned()
    }

    /// Starts and waits until ready.
    pub async fn start(self) -> App {
        let app = self.launch().await;
        app.hookgate.ready().await;
        app
    }

    /// Starts and waits until its port is open, which it is before it is ready, and documents from a file are loaded.
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
    path.to_str().expect("a path of text").to_owned()
}
