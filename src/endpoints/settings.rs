//! The section `[endpoints]`.

use crate::endpoints::named_verifications::NamedVerifications;
use crate::endpoints::verification::{NamedVerification, read_named};
use crate::settings::{Section, nearest, path_fault};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The section `[endpoints]`.
#[derive(Debug, Clone)]
pub struct EndpointsSettings {
    pub enabled: bool,
    /// The prefix of every address. It begins with `/` and does not end with one.
    pub path: String,
    /// Scheme and host as senders see them; `None`: those of the connection and of the request.
    pub public_url: Option<String>,
    /// The dotted path, within a trigger node, of its verification.
    pub verification_field: String,
    /// The named verification of nodes that have none.
    pub default_verification: Option<String>,
    /// How long the id of a delivery is remembered.
    pub delivery_ttl: Duration,
    /// The share of both in-flight bounds for deliveries that are not verified yet, above 0 and at
    /// most 1.
    pub unverified_share: f64,
    /// Failed verifications of one client address at one endpoint; 0: no limit.
    pub failed_verifications_per_minute: u32,
    /// The verifications of the settings. A reload replaces them in place.
    pub verifications: Arc<NamedVerifications>,
}

impl EndpointsSettings {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        let second = Duration::from_secs(1);
        let year = 365 * 24 * 60 * 60 * second;
        let enabled = section.value("enabled", false);
        let delivery_ttl = section.duration("delivery_ttl", "24h", second..=year);
        Self {
            enabled,
            path: path(section),
            public_url: public_url(section),
            verification_field: verification_field(section),
            default_verification: default_verification(section),
            delivery_ttl,
            unverified_share: unverified_share(section),
            failed_verifications_per_minute: failures(section),
            verifications: Arc::new(NamedVerifications::new(named(section, delivery_ttl))),
        }
    }
}

/// Reads the named verifications. An id that is forgotten before its time is too old can be repeated.
fn named(section: &mut Section<'_>, delivery_ttl: Duration) -> BTreeMap<String, NamedVerification> {
    let named = read_named(section);
    for (name, NamedVerification { verification, .. }) in &named {
        let tolerance = verification.tolerance_of_known_deliveries();
        if let Some(tolerance) = tolerance.filter(|tolerance| *tolerance > delivery_ttl) {
            let tolerance = humantime::format_duration(tolerance);
            let warning = format!(
                "is below the tolerance of verification.{name}, {tolerance}: a delivery can be \
                 repeated in between"
            );
            section.warning("delivery_ttl", warning);
        }
    }
    named
}

fn path(section: &mut Section<'_>) -> String {
    let path = section.name("path", "/api/webhook/in");
    if let Some(fault) = path_of_url_fault(&path) {
        section.fault("path", fault);
    }
    path
}

/// What is wrong with a path that is not empty.
fn path_of_url_fault(path: &str) -> Option<&'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
    let parts = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        None
    } else if !path.starts_with('/') {
        Some("does not begin with /")
    } else if path.ends_with('/') {
        Some("ends with /; addresses continue with /{organization}/{webhookId}")
    } else if parts.split('/').any(str::is_empty) {
        Some("has an empty part between two /")
    } else if parts.split('/').any(|part| matches!(part, "." | "..")) {
        Some("has a part . or .., which clients remove")
    } else if !parts.bytes().all(|byte| byte == b'/' || is_plain(byte)) {
        Some("has a character that a path can contain only percent-encoded, or a query")
    } else {
        None
    }
}

fn public_url(section: &mut Section<'_>) -> Option<String> {
    let url = Some(section.value("public_url", String::new())).filter(|url| !url.is_empty())?;
    if let Some(fault) = origin_fault(&url) {
        let fault = format!("{fault}; write it like \"https://hooks.example.com\"");
        section.fault("public_url", fault);
    }
    Some(url)
}

/// What is wrong with a URL of scheme and host.
fn origin_fault(url: &str) -> Option<&'static str> {
    let Some(host) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return Some("does not begin with https:// or http://");
    };
    if host.contains(['/', '?', '#']) {
        return Some("has more than scheme and host");
    }
    if host.contains('@') {
        return Some("has a user name");
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if port.is_some_and(|port| !is_digits(port) || port.parse::<u16>().is_err()) {
        return Some("has a port that is not a number from 0 to 65535");
    }
    let is_of_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_host = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(is_of_host),
    };
    (!is_host).then_some("has no valid host")
}

fn verification_field(section: &mut Section<'_>) -> String {
    let path = section.name("verification_field", "data.verification");
    let fault = Some(&*path).filter(|path| !path.is_empty()).and_then(path_fault);
    if let Some(fault) = fault {
        section.fault("verification_field", format!("is not a dotted path: {fault}"));
    }
    path
}

/// Called before the named verifications are read. One that is faulty is a fault of its own.
fn default_verification(section: &mut Section<'_>) -> Option<String> {
    let name = section.value("default_verification", String::new());
    let name = Some(name).filter(|name| !name.is_empty())?;
    let names = section.section("verification").table_names();
    if !names.contains(&name) {
        let meant = nearest(&name, names.iter().map(String::as_str));
        let meant = meant.map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
        let fault = format!("there is no section [endpoints.verification.{name}]{meant}");
        section.fault("default_verification", fault);
    }
    Some(name)
}

fn unverified_share(section: &mut Section<'_>) -> f64 {
    let share = section.value("unverified_share", 0.25);
    if !(share > 0.0 && share <= 1.0) {
        section.fault("unverified_share", "must be above 0 and at most 1");
    }
    share
}

fn failures(section: &mut Section<'_>) -> u32 {
    const MAX: u64 = 1_000_000;
    let number = section.number("failed_verifications_per_minute", 60, 0..=MAX);
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OrganizationId;
    use crate::settings::SettingsReader;

    fn read(text: &str) -> (EndpointsSettings, Vec<String>) {
        let file = toml::from_str(&format!("[endpoints]\n{text}")).unwrap();
        let mut settings = SettingsReader::new(file, std::iter::empty());
        let endpoints = EndpointsSettings::read(&mut settings.section("endpoints"));
        let faults = settings.into_faults().into_iter();
        (endpoints, faults.map(|fault| format!("{}: {}", fault.key, fault.message)).collect())
    }

    #[test]
    fn endpoints_are_off_by_default() {
        let (settings, faults) = read("");
        assert_eq!(faults, [""; 0]);
        assert!(!settings.enabled);
        assert_eq!(settings.path, "/api/webhook/in");
        assert_eq!((settings.public_url, settings.default_verification), (None, None));
        assert_eq!(settings.verification_field, "data.verification");
        assert_eq!(settings.delivery_ttl, Duration::from_secs(24 * 60 * 60));
        assert_eq!(settings.failed_verifications_per_minute, 60);
    }

    #[test]
    fn a_path_has_parts_that_need_no_encoding() {
        for path in ["/in", "/api/webhook/in", "/a-b.c_d~/e:f@g", "/hooks/v1"] {
            let (settings, faults) = read(&format!("path = {path:?}"));
            assert_eq!((settings.path.as_str(), faults.len()), (path, 0), "{faults:?}");
        }
        for (path, reason) in [
            ("", "is empty"),
            ("in", "does not begin with /"),
            ("/", "ends with /"),
            ("/in/", "ends with /"),
            ("//in", "has an empty part"),
            ("/a//b", "has an empty part"),
            ("/a/../b", "has a part . or .."),
            ("/./b", "has a part . or .."),
            ("/a b", "has a character"),
            ("/a%20b", "has a character"),
            ("/a?b", "has a character"),
            ("/\u{fc}", "has a character"),
            ("/{x}", "has a character"),
        ] {
            let (_, faults) = read(&format!("path = {path:?}"));
            let [fault] = &faults[..] else { panic!("{path}: {faults:?}") };
            assert!(fault.starts_with(&format!("endpoints.path: {reason}")), "{path}: {fault}");
        }
    }

    #[test]
    fn a_public_url_is_scheme_and_host() {
        for url in [
            "https://hooks.example.com",
            "http://localhost:2212",
            "https://[2001:db8::1]:8443",
            "https://[::1]",
            "https://192.0.2.1",
        ] {
            let (settings, faults) = read(&format!("public_url = {url:?}"));
            assert_eq!(
                (settings.public_url.as_deref(), faults.len()),
                (Some(url), 0),
                "{faults:?}"
            );
        }
        for (url, reason) in [
            ("hooks.example.com", "does not begin with https:// or http://"),
            ("ftp://a", "does not begin with https:// or http://"),
            ("https://a/", "has more than scheme and host"),
            ("https://a/b", "has more than scheme and host"),
            ("https://a?b", "has more than scheme and host"),
            ("https://user:pw@a", "has a user name"),
            ("https://", "has no valid host"),
            ("https://a b", "has no valid host"),
            ("https://[::1", "has no valid host"),
            ("https://[a]", "has no valid host"),
            ("https://::1", "has no valid host"),
            ("https://a:", "has a port that is not a number from 0 to 65535"),
            ("https://a:b", "has a port that is not a number from 0 to 65535"),
            ("https://a:65536", "has a port that is not a number from 0 to 65535"),
        ] {
            let (_, faults) = read(&format!("public_url = {url:?}"));
            let expected = format!(
                "endpoints.public_url: {reason}; write it like \"https://hooks.example.com\""
            );
            assert_eq!(faults, [expected], "{url}");
        }
    }

    #[test]
    fn each_key_has_bounds() {
        for (line, fault) in [
            ("unverified_share = 0.0", "unverified_share: must be above 0 and at most 1"),
            ("unverified_share = 1.1", "unverified_share: must be above 0 and at most 1"),
            ("unverified_share = nan", "unverified_share: must be above 0 and at most 1"),
            ("delivery_ttl = \"0s\"", "delivery_ttl: 0s is not between 1s and 8760h"),
            (
                "failed_verifications_per_minute = 1000001",
                "failed_verifications_per_minute: 1000001 is not between 0 and 1000000",
            ),
            ("verification_field = \"\"", "verification_field: is empty"),
            (
                "verification_field = \"a..b\"",
                "verification_field: is not a dotted path: a name is empty",
            ),
            ("enabled = 1", "enabled: wrong type, expected true or false"),
            ("pfad = 1", "pfad: unknown key"),
        ] {
            assert_eq!(read(line).1, [format!("endpoints.{fault}")]);
        }
    }

    #[test]
    fn ids_that_are_forgotten_too_early_are_warned_of() {
        let warnings = |ttl: &str| {
            let text = format!(
                "[endpoints]\ndelivery_ttl = \"{ttl}\"\n\
                 [endpoints.verification.mail]\nscheme = \"mailgun\"\nsecret = \"0123456789abcdef\"\n\
                 organizations = [\"o\"]\n\
                 [endpoints.verification.github]\nscheme = \"github\"\nsecret = \"0123456789abcdef\"\n\
                 organizations = [\"o\"]\n"
            );
            let file = toml::from_str(&text).unwrap();
            let mut settings = SettingsReader::new(file, std::iter::empty());
            EndpointsSettings::read(&mut settings.section("endpoints"));
            settings.warnings()
        };
        let unsigned = "endpoints.verification.mail.scheme: the body is not signed";
        assert_eq!(warnings("12h"), [unsigned]);
        let expected = "endpoints.delivery_ttl: is below the tolerance of verification.mail, 12h: a \
                        delivery can be repeated in between";
        assert_eq!(warnings("11h"), [unsigned, expected]);
    }

    #[test]
    fn the_default_verification_is_a_section() {
        let section = "\n[endpoints.verification.github]\nscheme = \"github\"\nsecret = \"0123456789abcdef\"\n";
        let (settings, faults) = read(&format!("default_verification = \"github\"{section}"));
        assert_eq!(faults, [""; 0]);
        assert_eq!(settings.default_verification.as_deref(), Some("github"));
        let organization = OrganizationId::new("o").unwrap();
        assert!(settings.verifications.get("github", &organization).is_some());
        let (_, faults) = read(&format!("default_verification = \"githup\"{section}"));
        let expected = "endpoints.default_verification: there is no section \
                        [endpoints.verification.githup]; did you mean \"github\"?";
        assert_eq!(faults, [expected]);
        // A section with a fault is reported once.
        let misspelled = section.replace("secret", "sekret");
        let (_, faults) = read(&format!("default_verification = \"github\"{misspelled}"));
        assert!(faults.iter().all(|fault| fault.contains("verification.github.")), "{faults:?}");
    }
}
