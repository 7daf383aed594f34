//! Reads the verifications of the settings, which documents refer to by name.

use crate::endpoints::verification::description;
use crate::endpoints::verification::members::{Member, Members, NAMES};
use crate::endpoints::verification::model::Verification;
use crate::ids::OrganizationId;
use crate::settings::{Secret, Section};
use std::collections::BTreeMap;
use toml::Value;

/// A verification of the settings.
#[derive(Debug, Clone)]
pub struct NamedVerification {
    /// Those that may refer to it. `None`: all.
    pub organizations: Option<Vec<OrganizationId>>,
    pub verification: Verification,
}

impl NamedVerification {
    /// Whether the documents of an organization may refer to it.
    pub fn is_for(&self, organization: &OrganizationId) -> bool {
        self.organizations.as_ref().is_none_or(|allowed| allowed.contains(organization))
    }
}

/// Reads the sections below `verification`, each with the members of a description. Secrets can be
/// in files: `secret_file`, `secret_files`, `verifyToken_file`.
pub fn read_named(section: &mut Section<'_>) -> BTreeMap<String, NamedVerification> {
    let mut verifications = section.section("verification");
    let mut named = BTreeMap::new();
    for name in verifications.table_names() {
        if !is_name(&name) {
            verifications.fault(&name, "is not a name of letters, digits, _ and -");
            continue;
        }
        if let Some(verification) = read(&mut verifications.section(&name)) {
            named.insert(name, verification);
        }
    }
    named
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(is_part)
}

fn read(section: &mut Section<'_>) -> Option<NamedVerification> {
    let organizations = organizations(section);
    let mut members = Members::default();
    let many: Vec<Member> =
        section.secrets("secret").iter().map(|(_, secret)| Member::Text(reveal(secret))).collect();
    for name in ["secret", "verifyToken"] {
        if let Some(secret) = section.secret(name, None) {
            members.add(name, Member::Text(reveal(&secret)));
        }
    }
    if !many.is_empty() {
        members.add("secrets", Member::List(many));
    }
    let others = |name: &&str| !matches!(*name, "secret" | "secrets" | "verifyToken");
    for name in NAMES.into_iter().filter(others) {
        if let Some(value) = section.optional::<Value>(name) {
            members.add(name, member(value));
        }
    }
    match description::read(members) {
        Ok(verification) => {
            for warning in verification.warnings() {
                section.warning("scheme", warning);
            }
            Some(NamedVerification { organizations, verification })
        }
        Err(malformed) => {
            section.fault(&malformed.member, malformed.reason);
            None
        }
    }
}

fn organizations(section: &mut Section<'_>) -> Option<Vec<OrganizationId>> {
    let names = section.string_list("organizations");
    if names.is_empty() {
        section.warning("organizations", "is empty: every organization may refer to it");
        return None;
    }
    let mut organizations = Vec::new();
    for name in names {
        match OrganizationId::new(&name) {
            Ok(organization) => organizations.push(organization),
            Err(_) => section.fault("organizations", "contains an invalid organization id"),
        }
    }
    Some(organizations)
}

fn reveal(secret: &Secret) -> String {
    secret.reveal().to_owned()
}

fn member(value: Value) -> Member {
    match value {
        Value::String(text) => Member::Text(text),
        Value::Integer(number) => Member::Number(number),
        Value::Boolean(value) => Member::Boolean(value),
        Value::Array(values) => Member::List(values.into_iter().map(member).collect()),
        Value::Table(members) => {
            Member::Table(members.into_iter().map(|(name, value)| (name, member(value))).collect())
        }
        Value::Float(_) | Value::Datetime(_) => Member::Other,
    }
}
