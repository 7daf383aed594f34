//! The `JSONTestSuite`, as bodies and as payloads. Inputs that must be accepted are accepted, and
//! inputs that must be refused are refused. A table holds the outcome of all others and what a
//! BullMQ worker in Node reads.

#![expect(clippy::panic, reason = "a test panics")]

use std::io::Write as _;
use std::process::Stdio;

use serde::Deserialize;
use testkit::App;
use testkit::http::Reply;
use testkit::node;

#[derive(Deserialize)]
struct Suite {
    parsing: Vec<Case>,
    transform: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    input: String,
}

/// The package holds only UTF-8 strings. These files are not UTF-8 and are copied here from the
/// suite.
const NOT_UTF_8: &[(&str, &[u8])] = &[
    ("i_string_UTF-16LE_with_BOM", b"\xff\xfe[\0\"\0\xe9\0\"\0]\0"),
    ("i_string_UTF-8_invalid_sequence", b"[\"\xe6\x97\xa5\xd1\x88\xfa\"]"),
    ("i_string_UTF8_surrogate_U+D800", b"[\"\xed\xa0\x80\"]"),
    ("i_string_invalid_utf-8", b"[\"\xff\"]"),
    ("i_string_iso_latin_1", b"[\"\xe9\"]"),
    ("i_string_lone_utf8_continuation_byte", b"[\"\x81\"]"),
    ("i_string_not_in_unicode_range", b"[\"\xf4\xbf\xbf\xbf\"]"),
    ("i_string_overlong_sequence_2_bytes", b"[\"\xc0\xaf\"]"),
    ("i_string_overlong_sequence_6_bytes", b"[\"\xfc\x83\xbf\xbf\xbf\xbf\"]"),
    ("i_string_overlong_sequence_6_bytes_null", b"[\"\xfc\x80\x80\x80\x80\x80\"]"),
    ("i_string_truncated-utf-8", b"[\"\xe0\xff\"]"),
    ("i_string_utf16BE_no_BOM", b"\0[\0\"\0\xe9\0\"\0]"),
    ("i_string_utf16LE_no_BOM", b"[\0\"\0\xe9\0\"\0]\0"),
    ("n_array_a_invalid_utf8", b"[a\xe5]"),
    ("n_array_invalid_utf8", b"[\xff]"),
    ("n_number_invalid-utf-8-in-bigger-int", b"[123\xe5]"),
    ("n_number_invalid-utf-8-in-exponent", b"[1e1\xe5]"),
    ("n_number_invalid-utf-8-in-int", b"[0\xe5]\n"),
    ("n_number_real_with_invalid_utf8_after_e", b"[1e\xe5]"),
    ("n_object_lone_continuation_byte_in_key_and_trailing_comma", b"{\"\xb9\":\"0\",}"),
    ("n_string_invalid-utf-8-in-escape", b"[\"\\u\xe5\"]"),
    ("n_string_invalid_utf8_after_escape", b"[\"\\\xe5\"]"),
    ("n_structure_incomplete_UTF8_BOM", b"\xef\xbb{}"),
    ("n_structure_lone-invalid-utf-8", b"\xe5"),
    ("n_structure_single_eacute", b"\xe9"),
    ("string_1_invalid_codepoint", b"[\"\xed\xa0\x80\"]"),
    ("string_2_invalid_codepoints", b"[\"\xed\xa0\x80\xed\xa0\x80\"]"),
    ("string_3_invalid_codepoints", b"[\"\xed\xa0\x80\xed\xa0\x80\xed\xa0\x80\"]"),
];

impl Case {
    fn stem(&self) -> &str {
        self.name.trim_end_matches(".json")
    }

    fn bytes(&self) -> Vec<u8> {
        match NOT_UTF_8.iter().find(|(name, _)| *name == self.stem()) {
            Some((_, bytes)) => bytes.to_vec(),
            None if self.input.contains('\u{fffd}') => panic!("{} is not UTF-8 either", self.name),
            None => self.input.clone().into_bytes(),
        }
    }
}

fn suite() -> Suite {
    let output = node::script("json-suite.mjs").arg("list").output().expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let suite: Suite = serde_json::from_slice(&output.stdout).expect("the suite");
    assert_eq!((suite.parsing.len(), suite.transform.len()), (318, 22), "the suite is complete");
    suite
}

/// The payloads of all jobs as Node parses them, in order.
async fn parsed_by_node(app: &App) -> Vec<String> {
    let mut node = node::script("json-suite.mjs")
        .arg("payloads")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node runs");
    let mut input = node.stdin.take().expect("a pipe");
    for job in app.redis.queue().waiting().await {
        let line = job.data_text().replace(['\n', '\r'], " ");
        writeln!(input, "{line}").expect("node reads");
    }
    drop(input);
    let output = node.wait_with_output().expect("node ends");
    assert!(output.status.success(), "node could not read the data of a job");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

const ACCEPTED: &str = "accepted";

/// The input as a member before and after the `webhookId`.
fn as_payload(input: &[u8]) -> [Vec<u8>; 2] {
    [
        [br#"{"webhookId":"wh_1","v":"#, input, b"}"].concat(),
        [br#"{"v":"#, input, br#","webhookId":"wh_1"}"#].concat(),
    ]
}

fn outcome(reply: &Reply) -> String {
    match reply.status {
        202 => ACCEPTED.to_owned(),
        _ => reply.code(),
    }
}

/// Sends an input as a body and as a member of one. Returns the codes of both, and adds the
/// expected payloads.
async fn send(app: &App, input: &[u8], due: &mut Vec<Vec<u8>>) -> [String; 2] {
    let body = outcome(&app.post(input).send().await);
    let mut member = None;
    for body in as_payload(input) {
        let outcome = outcome(&app.post(body).send().await);
        if outcome == ACCEPTED {
            due.push([br#"{"v":"#, input, b"}"].concat());
        }
        let first = member.get_or_insert_with(|| outcome.clone());
        assert_eq!(*first, outcome, "the outcome depends on the position of the member");
    }
    [body, member.expect("two bodies were sent")]
}

async fn assert_payloads(app: &App, due: &[Vec<u8>]) {
    let jobs = app.redis.queue().waiting().await;
    assert_eq!(jobs.len(), due.len());
    for (job, due) in jobs.iter().zip(due) {
        assert_eq!(job.payload_text().as_bytes(), due);
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn the_suites_verdicts_are_followed() {
    let app = App::start().await;
    let (mut good, mut bad, mut due) = (0, 0, Vec::new());
    for case in suite().parsing {
        let expected = match case.name.as_bytes()[0] {
            b'y' if case.input.trim_start().starts_with('{') => ["missing_webhook_id", ACCEPTED],
            b'y' => ["body_not_object", ACCEPTED],
            b'n' => ["invalid_json", "invalid_json"],
            _ => continue,
        };
        assert_eq!(send(&app, &case.bytes(), &mut due).await, expected, "{}", case.name);
        if expected[1] == ACCEPTED { good += 1 } else { bad += 1 }
    }
    assert_eq!((good, bad), (95, 188));
    assert_payloads(&app, &due).await;
    assert_eq!(parsed_by_node(&app).await.len(), due.len(), "Node reads all payloads");
}

/// Inputs that a parser may accept or refuse: the outcome as a body and as a member, and how Node
/// shows the payload.
///
/// An accepted payload is in Redis as it was sent; Node shows what its own parser makes of it.
const LEFT_TO_PARSER: &[(&str, [&str; 2], &str)] = &[
    ("i_number_double_huge_neg_exp", [NOT_OBJECT, ACCEPTED], r#"{"v":[0]}"#),
    ("i_number_huge_exp", [NOT_OBJECT, ACCEPTED], r#"{"v":["Infinity"]}"#),
    ("i_number_neg_int_huge_exp", [NOT_OBJECT, ACCEPTED], r#"{"v":["-Infinity"]}"#),
    ("i_number_pos_double_huge_exp", [NOT_OBJECT, ACCEPTED], r#"{"v":["Infinity"]}"#),
    ("i_number_real_neg_overflow", [NOT_OBJECT, ACCEPTED], r#"{"v":["-Infinity"]}"#),
    ("i_number_real_pos_overflow", [NOT_OBJECT, ACCEPTED], r#"{"v":["Infinity"]}"#),
    ("i_number_real_underflow", [NOT_OBJECT, ACCEPTED], r#"{"v":[0]}"#),
    ("i_number_too_big_neg_int", [NOT_OBJECT, ACCEPTED], r#"{"v":[-1.2312312312312312e+29]}"#),
    ("i_number_too_big_pos_int", [NOT_OBJECT, ACCEPTED], r#"{"v":[100000000000000000000]}"#),
    ("i_number_very_big_negative_int", [NOT_OBJECT, ACCEPTED], r#"{"v":[-2.374623746732769e+47]}"#),
    ("i_object_key_lone_2nd_surrogate", [NO_ID, ACCEPTED], r#"{"v":{"\udfaa":0}}"#),
    ("i_string_1st_surrogate_but_2nd_missing", [NOT_OBJECT, ACCEPTED], r#"{"v":["\udada"]}"#),
    ("i_string_1st_valid_surrogate_2nd_invalid", [NOT_OBJECT, ACCEPTED], r#"{"v":["\ud888ሴ"]}"#),
    ("i_string_UTF-16LE_with_BOM", [INVALID, INVALID], ""),
    ("i_string_UTF-8_invalid_sequence", [INVALID, INVALID], ""),
    ("i_string_UTF8_surrogate_U+D800", [INVALID, INVALID], ""),
    (
        "i_string_incomplete_surrogate_and_escape_valid",
        [NOT_OBJECT, ACCEPTED],
        r#"{"v":["\ud800\n"]}"#,
    ),
    ("i_string_incomplete_surrogate_pair", [NOT_OBJECT, ACCEPTED], r#"{"v":["\udd1ea"]}"#),
    (
        "i_string_incomplete_surrogates_escape_valid",
        [NOT_OBJECT, ACCEPTED],
        r#"{"v":["\ud800\ud800\n"]}"#,
    ),
    ("i_string_invalid_lonely_surrogate", [NOT_OBJECT, ACCEPTED], r#"{"v":["\ud800"]}"#),
    ("i_string_invalid_surrogate", [NOT_OBJECT, ACCEPTED], r#"{"v":["\ud800abc"]}"#),
    ("i_string_invalid_utf-8", [INVALID, INVALID], ""),
    ("i_string_inverted_surrogates_U+1D11E", [NOT_OBJECT, ACCEPTED], r#"{"v":["\udd1e\ud834"]}"#),
    ("i_string_iso_latin_1", [INVALID, INVALID], ""),
    ("i_string_lone_second_surrogate", [NOT_OBJECT, ACCEPTED], r#"{"v":["\udfaa"]}"#),
    ("i_string_lone_utf8_continuation_byte", [INVALID, INVALID], ""),
    ("i_string_not_in_unicode_range", [INVALID, INVALID], ""),
    ("i_string_overlong_sequence_2_bytes", [INVALID, INVALID], ""),
    ("i_string_overlong_sequence_6_bytes", [INVALID, INVALID], ""),
    ("i_string_overlong_sequence_6_bytes_null", [INVALID, INVALID], ""),
    ("i_string_truncated-utf-8", [INVALID, INVALID], ""),
    ("i_string_utf16BE_no_BOM", [INVALID, INVALID], ""),
    ("i_string_utf16LE_no_BOM", [INVALID, INVALID], ""),
    ("i_structure_500_nested_arrays", [INVALID, INVALID], ""),
    ("i_structure_UTF-8_BOM_empty_object", [INVALID, INVALID], ""),
    ("number_-9223372036854775808", [NOT_OBJECT, ACCEPTED], r#"{"v":[-9223372036854776000]}"#),
    ("number_-9223372036854775809", [NOT_OBJECT, ACCEPTED], r#"{"v":[-9223372036854776000]}"#),
    ("number_1.0", [NOT_OBJECT, ACCEPTED], r#"{"v":[1]}"#),
    ("number_1.000000000000000005", [NOT_OBJECT, ACCEPTED], r#"{"v":[1]}"#),
    ("number_1000000000000000", [NOT_OBJECT, ACCEPTED], r#"{"v":[1000000000000000]}"#),
    ("number_10000000000000000999", [NOT_OBJECT, ACCEPTED], r#"{"v":[10000000000000000000]}"#),
    ("number_1e-999", [NOT_OBJECT, ACCEPTED], r#"{"v":[0]}"#),
    ("number_1e6", [NOT_OBJECT, ACCEPTED], r#"{"v":[1000000]}"#),
    ("number_9223372036854775807", [NOT_OBJECT, ACCEPTED], r#"{"v":[9223372036854776000]}"#),
    ("number_9223372036854775808", [NOT_OBJECT, ACCEPTED], r#"{"v":[9223372036854776000]}"#),
    ("object_key_nfc_nfd", [NO_ID, ACCEPTED], "{\"v\":{\"é\":\"NFC\",\"e\u{301}\":\"NFD\"}}"),
    ("object_key_nfd_nfc", [NO_ID, ACCEPTED], "{\"v\":{\"e\u{301}\":\"NFD\",\"é\":\"NFC\"}}"),
    ("object_same_key_different_values", [NO_ID, ACCEPTED], r#"{"v":{"a":2}}"#),
    ("object_same_key_same_value", [NO_ID, ACCEPTED], r#"{"v":{"a":1}}"#),
    ("object_same_key_unclear_values", [NO_ID, ACCEPTED], r#"{"v":{"a":"-0"}}"#),
    ("string_1_escaped_invalid_codepoint", [NOT_OBJECT, ACCEPTED], r#"{"v":["\ud800"]}"#),
    ("string_1_invalid_codepoint", [INVALID, INVALID], ""),
    ("string_2_escaped_invalid_codepoints", [NOT_OBJECT, ACCEPTED], r#"{"v":["\ud800\ud800"]}"#),
    ("string_2_invalid_codepoints", [INVALID, INVALID], ""),
    (
        "string_3_escaped_invalid_codepoints",
        [NOT_OBJECT, ACCEPTED],
        r#"{"v":["\ud800\ud800\ud800"]}"#,
    ),
    ("string_3_invalid_codepoints", [INVALID, INVALID], ""),
    ("string_with_escaped_NULL", [NOT_OBJECT, ACCEPTED], r#"{"v":["A\u0000B"]}"#),
];

const INVALID: &str = "invalid_json";
const NO_ID: &str = "missing_webhook_id";
const NOT_OBJECT: &str = "body_not_object";

#[tokio::test]
async fn the_cases_left_to_a_parser_are_in_a_table() {
    let suite = suite();
    let cases: Vec<_> = suite.parsing.iter().filter(|case| case.name.starts_with("i_")).collect();
    let app = App::start().await;
    let (mut rows, mut due) = (Vec::new(), Vec::new());
    for case in cases.into_iter().chain(&suite.transform) {
        let outcomes = send(&app, &case.bytes(), &mut due).await;
        rows.push((case.stem().to_owned(), outcomes));
    }
    assert_payloads(&app, &due).await;
    // Each accepted case is there twice.
    let mut seen = parsed_by_node(&app).await.into_iter().step_by(2);
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(name, outcomes)| {
            let shown = if outcomes[1] == ACCEPTED {
                seen.next().expect("a payload")
            } else {
                String::new()
            };
            (name, outcomes, shown)
        })
        .collect();
    let table = LEFT_TO_PARSER.iter().map(|(name, outcomes, shown)| {
        ((*name).to_owned(), outcomes.map(str::to_owned), (*shown).to_owned())
    });
    for (row, expected) in rows.iter().zip(table) {
        assert_eq!(*row, expected);
    }
    assert_eq!(rows.len(), LEFT_TO_PARSER.len(), "{rows:#?}");
}
