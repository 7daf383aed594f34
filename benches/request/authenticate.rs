//! Authenticating a token by algorithm, the first time and when it is cached, and an API key.

use crate::settings;
use bson::rawdoc;
use criterion::{BatchSize, Criterion, Throughput};
use hookgate::auth::{
    AuthSettings, Authenticator, Callers, CredentialField, UserCollection, UsersSettings,
};
use hookgate::ids::RequestId;
use hookgate::metrics::Metrics;
use hookgate::mirror::document::DocumentKey;
use hookgate::mirror::{CollectionIndexes, MirroredCollection};
use jsonwebtoken::Algorithm;
use std::sync::Arc;
use std::time::Duration;
use testkit::config::SECRET;
use testkit::keys::{KeyRing, jwk_set};
use testkit::tokens;

/// Tokens that an authenticator verifies before it is replaced by a fresh one.
const TOKENS: usize = 500;

pub fn measure(criterion: &mut Criterion) {
    let keys = KeyRing::new();
    let mut group = criterion.benchmark_group("authenticate");
    group.throughput(Throughput::Elements(TOKENS as u64));
    for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let key = keys.signing_key(algorithm, SECRET);
        let headers = (0..TOKENS).map(|user| {
            let claims = tokens::claims("org_a", &format!("user_{user}"));
            format!("Bearer {}", tokens::sign(&claims, algorithm, &key))
        });
        let headers: Vec<String> = headers.collect();
        group.bench_function(format!("{algorithm:?}, first"), |bencher| {
            let new = || authenticator(&keys, algorithm);
            bencher.iter_batched_ref(new, |new| all(new, &headers), BatchSize::PerIteration);
        });
        let authenticator = authenticator(&keys, algorithm);
        all(&authenticator, &headers);
        group.bench_function(format!("{algorithm:?}, remembered"), |bencher| {
            bencher.iter(|| all(&authenticator, &headers));
        });
    }
    let authenticator = authenticator(&keys, Algorithm::HS256);
    let headers = vec!["Bearer key_a".to_owned(); TOKENS];
    group.bench_function("API key", |bencher| bencher.iter(|| all(&authenticator, &headers)));
}

fn all(authenticator: &Authenticator, headers: &[String]) {
    let id = RequestId::from_header_or_new(Some(b"a request"));
    for header in headers {
        let field = CredentialField::Authorization(header.as_bytes());
        authenticator.authenticate(Some(field), &id).unwrap();
    }
}

/// An authenticator with an empty cache and one API key.
fn authenticator(keys: &KeyRing, algorithm: Algorithm) -> Authenticator {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    std::fs::write(&file, jwk_set(&[keys.jwk(algorithm, SECRET, "key")])).unwrap();
    let mut settings = settings(&format!(
        "[auth.jwt]\nalgorithms = [\"{algorithm:?}\"]\njwks_file = {:?}\n",
        file.to_str().unwrap()
    ));
    let auth = AuthSettings::read(&mut settings.section("auth"));
    let users = UsersSettings::read(&mut settings.section("users"));
    assert_eq!(settings.into_faults(), []);
    let callers = Arc::new(Callers::new(Duration::from_secs(30)));
    let collection = UserCollection::new(users, &callers, Metrics::new("", "").unwrap());
    let user = rawdoc! { "_id": "user_a", "organizationId": "org_a", "apiKey": "key_a" };
    let record = collection.read(&user).unwrap();
    CollectionIndexes::new(collection)
        .apply(vec![(DocumentKey::from_document(&user).unwrap(), Some(record))]);
    callers.freshness().mark_current(tokio::time::Instant::now());
    Authenticator::new(auth, callers)
}
