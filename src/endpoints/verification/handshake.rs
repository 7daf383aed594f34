//! Handshakes: requests by which a provider asks whether an address is meant to receive.

use crate::endpoints::verification::answer::{HandshakeAnswer, UnfitHandshake};
use crate::endpoints::verification::body_path::BodyPath;
use crate::endpoints::verification::check::Verified;
use crate::endpoints::verification::json_members;
use crate::endpoints::verification::model::Verification;
use crate::endpoints::verification::preset::{Answer, Condition, Handshake};
use crate::endpoints::verification::request::DeliveryRequest;
use aws_lc_rs::hmac;

/// Bound on what is echoed.
const MAX_ECHO: usize = 512;

/// Bound on a token whose HMAC is an answer.
const MAX_TOKEN: usize = 128;

impl Verification {
    /// The answer to a handshake that is not signed. It is asked before the request is verified. A
    /// request that looks like a handshake and cannot be answered is verified like any delivery.
    pub fn unsigned_handshake(&self, request: &DeliveryRequest<'_>) -> Option<HandshakeAnswer> {
        self.check_client(request.client).ok()?;
        self.answer(self.handshake(request, false)?, request, None)
    }

    /// The answer to a handshake that is signed, as the request is. `None` if the request is a
    /// delivery. `Err` if it is a handshake that cannot be answered.
    pub fn signed_handshake(
        &self,
        request: &DeliveryRequest<'_>,
        verified: &Verified,
    ) -> Option<Result<HandshakeAnswer, UnfitHandshake>> {
        let handshake = self.handshake(request, true)?;
        Some(self.answer(handshake, request, Some(verified)).ok_or(UnfitHandshake))
    }

    /// The handshake that a request is.
    fn handshake(&self, request: &DeliveryRequest<'_>, is_signed: bool) -> Option<&Handshake> {
        self.preset?.handshakes.iter().find(|handshake| {
            handshake.is_signed == is_signed
                && handshake.method == request.method
                && handshake.conditions.iter().all(|condition| self.holds(condition, request))
        })
    }

    fn answer(
        &self,
        handshake: &Handshake,
        request: &DeliveryRequest<'_>,
        verified: Option<&Verified>,
    ) -> Option<HandshakeAnswer> {
        match &handshake.answer {
            Answer::BodyText(path) => echo(member(request, path)?).map(HandshakeAnswer::Text),
            Answer::BodyJson(name) => {
                let text = echo(member(request, name)?)?;
                Some(HandshakeAnswer::Json(serde_json::json!({ *name: text }).to_string()))
            }
            Answer::QueryText(name) => echo(parameter(request, name)?).map(HandshakeAnswer::Text),
            Answer::Proof { path, plain, proof } => {
                let token = token(member(request, path)?)?;
                let tag = self.hmac(verified?, token.as_bytes())?;
                let answer = serde_json::json!({ *plain: token, *proof: tag });
                Some(HandshakeAnswer::Json(answer.to_string()))
            }
            Answer::Json(text) => Some(HandshakeAnswer::Json((*text).to_owned())),
            Answer::Empty => Some(HandshakeAnswer::Empty),
        }
    }

    fn holds(&self, condition: &Condition, request: &DeliveryRequest<'_>) -> bool {
        match condition {
            Condition::BodyIs(path, text) => {
                member(request, path).is_some_and(|found| found == *text)
            }
            Condition::BodyLacks(name) => !has_member(request, name),
            Condition::BodyIsOnly(name) => is_only_member(request, name),
            Condition::QueryIs(name, text) => {
                parameter(request, name).is_some_and(|found| found == *text)
            }
            Condition::QueryIsToken(name) => {
                let given = parameter(request, name);
                let token = self.verify_token.as_ref();
                token.zip(given).is_some_and(|(token, given)| token.equals(given.as_bytes()))
            }
        }
    }

    /// The HMAC by the secret that accepted, in hex.
    fn hmac(&self, verified: &Verified, message: &[u8]) -> Option<String> {
        let secret = self.keys.secrets().get(verified.key)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal());
        Some(hex::encode(hmac::sign(&key, message)))
    }
}

/// The only member of the body at a path.
fn member(request: &DeliveryRequest<'_>, path: &str) -> Option<String> {
    BodyPath::parse(path).ok()?.single(request).ok()?
}

/// The number of members of the body, and how many have a name. `None` if it is not an object.
fn count(request: &DeliveryRequest<'_>, name: &str) -> Option<(usize, usize)> {
    json_members::count_members(json_members::value(request.body)?, name)
}

fn has_member(request: &DeliveryRequest<'_>, name: &str) -> bool {
    count(request, name).is_none_or(|(_, named)| named > 0)
}

fn is_only_member(request: &DeliveryRequest<'_>, name: &str) -> bool {
    // Escaped characters are up to six times as long.
    let is_short = request.body.len() <= 8 * MAX_ECHO;
    is_short && count(request, name) == Some((1, 1))
}

/// The only value of a query parameter.
fn parameter(request: &DeliveryRequest<'_>, name: &str) -> Option<String> {
    let mut values = request.query_values(name);
    values.next().filter(|_| values.next().is_none())
}

/// A text that can be echoed to any caller.
fn echo(text: String) -> Option<String> {
    let is_printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    (is_printable && (1..=MAX_ECHO).contains(&text.len())).then_some(text)
}

/// A token whose HMAC can be an answer: it cannot be a message that the provider would sign.
fn token(text: String) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (text.bytes().all(is_token) && (1..=MAX_TOKEN).contains(&text.len())).then_some(text)
}
