//! The members of a JSON object, of which only those that are asked for are read.
//!
//! A map of `serde_json` reads every value, and so refuses the whole text for half a surrogate pair, a number out of range or
//! more than 128 levels in a member that nobody asks for.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;

/// Names and values in their order. A name that cannot be decoded is nobody's.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(String, &'a RawValue)>);

/// A member that is there twice, or whose value cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

impl<'a> Members<'a> {
    /// `None` if the bytes are not one JSON object in UTF-8.
    pub(super) fn read(json: &'a [u8]) -> Option<Self> {
        serde_json::from_str(std::str::from_utf8(json).ok()?).ok()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(each, _)| each == name)
    }

    /// The text of a value; `None` without the member.
    pub(super) fn raw(&self, name: &str) -> Result<Option<&'a str>, Unreadable> {
        let mut values = self.0.iter().filter(|(each, _)| each == name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some((_, value)), None) => Ok(Some(value.get())),
            // Another reader may take the other one.
            (Some(_), Some(_)) => Err(Unreadable),
        }
    }

    /// A value; `None` without the member.
    pub(super) fn get(&self, name: &str) -> Result<Option<Value>, Unreadable> {
        let raw = self.raw(name)?;
        raw.map(|raw| serde_json::from_str(raw).map_err(|_| Unreadable)).transpose()
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.extend(serde_json::from_str(name.get()).map(|name| (name, value)));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_asked_for_must_be_readable() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let text = format!(
            r#"{{"a":1,"\ud800":2,"b":"\ud800","c":{deep},"d":1e999,"e":1,"e":1,"\u0066":null}}"#
        );
        let members = Members::read(text.as_bytes()).unwrap();
        assert_eq!(members.get("a"), Ok(Some(json!(1))));
        assert_eq!(members.get("f"), Ok(Some(Value::Null)));
        assert_eq!(members.get("z"), Ok(None));
        for name in ["b", "c", "d", "e"] {
            assert_eq!(members.get(name), Err(Unreadable), "{name}");
        }
    }

    #[test]
    fn anything_but_one_object_is_refused() {
        for text in
            [&b"[]"[..], b"", b"{", b"{} {}", b"{\"a\":\"\xff\"}", b"{\"a\":\"\x01\"}", b"1"]
        {
            assert!(Members::read(text).is_none(), "{text:?}");
        }
    }
}
