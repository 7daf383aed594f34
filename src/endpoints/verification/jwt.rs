//! Tokens in a header field. They say who sends; they do not sign the body.

use crate::endpoints::verification::json_members;
use crate::endpoints::verification::keys::{Curve, Keys, PublicKey};
use crate::endpoints::verification::refusal::{Refusal, RefusalKind};
use crate::endpoints::verification::request::DeliveryRequest;
use crate::endpoints::verification::rules::{Hash, JwtRule};
use crate::endpoints::verification::signature::required_header;
use crate::endpoints::verification::time::milliseconds_of;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::time::SystemTime;

#[derive(Deserialize)]
struct Head {
    alg: String,
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims<'a> {
    exp: Option<f64>,
    nbf: Option<f64>,
    /// A string or an array of strings.
    #[serde(borrow)]
    aud: Option<&'a RawValue>,
}

/// The index of the key that signed the token.
pub(super) fn check(
    rule: &JwtRule,
    keys: &Keys,
    request: &DeliveryRequest<'_>,
    now: SystemTime,
) -> Result<usize, Refusal> {
    let malformed = || Refusal::with_part(RefusalKind::Malformed, &rule.header);
    let value = required_header(request, &rule.header)?;
    let token = value.strip_prefix(&rule.prefix).ok_or_else(malformed)?;
    let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
    let (head, claims) = signed.split_once('.').ok_or_else(malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
    let head: Head = serde_json::from_slice(&decode(head)?).map_err(|_| malformed())?;
    if head.crit.is_some() {
        return Err(malformed());
    }
    let key = signer(rule.hash, keys, &head.alg, signed.as_bytes(), &decode(signature)?);
    let key = key.ok_or_else(|| Refusal::with_part(RefusalKind::WrongSignature, &rule.header))?;
    let claims = decode(claims)?;
    let claims: Claims<'_> = serde_json::from_slice(&claims).map_err(|_| malformed())?;
    check_audience(rule, &claims, request)?;
    if rule.requires_exp && claims.exp.is_none() {
        return Err(Refusal::with_part(RefusalKind::Missing, "exp"));
    }
    // The last check: a token is stale only if everything else about it is right.
    check_times(rule, &claims, now)?;
    Ok(key)
}

/// The last key whose algorithm is the token's and whose signature it is. Every key is tried.
fn signer(hash: Hash, keys: &Keys, alg: &str, signed: &[u8], signature: &[u8]) -> Option<usize> {
    let of_hash = if hash == Hash::Sha512 { "HS512" } else { "HS256" };
    let by_secret = keys.secrets().iter().map(|secret| {
        let key = hmac::Key::new(hash.hmac(), secret.reveal());
        alg == of_hash && hmac::verify(&key, signed, signature).is_ok()
    });
    let by_key = keys.public().iter().map(|key| is_signed_by(key, alg, signed, signature));
    let accepted = by_secret.chain(by_key).enumerate();
    accepted.fold(None, |found, (index, is_signer)| is_signer.then_some(index).or(found))
}

fn is_signed_by(key: &PublicKey, alg: &str, signed: &[u8], signature: &[u8]) -> bool {
    let (of_key, algorithm): (_, &'static dyn VerificationAlgorithm) = match key.curve {
        Curve::Ed25519 => ("EdDSA", &ED25519),
        Curve::P256 => ("ES256", &ECDSA_P256_SHA256_FIXED),
    };
    let key = UnparsedPublicKey::new(algorithm, &key.bytes);
    alg == of_key && key.verify(signed, signature).is_ok()
}

/// The address counts with its query and without it.
fn check_audience(
    rule: &JwtRule,
    claims: &Claims<'_>,
    request: &DeliveryRequest<'_>,
) -> Result<(), Refusal> {
    let Some(expected) = &rule.audience else { return Ok(()) };
    let given = claims.aud.ok_or_else(|| Refusal::with_part(RefusalKind::Missing, "aud"))?;
    let without_query = request.url.split('?').next().unwrap_or_default();
    let mut expected =
        [request.url, without_query].into_iter().map(|url| expected.replace("{url}", url));
    if expected.any(|expected| json_members::has_string(given, &expected)) {
        return Ok(());
    }
    Err(Refusal::with_part(RefusalKind::WrongAudience, "aud"))
}

fn check_times(rule: &JwtRule, claims: &Claims<'_>, now: SystemTime) -> Result<(), Refusal> {
    let off_by = |second: f64| {
        // A number that is too large for its type becomes the largest one.
        #[expect(clippy::cast_possible_truncation, reason = "the conversion saturates")]
        let time = (second * 1000.0) as i64;
        time.saturating_sub(milliseconds_of(now))
    };
    let tolerance = i64::try_from(rule.tolerance.as_millis()).unwrap_or(i64::MAX);
    let refusal = |kind, claim: &str, off_by| {
        Err(Refusal { off_by: Some(off_by), ..Refusal::with_part(kind, claim) })
    };
    if let Some(off_by) = claims.exp.map(off_by).filter(|off_by| *off_by < -tolerance) {
        return refusal(RefusalKind::TooOld, "exp", off_by);
    }
    if let Some(off_by) = claims.nbf.map(off_by).filter(|off_by| *off_by > tolerance) {
        return refusal(RefusalKind::TooEarly, "nbf", off_by);
    }
    Ok(())
}
