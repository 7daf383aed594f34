//! Tokens that were verified, so that a signature is computed once and not for every request.

use super::AuthError;
use super::jwt::{Claims, JwtSettings, Verified, Verifier};
use crate::watched_file::{LOOK_INTERVAL, WatchedFile};
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

    /// What a token says that was verified before and has not expired.
    pub(super) fn remembered(&self, token: &str) -> Option<Claims> {
        let verified = self.current.load().verified.get(token)?;
        (verified.expires_at >= now()).then_some(verified.claims)
    }

    pub(super) fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        let current = self.current.load();
        let verified = current.verifier.verify(token)?;
        current.verified.insert(token.into(), verified.clone());
        Ok(verified.claims)
    }

    /// Keeps the keys of the JWK set as its file has them. Never ends.
    pub(super) async fn follow_jwks(self: Arc<Self>) {
        let mut file: Option<WatchedFile> = None;
        let mut was_fine = true;
        loop {
            let current = self.current.load_full();
            let settings = &current.verifier.settings;
            let path = settings.jwks_file();
            if file.as_ref().map(|file| file.path().as_path()) != path {
                file = path.map(|path| WatchedFile::new(path.to_owned()));
                was_fine = true;
            }
            if let Some(file) = &mut file {
                match self.refresh(file, settings) {
                    Ok(()) => was_fine = true,
                    Err(message) if was_fine => {
                        was_fine = false;
                        tracing::warn!(path = %file.path().display(), reason = message, "JWK set not readable, the last good one stays");
                    }
                    Err(_) => {}
                }
            }
            drop(current);
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn refresh(&self, file: &mut WatchedFile, settings: &JwtSettings) -> Result<(), String> {
        if let Some(json) = file.read_if_changed().map_err(|error| error.to_string())? {
            self.replace(settings.with_jwks(&json)?);
            tracing::info!("JWK set read");
        }
        Ok(())
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
