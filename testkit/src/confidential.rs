//! What no log may hold: every credential and body that a test of this process has sent, and the
//! secrets of its configurations. The log of each Hookgate is searched for all of them when it
//! ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;

/// Shorter credentials may be a word of any log.
const SHORTEST_CREDENTIAL: usize = 5;
const SHORTEST_PAYLOAD: usize = 16;

/// Bytes of a payload that suffice to recognize it.
const PIECE: usize = 64;

/// Bound on the bodies, because tests under load send any number of them.
const MOST_BODIES: usize = 50_000;

/// The beginning of a registered string, by which a search finds it.
type Start<const LENGTH: usize> = [u8; LENGTH];

static STRINGS: LazyLock<Mutex<Strings>> = LazyLock::new(Mutex::default);

#[derive(Debug, Default)]
struct Strings {
    /// Many strings of a test have their first five bytes in common, so most are found by more.
    long: HashMap<Start<SHORTEST_PAYLOAD>, HashSet<Vec<u8>>>,
    short: HashMap<Start<SHORTEST_CREDENTIAL>, HashSet<Vec<u8>>>,
    bodies: usize,
}

impl Strings {
    /// Returns whether the string is new.
    fn add(&mut self, string: &[u8]) -> bool {
        let string = normalized(string);
        match (string.first_chunk(), string.first_chunk()) {
            (Some(start), _) => self.long.entry(*start).or_default().insert(string),
            (None, Some(start)) => self.short.entry(*start).or_default().insert(string),
            (None, None) => false,
        }
    }

    fn occur_in(&self, text: &[u8]) -> bool {
        let text = normalized(text);
        is_in(&text, &self.long) || is_in(&text, &self.short)
    }
}

fn is_in<const LENGTH: usize>(
    text: &[u8],
    strings: &HashMap<Start<LENGTH>, HashSet<Vec<u8>>>,
) -> bool {
    text.windows(LENGTH).enumerate().any(|(at, start)| {
        let mut candidates = strings.get(start).into_iter().flatten();
        candidates.any(|string| text[at..].starts_with(string))
    })
}

/// Registers a token, an API key, a secret or a password. A lower-case word is skipped, because it
/// may occur in any log.
pub fn credential(string: &str) {
    let is_word = string.bytes().all(|byte| byte.is_ascii_lowercase());
    if string.len() >= SHORTEST_CREDENTIAL && !is_word {
        strings().add(string.as_bytes());
    }
}

/// Registers a body and its members.
pub fn body(bytes: &[u8]) {
    let mut pieces = vec![bytes];
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(bytes).unwrap_or_default();
    let payload = members.iter().filter(|(name, _)| *name != "webhookId");
    pieces.extend(payload.map(|(_, value)| value.get().trim_matches('"').as_bytes()));
    let mut strings = strings();
    for piece in pieces {
        let piece = &piece[..piece.len().min(PIECE)];
        if piece.len() >= SHORTEST_PAYLOAD && strings.bodies < MOST_BODIES {
            strings.bodies += usize::from(strings.add(piece));
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
    // Locked for a line at a time: other tests register strings while a long log is searched.
    let lines = log.lines().filter(|line| strings().occur_in(line.as_bytes()));
    lines.map(str::to_owned).collect()
}

/// Removes the backslashes by which a log escapes quotes, at any depth.
fn normalized(string: &[u8]) -> Vec<u8> {
    string.iter().copied().filter(|byte| *byte != b'\\').collect()
}

fn strings() -> MutexGuard<'static, Strings> {
    STRINGS.lock().unwrap_or_else(PoisonError::into_inner)
}
