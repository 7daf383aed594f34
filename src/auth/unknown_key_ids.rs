//! The key ids of tokens that are not in the JWK set of `auth.jwt.jwks_url`. Such an id starts a
//! fetch, because the issuer may have published its key after the last one.

use crate::auth::key_encoding::{KeyDigest, digest_of};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Maximum number of ids that are remembered.
const MAX_IDS: usize = 1000;

/// How long an id counts as absent after a fetch has come back without it.
const ABSENT_TIME: Duration = Duration::from_secs(10);

/// The unknown ids that were seen lately.
#[derive(Debug, Default)]
pub(super) struct UnknownKeyIds {
    ids: Mutex<Ids>,
}

#[derive(Debug, Default)]
struct Ids {
    /// By the digest of the id, because a caller chooses its length.
    seen: HashMap<KeyDigest, Sighting>,
    /// Whether an id was not remembered, because there are too many.
    has_overflowed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sighting {
    /// No fetch that began after this time, at which the id was first seen, has come back.
    Pending(Instant),
    /// A fetch has come back without the id, which counts until this time.
    Absent(Instant),
}

impl UnknownKeyIds {
    /// Whether an id that is not in the set in use is known to be absent from the newest one too.
    /// Otherwise the id is remembered and starts a fetch.
    pub(super) fn is_absent(&self, id: &str, now: Instant) -> bool {
        let digest = digest_of(id.as_bytes());
        let mut ids = self.ids.lock();
        match ids.seen.get(&digest) {
            Some(Sighting::Absent(until)) if now < *until => return true,
            Some(Sighting::Pending(_)) => return false,
            None if ids.seen.len() >= MAX_IDS => {
                ids.has_overflowed = true;
                return false;
            }
            Some(Sighting::Absent(_)) | None => {}
        }
        ids.seen.insert(digest, Sighting::Pending(now));
        false
    }

    /// Whether a fetch may tell more about an id. Forgets the ids that were absent some time ago.
    pub(super) fn want_fetch(&self, now: Instant) -> bool {
        let mut ids = self.ids.lock();
        ids.seen.retain(|_, id| !matches!(id, Sighting::Absent(until) if *until <= now));
        let mut sightings = ids.seen.values();
        ids.has_overflowed || sightings.any(|id| matches!(id, Sighting::Pending(_)))
    }

    /// Records that a fetch, which began at this time, has come back. Its set must be in use already.
    /// A pending id counts as absent even if the set has it, so an answer is valid only for a token
    /// that was verified by the set in use.
    pub(super) fn settle(&self, began: Instant, now: Instant) {
        let mut ids = self.ids.lock();
        ids.has_overflowed = false;
        for id in ids.seen.values_mut() {
            if matches!(id, Sighting::Pending(first_seen) if *first_seen <= began) {
                *id = Sighting::Absent(now + ABSENT_TIME);
            }
        }
    }

    /// Forgets all ids, because another set is followed from now on.
    pub(super) fn clear(&self) {
        *self.ids.lock() = Ids::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_id_is_absent_only_after_a_fetch_that_began_after_it_was_seen() {
        let ids = UnknownKeyIds::default();
        let start = Instant::now();
        assert!(!ids.want_fetch(start));
        assert!(!ids.is_absent("a", start + SECOND));
        assert!(ids.want_fetch(start + SECOND));
        // This fetch began before the id was seen, so its set may be older than the key.
        ids.settle(start, start + 2 * SECOND);
        assert!(!ids.is_absent("a", start + 2 * SECOND) && ids.want_fetch(start + 2 * SECOND));
        let back = start + 4 * SECOND;
        ids.settle(start + 3 * SECOND, back);
        assert!(ids.is_absent("a", back) && !ids.want_fetch(back));
        assert!(!ids.is_absent("b", back) && ids.want_fetch(back));
        ids.settle(back, back);
        let last = back + ABSENT_TIME - SECOND;
        assert!(ids.is_absent("a", last) && !ids.want_fetch(last));
        // Then it starts another fetch.
        let later = back + ABSENT_TIME;
        assert!(!ids.is_absent("a", later) && ids.want_fetch(later));
    }

    #[test]
    fn a_flood_of_ids_is_remembered_in_part_and_settled_as_a_whole() {
        let ids = UnknownKeyIds::default();
        let start = Instant::now();
        for serial in 0..3 * MAX_IDS {
            assert!(!ids.is_absent(&format!("id {serial}"), start));
        }
        assert_eq!(ids.ids.lock().seen.len(), MAX_IDS);
        ids.settle(start, start);
        assert!(!ids.want_fetch(start) && ids.is_absent("id 0", start));
        // One that is not remembered starts a fetch all the same.
        assert!(!ids.is_absent("one more", start) && ids.want_fetch(start));
        assert!(ids.want_fetch(start + ABSENT_TIME) && ids.ids.lock().seen.is_empty());
        ids.clear();
        assert!(!ids.want_fetch(start));
    }
}
