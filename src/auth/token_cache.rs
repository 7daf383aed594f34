//! Caches verified tokens, so that a signature is verified once and not for every request.

use crate::auth::jwt::{Claims, JwtSettings, Token, Unverified, Verified, Verifier};
use crate::auth::refusal::CredentialRefusal;
use crate::auth::unknown_key_ids::UnknownKeyIds;
use crate::process::unix_time;
use arc_swap::ArcSwap;
use hashbrown::DefaultHashBuilder;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::Instant;

/// Maximum bytes of all cached tokens. Beyond it, rarely used tokens are evicted.
const CACHE_BYTES: u64 = 32 << 20;

/// Bytes of a cache entry besides the token and its claims.
const ENTRY_BYTES: u64 = 200;

/// Bytes of a typical cache entry.
const TYPICAL_BYTES: u64 = 600;

/// Verifies tokens by the current settings.
#[derive(Debug)]
pub(super) struct Tokens {
    current: ArcSwap<ActiveVerifier>,
    unknown_key_ids: UnknownKeyIds,
}

/// A verifier and the tokens that it has verified. They are replaced together, so new settings
/// never use the cache of old ones: a token that the old verifier is still verifying enters the old
/// cache, which is no longer read.
#[derive(Debug)]
struct ActiveVerifier {
    verifier: Verifier,
    /// Only valid tokens are cached, so invalid ones cannot evict them.
    verified: Cache<Box<str>, Verified, BySize, DefaultHashBuilder>,
}

impl ActiveVerifier {
    fn new(settings: JwtSettings) -> Self {
        let verified = Cache::with(
            usize::try_from(CACHE_BYTES / TYPICAL_BYTES).unwrap_or_default(),
            CACHE_BYTES,
            BySize,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        Self { verifier: Verifier::new(settings), verified }
    }
}

#[derive(Debug, Clone)]
struct BySize;

impl Weighter<Box<str>, Verified> for BySize {
    fn weight(&self, token: &Box<str>, _: &Verified) -> u64 {
        // The claims come from the token, so they are no longer than it.
        2 * token.len() as u64 + ENTRY_BYTES
    }
}

impl Tokens {
    pub(super) fn new(settings: JwtSettings) -> Self {
        let current = ArcSwap::from_pointee(ActiveVerifier::new(settings));
        Self { current, unknown_key_ids: UnknownKeyIds::default() }
    }

    pub(super) fn replace(&self, settings: JwtSettings) {
        self.current.store(Arc::new(ActiveVerifier::new(settings)));
    }

    /// Verifies by the settings of a reload from now on. A fetched JWK set stays in use as long as
    /// its URL does.
    pub(super) fn reload(&self, settings: JwtSettings) {
        let before = self.settings();
        if !settings.has_url_of(&before) {
            self.unknown_key_ids.clear();
        }
        self.replace(settings.with_fetched_set_of(&before));
    }

    pub(super) fn unknown_key_ids(&self) -> &UnknownKeyIds {
        &self.unknown_key_ids
    }

    /// The current settings.
    pub(super) fn settings(&self) -> Arc<JwtSettings> {
        Arc::clone(&self.current.load().verifier.settings)
    }

    /// The claims of a cached token that is valid now.
    pub(super) fn cached(&self, token: &str) -> Option<Claims> {
        self.cached_at(token, now())
    }

    /// `not_before` is checked again, because the clock may have been set back after the
    /// verification.
    fn cached_at(&self, token: &str, now: u64) -> Option<Claims> {
        let verified = self.current.load().verified.get(token)?;
        (verified.not_before <= now && now <= verified.expires_at).then_some(verified.claims)
    }

    /// Verifies a token that was parsed from `credential`, and caches it if it is valid.
    pub(super) fn verify(
        &self,
        credential: &str,
        token: &Token<'_>,
    ) -> Result<Claims, CredentialRefusal> {
        loop {
            let current = self.current.load();
            match current.verifier.verify(token, now()) {
                Ok(verified) => {
                    current.verified.insert(credential.into(), verified.clone());
                    return Ok(verified.claims);
                }
                Err(Unverified::Refused(refusal)) => return Err(refusal),
                // The set in use may have been replaced by one that has the key.
                Err(Unverified::NoKeyYet { .. })
                    if !Arc::ptr_eq(&current, &self.current.load()) => {}
                Err(Unverified::NoKeyYet { id }) => return Err(self.refusal_of_unknown_key(id)),
            }
        }
    }

    fn refusal_of_unknown_key(&self, id: Option<&str>) -> CredentialRefusal {
        if id.is_some_and(|id| self.unknown_key_ids.is_absent(id, Instant::now())) {
            CredentialRefusal::token("its kid is not in the JWK set of auth.jwt.jwks_url")
        } else {
            CredentialRefusal::key_unavailable()
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    unix_time::since_epoch(SystemTime::now()).as_secs()
}
