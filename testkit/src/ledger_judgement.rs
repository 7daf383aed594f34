//! Unit tests of [`Verdict`], on made-up answers and jobs.

use serde_json::json;

use super::Reply;
use super::ledger::{Answer, Entry, Standing, Verdict};

#[test]
fn answers_are_classified_by_what_they_promise() {
    let nothing = |code: &str| Answer::Nothing { code: code.to_owned() };
    let unknown = |code: &str| Answer::Unknown { code: code.to_owned() };
    let refusal = |code, enqueued| json!({ "code": code, "details": { "enqueued": enqueued } });
    let cases = [
        (202, json!({ "data": { "matchedCount": 3 } }), Answer::Accepted { matched: 3 }),
        (401, json!({ "code": "invalid_token" }), nothing("invalid_token")),
        (503, refusal("overloaded", "none"), nothing("overloaded")),
        (503, refusal("queue_unavailable", "unknown"), unknown("queue_unavailable")),
        (500, refusal("internal", "unknown"), unknown("internal")),
    ];
    for (status, body, expected) in cases {
        assert_eq!(Answer::from_reply(&reply(status, body.to_string())), expected);
    }
    for (status, body) in [
        (202, json!({ "data": {} })),
        (503, json!({ "code": "queue_unavailable" })),
        (503, refusal("queue_unavailable", "some")),
        (200, json!({})),
        (502, refusal("queue_unavailable", "none")),
    ] {
        let answer = Answer::from_reply(&reply(status, body.to_string()));
        assert!(matches!(answer, Answer::Malformed { .. }), "{status} {body}");
    }
    assert!(matches!(Answer::from_reply(&reply(503, String::new())), Answer::Malformed { .. }));
}

#[test]
fn consistent_answers_and_jobs_have_no_faults() {
    let entries = [
        entry("all", Answer::Accepted { matched: 2 }),
        entry("refused", Answer::Nothing { code: "queue_unavailable".to_owned() }),
        entry("arrived", Answer::Unknown { code: "queue_unavailable".to_owned() }),
        entry("did-not", Answer::Unknown { code: "queue_unavailable".to_owned() }),
        entry("never-left", Answer::NotSent),
        entry("broke", Answer::Unanswered),
    ];
    let jobs =
        [job(1, "all", "a"), job(2, "all", "b"), job(3, "arrived", "a"), job(4, "arrived", "b")];
    let verdict = Verdict::new(&entries, &jobs);
    verdict.assert_sound();
    assert_eq!((verdict.accepted, verdict.nothing, verdict.unknown), (1, 1, 2));
    assert_eq!((verdict.not_sent, verdict.unanswered), (1, 1));
    assert_eq!((verdict.promised_jobs, verdict.standing_jobs), (2, 4));
    assert_eq!(verdict.codes.into_iter().collect::<Vec<_>>(), ["queue_unavailable"]);
}

#[test]
fn each_inconsistency_is_a_fault() {
    let accepted = || Answer::Accepted { matched: 2 };
    let unknown = || Answer::Unknown { code: "queue_unavailable".to_owned() };
    let nothing = || Answer::Nothing { code: "queue_unavailable".to_owned() };
    let (a, b) = (|| job(1, "r", "a"), || job(2, "r", "b"));
    let cases = [
        ("a job is lost", accepted(), vec![a()]),
        ("all jobs are lost", accepted(), vec![]),
        ("a job is duplicated", accepted(), vec![a(), b(), job(3, "r", "b")]),
        ("one job replaces another", accepted(), vec![a(), job(2, "r", "a")]),
        ("the count is wrong", Answer::Accepted { matched: 1 }, vec![a(), b()]),
        ("a refused request has a job", nothing(), vec![a(), b()]),
        ("a request that was not sent has jobs", Answer::NotSent, vec![a(), b()]),
        ("a part arrived", unknown(), vec![a()]),
        (
            "an unanswered request is duplicated",
            unknown(),
            vec![a(), b(), job(3, "r", "a"), job(4, "r", "b")],
        ),
        ("an unanswered request is incomplete", Answer::Unanswered, vec![b()]),
        ("the answer is malformed", Answer::Malformed { text: "502".to_owned() }, vec![a(), b()]),
        ("there is no answer", Answer::Hung, vec![a(), b()]),
        ("the request was never sent", accepted(), vec![a(), b(), job(3, "other", "a")]),
        ("no list names the hash", accepted(), vec![a(), Standing { named: 0, ..b() }]),
        ("two lists name the job", accepted(), vec![a(), Standing { named: 2, ..b() }]),
        (
            "the job has no hash",
            accepted(),
            vec![a(), b(), Standing { origin: None, ..job(3, "r", "c") }],
        ),
    ];
    for (what, answer, jobs) in cases {
        let verdict = Verdict::new(&[entry("r", answer)], &jobs);
        assert_eq!(verdict.faults.len(), faults(what), "{what}: {verdict}");
    }
}

/// One fault for each case, except that a duplicated job is also a job over the promised number.
fn faults(what: &str) -> usize {
    if matches!(what, "a job is duplicated" | "an unanswered request is duplicated") {
        2
    } else {
        1
    }
}

fn entry(request: &str, answer: Answer) -> Entry {
    Entry { request: request.to_owned(), fanout: 2, answer }
}

fn job(id: u32, request: &str, workflow: &str) -> Standing {
    let origin = Some((request.to_owned(), workflow.to_owned()));
    Standing { id: id.to_string(), named: 1, origin }
}

fn reply(status: u16, body: String) -> Reply {
    let (version, headers) = (reqwest::Version::HTTP_11, reqwest::header::HeaderMap::new());
    Reply { status, version, headers, body: body.into_bytes() }
}
