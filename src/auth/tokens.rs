//! Tokens that were verified, so that a signature is computed once and not for every request.

use super::Refused;
use super::jwt::{Claims, JwtSettings, Token, Verified, Verifier};
use arc_swap::ArcSwap;
use hashbrown::DefaultHashBuilder;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Of all tokens that are remembered. Beyond it those go that are hardly used.
const REMEMBERED_BYTES: u64 = 32 << 20;

/// Of one of them, besides its text and what was read from it.
const BYTES_OF_ENTRY: u64 = 200;

/// Of one of them as most are.
const USUAL_BYTES: u64 = 600;

/// Verifies tokens by the settings of now.
#[derive(Debug)]
pub(super) struct Tokens {
    current: ArcSwap<Current>,
}

/// A verifier and what it has verified. What new keys are to decide is not remembered from old ones, and a token that
/// is being verified by old ones meanwhile is remembered where nobody looks any more.
#[derive(Debug)]
struct Current {
    verifier: Verifier,
    /// Good ones only: who sends bad ones pays for each, and drives out none.
    verified: Cache<Box<str>, Verified, BySize, DefaultHashBuilder>,
}

impl Current {
    fn new(settings: JwtSettings) -> Self {
        let verified = Cache::with(
            usize::try_from(REMEMBERED_BYTES / USUAL_BYTES).unwrap_or_default(),
            REMEMBERED_BYTES,
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
        // Claims are read from the text, and so are no longer than it.
        2 * token.len() as u64 + BYTES_OF_ENTRY
    }
}

impl Tokens {
    pub(super) fn new(settings: JwtSettings) -> Self {
        Self { current: ArcSwap::from_pointee(Current::new(settings)) }
    }

    pub(super) fn replace(&self, settings: JwtSettings) {
        self.current.store(Arc::new(Current::new(settings)));
    }

    /// The settings of now.
    pub(super) fn settings(&self) -> Arc<JwtSettings> {
        Arc::clone(&self.current.load().verifier.settings)
    }

    /// What a token says that was verified before and is good now.
    pub(super) fn remembered(&self, token: &str) -> Option<Claims> {
        self.remembered_at(token, now())
    }

    /// The clock may have been set back since the token was verified.
    fn remembered_at(&self, token: &str, now: u64) -> Option<Claims> {
        let verified = self.current.load().verified.get(token)?;
        (verified.not_before <= now && now <= verified.expires_at).then_some(verified.claims)
    }

    /// Verifies a token that was read from this text.
    pub(super) fn verify(&self, text: &str, token: &Token<'_>) -> Result<Claims, Refused> {
        let current = self.current.load();
        let verified = current.verifier.verify(token, now())?;
        current.verified.insert(text.into(), verified.clone());
        Ok(verified.claims)
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
