//! What a verification does with a request, for a person who looks for the reason of a refusal. No
//! delivery is checked by this.

use crate::endpoints::verification::check::timestamp;
use crate::endpoints::verification::hints::hints;
use crate::endpoints::verification::model::Verification;
use crate::endpoints::verification::request::DeliveryRequest;
use crate::endpoints::verification::rules::{Algorithm, Rule, SignaturePlace, SignedRule};
use crate::endpoints::verification::signature::{self, Found};
use aws_lc_rs::hmac;
use std::time::{Duration, SystemTime};

/// The bytes that are shown of each end of what is signed.
const SHOWN: usize = 16;

/// What a verification does with a request. It contains no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Where the signature or the secret is looked for.
    pub places: Vec<String>,
    /// The signatures that were found, in the encoding of the scheme. Empty for schemes whose
    /// credential is a secret itself.
    pub found: Vec<String>,
    /// What is signed, in each form that is accepted.
    pub signed: Vec<Preview>,
    /// The signatures that would be accepted. Empty if they take a private key or are a secret.
    pub expected: Vec<String>,
    pub time: Option<TimeOffset>,
    /// What would make the signature right, of what was tried.
    pub hints: Vec<String>,
}

/// The ends of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    pub bytes: usize,
    /// Escaped; equal to the whole if that is short. `None` if the secret is in it.
    pub ends: Option<(String, String)>,
}

/// How far the time of a request is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOffset {
    /// Milliseconds: positive in the future.
    pub off_by: i64,
    pub tolerance: Duration,
}

impl Verification {
    /// Says what this verification does with a request.
    pub fn explain(&self, request: &DeliveryRequest<'_>, now: SystemTime) -> Explanation {
        let mut explanation = Explanation { places: places(&self.rule), ..Explanation::default() };
        if let Rule::Signed(rule) = &self.rule {
            self.explain_signature(rule, request, now, &mut explanation);
        }
        explanation
    }

    fn explain_signature(
        &self,
        rule: &SignedRule,
        request: &DeliveryRequest<'_>,
        now: SystemTime,
        explanation: &mut Explanation,
    ) {
        let place = rule.time.as_ref().map(|time| &time.place);
        let found = signature::find(&rule.place, rule.encoding, place, request);
        let found = found.unwrap_or(Found { signatures: Vec::new(), header: 0, time: None });
        let is_shown = |signature: &&Vec<u8>| !self.reveals(signature);
        let shown = found.signatures.iter().filter(is_shown);
        explanation.found = shown.map(|signature| rule.encoding.encode(signature)).collect();
        if let (Some(time), Ok(Some(text))) = (&rule.time, timestamp(rule, &found, request)) {
            let offset = |off_by| TimeOffset { off_by, tolerance: time.tolerance };
            explanation.time = time.off_by(&text, now).map(offset);
        }
        let rule = at_any_time(rule);
        if let Ok(signable) = self.signable(&rule, &found, request, now) {
            for message in signable.messages {
                let message = message.bytes();
                explanation.signed.push(self.preview(&message));
                explanation.expected.extend(self.expected(&rule, &message));
            }
        }
        explanation.hints = hints(self, &rule, request, now);
    }

    fn expected(&self, rule: &SignedRule, message: &[u8]) -> Vec<String> {
        let Algorithm::Hmac(hash) = rule.algorithm else { return Vec::new() };
        let tag = |key: &[u8]| hmac::sign(&hmac::Key::new(hash.hmac(), key), message);
        let secrets = self.keys.secrets().iter();
        secrets.map(|secret| rule.encoding.encode(tag(secret.reveal()).as_ref())).collect()
    }

    fn preview(&self, message: &[u8]) -> Preview {
        let first = message.get(..SHOWN).unwrap_or(message);
        let last = message.get(message.len().saturating_sub(SHOWN)..).unwrap_or_default();
        let escaped = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let ends = (!self.reveals(message)).then(|| (escaped(first), escaped(last)));
        Preview { bytes: message.len(), ends }
    }

    /// Whether a secret is in what would be shown.
    fn reveals(&self, bytes: &[u8]) -> bool {
        self.keys.secrets().iter().any(|secret| {
            let forms = [hex::encode(secret.reveal()).into_bytes(), secret.reveal().to_vec()];
            forms.iter().any(|form| bytes.windows(form.len().max(1)).any(|part| part == form))
        })
    }
}

/// The rule without its tolerance, so that a signature can be looked at whatever its time.
pub(super) fn at_any_time(rule: &SignedRule) -> SignedRule {
    let mut rule = rule.clone();
    if let Some(time) = &mut rule.time {
        time.tolerance = Duration::MAX;
    }
    rule
}

fn places(rule: &Rule) -> Vec<String> {
    match rule {
        Rule::Signed(rule) => match &rule.place {
            SignaturePlace::Body(path) => vec![format!("member {} of the body", path.as_str())],
            SignaturePlace::Headers(headers) => {
                let item = headers.item.as_ref().map(|item| format!(", item {item}"));
                let prefix = Some(&headers.prefix).filter(|prefix| !prefix.is_empty());
                let prefix = prefix.map(|prefix| format!(", after {prefix}"));
                let more = [item, prefix].into_iter().flatten().collect::<String>();
                headers.names.iter().map(|name| format!("header field {name}{more}")).collect()
            }
        },
        Rule::Jwt(rule) => vec![format!("header field {}", rule.header)],
        Rule::Header { name, .. } => vec![format!("header field {name}")],
        Rule::Basic { .. } => vec!["header field authorization".to_owned()],
        Rule::Query { name } => vec![format!("query parameter {name}")],
        Rule::BodySecret { path } => vec![format!("member {} of the body", path.as_str())],
        Rule::None => Vec::new(),
    }
}
