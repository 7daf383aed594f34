//! Follows the file of the JWK set. A set that cannot be read takes no key away; one that has none takes them all.

use super::callers::KeyDigest;
use super::tokens::Tokens;
use crate::lifecycle::{Condition, Reporter};
use crate::metrics::Metrics;
use crate::watched_file::{LOOK_INTERVAL, WatchedFile};
use std::path::Path;
use std::sync::Arc;
use tokio::time::Instant;

/// Looks after which a set is said to be unreadable: what is wrong for a single one may be a change under way.
const FAILED_LOOKS: u32 = 2;

/// The gauge where no set is configured.
const NO_SET: f64 = -1.0;

/// Keeps the keys of the JWK set as its file has them. Never ends.
pub(super) async fn follow(tokens: Arc<Tokens>, readiness: Reporter, metrics: Arc<Metrics>) {
    let mut followed: Option<Followed> = None;
    loop {
        let settings = tokens.settings();
        let path = settings.jwks().map(|jwks| jwks.path.as_path());
        if followed.as_ref().map(|followed| followed.file.path().as_path()) != path {
            followed = path.map(Followed::new);
        }
        drop(settings);
        let condition = match &mut followed {
            None => {
                metrics.jwks.age.set(NO_SET);
                Condition::Ready
            }
            Some(followed) => followed.look(&tokens, &metrics).await,
        };
        readiness.set(condition);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The file of the set in use.
struct Followed {
    file: WatchedFile,
    /// When its contents were last known to be those in use.
    confirmed: Instant,
    failed_looks: u32,
    /// The set that was read last. Its entries count once, also when it is read again.
    read: Option<KeyDigest>,
}

impl Followed {
    /// A file that was read a moment ago, with the settings.
    fn new(path: &Path) -> Self {
        let file = WatchedFile::new(path.to_owned());
        Self { file, confirmed: Instant::now(), failed_looks: 0, read: None }
    }

    async fn look(&mut self, tokens: &Tokens, metrics: &Metrics) -> Condition {
        let failed = self.refresh(tokens, metrics).await.err();
        let condition = match failed {
            None => {
                self.confirmed = Instant::now();
                self.failed_looks = 0;
                Condition::Ready
            }
            Some(reason) => {
                // It is read again at the next look, changed or not.
                self.file.forget();
                self.failed_looks = self.failed_looks.saturating_add(1);
                self.report(&reason)
            }
        };
        metrics.jwks.age.set(self.confirmed.elapsed().as_secs_f64());
        condition
    }

    fn report(&self, reason: &str) -> Condition {
        let path = self.file.path().display();
        if self.failed_looks == FAILED_LOOKS {
            tracing::warn!(%path, reason, "JWK set not readable, the last good one stays");
        }
        if self.failed_looks < FAILED_LOOKS {
            return Condition::Ready;
        }
        let note =
            format!("auth.jwt.jwks_file {path} is not readable, the last good set stays: {reason}");
        Condition::Degraded(vec![note])
    }

    async fn refresh(&mut self, tokens: &Tokens, metrics: &Metrics) -> Result<(), String> {
        let before = tokens.settings();
        if before.jwks().map(|set| set.digest) != self.read {
            // A reload has put another set in force, which it may have read before this one.
            self.file.forget();
        }
        let json = self.file.read_if_changed().await.map_err(|error| error.to_string())?;
        let Some(json) = json else { return Ok(()) };
        // Nothing is awaited from here on, so that these stay the settings in force.
        let settings = tokens.settings();
        if !Arc::ptr_eq(&settings, &before) {
            // A reload may have taken keys away, or follow another file. What was read may be older than what it has read.
            self.file.forget();
            return Ok(());
        }
        let new = settings.with_jwks(&json, self.file.path())?;
        let Some(set) = new.jwks() else { return Ok(()) };
        if self.read.replace(set.digest) != Some(set.digest) {
            metrics.jwks.skipped_keys.increment(set.left_out);
        }
        // With the same keys, the tokens that they have verified are still good.
        if settings.jwks().is_some_and(|old| old.digest == set.digest) {
            return Ok(());
        }
        tracing::info!(keys = set.usable(), left_out = set.left_out, "JWK set read");
        let known = settings.warnings();
        let new_warnings = new.warnings().into_iter().filter(|warning| !known.contains(warning));
        new_warnings.for_each(|warning| tracing::warn!("{warning}"));
        tokens.replace(new);
        Ok(())
    }
}
