//! The rights that Hookgate needs in MongoDB.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use mongodb::bson::{Document, doc};
use mongodb::{Client, Database};
use serde_json::Value;
use testkit::app::Builder;
use testkit::documents::{user, workflow};
use testkit::hookgate::check_connect;
use testkit::mongo::{document, program};
use testkit::process::Process;
use testkit::scratch::Scratch;
use testkit::wait::{until, until_some};
use testkit::{App, Documents, ports};

const DATABASE: &str = "engine";

#[tokio::test]
async fn find_and_change_stream_on_two_collections_suffice() {
    let server = Guarded::start().await;
    let database = server.with_documents().await;
    let secret = database.collection::<Document>("secret");
    secret.insert_one(doc! { "_id": 1 }).await.expect("inserted");
    server.create_user(&database, &["reader"]).await;
    let app = server.app().start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let new = document(workflow("wf_new", "org_a", "wh_new"));
    database.collection("workflows").insert_one(new).await.expect("inserted");
    until("the new workflow matches", async || app.webhook("wh_new").send().await.has_matched(1))
        .await;
    let new = document(user("user_new", "org_a", "key_new"));
    database.collection("users").insert_one(new).await.expect("inserted");
    until("the new key is accepted", async || {
        app.webhook("wh_1").bearer("key_new").send().await.status == 202
    })
    .await;
    let (_, report) = app.hookgate.readiness().await;
    assert!(!report.to_string().contains("workflows"), "{report}");
    assert!(!app.hookgate.log().contains("reader@"), "the log contains no password");
}

#[tokio::test]
async fn missing_rights_are_reported_until_they_are_granted() {
    let server = Guarded::start().await;
    let database = server.with_documents().await;
    server.create_user(&database, &[]).await;
    let app = server.app().start_unready().await;
    app.hookgate.unready().await;
    until("the reason is reported", async || {
        let (_, report) = app.hookgate.readiness().await;
        let reasons = report["reasons"].to_string();
        reasons.contains("workflows: not loaded") && reasons.contains("not authorized")
    })
    .await;
    app.webhook("wh_1").send().await.assert_rejected(503, "index_unavailable");
    let (code, report) = check_connect(&app.hookgate.config).await;
    assert_eq!(code, 1, "{report}");
    let faults = report["mongodb"]["faults"].as_array().expect("a list");
    let expected = ["workflows", "users"].into_iter().flat_map(|collection| {
        ["changeStream", "find"].map(|right| format!("collection {collection} ({right}): "))
    });
    for (fault, expected) in faults.iter().zip(expected) {
        let fault = fault.as_str().expect("a string");
        assert!(fault.starts_with(&expected), "{expected}: {fault}");
        assert!(fault.ends_with("not authorized on engine"), "{fault}");
    }
    assert_eq!(faults.len(), 4, "{report}");
    let grant = doc! { "grantRolesToUser": "hookgate", "roles": ["reader"] };
    database.run_command(grant).await.expect("granted");
    app.hookgate.ready().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let (code, report) = check_connect(&app.hookgate.config).await;
    assert_eq!((code, &report["mongodb"]["workflows"]["documents"]), (0, &Value::from(2)));
}

#[tokio::test]
async fn revoked_and_restored_rights_lose_no_change() {
    let server = Guarded::start().await;
    let database = server.with_documents().await;
    server.create_user(&database, &["reader"]).await;
    let app = server.app().start().await;
    let all = doc! { "role": "reader", "db": DATABASE };
    let revoke = doc! { "revokeRolesFromUser": "hookgate", "roles": [&all] };
    let grant = doc! { "grantRolesToUser": "hookgate", "roles": [&all] };
    let drop_user = doc! { "dropUser": "hookgate" };
    let create = doc! { "createUser": "hookgate", "pwd": "reader", "roles": ["reader"] };
    for (round, (take, give)) in [(revoke, grant), (drop_user, create)].into_iter().enumerate() {
        database.run_command(take).await.expect("revoked");
        degraded(&app, true).await;
        let id = format!("wf_new_{round}");
        let new = document(workflow(&id, "org_a", &format!("wh_new_{round}")));
        let workflows = database.collection("workflows");
        workflows.insert_one(new).await.expect("inserted");
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "the last index serves");
        app.hookgate.ready().await;

        database.run_command(give).await.expect("given back");
        until("the change is followed", async || {
            app.webhook(&format!("wh_new_{round}")).send().await.has_matched(1)
        })
        .await;
        degraded(&app, false).await;
        workflows.delete_one(doc! { "_id": id }).await.expect("deleted");
        until("the stream is followed again", async || {
            app.webhook(&format!("wh_new_{round}")).send().await.has_matched(0)
        })
        .await;
    }
    assert!(!app.hookgate.log().contains("reader@"), "the log contains no password");
    app.assert_accounting().await;
}

/// Waits until both collections are degraded, or neither is.
async fn degraded(app: &App, expected: bool) {
    for part in ["workflows", "users"] {
        until(&format!("{part} are degraded: {expected}"), async || {
            let (_, report) = app.hookgate.readiness().await;
            let notes = report.get("degraded").and_then(Value::as_array).expect("a list");
            let mut texts = notes.iter().filter_map(Value::as_str);
            texts.any(|note| note.starts_with(part)) == expected
        })
        .await;
    }
}

/// A `mongod` with authentication.
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
        std::fs::set_permissions(&key, private).expect("the test's own file");
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

    /// Creates the two collections, and a role that may follow them.
    async fn with_documents(&self) -> Database {
        let documents = Documents::two_organizations();
        let database = self.owner().await.database(DATABASE);
        for (name, values) in [("workflows", documents.workflows), ("users", documents.users)] {
            let values = values.into_iter().map(document);
            database.collection(name).insert_many(values).await.expect("inserted");
        }
        let privilege = |collection: &str| {
            let resource = doc! { "db": DATABASE, "collection": collection };
            doc! { "resource": resource, "actions": ["find", "changeStream"] }
        };
        let privileges = [privilege("workflows"), privilege("users")];
        let role = doc! { "createRole": "reader", "privileges": privileges.to_vec(), "roles": [] };
        database.run_command(role).await.expect("a role");
        database
    }

    async fn create_user(&self, database: &Database, roles: &[&str]) {
        let user = doc! { "createUser": "hookgate", "pwd": "reader", "roles": roles };
        database.run_command(user).await.expect("a user");
    }

    fn app(&self) -> Builder {
        let uri = self.uri("hookgate:reader@", &format!("replicaSet=rs0&authSource={DATABASE}"));
        App::build().config(|config| {
            config.set("triggers.source", "mongodb").set("mongodb.uri", uri);
            config.set("mongodb.database", DATABASE);
        })
    }

    /// Connects before the first user exists, when no credentials are needed.
    async fn initiate(&self) {
        let admin = self.admin("").await;
        let member = doc! { "_id": 0, "host": format!("127.0.0.1:{}", self.port) };
        let initiate = doc! { "replSetInitiate": { "_id": "rs0", "members": [member] } };
        until_some("mongod takes replSetInitiate", async || {
            admin.run_command(initiate.clone()).await.ok()
        })
        .await;
        let owner = doc! { "createUser": "owner", "pwd": "owner", "roles": ["root"] };
        until_some("mongod accepts its first user", async || {
            admin.run_command(owner.clone()).await.ok()
        })
        .await;
    }

    async fn owner(&self) -> Client {
        self.admin("owner:owner@").await.client().clone()
    }

    async fn admin(&self, user: &str) -> Database {
        let uri = self.uri(user, "directConnection=true");
        Client::with_uri_str(uri).await.expect("a valid uri").database("admin")
    }

    fn uri(&self, user: &str, options: &str) -> String {
        format!("mongodb://{user}127.0.0.1:{}/?{options}", self.port)
    }
}
