//! Members of a body that is not trusted yet, found without parsing the rest into memory.
//!
//! A path is a list of names with dots between them: `signature.token`. In an array, a number is an
//! index and `*` stands for every element.

use crate::endpoints::verification::form;
use crate::endpoints::verification::json_members;
use crate::endpoints::verification::refusal::{Refusal, RefusalKind};
use crate::endpoints::verification::request::DeliveryRequest;

/// Bound on the names of a path: a lookup descends once for each.
const MAX_NAMES: usize = 16;

/// Bound on the text of a member. A longer one counts as missing.
const MAX_TEXT: usize = 16 * 1024;

/// Bound on the memory that a lookup takes: the text while it is decoded, and two texts that are
/// found.
pub(super) fn bytes_at_most(request: &DeliveryRequest<'_>) -> usize {
    6 * request.body.len().min(MAX_TEXT)
}

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
    /// not there, is not a string, number or boolean, or is longer than [`MAX_TEXT`]. Returns `false`
    /// if the body is neither JSON nor a form.
    pub(super) fn visit(
        &self,
        request: &DeliveryRequest<'_>,
        visit: &mut dyn FnMut(Option<&str>),
    ) -> bool {
        // The type of the body is not signed, so it must not decide what is found.
        let Some(body) = json_members::value(request.body) else {
            let is_form = request.is_form() || form::is_likely(request.body);
            if is_form {
                self.visit_form(request.body, visit);
            }
            return is_form;
        };
        json_members::visit(body, &self.names, &mut |value| {
            visit(value.and_then(|value| json_members::text(value, MAX_TEXT)).as_deref());
        });
        true
    }

    fn visit_form(&self, body: &[u8], visit: &mut dyn FnMut(Option<&str>)) {
        let mut is_found = false;
        for value in form::values(body, &self.text, MAX_TEXT) {
            is_found = true;
            visit(value.as_deref());
        }
        if !is_found {
            visit(None);
        }
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
