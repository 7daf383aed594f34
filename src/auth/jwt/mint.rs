//! `hookgate token`: signs tokens for manual tests.

use crate::auth::jwt::settings::JwtSettings;
use crate::ids::{OrganizationId, UserId};
use jsonwebtoken::{AlgorithmFamily, EncodingKey, Header};
use serde_json::Map;
use std::time::Duration;

/// Signs a token with the first secret, for manual tests.
pub fn mint(
    settings: &JwtSettings,
    user: &UserId,
    organization: &OrganizationId,
    lifetime: Duration,
) -> anyhow::Result<String> {
    let algorithm = settings.algorithms.iter().find(|each| each.family() == AlgorithmFamily::Hmac);
    let algorithm =
        algorithm.ok_or_else(|| anyhow::anyhow!("auth.jwt.algorithms has no HMAC algorithm"))?;
    let secret = settings.secrets.first();
    let secret = secret.ok_or_else(|| {
        anyhow::anyhow!("auth.jwt has neither secrets nor secret_files, so no token can be signed")
    })?;
    let now = jsonwebtoken::get_current_timestamp();
    let mut claims = Map::new();
    if let Some(claim) = settings.user_claims.first() {
        claims.insert(claim.clone(), user.as_str().into());
    }
    claims.insert(settings.organization_claim.clone(), organization.as_str().into());
    claims.insert("iat".to_owned(), now.into());
    claims.insert("exp".to_owned(), (now + lifetime.as_secs()).into());
    for (claim, values) in [("iss", &settings.issuer), ("aud", &settings.audience)] {
        if let Some(value) = values.first() {
            claims.insert(claim.to_owned(), value.as_str().into());
        }
    }
    let mut header = Header::new(*algorithm);
    if let Some(kind) = settings.types.first() {
        header.typ = Some(kind.clone());
    }
    let key = EncodingKey::from_secret(secret.reveal().as_bytes());
    Ok(jsonwebtoken::encode(&header, &claims, &key)?)
}
