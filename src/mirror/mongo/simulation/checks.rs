//! What every lookup must answer at every moment.

use crate::mirror::index::key::IndexKey;
use crate::mirror::index::sharded::ShardedIndex;
use crate::mirror::mongo::simulation::content::{Answer, KEYS, found};
use crate::mirror::mongo::simulation::mutation::Mutation;
use crate::mirror::mongo::simulation::server::Server;
use crate::mirror::{Freshness, StaleIndex};

use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A moment is kept in whole milliseconds.
const PRECISION: Duration = Duration::from_millis(2);

/// What a request uses to look up.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) index: [Arc<ShardedIndex>; 2],
    pub(super) freshness: Arc<Freshness>,
    pub(super) mutation: Option<Mutation>,
}

#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) violation: Option<String>,
    /// The numbers of hits, believed misses and stale misses.
    pub(super) counts: [u64; 3],
    /// For each key, the version of the collection that its last answer shows.
    shown: [usize; KEYS as usize],
}

impl Checks {
    /// Looks every key up. Returns a number that identifies the answers.
    pub(super) fn look_up(&mut self, readers: &Readers, server: &Server) -> Option<u64> {
        if self.violation.is_some() {
            return None;
        }
        let mut answers = 0;
        for key in 0..KEYS {
            let is_current = readers.freshness.can_confirm_miss();
            let found = look_up(readers, key);
            if let Err(violation) = self.check(readers, server, (key, is_current), &found) {
                let age = readers.freshness.age();
                self.violation = Some(format!("key {key} of age {age:?}: {violation}"));
            }
            let number = found.map_or(1, |found| {
                found.iter().fold(2, |sum: u64, (document, version)| {
                    sum * 31 + u64::from(*document) * 7 + u64::from(*version)
                })
            });
            answers = u64::wrapping_mul(answers, 1009).wrapping_add(number);
        }
        Some(answers)
    }

    fn check(
        &mut self,
        readers: &Readers,
        server: &Server,
        (key, is_current): (u8, bool),
        found: &Result<Answer, StaleIndex>,
    ) -> Result<(), String> {
        match found {
            Err(StaleIndex) => {
                self.counts[2] += 1;
                let is_miss = readers.index[0].read(IndexKey::new(&[key]), |found| found.is_none());
                if is_current {
                    Err("a current index denies nothing".to_owned())
                } else if !is_miss {
                    Err("a hit is refused".to_owned())
                } else {
                    Ok(())
                }
            }
            Ok(found) => {
                self.counts[usize::from(found.is_empty())] += 1;
                if is_current || found.is_empty() {
                    self.check_moment(server, (key, readers.freshness.max_staleness), found)
                } else {
                    check_documents(server, key, found)
                }
            }
        }
    }

    /// The answer must be that of one moment within the span, and not be older than that of the last answer.
    fn check_moment(
        &mut self,
        server: &Server,
        (key, span): (u8, Duration),
        found: &Answer,
    ) -> Result<(), String> {
        let begin = Instant::now().checked_sub(span + PRECISION);
        let first = server.history.partition_point(|version| Some(version.at) <= begin);
        let first = first.saturating_sub(1);
        let shown = &mut self.shown[usize::from(key)];
        let from = first.max(*shown);
        let at = (from..server.history.len())
            .find(|at| server.history[*at].answers[usize::from(key)] == *found);
        if let Some(at) = at {
            *shown = at;
            return Ok(());
        }
        let versions: Vec<_> = server.history[first..]
            .iter()
            .map(|version| (version.at.elapsed(), version.answers[usize::from(key)].clone()))
            .collect();
        Err(format!(
            "found {found:?}, but within {span:?} it was {versions:?}, from no. {from} of {first}"
        ))
    }
}

/// Each document that was found must have been so at some time.
fn check_documents(server: &Server, key: u8, found: &Answer) -> Result<(), String> {
    let was = |of_document: &(u8, u32)| {
        server
            .history
            .iter()
            .rev()
            .any(|version| version.answers[usize::from(key)].contains(of_document))
    };
    match found.iter().find(|of_document| !was(of_document)) {
        Some(of_document) => Err(format!("found {of_document:?}, which never was")),
        None => Ok(()),
    }
}

/// Looks a key up as a request does.
fn look_up(readers: &Readers, key: u8) -> Result<Answer, StaleIndex> {
    let (index, freshness) = (&readers.index[0], &readers.freshness);
    let key = [key];
    let key = IndexKey::new(&key);
    let is_young = || freshness.age().is_some_and(|age| age <= freshness.max_staleness);
    match readers.mutation {
        Some(Mutation::MissWhileStale) if freshness.is_loaded() => Ok(index.read(key, found)),
        Some(Mutation::MissWhileInconsistent) if is_young() => Ok(index.read(key, found)),
        _ => index.lookup(key, freshness, found),
    }
}
