//! Vectors that providers publish.

use super::{Request, at, verification};
use crate::endpoints::verification::RefusalKind;
use serde_json::{Value, json};

fn accepts(description: &Value, request: &Request, second: u64) {
    let verification = verification(description);
    let result = verification.verify(&request.delivery(), at(second));
    assert!(result.is_ok(), "{description}: {result:?}");
    let mut changed = request.clone();
    changed.body.push(b'x');
    let changed = verification.verify(&changed.delivery(), at(second)).map_err(|error| error.kind);
    assert_eq!(changed, Err(RefusalKind::WrongSignature), "{description}");
}

fn to(url: &str, body: &str) -> Request {
    Request { url: url.to_owned(), ..Request::post(body) }
}

/// The vector of Standard Webhooks, and that of the tests of its library for Rust.
#[test]
fn standard_webhooks() {
    for (secret, id, second, body, signature) in [
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            "{\"test\": 2432232314}",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            "{\"email\":\"test@example.com\",\"username\":\"test_user\"}",
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
    ] {
        let request = Request::post(body)
            .header("webhook-id", id)
            .header("webhook-timestamp", second.to_string())
            .header("webhook-signature", signature);
        accepts(&json!({ "scheme": "standard-webhooks", "secret": secret }), &request, second);
    }
}

#[test]
fn github() {
    let request = Request::post("Hello, World!").header(
        "X-Hub-Signature-256",
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    );
    let description = json!({ "scheme": "github", "secret": "It's a Secret to Everybody" });
    accepts(&description, &request, 0);
}

#[test]
fn slack() {
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow\
        &channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner\
        &command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands\
        %2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121\
        .803a0bc887a14d10d2c447fce8b6703c";
    let request = Request::post(body)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("X-Slack-Request-Timestamp", "1531420618")
        .header(
            "X-Slack-Signature",
            "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        );
    let description = json!({ "scheme": "slack", "secret": "8f742231b10e8888abcd99yyyzzz85a5" });
    accepts(&description, &request, 1_531_420_618);
}

/// The vectors of the tests of Twilio's library for Python: a form, one with a field that is there
/// twice, and JSON.
#[test]
fn twilio() {
    let description = json!({ "scheme": "twilio", "secret": "12345" });
    let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
    let form = "application/x-www-form-urlencoded";
    for (body, signature) in [
        (
            "CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212\
             &Caller=%2B14158675309",
            "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        ),
        ("Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234", "IK+Dwps556ElfBT0I3Rgjkr1wJU="),
    ] {
        let request = to(url, body).header("Content-Type", form);
        accepts(&description, &request.header("X-Twilio-Signature", signature), 0);
    }
    let digest = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
    let request =
        to(&format!("{url}&bodySHA256={digest}"), "{\"property\": \"value\", \"boolean\": true}")
            .header("X-Twilio-Signature", "a9nBmqA0ju/hNViExpshrM61xv4=");
    assert!(request.verify(&verification(&description)).is_ok());
}

/// The vectors of the tests of Twilio's library for Python, for addresses that are signed with
/// another port than they have.
#[test]
fn twilio_with_and_without_a_port() {
    let description = json!({ "scheme": "twilio", "secret": "12345" });
    let body = "CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212\
        &Caller=%2B14158675309";
    for (origin, signature) in [
        ("https://mycompany.com:1234", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("http://mycompany.com:1234", "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        ("https://mycompany.com", "kvajT1Ptam85bY51eRf/AJRuM3w="),
        ("http://mycompany.com", "0ZXoZLH/DfblKGATFgpif+LLRf4="),
    ] {
        let request = to(&format!("{origin}/myapp.php?foo=1&bar=2"), body)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("X-Twilio-Signature", signature);
        accepts(&description, &request, 0);
    }
}

/// The vectors of the tests of the provider's libraries for Python and Ruby.
#[test]
fn hubspot() {
    let secret = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy";
    for (milliseconds, signature) in [
        (1_693_657_560_000_u64, "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y="),
        (1_700_000_300_000, "RnbPH7+UMKVkbV32P8bz450N4M56aPmcru1+D3kSDtw="),
    ] {
        let request =
            to("https://www.example.com/webhook_uri", "{'example_field':'example_value'}")
                .header("X-HubSpot-Request-Timestamp", milliseconds.to_string())
                .header("X-HubSpot-Signature-v3", signature);
        accepts(&json!({ "scheme": "hubspot", "secret": secret }), &request, milliseconds / 1000);
    }
}

/// The vector of the tests of the provider's libraries.
#[test]
fn sendgrid() {
    let key = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3G\
        Rqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";
    let body = "[{\"email\":\"hello@world.com\",\"event\":\"dropped\",\"reason\":\"Bounced Address\",\
        \"sg_event_id\":\"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA\",\"sg_message_id\":\
        \"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0\",\"smtp-id\":\
        \"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>\",\"timestamp\":1600112492}]\r\n";
    let request =
        Request::post(body).header("X-Twilio-Email-Event-Webhook-Timestamp", "1600112502").header(
            "X-Twilio-Email-Event-Webhook-Signature",
            "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15\
             TluLtEZtM=",
        );
    accepts(&json!({ "scheme": "sendgrid", "publicKey": key }), &request, 1_600_112_502);
}

/// The example of Square's page.
#[test]
fn square() {
    let request = to("https://example.com/webhook", "{\"hello\":\"world\"}")
        .header("x-square-hmacsha256-signature", "2kRE5qRU2tR+tBGlDwMEw2avJ7QM4ikPYD/PJ3bd9Og=");
    accepts(&json!({ "scheme": "square", "secret": "asdf1234" }), &request, 0);
}
