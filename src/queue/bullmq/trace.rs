//! The trace context of W3C Trace Context, in the form that instrumented BullMQ workers read.

use crate::traces::{CallerSpan, ParentSpan};
use serde_json::Value as Json;
use std::borrow::Cow;

/// Maximum bytes of a `tracestate`. The W3C requires that at least this much is propagated; the
/// limit exists because it is stored with every job.
const MAX_TRACESTATE: usize = 512;

/// Maximum members of a `tracestate`.
const MAX_MEMBERS: usize = 32;

/// Members over this many bytes are removed first if a list is too long.
const LARGE_MEMBER: usize = 128;

/// Maximum bytes of a key and of a value in a `tracestate`.
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 256;

/// What the jobs of a request continue.
#[derive(Debug, Clone)]
pub struct TraceContext {
    /// A map of header names to values.
    headers: Json,
    /// The span of the request, if it is traced.
    span: Option<Box<ParentSpan>>,
}

impl TraceContext {
    /// Builds the context from the headers. `None` unless there is exactly one `traceparent` and it
    /// is valid. All `tracestate` lines form one list.
    pub fn new<'a>(
        traceparent: impl IntoIterator<Item = &'a [u8]>,
        tracestate: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        let mut parents = traceparent.into_iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        let parent = parse_parent(std::str::from_utf8(parent).ok()?)?;
        let state = parse_state(tracestate);
        let headers = if state.is_empty() {
            serde_json::json!({ "traceparent": parent })
        } else {
            serde_json::json!({ "traceparent": parent, "tracestate": state })
        };
        Some(Self { headers, span: None })
    }

    /// The span of a request that is traced, with the `tracestate` of its caller.
    pub fn of_span(span: ParentSpan, caller: Option<Self>) -> Self {
        let mut headers = serde_json::json!({ "traceparent": span.traceparent() });
        if let (Some(state), Json::Object(headers)) =
            (caller.and_then(Self::into_state), &mut headers)
        {
            headers.insert("tracestate".to_owned(), state);
        }
        Self { headers, span: Some(Box::new(span)) }
    }

    fn into_state(self) -> Option<Json> {
        match self.headers {
            Json::Object(mut headers) => headers.remove("tracestate"),
            _ => None,
        }
    }

    /// The span of the caller.
    pub fn caller(&self) -> Option<CallerSpan> {
        CallerSpan::from_traceparent(self.headers.get("traceparent")?.as_str()?)
    }

    /// What jobs get: a map of header names to values.
    pub fn as_json(&self) -> &Json {
        &self.headers
    }

    pub(in crate::queue) fn span(&self) -> Option<&ParentSpan> {
        self.span.as_deref()
    }
}

/// Parses `<version>-<trace id>-<parent id>-<flags>` in lower-case hex. Version ff and ids of zeros
/// are invalid. For a version later than 00, only these four fields are read, whatever follows
/// them; they are passed on as version 00 with the only known flag, `sampled`.
fn parse_parent(value: &str) -> Option<Cow<'_, str>> {
    let mut parts = value.splitn(5, '-');
    let [version, trace, parent, flags] =
        [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let is_valid = [version.len(), trace.len(), parent.len(), flags.len()] == [2, 32, 16, 2]
        && [version, trace, parent, flags].into_iter().all(is_hex)
        && version != "ff"
        && !is_zero(trace)
        && !is_zero(parent);
    match (is_valid, version, parts.next()) {
        (true, "00", None) => Some(Cow::Borrowed(value)),
        (false, ..) | (_, "00", Some(_)) => None,
        (true, ..) => {
            let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
            Some(Cow::Owned(format!("00-{trace}-{parent}-{sampled:02x}")))
        }
    }
}

/// Builds the list: its valid members, of which the first for each key is kept. A list that is too
/// long loses whole members from its end, large ones first.
fn parse_state<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut members: Vec<(&str, &str)> = Vec::new();
    let all = lines.into_iter().flat_map(|line| line.split(|byte| *byte == b','));
    for member in all.filter_map(parse_member) {
        if members.len() == MAX_MEMBERS {
            break;
        }
        if members.iter().all(|(key, _)| *key != member.0) {
            members.push(member);
        }
    }
    while length(&members) > MAX_TRACESTATE {
        let is_large = |(key, value): &(&str, &str)| key.len() + 1 + value.len() > LARGE_MEMBER;
        match members.iter().rposition(is_large) {
            Some(large) => drop(members.remove(large)),
            None => drop(members.pop()),
        }
    }
    let members: Vec<String> =
        members.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    members.join(",")
}

/// Bytes of the list, with commas.
fn length(members: &[(&str, &str)]) -> usize {
    let lengths = members.iter().map(|(key, value)| key.len() + value.len() + 2);
    lengths.sum::<usize>().saturating_sub(1)
}

/// Key and value of a member; `None` if the member is empty or invalid.
fn parse_member(member: &[u8]) -> Option<(&str, &str)> {
    let member = std::str::from_utf8(member).ok()?.trim_matches([' ', '\t']);
    let (key, value) = member.split_once('=')?;
    let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_key = (1..=MAX_KEY).contains(&key.len())
        && key.bytes().next().is_some_and(is_first)
        && key.bytes().all(|byte| is_first(byte) || b"_-*/@".contains(&byte));
    let is_value = (1..=MAX_VALUE).contains(&value.len())
        && value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
    (is_key && is_value).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const IDS: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

    fn context(parents: &[&str], states: &[&str]) -> Option<Json> {
        let lines = |lines: &[&str]| -> Vec<Vec<u8>> {
            lines.iter().map(|line| line.as_bytes().to_vec()).collect()
        };
        let (parents, states) = (lines(parents), lines(states));
        let context =
            TraceContext::new(parents.iter().map(Vec::as_slice), states.iter().map(Vec::as_slice));
        context.map(|context| context.headers)
    }

    fn state(lines: &[&str]) -> Option<String> {
        let context = context(&[&format!("00-{IDS}-01")], lines).unwrap();
        context["tracestate"].as_str().map(str::to_owned)
    }

    #[test]
    fn only_one_valid_traceparent_is_accepted() {
        let good = format!("00-{IDS}-01");
        let expected = json!({ "traceparent": good, "tracestate": "a=b" });
        assert_eq!(context(&[&good], &["a=b"]), Some(expected));
        for invalid in [
            String::new(),
            format!("00-{IDS}"),
            format!("ff-{IDS}-01"),
            format!("00-{IDS}-01-"),
            format!("00-{IDS}-01-more"),
            format!("cc-{IDS}-01more"),
            format!("cc-{IDS}-1"),
            format!("cc-{IDS}"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01".to_owned(),
            "cc-0af7651916cd43dd8448eb211c80319c-0000000000000000-01".to_owned(),
            format!("00-{}-01", IDS.to_uppercase()),
        ] {
            assert_eq!(context(&[&invalid], &["a=b"]), None, "{invalid}");
        }
        assert_eq!(context(&[&good, &good], &[]), None);
    }

    #[test]
    fn only_four_fields_of_a_later_version_are_read() {
        for (flags, passed_on) in [("01", "01"), ("00", "00"), ("ff", "01"), ("fe", "00")] {
            for rest in ["", "-", "-what-the-future-brings", "-\u{fc}"] {
                let later = format!("cc-{IDS}-{flags}{rest}");
                let expected = json!({ "traceparent": format!("00-{IDS}-{passed_on}") });
                assert_eq!(context(&[&later], &[]), Some(expected), "{later}");
            }
        }
    }

    #[test]
    fn all_tracestate_lines_form_one_list_of_valid_members() {
        for (lines, expected) in [
            (&["a=1", "b=2 , c=3"][..], Some("a=1,b=2,c=3")),
            (&["a=1,,\t,b=2,"], Some("a=1,b=2")),
            (&["", " "], None),
            (&["a=1", "a=2,b=3"], Some("a=1,b=3")),
            (&["a@b=x y!", "0a_-*/=z"], Some("a@b=x y!,0a_-*/=z")),
            (&["A=1,a b=1,=1,a=,a,b=1=2,\u{e4}=1,c=\u{e4},*a=1,d=1"], Some("d=1")),
        ] {
            assert_eq!(state(lines).as_deref(), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_long_list_loses_whole_members_from_its_end() {
        let member = |key: usize, bytes: usize| format!("k{key:02}={}", "v".repeat(bytes - 4));
        let list = |members: &[String]| members.join(",");
        let fitting: Vec<String> = (0..4).map(|key| member(key, 127)).collect();
        assert_eq!(list(&fitting).len(), 511);
        assert_eq!(state(&[&list(&fitting)]), Some(list(&fitting)));
        let more = [&fitting[..], &[member(4, 10)]].concat();
        assert_eq!(state(&[&list(&more)]), Some(list(&fitting)));
        // A large member is removed before any other, wherever it is in the list.
        let large = [&[member(5, 129)], &fitting[..]].concat();
        assert_eq!(state(&[&list(&large)]), Some(list(&fitting)));
        let many: Vec<String> = (0..40).map(|key| member(key, 6)).collect();
        assert_eq!(state(&[&list(&many)]), Some(list(&many[..32])));
    }
}
