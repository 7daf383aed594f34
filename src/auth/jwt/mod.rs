//! JWTs: their settings, keys and verification.

mod jwks;
mod keys;
mod members;
mod settings;
mod token;
mod verifier;

pub use crate::auth::jwt::settings::{JwtSettings, mint};
pub(super) use crate::auth::jwt::token::Token;
pub(super) use crate::auth::jwt::verifier::{Claims, Verified, Verifier};
