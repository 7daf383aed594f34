//! The switch of a document: the field that says whether it is on.

use crate::ids::whole_number;
use crate::mirror::document::Malformed;
use crate::mirror::paths;
use crate::settings::Section;
use bson::{RawBsonRef, RawDocument};
use std::fmt;
use toml::Value;

const DEFAULT_PATH: &str = "enabled";

/// The path of a switch, and the values that are on.
#[derive(Debug, Clone)]
pub struct ActiveField {
    /// If this is empty, every document is on.
    path: String,
    /// If this is empty, the switch is true or false.
    values: Vec<ActiveValue>,
}

/// A value of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ActiveValue {
    Boolean(bool),
    Integer(i64),
    Text(String),
}

impl ActiveField {
    /// A switch that is true or false.
    pub fn boolean(path: &str) -> Self {
        Self { path: path.to_owned(), values: Vec::new() }
    }

    /// Reads `active_field` and `active_values`.
    pub fn read(section: &mut Section<'_>) -> Self {
        let path = section.value("active_field", DEFAULT_PATH.to_owned());
        paths::check(section, "active_field", &path);
        let given = section.value("active_values", Vec::<Value>::new());
        if path.is_empty() && !given.is_empty() {
            section.fault("active_values", "has no effect: active_field is empty");
        }
        let values: Vec<_> = given.iter().filter_map(ActiveValue::read).collect();
        if values.len() < given.len() {
            section.fault(
                "active_values",
                "has a value other than a string, true, false or a whole number",
            );
        }
        Self { path, values }
    }

    /// The path; `None` if every document is on.
    pub fn path(&self) -> Option<&str> {
        (!self.path.is_empty()).then_some(&*self.path)
    }

    /// Whether documents are expected to have the field. With values, those without it are off. A
    /// path that is not the default is there for a reason.
    pub fn is_expected(&self) -> bool {
        !self.values.is_empty() || self.path != DEFAULT_PATH
    }

    /// The values that are on, for people.
    pub fn values_on(&self) -> String {
        let values: Vec<String> = self.values.iter().map(ActiveValue::to_string).collect();
        if values.is_empty() { "true".to_owned() } else { values.join(" or ") }
    }

    /// The values in a form that differs between different lists; `None` without any.
    pub fn source_name(&self) -> Option<String> {
        (!self.values.is_empty()).then(|| format!("{:?}", self.values))
    }

    /// Whether a document is on. With values, it is exactly if the field has one of them.
    /// Otherwise it is if the path is empty, or if the field is true, missing or null.
    pub fn is_active(&self, document: &RawDocument) -> Result<bool, Malformed> {
        let Some(path) = self.path() else { return Ok(true) };
        if !self.values.is_empty() {
            let value = paths::projected(document, path).ok().flatten();
            return Ok(value.is_some_and(|value| self.values.iter().any(|each| each.is(value))));
        }
        match paths::projected(document, path)? {
            None => Ok(true),
            Some(RawBsonRef::Boolean(active)) => Ok(active),
            Some(_) => Err(Malformed::wrong(path, "true or false")),
        }
    }
}

impl fmt::Display for ActiveValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(formatter, "{value}"),
            Self::Integer(value) => write!(formatter, "{value}"),
            Self::Text(value) => write!(formatter, "{value:?}"),
        }
    }
}

impl ActiveValue {
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Boolean(value) => Some(Self::Boolean(*value)),
            Value::Integer(value) => Some(Self::Integer(*value)),
            Value::String(value) => Some(Self::Text(value.clone())),
            _ => None,
        }
    }

    fn is(&self, value: RawBsonRef<'_>) -> bool {
        match (self, value) {
            (Self::Boolean(own), RawBsonRef::Boolean(value)) => *own == value,
            (Self::Text(own), RawBsonRef::String(value)) => own == value,
            (Self::Integer(own), RawBsonRef::Int32(value)) => *own == i64::from(value),
            (Self::Integer(own), RawBsonRef::Int64(value)) => *own == value,
            (Self::Integer(own), RawBsonRef::Double(value)) => Some(*own) == whole_number(value),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SettingsReader;
    use bson::{RawBson, rawdoc};

    fn switch(toml: &str) -> (ActiveField, usize) {
        let file = toml::from_str(toml).unwrap();
        let mut settings = SettingsReader::new(file, std::iter::empty());
        let field = ActiveField::read(&mut settings.section("triggers"));
        (field, settings.into_faults().len())
    }

    #[test]
    fn a_document_is_on_exactly_with_one_of_the_values() {
        let (switch, faults) =
            switch("[triggers]\nactive_field = \"s.is\"\nactive_values = [\"live\", 1, true]");
        assert_eq!(faults, 0);
        let is_active =
            |value: RawBson| switch.is_active(&rawdoc! { "s": { "is": value } }).unwrap();
        for on in [RawBson::from("live"), 1.into(), 1_i64.into(), 1.0.into(), true.into()] {
            assert!(is_active(on.clone()), "{on:?}");
        }
        for off in [
            RawBson::from("Live"),
            "1".into(),
            2.into(),
            1.5.into(),
            false.into(),
            RawBson::Null,
            rawdoc! { "is": "live" }.into(),
        ] {
            assert!(!is_active(off.clone()), "{off:?}");
        }
        for document in [rawdoc! {}, rawdoc! { "s": "live" }, rawdoc! { "s": [{ "is": "live" }] }] {
            assert_eq!(switch.is_active(&document), Ok(false), "{document:?}");
        }
    }

    #[test]
    fn a_switch_that_a_projection_leaves_out_is_missing() {
        let switch = ActiveField::boolean("s.is");
        for document in
            [rawdoc! {}, rawdoc! { "s": "text" }, rawdoc! { "s": { "is": RawBson::Null } }]
        {
            assert_eq!(switch.is_active(&document), Ok(true), "{document:?}");
        }
        assert_eq!(switch.is_active(&rawdoc! { "s": { "is": false } }), Ok(false));
        for document in [rawdoc! { "s": { "is": 1 } }, rawdoc! { "s": [{ "is": true }] }] {
            assert!(switch.is_active(&document).is_err(), "{document:?}");
        }
    }

    #[test]
    fn values_of_other_types_or_without_a_field_are_faults() {
        for (toml, expected) in [
            ("active_values = [1.5]", 1),
            ("active_values = [[\"live\"]]", 1),
            ("active_values = \"live\"", 1),
            ("active_field = \"\"\nactive_values = [1]", 1),
            ("active_field = \"a..b\"", 1),
            ("active_field = \"a.$b\"", 1),
            ("active_field = \"a\\u0000b\"", 1),
            ("active_field = \"\"", 0),
            ("active_values = []", 0),
        ] {
            assert_eq!(switch(&format!("[triggers]\n{toml}")).1, expected, "{toml}");
        }
    }
}
