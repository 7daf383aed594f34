//! The payload in Redis is the caller's bytes without the `webhookId` member.

use std::fmt::Write as _;

use testkit::documents::workflow;
use testkit::{App, Documents};

/// Makes the second parser read the body: the fast parser refuses these numbers, although JSON
/// allows them.
const BEYOND_FAST: &str = r#","far":[1e400,123456789012345678901234567890]"#;

/// Sends each body, in this order, and compares the jobs in Redis with the expected payloads.
async fn assert_payloads(cases: &[(String, String)]) {
    let app = App::start().await;
    for (body, _) in cases {
        let reply = app.post(body.as_str()).send().await;
        assert_eq!(reply.status, 202, "{body}: {}", reply.text());
    }
    let jobs = app.redis.queue().waiting().await;
    assert_eq!(jobs.len(), cases.len(), "each body starts one workflow");
    for (job, (body, payload)) in jobs.iter().zip(cases) {
        assert_eq!(job.payload_text(), payload, "of {body}");
        let within =
            format!(r#""nodeIds":["n1"],"webhookId":"wh_1","payload":{payload}}},"requestId":""#);
        assert!(job.data_text().contains(&within), "{} of {body}", job.data_text());
    }
    app.assert_accounting().await;
}

fn owned(cases: &[(&str, &str)]) -> Vec<(String, String)> {
    cases.iter().map(|&(body, payload)| (body.to_owned(), payload.to_owned())).collect()
}

/// The cases as they are, and again with [`BEYOND_FAST`] at the end of a body and of its payload.
fn both_ways(cases: &[(&str, &str)]) -> Vec<(String, String)> {
    let far = |text: &str| {
        let (inside, end) = text.rsplit_once('}').expect("an object");
        format!("{inside}{BEYOND_FAST}}}{end}")
    };
    let mut all = owned(cases);
    all.extend(cases.iter().map(|&(body, payload)| (far(body), far(payload))));
    all
}

#[tokio::test]
async fn the_member_is_removed_at_any_position() {
    assert_payloads(&both_ways(&[
        (r#"{"webhookId":"wh_1","a":1,"b":2}"#, r#"{"a":1,"b":2}"#),
        (r#"{"a":1,"webhookId":"wh_1","b":2}"#, r#"{"a":1,"b":2}"#),
        ("{ \"webhookId\" : \"wh_1\" ,\n \"a\" : 1 }", "{ \"a\" : 1 }"),
        ("{\"a\":1 ,\t\"webhookId\"\r\n:\"wh_1\" ,  \"b\":2}", "{\"a\":1 ,\t\"b\":2}"),
        (r#"{"webhookId":"wh\u005f1","a":1}"#, r#"{"a":1}"#),
        (r#"{"webhook\u0049d":"wh_1","a":1}"#, r#"{"a":1}"#),
        (r#"{"\u0077\u0065bhookId":"wh_1","a":1}"#, r#"{"a":1}"#),
        (r#"{"a":1,"webhook\u0049d":"wh_1","b":2}"#, r#"{"a":1,"b":2}"#),
        (
            r#"{"a":"\"webhookId\":\"x\",{","webhookId":"wh_1","b":"}"}"#,
            r#"{"a":"\"webhookId\":\"x\",{","b":"}"}"#,
        ),
        (r#"{"a\\":"\\","webhookId":"wh_1","b":"\\\""}"#, r#"{"a\\":"\\","b":"\\\""}"#),
    ]))
    .await;
}

#[tokio::test]
async fn the_last_member_is_removed_with_the_comma_before_it() {
    let far = BEYOND_FAST.trim_start_matches(',');
    let mut cases = owned(&[
        (r#"{"a":1,"webhookId":"wh_1"}"#, r#"{"a":1}"#),
        ("{\"a\":1 , \"webhookId\" : \"wh_1\"\n}", "{\"a\":1 \n}"),
        (r#"{"a":[1,{"b":","}],"webhook\u0049d":"wh\u005f1"}"#, r#"{"a":[1,{"b":","}]}"#),
        (r#"{"webhookId":"wh_1"}"#, "{}"),
        (r#"{"webhook\u0049d":"wh_1"}"#, "{}"),
    ]);
    cases.push((format!(r#"{{{far},"webhookId":"wh_1"}}"#), format!("{{{far}}}")));
    cases.push((format!("{{{far} ,\n\"webhookId\" :\"wh_1\" }}"), format!("{{{far}  }}")));
    assert_payloads(&cases).await;
}

#[tokio::test]
async fn white_space_is_kept_inside_the_object_only() {
    assert_payloads(&both_ways(&[
        ("\r\n\t {\"webhookId\":\"wh_1\",\"a\":1} \n\t\r ", "{\"a\":1}"),
        ("{\n  \"webhookId\": \"wh_1\",\n  \"a\": [ 1 ,\t2 ]\n}\n", "{\n  \"a\": [ 1 ,\t2 ]\n}"),
        (
            "{\"webhookId\":\"wh_1\",\"a\" \n:\t{ } , \"b\":[\r\n]\t}",
            "{\"a\" \n:\t{ } , \"b\":[\r\n]\t}",
        ),
    ]))
    .await;
}

#[tokio::test]
async fn values_are_verbatim() {
    let values = [
        "0",
        "-0",
        "-0.0",
        "1.0",
        "1.10",
        "1E+2",
        "1e-07",
        "1e400",
        "-1E-400",
        "12345678901234567890",
        "18446744073709551616",
        "-123456789012345678901234567890",
        "0.1000000000000000055511151231257827021181583404541015625",
        "true",
        "null",
        r#""""#,
        r#""\u0041\/\b\f\n\r\t\"\\""#,
        r#""\u00e9\uD83D\uDE00\u0000""#,
        r#""lone \ud800""#,
        "\"gr\u{fc}n \u{1f600} \u{2028}\u{7f}\"",
        r#"{"x":1,"x":2,"x":{"x":3,"x":3}}"#,
        r#"{"":"","__proto__":{"constructor":1}," ":2}"#,
        r#"{"webhookId":"wh_2","b":[{"webhookId":1},{"webhook\u0049d":null}]}"#,
        r#"[[],{},[[]],[{}],"]","}",","]"#,
    ];
    let mut cases = Vec::new();
    for value in values {
        cases.push((
            format!(r#"{{"webhookId":"wh_1","a":{value}}}"#),
            format!(r#"{{"a":{value}}}"#),
        ));
        cases.push((
            format!(r#"{{"a":{value},"webhookId":"wh_1"}}"#),
            format!(r#"{{"a":{value}}}"#),
        ));
    }
    cases.extend(both_ways(&[
        (r#"{"a":1,"webhookId":"wh_1","a":2,"\u0061":3}"#, r#"{"a":1,"a":2,"\u0061":3}"#),
        (
            r#"{"":0,"webhookId":"wh_1"," webhookId":1,"webhookid":2}"#,
            r#"{"":0," webhookId":1,"webhookid":2}"#,
        ),
    ]));
    assert_payloads(&cases).await;
}

#[tokio::test]
async fn large_bodies_are_verbatim() {
    let text = "0123456789\u{fc}\\u00fc\\\"".repeat(50_000);
    let members = |range: std::ops::Range<u32>| {
        range.fold(String::new(), |mut text, serial| {
            write!(text, r#","k{serial}":{serial}.0"#).expect("into a string");
            text
        })
    };
    let (before, after) = (members(0..10_000), members(10_000..20_000));
    let before = before.trim_start_matches(',');
    let numbers = vec!["1.0e0"; 100_000].join(",");
    assert_payloads(&[
        (format!(r#"{{"webhookId":"wh_1","a":"{text}"}}"#), format!(r#"{{"a":"{text}"}}"#)),
        (format!(r#"{{{before},"webhookId":"wh_1"{after}}}"#), format!("{{{before}{after}}}")),
        (format!(r#"{{"a":[{numbers}],"webhookId":"wh_1"}}"#), format!(r#"{{"a":[{numbers}]}}"#)),
        (
            format!(r#"{{"webhookId":"wh_1","a":[{numbers}]{BEYOND_FAST}}}"#),
            format!(r#"{{"a":[{numbers}]{BEYOND_FAST}}}"#),
        ),
    ])
    .await;
}

/// Arrays and objects nested `levels` deep around a zero, not counting the outermost object of the
/// body.
fn nested(levels: usize, opening: &str, closing: &str) -> String {
    format!("{}0{}", opening.repeat(levels), closing.repeat(levels))
}

#[tokio::test]
async fn nesting_is_accepted_down_to_level_128() {
    let deepest = [
        nested(127, "[", "]"),
        nested(127, r#"{"a":"#, "}"),
        format!("[{}]", nested(63, r#"[{"a":"#, "}]")),
    ];
    let mut cases = Vec::new();
    for value in deepest {
        for far in ["", BEYOND_FAST] {
            let body = format!(r#"{{"webhookId":"wh_1","a":{value}{far}}}"#);
            cases.push((body, format!(r#"{{"a":{value}{far}}}"#)));
        }
    }
    // Brackets in strings and next to each other are not nesting.
    let flat = format!(r#""{}",[{}]"#, "[{".repeat(500), vec!["[[]]"; 500].join(","));
    cases.push((format!(r#"{{"a":[{flat}],"webhookId":"wh_1"}}"#), format!(r#"{{"a":[{flat}]}}"#)));
    assert_payloads(&cases).await;
}

#[tokio::test]
async fn nesting_below_level_128_is_refused() {
    let app = App::start().await;
    for levels in [128, 129, 1_000, 1_100, 20_000, 400_000] {
        for far in ["", BEYOND_FAST] {
            for value in [
                nested(levels, "[", "]"),
                nested(levels.min(150_000), r#"{"a":"#, "}"),
                "[".repeat(levels),
            ] {
                for body in [
                    format!(r#"{{"webhookId":"wh_1","a":{value}{far}}}"#),
                    format!(r#"{{"far":1{far},"a":{value},"webhookId":"wh_1"}}"#),
                ] {
                    let reply = app.post(body).send().await;
                    reply.assert_rejected(400, "invalid_json");
                }
            }
        }
    }
    app.redis.queue().assert_empty().await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn two_webhook_ids_are_refused_in_any_spelling_and_position() {
    let app = App::start().await;
    let many = (0..40).fold(String::new(), |mut text, serial| {
        write!(text, r#""k{serial}":{serial},"#).expect("into a string");
        text
    });
    for second in [r#""webhookId":"wh_1""#, r#""webhook\u0049d":"wh_1""#, r#""webhookId":null"#] {
        for far in ["", BEYOND_FAST] {
            for body in [
                format!(r#"{{"webhookId":"wh_1",{second}{far}}}"#),
                format!(r#"{{{second},"a":{{}},"webhookId":"wh_1"{far}}}"#),
                format!(r#"{{"webhookId":"wh_1",{many}{second}{far}}}"#),
                format!(r#"{{{many}"webhookId":"wh_1",{second}{far}}}"#),
            ] {
                app.post(body).send().await.assert_rejected(400, "missing_webhook_id");
            }
        }
    }
    app.redis.queue().assert_empty().await;
}

#[tokio::test]
async fn a_body_in_small_pieces_has_the_same_payload() {
    let app = App::start().await;
    let body = "{\"a\":\"gr\u{fc}n \u{1f600}\",\"webhookId\":\"wh_1\",\"b\":1e400}";
    let mut request =
        b"POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n\
        Transfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    for byte in body.bytes() {
        request.extend([b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    request.extend(b"0\r\n\r\n");
    assert_eq!(app.raw(request).await.matched(), 1);
    let job = app.redis.queue().only_job().await;
    assert_eq!(job.payload_text(), "{\"a\":\"gr\u{fc}n \u{1f600}\",\"b\":1e400}");
}

#[tokio::test]
async fn every_job_of_a_request_has_the_same_payload() {
    let mut documents = Documents::two_organizations();
    documents
        .workflows
        .extend((0..50).map(|serial| workflow(&format!("wf_{serial}"), "org_a", "wh_50")));
    let app = App::build().documents(documents).start().await;
    let reply = app.post(r#"{"a": 1.0, "webhookId":"wh_50", "b":-0 }"#).send().await;
    assert_eq!(reply.matched(), 50);
    for job in app.redis.queue().waiting().await {
        assert_eq!(job.payload_text(), r#"{"a": 1.0, "b":-0 }"#);
    }
}

#[tokio::test]
async fn random_bodies_lose_only_the_member() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let cases: Vec<_> = (0..400).map(|_| random.body()).collect();
    assert_payloads(&cases).await;
}

/// A xorshift generator, so that a failure is reproducible.
struct Random(u64);

impl Random {
    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices.get(self.below(choices.len())).copied().expect("below the bound")
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below the bound")
    }

    fn space(&mut self) -> &'static str {
        self.pick(&["", "", "", " ", "\n", "\t ", "\r\n  "])
    }

    /// A body of two to seven members and its payload by the contract's rule.
    fn body(&mut self) -> (String, String) {
        let count = 2 + self.below(6);
        let webhook = self.below(count);
        let (mut body, mut payload) = (format!("{}{{", self.space()), "{".to_owned());
        for at in 0..count {
            let (before_key, after_value) = (self.space(), self.space());
            let (key, value) = if at == webhook {
                (self.pick(WEBHOOK_KEYS), self.pick(WEBHOOK_VALUES))
            } else {
                (self.pick(KEYS), self.pick(VALUES))
            };
            let member = format!("{key}{}:{}{value}", self.space(), self.space());
            let comma = if at + 1 == count { "" } else { "," };
            write!(body, "{before_key}{member}{after_value}{comma}").expect("into a string");

            let last = webhook + 1 == count;
            let kept_comma = if last && at + 1 == webhook { "" } else { comma };
            // White space before the member stays; white space before the next key is removed with
            // the member.
            if at != webhook {
                let before_key = if at == webhook + 1 { "" } else { before_key };
                write!(payload, "{before_key}{member}{after_value}{kept_comma}")
                    .expect("into a string");
            } else if last {
                payload.push_str(after_value);
            } else {
                payload.push_str(before_key);
            }
        }
        (format!("{body}}}{}", self.space()), format!("{payload}}}"))
    }
}

const WEBHOOK_KEYS: &[&str] =
    &[r#""webhookId""#, r#""webhookId""#, r#""webhook\u0049d""#, r#""\u0077ebhookId""#];
const WEBHOOK_VALUES: &[&str] = &[r#""wh_1""#, r#""wh_1""#, r#""wh\u005f1""#];
const KEYS: &[&str] = &[
    r#""a""#,
    r#""\u0061""#,
    r#""""#,
    r#""webhookid""#,
    r#""\"webhookId\"""#,
    r#""\\""#,
    "\"\u{fc}\"",
];
const VALUES: &[&str] = &[
    "0",
    "-0.0",
    "1e400",
    "123456789012345678901",
    "null",
    r#""\"""#,
    r#""\\""#,
    r#"",\"webhookId\":\"wh_2\"""#,
    "\"\u{1f600}}\"",
    r#"{"webhookId":"wh_2"}"#,
    r#"[ {"a" : [ ] } ,","]"#,
];
