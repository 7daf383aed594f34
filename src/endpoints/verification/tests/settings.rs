//! Verifications of the settings.

use super::{Request, verification};
use crate::endpoints::verification::{NamedVerification, read_named};
use crate::ids::OrganizationId;
use crate::settings::{Fault, SettingsReader};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;

fn read(text: &str) -> (BTreeMap<String, NamedVerification>, Vec<String>, Vec<Fault>) {
    let environment =
        [("HOOKGATE__ENDPOINTS__VERIFICATION__CI__STATUS".to_owned(), "202".to_owned())];
    let mut settings = SettingsReader::new(toml::from_str(text).unwrap(), environment.into_iter());
    let named = read_named(&mut settings.section("endpoints"));
    let warnings = settings.warnings();
    (named, warnings, settings.into_faults())
}

#[test]
fn a_section_has_the_members_of_a_document() {
    let (named, warnings, faults) = read(
        "[endpoints.verification.ci]\nscheme = \"github\"\nsecret = \"a secret of some length\"\n\
         organizations = [\"org_1\"]\ndeliveryId = { header = \"X-Id\" }\n\
         [endpoints.verification.own]\nscheme = \"hmac\"\nsecrets = [\"one\"]\nheader = \"X-Sig\"\n\
         allowedAddresses = [\"10.0.0.0/8\"]\n",
    );
    assert_eq!(faults, []);
    let expected = verification(&json!({
        "scheme": "github", "secret": "a secret of some length", "deliveryId": { "header": "X-Id" },
        "status": 202,
    }));
    let ci = named.get("ci").unwrap();
    assert_eq!(ci.verification, expected);
    assert_eq!(ci.verification.status().code(), 202);
    let [one, two] = ["org_1", "org_2"].map(|id| OrganizationId::new(id).unwrap());
    assert!(ci.is_for(&one) && !ci.is_for(&two));
    let own = named.get("own").unwrap();
    assert!(own.is_for(&one) && own.is_for(&two));
    assert_eq!(
        warnings,
        [
            "endpoints.verification.own.organizations: is empty: every organization may refer to it",
            "endpoints.verification.own.scheme: a secret is shorter than 16 bytes",
        ]
    );
    assert!(!format!("{named:?}").contains("a secret of"));
}

#[test]
fn secrets_of_files_are_those_of_the_section() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let (one, two) = (file("one", "first secret\n"), file("two", "second secret"));
    let (named, _, faults) = read(&format!(
        "[endpoints.verification.ci]\nscheme = \"gitlab\"\nsecret_files = [\"{one}\", \"{two}\"]\n\
         [endpoints.verification.alone]\nscheme = \"gitlab\"\nsecret_file = \"{two}\"\n\
         [endpoints.verification.meta]\nscheme = \"meta\"\nsecret_file = \"{two}\"\n\
         verifyToken_file = \"{one}\"\n",
    ));
    assert_eq!(faults, []);
    let with = |secret: &str| Request::post("").header("X-Gitlab-Token", secret);
    let ci = &named.get("ci").unwrap().verification;
    assert!(with("first secret").verify(ci).is_ok());
    assert!(with("second secret").verify(ci).is_ok());
    let meta = &named.get("meta").unwrap().verification;
    let query = "hub.mode=subscribe&hub.challenge=1&hub.verify_token=first+secret";
    assert!(meta.unsigned_handshake(&Request::get(query).delivery()).is_some());
    let alone = &named.get("alone").unwrap().verification;
    assert!(with("second secret").verify(alone).is_ok());
    assert!(with("first secret").verify(alone).is_err());
}

#[test]
fn every_fault_names_its_key() {
    let (named, _, faults) = read(
        "[endpoints.verification]\nloose = 1\n\
         [endpoints.verification.ci]\nscheme = \"github\"\n\
         [endpoints.verification.unknown]\nscheme = \"github\"\nsecret = \"a\"\nsekret = \"b\"\n\
         [endpoints.verification.file]\nscheme = \"github\"\nsecret_file = \"/does/not/exist\"\n\
         [endpoints.verification.\"a b\"]\nscheme = \"none\"\n\
         [endpoints.verification.long]\nscheme = \"none\"\norganizations = [\"\"]\n",
    );
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    for expected in [
        "endpoints.verification.ci.secret: is missing",
        "endpoints.verification.unknown.sekret: unknown key; did you mean",
        "endpoints.verification.file.secret_file: cannot read /does/not/exist",
        "endpoints.verification.a b: is not a name of letters, digits, _ and -",
        "endpoints.verification.loose: unknown key",
        "endpoints.verification.long.organizations: contains an invalid organization id",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{expected}: {faults:?}");
    }
    assert_eq!(named.keys().collect::<Vec<_>>(), ["long", "unknown"]);
}
