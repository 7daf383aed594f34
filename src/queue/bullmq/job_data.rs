//! The keys that decide what the data of a job is: `[queue.data]` and `queue.forward_headers`.

use crate::queue::bullmq::placeholder::{FieldSource, JobValue, Placeholder, SharedValue};
use crate::queue::bullmq::request::{EnqueueRequest, Origin};
use crate::queue::bullmq::shape::{
    Members, built_in_members, foreign_placeholders, read_members, visit_placeholders,
};
use crate::queue::bullmq::template::Template;
use crate::queue::bullmq::template_fields::{MissingField, TemplateFields};
use crate::settings::Section;
use toml::Value;

/// Headers that carry a credential, which no job may contain.
const CREDENTIALS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "x-gitlab-token"];

/// What the data of a job is.
#[derive(Debug, Clone)]
pub(in crate::queue) struct JobData {
    /// `[queue.data]`; `None` for the built-in shape.
    members: Option<Members>,
    template: Template,
    /// The template of deliveries; `None` if it is the same.
    of_deliveries: Option<Template>,
    /// Names of headers in lower case, each once.
    pub(super) forward_headers: Vec<String>,
}

impl JobData {
    /// Reads the keys from the section `[queue]`. Also returns the fields that the template uses.
    pub(in crate::queue) fn read(section: &mut Section<'_>) -> (Self, TemplateFields) {
        let forward_headers = read_forward_headers(section);
        let members = read_data(section);
        warn(section, members.as_ref(), &forward_headers);
        let fields = members.as_ref().map(TemplateFields::used_by).unwrap_or_default();
        let data = Self::compile(members, forward_headers, &fields);
        let data = data.expect("the fields are those of the template");
        warn_of_repeated_values(section, &data.template);
        (data, fields)
    }

    fn compile(
        members: Option<Members>,
        forward_headers: Vec<String>,
        fields: &TemplateFields,
    ) -> Result<Self, Vec<MissingField>> {
        let built_in = |origin| Template::in_order(&built_in_members(origin), fields);
        let (template, of_deliveries) = if let Some(members) = &members {
            (Template::rearranged(members.clone(), fields)?, None)
        } else {
            (built_in(Origin::Webhook)?, Some(built_in(Origin::Delivery)?))
        };
        Ok(Self { members, template, of_deliveries, forward_headers })
    }

    /// The same data for an index that keeps other fields. The error contains those that it does
    /// not keep.
    pub(in crate::queue) fn with_fields(
        &self,
        fields: &TemplateFields,
    ) -> Result<Self, Vec<MissingField>> {
        Self::compile(self.members.clone(), self.forward_headers.clone(), fields)
    }

    /// The same data with the forwarded headers of `other`.
    pub(in crate::queue) fn with_headers_of(&self, other: &Self) -> Self {
        Self { forward_headers: other.forward_headers.clone(), ..self.clone() }
    }

    /// The template for the jobs of a request.
    pub(super) fn template(&self, origin: Origin) -> &Template {
        match (origin, &self.of_deliveries) {
            (Origin::Delivery, Some(template)) => template,
            _ => &self.template,
        }
    }

    /// Whether a caller can make the part of the data that is encoded for each job as long as its
    /// request.
    pub(in crate::queue) fn has_long_heads(&self) -> bool {
        self.template.head_size.grows_with_request()
    }

    /// The bytes of the data of this many jobs, roughly.
    pub(in crate::queue) fn usual_bytes(
        &self,
        count: usize,
        request: &EnqueueRequest<'_>,
    ) -> usize {
        let Template { head_size, tail_size, .. } = self.template(request.origin);
        let (payload, body) = (request.payload_bytes(), request.body_bytes());
        let of_job = head_size.bytes(payload, body).saturating_add(tail_size.bytes(payload, body));
        count.saturating_mul(of_job)
    }

    pub(in crate::queue) fn forward_headers(&self) -> &[String] {
        &self.forward_headers
    }
}

fn read_data(section: &mut Section<'_>) -> Option<Members> {
    let Value::Table(table) = section.whole_table("data")? else {
        let message = "not a table; write a section [queue.data], or { name = \"{placeholder}\" }";
        section.fault("data", message);
        return None;
    };
    for found in foreign_placeholders(&table) {
        section.warning(&format!("data.{}", found.path), found.message);
    }
    let (members, faults) = read_members(&table);
    for fault in faults {
        section.fault(&format!("data.{}", fault.path), fault.message);
    }
    Some(members)
}

fn read_forward_headers(section: &mut Section<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for given in section.value("forward_headers", Vec::<String>::new()) {
        let name = given.to_ascii_lowercase();
        if !is_header_name(&name) {
            section.fault("forward_headers", format!("{given:?} is no name of a header"));
        } else if name.contains('*') {
            let message = format!("{given:?} is a pattern; write the whole name of each header");
            section.fault("forward_headers", message);
        } else if CREDENTIALS.contains(&name.as_str()) {
            let message = format!("{name} carries a credential, which no job may contain");
            section.fault("forward_headers", message);
        } else if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether this is a token of RFC 9110.
fn is_header_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// Warns of values as long as the request that are written for each job.
fn warn_of_repeated_values(section: &mut Section<'_>, template: &Template) {
    for (path, name) in &template.repeated {
        let message = format!(
            "{name} is written once per job and not once per request, because a value of the job \
             comes after it; put such values first in arrays and strings, and let at most one \
             object have both"
        );
        section.warning(&format!("data.{path}"), message);
    }
}

/// Warns of templates that are valid but hardly what is meant.
fn warn(section: &mut Section<'_>, members: Option<&Members>, forward_headers: &[String]) {
    let (mut has_workflow, mut has_headers) = (members.is_none(), false);
    if let Some(members) = members {
        visit_placeholders(members, &mut |placeholder, _| match placeholder {
            Placeholder::Job(JobValue::WorkflowId) => has_workflow = true,
            Placeholder::Field(FieldSource::Workflow, path) if path == "_id" => has_workflow = true,
            Placeholder::Shared(SharedValue::Headers) => has_headers = true,
            _ => {}
        });
    }
    if !has_workflow {
        let message = "contains neither {workflowId} nor {workflow._id}: a worker cannot tell which workflow to run";
        section.warning("data", message);
    }
    if has_headers && forward_headers.is_empty() {
        section.warning("data", "{headers} is always {}, because queue.forward_headers is empty");
    }
    if !has_headers && !forward_headers.is_empty() {
        let message = if members.is_some() {
            "has no effect, because queue.data contains no {headers}"
        } else {
            "has no effect except on deliveries to endpoints, because there is no queue.data with {headers}"
        };
        section.warning("forward_headers", message);
    }
}
