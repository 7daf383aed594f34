//! Reads a verification from a field of a document.

use crate::endpoints::verification::description;
use crate::endpoints::verification::members::{Malformed, Member, Members};
use crate::endpoints::verification::model::Verification;
use bson::{RawBsonRef, RawDocument};
use std::collections::BTreeMap;

/// Bound on the depth of a member: a table in a description is one deep.
const MAX_DEPTH: usize = 2;

impl Verification {
    /// Reads a verification that is described in a document.
    pub fn from_document(document: &RawDocument) -> Result<Self, Malformed> {
        description::read(Members::new(members(document, MAX_DEPTH)?))
    }
}

/// The members of a document. One that is null is not given.
fn members(document: &RawDocument, depth: usize) -> Result<BTreeMap<String, Member>, Malformed> {
    let mut members = BTreeMap::new();
    for element in document {
        let (name, value) =
            element.map_err(|_| Malformed::new("verification", "is not readable"))?;
        let name = name.to_string();
        if matches!(value, RawBsonRef::Null | RawBsonRef::Undefined) {
            continue;
        }
        let value = member(value, depth)?;
        if members.insert(name.clone(), value).is_some() {
            return Err(Malformed::new(&name, "is there twice"));
        }
    }
    Ok(members)
}

fn member(value: RawBsonRef<'_>, depth: usize) -> Result<Member, Malformed> {
    let Some(inner) = depth.checked_sub(1) else { return Ok(Member::Other) };
    Ok(match value {
        RawBsonRef::String(text) => Member::Text(text.to_owned()),
        RawBsonRef::Boolean(value) => Member::Boolean(value),
        RawBsonRef::Int32(number) => Member::Number(number.into()),
        RawBsonRef::Int64(number) => Member::Number(number),
        RawBsonRef::Double(number) => whole(number).map_or(Member::Other, Member::Number),
        RawBsonRef::Document(document) => Member::Table(members(document, inner)?),
        RawBsonRef::Array(array) => {
            let elements = array.into_iter().map(|value| {
                let value = value.map_err(|_| Malformed::new("verification", "is not readable"))?;
                member(value, inner)
            });
            Member::List(elements.collect::<Result<_, _>>()?)
        }
        _ => Member::Other,
    })
}

/// A number without a fraction: JavaScript writes all numbers as doubles.
fn whole(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "the number is small and whole")]
    (number.fract() == 0.0 && number.abs() < 1e9).then_some(number as i64)
}
