//! The fields of documents that a template uses. The index keeps them for it.

use crate::queue::bullmq::placeholder::{FieldSource, Placeholder};
use crate::queue::bullmq::shape::{Members, visit_members};

/// A field, by its dotted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateField {
    pub path: String,
    /// The paths within `[queue.data]` of the values that use it.
    pub uses: Vec<String>,
    /// Whether it stands within a string, where it cannot be an object or an array.
    pub is_in_text: bool,
}

/// The fields of a workflow's document and those of its first matching node. They are numbered in
/// this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateFields {
    pub workflow: Vec<TemplateField>,
    pub node: Vec<TemplateField>,
}

/// A field that a template uses and the index does not keep for that use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingField {
    pub placeholder: String,
    pub reason: &'static str,
}

impl TemplateFields {
    pub(in crate::queue) fn is_empty(&self) -> bool {
        self.workflow.is_empty() && self.node.is_empty()
    }

    pub(super) fn used_by(template: &Members) -> Self {
        let mut fields = Self::default();
        visit_members(template, "", &mut |found| {
            if let Placeholder::Field(source, path) = found.placeholder {
                fields.add(*source, path, found.path, found.is_in_text);
            }
        });
        fields
    }

    fn add(&mut self, source: FieldSource, path: &str, used_at: &str, is_in_text: bool) {
        let fields = match source {
            FieldSource::Workflow => &mut self.workflow,
            FieldSource::Node => &mut self.node,
        };
        let used_at = used_at.to_owned();
        match fields.iter_mut().find(|field| field.path == path) {
            Some(field) => {
                field.is_in_text |= is_in_text;
                field.uses.push(used_at);
            }
            None => {
                fields.push(TemplateField {
                    path: path.to_owned(),
                    uses: vec![used_at],
                    is_in_text,
                });
            }
        }
    }

    /// The number of a field, or why it is not kept for this use.
    pub(super) fn number(
        &self,
        source: FieldSource,
        path: &str,
        is_in_text: bool,
    ) -> Result<usize, &'static str> {
        let (fields, before) = match source {
            FieldSource::Workflow => (&self.workflow, 0),
            FieldSource::Node => (&self.node, self.workflow.len()),
        };
        let found = fields.iter().enumerate().find(|(_, field)| field.path == path);
        match found {
            None => Err("the index does not keep this field yet"),
            Some((_, field)) if is_in_text && !field.is_in_text => {
                Err("its value is not checked for use within a string")
            }
            Some((position, _)) => Ok(before + position),
        }
    }
}
