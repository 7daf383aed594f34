//! What is signed of a request, in pieces.

use crate::endpoints::verification::request::DeliveryRequest;
use crate::endpoints::verification::rules::SignedRule;
use crate::endpoints::verification::template::{Part, Template};
use std::borrow::Cow;

/// What a template is filled with, beside the request.
#[derive(Clone)]
pub(super) struct Inputs<'a> {
    pub(super) timestamp: Option<Cow<'a, str>>,
    pub(super) id: Option<Cow<'a, str>>,
    /// The address as it is written where it is signed.
    pub(super) url: Cow<'a, str>,
    /// Whether the fields of a form are part of it.
    pub(super) with_form: bool,
}

/// What is signed. The body is not copied.
#[derive(Default)]
pub(super) struct Message<'a>(Vec<Cow<'a, [u8]>>);

impl<'a> Message<'a> {
    pub(super) fn new(
        template: &'a Template,
        request: &DeliveryRequest<'a>,
        inputs: &Inputs<'a>,
    ) -> Self {
        let text = |text: &Option<Cow<'a, str>>| {
            Cow::Owned(text.as_deref().unwrap_or_default().as_bytes().to_vec())
        };
        let piece = |part: &'a Part| match part {
            Part::Literal(text) => Cow::Borrowed(text.as_bytes()),
            Part::Body => Cow::Borrowed(request.body),
            Part::Url => match &inputs.url {
                Cow::Borrowed(url) => Cow::Borrowed(url.as_bytes()),
                Cow::Owned(url) => Cow::Owned(url.as_bytes().to_vec()),
            },
            Part::Method => Cow::Borrowed(request.method.as_bytes()),
            Part::Timestamp => text(&inputs.timestamp),
            Part::Id => text(&inputs.id),
            Part::Form if inputs.with_form => Cow::Owned(form(request.body)),
            Part::Form => Cow::Borrowed(&[][..]),
        };
        Self(template.parts().iter().map(piece).collect())
    }

    pub(super) fn body(body: &'a [u8]) -> Self {
        Self(vec![Cow::Borrowed(body)])
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.concat()
    }

    /// The first part of at most `limit` bytes from a position on. Empty at the end.
    pub(super) fn chunk(&self, position: usize, limit: usize) -> &[u8] {
        let mut before = position;
        for piece in &self.0 {
            if let Some(rest) = piece.get(before..).filter(|rest| !rest.is_empty()) {
                return rest.get(..limit).unwrap_or(rest);
            }
            before = before.saturating_sub(piece.len());
        }
        &[]
    }
}

/// What can be signed: a message for each way to write the address, without those that are the same.
pub(super) fn messages<'a>(
    rule: &'a SignedRule,
    request: &DeliveryRequest<'a>,
    inputs: &Inputs<'a>,
) -> Vec<Message<'a>> {
    let mut urls: Vec<Cow<'a, str>> = Vec::new();
    for form in &rule.url_forms {
        let url = form.apply(request.url);
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    let message = |url| Message::new(&rule.signed, request, &Inputs { url, ..inputs.clone() });
    urls.into_iter().map(message).collect()
}

/// The fields of a form, sorted, each once, without anything between them.
fn form(body: &[u8]) -> Vec<u8> {
    let mut fields: Vec<(Cow<'_, str>, Cow<'_, str>)> = form_urlencoded::parse(body).collect();
    fields.sort_unstable();
    fields.dedup();
    let pieces = fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    pieces.collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_form_are_sorted_and_each_is_there_once() {
        assert_eq!(form(b"b=2&a=%2B1&b=1&b=2&c"), b"a+1b1b2c");
        assert_eq!(form(b""), b"");
    }

    #[test]
    fn chunks_cover_the_message() {
        let pieces = ["ab", "", "c", "defgh"].map(|text| Cow::Borrowed(text.as_bytes()));
        let message = Message(pieces.to_vec());
        for limit in 1..10 {
            let mut seen = Vec::new();
            loop {
                let chunk = message.chunk(seen.len(), limit);
                if chunk.is_empty() {
                    break;
                }
                assert!(chunk.len() <= limit);
                seen.extend_from_slice(chunk);
            }
            assert_eq!(seen, b"abcdefgh");
        }
    }
}
