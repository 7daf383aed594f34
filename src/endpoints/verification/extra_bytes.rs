//! Bound on the memory that a check takes beside the request.

use crate::endpoints::verification::body_path;
use crate::endpoints::verification::form;
use crate::endpoints::verification::hasher::Hasher;
use crate::endpoints::verification::message::Piece;
use crate::endpoints::verification::model::Verification;
use crate::endpoints::verification::request::{DeliveryRequest, Field};
use crate::endpoints::verification::rules::{DeliveryIdRule, Rule, SignaturePlace, SignedRule};
use crate::endpoints::verification::template::Part;
use crate::endpoints::verification::time::TimePlace;
use crate::endpoints::verification::url_form;

impl Verification {
    /// Bound on the memory that a check of a request takes beside the request, from
    /// [`Self::begin`] to its end, apart from lists of less than 4 KiB whatever the request is. A
    /// caller that counts memory reserves it before.
    pub fn extra_bytes(&self, request: &DeliveryRequest<'_>) -> usize {
        let of_rule = match &self.rule {
            Rule::Signed(rule) => self.signed_bytes(rule, request),
            // Its parts are decoded, and texts in them are.
            Rule::Jwt(rule) => 4 * field_bytes(request, &rule.header),
            Rule::Basic { .. } => field_bytes(request, "authorization"),
            Rule::Query { .. } => 6 * request.query.len(),
            Rule::BodySecret { .. } => body_path::bytes_at_most(request),
            Rule::Header { .. } | Rule::None => 0,
        };
        of_rule + self.id_bytes(request)
    }

    fn signed_bytes(&self, rule: &SignedRule, request: &DeliveryRequest<'_>) -> usize {
        let form_is_signed = rule.signed.contains(&Part::Form) && request.is_form();
        let form = if form_is_signed { form::bytes_at_most(request.body) } else { 0 };
        let time = match rule.time.as_ref().map(|time| &time.place) {
            Some(TimePlace::Body(_)) => body_path::bytes_at_most(request),
            _ => 0,
        };
        let url = request.url.len() + url_form::LONGER_BY;
        let length = self.length_at_most(rule, request);
        let hasher = Hasher::bytes_at_most(rule.algorithm, &self.keys, length);
        let pieces = rule.signed.parts().len() * size_of::<Piece<'_>>();
        let messages = rule.url_forms.len() * (url + hasher + pieces);
        let digest = rule.body_digest_query.as_ref().map_or(0, |_| 6 * request.query.len());
        form + time + messages + digest + signature_bytes(rule, request)
    }

    /// Bound on the length of a message.
    fn length_at_most(&self, rule: &SignedRule, request: &DeliveryRequest<'_>) -> usize {
        let time = match rule.time.as_ref().map(|time| &time.place) {
            Some(TimePlace::Headers(names)) => fields_bytes(request, names),
            Some(TimePlace::Item(_)) => signature_bytes(rule, request),
            Some(TimePlace::Body(_)) => body_path::bytes_at_most(request),
            None => 0,
        };
        let bytes = |part: &Part| match part {
            Part::Literal(text) => text.len(),
            Part::Body | Part::Form => request.body.len(),
            Part::Url => request.url.len() + url_form::LONGER_BY,
            Part::Method => request.method.len(),
            Part::Timestamp => time,
            Part::Id => fields_bytes(request, &rule.id_headers) + self.id_bytes(request),
        };
        rule.signed.parts().iter().map(bytes).sum()
    }

    /// Bound on the memory that the id of the delivery takes.
    fn id_bytes(&self, request: &DeliveryRequest<'_>) -> usize {
        match (&self.delivery_id, &self.rule) {
            (DeliveryIdRule::Header(name), _) => field_bytes(request, name),
            (DeliveryIdRule::Body(_), _) => body_path::bytes_at_most(request),
            (DeliveryIdRule::Signed, Rule::Signed(rule)) => fields_bytes(request, &rule.id_headers),
            (DeliveryIdRule::Signed | DeliveryIdRule::None, _) => 0,
        }
    }
}

/// Bound on the memory that the signatures take.
fn signature_bytes(rule: &SignedRule, request: &DeliveryRequest<'_>) -> usize {
    match &rule.place {
        SignaturePlace::Headers(headers) => fields_bytes(request, &headers.names),
        SignaturePlace::Body(_) => 2 * body_path::bytes_at_most(request),
    }
}

fn fields_bytes(request: &DeliveryRequest<'_>, names: &[String]) -> usize {
    names.iter().map(|name| field_bytes(request, name)).sum()
}

fn field_bytes(request: &DeliveryRequest<'_>, name: &str) -> usize {
    if let Field::Once(value) = request.headers.field(name) { value.len() } else { 0 }
}
