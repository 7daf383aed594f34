//! The members of a description, from whichever source, and what can be wrong with them.

use crate::settings::nearest;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The members that a description can have.
pub(super) const NAMES: [&str; 32] = [
    "scheme",
    "secret",
    "secrets",
    "publicKey",
    "publicKeys",
    "signed",
    "bodyDigestQuery",
    "urlForms",
    "header",
    "headers",
    "signatureItem",
    "separator",
    "prefix",
    "signatureBody",
    "encoding",
    "algorithm",
    "secretEncoding",
    "timestampHeader",
    "timestampItem",
    "timestampBody",
    "timestampFormat",
    "tolerance",
    "requireExp",
    "idHeader",
    "deliveryId",
    "name",
    "path",
    "user",
    "audience",
    "verifyToken",
    "allowedAddresses",
    "status",
];

/// Bound on the length of a member's name in a message.
const SHOWN: usize = 64;

/// What is wrong with a description. It contains no value, because each can be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    pub member: String,
    pub reason: String,
}

impl Malformed {
    pub(super) fn new(member: &str, reason: impl Into<String>) -> Self {
        let member = member.chars().filter(|char| !char.is_control()).take(SHOWN).collect();
        Self { member, reason: reason.into() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.member, self.reason)
    }
}

impl std::error::Error for Malformed {}

/// The value of a member. It has no `Debug`: it can be a secret.
#[derive(Clone)]
pub(super) enum Member {
    Text(String),
    Number(i64),
    Boolean(bool),
    List(Vec<Self>),
    Table(BTreeMap<String, Self>),
    /// A value of a type that no member has.
    Other,
}

impl Member {
    /// A number for each type, for digests.
    pub(super) fn tag(&self) -> u8 {
        match self {
            Self::Text(_) => 0,
            Self::Number(_) => 1,
            Self::Boolean(_) => 2,
            Self::List(_) => 3,
            Self::Table(_) => 4,
            Self::Other => 5,
        }
    }
}

/// The members of a description that are not read yet.
#[derive(Clone, Default)]
pub(super) struct Members(BTreeMap<String, Member>);

impl Members {
    pub(super) fn new(members: BTreeMap<String, Member>) -> Self {
        Self(members)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Adds a member unless it is given.
    pub(super) fn add(&mut self, name: &str, member: Member) {
        self.0.entry(name.to_owned()).or_insert(member);
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.0.iter().map(|(name, member)| (name.as_str(), member))
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Member> {
        self.0.remove(name)
    }

    /// A string that is not empty.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Malformed> {
        match self.take(name) {
            None => Ok(None),
            Some(Member::Text(text)) if text.is_empty() => Err(Malformed::new(name, "is empty")),
            Some(Member::Text(text)) => Ok(Some(text)),
            Some(_) => Err(Malformed::new(name, "is not a string")),
        }
    }

    pub(super) fn required(&mut self, name: &str) -> Result<String, Malformed> {
        self.text(name)?.ok_or_else(|| Malformed::new(name, "is missing"))
    }

    /// A list of strings that are not empty. One string is a list of one.
    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<String>>, Malformed> {
        let wrong = || Malformed::new(name, "is not a list of strings");
        let members = match self.take(name) {
            None => return Ok(None),
            Some(Member::List(members)) => members,
            Some(member) => vec![member],
        };
        let text = |member| match member {
            Member::Text(text) if text.is_empty() => {
                Err(Malformed::new(name, "has an empty string"))
            }
            Member::Text(text) => Ok(text),
            _ => Err(wrong()),
        };
        let texts: Vec<String> = members.into_iter().map(text).collect::<Result<_, _>>()?;
        if texts.is_empty() { Err(Malformed::new(name, "is empty")) } else { Ok(Some(texts)) }
    }

    /// One string under one name, or several under another; not both.
    pub(super) fn one_or_many(
        &mut self,
        one: &str,
        many: &str,
    ) -> Result<Option<Vec<String>>, Malformed> {
        match (self.text(one)?, self.list(many)?) {
            (Some(_), Some(_)) => Err(Malformed::new(many, format!("and {one} are both given"))),
            (Some(text), None) => Ok(Some(vec![text])),
            (None, texts) => Ok(texts),
        }
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, Malformed> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = choices.iter().find(|(word, _)| *word == text);
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let unknown = || Malformed::new(name, format!("is none of {}", words.join(", ")));
        found.map(|(_, choice)| Some(*choice)).ok_or_else(unknown)
    }

    /// A duration such as `5m`.
    pub(super) fn duration(&mut self, name: &str) -> Result<Option<Duration>, Malformed> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = || Malformed::new(name, "is not a duration such as \"5m\"");
        let duration = humantime::parse_duration(text.trim()).map_err(|_| wrong())?;
        if duration.is_zero() { Err(Malformed::new(name, "is zero")) } else { Ok(Some(duration)) }
    }

    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, Malformed> {
        match self.take(name) {
            None => Ok(None),
            Some(Member::Boolean(value)) => Ok(Some(value)),
            Some(_) => Err(Malformed::new(name, "is neither true nor false")),
        }
    }

    /// The name of a header field, in lower case.
    pub(super) fn header(&mut self, name: &str) -> Result<Option<String>, Malformed> {
        self.text(name)?.map(|text| header_name(name, &text)).transpose()
    }

    /// Reports a member that nothing has read.
    pub(super) fn finish(&self, scheme: &str) -> Result<(), Malformed> {
        let Some(name) = self.names().next() else { return Ok(()) };
        Err(not_read(name, scheme))
    }
}

/// The error of a member that a scheme does not have.
pub(super) fn not_read(name: &str, scheme: &str) -> Malformed {
    if NAMES.contains(&name) {
        return Malformed::new(name, format!("does not apply to the scheme {scheme}"));
    }
    let suggestion = nearest(name, NAMES).map(|meant| format!("; did you mean {meant}?"));
    Malformed::new(name, format!("is an unknown member{}", suggestion.unwrap_or_default()))
}

/// Checks the name of a header field and returns it in lower case.
pub(super) fn header_name(member: &str, text: &str) -> Result<String, Malformed> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_token) {
        return Err(Malformed::new(member, "is not the name of a header field"));
    }
    Ok(text.to_ascii_lowercase())
}
