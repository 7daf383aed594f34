//! How little MongoDB has to allow.

mod harness;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use harness::documents::{user, workflow};
use harness::mongo::{document, program};
use harness::process::Process;
use harness::scratch::Scratch;
use harness::wait::{until, until_some};
use harness::{App, Documents, ports};
use mongodb::bson::{Document, doc};
use mongodb::{Client, Database};

const DATABASE: &str = "engine";

#[tokio::test]
async fn find_and_change_stream_on_two_collections_are_enough() {
    let server = Guarded::start().await;
    let documents = Documents::two_organizations();
    let database = server.owner().await.database(DATABASE);
    for (name, values) in [("workflows", documents.workflows), ("users", documents.users)] {
        let values = values.into_iter().map(document);
        database.collection(name).insert_many(values).await.expect("inserted");
    }
    let secret = database.collection::<Document>("secret");
    secret.insert_one(doc! { "_id": 1 }).await.expect("inserted");
    let privilege = |collection: &str| {
        let resource = doc! { "db": DATABASE, "collection": collection };
        doc! { "resource": resource, "actions": ["find", "changeStream"] }
    };
    let privileges = [privilege("workflows"), privilege("users")];
    let role = doc! { "createRole": "reader", "privileges": privileges.to_vec(), "roles": [] };
    database.run_command(role).await.expect("a role");
    let reader = doc! { "createUser": "hookgate", "pwd": "reader", "roles": ["reader"] };
    database.run_command(reader).await.expect("a user");

    let uri = server.uri("hookgate:reader@", &format!("replicaSet=rs0&authSource={DATABASE}"));
    let app = App::build()
        .config(|config| {
            config.set("triggers.source", "mongodb").set("mongodb.uri", uri);
            config.set("mongodb.database", DATABASE);
        })
        .start()
        .await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let new = document(workflow("wf_new", "org_a", "wh_new"));
    database.collection("workflows").insert_one(new).await.expect("inserted");
    until("the new workflow is known", async || app.webhook("wh_new").send().await.matched() == 1)
        .await;
    let new = document(user("user_new", "org_a", "key_new"));
    database.collection("users").insert_one(new).await.expect("inserted");
    until("the new key is known", async || {
        app.webhook("wh_1").bearer("key_new").send().await.status == 202
    })
    .await;
    let (_, report) = app.hookgate.readiness().await;
    assert!(!report.to_string().contains("workflows"), "{report}");
    assert!(!app.hookgate.log().contains("reader@"), "no password in the log");
}

/// `mongod` that asks who one is.
struct Guarded {
    port: u16,
    _process: Process,
    _directory: Scratch,
}

impl Guarded {
    async fn start() -> Self {
        let (port, directory) = (ports::free(), Scratch::new("guarded"));
        let key = directory.write("key", "c29tZSBrZXkgb2YgdGhlIG1lbWJlcnM=");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&key, private).expect("our own file");
        let mut command = Command::new(program());
        command.args(["--replSet", "rs0", "--bind_ip", "127.0.0.1", "--nounixsocket"]);
        command.args(["--port", &port.to_string(), "--wiredTigerCacheSizeGB", "0.25"]);
        command.args(["--oplogSize", "64", "--setParameter"]);
        command.arg("diagnosticDataCollectionEnabled=false");
        command.arg("--dbpath").arg(directory.path()).arg("--keyFile").arg(key);
        let process = Process::start("mongod", &command, &directory.join("mongod.log"));
        let server = Self { port, _process: process, _directory: directory };
        server.initiate().await;
        server
    }

    /// As the first of all, who needs no name yet.
    async fn initiate(&self) {
        let admin = self.admin("").await;
        let member = doc! { "_id": 0, "host": format!("127.0.0.1:{}", self.port) };
        let initiate = doc! { "replSetInitiate": { "_id": "rs0", "members": [member] } };
        until_some("mongod takes replSetInitiate", async || {
            admin.run_command(initiate.clone()).await.ok()
        })
        .await;
        let owner = doc! { "createUser": "owner", "pwd": "owner", "roles": ["root"] };
        until_some("mongod takes its first user", async || {
            admin.run_command(owner.clone()).await.ok()
        })
        .await;
    }

    async fn owner(&self) -> Client {
        self.admin("owner:owner@").await.client().clone()
    }

    async fn admin(&self, who: &str) -> Database {
        let uri = self.uri(who, "directConnection=true");
        Client::with_uri_str(uri).await.expect("a valid uri").database("admin")
    }

    fn uri(&self, who: &str, options: &str) -> String {
        format!("mongodb://{who}127.0.0.1:{}/?{options}", self.port)
    }
}
