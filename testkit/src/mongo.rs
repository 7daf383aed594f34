//! A real MongoDB: a replica set of one member, a member of a larger set, or a standalone server.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Collection, Database};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::documents::Documents;
use super::network::Node;
use super::ports;
use super::process::Process;
use super::scratch::Scratch;
use super::wait::{until, until_some};

/// The port of a server on a node of its own.
const PORT: u16 = 27017;

/// `mongod`; killed on drop, or with the test process.
#[derive(Debug)]
pub struct Mongo {
    /// Where it runs, if not on this machine itself.
    node: Option<Node>,
    port: u16,
    // Dropped before the directory that holds its log.
    process: Process,
    directory: Scratch,
}

impl Mongo {
    /// The one server of this test binary, started on first use.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Mongo> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A server of the test's own, which it may kill or freeze.
    pub async fn start() -> Self {
        Self::start_on(ports::free()).await
    }

    /// A server on a port that the test has given out before.
    pub async fn start_on(port: u16) -> Self {
        Self::start_uninitiated(port).initiated().await
    }

    /// A server with a cache of this many gigabytes, for data that the default cache is too small
    /// for.
    pub async fn start_with_cache(gigabytes: u8) -> Self {
        Self::launched(ports::free(), &MEMBER, &gigabytes.to_string()).initiated().await
    }

    async fn initiated(self) -> Self {
        self.initiate(&[self.port]).await;
        self.writable().await;
        self
    }

    /// A member of a replica set that does not exist yet.
    pub fn start_uninitiated(port: u16) -> Self {
        Self::launched(port, &MEMBER, CACHE)
    }

    /// A standalone server.
    pub async fn start_standalone(port: u16) -> Self {
        let mongo = Self::launched(port, &[], CACHE);
        mongo.writable().await;
        mongo
    }

    /// A server on the usual port of a node, which only nodes of that network reach.
    pub async fn start_in(node: &Node) -> Self {
        Self::launched_at(Some(node.clone()), PORT, &MEMBER, CACHE).initiated().await
    }

    fn launched(port: u16, options: &[&str], cache: &str) -> Self {
        Self::launched_at(None, port, options, cache)
    }

    fn launched_at(node: Option<Node>, port: u16, options: &[&str], cache: &str) -> Self {
        let directory = Scratch::new("mongo");
        let process = launch(node.as_ref(), port, &directory, options, cache);
        Self { node, port, process, directory }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for `mongodb.uri`.
    pub fn uri(&self) -> String {
        uri_of(self.host(), self.port)
    }

    fn host(&self) -> Ipv4Addr {
        self.node.as_ref().map_or(Ipv4Addr::LOCALHOST, Node::address)
    }

    /// The server process, for signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    pub async fn kill9(&self) {
        self.process.kill9().await;
    }

    /// Sends SIGSTOP: connections stay open, and nothing is answered.
    pub fn freeze(&self) {
        self.process.signal("STOP");
    }

    pub fn thaw(&self) {
        self.process.signal("CONT");
    }

    /// Kills the server and starts it with the same data as a standalone server.
    pub async fn restart_alone(&mut self) {
        self.process.kill9().await;
        self.process = launch(self.node.as_ref(), self.port, &self.directory, &[], CACHE);
        self.writable().await;
    }

    /// Kills the server if it runs and starts it again with the same port and directory.
    pub async fn restart(&mut self) {
        self.restart_as_member(&[]).await;
        self.writable().await;
    }

    /// Like [`Mongo::restart`], as a member of a replica set and with further options. Does not
    /// wait for it to be primary.
    pub async fn restart_as_member(&mut self, options: &[&str]) {
        self.process.kill9().await;
        let options: Vec<&str> = MEMBER.into_iter().chain(options.iter().copied()).collect();
        self.process = launch(self.node.as_ref(), self.port, &self.directory, &options, CACHE);
    }

    /// A fresh database, with a client of the running test's own.
    pub async fn database(&self) -> TestDatabase {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name = format!("hookgate_test_{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        self.database_named(&name).await
    }

    pub async fn database_named(&self, name: &str) -> TestDatabase {
        let database = self.client().await.database(name);
        TestDatabase { uri: self.uri(), database }
    }

    /// A client that uses this member only, whatever the replica set's configuration says.
    pub async fn client(&self) -> Client {
        let uri = format!("mongodb://{}:{}/?directConnection=true", self.host(), self.port);
        let mut options = ClientOptions::parse(uri).await.expect("a valid uri");
        options.server_selection_timeout = Some(Duration::from_secs(30));
        Client::with_options(options).expect("valid options")
    }

    /// Initiates a replica set of the servers on these ports, which include this one.
    pub async fn initiate(&self, ports: &[u16]) {
        let host = self.host();
        let member = |(id, port)| doc! { "_id": id, "host": format!("{host}:{port}") };
        let members: Vec<Document> = (0..).zip(ports).map(member).collect();
        // Members of larger sets elect a new primary in one or two seconds instead of ten.
        let settings = doc! { "electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200 };
        let set = doc! { "_id": "rs0", "members": members, "settings": settings };
        let command = doc! { "replSetInitiate": set };
        let admin = self.client().await.database("admin");
        until_some("mongod takes replSetInitiate", async || {
            self.assert_running();
            admin.run_command(command.clone()).await.ok()
        })
        .await;
    }

    /// A server whose oplog is truncated after each second's checkpoint, not after each minute's.
    pub async fn start_with_short_oplog() -> Self {
        let mut mongo = Self::start().await;
        mongo.restart_as_member(&["--syncdelay", "1"]).await;
        mongo.writable().await;
        mongo
    }

    /// Writes until the oplog holds none of the earlier writes.
    pub async fn roll_oplog(&self) {
        let client = self.client().await;
        let oplog = client.database("local").collection::<Document>("oplog.rs");
        // Reads no entry if the oldest one is removed during the read.
        let at = async |end: i32| {
            let entry = oplog.find_one(doc! {}).sort(doc! { "$natural": end }).await.ok().flatten();
            entry.and_then(|entry| entry.get_timestamp("ts").ok())
        };
        let newest = until_some("the oplog is read", async || at(-1).await).await;
        let noise = client.database("noise").collection::<Document>("noise");
        let megabyte = "x".repeat(1 << 20);
        until("the oplog holds no earlier write", async || {
            noise.insert_many((0..16).map(|_| doc! { "text": &megabyte })).await.expect("inserted");
            at(1).await > Some(newest)
        })
        .await;
    }

    /// Waits until the server accepts writes.
    pub async fn writable(&self) {
        let admin = self.client().await.database("admin");
        until_some("mongod is primary", async || {
            self.assert_running();
            reports_primary(&admin).await.then_some(())
        })
        .await;
    }

    /// Whether it accepts writes now.
    pub async fn is_writable(&self) -> bool {
        reports_primary(&self.client().await.database("admin")).await
    }

    fn assert_running(&self) {
        assert!(self.process.exit_code().is_none(), "mongod ended: {}", self.process.log_text());
    }
}

async fn reports_primary(admin: &Database) -> bool {
    let hello = admin.run_command(doc! { "hello": 1 }).await;
    hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or_default())
}

/// The address of a replica set member on this port; the server may not run yet.
pub fn uri(port: u16) -> String {
    uri_of(Ipv4Addr::LOCALHOST, port)
}

fn uri_of(host: Ipv4Addr, port: u16) -> String {
    format!("mongodb://{host}:{port}/?replicaSet=rs0")
}

/// A database that no other test uses.
#[derive(Debug)]
pub struct TestDatabase {
    uri: String,
    database: Database,
}

impl TestDatabase {
    /// A database of the server or set with this address.
    pub fn new(uri: &str, database: Database) -> Self {
        Self { uri: uri.to_owned(), database }
    }

    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The database of this name on another server.
    pub async fn on(&self, mongo: &Mongo) -> Self {
        Self { uri: mongo.uri(), database: mongo.client().await.database(self.name()) }
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

    /// Renames a collection and replaces any that has the new name.
    pub async fn rename(&self, from: &str, to: &str) {
        let name = |collection: &str| format!("{}.{collection}", self.name());
        let command = doc! { "renameCollection": name(from), "to": name(to), "dropTarget": true };
        let admin = self.database.client().database("admin");
        admin.run_command(command).await.expect("renamed");
    }

    /// Adds these documents; both collections exist afterwards.
    pub async fn insert(&self, documents: &Documents) {
        for (name, values) in [("workflows", &documents.workflows), ("users", &documents.users)] {
            // Fails if the collection exists.
            let _ = self.database.create_collection(name).await;
            if !values.is_empty() {
                let documents = values.iter().cloned().map(document);
                self.collection(name).insert_many(documents).await.expect("mongod inserts");
            }
        }
    }
}

/// JSON as a document of MongoDB, including `{"$oid": …}` and the like.
pub fn document(json: Value) -> Document {
    match Bson::try_from(json) {
        Ok(Bson::Document(document)) => document,
        other => panic!("not a document: {other:?}"),
    }
}

/// Options of a member of a replica set.
const MEMBER: [&str; 2] = ["--replSet", "rs0"];

/// In gigabytes; small, because many servers run at a time.
const CACHE: &str = "0.25";

fn launch(
    node: Option<&Node>,
    port: u16,
    directory: &Scratch,
    options: &[&str],
    cache: &str,
) -> Process {
    let program = program();
    let mut command = node.map_or_else(|| Command::new(&program), |node| node.command(&program));
    let host = node.map_or(Ipv4Addr::LOCALHOST, Node::address).to_string();
    command.args(["--bind_ip", &host, "--nounixsocket", "--port", &port.to_string()]);
    command.arg("--dbpath").arg(directory.path());
    command.args(["--wiredTigerCacheSizeGB", cache, "--oplogSize", "64"]);
    // Fail points for tests that break streams; no diagnostic files, which only take time here.
    command.args(["--setParameter", "enableTestCommands=1"]);
    command.args(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
    command.args(options);
    Process::start("mongod", &command, &directory.join("mongod.log"))
}

/// The program: `$HOOKGATE_TEST_MONGOD`, else the one that `scripts/setup` installs, else the one
/// on the path.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("HOOKGATE_TEST_MONGOD") {
        return path.into();
    }
    let installed = super::root().join(".tools/mongod");
    if installed.is_file() {
        return installed;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|directory| directory.join("mongod"));
    found.find(|program| program.is_file()).expect("no mongod: run scripts/setup")
}
