//! A real MongoDB replica set of one member.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Collection, Database};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::documents::Documents;
use super::ports;
use super::process::Process;
use super::scratch::Scratch;
use super::wait::until_some;

/// `mongod`; killed on drop, or with the test process.
#[derive(Debug)]
pub struct Mongo {
    port: u16,
    // Dropped before the directory, in which its log lies.
    process: Process,
    directory: Scratch,
}

impl Mongo {
    /// The one server of this test binary, started on first use.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Mongo> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A server of the test's own, to be killed or frozen.
    pub async fn start() -> Self {
        Self::start_on(ports::free()).await
    }

    /// On a port that was told to somebody before the server is there.
    pub async fn start_on(port: u16) -> Self {
        let directory = Scratch::new("mongo");
        let process = launch(port, &directory);
        let mongo = Self { port, process, directory };
        mongo.initiate().await;
        mongo.writable().await;
        mongo
    }

    /// What goes into `mongodb.uri`.
    pub fn uri(&self) -> String {
        uri(self.port)
    }

    /// The server process, for signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    pub async fn kill9(&self) {
        self.process.kill9().await;
    }

    /// Kills the server if it runs and starts it again, same port and directory.
    pub async fn restart(&mut self) {
        self.process.kill9().await;
        self.process = launch(self.port, &self.directory);
        self.writable().await;
    }

    /// A fresh database, with a client of the running test's own.
    pub async fn database(&self) -> TestDatabase {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name = format!("hookgate_test_{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        let database = self.client().await.database(&name);
        TestDatabase { uri: self.uri(), database }
    }

    /// A client that talks to this member only, whatever the replica set thinks of itself.
    async fn client(&self) -> Client {
        let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port);
        let mut options = ClientOptions::parse(uri).await.expect("a valid uri");
        options.server_selection_timeout = Some(Duration::from_secs(30));
        Client::with_options(options).expect("valid options")
    }

    async fn initiate(&self) {
        let member = doc! { "_id": 0, "host": format!("127.0.0.1:{}", self.port) };
        let command = doc! { "replSetInitiate": { "_id": "rs0", "members": [member] } };
        let admin = self.client().await.database("admin");
        until_some("mongod takes replSetInitiate", async || {
            self.assert_running();
            admin.run_command(command.clone()).await.ok()
        })
        .await;
    }

    async fn writable(&self) {
        let admin = self.client().await.database("admin");
        until_some("mongod is primary", async || {
            self.assert_running();
            let hello = admin.run_command(doc! { "hello": 1 }).await.ok()?;
            hello.get_bool("isWritablePrimary").ok()?.then_some(())
        })
        .await;
    }

    fn assert_running(&self) {
        assert!(self.process.exit_code().is_none(), "mongod ended: {}", self.process.log_text());
    }
}

/// The address of a replica set member on this port, also before it is there.
pub fn uri(port: u16) -> String {
    format!("mongodb://127.0.0.1:{port}/?replicaSet=rs0")
}

/// A database that no other test uses.
#[derive(Debug)]
pub struct TestDatabase {
    uri: String,
    database: Database,
}

impl TestDatabase {
    pub fn uri(&self) -> &str {
        &self.uri
    }

    pub fn name(&self) -> &str {
        self.database.name()
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    pub fn collection(&self, name: &str) -> Collection<Document> {
        self.database.collection(name)
    }

    pub fn workflows(&self) -> Collection<Document> {
        self.collection("workflows")
    }

    pub fn users(&self) -> Collection<Document> {
        self.collection("users")
    }

    /// Adds these documents; both collections exist afterwards.
    pub async fn insert(&self, documents: &Documents) {
        for (name, values) in [("workflows", &documents.workflows), ("users", &documents.users)] {
            // Fails where it exists already.
            let _ = self.database.create_collection(name).await;
            if !values.is_empty() {
                let documents = values.iter().cloned().map(document);
                self.collection(name).insert_many(documents).await.expect("mongod inserts");
            }
        }
    }
}

/// JSON as a document of MongoDB, `{"$oid": …}` and the like included.
pub fn document(json: Value) -> Document {
    match Bson::try_from(json) {
        Ok(Bson::Document(document)) => document,
        other => panic!("not a document: {other:?}"),
    }
}

fn launch(port: u16, directory: &Scratch) -> Process {
    let mut command = Command::new(program());
    command.args([
        "--replSet",
        "rs0",
        "--bind_ip",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--dbpath",
    ]);
    command.arg(directory.path()).args([
        "--nounixsocket",
        "--wiredTigerCacheSizeGB",
        "0.25",
        "--oplogSize",
        "64",
    ]);
    // Fail points for those who test broken streams; no diagnostic files, which only cost time here.
    command.args(["--setParameter", "enableTestCommands=1"]);
    command.args(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
    Process::start("mongod", &command, &directory.join("mongod.log"))
}

/// `$HOOKGATE_TEST_MONGOD`, else the one that `scripts/setup` installs, else the one on the path.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("HOOKGATE_TEST_MONGOD") {
        return path.into();
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/mongod");
    if installed.is_file() {
        return installed;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|directory| directory.join("mongod"));
    found.find(|program| program.is_file()).expect("no mongod: run scripts/setup")
}
