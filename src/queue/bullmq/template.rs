//! The template of a job's data: the order in which its bytes are written. It is compiled once, at
//! the start and on SIGHUP.
//!
//! The data of a job is a head and a tail. The head ends with the last value that differs between
//! the jobs of a request. The tail is shared, so it crosses the wire once for all of them. In the
//! template of an operator, the members of each object are reordered so that as many bytes as
//! possible are in the tail:
//!
//! - members with a value of a job precede those without;
//! - among them, the one with the most bytes after its last value of a job is the last one.
//!
//! So an object that holds both the payload and a value of a job begins with that value and comes
//! last on its level, up to the top. Elements of an array keep their order: a payload before the
//! last value of a job is then a part of every head.

use crate::queue::bullmq::json_string::within_quotes;
use crate::queue::bullmq::placeholder::{JobValue, Placeholder, SharedValue};
use crate::queue::bullmq::shape::{Members, Shape, TextPart, visit_members, visit_placeholders};
use crate::queue::bullmq::template_fields::{MissingField, TemplateFields};

/// How a value is written: as JSON, or inside of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Text,
}

/// Bytes that all jobs of a request share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SharedPiece {
    Constant(Box<str>),
    Value(SharedValue, Form),
}

/// A part of the head: shared bytes, and the value of a job that follows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeadPart {
    pub(super) shared: Box<[SharedPiece]>,
    pub(super) value: JobValue,
    pub(super) form: Form,
}

/// A compiled template. A head has at least one byte: one without bytes would stand for a staged
/// hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) head: Box<[HeadPart]>,
    pub(super) tail: Box<[SharedPiece]>,
    pub(super) head_size: UsualSize,
    pub(super) tail_size: UsualSize,
    /// The values in the head that are as long as the request: the path of each within
    /// `[queue.data]`, and its placeholder.
    pub(super) repeated: Box<[(String, String)]>,
}

/// A rough size of a part of the data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct UsualSize {
    /// Bytes without payloads and bodies.
    bytes: usize,
    payloads: usize,
    bodies: usize,
    /// Other values that can be long: the query and the headers.
    long_values: usize,
}

impl Template {
    /// Compiles the template of an operator. `fields` are the fields that the index keeps. The
    /// error contains those that it does not keep.
    pub(super) fn rearranged(
        mut members: Members,
        fields: &TemplateFields,
    ) -> Result<Self, Vec<MissingField>> {
        rearrange(&mut members);
        let template = Self::in_order(&members, fields)?;
        Ok(Self { repeated: repeated_values(&members), ..template })
    }

    /// Compiles a template whose members stay in their order.
    pub(super) fn in_order(
        members: &Members,
        fields: &TemplateFields,
    ) -> Result<Self, Vec<MissingField>> {
        let mut pieces = Pieces::new(fields);
        pieces.add_constant("{");
        let mut has_value_of_job = false;
        visit_placeholders(members, &mut |placeholder, _| {
            has_value_of_job |= placeholder.is_of_job();
        });
        if !has_value_of_job {
            pieces.end_head(JobValue::Nothing, Form::Json);
        }
        pieces.add_members(members);
        pieces.add_constant("}");
        pieces.finish()
    }
}

impl UsualSize {
    fn from_pieces(pieces: &[SharedPiece]) -> Self {
        let mut size = Self::default();
        for piece in pieces {
            match piece {
                SharedPiece::Constant(text) => size.bytes += text.len(),
                SharedPiece::Value(SharedValue::Payload, _) => size.payloads += 1,
                SharedPiece::Value(SharedValue::Body | SharedValue::RawBody, _) => size.bodies += 1,
                SharedPiece::Value(value, _) => {
                    size.bytes += value.usual_bytes();
                    size.long_values += usize::from(value.grows_with_request());
                }
            }
        }
        size
    }

    fn from_head(head: &[HeadPart]) -> Self {
        let mut size = Self::default();
        for part in head {
            let Self { bytes, payloads, bodies, long_values } = Self::from_pieces(&part.shared);
            size.bytes += bytes + USUAL_VALUE_OF_JOB;
            size.long_values += long_values;
            size.payloads += payloads;
            size.bodies += bodies;
        }
        size
    }

    /// Whether a caller can make this part as long as its request.
    pub(super) fn grows_with_request(self) -> bool {
        self.payloads + self.bodies + self.long_values > 0
    }

    /// The bytes of payloads and bodies, which a caller can make as many as its request has.
    pub(super) fn body_bytes(self, payload: usize, body: usize) -> usize {
        let payloads = self.payloads.saturating_mul(payload);
        payloads.saturating_add(self.bodies.saturating_mul(body))
    }

    /// All bytes, roughly.
    pub(super) fn bytes(self, payload: usize, body: usize) -> usize {
        self.body_bytes(payload, body).saturating_add(self.bytes)
    }
}

/// A rough number of bytes of a value of a job.
const USUAL_VALUE_OF_JOB: usize = 32;

/// Reorders the members of all objects, so that the tail gets as many bytes as possible.
fn rearrange(members: &mut Members) {
    for (_, member) in members.iter_mut() {
        rearrange_within(member);
    }
    members.sort_by_key(|(_, member)| {
        let bytes = bytes_after_last_value_of_job(member);
        (bytes.is_none(), bytes)
    });
}

fn rearrange_within(shape: &mut Shape) {
    match shape {
        Shape::Object(members) => rearrange(members),
        Shape::Array(elements) => elements.iter_mut().for_each(rearrange_within),
        Shape::Constant(_) | Shape::Value(_) | Shape::Text(_) => {}
    }
}

/// The values as long as the request that precede a value of a job.
fn repeated_values(members: &Members) -> Box<[(String, String)]> {
    let (mut repeated, mut since_last_value_of_job) = (Vec::new(), Vec::new());
    visit_members(members, "", &mut |found| match found.placeholder {
        Placeholder::Shared(value) if value.grows_with_request() => {
            since_last_value_of_job.push((found.path.to_owned(), found.placeholder.name()));
        }
        Placeholder::Shared(_) => {}
        Placeholder::Job(_) | Placeholder::Field(..) => {
            repeated.append(&mut since_last_value_of_job);
        }
    });
    repeated.into()
}

/// A rough number of bytes after the last value of a job, if there is such a value.
fn bytes_after_last_value_of_job(shape: &Shape) -> Option<usize> {
    let mut bytes = None;
    shape.visit_uses("", &mut |found| match (found.placeholder, &mut bytes) {
        (Placeholder::Shared(value), Some(bytes)) => *bytes += value.usual_bytes(),
        (Placeholder::Shared(_), None) => {}
        (Placeholder::Job(_) | Placeholder::Field(..), bytes) => *bytes = Some(0),
    });
    bytes
}

/// Collects the pieces of a template. Neighbouring constants become one.
struct Pieces<'a> {
    fields: &'a TemplateFields,
    head: Vec<HeadPart>,
    /// The pieces after the head.
    shared: Vec<SharedPiece>,
    /// The constant after these pieces.
    constant: String,
    /// The fields that are not kept, each once.
    missing: Vec<MissingField>,
}

impl<'a> Pieces<'a> {
    fn new(fields: &'a TemplateFields) -> Self {
        let (head, shared) = (Vec::new(), Vec::new());
        Self { fields, head, shared, constant: String::new(), missing: Vec::new() }
    }

    fn add_members(&mut self, members: &Members) {
        for (number, (name, member)) in members.iter().enumerate() {
            self.add_constant(if number == 0 { "" } else { "," });
            self.add_constant(&serde_json::Value::from(name.as_str()).to_string());
            self.add_constant(":");
            self.add(member);
        }
    }

    fn add(&mut self, shape: &Shape) {
        match shape {
            Shape::Object(members) => {
                self.add_constant("{");
                self.add_members(members);
                self.add_constant("}");
            }
            Shape::Array(elements) => {
                self.add_constant("[");
                for (number, element) in elements.iter().enumerate() {
                    self.add_constant(if number == 0 { "" } else { "," });
                    self.add(element);
                }
                self.add_constant("]");
            }
            Shape::Constant(json) => self.add_constant(json),
            Shape::Value(placeholder) => self.add_value(placeholder, Form::Json),
            Shape::Text(parts) => {
                self.add_constant("\"");
                for part in parts {
                    self.add_part(part);
                }
                self.add_constant("\"");
            }
        }
    }

    fn add_part(&mut self, part: &TextPart) {
        match part {
            TextPart::Literal(text) => {
                let quoted = serde_json::Value::from(text.as_str()).to_string();
                self.add_constant(within_quotes(&quoted));
            }
            TextPart::Value(placeholder) => self.add_value(placeholder, Form::Text),
        }
    }

    fn add_value(&mut self, placeholder: &Placeholder, form: Form) {
        match placeholder {
            Placeholder::Shared(value) => {
                self.end_constant();
                self.shared.push(SharedPiece::Value(*value, form));
            }
            Placeholder::Job(value) => self.end_head(*value, form),
            Placeholder::Field(source, path) => {
                match self.fields.number(*source, path, form == Form::Text) {
                    Ok(number) => self.end_head(JobValue::Field(number), form),
                    Err(reason) => self.add_missing(placeholder, reason),
                }
            }
        }
    }

    fn add_missing(&mut self, placeholder: &Placeholder, reason: &'static str) {
        let missing = MissingField { placeholder: placeholder.name(), reason };
        if !self.missing.contains(&missing) {
            self.missing.push(missing);
        }
    }

    fn add_constant(&mut self, json: &str) {
        self.constant.push_str(json);
    }

    fn end_constant(&mut self) {
        if !self.constant.is_empty() {
            let constant = std::mem::take(&mut self.constant);
            self.shared.push(SharedPiece::Constant(constant.into()));
        }
    }

    /// Ends the head with a value of a job. A later one moves the end.
    fn end_head(&mut self, value: JobValue, form: Form) {
        self.end_constant();
        let shared = std::mem::take(&mut self.shared).into();
        self.head.push(HeadPart { shared, value, form });
    }

    fn finish(mut self) -> Result<Template, Vec<MissingField>> {
        self.end_constant();
        let Self { head, shared, missing, .. } = self;
        let (head_size, tail_size) = (UsualSize::from_head(&head), UsualSize::from_pieces(&shared));
        let (head, tail, repeated) = (head.into(), shared.into(), Box::default());
        let template = Template { head, tail, head_size, tail_size, repeated };
        if missing.is_empty() { Ok(template) } else { Err(missing) }
    }
}
