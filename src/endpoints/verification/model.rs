//! A verification.

use crate::endpoints::verification::identity::{Digest, Digester};
use crate::endpoints::verification::keys::{Keys, SHORT_KEY, SecretBytes};
use crate::endpoints::verification::preset::{Condition, Preset};
use crate::endpoints::verification::refusal::{Refusal, RefusalKind};
use crate::endpoints::verification::rules::{Algorithm, DeliveryIdRule, Rule, SignedRule};
use crate::endpoints::verification::template::Part;
use crate::settings::Networks;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// The status of the answer to an accepted delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Status {
    #[default]
    Ok,
    Accepted,
    /// The answer has no body.
    NoContent,
}

impl Status {
    pub fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Accepted => 202,
            Self::NoContent => 204,
        }
    }
}

/// How the deliveries of an endpoint are verified.
#[derive(Clone)]
pub struct Verification {
    /// The name of the preset or scheme, as it is given.
    pub(super) scheme: &'static str,
    pub(super) preset: Option<&'static Preset>,
    pub(super) rule: Rule,
    pub(super) keys: Keys,
    pub(super) delivery_id: DeliveryIdRule,
    pub(super) allowed: Option<Networks>,
    pub(super) verify_token: Option<SecretBytes>,
    pub(super) status: Status,
    pub(super) identity: Digest,
    /// Of the description without its secrets and without the members that do not decide which
    /// deliveries are the same.
    pub(super) origin: Digest,
}

impl fmt::Debug for Verification {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Verification");
        debug.field("scheme", &self.scheme).field("keys", &self.keys);
        debug.field("status", &self.status).finish_non_exhaustive()
    }
}

/// Two verifications are equal if they accept the same deliveries under the same ids, and answer them
/// and their handshakes alike.
impl PartialEq for Verification {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Verification {}

impl std::hash::Hash for Verification {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.identity.hash(state);
    }
}

impl Verification {
    /// The name of the preset or scheme.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Verifications with this digest in common are computed once.
    pub fn identity(&self) -> Digest {
        self.identity
    }

    /// The name of the header field that carries the secret itself or a token, in lower case.
    pub fn secret_header(&self) -> Option<&str> {
        match &self.rule {
            Rule::Header { name, .. } => Some(name),
            Rule::Jwt(rule) => Some(&rule.header),
            _ => None,
        }
    }

    /// The names of the query parameters that carry the secret itself, or the token of a handshake.
    pub fn secret_parameters(&self) -> impl Iterator<Item = &str> {
        let of_rule = match &self.rule {
            Rule::Query { name } => Some(name.as_str()),
            _ => None,
        };
        let handshakes = self.preset.map_or(&[][..], |preset| preset.handshakes);
        let conditions = handshakes.iter().flat_map(|handshake| handshake.conditions);
        let of_token = conditions.filter_map(|condition| match condition {
            Condition::QueryIsToken(name) => Some(*name),
            _ => None,
        });
        of_rule.into_iter().chain(of_token)
    }

    /// Whether a delivery is accepted only if its sender knows a secret or a private key.
    pub fn asks_for_secret(&self) -> bool {
        !matches!(self.rule, Rule::None)
    }

    pub fn status(&self) -> Status {
        self.status
    }

    /// How far a signed time may be off, if deliveries that come again are known by an id.
    pub fn tolerance_of_known_deliveries(&self) -> Option<Duration> {
        let Rule::Signed(SignedRule { time: Some(time), .. }) = &self.rule else { return None };
        let has_id = !matches!(self.delivery_id, DeliveryIdRule::None);
        has_id.then_some(time.tolerance)
    }

    /// What a person should know about this verification, though it is valid.
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if let Rule::Signed(rule) = &self.rule {
            let is_hmac = matches!(rule.algorithm, Algorithm::Hmac(_));
            let mut secrets = self.keys.secrets().iter();
            if is_hmac && secrets.any(|secret| secret.reveal().len() < SHORT_KEY) {
                warnings.push("a secret is shorter than 16 bytes");
            }
            let signs_body = rule.signed.contains(&Part::Body) || rule.signed.contains(&Part::Form);
            if !signs_body && rule.body_digest_query.is_none() {
                warnings.push("the body is not signed");
            }
        }
        if matches!(self.rule, Rule::None) && self.allowed.is_none() {
            warnings.push("every delivery is accepted");
        }
        warnings
    }

    /// Checks the client's address.
    pub(super) fn check_client(&self, client: Option<IpAddr>) -> Result<(), Refusal> {
        match (&self.allowed, client) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Refusal::new(RefusalKind::AddressUnknown)),
            (Some(networks), Some(client)) if networks.contain(client) => Ok(()),
            (Some(_), Some(_)) => Err(Refusal::new(RefusalKind::AddressNotAllowed)),
        }
    }

    /// The digest that the record of an accepted delivery is kept by. It depends on the description
    /// and on the secret that accepted, not on the others. A sender that signs with the old and the
    /// new secret for a while is known by the last that accepts, so a new secret before the old one
    /// forgets no delivery. What is signed by the new one alone is another delivery.
    pub(super) fn digest_of_key(&self, key: usize) -> Digest {
        let mut digester = Digester::new();
        digester.add(self.origin.as_bytes());
        digester.add(&[self.keys.tag()]);
        digester.add(self.keys.bytes().get(key).copied().unwrap_or_default());
        digester.finish()
    }
}
