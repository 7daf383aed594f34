//! What is signed: a template such as `{timestamp}.{body}`.

/// A part of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Literal(String),
    Body,
    Timestamp,
    Id,
    Url,
    Method,
    /// The fields of a form, sorted by name and value, without anything between them.
    Form,
}

const PLACEHOLDERS: [(&str, Part); 6] = [
    ("body", Part::Body),
    ("timestamp", Part::Timestamp),
    ("id", Part::Id),
    ("url", Part::Url),
    ("method", Part::Method),
    ("form", Part::Form),
];

/// What is signed, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

impl Template {
    /// The error says what is wrong with the template.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("has a { without a }")?;
            push_literal(&mut parts, before)?;
            parts.push(placeholder(name)?);
            rest = after;
        }
        push_literal(&mut parts, rest)?;
        if PLACEHOLDERS.iter().any(|(_, part)| count(&parts, part) > 1) {
            return Err("has a placeholder twice".to_owned());
        }
        if parts.iter().all(|part| matches!(part, Part::Literal(_))) {
            return Err(format!("has no placeholder: {}", placeholders()));
        }
        Ok(Self(parts))
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.0
    }

    pub(super) fn contains(&self, part: &Part) -> bool {
        self.0.contains(part)
    }
}

/// Each placeholder can be there once. Otherwise a description could have a body hashed thousands of
/// times.
fn count(parts: &[Part], part: &Part) -> usize {
    parts.iter().filter(|each| *each == part).count()
}

fn push_literal(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if text.contains('}') {
        return Err("has a } without a {".to_owned());
    }
    if !text.is_empty() {
        parts.push(Part::Literal(text.to_owned()));
    }
    Ok(())
}

fn placeholder(name: &str) -> Result<Part, String> {
    let found = PLACEHOLDERS.into_iter().find(|(known, _)| *known == name);
    let part = found.map(|(_, part)| part);
    part.ok_or_else(|| format!("has an unknown placeholder; there are {}", placeholders()))
}

fn placeholders() -> String {
    PLACEHOLDERS.map(|(name, _)| format!("{{{name}}}")).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_split_at_its_placeholders() {
        let template = Template::parse("v0:{timestamp}:{body}").unwrap();
        let literal = |text: &str| Part::Literal(text.to_owned());
        let expected = [literal("v0:"), Part::Timestamp, literal(":"), Part::Body];
        assert_eq!(template.parts(), expected);
        assert_eq!(
            Template::parse("{method}{url}{form}{id}").unwrap().parts(),
            [Part::Method, Part::Url, Part::Form, Part::Id]
        );
    }

    #[test]
    fn a_malformed_template_is_refused() {
        for text in [
            "",
            "body",
            "{body",
            "body}",
            "{bdy}",
            "{}",
            "{{body}}",
            "}{body}",
            "{body}}",
            "{body}.{id}{body}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
