//! Usual reasons of a wrong signature, each of them tried.

use crate::endpoints::verification::keys::{BASE64, Encoding, Keys, SecretBytes};
use crate::endpoints::verification::model::Verification;
use crate::endpoints::verification::request::DeliveryRequest;
use crate::endpoints::verification::rules::{Algorithm, Hash, Rule, SignedRule};
use crate::endpoints::verification::template::Part;
use crate::endpoints::verification::url_form::UrlForm;
use base64::Engine;
use std::time::SystemTime;

const WHSEC: &str = "whsec_";

/// What would make the signature of a request right. Empty if it is.
pub(super) fn hints(
    verification: &Verification,
    rule: &SignedRule,
    request: &DeliveryRequest<'_>,
    now: SystemTime,
) -> Vec<String> {
    let attempt = Attempt { verification, rule, request, now };
    if attempt.is_accepted(rule, &verification.keys, request) {
        return Vec::new();
    }
    let mut hints = attempt.other_secrets();
    hints.extend(attempt.other_algorithms());
    hints.extend(attempt.other_bodies());
    hints.extend(attempt.other_addresses());
    hints.dedup();
    hints
}

/// What is changed, one thing at a time.
struct Attempt<'a, 'r> {
    verification: &'a Verification,
    /// The rule without its tolerance.
    rule: &'a SignedRule,
    request: &'a DeliveryRequest<'r>,
    now: SystemTime,
}

impl Attempt<'_, '_> {
    fn is_accepted(&self, rule: &SignedRule, keys: &Keys, request: &DeliveryRequest<'_>) -> bool {
        let changed = Verification {
            rule: Rule::Signed(rule.clone()),
            keys: keys.clone(),
            allowed: None,
            ..self.verification.clone()
        };
        changed.verify(request, self.now).is_ok()
    }

    fn other_secrets(&self) -> Vec<String> {
        let secrets = self.verification.keys.secrets().iter();
        let readings = secrets.flat_map(|secret| readings(secret.reveal()));
        let is_right = |(_, bytes): &(_, Vec<u8>)| {
            let keys = Keys::Secrets(vec![SecretBytes::new(bytes.clone())]);
            self.is_accepted(self.rule, &keys, self.request)
        };
        readings.filter(is_right).map(|(what, _)| format!("it is right if {what}")).collect()
    }

    fn other_algorithms(&self) -> Vec<String> {
        let mut hints = Vec::new();
        for (name, encoding) in [("hex", Encoding::Hex), ("base64", Encoding::Base64)] {
            let rule = SignedRule { encoding, ..self.rule.clone() };
            if self.is_accepted(&rule, &self.verification.keys, self.request) {
                hints.push(format!("it is right if its encoding is {name}"));
            }
        }
        if let Algorithm::Hmac(_) = self.rule.algorithm {
            let hashes = [("sha1", Hash::Sha1), ("sha256", Hash::Sha256), ("sha512", Hash::Sha512)];
            for (name, hash) in hashes {
                let algorithm = Algorithm::Hmac(hash);
                let rule = SignedRule { algorithm, ..self.rule.clone() };
                if self.is_accepted(&rule, &self.verification.keys, self.request) {
                    hints.push(format!("it is right if the algorithm is {name}"));
                }
            }
        }
        hints
    }

    fn other_bodies(&self) -> Vec<String> {
        let is_right = |(_, body): &(&str, Vec<u8>)| {
            let request = DeliveryRequest { body, ..*self.request };
            self.is_accepted(self.rule, &self.verification.keys, &request)
        };
        let changed = bodies(self.request.body).into_iter().find(is_right);
        changed.iter().map(|(what, _)| format!("it is right if {what} the body")).collect()
    }

    fn other_addresses(&self) -> Vec<String> {
        if !self.rule.signed.contains(&Part::Url) {
            return Vec::new();
        }
        let is_right = |url: &String| {
            let request = DeliveryRequest { url, ..*self.request };
            self.is_accepted(self.rule, &self.verification.keys, &request)
        };
        let changed = addresses(self.request.url).into_iter().filter(is_right);
        changed.map(|url| format!("it is right if the address is {url}")).collect()
    }
}

/// What a secret can be meant to be, if it is read in another way.
fn readings(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut readings = Vec::new();
    if let Ok(text) = std::str::from_utf8(secret) {
        let trimmed = text.trim();
        if trimmed != text {
            readings.push(("white space around the secret is removed", trimmed.into()));
        }
        if let Some(rest) = trimmed.strip_prefix(WHSEC) {
            let decoded = BASE64.decode(rest).ok();
            let what = "whsec_ is removed from the secret and the rest is read as base64";
            readings.extend(decoded.map(|bytes| (what, bytes)));
            readings.push(("whsec_ is removed from the secret", rest.into()));
        }
        let decoded = BASE64.decode(trimmed).ok();
        readings.extend(decoded.map(|bytes| ("the secret is read as base64", bytes)));
        let decoded = hex::decode(trimmed).ok();
        readings.extend(decoded.map(|bytes| ("the secret is read as hex", bytes)));
    }
    let base64 = BASE64.encode(secret);
    let what = "the secret is read as text with whsec_ and not as base64";
    readings.push((what, format!("{WHSEC}{base64}").into()));
    let what = "the secret is read as text and not as base64";
    readings.push((what, base64.trim_end_matches('=').into()));
    readings.push((what, base64.into()));
    readings.push(("the secret is read as text and not as hex", hex::encode(secret).into()));
    readings
}

/// Bodies that the given one can have been before a program changed it, the smallest change first.
fn bodies(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut bodies = Vec::new();
    for end in ["\r\n", "\n"] {
        let cut = body.strip_suffix(end.as_bytes()).map(<[u8]>::to_vec);
        bodies.extend(cut.map(|body| ("the line break at the end is removed from", body)));
    }
    bodies.push(("a line break is added to", [body, b"\n"].concat()));
    bodies.push(("carriage returns are removed from", without(body, b'\r')));
    bodies.push(("white space between the members is removed from", compact(body)));
    bodies.retain(|(_, changed)| changed != body);
    bodies
}

fn without(body: &[u8], byte: u8) -> Vec<u8> {
    body.iter().copied().filter(|each| *each != byte).collect()
}

/// The bytes without the white space outside of strings.
fn compact(json: &[u8]) -> Vec<u8> {
    let (mut in_string, mut is_escaped) = (false, false);
    let is_kept = |byte: &u8| {
        let is_kept = in_string || !byte.is_ascii_whitespace();
        if !is_escaped && *byte == b'"' {
            in_string = !in_string;
        }
        is_escaped = in_string && !is_escaped && *byte == b'\\';
        is_kept
    };
    json.iter().copied().filter(is_kept).collect()
}

/// Addresses that the given one can stand for.
fn addresses(url: &str) -> Vec<String> {
    let mut addresses = Vec::new();
    let forms = [UrlForm::AsSent, UrlForm::WithPort, UrlForm::WithoutPort, UrlForm::Decoded];
    let other = match url.split_once("://") {
        Some(("https", rest)) => format!("http://{rest}"),
        Some((_, rest)) => format!("https://{rest}"),
        None => url.to_owned(),
    };
    for url in [url, &other] {
        addresses.extend(forms.map(|form| form.apply(url).into_owned()));
        let (path, query) = url.split_at(url.find('?').unwrap_or(url.len()));
        let path = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
        addresses.push(format!("{path}{query}"));
    }
    addresses.retain(|changed| changed != url);
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_between_members_is_removed() {
        let json = b" {\"a b\" : [1, \"\\\" \\\\\" ] ,\n\"c\":\"d e\"}";
        assert_eq!(compact(json), b"{\"a b\":[1,\"\\\" \\\\\"],\"c\":\"d e\"}");
    }
}
