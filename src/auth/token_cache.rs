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
                Err(Unverified::NoKeyYet { id }) => {
                    if let Some(refusal) = self.refusal_of_unknown_key(&current, id) {
                        return Err(refusal);
                    }
                }
            }
        }
    }

    /// Refuses a token whose key `current` lacks. `None` if `current` has been replaced meanwhile.
    fn refusal_of_unknown_key(
        &self,
        current: &Arc<ActiveVerifier>,
        id: Option<&str>,
    ) -> Option<CredentialRefusal> {
        let is_absent = id.is_some_and(|id| self.unknown_key_ids.is_absent(id, Instant::now()));
        // The comparison comes last: `settle` counts an id as absent after its set is in use, also
        // if that set has the key.
        if !Arc::ptr_eq(current, &self.current.load()) {
            return None;
        }
        Some(if is_absent {
            CredentialRefusal::token("its kid is not in the JWK set of auth.jwt.jwks_url")
        } else {
            CredentialRefusal::key_unavailable()
        })
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    unix_time::since_epoch(SystemTime::now()).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::jwt::{JwkSet, JwksSource};
    use crate::settings::SettingsReader;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    const SETTINGS: &str =
        "[jwt]\nalgorithms = [\"EdDSA\"]\njwks_url = \"https://id.example.com/jwks\"\n";

    /// A token with this key id, and its key as an entry of a set.
    fn token(id: &str) -> (String, String) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let header = encode(format!(r#"{{"alg":"EdDSA","kid":"{id}"}}"#).as_bytes());
        let claims = encode(br#"{"sub":"u","organizationId":"o","exp":9999999999}"#);
        let message = format!("{header}.{claims}");
        let signature = encode(pair.sign(message.as_bytes()).as_ref());
        let x = encode(pair.public_key().as_ref());
        let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{id}","x":"{x}"}}"#);
        (format!("{message}.{signature}"), jwk)
    }

    fn adopt(tokens: &Tokens, keys: &[&str]) {
        let json = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        let set = JwkSet::parse(json.as_bytes(), JwksSource::Url).unwrap();
        tokens.replace(tokens.settings().with_jwks(set));
    }

    #[test]
    fn a_key_that_is_adopted_during_the_verification_is_not_refused() {
        let mut reader = SettingsReader::new(toml::from_str(SETTINGS).unwrap(), std::iter::empty());
        let tokens = Tokens::new(JwtSettings::read(&mut reader.section("jwt")));
        let ((_, old), (credential, new)) = (token("old"), token("new"));
        adopt(&tokens, &[&old]);
        let token = Token::read(&credential).unwrap();
        assert_eq!(
            tokens.verify(&credential, &token),
            Err(CredentialRefusal::key_unavailable()),
            "the id is pending"
        );
        // A worker has verified by the old set when the new one and its ids come into use.
        let before = tokens.current.load_full();
        let Err(Unverified::NoKeyYet { id }) = before.verifier.verify(&token, now()) else {
            panic!("the old set lacks the key")
        };
        adopt(&tokens, &[&old, &new]);
        let later = Instant::now();
        tokens.unknown_key_ids.settle(later, later);
        assert_eq!(tokens.refusal_of_unknown_key(&before, id), None);
        assert!(tokens.verify(&credential, &token).is_ok());
        // A set that lacks the key refuses it.
        adopt(&tokens, &[&old]);
        let refusal = tokens.verify(&credential, &token).unwrap_err();
        assert_eq!(refusal.error, crate::auth::AuthError::InvalidToken);
    }
}
