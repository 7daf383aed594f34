//! The reasons why servers cannot be used: names, ports, authorities, and addresses with wrong
//! options.

use rcgen::PKCS_ECDSA_P256_SHA256;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use testkit::scratch::Scratch;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Config, Mongo, Redis, hookgate, ports};

/// Fragments of Rust's debug output.
const DEBUG_OUTPUT: [&str; 6] = ["Custom {", "kind: ", "labels: ", "Kind: ", "Some(", "Error {"];

/// A certificate for 127.0.0.1, its key and its authority in files, and servers that use them.
struct Tls {
    files: Scratch,
}

impl Tls {
    fn new() -> Self {
        let authority = Authority::new();
        let files = Scratch::new("servers");
        let identity = authority.issue();
        files.write("chain.pem", &identity.chain_pem);
        files.write("key.pem", &identity.key_pem);
        files.write("identity.pem", identity.key_pem + &identity.chain_pem);
        files.write("authority.pem", authority.certificate_pem());
        let elsewhere = authority.issue_to("elsewhere.example", &PKCS_ECDSA_P256_SHA256);
        files.write("elsewhere.pem", elsewhere.key_pem + &elsewhere.chain_pem);
        files.write("other.pem", Authority::new().certificate_pem());
        Self { files }
    }

    fn file(&self, name: &str) -> String {
        self.files.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    async fn redis(&self) -> (Redis, u16) {
        let port = ports::free();
        let options = [
            "--tls-port".to_owned(),
            port.to_string(),
            "--tls-cert-file".to_owned(),
            self.file("chain.pem"),
            "--tls-key-file".to_owned(),
            self.file("key.pem"),
            "--tls-ca-cert-file".to_owned(),
            self.file("authority.pem"),
            "--tls-auth-clients".to_owned(),
            "no".to_owned(),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        (Redis::start_with(&options).await, port)
    }

    /// Restarts it with TLS in this mode and a certificate from this file.
    async fn restart(&self, mongo: &mut Mongo, mode: &str, identity: &str) {
        let (identity, authority) = (self.file(identity), self.file("authority.pem"));
        let options = [
            ["--tlsMode", mode],
            ["--tlsCertificateKeyFile", &identity],
            ["--tlsCAFile", &authority],
        ];
        let options: Vec<&str> = options.into_iter().flatten().collect();
        let options = [options.as_slice(), &["--tlsAllowConnectionsWithoutCertificates"]].concat();
        mongo.restart_as_member(&options).await;
    }
}

/// `check --connect --json` with these authorities as those of the system.
async fn check(config: Config, authorities: String) -> (Option<i32>, Value) {
    let directory = Scratch::new("reasons");
    let file = directory.write("hookgate.toml", config.to_string());
    let mut command = tokio::process::Command::from(hookgate::command(&["check", "--connect"]));
    command.arg("--json").arg("--config").arg(file);
    command.env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", authorities);
    let output = command.output().await.expect("the command runs");
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("a report"))
}

fn config(redis: &str, mongodb: &str) -> Config {
    let mut config = Config::new();
    config.set("queue.redis", redis).set("queue.enqueue_timeout", "10s");
    config.set("triggers.source", "mongodb").set("mongodb.uri", mongodb);
    config
}

/// Ports of servers, and one where no server listens.
struct Ports {
    free: u16,
    redis: u16,
    redis_tls: u16,
    mongo: u16,
    mongo_tls: u16,
    /// A server whose certificate is for another name.
    mongo_elsewhere: u16,
}

/// Addresses of Redis and MongoDB, the file of the authorities, and what is reported of each.
type Case = (String, String, &'static str, [&'static str; 2]);

fn cases(ports: &Ports) -> [Case; 6] {
    let Ports { free, redis, redis_tls, mongo, mongo_tls, mongo_elsewhere } = ports;
    let by_tls = |port: &u16| format!("mongodb://127.0.0.1:{port}/?tls=true&directConnection=true");
    // A direct connection, because the addresses of a set's members are another matter.
    let plain = |host: &str, port: &u16| format!("mongodb://{host}:{port}/?directConnection=true");
    let both = |words: &'static str| [words, words];
    let own = "authority.pem";
    [
        (
            format!("redis://127.0.0.1:{free}"),
            plain("127.0.0.1", free),
            own,
            both("Connection refused"),
        ),
        (
            "redis://no-such-host.invalid".to_owned(),
            plain("no-such-host.invalid", free),
            own,
            both("failed to lookup address information"),
        ),
        (
            format!("rediss://127.0.0.1:{redis_tls}"),
            by_tls(mongo_tls),
            "other.pem",
            both("not signed by a trusted authority"),
        ),
        (
            format!("rediss://localhost:{redis_tls}"),
            by_tls(mongo_elsewhere),
            own,
            both("not valid for the host name in the address"),
        ),
        // TLS to ports without TLS: Redis waits for the end of a line, MongoDB closes the
        // connection.
        (
            format!("rediss://127.0.0.1:{redis}"),
            by_tls(mongo),
            own,
            ["no answer in time", "has closed the connection"],
        ),
        // No TLS to ports with TLS.
        (
            format!("redis://127.0.0.1:{redis_tls}"),
            plain("127.0.0.1", mongo_tls),
            own,
            ["", "a port that requires TLS behaves like this"],
        ),
    ]
}

#[tokio::test]
async fn connection_failures_are_reported_alike_for_redis_and_mongodb() {
    let tls = Tls::new();
    let (redis, redis_tls) = tls.redis().await;
    let new = || Mongo::start_uninitiated(ports::free());
    let (mongo, mut mongo_tls, mut elsewhere) = (new(), new(), new());
    tls.restart(&mut mongo_tls, "requireTLS", "identity.pem").await;
    tls.restart(&mut elsewhere, "requireTLS", "elsewhere.pem").await;
    for server in [&mongo, &mongo_tls, &elsewhere] {
        let listens = async || TcpStream::connect(("127.0.0.1", server.port())).await.is_ok();
        until("mongod listens", listens).await;
    }
    let ports = Ports {
        free: ports::free(),
        redis: redis.port(),
        redis_tls,
        mongo: mongo.port(),
        mongo_tls: mongo_tls.port(),
        mongo_elsewhere: elsewhere.port(),
    };
    let mut checks = JoinSet::new();
    for (redis, mongodb, authorities, reasons) in cases(&ports) {
        let checked = check(config(&redis, &mongodb), tls.file(authorities));
        checks.spawn(async move { (reasons, checked.await) });
    }
    for (reasons, (code, report)) in checks.join_all().await {
        assert_eq!(code, Some(1), "{reasons:?}: {report}");
        for (part, reason) in ["redis", "mongodb"].into_iter().zip(reasons) {
            let faults = report[part]["faults"].to_string();
            assert!(faults.contains(reason), "{reason}: {part}: {faults}");
            for mark in DEBUG_OUTPUT {
                assert!(!faults.contains(mark), "{reason}: {part}: {faults}");
            }
        }
    }
}

#[tokio::test]
async fn a_name_without_records_is_reported_in_words() {
    let tls = Tls::new();
    let config = config("redis://127.0.0.1:1", "mongodb+srv://no-such-host.invalid.example/");
    let (code, report) = check(config, tls.file("other.pem")).await;
    assert_eq!(code, Some(1), "{report}");
    let faults = report["mongodb"]["faults"].to_string();
    assert!(faults.contains("mongodb.uri cannot be looked up"), "{faults}");
    assert!(!faults.contains("Query {") && !faults.contains("Name("), "{faults}");
}

#[tokio::test]
async fn the_systems_authorities_apply_to_redis_and_mongodb() {
    let tls = Tls::new();
    let ((_redis, redis_tls), mut mongo) = tokio::join!(tls.redis(), Mongo::start());
    tls.restart(&mut mongo, "preferTLS", "identity.pem").await;
    mongo.writable().await;
    let redis = format!("rediss://127.0.0.1:{redis_tls}");
    let mongodb = format!("mongodb://127.0.0.1:{}/?replicaSet=rs0&tls=true", mongo.port());
    let (code, report) = check(config(&redis, &mongodb), tls.file("authority.pem")).await;
    assert_eq!(code, Some(0), "{report}");

    // Configured authorities take precedence over those of the system.
    let own = format!("{mongodb}&tlsCAFile={}", tls.file("authority.pem"));
    let (code, report) = check(config(&redis, &own), tls.file("other.pem")).await;
    assert_eq!(code, Some(1), "{report}");
    assert_eq!(report["mongodb"]["faults"], json!([]), "{report}");
}

#[tokio::test]
async fn an_unready_service_gives_its_reasons_in_words_everywhere() {
    let tls = Tls::new();
    let (redis, port) = tls.redis().await;
    let mut mongo = Mongo::start_uninitiated(ports::free());
    tls.restart(&mut mongo, "requireTLS", "identity.pem").await;
    let app = App::build()
        .redis(redis)
        .redis_address(&format!("rediss://127.0.0.1:{port}"))
        .variable("SSL_CERT_FILE", &tls.file("other.pem"))
        .variable("SSL_CERT_DIR", "");
    let app = app.config(|config| {
        let uri = format!("mongodb://127.0.0.1:{}/?replicaSet=rs0&tls=true", mongo.port());
        config.set("triggers.source", "mongodb").set("mongodb.uri", uri);
        config.set("telemetry.log", "debug");
    });
    let app = app.start_unready().await;
    until("all give the reason", async || {
        let reasons = app.hookgate.readiness().await.1["reasons"].to_string();
        reasons.matches("not signed by a trusted authority").count() == 3
    })
    .await;
    let page = app.hookgate.admin_get("/status.json").await.text().await.expect("a string");
    assert!(page.contains("not signed by a trusted authority"), "{page}");
    for text in [app.hookgate.readiness().await.1.to_string(), page, app.hookgate.log()] {
        for mark in DEBUG_OUTPUT {
            assert!(!text.contains(mark), "{mark} in {text}");
        }
    }
}

#[tokio::test]
async fn missing_authorities_are_a_fault_of_the_server_that_needs_them() {
    let (code, report) =
        check(config("rediss://127.0.0.1", "mongodb://127.0.0.1/?tls=true"), "/nowhere".to_owned())
            .await;
    assert_eq!(code, Some(2), "{report}");
    let faults = report["faults"].as_array().expect("a list");
    assert_eq!(faults.len(), 2, "{report}");
    for (fault, key) in faults.iter().zip(["mongodb.uri", "queue.redis"]) {
        assert_eq!(fault["key"], key);
        let message = fault["message"].as_str().expect("a string");
        assert!(message.contains("certificate authorities cannot be read"), "{message}");
        assert!(message.contains("/nowhere"), "{message}");
    }
}

#[tokio::test]
async fn ignored_and_refused_options_are_named() {
    let uri = "mongodb://127.0.0.1/?replicaSet=rs0&compressors=zlib,lzma&timeoutMS=1&uuidRepresentation=standard\
               &useNewUrlParser=true&maxStalenessSeconds=120&socketTimeoutMS=1&maxPoolSize=0&w=0";
    let ignored = [
        "timeoutMS",
        "uuidRepresentation",
        "useNewUrlParser",
        "maxStalenessSeconds",
        "socketTimeoutMS",
        "maxPoolSize",
    ];
    let output = hookgate::check(&config("redis://127.0.0.1", uri), &["--json"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let warnings = report["warnings"].to_string();
    for name in ignored {
        assert!(
            warnings.contains(&format!("mongodb.uri: {name} is ignored")),
            "{name}: {warnings}"
        );
    }
    assert!(!warnings.contains("uri: w "), "{warnings}");

    let uri = "mongodb://user:secret@127.0.0.1/?proxyHost=a&replicaSt=rs0&tls=perhaps";
    let output = hookgate::check(&config("redis://127.0.0.1", uri), &["--json"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let report = String::from_utf8(output.stdout).expect("UTF-8");
    for name in ["proxyHost", "replicaSt", "tls is neither"] {
        assert!(report.contains(name), "{name}: {report}");
    }
    assert!(!report.contains("secret"), "{report}");
}
