//! Reads the file of the JWK set again when it changes.

use crate::auth::jwks::adoption::adopt;
use crate::auth::jwt::{JwkSet, JwksSource};
use crate::auth::key_encoding::KeyDigest;
use crate::auth::token_cache::Tokens;
use crate::files::watched_file::WatchedFile;
use crate::metrics::Metrics;
use crate::process::lifecycle::Condition;
use std::path::Path;
use std::sync::Arc;
use tokio::time::Instant;

/// Failed reads in a row after which a set is reported as unreadable. A single failure may be a
/// replacement of the file in progress.
const REPORTED_FAILURES: u32 = 2;

/// The file of the JWK set in use.
pub(super) struct WatchedJwks {
    file: WatchedFile,
    /// When the file was last known to equal the set in use.
    confirmed: Instant,
    failed_reads: u32,
    /// The digest of the set that was read last, so that its skipped entries are counted only once.
    read: Option<KeyDigest>,
}

impl WatchedJwks {
    /// Follows a file that has just been read together with the settings.
    pub(super) fn new(path: &Path) -> Self {
        let file = WatchedFile::new(path.to_owned());
        Self { file, confirmed: Instant::now(), failed_reads: 0, read: None }
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(super) async fn poll_file(&mut self, tokens: &Tokens, metrics: &Metrics) -> Condition {
        let failure = self.refresh(tokens, metrics).await.err();
        let condition = match failure {
            None => {
                self.confirmed = Instant::now();
                self.failed_reads = 0;
                Condition::Ready
            }
            Some(reason) => {
                // The file is read again at the next poll even if it has not changed.
                self.file.forget();
                self.failed_reads = self.failed_reads.saturating_add(1);
                self.report(&reason)
            }
        };
        metrics.jwks.age.set(self.confirmed.elapsed().as_secs_f64());
        condition
    }

    fn report(&self, reason: &str) -> Condition {
        let path = self.file.path().display();
        if self.failed_reads == REPORTED_FAILURES {
            tracing::warn!(%path, reason, "JWK set is unreadable; keeping the last good one");
        }
        if self.failed_reads < REPORTED_FAILURES {
            return Condition::Ready;
        }
        let note =
            format!("auth.jwt.jwks_file {path} is unreadable; keeping the last good set: {reason}");
        Condition::Degraded(vec![note])
    }

    async fn refresh(&mut self, tokens: &Tokens, metrics: &Metrics) -> Result<(), String> {
        let before = tokens.settings();
        if before.jwks().map(|set| set.digest) != self.read {
            // A reload has replaced the set, possibly with an older one than the last read here.
            self.file.forget();
        }
        let json = self.file.read_if_changed().await.map_err(|error| error.to_string())?;
        let Some(json) = json else { return Ok(()) };
        // There is no await from here on, so these settings stay current.
        let settings = tokens.settings();
        if !Arc::ptr_eq(&settings, &before) {
            // A reload may have removed keys or changed the path, and may have read the file later.
            self.file.forget();
            return Ok(());
        }
        let set = JwkSet::parse(&json, JwksSource::File(self.file.path().clone()))?;
        if self.read.replace(set.digest) != Some(set.digest) {
            metrics.jwks.skipped_keys.increment(set.skipped);
        }
        adopt(tokens, &settings, set);
        Ok(())
    }
}
