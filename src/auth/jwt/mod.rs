//! JWTs: their settings, keys and verification.

mod jwks;
mod jwks_url;
mod keys;
mod members;
mod mint;
mod settings;
mod token;
mod verifier;

pub use crate::auth::jwt::jwks::{JwkSet, JwksSource};
pub(super) use crate::auth::jwt::jwks_url::JwksUrl;
pub use crate::auth::jwt::mint::mint;
pub use crate::auth::jwt::settings::JwtSettings;
pub(super) use crate::auth::jwt::token::Token;
pub(super) use crate::auth::jwt::verifier::{Claims, Unverified, Verified, Verifier};
