//! The placeholders of `[queue.data]`.

use crate::settings::{nearest, path_fault};

/// A placeholder as it is written in a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Placeholder {
    /// The same value in all jobs of a request.
    Shared(SharedValue),
    /// A value that can differ between the jobs of a request.
    Job(JobValue),
    /// A field of the workflow's document or of its first matching node, by its dotted path.
    Field(FieldSource, String),
}

/// A value that all jobs of a request share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SharedValue {
    OrganizationId,
    UserId,
    WebhookId,
    RequestId,
    ReceivedAt,
    ReceivedAtIso,
    Payload,
    Body,
    RawBody,
    RawBodyEncoding,
    Method,
    Path,
    ContentType,
    ClientAddress,
    Query,
    Headers,
}

/// A value of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobValue {
    WorkflowId,
    NodeId,
    NodeIds,
    NodeType,
    /// A field that the index keeps, by its position among the kept fields.
    Field(usize),
    /// No bytes. It ends the head of a template that has no value of a job.
    Nothing,
}

/// The document that has a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldSource {
    Workflow,
    Node,
}

impl FieldSource {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::Node => "node",
        }
    }

    /// A placeholder of a field.
    fn example(self) -> &'static str {
        match self {
            Self::Workflow => "{workflow.version}",
            Self::Node => "{node.data.label}",
        }
    }
}

const SHARED: [(&str, SharedValue); 16] = [
    ("organizationId", SharedValue::OrganizationId),
    ("userId", SharedValue::UserId),
    ("webhookId", SharedValue::WebhookId),
    ("requestId", SharedValue::RequestId),
    ("receivedAt", SharedValue::ReceivedAt),
    ("receivedAtIso", SharedValue::ReceivedAtIso),
    ("payload", SharedValue::Payload),
    ("body", SharedValue::Body),
    ("rawBody", SharedValue::RawBody),
    ("rawBodyEncoding", SharedValue::RawBodyEncoding),
    ("method", SharedValue::Method),
    ("path", SharedValue::Path),
    ("contentType", SharedValue::ContentType),
    ("clientAddress", SharedValue::ClientAddress),
    ("query", SharedValue::Query),
    ("headers", SharedValue::Headers),
];

const OF_JOBS: [(&str, JobValue); 4] = [
    ("workflowId", JobValue::WorkflowId),
    ("nodeId", JobValue::NodeId),
    ("nodeIds", JobValue::NodeIds),
    ("nodeType", JobValue::NodeType),
];

const SOURCES: [FieldSource; 2] = [FieldSource::Workflow, FieldSource::Node];

impl Placeholder {
    /// Parses the name between the braces.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        if let Some((_, value)) = SHARED.iter().find(|(known, _)| *known == name) {
            return Ok(Self::Shared(*value));
        }
        if let Some((_, value)) = OF_JOBS.iter().find(|(known, _)| *known == name) {
            return Ok(Self::Job(*value));
        }
        let (first, path) = name.split_once('.').unwrap_or((name, ""));
        match SOURCES.into_iter().find(|source| source.as_str() == first) {
            Some(source) if path_fault(path).is_none() => Ok(Self::Field(source, path.to_owned())),
            Some(source) if path.is_empty() => {
                Err(format!("{{{name}}} names no field; write one, such as {}", source.example()))
            }
            Some(_) => Err(format!("{{{name}}} names no field: {path:?} is not a dotted path")),
            None => Err(unknown(name)),
        }
    }

    /// The placeholder as it is written, in braces.
    pub(super) fn name(&self) -> String {
        let shared =
            |value| SHARED.iter().find(|(_, known)| *known == value).map(|(name, _)| *name);
        let of_job =
            |value| OF_JOBS.iter().find(|(_, known)| *known == value).map(|(name, _)| *name);
        match self {
            Self::Shared(value) => format!("{{{}}}", shared(*value).unwrap_or_default()),
            Self::Job(value) => format!("{{{}}}", of_job(*value).unwrap_or_default()),
            Self::Field(source, path) => format!("{{{}.{path}}}", source.as_str()),
        }
    }

    /// Whether its value can differ between the jobs of a request.
    pub(super) fn is_of_job(&self) -> bool {
        matches!(self, Self::Job(_) | Self::Field(..))
    }

    /// What the value is if it cannot be a part of a string.
    pub(super) fn as_container(&self) -> Option<&'static str> {
        match self {
            Self::Shared(
                SharedValue::Payload
                | SharedValue::Body
                | SharedValue::Query
                | SharedValue::Headers,
            ) => Some("an object"),
            Self::Job(JobValue::NodeIds) => Some("an array"),
            _ => None,
        }
    }
}

impl SharedValue {
    /// Whether a caller can make it as long as its request.
    pub(super) fn grows_with_request(self) -> bool {
        use SharedValue::{Body, ContentType, Headers, Payload, Query, RawBody};
        matches!(self, Payload | Body | RawBody | Query | Headers | ContentType)
    }

    /// A rough number of bytes. It decides which values are written once for all jobs, where not
    /// all of them can be, and the size of the first buffer.
    pub(super) fn usual_bytes(self) -> usize {
        match self {
            Self::Payload | Self::Body => 10_000,
            Self::RawBody => 12_000,
            Self::Headers | Self::Query => 300,
            _ => 32,
        }
    }
}

fn unknown(name: &str) -> String {
    if let Some((first, path)) = name.split_once('.') {
        let has_no_fields = names().find(|known| *known == first);
        if first == "headers" {
            return "a single header cannot be named; use {headers}, which has those of \
                    queue.forward_headers"
                .to_owned();
        } else if let Some(known) = has_no_fields {
            return format!("a part of {{{known}}} cannot be named; use {{{known}}}");
        } else if nearest(first.trim(), SOURCES.map(FieldSource::as_str)).is_none() {
            return format!(
                "unknown placeholder {{{name}}}; a field of the workflow is {{workflow.{path}}}, \
                 and one of its trigger node {{node.{path}}}"
            );
        }
    }
    let meant = match name.split_once('.') {
        Some((source, path)) => nearest(source.trim(), SOURCES.map(FieldSource::as_str))
            .map(|source| format!("{source}.{}", path.trim())),
        None => nearest(name.trim(), names()).map(str::to_owned),
    };
    if let Some(meant) = meant {
        return format!("unknown placeholder {{{name}}}; did you mean {{{meant}}}?");
    }
    let known: Vec<&str> = names().collect();
    let known = known.join(", ");
    format!(
        "unknown placeholder {{{name}}}; known are {known}, and workflow. and node. with a path"
    )
}

fn names() -> impl Iterator<Item = &'static str> {
    let shared = SHARED.iter().map(|(name, _)| *name);
    OF_JOBS.iter().map(|(name, _)| *name).chain(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_parsed() {
        for name in names() {
            assert!(Placeholder::parse(name).is_ok(), "{name}");
        }
        let field = |source, path: &str| Ok(Placeholder::Field(source, path.to_owned()));
        assert_eq!(Placeholder::parse("workflow.a.b"), field(FieldSource::Workflow, "a.b"));
        assert_eq!(Placeholder::parse("node.data.x"), field(FieldSource::Node, "data.x"));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_known_one() {
        for (name, expected) in [
            ("workflowid", "did you mean {workflowId}?"),
            ("worfklowId", "did you mean {workflowId}?"),
            (" payload ", "did you mean {payload}?"),
            ("raw_body", "did you mean {rawBody}?"),
            ("workfow.version", "did you mean {workflow.version}?"),
            ("flow", "known are workflowId, nodeId,"),
            ("", "known are"),
            ("workflow", "names no field; write one, such as {workflow.version}"),
            ("node.", "names no field; write one, such as {node.data.label}"),
            ("workflow.a..b", "names no field: \"a..b\" is not a dotted path"),
            ("workflow.$where", "names no field"),
            ("workflow.a\0b", "names no field"),
            ("flow.rev", "a field of the workflow is {workflow.rev}"),
        ] {
            let error = Placeholder::parse(name).unwrap_err();
            assert!(error.contains(expected) && error.contains(&format!("{{{name}}}")), "{error}");
        }
        for (name, expected) in [
            ("headers.x-event", "a single header cannot be named; use {headers}"),
            ("query.a", "a part of {query} cannot be named; use {query}"),
            ("payload.lead.name", "a part of {payload} cannot be named; use {payload}"),
        ] {
            let error = Placeholder::parse(name).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
