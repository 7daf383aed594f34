//! What no log may hold: every credential and body that a test of this process has sent, and the
//! secrets of its configurations. The log of each Hookgate is searched for all of them when it
//! ends.

use std::collections::{BTreeMap, HashSet};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use aho_corasick::AhoCorasick;
use serde_json::value::RawValue;

/// Shorter credentials may be a word of any log.
const SHORTEST_CREDENTIAL: usize = 5;
const SHORTEST_PAYLOAD: usize = 16;

/// Bytes of a payload that suffice to recognize it.
const PIECE: usize = 64;

/// Bound on the strings, because tests under load send any number of bodies.
const MOST: usize = 10_000;

/// The part of it for bodies, so that they leave room for secrets.
const MOST_WITH_BODIES: usize = 8_000;

static STRINGS: LazyLock<Mutex<HashSet<Vec<u8>>>> = LazyLock::new(Mutex::default);

/// Registers a token, an API key, a secret or a password. A lower-case word is skipped, because it
/// may occur in any log.
pub fn credential(string: &str) {
    let is_word = string.bytes().all(|byte| byte.is_ascii_lowercase());
    if string.len() >= SHORTEST_CREDENTIAL && !is_word {
        add(string.as_bytes(), MOST);
    }
}

/// Registers a body and its members.
pub fn body(bytes: &[u8]) {
    let mut pieces = vec![bytes];
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(bytes).unwrap_or_default();
    let payload = members.iter().filter(|(name, _)| *name != "webhookId");
    pieces.extend(payload.map(|(_, value)| value.get().trim_matches('"').as_bytes()));
    for piece in pieces {
        let piece = &piece[..piece.len().min(PIECE)];
        if piece.len() >= SHORTEST_PAYLOAD {
            add(piece, MOST_WITH_BODIES);
        }
    }
}

/// Registers the credential and the body of a request in bytes.
pub fn request(bytes: &[u8]) {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return };
    body(&bytes[end + 4..]);
    for line in String::from_utf8_lossy(&bytes[..end]).lines() {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            credential(value.trim().split(' ').next_back().unwrap_or_default());
        }
    }
}

/// Fails if a log holds any registered string.
pub fn assert_absent(log: &str) {
    let leaks = leaks(log);
    assert!(leaks.is_empty(), "the log contains confidential strings:\n{}", leaks.join("\n"));
}

/// The lines of a log that hold any registered string.
pub fn leaks(log: &str) -> Vec<String> {
    // The search takes seconds to build, so other tests can register strings meanwhile.
    let strings = strings().clone();
    let search = AhoCorasick::new(strings).expect("the number of strings is bounded");
    let lines = log.lines().filter(|line| search.is_match(&normalized(line.as_bytes())));
    lines.map(str::to_owned).collect()
}

fn add(string: &[u8], most: usize) {
    let mut strings = strings();
    if strings.len() < most {
        strings.insert(normalized(string));
    }
}

/// Removes the backslashes by which a log escapes quotes, at any depth.
fn normalized(string: &[u8]) -> Vec<u8> {
    string.iter().copied().filter(|byte| *byte != b'\\').collect()
}

fn strings() -> MutexGuard<'static, HashSet<Vec<u8>>> {
    STRINGS.lock().unwrap_or_else(PoisonError::into_inner)
}
