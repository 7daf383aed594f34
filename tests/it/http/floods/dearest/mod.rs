//! The CPU that callers can make the service spend for each byte they send: the most expensive
//! input of each kind.
//!
//! By default each input is sent once, and the test only checks its answer. A release build makes
//! the table:
//!
//! ```sh
//! cargo build --profile bench --bin hookgate
//! DEAREST=target/release/hookgate cargo test --test it http::floods::dearest -- --nocapture
//! ```

mod bodies;

use std::fmt::Write;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::json;
use testkit::App;
use testkit::keys::{KeyPair, jwk_set};
use testkit::raw::Connection;
use testkit::tokens::{claims, forge, sign};

/// CPU time that is measured for each input, many times the kernel's unit.
const MEASURED: Duration = Duration::from_millis(500);
/// Least number of requests for a measurement.
const FEWEST: u32 = 20;

struct Input {
    name: &'static str,
    status: u16,
    /// The HTTP/1.1 request.
    bytes: Vec<u8>,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_expensive_inputs_are_answered() {
    let program = std::env::vars_os().find(|(name, _)| name == "DEAREST").map(|(_, path)| path);
    let keys = KeyPair::rsa();
    let set: Vec<_> =
        (0..64).map(|number| keys.jwk(Algorithm::RS256, &format!("key_{number}"))).collect();
    let mut build = App::build();
    if let Some(program) = &program {
        build = build.program(program.to_str().expect("a path in UTF-8"));
    }
    let jwks_file = build.file("jwks.json", jwk_set(&set));
    let build = build.config(|config| {
        config
            .set("auth.jwt.algorithms", vec!["HS256", "RS256"])
            .set("auth.jwt.jwks_file", jwks_file);
        config.set("telemetry.log", "info").set("server.max_connection_age", "1h");
    });
    let app = build.start().await;
    let mut table = String::from(
        "| input | answered | bytes sent | CPU, us | ns a byte | of an ordinary request |\n|---|--:|--:|--:|--:|--:|\n",
    );
    // Without optimization, some decoders would exceed their time limit.
    let size = if program.is_some() { 1 << 20 } else { 32 << 10 };
    let mut ordinary = None;
    for Input { name, status, bytes } in inputs(size) {
        let cost = cost(&app, &bytes, status, program.is_some()).await;
        let ordinary = *ordinary.get_or_insert(cost);
        let (length, of_ordinary) = (bytes.len() as f64, cost / ordinary);
        let ns = cost * 1e3 / length;
        writeln!(
            table,
            "| {name} | {status} | {length} | {cost:.0} | {ns:.1} | {of_ordinary:.1} |"
        )
        .expect("a string");
    }
    if program.is_some() {
        println!("{table}");
    }
}

/// Microseconds of CPU for one such request.
async fn cost(app: &App, request: &[u8], status: u16, is_measured: bool) -> f64 {
    let (mut count, cpu) = (0, || app.hookgate.process().cpu_time());
    let mut connection = Connection::open(app.hookgate.address()).await;
    let mut before = cpu();
    loop {
        connection.send(request).await;
        let reply = connection.reply().await.expect("an answer");
        assert_eq!(reply.status, status, "{}", reply.text());
        if reply.header("connection") == Some("close") {
            connection = Connection::open(app.hookgate.address()).await;
        }
        let spent = cpu().saturating_sub(before);
        if !is_measured || (count >= FEWEST && spent >= MEASURED) {
            return spent.as_secs_f64() * 1e6 / f64::from(count.max(1));
        }
        count += 1;
        if count == 1 {
            // Costs of the first request are not counted.
            before = cpu();
        }
    }
}

/// Inputs with bodies of `size` bytes, as they are sent or as they are decoded.
fn inputs(size: usize) -> Vec<Input> {
    let plain = |name, body: &[u8]| (name, 202, "", body.to_vec());
    let encoded = |name, status, header, body| (name, status, header, body);
    let gzip = "Content-Encoding: gzip\r\n";
    let key = "Idempotency-Key: k\r\n";
    let ordinary = bodies::filled("", "x", 300);
    let bodies = [
        plain("300 bytes", &ordinary),
        plain("text", &bodies::filled("\"", "x", size)),
        plain("empty arrays", &bodies::filled("[", "[],", size)),
        plain("digits", &bodies::filled("[", "1,", size)),
        plain("escapes", &bodies::filled("\"", "\\u0041", size)),
        plain("numbers of any precision", &bodies::filled("[", "1e400,", size)),
        plain("members", &bodies::filled("{", "\"\":0,", size)),
        plain("128 levels deep", &bodies::deep(size)),
        encoded("string with an Idempotency-Key", 202, key, bodies::filled("\"", "x", size)),
        encoded("gzip: empty arrays", 202, gzip, bodies::gzip(&bodies::filled("[", "[],", size))),
        encoded("gzip: a bomb", 413, gzip, bodies::gzip(&vec![b' '; 2 << 20])),
        encoded("gzip: 65 members", 400, gzip, bodies::gzip(b"").repeat(65)),
        encoded("gzip: members", 400, gzip, bodies::gzip(b"").repeat(size / 20)),
        encoded("deflate: tables", 400, "Content-Encoding: deflate\r\n", bodies::tables(size)),
        encoded("br: small blocks", 400, "Content-Encoding: br\r\n", bodies::brotli_blocks(size)),
        encoded("zstd: frames", 400, "Content-Encoding: zstd\r\n", bodies::zstd_frames(size)),
        encoded("zstd: empty blocks", 400, "Content-Encoding: zstd\r\n", bodies::zstd_blocks(size)),
    ];
    let authorized = bodies.into_iter().map(|(name, status, more, body)| Input {
        name,
        status,
        bytes: request("key_a", more, &body),
    });
    authorized.chain(without_credential(&ordinary)).collect()
}

/// Inputs that need no valid credential.
fn without_credential(body: &[u8]) -> [Input; 5] {
    let of_rsa = sign(
        &claims("org_a", "u"),
        Algorithm::RS256,
        &KeyPair::rsa().encoding_key(Algorithm::RS256),
    );
    let forged = forge(&json!({ "alg": "HS256" }), &claims("org_a", "u"), &[7; 32]);
    let long = forge(&json!({ "alg": "RS256" }), &claims("org_a", &"u".repeat(20_000)), &[7; 256]);
    let fields = format!("X: {}\r\n", "x".repeat(300)).repeat(90);
    let refused = |name, bytes| Input { name, status: 401, bytes };
    [
        refused("an unknown API key", request("nobody", "", body)),
        refused("a forged token of HS256", request(&forged, "", body)),
        refused("a token of RS256 without kid, 64 keys", request(&of_rsa, "", body)),
        refused("the same, 27 KB long", request(&long, "", body)),
        refused("a head of 27 KB", request("nobody", &fields, body)),
    ]
}

fn request(credential: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {credential}\r\n{more}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
