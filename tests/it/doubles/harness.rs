//! Tests of the harness, on which all other tests rely.


use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use testkit::config::SECRET;
use testkit::keys::{KeyPair, octet_jwk};
use testkit::metrics::Metrics;
use testkit::mongo::Mongo;
use testkit::process::Process;
use testkit::scratch::Scratch;
use testkit::tokens::{ALGORITHMS, claims, is_hmac, sign};
use testkit::wait::until;
use testkit::{Config, Redis, ports};
use mongodb::bson::doc;
use redis::cmd;
use socket2::{Domain, Socket, Type};

#[tokio::test]
async fn a_durable_redis_keeps_its_data_across_a_kill() {
    let mut redis = Redis::start_durable().await;
    let () = redis
        .query(cmd("HSET").arg("bull:workflow-runner:7").arg("data").arg(&b"{\"a\":1}"[..]))
        .await;
    let () = redis.query(cmd("LPUSH").arg("bull:workflow-runner:wait").arg("7")).await;

    redis.kill9().await;
    assert_eq!(redis.process().exit_code(), Some(128 + 9));
    redis.restart().await;

    let job = redis.queue().only_job().await;
    assert_eq!((job.id.as_str(), job.data_text()), ("7", "{\"a\":1}"));
    assert_eq!(redis.queue().hash_ids().await.into_iter().collect::<Vec<_>>(), ["7"]);
}

#[tokio::test]
async fn a_frozen_redis_answers_nothing_until_it_is_thawed() {
    let redis = Redis::start().await;
    redis.freeze();
    let command = cmd("PING");
    let mut answer = std::pin::pin!(redis.query::<String>(&command));
    assert!(tokio::time::timeout(Duration::from_millis(200), answer.as_mut()).await.is_err());
    redis.thaw();
    assert_eq!(answer.await, "PONG");
}

#[test]
fn a_port_belongs_to_one_server_until_the_process_ends() {
    let port = ports::free();
    assert_ne!(port, ports::free());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for _ in 0..2 {
        let refused = std::net::TcpStream::connect(address).expect_err("nothing listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let in_use = other.bind(&address.into()).expect_err("the port is held");
        assert_eq!(in_use.kind(), ErrorKind::AddrInUse);
        // Servers bind with SO_REUSEADDR; the first one has closed the port before the second binds
        // it.
        let server = TcpListener::bind(address).expect("the port is held for a server");
        let second = TcpListener::bind(address).expect_err("the port is in use");
        assert_eq!(second.kind(), ErrorKind::AddrInUse);
        drop(server);
    }
}

#[tokio::test]
async fn mongodb_has_change_streams_and_a_database_per_test() {
    let mongo = Mongo::shared().await;
    let (one, other) = (mongo.database().await, mongo.database().await);
    assert_ne!(one.name(), other.name());
    let mut stream = one.workflows().watch().await.expect("a replica set");
    one.workflows().insert_one(doc! { "_id": "wf_1" }).await.expect("a primary");
    let event = stream.next_if_any().await.expect("a stream");
    assert!(event.is_some() || stream.next_if_any().await.expect("a stream").is_some());
}

#[tokio::test]
async fn a_dropped_process_is_killed() {
    let scratch = Scratch::new("sleep");
    let mut command = Command::new("sleep");
    command.arg("600");
    let process = Process::start("sleep", &command, &scratch.join("log"));
    let pid = process.pid();
    assert!(lives(pid));
    drop(process);
    until("the process has ended", async || !lives(pid)).await;
}

#[tokio::test]
async fn the_exit_code_is_that_of_the_process() {
    let scratch = Scratch::new("sh");
    let mut command = Command::new("sh");
    command.args(["-c", "echo $GREETING; echo twice >&2; exit 7"]).env("GREETING", "hello");
    let process = Process::start("sh", &command, &scratch.join("log"));
    assert_eq!(process.wait().await, 7);
    assert_eq!(process.log_text(), "hello\ntwice\n");
}

#[test]
fn configuration_keys_are_set_by_path() {
    let mut config = Config::parse("[queue]\nname = \"a\"");
    config.set("queue.job.attempts", 5).set("queue.name", "b").remove("queue.absent.key");
    assert_eq!(config.text("queue.name"), "b");
    assert!(config.to_string().contains("[queue.job]\nattempts = 5"));
}

#[test]
fn metrics_are_parsed_with_their_labels() {
    let metrics =
        Metrics::parse("# HELP a b\na{x=\"1\",y=\"q\\\"}\"} 2\na{x=\"2\",y=\"\"} 3.5\nb 1e3\n");
    assert!((metrics.value("a", &[("y", "q\\\"}"), ("x", "1")]) - 2.0).abs() < f64::EPSILON);
    assert!((metrics.sum("a") - 5.5).abs() < f64::EPSILON);
    assert!((metrics.value("b", &[]) - 1000.0).abs() < f64::EPSILON);
    assert_eq!(metrics.get("a", &[]), None);
}

#[test]
fn every_algorithm_has_keys_tokens_and_jwks() {
    for algorithm in ALGORITHMS {
        if is_hmac(algorithm) {
            assert_eq!(octet_jwk(SECRET, "HS256", "k")["kty"], "oct");
            continue;
        }
        let keys = KeyPair::for_algorithm(algorithm);
        let token = sign(&claims("org_a", "user_1"), algorithm, &keys.encoding_key(algorithm));
        assert_eq!(token.split('.').count(), 3, "{algorithm:?}");
        assert!(keys.jwk(algorithm, "k1")["kty"].is_string(), "{algorithm:?}");
    }
}

fn lives(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    status.is_ok_and(|status| !status.contains(") Z "))
}
