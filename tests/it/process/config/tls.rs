//! The files of `[server.tls]`: which are refused, and which file the fault names.

use super::{faults, keys};
use testkit::scratch::Scratch;
use testkit::tls::Authority;

#[test]
fn invalid_certificate_files_are_refused_by_key() {
    let (certificate_key, key_key) = ("server.tls.certificate_file", "server.tls.key_file");
    let authority = Authority::new();
    let (certificate, key) = (authority.certificate_file(), authority.key_file());
    let (one, other) = (authority.issue(), authority.issue());
    authority.replace(&one);
    let files = Scratch::new("certificates");
    let file = |name: &str, text: &str| files.write(name, text).display().to_string();
    let spoilt = one.key_pem.replace("PRIVATE KEY-----\n", "PRIVATE KEY-----\nAAAA");
    let broken = one.chain_pem.replace("CERTIFICATE-----\n", "CERTIFICATE-----\nAAAA");
    let rows = [
        ("/nowhere/chain.pem", key.as_str(), certificate_key),
        (certificate.as_str(), "/nowhere/key.pem", key_key),
        (&key, &key, certificate_key),
        (&certificate, &certificate, key_key),
        (&file("empty", ""), &key, certificate_key),
        (&certificate, &file("empty", ""), key_key),
        (&file("broken", &broken), &key, certificate_key),
        (&certificate, &file("spoilt", &spoilt), key_key),
        (&certificate, &file("other", &other.key_pem), key_key),
        ("", &key, certificate_key),
        (&certificate, "", key_key),
    ];
    for (certificate, key, blamed) in rows {
        let found = faults(&tls(certificate, key));
        assert_eq!(keys(&found), [blamed], "{certificate}, {key}: {found:?}");
        assert!(!found[blamed].contains("AAAA"), "{found:?}");
    }
    assert!(faults(&tls(&certificate, &key)).is_empty());
    assert!(faults(&tls("", "")).is_empty(), "neither: no TLS");
}

fn tls(certificate: &str, key: &str) -> String {
    format!("[server.tls]\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"\n")
}
