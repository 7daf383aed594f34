//! What verifying a token costs, the first time and when it is remembered, by algorithm.
//!
//! ```text
//! cargo bench --bench tokens     some seconds
//! ```
//!
//! CPU time of one request's authentication, medians of rounds.
#![expect(clippy::print_stdout, reason = "the table is what it is run for")]
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark that fails says so and ends"
)]

#[path = "../tests/harness/config.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is made for the tests")]
mod config;
#[path = "../tests/harness/keys.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is made for the tests")]
mod keys;
#[path = "index/meter.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is made for another benchmark as well")]
mod meter;
#[path = "../tests/harness/ports.rs"]
#[expect(unreachable_pub, reason = "it is made for the tests")]
mod ports;
#[path = "../tests/harness/tokens.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is made for the tests")]
mod tokens;

use config::SECRET;
use hookgate::auth::{AuthSettings, Authenticator, Callers};
use hookgate::settings::Settings;
use jsonwebtoken::Algorithm;
use keys::KeyRing;
use meter::{median, own_time_of};
use mimalloc::MiMalloc;
use std::sync::Arc;
use std::time::Duration;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const TOKENS: usize = 500;
const ROUNDS: usize = 20;

fn main() {
    let keys = KeyRing::new();
    println!("CPU time; Hookgate {}.\n", hookgate::BUILD);
    println!(
        "| algorithm | first time, µs | remembered, µs | of HS256, remembered |\n|---|--:|--:|--:|"
    );
    let mut of_hmac = None;
    for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let (first, again) = measure(&keys, algorithm);
        let ratio = again / *of_hmac.get_or_insert(again);
        println!("| {algorithm:?} | {first:.2} | {again:.2} | {ratio:.2} |");
    }
}

/// Microseconds for a token that is new, and for one that is not.
fn measure(keys: &KeyRing, algorithm: Algorithm) -> (f64, f64) {
    let key = keys.of(algorithm, SECRET);
    let tokens: Vec<String> = (0..TOKENS)
        .map(|user| {
            tokens::sign(&tokens::claims("org_a", &format!("user_{user}")), algorithm, &key)
        })
        .map(|token| format!("Bearer {token}"))
        .collect();
    let rounds = (0..ROUNDS).map(|_| {
        let authenticator = authenticator(keys, algorithm);
        [0, 1].map(|_| {
            let time = own_time_of(|| {
                for token in &tokens {
                    authenticator.authenticate(Some(token.as_bytes())).unwrap();
                }
            });
            time.as_secs_f64() * 1e6 / tokens.len() as f64
        })
    });
    let rounds: Vec<[f64; 2]> = rounds.collect();
    let [first, again] =
        [0, 1].map(|turn| median(rounds.iter().map(|round| round[turn]).collect()));
    (first, again)
}

/// One that has seen no token yet.
fn authenticator(keys: &KeyRing, algorithm: Algorithm) -> Authenticator {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    std::fs::write(&file, keys::jwk_set(&[keys.jwk(algorithm, SECRET, "key")])).unwrap();
    let text = format!(
        "[auth.jwt]\nalgorithms = [\"{algorithm:?}\"]\njwks_file = {:?}\n",
        file.to_str().unwrap()
    );
    let mut settings = Settings::new(text.parse().unwrap(), std::iter::empty());
    let auth = AuthSettings::read(&mut settings.section("auth"));
    assert_eq!(settings.into_faults(), []);
    Authenticator::new(auth, Arc::new(Callers::new(Duration::from_secs(30))))
}
