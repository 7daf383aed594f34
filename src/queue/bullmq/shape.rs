//! The shape of a job's data: `[queue.data]` as it was read, before it is arranged for writing.

use crate::queue::bullmq::placeholder::{JobValue, Placeholder, SharedValue};
use crate::queue::bullmq::request::Origin;
use toml::{Table, Value};

/// The members of an object, in their order.
pub(super) type Members = Vec<(String, Shape)>;

/// A value of the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    Object(Members),
    Array(Vec<Self>),
    /// JSON that is the same in every job.
    Constant(String),
    /// The JSON value of a placeholder.
    Value(Placeholder),
    /// A string with placeholders in it.
    Text(Vec<TextPart>),
}

/// A part of a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TextPart {
    Literal(String),
    Value(Placeholder),
}

/// What is wrong with a template, and where: the path of the value within `[queue.data]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShapeFault {
    pub(super) path: String,
    pub(super) message: String,
}

/// The members of a job's data without `[queue.data]`, in the order that is promised.
pub(super) fn built_in_members(origin: Origin) -> Members {
    let shared = |value| Shape::Value(Placeholder::Shared(value));
    let of_job = |value| Shape::Value(Placeholder::Job(value));
    let mut trigger = members([
        ("type", of_job(JobValue::NodeType)),
        ("nodeIds", of_job(JobValue::NodeIds)),
        ("webhookId", shared(SharedValue::WebhookId)),
        ("payload", shared(SharedValue::Payload)),
    ]);
    if origin == Origin::Delivery {
        let request = members([
            ("method", shared(SharedValue::Method)),
            ("path", shared(SharedValue::Path)),
            ("query", shared(SharedValue::Query)),
            ("headers", shared(SharedValue::Headers)),
            ("contentType", shared(SharedValue::ContentType)),
        ]);
        trigger.push(("request".to_owned(), Shape::Object(request)));
    }
    members([
        ("workflowId", of_job(JobValue::WorkflowId)),
        ("organizationId", shared(SharedValue::OrganizationId)),
        ("userId", shared(SharedValue::UserId)),
        ("trigger", Shape::Object(trigger)),
        ("requestId", shared(SharedValue::RequestId)),
        ("receivedAt", shared(SharedValue::ReceivedAt)),
    ])
}

fn members<const N: usize>(members: [(&str, Shape); N]) -> Members {
    members.map(|(name, shape)| (name.to_owned(), shape)).into()
}

/// Reads a template, and finds all faults. A faulty value is null.
pub(super) fn read_members(table: &Table) -> (Members, Vec<ShapeFault>) {
    let mut faults = Vec::new();
    let members = read_table(table, "", &mut faults);
    (members, faults)
}

/// The strings of a template that are written like placeholders in another notation, and are none.
pub(super) fn foreign_placeholders(table: &Table) -> Vec<ShapeFault> {
    let mut found = Vec::new();
    visit_strings(&Value::Table(table.clone()), "", &mut |path, text| {
        found.extend(foreign_placeholder(text).map(|message| ShapeFault { path, message }));
    });
    found
}

/// Calls `visit` with each string and its path.
fn visit_strings(value: &Value, path: &str, visit: &mut impl FnMut(String, &str)) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                visit_strings(value, &member_path(path, name), visit);
            }
        }
        Value::Array(elements) => {
            for (number, value) in elements.iter().enumerate() {
                visit_strings(value, &format!("{path}[{number}]"), visit);
            }
        }
        Value::String(text) => visit(path.to_owned(), text),
        _ => {}
    }
}

/// Says what a string like `{{payload}}` or `${workflowId}` is.
fn foreign_placeholder(text: &str) -> Option<String> {
    let is_known = |name: &&str| Placeholder::parse(name.trim()).is_ok();
    let doubled = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    if let Some(name) = doubled.filter(is_known) {
        let value = name.trim();
        return Some(format!(
            "{text:?} is the text \"{{{name}}}\"; for the value write \"{{{value}}}\""
        ));
    }
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).filter(is_known)?;
    Some(format!("{text:?} is a string that begins with $; for the value write \"{{{name}}}\""))
}

/// Calls `visit` with each placeholder in order, and whether it is a part of a string.
pub(super) fn visit_placeholders(members: &Members, visit: &mut impl FnMut(&Placeholder, bool)) {
    visit_members(members, "", &mut |use_of| visit(use_of.placeholder, use_of.is_in_text));
}

/// A use of a placeholder in a template.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlaceholderUse<'a> {
    /// The path of the value within `[queue.data]`.
    pub(super) path: &'a str,
    pub(super) placeholder: &'a Placeholder,
    /// Whether it is a part of a string.
    pub(super) is_in_text: bool,
}

/// Calls `visit` with each use of a placeholder below `path`, in order.
pub(super) fn visit_members(
    members: &Members,
    path: &str,
    visit: &mut dyn FnMut(PlaceholderUse<'_>),
) {
    for (name, shape) in members {
        shape.visit_uses(&member_path(path, name), visit);
    }
}

impl Shape {
    /// Calls `visit` with each use of a placeholder in the value at `path`, in order.
    pub(super) fn visit_uses(&self, path: &str, visit: &mut dyn FnMut(PlaceholderUse<'_>)) {
        match self {
            Self::Object(members) => visit_members(members, path, visit),
            Self::Array(elements) => {
                for (number, shape) in elements.iter().enumerate() {
                    shape.visit_uses(&format!("{path}[{number}]"), visit);
                }
            }
            Self::Constant(_) => {}
            Self::Value(placeholder) => {
                visit(PlaceholderUse { path, placeholder, is_in_text: false });
            }
            Self::Text(parts) => {
                for part in parts {
                    if let TextPart::Value(placeholder) = part {
                        visit(PlaceholderUse { path, placeholder, is_in_text: true });
                    }
                }
            }
        }
    }
}

fn member_path(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn read_table(table: &Table, path: &str, faults: &mut Vec<ShapeFault>) -> Members {
    let member = |(name, value): (&String, &Value)| {
        (name.clone(), read_value(value, member_path(path, name), faults))
    };
    table.iter().map(member).collect()
}

fn read_value(value: &Value, path: String, faults: &mut Vec<ShapeFault>) -> Shape {
    let read = match value {
        Value::Table(table) => return Shape::Object(read_table(table, &path, faults)),
        Value::Array(elements) => {
            let element = |(number, value)| read_value(value, format!("{path}[{number}]"), faults);
            return Shape::Array(elements.iter().enumerate().map(element).collect());
        }
        Value::String(text) => read_text(text).inspect(|shape| {
            if let Some(message) = container_in_text(shape, text) {
                faults.push(ShapeFault { path: path.clone(), message });
            }
        }),
        Value::Integer(number) => Ok(Shape::Constant(number.to_string())),
        Value::Boolean(value) => Ok(Shape::Constant(value.to_string())),
        Value::Float(number) if number.is_finite() => {
            Ok(Shape::Constant(serde_json::Value::from(*number).to_string()))
        }
        Value::Float(_) => Err("nan and inf have no form in JSON".to_owned()),
        Value::Datetime(_) => Err("a date has no form in JSON; write it as a string".to_owned()),
    };
    read.unwrap_or_else(|message| {
        faults.push(ShapeFault { path, message });
        Shape::Constant("null".to_owned())
    })
}

/// Reads a string: a placeholder alone, or a string with any number of placeholders in it.
fn read_text(text: &str) -> Result<Shape, String> {
    let parts = text_parts(text)?;
    Ok(match parts.as_slice() {
        [] => Shape::Constant("\"\"".to_owned()),
        [TextPart::Literal(literal)] => {
            Shape::Constant(serde_json::Value::from(literal.as_str()).to_string())
        }
        [TextPart::Value(placeholder)] => Shape::Value(placeholder.clone()),
        _ => Shape::Text(parts),
    })
}

/// What is wrong with a string that has an object or an array as a part.
fn container_in_text(shape: &Shape, text: &str) -> Option<String> {
    let Shape::Text(parts) = shape else { return None };
    parts.iter().find_map(|part| {
        let TextPart::Value(placeholder) = part else { return None };
        let kind = placeholder.as_container()?;
        let name = placeholder.name();
        let advice = if *text == format!("${name}") {
            format!("write \"{name}\" without the $")
        } else {
            "the placeholder must be the whole string".to_owned()
        };
        Some(format!("{name} in {text:?} is {kind}, which cannot be a part of a string; {advice}"))
    })
}

/// Splits a string at its placeholders. `{{` and `}}` are braces.
fn text_parts(text: &str) -> Result<Vec<TextPart>, String> {
    let unbalanced = || {
        format!(
            "unbalanced braces in {text:?}; write {{{{ and }}}} for braces that are no placeholder"
        )
    };
    let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some((before, brace, after)) = split_at_brace(rest) {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix(brace) {
            literal.push(brace);
            rest = after;
            continue;
        }
        let closed = split_at_brace(after).filter(|(_, next, _)| brace == '{' && *next == '}');
        let (name, _, after) = closed.ok_or_else(unbalanced)?;
        if !literal.is_empty() {
            parts.push(TextPart::Literal(std::mem::take(&mut literal)));
        }
        parts.push(TextPart::Value(Placeholder::parse(name)?));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(TextPart::Literal(literal));
    }
    Ok(parts)
}

/// Splits a string at its first brace.
fn split_at_brace(text: &str) -> Option<(&str, char, &str)> {
    let at = text.find(['{', '}'])?;
    let (before, rest) = text.split_at(at);
    let mut characters = rest.chars();
    let brace = characters.next()?;
    Some((before, brace, characters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(template: &str) -> Result<Members, Vec<(String, String)>> {
        let (members, faults) = read_members(&toml::from_str(template).unwrap());
        let faults: Vec<_> = faults.into_iter().map(|fault| (fault.path, fault.message)).collect();
        if faults.is_empty() { Ok(members) } else { Err(faults) }
    }

    fn constant(text: &str) -> Shape {
        Shape::Constant(text.to_owned())
    }

    #[test]
    fn strings_are_placeholders_constants_or_texts() {
        let id = || Placeholder::Job(JobValue::WorkflowId);
        let literal = |text: &str| TextPart::Literal(text.to_owned());
        for (text, expected) in [
            ("{workflowId}", Shape::Value(id())),
            ("", constant("\"\"")),
            ("a \\u007b{x}}", constant(r#""a {x}""#)),
            ("{{}}", constant(r#""{}""#)),
            ("\\\"\\\\\\u0001\u{e4}", constant("\"\\\"\\\\\\u0001\u{e4}\"")),
            (
                "{{{workflowId}}}",
                Shape::Text(vec![literal("{"), TextPart::Value(id()), literal("}")]),
            ),
            ("t-{workflowId}", Shape::Text(vec![literal("t-"), TextPart::Value(id())])),
            (
                "{workflowId}{workflowId}",
                Shape::Text(vec![TextPart::Value(id()), TextPart::Value(id())]),
            ),
        ] {
            let expected = members([("a", expected)]);
            assert_eq!(read(&format!("a = \"{text}\"")), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_values_are_constants() {
        let array =
            Shape::Array(vec![constant("1"), Shape::Object(members([("b", constant("true"))]))]);
        let expected = members([
            ("a", array),
            ("c", constant("1.0")),
            ("d", constant("-9223372036854775808")),
            ("e", constant("1e+100")),
        ]);
        let template = "a = [1, { b = true }]\nc = 1.0\nd = -9223372036854775808\ne = 1e100\n";
        assert_eq!(read(template), Ok(expected));
    }

    #[test]
    fn a_placeholder_in_another_notation_is_found() {
        let template = r#"
            a = "{{payload}}"
            b = [1, "{{ workflow.version }}", { c = "${workflowId}" }]
            d = "{{other}} {{payload}} x{{payload}} {{{workflowId}}}"
            e = "{{other}}"
            f = "$ {workflowId}"
        "#;
        let found = foreign_placeholders(&toml::from_str(template).unwrap());
        let found: Vec<_> = found.iter().map(|each| (&*each.path, &*each.message)).collect();
        let expected = [
            ("a", r#""{{payload}}" is the text "{payload}"; for the value write "{payload}""#),
            (
                "b[1]",
                r#""{{ workflow.version }}" is the text "{ workflow.version }"; for the value write "{workflow.version}""#,
            ),
            (
                "b[2].c",
                r#""${workflowId}" is a string that begins with $; for the value write "{workflowId}""#,
            ),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn every_fault_is_reported_with_its_path() {
        let template = r#"
            a = "{nothing}"
            b = { c = ["x", "{payload} x", { d = 1979-05-27 }] }
            e = nan
            f = -inf
            g = ["{", "}", "a}b", "{a{b}", "x{{{y", "{nodeIds}{nodeId}"]
            "h i" = { j = "{workflow.}" }
        "#;
        let faults = read(template).unwrap_err();
        let find = |path: &str| {
            let mut faults = faults.iter().filter(|(key, _)| key == path);
            faults.next().map(|(_, message)| message.as_str())
        };
        for (path, expected) in [
            ("a", "unknown placeholder {nothing}"),
            ("b.c[1]", "{payload} in \"{payload} x\" is an object"),
            ("b.c[2].d", "a date"),
            ("e", "nan and inf"),
            ("f", "nan and inf"),
            ("g[0]", "unbalanced braces"),
            ("g[1]", "unbalanced braces"),
            ("g[2]", "unbalanced braces"),
            ("g[3]", "unbalanced braces"),
            ("g[4]", "unbalanced braces"),
            ("g[5]", "{nodeIds} in \"{nodeIds}{nodeId}\" is an array"),
            ("h i.j", "{workflow.} names no field"),
        ] {
            assert!(find(path).is_some_and(|found| found.contains(expected)), "{path}: {faults:?}");
        }
        assert_eq!(faults.len(), 12);
    }
}
