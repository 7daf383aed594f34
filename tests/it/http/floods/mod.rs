//! Floods whose requests all differ in something. None of it is kept in memory, and refusing costs
//! no more than serving.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]
#![expect(clippy::print_stdout, reason = "the test prints the cost of a refusal")]

mod dearest;

use std::fmt::Write;

use jsonwebtoken::Algorithm;
use serde_json::json;
use testkit::App;
use testkit::keys::{KeyPair, jwk_set};
use testkit::raw::Connection;
use testkit::size::from_environment;
use testkit::tokens::{claims, forge, sign, sign_with_id, token};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 4;
/// Requests that are sent without waiting for an answer.
const PIPELINED: usize = 50;
/// Bound on the growth of the process, for a flood of any length.
const BOUND: f64 = 16.0 * 1024.0 * 1024.0;

/// Requests of each flood; set `FLOOD=200000` for more of them.
const COUNT: usize = 20_000;

/// What differs from request to request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    Nothing,
    WebhookIds,
    ApiKeys,
    ForgedTokens,
    GoodTokens,
}

impl Flood {
    fn status(self) -> u16 {
        match self {
            Self::Nothing | Self::WebhookIds | Self::GoodTokens => 202,
            Self::ApiKeys | Self::ForgedTokens => 401,
        }
    }

    fn request(self, serial: usize) -> String {
        let number = match self {
            Self::Nothing => 0,
            _ => serial,
        };
        let credential = match self {
            Self::ApiKeys => format!("unknown_{number}"),
            Self::ForgedTokens => {
                let claims = claims("org_a", &format!("user_{number}"));
                forge(&json!({ "alg": "HS256", "typ": "JWT" }), &claims, &[7; 32])
            }
            _ => token(&claims("org_a", &format!("user_{number}"))),
        };
        // No workflow listens to it, so Redis has no part in the measurement.
        let webhook = if self == Self::WebhookIds { number } else { 0 };
        let body = format!(r#"{{"webhookId":"nobody_{webhook:07}"}}"#);
        format!(
            "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {credential}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_leaves_no_state_and_is_cheap_to_refuse() {
    let count = from_environment("FLOOD", COUNT);
    let app = App::with(|config| {
        config.set("telemetry.log", "info");
    })
    .await;
    let mut sent = 0;
    let mut table = String::from("flood, CPU us a request, MiB grown\n");
    let mut costs = Vec::new();
    let floods =
        [Flood::Nothing, Flood::WebhookIds, Flood::ApiKeys, Flood::ForgedTokens, Flood::GoodTokens];
    for flood in floods {
        send(&app, flood, 0..count / 10).await;
        let (cpu, memory) = spent(&app).await;
        send(&app, flood, count / 10..count).await;
        let (cpu_after, memory_after) = spent(&app).await;
        sent += count;
        let cost = (cpu_after - cpu) * 1e6 / (count - count / 10) as f64;
        let grown = memory_after - memory;
        writeln!(table, "{flood:?}, {cost:.1}, {:.1}", grown / 1024.0 / 1024.0).expect("a string");
        assert!(grown < BOUND, "{table}");
        costs.push(cost);
    }
    println!("{table}");
    // All credentials are verified the same way; a refused request is neither parsed nor looked up.
    assert!(costs[2] < 2.0 * costs[0] && costs[3] < 2.0 * costs[0], "{table}");
    let metrics = app.hookgate.metrics().await;
    let counted =
        ["accepted", "invalid_api_key", "invalid_token"].map(|code| metrics.requests(code));
    assert_eq!(counted.iter().sum::<f64>(), sent as f64);
    assert_eq!(metrics.sum("hookgate_requests_total"), sent as f64);
    app.redis.queue().assert_empty().await;
}

/// The bound holds for any number of keys in a set and any position of the named key.
#[tokio::test]
async fn a_token_without_a_key_id_is_tried_with_four_keys() {
    const ES256: Algorithm = Algorithm::ES256;
    let pairs: Vec<KeyPair> = (0..64).map(|_| KeyPair::for_algorithm(ES256)).collect();
    let named = |number: usize| format!("key_{number}");
    let set: Vec<_> =
        pairs.iter().enumerate().map(|(number, pair)| pair.jwk(ES256, &named(number))).collect();
    let (own, build) = (KeyPair::for_algorithm(ES256), App::build());
    let jwks_file = build.file("jwks.json", jwk_set(&set));
    // Keys in the configuration itself do not count.
    let of_others = (0..5).map(|number| {
        build.file(&format!("{number}.pem"), KeyPair::for_algorithm(ES256).public_pem)
    });
    let mut files: Vec<String> = of_others.collect();
    files.push(build.file("own.pem", &own.public_pem));
    let app = build.config(|config| {
        config.set("auth.jwt.algorithms", vec!["ES256"]).set("auth.jwt.jwks_file", jwks_file);
        config.set("auth.jwt.public_key_files", files);
    });
    let app = app.start().await;
    let send = async |token: &str| app.webhook("wh_1").bearer(token).send().await;
    let claims = |number: usize| claims("org_a", &format!("user_{number}"));
    assert_eq!(send(&sign(&claims(99), ES256, &own.encoding_key(ES256))).await.status, 202);
    for (number, pair) in pairs.iter().enumerate() {
        let key = pair.encoding_key(ES256);
        let by_name = sign_with_id(&claims(number), ES256, &key, &named(number));
        assert_eq!(send(&by_name).await.status, 202, "{number}");
        let reply = send(&sign(&claims(number), ES256, &key)).await;
        assert_eq!(reply.status, if number < 4 { 202 } else { 401 }, "{number}");
    }
}

/// CPU seconds and bytes of memory.
async fn spent(app: &App) -> (f64, f64) {
    let memory = app.hookgate.metrics().await.value("process_resident_memory_bytes", &[]);
    (app.hookgate.process().cpu_time().as_secs_f64(), memory)
}

async fn send(app: &App, flood: Flood, serials: std::ops::Range<usize>) {
    let address = app.hookgate.address();
    let mut callers = JoinSet::new();
    for caller in 0..CONNECTIONS {
        let serials: Vec<usize> = serials.clone().skip(caller).step_by(CONNECTIONS).collect();
        callers.spawn(async move {
            let mut connection = Connection::open(address).await;
            for some in serials.chunks(PIPELINED) {
                let requests: String = some.iter().map(|serial| flood.request(*serial)).collect();
                connection.send(requests).await;
                for _ in some {
                    let reply = connection.reply().await.expect("an answer");
                    assert_eq!(reply.status, flood.status(), "{flood:?} {}", reply.text());
                }
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.expect("every request is answered");
    }
}
