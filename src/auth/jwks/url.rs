//! Fetches the JWK set of a URL: at the start, by its `Cache-Control`, and for unknown key ids.

use crate::auth::jwks::adoption::{adopt, new_warnings};
use crate::auth::jwt::{JwkSet, JwksSource, JwksUrl, JwtSettings};
use crate::auth::key_encoding::KeyDigest;
use crate::auth::token_cache::Tokens;
use crate::http::client::{Client, DocumentUrl, FetchedDocument, Trust};
use crate::metrics::Metrics;
use crate::process::findings::Findings;
use crate::process::lifecycle::Condition;
use std::time::Duration;
use tokio::time::Instant;

/// Maximum bytes of a set.
const MAX_BYTES: usize = 1 << 20;

/// Time limit of a fetch.
const FETCH_LIMIT: Duration = Duration::from_secs(5);

/// How long a set may be used before it is fetched again, if its `Cache-Control` does not say it.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(5 * 60);
const MIN_LIFETIME: Duration = Duration::from_secs(60);
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The least time between the beginnings of two fetches, except before the first set.
const FETCH_INTERVAL: Duration = Duration::from_secs(10);

/// Time after the first failed fetch, if there is no set yet. It doubles up to [`FETCH_INTERVAL`].
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Fetches the set once, for `hookgate check --connect`. `None` without a URL.
pub(in crate::auth) async fn survey(
    settings: &JwtSettings,
    api_keys_enabled: bool,
) -> Option<Findings> {
    let source = settings.jwks_url()?;
    let mut fetched = FetchedJwks::new(source);
    let mut findings = Findings::default();
    match fetched.fetch(&source.trust).await {
        Ok((set, lifetime)) => {
            findings.fact("keys", set.usable());
            findings.fact("skipped", set.skipped);
            findings.fact("lifetime_seconds", lifetime.as_secs());
            for warning in new_warnings(settings, &settings.with_jwks(set)) {
                findings.warning(warning);
            }
        }
        Err(reason) => {
            fetched.failure = Some(reason);
            findings.condition(fetched.condition(settings, api_keys_enabled));
        }
    }
    Some(findings)
}

/// The set of a URL.
pub(super) struct FetchedJwks {
    client: Client,
    /// When the next fetch is due.
    next: Instant,
    /// When the last fetch began.
    began: Option<Instant>,
    /// When the set in use was last confirmed, or the time of the start.
    confirmed: Instant,
    /// Why the last fetch has failed.
    failure: Option<String>,
    retry: Duration,
    /// The digest of the set that was fetched last, so that its skipped entries are counted once.
    read: Option<KeyDigest>,
}

impl FetchedJwks {
    pub(super) fn new(source: &JwksUrl) -> Self {
        let now = Instant::now();
        Self {
            client: Client::new(source.url.clone(), MAX_BYTES),
            next: now,
            began: None,
            confirmed: now,
            failure: None,
            retry: FIRST_RETRY,
            read: None,
        }
    }

    pub(super) fn url(&self) -> &DocumentUrl {
        self.client.url()
    }

    /// Fetches the set if that is due.
    pub(super) async fn poll(
        &mut self,
        tokens: &Tokens,
        api_keys_enabled: bool,
        metrics: &Metrics,
    ) -> Condition {
        let now = Instant::now();
        let is_free = self.began.is_none_or(|began| now >= began + FETCH_INTERVAL);
        if now >= self.next || (tokens.unknown_key_ids().want_fetch(now) && is_free) {
            self.refresh(tokens, metrics).await;
        }
        metrics.jwks.age.set(self.confirmed.elapsed().as_secs_f64());
        self.condition(&tokens.settings(), api_keys_enabled)
    }

    async fn refresh(&mut self, tokens: &Tokens, metrics: &Metrics) {
        let Some(JwksUrl { trust, .. }) = tokens.settings().jwks_url().cloned() else { return };
        let began = Instant::now();
        self.began = Some(began);
        let fetched = self.fetch(&trust).await;
        // There is no await from here on, so these settings stay current.
        let settings = tokens.settings();
        if settings.jwks_url().is_none_or(|source| source.url != *self.client.url()) {
            return;
        }
        match fetched {
            Ok((set, lifetime)) => {
                if self.read.replace(set.digest) != Some(set.digest) {
                    metrics.jwks.skipped_keys.increment(set.skipped);
                }
                adopt(tokens, &settings, set);
                self.succeed(began, lifetime);
                tokens.unknown_key_ids().settle(began, Instant::now());
            }
            Err(reason) => self.fail(began, reason, settings.jwks().is_some()),
        }
    }

    /// Fetches the set and its lifetime. The error describes the failure without the URL.
    async fn fetch(&mut self, trust: &Trust) -> Result<(JwkSet, Duration), String> {
        let fetch = Box::pin(self.client.fetch(trust));
        let fetched = tokio::time::timeout(FETCH_LIMIT, fetch).await;
        let no_answer = |_| format!("no answer within {} s", FETCH_LIMIT.as_secs());
        let FetchedDocument { body, max_age } = fetched.map_err(no_answer).flatten()?;
        // Parsing thousands of broken keys takes a while.
        let parse = move || JwkSet::parse(&body, JwksSource::Url);
        let set = tokio::task::spawn_blocking(parse).await;
        let set = set.map_err(|error| error.to_string()).flatten()?;
        Ok((set, max_age.unwrap_or(DEFAULT_LIFETIME).clamp(MIN_LIFETIME, MAX_LIFETIME)))
    }

    fn succeed(&mut self, began: Instant, lifetime: Duration) {
        if self.failure.take().is_some() {
            tracing::info!("JWK set of auth.jwt.jwks_url is fetched again");
        }
        self.confirmed = began;
        self.next = Instant::now() + lifetime;
    }

    fn fail(&mut self, began: Instant, reason: String, has_set: bool) {
        if self.failure.as_ref() != Some(&reason) {
            tracing::warn!(reason, "JWK set of auth.jwt.jwks_url cannot be fetched");
        }
        self.failure = Some(reason);
        self.next = began + if has_set { FETCH_INTERVAL } else { self.retry };
        self.retry = (self.retry * 2).min(FETCH_INTERVAL);
    }

    fn condition(&self, settings: &JwtSettings, api_keys_enabled: bool) -> Condition {
        let reason = self.failure.as_deref();
        if settings.jwks().is_some() {
            let note = |reason| {
                format!("auth.jwt.jwks_url cannot be fetched; keeping the last good set: {reason}")
            };
            return Condition::from_notes(reason.map(note).into_iter().collect());
        }
        let reason = reason.unwrap_or("it has not been fetched yet");
        let note = format!("auth.jwt.jwks_url has no set yet: {reason}");
        if api_keys_enabled || settings.has_own_keys() {
            Condition::Degraded(vec![note])
        } else {
            Condition::NotReady(note)
        }
    }
}
