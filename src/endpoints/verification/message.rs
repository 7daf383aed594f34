//! What is signed of a request, in pieces.

use crate::endpoints::verification::request::DeliveryRequest;
use crate::endpoints::verification::rules::SignedRule;
use crate::endpoints::verification::template::Part;
use bytes::Bytes;
use std::borrow::Cow;

/// A piece of what is signed. A clone copies no bytes.
#[derive(Clone)]
pub(super) enum Piece<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl Piece<'_> {
    const EMPTY: Self = Self::Borrowed(&[]);

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl<'a> From<Cow<'a, str>> for Piece<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => Self::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Self::Owned(text.into()),
        }
    }
}

/// What a template is filled with, beside the request.
pub(super) struct Inputs<'a> {
    pub(super) timestamp: Option<Cow<'a, str>>,
    pub(super) id: Option<Cow<'a, str>>,
    /// The sorted fields of a form, if they are signed.
    pub(super) form: Option<Vec<u8>>,
}

/// What is signed. The body is not copied.
pub(super) struct Message<'a>(Vec<Piece<'a>>);

impl<'a> Message<'a> {
    pub(super) fn body(body: &'a [u8]) -> Self {
        Self(vec![Piece::Borrowed(body)])
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.iter().map(Piece::bytes).collect::<Vec<_>>().concat()
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|piece| piece.bytes().len()).sum()
    }

    /// The pieces that are neither of the request nor of the description.
    #[cfg(test)]
    pub(super) fn owned(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Owned(bytes) => Some(bytes),
            Piece::Borrowed(_) => None,
        })
    }

    /// The first part of at most `limit` bytes from a position on. Empty at the end.
    pub(super) fn chunk(&self, position: usize, limit: usize) -> &[u8] {
        let mut before = position;
        for piece in self.0.iter().map(Piece::bytes) {
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
    inputs: Inputs<'a>,
) -> Vec<Message<'a>> {
    let mut urls: Vec<Cow<'a, str>> = Vec::with_capacity(rule.url_forms.len());
    for form in &rule.url_forms {
        let url = form.apply(request.url);
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    let [timestamp, id] =
        [inputs.timestamp, inputs.id].map(|text| text.map_or(Piece::EMPTY, Piece::from));
    let form = inputs.form.map_or(Piece::EMPTY, |form| Piece::Owned(form.into()));
    let message = |url: Cow<'a, str>| {
        let url = Piece::from(url);
        let piece = |part: &'a Part| match part {
            Part::Literal(text) => Piece::Borrowed(text.as_bytes()),
            Part::Body => Piece::Borrowed(request.body),
            Part::Method => Piece::Borrowed(request.method.as_bytes()),
            Part::Url => url.clone(),
            Part::Timestamp => timestamp.clone(),
            Part::Id => id.clone(),
            Part::Form => form.clone(),
        };
        Message(rule.signed.parts().iter().map(piece).collect())
    };
    urls.into_iter().map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_message() {
        let pieces = ["ab", "", "c", "defgh"].map(|text| Piece::from(Cow::Borrowed(text)));
        let owned = Piece::from(Cow::Owned("ij".to_owned()));
        let message = Message(pieces.into_iter().chain([owned]).collect());
        assert_eq!((message.len(), message.bytes()), (10, b"abcdefghij".to_vec()));
        for limit in 1..12 {
            let mut seen = Vec::new();
            loop {
                let chunk = message.chunk(seen.len(), limit);
                if chunk.is_empty() {
                    break;
                }
                assert!(chunk.len() <= limit);
                seen.extend_from_slice(chunk);
            }
            assert_eq!(seen, b"abcdefghij");
        }
    }
}
