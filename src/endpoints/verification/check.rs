//! Checks a request against a verification, at once or in steps.

use crate::endpoints::verification::credential;
use crate::endpoints::verification::form;
use crate::endpoints::verification::hasher::Hasher;
use crate::endpoints::verification::identity::Digest;
use crate::endpoints::verification::jwt;
use crate::endpoints::verification::message::{Inputs, Message, messages};
use crate::endpoints::verification::model::Verification;
use crate::endpoints::verification::refusal::{Refusal, RefusalKind};
use crate::endpoints::verification::request::DeliveryRequest;
use crate::endpoints::verification::rules::{DeliveryIdRule, Rule, SignedRule};
use crate::endpoints::verification::signature::{
    self, Found, optional_header, paired, required_header,
};
use crate::endpoints::verification::template::Part;
use crate::endpoints::verification::time::TimePlace;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA256};
use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

/// A delivery that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// `None` if the description names none, or the request has none.
    pub delivery_id: Option<String>,
    /// Which description and which secret accepted: equal for deliveries that can repeat another. If
    /// several secrets accept, it is that of the last in the list.
    pub digest: Digest,
    /// The index of the secret or key that accepted, the last if several did.
    pub(super) key: usize,
}

/// A check that goes on in steps, so that its task can yield between them.
pub struct Checking<'a> {
    verification: &'a Verification,
    request: DeliveryRequest<'a>,
    /// The id in the header field that belongs to the signature's.
    given_id: Option<&'a str>,
    /// The body, and the digest in the query that has to be that of it.
    body_digest: Option<(Hashed<'a, Context>, Vec<u8>)>,
    /// Why the time of the delivery is refused, if its signature is right.
    stale: Option<Refusal>,
    /// The signatures that the request offers.
    signatures: Vec<Vec<u8>>,
    /// A message for each way to write the address. Empty: there is no signature to check.
    signed: Vec<Hashed<'a, Hasher>>,
    /// The key that accepted, if there is no signature to check.
    accepted: usize,
}

impl fmt::Debug for Checking<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Checking").finish_non_exhaustive()
    }
}

/// A message, and how much of it is hashed.
struct Hashed<'a, H> {
    message: Message<'a>,
    position: usize,
    hasher: H,
}

impl<'a, H> Hashed<'a, H> {
    fn new(message: Message<'a>, hasher: H) -> Self {
        Self { message, position: 0, hasher }
    }

    /// Hashes at most `limit` bytes and returns how many.
    fn advance(&mut self, limit: usize, update: impl FnOnce(&mut H, &[u8])) -> usize {
        let chunk = self.message.chunk(self.position, limit);
        update(&mut self.hasher, chunk);
        self.position += chunk.len();
        chunk.len()
    }
}

/// What is signed of a request, in each way in which its address may be written.
pub(super) struct Signable<'a> {
    pub(super) messages: Vec<Message<'a>>,
    /// The digest in the query that has to be that of the body.
    body_digest: Option<Vec<u8>>,
    given_id: Option<&'a str>,
    stale: Option<Refusal>,
}

impl Verification {
    /// Checks a request at once.
    pub fn verify(
        &self,
        request: &DeliveryRequest<'_>,
        now: SystemTime,
    ) -> Result<Verified, Refusal> {
        let mut checking = self.begin(request, now)?;
        while checking.advance(usize::MAX) {}
        checking.finish()
    }

    /// Checks all but what has to read the whole body, which [`Checking::advance`] does.
    pub fn begin<'a>(
        &'a self,
        request: &DeliveryRequest<'a>,
        now: SystemTime,
    ) -> Result<Checking<'a>, Refusal> {
        self.check_client(request.client)?;
        let secrets = self.keys.secrets();
        let accepted = match &self.rule {
            Rule::Signed(rule) => return self.begin_signed(rule, request, now),
            Rule::Jwt(rule) => jwt::check(rule, &self.keys, request, now)?,
            Rule::Header { name, prefix } => credential::header(name, prefix, secrets, request)?,
            Rule::Basic { user } => credential::basic(user, secrets, request)?,
            Rule::Query { name } => credential::query(name, secrets, request)?,
            Rule::BodySecret { path } => credential::body_secret(path, secrets, request)?,
            Rule::None => 0,
        };
        Ok(Checking {
            verification: self,
            request: *request,
            given_id: None,
            body_digest: None,
            stale: None,
            signatures: Vec::new(),
            signed: Vec::new(),
            accepted,
        })
    }

    fn begin_signed<'a>(
        &'a self,
        rule: &'a SignedRule,
        request: &DeliveryRequest<'a>,
        now: SystemTime,
    ) -> Result<Checking<'a>, Refusal> {
        let place = rule.time.as_ref().map(|time| &time.place);
        let found = signature::find(&rule.place, rule.encoding, place, request)?;
        if found.signatures.len() > rule.algorithm.max_signatures() {
            return Err(Refusal::with_part(RefusalKind::Malformed, "signature"));
        }
        let signable = self.signable(rule, &found, request, now)?;
        let body_digest = signable.body_digest.map(|expected| {
            (Hashed::new(Message::body(request.body), Context::new(&SHA256)), expected)
        });
        let signed = |message: Message<'a>| {
            let hasher = Hasher::new(rule.algorithm, &self.keys, message.len());
            Hashed::new(message, hasher)
        };
        Ok(Checking {
            verification: self,
            request: *request,
            given_id: signable.given_id,
            body_digest,
            stale: signable.stale,
            signatures: found.signatures,
            signed: signable.messages.into_iter().map(signed).collect(),
            accepted: 0,
        })
    }

    /// What is signed of a request.
    pub(super) fn signable<'a>(
        &self,
        rule: &'a SignedRule,
        found: &Found<'a>,
        request: &DeliveryRequest<'a>,
        now: SystemTime,
    ) -> Result<Signable<'a>, Refusal> {
        let timestamp = timestamp(rule, found, request)?;
        let time = rule.time.as_ref().zip(timestamp.as_deref());
        let stale = time.map(|(rule, text)| rule.check(text, now)).transpose()?.flatten();
        let given_id = signed_id(rule, found, request)?;
        let id = if rule.signed.contains(&Part::Id) {
            Some(self.id_to_sign(request, given_id)?)
        } else {
            None
        };
        let body_digest = expected_digest(rule, request)?;
        let with_form = rule.signed.contains(&Part::Form) && body_digest.is_none();
        let form = (with_form && request.is_form()).then(|| form::signed(request.body));
        let inputs = Inputs { timestamp, id, form: form.transpose()? };
        Ok(Signable { messages: messages(rule, request, inputs), body_digest, given_id, stale })
    }

    /// The id that is signed: that of its header field, or that of the delivery.
    fn id_to_sign<'a>(
        &self,
        request: &DeliveryRequest<'a>,
        given: Option<&'a str>,
    ) -> Result<Cow<'a, str>, Refusal> {
        if let Some(given) = given {
            return Ok(Cow::Borrowed(given));
        }
        let id = self.delivery_id(request, None)?;
        id.map(Cow::Owned).ok_or_else(|| Refusal::with_part(RefusalKind::Missing, "id"))
    }

    /// The id of an accepted delivery, if the description says that it is in the body.
    pub fn id_in_body(&self, decoded: &DeliveryRequest<'_>) -> Option<String> {
        let DeliveryIdRule::Body(path) = &self.delivery_id else { return None };
        path.single(decoded).ok()?.filter(|id| !id.is_empty())
    }

    /// The id of the delivery. A header field that is there twice is refused.
    fn delivery_id(
        &self,
        request: &DeliveryRequest<'_>,
        signed: Option<&str>,
    ) -> Result<Option<String>, Refusal> {
        let id = match &self.delivery_id {
            DeliveryIdRule::None => None,
            DeliveryIdRule::Signed => signed.map(str::to_owned),
            DeliveryIdRule::Header(name) => optional_header(request, name)?.map(str::to_owned),
            // A body that cannot be read is for the parser to refuse.
            DeliveryIdRule::Body(path) => match path.single(request) {
                Err(refusal) if refusal.kind == RefusalKind::Repeated => return Err(refusal),
                found => found.unwrap_or(None),
            },
        };
        Ok(id.filter(|id| !id.is_empty()))
    }
}

#[cfg(test)]
impl Checking<'_> {
    /// The memory that the messages and signatures hold.
    pub(super) fn held_bytes(&self) -> usize {
        let owned = self.signed.iter().flat_map(|signed| signed.message.owned());
        let shared: std::collections::BTreeMap<_, _> =
            owned.map(|bytes| (bytes.as_ptr(), bytes.len())).collect();
        let hashers = self.signed.iter().map(|signed| signed.hasher.held_bytes()).sum::<usize>();
        let signatures = self.signatures.iter().map(Vec::len).sum::<usize>();
        shared.values().sum::<usize>() + hashers + signatures
    }
}

impl Checking<'_> {
    /// Hashes about `limit` bytes more, or checks one signature that takes the whole message. Returns
    /// `false` when nothing is left.
    pub fn advance(&mut self, limit: usize) -> bool {
        let of_body = self.body_digest.as_mut();
        let done = of_body.map_or(0, |(body, _)| body.advance(limit, Context::update));
        if done > 0 {
            return true;
        }
        let (keys, signatures) = (&self.verification.keys, &self.signatures);
        self.signed.iter_mut().any(|signed| {
            signed.advance(limit, Hasher::update) > 0 || signed.hasher.verify_next(keys, signatures)
        })
    }

    /// Says whether the delivery is accepted. What is not hashed yet is hashed now.
    pub fn finish(mut self) -> Result<Verified, Refusal> {
        while self.advance(usize::MAX) {}
        if let Some((body, expected)) = self.body_digest {
            let digest = body.hasher.finish();
            verify_slices_are_equal(digest.as_ref(), &expected)
                .map_err(|_| Refusal::new(RefusalKind::WrongBodyDigest))?;
        }
        let keys = &self.verification.keys;
        let key = if self.signed.is_empty() {
            self.accepted
        } else {
            let signatures = &self.signatures;
            let accepted =
                self.signed.into_iter().map(|each| each.hasher.accepted(keys, signatures));
            accepted.max().flatten().ok_or_else(|| Refusal::new(RefusalKind::WrongSignature))?
        };
        if let Some(stale) = self.stale {
            return Err(stale);
        }
        // Only now: the id of a delivery that is not accepted is of no use.
        let delivery_id = self.verification.delivery_id(&self.request, self.given_id)?;
        let digest = self.verification.digest_of_key(key);
        Ok(Verified { delivery_id, digest, key })
    }
}

/// The time as it is written.
pub(super) fn timestamp<'a>(
    rule: &SignedRule,
    found: &Found<'a>,
    request: &DeliveryRequest<'a>,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(time) = &rule.time else { return Ok(None) };
    let text = match &time.place {
        TimePlace::Headers(names) => {
            Cow::Borrowed(required_header(request, paired(names, found.header))?)
        }
        TimePlace::Body(path) => Cow::Owned(path.required(request)?),
        TimePlace::Item(item) => {
            found.time.clone().ok_or_else(|| Refusal::with_part(RefusalKind::Missing, item))?
        }
    };
    Ok(Some(text))
}

/// The id in the header field that belongs to the signature's.
fn signed_id<'a>(
    rule: &SignedRule,
    found: &Found<'a>,
    request: &DeliveryRequest<'a>,
) -> Result<Option<&'a str>, Refusal> {
    if rule.id_headers.is_empty() {
        return Ok(None);
    }
    required_header(request, paired(&rule.id_headers, found.header)).map(Some)
}

/// The digest that the query announces. A body that neither it nor the signature covers is refused.
fn expected_digest(
    rule: &SignedRule,
    request: &DeliveryRequest<'_>,
) -> Result<Option<Vec<u8>>, Refusal> {
    if let Some(name) = &rule.body_digest_query {
        let mut values = request.query_values(name);
        let malformed = || Refusal::with_part(RefusalKind::Malformed, name);
        match (values.next(), values.next()) {
            (Some(_), Some(_)) => return Err(Refusal::with_part(RefusalKind::Repeated, name)),
            (Some(text), None) => return hex::decode(text).map(Some).map_err(|_| malformed()),
            (None, _) => {}
        }
    }
    let signs = |part: &Part| rule.signed.contains(part);
    let is_covered = signs(&Part::Body)
        || request.body.is_empty()
        || (signs(&Part::Form) && request.is_form())
        // The description says that the body is not signed at all.
        || (!signs(&Part::Form) && rule.body_digest_query.is_none());
    if is_covered { Ok(None) } else { Err(Refusal::new(RefusalKind::UnsignedBody)) }
}
