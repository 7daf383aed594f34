//! Forms, `application/x-www-form-urlencoded`. What is not UTF-8 in a name or a value is replaced by
//! U+FFFD, as browsers do.

use crate::endpoints::payload::fields::{BYTES_PER_FIELD, Fields};
use crate::endpoints::payload::strings::{append_text, text_bytes};
use std::borrow::Cow;

/// A form whose names and values are decoded when they are asked for.
pub(super) struct Form<'a> {
    body: &'a [u8],
    /// Where the fields begin. A body has fewer than 2^32 bytes.
    begins: Vec<u32>,
}

/// Bound on the memory that the conversion takes.
pub(super) fn bytes_at_most(body: &[u8]) -> usize {
    let fields = pieces(body).count();
    fields * (size_of::<u32>() + BYTES_PER_FIELD) + result_bytes(body)
}

/// Bound on the bytes of the object: what it has if no name is there twice.
fn result_bytes(body: &[u8]) -> usize {
    let field = |(_, piece)| {
        let (name, value) = decode(piece);
        text_bytes(name.as_bytes()) + text_bytes(value.as_bytes()) + 2
    };
    pieces(body).map(field).sum::<usize>() + 2
}

/// The fields, still encoded, and where they begin. Empty ones are none.
fn pieces(body: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let pieces = body.split(|byte| *byte == b'&').scan(0, |position, piece| {
        let begin = *position;
        *position += piece.len() + 1;
        Some((begin, piece))
    });
    pieces.filter(|(_, piece)| !piece.is_empty())
}

fn decode(piece: &[u8]) -> (Cow<'_, str>, Cow<'_, str>) {
    form_urlencoded::parse(piece).next().unwrap_or_default()
}

impl<'a> Form<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        let mut begins = Vec::with_capacity(pieces(body).count());
        begins.extend(pieces(body).filter_map(|(begin, _)| u32::try_from(begin).ok()));
        Self { body, begins }
    }

    pub(super) fn result_bytes(&self) -> usize {
        result_bytes(self.body)
    }

    fn field(&self, field: usize) -> (Cow<'_, str>, Cow<'_, str>) {
        let begin = self.begins.get(field).map_or(self.body.len(), |begin| *begin as usize);
        let rest = self.body.get(begin..).unwrap_or_default();
        decode(rest.split(|byte| *byte == b'&').next().unwrap_or_default())
    }
}

impl Fields for Form<'_> {
    fn count(&self) -> usize {
        self.begins.len()
    }

    fn name(&self, field: usize) -> Cow<'_, str> {
        self.field(field).0
    }

    fn append_value(&self, json: &mut Vec<u8>, field: usize) {
        append_text(json, &self.field(field).1);
    }
}
