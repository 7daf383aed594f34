//! Puts a JWK set that was read or fetched into use.

use crate::auth::jwt::{JwkSet, JwtSettings};
use crate::auth::token_cache::Tokens;

/// Verifies by this set from now on, and logs what is new. If it equals the set in use, nothing
/// happens, so the cache of verified tokens stays valid. `settings` must be the current ones.
pub(super) fn adopt(tokens: &Tokens, settings: &JwtSettings, set: JwkSet) {
    if settings.jwks().is_some_and(|old| old.digest == set.digest) {
        return;
    }
    tracing::info!(keys = set.usable(), skipped = set.skipped, "JWK set loaded");
    let new = settings.with_jwks(set);
    for warning in new_warnings(settings, &new) {
        tracing::warn!("{warning}");
    }
    tokens.replace(new);
}

/// The warnings about settings that are not about earlier ones too.
pub(super) fn new_warnings(old: &JwtSettings, new: &JwtSettings) -> Vec<String> {
    let known = old.warnings();
    new.warnings().into_iter().filter(|warning| !known.contains(warning)).collect()
}
