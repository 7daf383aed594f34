//! `hookgate check --connect`: what it finds in MongoDB, good and bad.

mod harness;

use std::path::Path;
use std::process::{Command, Output};

use harness::mongo::{TestDatabase, program};
use harness::process::Process;
use harness::scratch::Scratch;
use harness::wait::until;
use harness::{Config, Documents, Mongo, hookgate, mongo, ports};
use mongodb::bson::doc;

#[tokio::test]
async fn it_tells_what_there_is_and_what_would_be_left_out() {
    let mongo = Mongo::shared().await;
    let database = mongo.database().await;
    database.insert(&Documents::two_organizations()).await;
    let broken = doc! { "_id": "wf_broken", "organizationId": "org_a", "nodes": "none" };
    database.workflows().insert_one(broken).await.expect("inserted");
    let (code, text) = check(&configuration(&database)).await;
    assert_eq!(code, 0, "{text}");
    for line in [
        "version 6.0.5",
        "replica set          rs0",
        "workflows            3 documents, 1 left out",
        "wf_broken: nodes is not an array",
        "users                2 documents, 0 left out",
    ] {
        assert!(text.contains(line), "{line} in:\n{text}");
    }
}

#[tokio::test]
async fn a_collection_that_is_missing_is_told() {
    let database = Mongo::shared().await.database().await;
    let (code, text) = check(&configuration(&database)).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("workflows            does not exist"), "{text}");
}

#[tokio::test]
async fn a_server_that_is_in_no_replica_set_is_told() {
    let (port, directory) = (ports::free(), Scratch::new("standalone"));
    let mut command = Command::new(program());
    command.args(["--port", &port.to_string(), "--bind_ip", "127.0.0.1", "--dbpath"]);
    command.arg(directory.path());
    let _mongod = Process::start("mongod", &command, &directory.join("mongod.log"));
    let mut config = base();
    config.set("mongodb.uri", format!("mongodb://127.0.0.1:{port}/?directConnection=true"));
    until("mongod answers", async || check(&config).await.1.contains("version")).await;
    let (code, text) = check(&config).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("replica set          none"), "{text}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told() {
    let mut config = base();
    config.set("mongodb.uri", mongo::uri(ports::free()));
    let (code, text) = check(&config).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("mongodb              cannot be used: "), "{text}");
}

fn base() -> Config {
    let mut config = Config::new();
    config.set("triggers.source", "mongodb").set("queue.redis", "redis://127.0.0.1:1/0");
    config
}

fn configuration(database: &TestDatabase) -> Config {
    let mut config = base();
    config.set("mongodb.uri", database.uri()).set("mongodb.database", database.name());
    config
}

async fn check(config: &Config) -> (i32, String) {
    let directory = Scratch::new("check");
    let file = directory.write("hookgate.toml", config.to_string());
    let output = tokio::task::spawn_blocking(move || run(&file)).await.expect("no panic");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.code().expect("it exits"), text)
}

fn run(file: &Path) -> Output {
    hookgate::run(&["check", "--connect", "--config", file.to_str().expect("a path of text")])
}
