//! Members of a body, found without parsing the rest into memory.
//!
//! A path is a list of names with dots between them: `signature.token`. In an array, a number is an
//! index and `*` stands for every element.

use crate::endpoints::verification::refusal::{Refusal, RefusalKind};
use crate::endpoints::verification::request::DeliveryRequest;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Bound on the names of a path: the walk descends once for each.
const MAX_NAMES: usize = 16;

/// A path to a member of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BodyPath {
    text: String,
    names: Vec<String>,
}

impl BodyPath {
    /// The error says what is wrong with the path.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            return Err("is not a path: a name is empty".to_owned());
        }
        if names.len() > MAX_NAMES {
            return Err(format!("is a path of more than {MAX_NAMES} names"));
        }
        Ok(Self { text: text.to_owned(), names })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Calls `visit` for each member that the path leads to: with its text, or with `None` if it is
    /// not there or is no string, number or boolean. Returns `false` if the body is neither JSON nor
    /// a form.
    pub(super) fn visit(
        &self,
        request: &DeliveryRequest<'_>,
        visit: &mut dyn FnMut(Option<&str>),
    ) -> bool {
        if request.is_form() {
            return self.visit_form(request.body, visit);
        }
        let mut json = serde_json::Deserializer::from_slice(request.body);
        let walk = Walk { names: &self.names, visit };
        walk.deserialize(&mut json).and_then(|()| json.end()).is_ok()
    }

    fn visit_form(&self, body: &[u8], visit: &mut dyn FnMut(Option<&str>)) -> bool {
        let mut is_found = false;
        for (_, value) in form_urlencoded::parse(body).filter(|(name, _)| *name == self.text) {
            is_found = true;
            visit(Some(&value));
        }
        if !is_found {
            visit(None);
        }
        true
    }

    /// The text of the only member that the path leads to. `None` if it is not there.
    pub(super) fn single(&self, request: &DeliveryRequest<'_>) -> Result<Option<String>, Refusal> {
        let mut found: Vec<Option<String>> = Vec::new();
        let is_readable = self.visit(request, &mut |text| {
            if found.len() < 2 {
                found.push(text.map(str::to_owned));
            }
        });
        match (is_readable, found.pop(), found.is_empty()) {
            (false, ..) => Err(Refusal::with_part(RefusalKind::Malformed, "body")),
            (true, Some(member), true) => Ok(member),
            (true, None, _) => Ok(None),
            (true, Some(_), false) => Err(Refusal::with_part(RefusalKind::Repeated, &self.text)),
        }
    }

    /// The text of the only member that the path leads to, or a refusal.
    pub(super) fn required(&self, request: &DeliveryRequest<'_>) -> Result<String, Refusal> {
        let member = self.single(request)?;
        member.ok_or_else(|| Refusal::with_part(RefusalKind::Missing, &self.text))
    }
}

/// Descends to the members that a path leads to, and skips all others.
struct Walk<'a, 'v> {
    names: &'a [String],
    visit: &'v mut dyn FnMut(Option<&str>),
}

impl Walk<'_, '_> {
    /// Visits a string, number or boolean, which is the member only at the end of the path.
    fn scalar(self, text: &str) {
        (self.visit)(self.names.is_empty().then_some(text));
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.scalar(text);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.scalar(&number.to_string());
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.scalar(&number.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.scalar(&number.to_string());
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        (self.visit)(None);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let wanted = self.names.split_first();
        let mut is_found = false;
        while let Some(is_wanted) = map.next_key_seed(IsName(wanted.map(|(name, _)| name)))? {
            let Some((_, names)) = wanted.filter(|_| is_wanted) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            is_found = true;
            map.next_value_seed(Walk { names, visit: &mut *self.visit })?;
        }
        if !is_found {
            (self.visit)(None);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let wanted = self.names.split_first();
        let (mut index, mut is_found) = (0_usize, false);
        loop {
            let inner = wanted.filter(|(name, _)| *name == "*" || name.parse() == Ok(index));
            index += 1;
            let Some((_, names)) = inner else {
                if elements.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
                continue;
            };
            let walk = Walk { names, visit: &mut *self.visit };
            if elements.next_element_seed(walk)?.is_none() {
                break;
            }
            is_found = true;
        }
        if !is_found {
            (self.visit)(None);
        }
        Ok(())
    }
}

/// Reads the name of a member and says whether it is the wanted one.
struct IsName<'a>(Option<&'a String>);

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(self.0.is_some_and(|wanted| wanted == name))
    }
}
