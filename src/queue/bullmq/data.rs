//! Encodes the data of the jobs of a request by a template.

use crate::ids::UserId;
use crate::process::unix_time;
use crate::queue::bullmq::job_data::JobData;
use crate::queue::bullmq::json_string::{
    append_display, append_escaped, append_escaped_bytes, append_number, append_string,
    within_quotes,
};
use crate::queue::bullmq::placeholder::{JobValue, SharedValue};
use crate::queue::bullmq::request::{EnqueueRequest, Origin, WorkflowMatch};
use crate::queue::bullmq::template::{Form, HeadPart, SharedPiece, Template};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// The data of all jobs would have more bytes than allowed. The number is an estimate: encoding
/// ends before it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) struct TooManyBytes(pub(in crate::queue) usize);

/// The last millisecond that RFC 3339 can express.
const END_OF_9999: Duration = Duration::from_millis(253_402_300_799_999);

/// The data of the jobs of a request: the head of each, and the tail that they share.
pub(super) type Data = (Vec<Bytes>, Bytes);

/// Encodes the data of the jobs, which together may have `max_bytes`.
pub(super) fn encode<'a>(
    request: &EnqueueRequest<'_>,
    matches: impl ExactSizeIterator<
        Item = WorkflowMatch<'a, impl AsRef<str>, impl Fn(usize) -> &'a str>,
    >,
    data: &JobData,
    max_bytes: usize,
) -> Result<Data, TooManyBytes> {
    let count = matches.len();
    if count == 0 {
        return Ok((Vec::new(), Bytes::new()));
    }
    let template = data.template(request.origin);
    let capacity = usual_bytes(request, count, template, max_bytes)?;
    let buffer = Vec::with_capacity(capacity);
    let has_copies = count > 1;
    let mut encoder = Encoder { request, data, template, buffer, has_copies, copied: None };
    let mut ends = Vec::with_capacity(count);
    for each in matches {
        encoder.append_head(&each);
        ends.push(encoder.buffer.len());
        if encoder.buffer.len() > max_bytes {
            let bytes = encoder.buffer.len();
            return Err(TooManyBytes((bytes / ends.len()).saturating_mul(count).max(bytes)));
        }
    }
    let heads = encoder.buffer.len();
    encoder.append_shared(&template.tail);
    let bytes = (encoder.buffer.len() - heads).saturating_mul(count).saturating_add(heads);
    if bytes > max_bytes {
        return Err(TooManyBytes(bytes));
    }
    Ok(encoder.finish(ends))
}

/// A rough number of bytes of the heads and the tail. Fails if payloads and bodies alone exceed
/// `max_bytes`.
fn usual_bytes(
    request: &EnqueueRequest<'_>,
    count: usize,
    template: &Template,
    max_bytes: usize,
) -> Result<usize, TooManyBytes> {
    let (payload, body) = (request.payload_bytes(), request.body_bytes());
    let [head, tail] = [template.head_size, template.tail_size];
    let of_job = head.body_bytes(payload, body).saturating_add(tail.body_bytes(payload, body));
    let at_least = count.saturating_mul(of_job);
    if at_least > max_bytes {
        return Err(TooManyBytes(at_least));
    }
    let heads = count.saturating_mul(head.bytes(payload, body));
    Ok(heads.saturating_add(tail.bytes(payload, body)).min(max_bytes))
}

struct Encoder<'r, 'a> {
    request: &'r EnqueueRequest<'r>,
    data: &'r JobData,
    template: &'r Template,
    buffer: Vec<u8>,
    /// Whether later heads copy parts of an earlier one.
    has_copies: bool,
    copied: Option<CopiedHead<'a>>,
}

/// A head that was encoded in full, for later ones to copy.
struct CopiedHead<'a> {
    /// The type of its node, if a part contains it. A head with another type is not copied.
    node_type: Option<&'a str>,
    /// Bytes that are the same in all heads with this type, each with the value that follows.
    parts: Vec<(Range<usize>, JobValue, Form)>,
}

impl<'a> Encoder<'_, 'a> {
    fn append_head<W: AsRef<str>, F: Fn(usize) -> &'a str>(
        &mut self,
        job: &WorkflowMatch<'a, W, F>,
    ) {
        let Self { buffer, copied, .. } = self;
        match copied {
            Some(head) if head.node_type.is_none_or(|of_head| is_same(of_head, job.node_type)) => {
                for (range, value, form) in &head.parts {
                    buffer.extend_from_within(range.clone());
                    append_value_of_job(buffer, job, *value, *form);
                }
            }
            _ => self.encode_head(job),
        }
    }

    fn encode_head<W: AsRef<str>, F: Fn(usize) -> &'a str>(
        &mut self,
        job: &WorkflowMatch<'a, W, F>,
    ) {
        let template = self.template;
        let (mut node_type, mut start) = (None, self.buffer.len());
        let parts = if self.has_copies { template.head.len() + 1 } else { 0 };
        let mut parts = Vec::with_capacity(parts);
        for HeadPart { shared, value, form } in &template.head {
            self.append_shared(shared);
            // Most workflows have one type, so it is copied with what is around it. What callers
            // can make long is never encoded again for another type.
            let is_copied =
                *value == JobValue::NodeType && !template.head_size.grows_with_request();
            if is_copied {
                node_type = Some(job.node_type);
            } else if self.has_copies {
                parts.push((start..self.buffer.len(), *value, *form));
            }
            append_value_of_job(&mut self.buffer, job, *value, *form);
            if !is_copied {
                start = self.buffer.len();
            }
        }
        if self.has_copies {
            let end = self.buffer.len();
            if start < end {
                parts.push((start..end, JobValue::Nothing, Form::Json));
            }
            self.copied = Some(CopiedHead { node_type, parts });
        }
    }

    fn append_shared(&mut self, pieces: &[SharedPiece]) {
        for piece in pieces {
            match piece {
                SharedPiece::Constant(json) => self.buffer.extend_from_slice(json.as_bytes()),
                SharedPiece::Value(value, form) => self.append_value(*value, *form),
            }
        }
    }

    fn append_value(&mut self, value: SharedValue, form: Form) {
        let EnqueueRequest { payload: [before, after], body, head, .. } = self.request;
        match value {
            SharedValue::OrganizationId => {
                append_text(&mut self.buffer, self.request.organization.as_str(), form);
            }
            SharedValue::UserId => {
                append_optional(&mut self.buffer, self.request.user.map(UserId::as_str), form);
            }
            SharedValue::WebhookId => {
                append_text(&mut self.buffer, self.request.webhook.as_str(), form);
            }
            SharedValue::RequestId => append_text(&mut self.buffer, self.request.id.as_str(), form),
            SharedValue::ReceivedAt => {
                let milliseconds = unix_time::milliseconds(self.request.received_at);
                append_number(&mut self.buffer, milliseconds);
            }
            SharedValue::ReceivedAtIso => self.append_time(form),
            // The body of a delivery need not be JSON; its payload is the whole body as JSON.
            SharedValue::Body if self.request.origin == Origin::Webhook => {
                self.buffer.extend_from_slice(body);
            }
            SharedValue::Payload | SharedValue::Body => {
                self.buffer.extend_from_slice(before);
                self.buffer.extend_from_slice(after);
            }
            SharedValue::RawBody => self.append_raw_body(form),
            SharedValue::RawBodyEncoding => {
                let is_utf8 = std::str::from_utf8(body).is_ok();
                append_text(&mut self.buffer, if is_utf8 { "utf8" } else { "base64" }, form);
            }
            SharedValue::Method => append_text(&mut self.buffer, head.method, form),
            SharedValue::Path => append_text(&mut self.buffer, head.path, form),
            SharedValue::ContentType => self.append_content_type(form),
            SharedValue::ClientAddress => self.append_client_address(form),
            SharedValue::Query => self.append_query(),
            SharedValue::Headers => self.append_headers(),
        }
    }

    fn append_quote(&mut self, form: Form) {
        if form == Form::Json {
            self.buffer.push(b'"');
        }
    }

    fn append_time(&mut self, form: Form) {
        let time = unix_time::since_epoch(self.request.received_at).min(END_OF_9999);
        let time = SystemTime::UNIX_EPOCH + time;
        self.append_quote(form);
        append_display(&mut self.buffer, humantime::format_rfc3339_millis(time));
        self.append_quote(form);
    }

    fn append_raw_body(&mut self, form: Form) {
        match std::str::from_utf8(&self.request.body) {
            Ok(text) => append_text(&mut self.buffer, text, form),
            Err(_) => append_text(&mut self.buffer, &STANDARD.encode(&self.request.body), form),
        }
    }

    fn append_client_address(&mut self, form: Form) {
        let Some(address) = self.request.head.client_address else {
            return append_optional(&mut self.buffer, None, form);
        };
        self.append_quote(form);
        append_display(&mut self.buffer, address);
        self.append_quote(form);
    }

    fn append_content_type(&mut self, form: Form) {
        let start = self.buffer.len();
        self.append_quote(form);
        let is_present = self.append_header("content-type");
        self.append_quote(form);
        if !is_present {
            self.buffer.truncate(start);
            append_optional(&mut self.buffer, None, form);
        }
    }

    /// Appends an object of the forwarded headers that the request has.
    fn append_headers(&mut self) {
        let mut separator: &[u8] = b"{";
        for name in &self.data.forward_headers {
            let start = self.buffer.len();
            self.buffer.extend_from_slice(separator);
            append_string(&mut self.buffer, name);
            self.buffer.extend_from_slice(b":\"");
            if self.append_header(name) {
                self.buffer.push(b'"');
                separator = b",";
            } else {
                self.buffer.truncate(start);
            }
        }
        self.buffer.extend_from_slice(if separator == b"{" { b"{}" } else { b"}" });
    }

    /// Appends the values of a header within a string, separated by a comma and a space. Returns
    /// whether there is one.
    fn append_header(&mut self, name: &str) -> bool {
        let mut is_present = false;
        let buffer = &mut self.buffer;
        self.request.head.headers.visit_values(name, &mut |value| {
            if std::mem::replace(&mut is_present, true) {
                buffer.extend_from_slice(b", ");
            }
            append_escaped_bytes(buffer, value);
        });
        is_present
    }

    /// Appends an object of the members of the query. A name that is repeated has an array.
    fn append_query(&mut self) {
        let query = self.request.head.query.unwrap_or_default();
        let mut positions: HashMap<Cow<'_, str>, usize> = HashMap::new();
        let mut members: Vec<(Cow<'_, str>, Vec<Cow<'_, str>>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let position = *positions.entry(name.clone()).or_insert(members.len());
            match members.get_mut(position) {
                Some((_, values)) => values.push(value),
                None => members.push((name, vec![value])),
            }
        }
        self.buffer.push(b'{');
        for (number, (name, values)) in members.iter().enumerate() {
            self.append_comma(number);
            append_string(&mut self.buffer, name);
            self.buffer.push(b':');
            self.append_values(values);
        }
        self.buffer.push(b'}');
    }

    fn append_values(&mut self, values: &[Cow<'_, str>]) {
        if let [value] = values {
            return append_string(&mut self.buffer, value);
        }
        self.buffer.push(b'[');
        for (number, value) in values.iter().enumerate() {
            self.append_comma(number);
            append_string(&mut self.buffer, value);
        }
        self.buffer.push(b']');
    }

    fn append_comma(&mut self, number: usize) {
        if number > 0 {
            self.buffer.push(b',');
        }
    }

    /// Cuts the buffer into heads and tail. The head of a single job gets the tail as well.
    fn finish(self, mut ends: Vec<usize>) -> Data {
        let buffer = Bytes::from(self.buffer);
        if let [only] = ends.as_mut_slice() {
            *only = buffer.len();
        }
        let tail = buffer.slice(ends.last().copied().unwrap_or(0)..);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        (starts.zip(&ends).map(|(start, end)| buffer.slice(start..*end)).collect(), tail)
    }
}

/// Whether two strings are equal. Most are even the same bytes in memory.
fn is_same(first: &str, second: &str) -> bool {
    std::ptr::eq(first, second) || first == second
}

#[inline]
fn append_value_of_job<'a, W: AsRef<str>, F: Fn(usize) -> &'a str>(
    buffer: &mut Vec<u8>,
    job: &WorkflowMatch<'a, W, F>,
    value: JobValue,
    form: Form,
) {
    match value {
        JobValue::WorkflowId => append_text(buffer, job.workflow.as_ref(), form),
        JobValue::NodeType => append_text(buffer, job.node_type, form),
        JobValue::NodeIds => buffer.extend_from_slice(job.node_ids.as_bytes()),
        JobValue::NodeId => append_json(buffer, first_string(job.node_ids), form),
        JobValue::Field(number) => append_json(buffer, (job.field)(number), form),
        JobValue::Nothing => {}
    }
}

#[inline]
fn append_text(buffer: &mut Vec<u8>, text: &str, form: Form) {
    match form {
        Form::Json => append_string(buffer, text),
        Form::Text => append_escaped(buffer, text),
    }
}

/// Appends a string or null. Within a string null is empty.
fn append_optional(buffer: &mut Vec<u8>, text: Option<&str>, form: Form) {
    match (text, form) {
        (Some(text), _) => append_text(buffer, text, form),
        (None, Form::Json) => buffer.extend_from_slice(b"null"),
        (None, Form::Text) => {}
    }
}

/// Appends JSON of a document. Within a string, a string is its content and null is empty.
fn append_json(buffer: &mut Vec<u8>, json: &str, form: Form) {
    match (form, json.as_bytes().first()) {
        (Form::Json, _) => buffer.extend_from_slice(json.as_bytes()),
        (Form::Text, Some(b'"')) => buffer.extend_from_slice(within_quotes(json).as_bytes()),
        (Form::Text, _) if json == "null" => {}
        // Objects and arrays do not get here, because they make their document malformed.
        (Form::Text, _) => append_escaped(buffer, json),
    }
}

/// The first element of a JSON array of strings, as JSON.
fn first_string(array: &str) -> &str {
    let element = array.get(1..).unwrap_or_default();
    let mut is_escaped = true;
    let end = element.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        // The opening quote counts as escaped.
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    end.and_then(|end| element.get(..=end)).unwrap_or("null")
}
