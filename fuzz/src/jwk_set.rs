//! JWK sets, of a file and of a URL.

use hookgate::auth::{JwkSet, JwksSource};
use serde_json::Value;
use std::path::PathBuf;

/// Maximum keys of a set from a URL.
const MAX_FETCHED_KEYS: usize = 64;

/// Sets that take longer than they teach: each key of RSA is checked.
const MAX_ENTRIES: usize = 200;

/// The fewest bytes of a symmetric key.
const MIN_OCTETS: usize = 32;

/// Every entry is used or reported, a URL gives fewer keys than a file, and no message tells a
/// secret.
pub fn check(json: &[u8]) {
    let entries = entries(json);
    if entries.as_ref().is_some_and(|entries| entries.len() > MAX_ENTRIES) {
        return;
    }
    let file = JwkSet::parse(json, JwksSource::File(PathBuf::from("/keys.json")));
    let url = JwkSet::parse(json, JwksSource::Url);
    for set in [&file, &url] {
        match set {
            Ok(set) => check_set(set, entries.as_deref().expect("JSON with an array of keys")),
            Err(message) => {
                let is_set = message != "not a JWK set";
                assert!(!is_set || entries.as_ref().is_some_and(|entries| !entries.is_empty()));
                check_secrecy(message, entries.as_deref().unwrap_or_default());
            }
        }
    }
    let usable = |set: &Result<JwkSet, String>| set.as_ref().map_or(0, JwkSet::usable);
    let entries = entries.unwrap_or_default();
    let secrets = entries.iter().filter(|entry| entry["kty"] == "oct").count();
    assert!(usable(&url) <= usable(&file).min(MAX_FETCHED_KEYS));
    assert!(usable(&url) <= entries.len() - secrets, "a secret of a URL is used");
    let expected = entries.iter().filter(|entry| is_plain_secret(entry)).count();
    assert!(usable(&file) >= expected, "{} of {expected} secrets", usable(&file));
}

/// The entries by a second reader; `None` if this is not a set. A member that is there twice has
/// its last value here, and makes the set none.
fn entries(json: &[u8]) -> Option<Vec<Value>> {
    match serde_json::from_slice::<Value>(json).ok()? {
        Value::Object(mut members) => match members.remove("keys")? {
            Value::Array(entries) => Some(entries),
            _ => None,
        },
        _ => None,
    }
}

fn check_set(set: &JwkSet, entries: &[Value]) {
    assert_eq!(set.usable() as u64 + set.skipped, entries.len() as u64);
    assert!(set.usable() > 0 || entries.is_empty(), "a set that verifies nothing is accepted");
    let warnings: Vec<String> = set.warnings().collect();
    assert!(warnings.len() <= 11, "{} warnings", warnings.len());
    assert!(set.skipped == 0 || !warnings.is_empty(), "nothing says what is skipped");
    for warning in &warnings {
        check_secrecy(warning, entries);
    }
}

/// No message contains the private member of a key.
fn check_secrecy(message: &str, entries: &[Value]) {
    for entry in entries {
        for secret in ["k", "d"].iter().filter_map(|name| entry[name].as_str()) {
            // Shorter ones are in other words, and a key id is shown.
            let is_shown = entries.iter().any(|entry| {
                entry.as_object().is_some_and(|members| {
                    members.iter().any(|(name, value)| {
                        !["k", "d"].contains(&name.as_str())
                            && value.as_str().is_some_and(|text| text.contains(secret))
                    })
                })
            });
            assert!(secret.len() < 20 || is_shown || !message.contains(secret), "{message}");
        }
    }
}

/// Whether this is a symmetric key of only letters and digits, which is long enough, with nothing
/// that restricts its use.
fn is_plain_secret(entry: &Value) -> bool {
    let is_plain = entry.as_object().is_some_and(|members| {
        members.len() == 2 && members.get("kty").is_some_and(|kind| kind == "oct")
    });
    let is_long = |key: &str| {
        // Base64 without padding has whole bytes, and no bits beyond them.
        key.len().is_multiple_of(4)
            && key.len() / 4 * 3 >= MIN_OCTETS
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    is_plain && entry["k"].as_str().is_some_and(is_long)
}
