//! Values that are nearly right: the fault names the value and says what to write instead.

use super::{faults, with_value};

#[test]
fn a_misspelled_value_gets_a_suggestion() {
    for (key, value, meant) in [
        ("auth.jwt.algorithms", "[\"HS256\", \"rs256\"]", "\"rs256\"; did you mean \"RS256\"?"),
        ("auth.jwt.algorithms", "[\"ED-DSA\"]", "did you mean \"EdDSA\"?"),
        ("users.api_key_encoding", "\"SHA-256\"", "did you mean \"sha256\"?"),
        ("users.api_key_encoding", "\"sha256_base64\"", "did you mean \"sha256-base64\"?"),
        ("users.api_key_encoding", "\"md5\"", "known are \"plain\", \"sha256\", \"sha256-base64\""),
        ("triggers.source", "\"MongoDB\"", "did you mean \"mongodb\"?"),
        ("queue.paused_layout", "\"V5\"", "did you mean \"v5\"?"),
    ] {
        let found = faults(&with_value(key, value));
        assert!(found[key].contains("unknown value") && found[key].contains(meant), "{found:?}");
    }
}

#[test]
fn a_fault_names_the_value_and_what_to_write() {
    for (key, value, expected) in [
        ("auth.jwt.organization_claim", "\"\"", "a claim is empty"),
        ("auth.jwt.organization_claim", "\"org..id\"", "\"org..id\" is not a dotted path"),
        ("auth.jwt.user_claims", "[\"sub\", \"user.\"]", "\"user.\" is not a dotted path"),
        ("auth.jwt.user_claims", "[\"\"]", "a claim is empty"),
        ("auth.api_key.schemes", "[\"Api Key\"]", "\"Api Key\" has characters"),
        ("auth.api_key.headers", "[\"X-Key:\"]", "\"X-Key:\" has characters"),
        ("queue.forward_headers", "[\"X-My Header\"]", "\"X-My Header\" is no name of a header"),
        (
            "queue.forward_headers",
            "[\"X-*\"]",
            "\"X-*\" is a pattern; write the whole name of each",
        ),
        ("users.api_key_field", "\"keys[].hash\"", "a path leads through arrays by itself"),
        ("triggers.filter", "\"{a: 1}\"", "is not extended JSON (character 2)"),
    ] {
        let found = faults(&with_value(key, value));
        assert!(found[key].contains(expected), "{found:?}");
    }
}
