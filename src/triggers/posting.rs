//! What the index holds of a workflow under one webhook.
//!
//! The data of a posting is the JSON array of the matching nodes' ids. If there are several types
//! of trigger nodes or kept fields, the array has its length in front, and the type of the first
//! matching node and the JSON text of each kept field follow in the same form. The type is left out
//! if there is only one.

use crate::mirror::document::IdString;
use crate::mirror::index::shard::Posting;
use crate::mirror::index::varint::{push_bytes, take_bytes};

/// How the data of postings is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PostingLayout {
    /// The type of every trigger node; `None` if there are several.
    only_type: Option<Box<str>>,
    /// The number of kept fields.
    fields: usize,
}

/// A workflow that a webhook starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger<'a> {
    pub workflow: IdString<'a>,
    /// The ids of the workflow's matching nodes, as a JSON array.
    pub node_ids: &'a str,
    /// The type of the first matching node.
    pub node_type: &'a str,
    /// The kept fields.
    pub fields: KeptTexts<'a>,
}

/// The JSON texts of the kept fields, in the order of [`KeptFields`](crate::triggers::KeptFields).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptTexts<'a>(&'a [u8]);

impl<'a> KeptTexts<'a> {
    pub(super) fn from_bytes(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The text of the field with this number. The texts before it are skipped unread.
    pub fn get(self, number: usize) -> Option<&'a str> {
        let mut rest = self.0;
        for _ in 0..number {
            (_, rest) = take_bytes(rest)?;
        }
        take_text(rest).map(|(text, _)| text)
    }
}

impl PostingLayout {
    pub(super) fn new(node_types: &[String], fields: usize) -> Self {
        let only_type = match node_types {
            [only] => Some(only.as_str().into()),
            _ => None,
        };
        Self { only_type, fields }
    }

    /// The data of a posting.
    pub(super) fn write<'a>(
        &self,
        node_ids: String,
        node_type: &str,
        fields: impl Iterator<Item = &'a String>,
    ) -> Vec<u8> {
        if self.only_type.is_some() && self.fields == 0 {
            return node_ids.into_bytes();
        }
        let mut data = Vec::with_capacity(node_ids.len() + node_type.len() + 16);
        push_bytes(&mut data, node_ids.as_bytes());
        if self.only_type.is_none() {
            push_bytes(&mut data, node_type.as_bytes());
        }
        fields.for_each(|field| push_bytes(&mut data, field.as_bytes()));
        data
    }

    /// Reads a posting.
    #[inline]
    pub(super) fn read<'a>(
        &'a self,
        Posting { document, data }: Posting<'a>,
    ) -> Option<Trigger<'a>> {
        let workflow = IdString::from_key(document)?;
        match &self.only_type {
            Some(node_type) if self.fields == 0 => {
                let node_ids = std::str::from_utf8(data).ok()?;
                Some(Trigger { workflow, node_ids, node_type, fields: KeptTexts::default() })
            }
            only_type => Self::read_parts(workflow, only_type.as_deref(), data),
        }
    }

    /// Kept out of [`Self::read`], which is part of the loop over all matches.
    #[inline(never)]
    fn read_parts<'a>(
        workflow: IdString<'a>,
        only_type: Option<&'a str>,
        data: &'a [u8],
    ) -> Option<Trigger<'a>> {
        let (node_ids, rest) = take_text(data)?;
        let (node_type, rest) = match only_type {
            Some(node_type) => (node_type, rest),
            None => take_text(rest)?,
        };
        Some(Trigger { workflow, node_ids, node_type, fields: KeptTexts(rest) })
    }

    /// Whether a posting has this layout.
    pub(super) fn is_readable(&self, posting: Posting<'_>) -> bool {
        let Some(Trigger { fields: KeptTexts(mut rest), .. }) = self.read(posting) else {
            return false;
        };
        for _ in 0..self.fields {
            let Some((_, after)) = take_text(rest) else { return false };
            rest = after;
        }
        rest.is_empty()
    }
}

fn take_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (text, rest) = take_bytes(bytes)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::document::DocumentKey;
    use bson::rawdoc;

    #[test]
    fn a_posting_is_read_as_it_was_written() {
        let document = DocumentKey::from_document(&rawdoc! { "_id": "w" }).unwrap();
        let fields = [r#""one""#, "null"].map(str::to_owned);
        for types in [&["A"][..], &["A", "B"]] {
            for kept in 0..=2 {
                let types: Vec<String> = types.iter().map(|each| (*each).to_owned()).collect();
                let layout = PostingLayout::new(&types, kept);
                let node_type = types.last().unwrap();
                let data = layout.write(r#"["n"]"#.to_owned(), node_type, fields.iter().take(kept));
                assert_eq!(data == br#"["n"]"#, kept == 0 && types.len() == 1);
                let posting = |data| Posting { document: document.as_bytes(), data };
                let read = layout.read(posting(&data)).unwrap();
                assert_eq!((read.node_ids, read.node_type), (r#"["n"]"#, node_type.as_str()));
                assert_eq!(
                    (0..).map_while(|n| read.fields.get(n)).collect::<Vec<_>>(),
                    fields[..kept]
                );
                assert_eq!(read.fields.get(1), (kept == 2).then_some("null"));
                assert!(layout.is_readable(posting(&data)));
                if kept > 0 {
                    assert!(!layout.is_readable(posting(&data[..data.len() - 1])));
                    assert!(!layout.is_readable(posting(&[&data[..], b"\x00"].concat())));
                }
            }
        }
    }
}
