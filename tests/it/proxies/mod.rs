//! The configurations in deploy/proxies, each in its own proxy in front of two Hookgates.

#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test panics")]

mod caddy;
mod envoy;
mod haproxy;
mod nginx;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use testkit::deliveries::{PREFIX, endpoints, github_signature, verified_trigger};
use testkit::documents::workflow_of;
use testkit::http::PATH;
use testkit::ledger::{self, Load};
use testkit::process::Process;
use testkit::scratch::Scratch;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Caller, Config, Hookgate, ports};
use tokio::net::TcpStream;

/// Where the two Hookgates are. A proxy has one port for the health checks of both.
const INSTANCES: [&str; 2] = ["127.0.0.2", "127.0.0.3"];
/// Where callers are; the proxies themselves are 127.0.0.1.
const CALLER: [u8; 4] = [127, 0, 0, 9];
const SECRET: &str = "It's a Secret to Everybody";

/// Two Hookgates on one Redis, and the ports and files for a proxy in front of them.
struct Site {
    app: App,
    second: Hookgate,
    authority: Authority,
    address: SocketAddr,
    files: Scratch,
    /// The last, so that it ends first.
    caller: Caller,
}

/// A proxy of a site.
struct Proxy {
    site: Site,
    process: Process,
}

impl Site {
    async fn start() -> Self {
        let (webhooks, admin) = (ports::free(), ports::free());
        let mut documents = ledger::documents();
        let trigger =
            verified_trigger("n", "signed", &json!({ "scheme": "github", "secret": SECRET }));
        documents.workflows.push(workflow_of("signed", "org_a", json!([trigger])));
        let settings = |config: &mut Config, host: &str| {
            config
                .set("server.listen", format!("{host}:{webhooks}"))
                .set("admin.listen", format!("{host}:{admin}"))
                .set("server.trusted_proxies", vec!["127.0.0.1"])
                .set("server.drain_delay", "3s")
                .set("server.max_body", "11MiB")
                .set("telemetry.log", "info,hookgate::access=debug")
                .set("telemetry.format", "json");
            endpoints(config);
        };
        let app = App::build().documents(documents).config(|config| settings(config, INSTANCES[0]));
        let app = app.start().await;
        let mut config = app.hookgate.config.clone();
        settings(&mut config, INSTANCES[1]);
        let second = Hookgate::start(config).await;
        let authority = Authority::new();
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let client = authority.client().local_address(IpAddr::from(CALLER));
        let caller = Caller::over_tls(address, client);
        Self { app, second, authority, address, files: Scratch::new("proxy"), caller }
    }

    /// The configuration `deploy/proxies/NAME` with the addresses and certificates of this site. What
    /// is replaced must be there.
    fn configuration(&self, name: &str, others: &[(&str, String)]) -> PathBuf {
        let file = testkit::root().join("deploy/proxies").join(name);
        let mut text = fs::read_to_string(file).expect("it exists");
        let port = |key: &str| {
            let address = self.app.hookgate.config.text(key);
            address.rsplit_once(':').expect("an address with a port").1.to_owned()
        };
        let addresses = [
            ("2212", port("server.listen")),
            ("10.0.0.7", INSTANCES[0].to_owned()),
            ("10.0.0.8", INSTANCES[1].to_owned()),
        ];
        for (from, to) in addresses.iter().chain(others) {
            assert!(text.contains(from), "{name} does not have {from}");
            text = text.replace(from, to);
        }
        self.files.write(name, text.replace("9464", &port("admin.listen")))
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    /// Starts the proxy, and waits until it serves webhooks.
    async fn behind(self, name: &str, command: &Command) -> Proxy {
        let process = Process::start(name, command, &self.files.join("proxy.log"));
        until("the proxy listens", async || {
            assert_eq!(process.exit_code(), None, "{}", process.log_text());
            TcpStream::connect(self.address).await.is_ok()
        })
        .await;
        until("the proxy has found an instance", async || {
            let preview = self.caller.call(reqwest::Method::POST, "/api/webhook/workflow/preview");
            let preview = preview.bearer("key_a").body(r#"{"webhookId":"wh_1"}"#);
            preview.try_send().await.is_ok_and(|reply| reply.status == 200)
        })
        .await;
        Proxy { site: self, process }
    }
}

impl Proxy {
    /// All that a site must carry while nothing changes.
    async fn carries_webhooks(&self) {
        self.accepts_webhooks_and_names_the_client().await;
        self.carries_large_bodies().await;
        self.carries_deliveries().await;
        self.refuses_other_paths().await;
    }

    async fn accepts_webhooks_and_names_the_client(&self) {
        for _ in 0..4 {
            let call = self.site.caller.webhook("wh_2").header("x-forwarded-for", "192.0.2.66");
            assert_eq!(call.send().await.matched(), 2);
        }
        let lines = || [self.site.app.hookgate.log(), self.site.second.log()].concat();
        until("four requests are logged", async || {
            lines().matches(r#""code":"accepted","matches":2"#).count() == 4
        })
        .await;
        for line in lines().lines().filter(|line| line.contains(r#""matches":2"#)) {
            let line: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(line["client"], IpAddr::from(CALLER).to_string(), "{line}");
        }
    }

    async fn carries_large_bodies(&self) {
        let body =
            |bytes: usize| format!(r#"{{"webhookId":"wh_1","text":"{}"}}"#, "x".repeat(bytes));
        let reply = self.site.caller.post(body(10 << 20)).send().await;
        assert_eq!(reply.matched(), 1);
        // Hookgate's own answer, which has the limit, reaches the caller.
        let reply = self.site.caller.post(body(12 << 20)).send().await;
        reply.assert_rejected(413, "payload_too_large");
        assert_eq!(reply.json()["details"]["maxBytes"], 11 << 20, "{}", reply.text());
    }

    async fn carries_deliveries(&self) {
        let body = r#"{"number": 7.0}"#;
        let path = format!("{PREFIX}/org_a/signed?from=%2Fhere&x=a+b");
        let call = self.site.caller.call(reqwest::Method::POST, &path);
        let call = call.header("x-github-delivery", "d").header("content-type", "application/json");
        let signature = github_signature(SECRET, body.as_bytes());
        let reply = call.header("x-hub-signature-256", signature).body(body).send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let jobs = self.site.app.redis.queue().waiting().await;
        let job = jobs.iter().find(|job| job.data()["workflowId"] == "signed").expect("a job");
        assert_eq!(job.payload_text(), body);
        let query = json!({ "from": "/here", "x": "a b" });
        assert_eq!(job.data()["trigger"]["request"]["query"], query);
    }

    async fn refuses_other_paths(&self) {
        for path in ["/", "/metrics", "/readyz", "/api/webhooks"] {
            let reply = self.site.caller.call(reqwest::Method::GET, path).send().await;
            assert_eq!((reply.status, reply.text().contains("requestId")), (404, false), "{path}");
        }
    }

    /// Restarts both Hookgates, one after the other, while callers send. Each request is accepted,
    /// and its jobs are there once.
    async fn loses_nothing_while_instances_are_restarted(mut self) {
        let load = Load::start(&self.site.caller);
        load.more_accepted(100).await;
        for instance in [&mut self.site.app.hookgate, &mut self.site.second] {
            assert_eq!(instance.terminate().await, 0, "{}", instance.log());
            load.more_accepted(100).await;
            instance.restart().await;
            let served = async || instance.metrics().await.sum("hookgate_requests_total");
            until("the proxy uses it again", async || served().await >= 20.0).await;
        }
        let verdict = load.stop().await.judge(&self.site.app.redis).await;
        verdict.assert_sound();
        assert_eq!(self.process.exit_code(), None, "{}", self.process.log_text());
        let failed = verdict.nothing + verdict.unknown + verdict.not_sent + verdict.unanswered;
        assert_eq!(failed, 0, "{verdict} {:?}", verdict.codes);
    }

    /// Without Redis, callers get a 503 of the proxy, which knows no server.
    async fn answers_itself_while_no_instance_is_ready(&self) {
        self.lose_redis().await;
        until("the proxy has noticed", async || {
            let reply = self.site.caller.post(r#"{"webhookId":"wh_1"}"#).send().await;
            reply.status == 503 && reply.body.is_empty()
        })
        .await;
    }

    async fn lose_redis(&self) {
        self.site.app.redis.kill9().await;
        self.site.app.hookgate.unready().await;
        self.site.second.unready().await;
    }

    /// Without Redis, callers get Hookgate's own 503, which says why.
    async fn passes_on_why_no_instance_is_ready(&self) {
        self.lose_redis().await;
        // Several, because a proxy notices within a second.
        for _ in 0..20 {
            self.site
                .caller
                .post(r#"{"webhookId":"wh_1"}"#)
                .send()
                .await
                .assert_not_enqueued("none");
        }
    }
}

/// A program of `.tools`.
fn tool(name: &str) -> Command {
    let program = testkit::root().join(".tools").join(name);
    assert!(program.is_file(), "no {}: run scripts/setup test", program.display());
    Command::new(program)
}

/// A program of the system, which may be where only root looks.
fn system(name: &str) -> Command {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = folders.iter().map(|folder| PathBuf::from(folder).join(name));
    let program = found.into_iter().find(|program| program.is_file());
    Command::new(program.unwrap_or_else(|| panic!("no {name}: run scripts/setup test")))
}

/// The path for what [`Caller::post`] sends; every configuration forwards it.
#[test]
fn the_route_is_below_what_proxies_forward() {
    assert!(PATH.starts_with("/api/webhook/") && PREFIX.starts_with("/api/webhook/"));
}
