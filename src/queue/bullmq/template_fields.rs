//! The fields of documents that a template uses. The index keeps them for it.

use crate::queue::bullmq::placeholder::{FieldSource, Placeholder};
use crate::queue::bullmq::shape::{Members, visit_placeholders};

/// A field, by its dotted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateField {
    pub path: String,
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

impl TemplateFields {
    pub(super) fn used_by(template: &Members) -> Self {
        let mut fields = Self::default();
        visit_placeholders(template, &mut |placeholder, is_in_text| {
            if let Placeholder::Field(source, path) = placeholder {
                fields.add(*source, path, is_in_text);
            }
        });
        fields
    }

    fn add(&mut self, source: FieldSource, path: &str, is_in_text: bool) {
        let fields = match source {
            FieldSource::Workflow => &mut self.workflow,
            FieldSource::Node => &mut self.node,
        };
        match fields.iter_mut().find(|field| field.path == path) {
            Some(field) => field.is_in_text |= is_in_text,
            None => fields.push(TemplateField { path: path.to_owned(), is_in_text }),
        }
    }

    /// The number of a field, if it is kept for this use.
    pub(super) fn number(
        &self,
        source: FieldSource,
        path: &str,
        is_in_text: bool,
    ) -> Option<usize> {
        let (fields, before) = match source {
            FieldSource::Workflow => (&self.workflow, 0),
            FieldSource::Node => (&self.node, self.workflow.len()),
        };
        let is_kept =
            |field: &TemplateField| field.path == path && (field.is_in_text || !is_in_text);
        fields.iter().position(is_kept).map(|position| before + position)
    }
}
