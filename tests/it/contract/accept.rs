//! Accepted requests: what is accepted, the answer, and the job.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testkit::documents::{trigger, user, workflow, workflow_of};
use testkit::raw::Connection;
use testkit::tokens::{claims, token};
use testkit::{App, Documents};

#[tokio::test]
async fn an_api_key_starts_the_workflow_of_its_user() {
    let app = App::start().await;
    let reply = app.post(r#"{"webhookId":"wh_1","source":"zillow"}"#).bearer("key_a").send().await;

    assert_eq!(reply.status, 202);
    assert_eq!(
        reply.text(),
        r#"{"success":true,"message":"Webhook accepted","data":{"webhookId":"wh_1","matchedCount":1}}"#
    );
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let job = app.redis.queue().only_job().await;
    assert_eq!(job.at("/workflowId"), "wf_1");
    assert_eq!(job.at("/organizationId"), "org_a");
    assert_eq!(job.at("/userId"), "user_1");
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_jwt_starts_the_workflow_of_its_organization() {
    let app = App::start().await;
    let reply = app.webhook("wh_1").bearer(&token(&claims("org_a", "somebody"))).send().await;

    assert_eq!(reply.matched(), 1);
    let job = app.redis.queue().only_job().await;
    assert_eq!(job.at("/workflowId"), "wf_1");
    assert_eq!(job.at("/userId"), "somebody");
    app.assert_accounting().await;
}

#[tokio::test]
async fn every_matching_workflow_gets_one_job() {
    let mut documents = Documents::two_organizations();
    for count in [1, 2, 50, 300] {
        let ids = (0..count).map(|serial| format!("wf_{count}_{serial}"));
        documents.workflows.extend(ids.map(|id| workflow(&id, "org_a", &format!("wh_of_{count}"))));
    }
    let app = App::build().documents(documents).start().await;

    let mut waiting = 0;
    for count in [0_u64, 1, 2, 50, 300] {
        let reply = app.webhook(&format!("wh_of_{count}")).send().await;
        assert_eq!(reply.matched(), count);

        let jobs = app.redis.queue().waiting().await;
        let new: BTreeSet<String> =
            jobs[waiting..].iter().map(|job| job.at("/workflowId")).collect();
        let expected: BTreeSet<String> =
            (0..count).map(|serial| format!("wf_{count}_{serial}")).collect();
        assert_eq!(new, expected);
        waiting = jobs.len();
    }
    assert_eq!(waiting, 353);
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_workflow_with_several_matching_nodes_gets_one_job_with_all_of_them() {
    let nodes = json!([
        trigger("n1", "wh_1"),
        { "id": "n2", "type": "SendMessage", "data": { "webhookId": "wh_1" } },
        trigger("n3", "wh_other"),
        trigger("n4", "wh_1"),
        { "id": "n5", "type": "webhooktrigger", "data": { "webhookId": "wh_1" } },
    ]);
    let documents = Documents {
        workflows: vec![workflow_of("wf_1", "org_a", nodes)],
        users: vec![user("user_1", "org_a", "key_a")],
    };
    let app = App::build().documents(documents).start().await;

    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let job = app.redis.queue().only_job().await;
    assert_eq!(job.data()["trigger"]["nodeIds"], json!(["n1", "n4"]));

    assert_eq!(app.webhook("wh_other").send().await.matched(), 1);
    assert_eq!(app.redis.queue().waiting().await[1].data()["trigger"]["nodeIds"], json!(["n3"]));
}

#[tokio::test]
async fn a_webhook_id_of_two_organizations_starts_only_the_callers() {
    let app = App::start().await;
    let credentials = [
        ("key_a".to_owned(), "wf_1", "org_a"),
        ("key_b".to_owned(), "wf_b", "org_b"),
        (token(&claims("org_a", "user_1")), "wf_1", "org_a"),
        (token(&claims("org_b", "user_1")), "wf_b", "org_b"),
    ];
    for (credential, _, _) in &credentials {
        assert_eq!(app.webhook("wh_1").bearer(credential).send().await.matched(), 1);
    }
    assert_eq!(
        app.webhook("wh_1").bearer(&token(&claims("org_c", "user_1"))).send().await.matched(),
        0
    );

    let jobs = app.redis.queue().waiting().await;
    let reached: Vec<_> =
        jobs.iter().map(|job| (job.at("/workflowId"), job.at("/organizationId"))).collect();
    let expected: Vec<_> =
        credentials.iter().map(|&(_, wf, org)| (wf.to_owned(), org.to_owned())).collect();
    assert_eq!(reached, expected);
}

#[tokio::test]
async fn an_organization_cannot_be_chosen_in_the_body() {
    let app = App::start().await;
    let body =
        r#"{"webhookId":"wh_1","organizationId":"org_b","userId":"user_b","workflowId":"wf_b"}"#;
    assert_eq!(app.post(body).send().await.matched(), 1);
    let job = app.redis.queue().only_job().await;
    assert_eq!(
        (job.at("/organizationId").as_str(), job.at("/workflowId").as_str()),
        ("org_a", "wf_1")
    );
}

#[tokio::test]
async fn members_of_the_data_have_a_fixed_order() {
    let app = App::start().await;
    let before = now_ms();
    let reply = app
        .post(r#"{"b":1,"webhookId":"wh_1","a":[2]}"#)
        .header("x-request-id", "req-1")
        .send()
        .await;
    assert_eq!(reply.matched(), 1);

    let job = app.redis.queue().only_job().await;
    let received_at = job.data()["receivedAt"].as_u64().expect("milliseconds");
    assert!((before..=now_ms()).contains(&received_at), "{received_at}");
    let expected = concat!(
        r#"{"workflowId":"wf_1","organizationId":"org_a","userId":"user_1","#,
        r#""trigger":{"type":"WebhookTrigger","nodeIds":["n1"],"webhookId":"wh_1","payload":{"b":1,"a":[2]}},"#,
        r#""requestId":"req-1","receivedAt":"#
    );
    assert_eq!(job.data_text(), format!("{expected}{received_at}}}"));
}

#[tokio::test]
async fn content_types_that_mean_json_are_accepted() {
    let app = App::start().await;
    let accepted = [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
        "Application/JSON",
        "application/vnd.api+json",
        "application/cloudevents+json; charset=utf-8",
        "application/problem+JSON",
    ];
    for content_type in accepted {
        let reply = app.webhook("wh_1").header("content-type", content_type).send().await;
        assert_eq!(reply.status, 202, "{content_type}: {}", reply.text());
    }
    assert_eq!(app.webhook("wh_1").without("content-type").send().await.status, 202);
    assert_eq!(app.redis.queue().waiting_ids().await.len(), accepted.len() + 1);
}

#[tokio::test]
async fn a_request_id_is_adopted_or_generated() {
    let app = App::start().await;
    let longest = "r".repeat(128);
    for id in ["a", "3f2a-77 x~!", longest.as_str()] {
        let reply = app.webhook("wh_1").header("x-request-id", id).send().await;
        assert_eq!(reply.header("x-request-id"), Some(id));
        assert_eq!(app.redis.queue().waiting().await.last().expect("a job").at("/requestId"), id);
    }

    let too_long = "r".repeat(129);
    let mut made = BTreeSet::new();
    for id in [None, Some(""), Some("caf\u{e9}"), Some("a\tb"), Some(too_long.as_str())] {
        let call = app.webhook("wh_1");
        let call = if let Some(id) = id { call.header("x-request-id", id) } else { call };
        let reply = call.send().await;
        let answered = reply.header("x-request-id").expect("a generated id").to_owned();
        assert_ne!(Some(answered.as_str()), id);
        assert!(!answered.is_empty() && answered.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(
            app.redis.queue().waiting().await.last().expect("a job").at("/requestId"),
            answered
        );
        made.insert(answered);
    }
    assert_eq!(made.len(), 5, "each id is different: {made:?}");
}

#[tokio::test]
async fn a_valid_trace_context_is_in_the_job_as_a_map() {
    let app = App::start().await;
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(app.webhook("wh_1").header("traceparent", good).send().await.matched(), 1);
    let opts = app.redis.queue().only_job().await.opts();
    let map: Value =
        serde_json::from_str(opts["tm"].as_str().expect("a string")).expect("JSON in a string");
    assert_eq!(map["traceparent"], good);
    assert_eq!(opts["attempts"], 3, "next to the configured options");

    let broken = [
        "nonsense",
        "",
        "{}",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-\"1",
    ];
    for header in broken {
        assert_eq!(app.webhook("wh_1").header("traceparent", header).send().await.matched(), 1);
        let job = app.redis.queue().waiting().await.pop().expect("a job");
        assert_eq!(job.opts().get("tm"), None, "{header}");
    }
}

#[tokio::test]
async fn a_trace_context_is_parsed_strictly() {
    const IDS: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
    let app = App::start().await;
    let member = |key: usize| format!("k{key:02}={}", "v".repeat(36));
    let members: Vec<String> = (0..13).map(member).collect();
    let fitting = members[..12].join(",");
    let (first, second) = (members[..6].join(","), members[6..].join(" , "));
    let good = format!("traceparent: 00-{IDS}-01");
    let of_00 = Some(format!("00-{IDS}-01"));
    let rows: [(Vec<String>, Option<String>, Option<&str>); 7] = [
        (
            vec![good.clone(), "tracestate: a=1".into(), "tracestate: b=2,c=3".into()],
            of_00.clone(),
            Some("a=1,b=2,c=3"),
        ),
        (
            vec![good.clone(), format!("tracestate: {first}"), format!("TraceState:\t{second}")],
            of_00.clone(),
            Some(&fitting),
        ),
        (vec![good.clone(), "tracestate: ,, nothing at all,".into()], of_00.clone(), None),
        (
            vec![
                format!("traceparent: cc-{IDS}-01-what-the-future-brings"),
                "tracestate: a=1".into(),
            ],
            of_00,
            Some("a=1"),
        ),
        (vec![format!("traceparent: 01-{IDS}-02")], Some(format!("00-{IDS}-00")), None),
        (vec![format!("traceparent: cc-{IDS}-01more")], None, None),
        (vec![good.clone(), good], None, None),
    ];
    let mut connection = Connection::open(app.hookgate.address()).await;
    for (lines, parent, state) in rows {
        let (head, body) = app.webhook("wh_1").to_http1();
        let head = String::from_utf8(head).expect("a string");
        let head = head.replacen("\r\n\r\n", &format!("\r\n{}\r\n\r\n", lines.join("\r\n")), 1);
        connection.send([head.as_bytes(), &body].concat()).await;
        assert_eq!(connection.reply().await.expect("an answer").matched(), 1, "{lines:?}");
        let job = app.redis.queue().waiting().await.pop().expect("a job");
        let options = job.opts();
        let context = options.get("tm").map(|map| {
            serde_json::from_str::<Value>(map.as_str().expect("a string"))
                .expect("JSON in a string")
        });
        let context = context.unwrap_or_default();
        assert_eq!(context["traceparent"].as_str(), parent.as_deref(), "{lines:?}");
        assert_eq!(context["tracestate"].as_str(), state, "{lines:?}");
    }
}

#[tokio::test]
async fn a_webhook_id_is_matched_decoded_and_answered_escaped() {
    let longest = "w".repeat(256);
    let ids = [
        r#"quote " and \ backslash"#,
        "tab\tand\u{1}",
        "gr\u{fc}n \u{1f600}",
        "a/b",
        " spaced ",
        &longest,
    ];
    let mut documents = Documents::two_organizations();
    let workflows = ids.iter().enumerate();
    documents
        .workflows
        .extend(workflows.map(|(serial, id)| workflow(&format!("wf_of_{serial}"), "org_a", id)));
    let app = App::build().documents(documents).start().await;

    for (serial, id) in ids.into_iter().enumerate() {
        let reply = app.webhook(id).send().await;
        assert_eq!(reply.matched(), 1, "{id}");
        assert_eq!(reply.json()["data"]["webhookId"], id);
        let job = app.redis.queue().waiting().await.pop().expect("a job");
        assert_eq!(job.at("/trigger/webhookId"), id);
        assert_eq!(job.at("/workflowId"), format!("wf_of_{serial}"));
    }
    let escaped = r#"{"webhookId":"gr\u00fcn \ud83d\ude00"}"#;
    assert_eq!(app.post(escaped).send().await.matched(), 1, "compared decoded");
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let app = App::start().await;
    let head = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n";
    let whole = format!("{head}Content-Length: 20\r\n\r\n{{\"webhookId\":\"wh_1\"}}");
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n7\r\n{{\"webho\r\nd\r\nokId\":\"wh_1\"}}\r\n0\r\n\r\n"
    );

    let mut connection = Connection::open(app.hookgate.address()).await;
    for request in [&whole, &chunked, &whole] {
        connection.send(request).await;
        assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
    }
    // The requests are pipelined.
    connection.send(whole.repeat(5)).await;
    for _ in 0..5 {
        assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
    }
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 8);
}

#[tokio::test]
async fn concurrent_requests_all_get_their_jobs() {
    let mut documents = Documents::two_organizations();
    documents
        .workflows
        .extend((0..3).map(|serial| workflow(&format!("wf_3_{serial}"), "org_a", "wh_3")));
    let app = App::build().documents(documents).start().await;

    let tasks: Vec<_> = (0..40)
        .map(|task| {
            let caller = app.caller.clone();
            tokio::spawn(async move {
                let mut matched = 0;
                for serial in 0..10 {
                    let webhook = ["wh_1", "wh_3", "wh_none"][serial % 3];
                    let body = json!({ "webhookId": webhook, "task": task, "serial": serial });
                    matched += caller.post(body.to_string()).send().await.matched();
                }
                matched
            })
        })
        .collect();
    let mut matched = 0;
    for task in tasks {
        matched += task.await.expect("the task does not panic");
    }
    assert_eq!(matched, 40 * (4 + 3 * 3));

    let jobs = app.redis.queue().waiting().await;
    let distinct: BTreeSet<_> =
        jobs.iter().map(|job| (job.at("/workflowId"), job.payload_text().to_owned())).collect();
    assert_eq!((jobs.len(), distinct.len()), (40 * 13, 40 * 13));
    app.assert_accounting().await;
}

fn now_ms() -> u64 {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("milliseconds fit 64 bits")
}
