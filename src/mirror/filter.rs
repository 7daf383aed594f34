//! The filter of a collection: a query of MongoDB that its documents must match.
//!
//! A change stream reports writes. A query whose result changes without a write would leave
//! documents in the index that no longer match, so its operators are faults. So is `$expr`: an
//! expression can fail on the values of one document, and the query then fails for all.

use crate::settings::Section;
use bson::{Bson, Document};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// Operators whose result changes without a write, that are random, that run code which may be
/// either, or that an aggregation refuses.
const FORBIDDEN: [&str; 10] = [
    "$where",
    "$text",
    "$near",
    "$nearSphere",
    "$geoNear",
    "$rand",
    "$sampleRate",
    "$createObjectId",
    "$function",
    "$accumulator",
];

/// Variables that are the time of the server.
const FORBIDDEN_VARIABLES: [&str; 2] = ["$$NOW", "$$CLUSTER_TIME"];

/// The operator of aggregation expressions.
const EXPRESSION: &str = "$expr";

/// A query, and its text in the configuration.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    text: String,
    query: Document,
}

impl Filter {
    /// Reads `filter`.
    pub fn read(section: &mut Section<'_>) -> Self {
        let text: String = section.value("filter", String::new());
        if text.is_empty() {
            return Self::default();
        }
        let query = parse(&text).unwrap_or_else(|fault| {
            section.fault("filter", fault);
            Document::new()
        });
        Self { text, query }
    }

    /// The query. It is empty if every document matches.
    pub fn query(&self) -> &Document {
        &self.query
    }

    /// The text in the configuration; `None` if there is none.
    pub fn source_name(&self) -> Option<&str> {
        (!self.text.is_empty()).then_some(&*self.text)
    }
}

/// Parses a query, or says what is wrong with it.
fn parse(text: &str) -> Result<Document, String> {
    if !text.trim_start().starts_with('{') {
        return Err("must be an object in extended JSON, such as {\"deletedAt\": null}".to_owned());
    }
    let invalid = |error: serde_json::Error| invalid(text, &error);
    let _: UniqueMembers = serde_json::from_str(text).map_err(invalid)?;
    let query: Document = serde_json::from_str(text).map_err(invalid)?;
    let find_in_query = |of| query.iter().find_map(|(name, value)| find(name, value, of));
    if let Some(name) = find_in_query(changing) {
        return Err(format!(
            "{name} is not supported: its result may change without a change of the document"
        ));
    }
    if let Some(name) = find_in_query(expression) {
        return Err(format!(
            "{name} is not supported: one document on which it fails would hide all others"
        ));
    }
    Ok(query)
}

/// Says where and why a text is not extended JSON. Values in the notation of the shell get a hint.
fn invalid(text: &str, error: &serde_json::Error) -> String {
    let (line, character) = (error.line(), error.column());
    let place = match line {
        0 | 1 => format!("character {character}"),
        _ => format!("line {line}, character {character}"),
    };
    let reason = error.to_string();
    let reason = reason.split(" at line ").next().unwrap_or_default();
    let hints = [
        ("ISODate(", "a date", r#"{"$date": "2026-01-31T00:00:00Z"}"#),
        ("Date(", "a date", r#"{"$date": "2026-01-31T00:00:00Z"}"#),
        ("$date", "a date", r#"{"$date": "2026-01-31T00:00:00Z"}"#),
        ("ObjectId(", "an ObjectId", r#"{"$oid": "64d2f9c5e8a1d4e001a0b1c3"}"#),
        ("$oid", "an ObjectId", r#"{"$oid": "64d2f9c5e8a1d4e001a0b1c3"}"#),
    ];
    let hint = hints.into_iter().find(|(sign, ..)| text.contains(sign));
    let hint = hint.map(|(_, what, form)| format!("; write {what} as {form}"));
    format!("is not extended JSON ({place}): {reason}{}", hint.unwrap_or_default())
}

/// What `of` finds in a member of a query, at any depth.
fn find(
    name: &str,
    value: &Bson,
    of: fn(&str, &Bson) -> Option<&'static str>,
) -> Option<&'static str> {
    of(name, value).or_else(|| match value {
        Bson::Document(inner) => inner.iter().find_map(|(name, value)| find(name, value, of)),
        Bson::Array(values) => values.iter().find_map(|value| find("", value, of)),
        _ => None,
    })
}

/// The operator or variable of a member whose result changes without a write.
fn changing(name: &str, value: &Bson) -> Option<&'static str> {
    let variable = || {
        let text = value.as_str()?;
        FORBIDDEN_VARIABLES.into_iter().find(|variable| {
            text.strip_prefix(variable).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    FORBIDDEN.into_iter().find(|operator| *operator == name).or_else(variable)
}

/// The operator of a member that is an aggregation expression.
fn expression(name: &str, _: &Bson) -> Option<&'static str> {
    (name == EXPRESSION).then_some(EXPRESSION)
}

/// Any JSON whose objects have no member twice. The last of two would silently be the only one.
struct UniqueMembers;

impl<'de> Deserialize<'de> for UniqueMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for UniqueMembers {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, Self)) = members.next_entry::<String, Self>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format_args!("{name} is there twice")));
            }
            names.insert(name);
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self, A::Error> {
        while let Some(Self) = elements.next_element()? {}
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;
    use bson::oid::ObjectId;

    #[test]
    fn a_query_is_extended_json() {
        assert_eq!(parse(r#"{"deletedAt": null}"#), Ok(doc! { "deletedAt": null }));
        assert_eq!(parse("{}"), Ok(Document::new()));
        let id = ObjectId::new();
        let query = format!(r#"{{"a": {{"$in": [{{"$oid": "{id}"}}]}}, "b": {{"y": 1, "x": 2}}}}"#);
        let expected = doc! { "a": { "$in": [id] }, "b": { "y": 1_i64, "x": 2_i64 } };
        assert_eq!(parse(&query).map(|query| query.to_string()), Ok(expected.to_string()));
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for text in [
            "deleted",
            "[]",
            "5",
            "{",
            "{} {}",
            r#"{"a": 1, "a": 2}"#,
            r#"{"$or": [{"a": 1, "a": 2}]}"#,
            r#"{"a": {"$oid": "short"}}"#,
            r#"{"a": {"$date": "yesterday"}}"#,
            r#"{"a": {"$numberLong": "1.5"}}"#,
            r#"{"$oid": "64d2f9c5e8a1d4e001a0b1c3"}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_fault_names_the_place_and_how_to_write_it() {
        for (text, expected) in [
            ("{a: 1}", "is not extended JSON (character 2): key must be a string"),
            ("{\n  \"a\": x}", "(line 2, character 8)"),
            ("[]", "must be an object in extended JSON"),
            (r#"{"a": {"$gt": ISODate("2026-01-31")}}"#, r#"write a date as {"$date": "2026-"#),
            (r#"{"a": {"$date": "yesterday"}}"#, r#"write a date as {"$date": "2026-"#),
            (r#"{"a": ObjectId("x")}"#, r#"write an ObjectId as {"$oid": "#),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.contains(expected), "{text}: {fault}");
            assert!(!fault.contains("at line"), "{fault}");
        }
    }

    #[test]
    fn operators_without_events_are_refused_at_any_depth() {
        for name in FORBIDDEN {
            for query in [
                format!(r#"{{"{name}": 1}}"#),
                format!(r#"{{"$or": [{{"a": {{"$not": {{"{name}": 1}}}}}}]}}"#),
            ] {
                assert!(parse(&query).is_err_and(|fault| fault.contains(name)), "{query}");
            }
        }
        for variable in FORBIDDEN_VARIABLES {
            let query =
                format!(r#"{{"$expr": {{"$lt": ["$until", {{"$add": ["{variable}", 1]}}]}}}}"#);
            assert!(parse(&query).is_err_and(|fault| fault.contains(variable)), "{query}");
        }
        assert!(parse(r#"{"a": "$where", "b": "$$NOWHERE", "$nearby": 1}"#).is_ok());
        for query in [r#"{"$expr": true}"#, r#"{"$or": [{"a": 1}, {"$expr": {"$eq": [1, 1]}}]}"#] {
            assert!(parse(query).is_err_and(|fault| fault.contains("$expr is not")), "{query}");
        }
    }
}
