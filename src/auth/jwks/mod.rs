//! Keeps the keys equal to the JWK set of a file or URL. An unreadable set leaves the keys in use; a
//! set without entries removes all of them.

mod adoption;
mod file;
mod url;

use crate::auth::jwks::file::WatchedJwks;
use crate::auth::jwks::url::FetchedJwks;
pub(super) use crate::auth::jwks::url::survey;
use crate::auth::jwt::JwtSettings;
use crate::auth::token_cache::Tokens;
use crate::files::watched_file::POLL_INTERVAL;
use crate::metrics::Metrics;
use crate::process::lifecycle::{Condition, Reporter};
use std::sync::Arc;

/// The value of the age gauge if no set is configured.
const NO_SET: f64 = -1.0;

/// Follows the JWK set, if there is one. Never ends.
pub(super) async fn follow(
    tokens: Arc<Tokens>,
    api_keys_enabled: bool,
    readiness: Reporter,
    metrics: Arc<Metrics>,
) {
    let mut followed = Followed::Nothing;
    loop {
        let settings = tokens.settings();
        if !followed.is_of(&settings) {
            followed = Followed::new(&settings);
        }
        drop(settings);
        let condition = match &mut followed {
            Followed::Nothing => {
                metrics.jwks.age.set(NO_SET);
                Condition::Ready
            }
            Followed::File(file) => file.poll_file(&tokens, &metrics).await,
            Followed::Url(url) => url.poll(&tokens, api_keys_enabled, &metrics).await,
        };
        readiness.set(condition);
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The source of the set in use.
enum Followed {
    Nothing,
    File(WatchedJwks),
    Url(Box<FetchedJwks>),
}

impl Followed {
    fn new(settings: &JwtSettings) -> Self {
        match (settings.jwks_file(), settings.jwks_url()) {
            (Some(path), _) => Self::File(WatchedJwks::new(path)),
            (None, Some(source)) => Self::Url(Box::new(FetchedJwks::new(source))),
            (None, None) => Self::Nothing,
        }
    }

    /// Whether this is the source of these settings.
    fn is_of(&self, settings: &JwtSettings) -> bool {
        match (self, settings.jwks_file(), settings.jwks_url()) {
            (Self::File(file), Some(path), _) => file.path() == path,
            (Self::Url(fetched), None, Some(source)) => *fetched.url() == source.url,
            (Self::Nothing, None, None) => true,
            _ => false,
        }
    }
}
