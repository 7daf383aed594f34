//! The members of a JSON object. Only the requested values are parsed.
//!
//! A map of `serde_json` parses every value. So it rejects the whole object because of a lone
//! surrogate, a number out of range or more than 128 levels in a member that is not used.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;

/// Names and values in order. Members whose names cannot be decoded are omitted.
#[derive(Debug)]
pub(super) struct JsonMembers<'a>(Vec<(String, &'a RawValue)>);

/// A member that is duplicated, or whose value cannot be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnreadableMember;

impl<'a> JsonMembers<'a> {
    /// `None` if the bytes are not one JSON object in UTF-8.
    pub(super) fn read(json: &'a [u8]) -> Option<Self> {
        serde_json::from_str(std::str::from_utf8(json).ok()?).ok()
    }

    /// Whether there is a member of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(each, _)| each == name)
    }

    /// The raw JSON of a value; `None` if there is no such member.
    pub(super) fn raw(&self, name: &str) -> Result<Option<&'a str>, UnreadableMember> {
        let mut values = self.0.iter().filter(|(each, _)| each == name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some((_, value)), None) => Ok(Some(value.get())),
            // Other software may use the other value.
            (Some(_), Some(_)) => Err(UnreadableMember),
        }
    }

    /// A value; `None` if there is no such member.
    pub(super) fn get(&self, name: &str) -> Result<Option<Value>, UnreadableMember> {
        let raw = self.raw(name)?;
        raw.map(|raw| serde_json::from_str(raw).map_err(|_| UnreadableMember)).transpose()
    }

    /// The value at a dotted path; `None` if there is none or it is null. A member whose name is
    /// the whole path goes first, then the longest beginning of the path that leads to a value, so
    /// that names with dots, such as URLs, can be parts of a path.
    pub(super) fn get_path(&self, path: &str) -> Result<Option<Value>, UnreadableMember> {
        let value = self.get(path)?.filter(|value| !value.is_null());
        if value.is_some() {
            return Ok(value);
        }
        for (dot, _) in path.rmatch_indices('.') {
            let (Some(name), Some(rest)) = (path.get(..dot), path.get(dot + 1..)) else { continue };
            let inner = self.raw(name)?.and_then(|raw| JsonMembers::read(raw.as_bytes()));
            let value = inner.map_or(Ok(None), |inner| inner.get_path(rest))?;
            if value.is_some() {
                return Ok(value);
            }
        }
        Ok(None)
    }
}

impl<'de> Deserialize<'de> for JsonMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = JsonMembers<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.extend(serde_json::from_str(name.get()).map(|name| (name, value)));
                }
                Ok(JsonMembers(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_requested_values_must_be_readable() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let json = format!(
            r#"{{"a":1,"\ud800":2,"b":"\ud800","c":{deep},"d":1e999,"e":1,"e":1,"\u0066":null}}"#
        );
        let members = JsonMembers::read(json.as_bytes()).unwrap();
        assert_eq!(members.get("a"), Ok(Some(json!(1))));
        assert_eq!(members.get("f"), Ok(Some(Value::Null)));
        assert_eq!(members.get("z"), Ok(None));
        for name in ["b", "c", "d", "e"] {
            assert_eq!(members.get(name), Err(UnreadableMember), "{name}");
        }
    }

    #[test]
    fn a_path_leads_through_objects_and_its_whole_name_goes_first() {
        let json = r#"{"a":{"b":1,"c.d":2,"n":null},"a.b":3,"a.n":null,"https://x.y/z":{"id":4},
            "s":"x","t":[{"u":5}],"v":{"w":6,"w":7},"k":1,"k":2,"a.c":{"e":8}}"#;
        let members = JsonMembers::read(json.as_bytes()).unwrap();
        let rows = [
            ("a.b", Some(json!(3))),
            ("a.c.d", Some(json!(2))),
            ("a.c.e", Some(json!(8))),
            ("https://x.y/z.id", Some(json!(4))),
            ("s", Some(json!("x"))),
            ("a", Some(json!({"b":1,"c.d":2,"n":null}))),
        ];
        for (path, value) in rows {
            assert_eq!(members.get_path(path), Ok(value), "{path}");
        }
        for absent in ["a.n", "a.z", "s.x", "t.u", "t.0.u", "z", "", ".", "a.", ".a", "a..b"] {
            assert_eq!(members.get_path(absent), Ok(None), "{absent}");
        }
        for unreadable in ["v.w", "k", "k.x"] {
            assert_eq!(members.get_path(unreadable), Err(UnreadableMember), "{unreadable}");
        }
    }

    #[test]
    fn anything_but_one_object_is_rejected() {
        for json in
            [&b"[]"[..], b"", b"{", b"{} {}", b"{\"a\":\"\xff\"}", b"{\"a\":\"\x01\"}", b"1"]
        {
            assert!(JsonMembers::read(json).is_none(), "{json:?}");
        }
    }
}
