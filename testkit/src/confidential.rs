//! What no log may hold: every credential and every body that a test of this process has sent, and the secrets of its
//! configurations. The log of each Hookgate is searched for all of them when it ends.

use std::collections::{BTreeMap, HashSet};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use aho_corasick::AhoCorasick;
use serde_json::value::RawValue;

/// Shorter ones may be a word of any log.
const SHORTEST_CREDENTIAL: usize = 5;
const SHORTEST_PAYLOAD: usize = 16;

/// So much of a payload tells it from anything else.
const PIECE: usize = 64;

/// Tests under load send no end of different bodies; the first ones speak for all.
const MOST: usize = 10_000;

static TEXTS: LazyLock<Mutex<HashSet<Vec<u8>>>> = LazyLock::new(Mutex::default);

/// A token, an API key, a secret or a password; one that is a mere word cannot be told from others.
pub fn credential(text: &str) {
    let is_word = text.bytes().all(|byte| byte.is_ascii_lowercase());
    if text.len() >= SHORTEST_CREDENTIAL && !is_word {
        add(text.as_bytes());
    }
}

/// A body, and what it is made of.
pub fn body(bytes: &[u8]) {
    let mut pieces = vec![bytes];
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(bytes).unwrap_or_default();
    let payload = members.iter().filter(|(name, _)| *name != "webhookId");
    pieces.extend(payload.map(|(_, value)| value.get().trim_matches('"').as_bytes()));
    for piece in pieces {
        let piece = &piece[..piece.len().min(PIECE)];
        if piece.len() >= SHORTEST_PAYLOAD {
            add(piece);
        }
    }
}

/// Credential and body of a request in bytes.
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

/// Fails if a log holds any of them.
pub fn assert_absent(log: &str) {
    let leaks = leaks(log);
    assert!(leaks.is_empty(), "the log tells what is confidential:\n{}", leaks.join("\n"));
}

/// Lines of a log that hold any of them.
pub fn leaks(log: &str) -> Vec<String> {
    let search = AhoCorasick::new(texts().iter()).expect("not too many");
    let lines = log.lines().filter(|line| search.is_match(&levelled(line.as_bytes())));
    lines.map(str::to_owned).collect()
}

fn add(text: &[u8]) {
    let mut texts = texts();
    if texts.len() < MOST {
        texts.insert(levelled(text));
    }
}

/// Without the signs by which a log escapes quotes, however often it does so.
fn levelled(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| *byte != b'\\').collect()
}

fn texts() -> MutexGuard<'static, HashSet<Vec<u8>>> {
    TEXTS.lock().unwrap_or_else(PoisonError::into_inner)
}
