//! A delivery of each preset, signed as the provider's page says.

use super::{NOW, Request};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::sync::LazyLock;

/// What is known of a preset's deliveries.
pub(super) struct Sample {
    pub(super) preset: &'static str,
    /// The member with the secret or key, and the one with several.
    pub(super) members: (&'static str, &'static str),
    /// The header fields without which a delivery is refused.
    pub(super) needed: &'static [&'static str],
    pub(super) signs_body: bool,
    /// The seconds by which the time may be off. `None`: there is no time.
    pub(super) tolerance: Option<u64>,
    pub(super) delivery_id: Option<&'static str>,
}

const SECRET: (&str, &str) = ("secret", "secrets");
const PUBLIC: (&str, &str) = ("publicKey", "publicKeys");

#[rustfmt::skip]
pub(super) const SAMPLES: &[Sample] = &[
    sample("standard-webhooks", &["webhook-id", "webhook-timestamp", "webhook-signature"], true, Some(300), Some("msg_1")),
    sample("github", &["x-hub-signature-256"], true, None, Some("72d3162e")),
    sample("gitlab", &["x-gitlab-token"], false, None, Some("908a6d9e")),
    sample("stripe", &["stripe-signature"], true, Some(300), Some("evt_1")),
    sample("shopify", &["x-shopify-hmac-sha256"], true, None, Some("b54557e4")),
    sample("slack", &["x-slack-signature", "x-slack-request-timestamp"], true, Some(300), Some("Ev08MFMKH6")),
    sample("meta", &["x-hub-signature-256"], true, None, None),
    sample("twilio", &["x-twilio-signature"], true, None, Some("token-1")),
    sample("square", &["x-square-hmacsha256-signature"], true, None, Some("event-1")),
    sample("hubspot", &["x-hubspot-signature-v3", "x-hubspot-request-timestamp"], true, Some(300), None),
    sample("typeform", &["typeform-signature"], true, None, Some("LtWXD3crgy")),
    sample("calendly", &["calendly-webhook-signature"], true, Some(180), None),
    sample("linear", &["linear-signature"], true, Some(60), Some("234d1a4e")),
    sample("zendesk", &["x-zendesk-webhook-signature", "x-zendesk-webhook-signature-timestamp"], true, Some(300), Some("8350205582")),
    sample("intercom", &["x-hub-signature"], true, None, Some("notif_1")),
    sample("paddle", &["paddle-signature"], true, Some(300), Some("ntf_1")),
    Sample { members: PUBLIC, ..sample("sendgrid", &["x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp"], true, Some(300), None) },
    Sample { members: PUBLIC, ..sample("discord", &["x-signature-ed25519", "x-signature-timestamp"], true, Some(300), None) },
    sample("mailgun", &[], false, Some(43_200), Some("e0b54771")),
    sample("zoom", &["x-zm-signature", "x-zm-request-timestamp"], true, Some(300), None),
    sample("dropbox", &["x-dropbox-signature"], true, None, None),
    sample("monday", &["authorization"], false, None, None),
    sample("microsoft-graph", &[], false, None, None),
];

const fn sample(
    preset: &'static str,
    needed: &'static [&'static str],
    signs_body: bool,
    tolerance: Option<u64>,
    delivery_id: Option<&'static str>,
) -> Sample {
    Sample { preset, members: SECRET, needed, signs_body, tolerance, delivery_id }
}

/// Two pairs of keys that are configured, and one that is not.
static CURVES: LazyLock<Vec<EcdsaKeyPair>> = LazyLock::new(|| {
    (0..3).map(|_| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()).collect()
});

pub(super) fn ed25519(index: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[index + 1; 32]).unwrap()
}

pub(super) fn p256(index: u8) -> &'static EcdsaKeyPair {
    &CURVES[usize::from(index)]
}

impl Sample {
    /// The secret or public key of a number, as it is configured.
    pub(super) fn key(&self, index: u8) -> String {
        match self.preset {
            "standard-webhooks" => format!("whsec_{}", STANDARD.encode(self.secret(index))),
            "sendgrid" => hex::encode(p256(index).public_key().as_ref()),
            "discord" => hex::encode(ed25519(index).public_key().as_ref()),
            _ => self.secret(index),
        }
    }

    fn secret(&self, index: u8) -> String {
        format!("{} secret number {index}", self.preset)
    }

    fn mac(&self, algorithm: hmac::Algorithm, index: u8, parts: &[&str]) -> Vec<u8> {
        let key = hmac::Key::new(algorithm, self.secret(index).as_bytes());
        hmac::sign(&key, parts.concat().as_bytes()).as_ref().to_vec()
    }

    fn hex(&self, index: u8, parts: &[&str]) -> String {
        hex::encode(self.mac(hmac::HMAC_SHA256, index, parts))
    }

    pub(super) fn base64(&self, index: u8, parts: &[&str]) -> String {
        STANDARD.encode(self.mac(hmac::HMAC_SHA256, index, parts))
    }

    /// A delivery that is signed with the key of a number at a time.
    #[expect(clippy::too_many_lines, reason = "it is a table with a row for each preset")]
    pub(super) fn request(&self, key: u8, second: u64) -> Request {
        let json = "{\"type\":\"x\",\"text\":\"ü\"}";
        let url = "https://hooks.example.com/api/webhook/in/org_1/hook";
        let time = &second.to_string();
        match self.preset {
            "standard-webhooks" => Request::post(json)
                .header("Webhook-Id", "msg_1")
                .header("Webhook-Timestamp", time.as_str())
                .header(
                    "Webhook-Signature",
                    format!(
                        "v1a,xyz v1,{} v1,{}",
                        STANDARD.encode("another"),
                        self.base64(key, &["msg_1.", time, ".", json])
                    ),
                ),
            "github" => Request::post(json)
                .header("X-GitHub-Delivery", "72d3162e")
                .header("X-Hub-Signature-256", format!("sha256={}", self.hex(key, &[json]))),
            "gitlab" => Request::post(json)
                .header("Idempotency-Key", "908a6d9e")
                .header("X-Gitlab-Token", self.secret(key)),
            "stripe" => {
                let body = "{\"id\":\"evt_1\",\"object\":\"event\",\"data\":{\"id\":\"ch_1\"}}";
                let v1 = self.hex(key, &[time, ".", body]);
                Request::post(body).header("Stripe-Signature", format!("t={time},v1={v1},v0=00"))
            }
            "shopify" => Request::post(json)
                .header("X-Shopify-Webhook-Id", "b54557e4")
                .header("X-Shopify-Hmac-Sha256", self.base64(key, &[json])),
            "slack" => {
                let body = "{\"type\":\"event_callback\",\"event_id\":\"Ev08MFMKH6\"}";
                let v0 = self.hex(key, &["v0:", time, ":", body]);
                Request::post(body)
                    .header("X-Slack-Request-Timestamp", time.as_str())
                    .header("X-Slack-Signature", format!("v0={v0}"))
            }
            "meta" => Request::post(json)
                .header("X-Hub-Signature-256", format!("sha256={}", self.hex(key, &[json]))),
            "twilio" => {
                let body = "To=%2B18005551212&From=%2B14158675310&Body=a+b";
                let signed = [url, "Bodya b", "From+14158675310", "To+18005551212"];
                let mac = self.mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key, &signed);
                Request::post(body)
                    .header("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
                    .header("I-Twilio-Idempotency-Token", "token-1")
                    .header("X-Twilio-Signature", STANDARD.encode(mac))
            }
            "square" => {
                let body = "{\"event_id\":\"event-1\",\"type\":\"payment.updated\"}";
                Request::post(body)
                    .header("x-square-hmacsha256-signature", self.base64(key, &[url, body]))
            }
            "hubspot" => {
                let (body, time) = ("[{\"eventId\":1}]", format!("{time}000"));
                Request::post(body)
                    .header("X-HubSpot-Request-Timestamp", time.as_str())
                    .header("X-HubSpot-Signature-v3", self.base64(key, &["POST", url, body, &time]))
            }
            "typeform" => {
                let body = "{\"event_id\":\"LtWXD3crgy\",\"event_type\":\"form_response\"}";
                Request::post(body)
                    .header("Typeform-Signature", format!("sha256={}", self.base64(key, &[body])))
            }
            "calendly" => {
                let v1 = self.hex(key, &[time, ".", json]);
                Request::post(json)
                    .header("Calendly-Webhook-Signature", format!("t={time},v1={v1}"))
            }
            "linear" => {
                let body = format!("{{\"action\":\"create\",\"webhookTimestamp\":{time}000}}");
                let signature = self.hex(key, &[&body]);
                Request::post(body)
                    .header("Linear-Delivery", "234d1a4e")
                    .header("Linear-Signature", signature)
            }
            "zendesk" => {
                let time = bson::DateTime::from_millis(i64::try_from(second).unwrap() * 1000);
                let time = time.try_to_rfc3339_string().unwrap();
                Request::post(json)
                    .header("X-Zendesk-Webhook-Invocation-Id", "8350205582")
                    .header("X-Zendesk-Webhook-Signature-Timestamp", time.as_str())
                    .header("X-Zendesk-Webhook-Signature", self.base64(key, &[&time, json]))
            }
            "intercom" => {
                let body = "{\"type\":\"notification_event\",\"id\":\"notif_1\"}";
                let mac = self.mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key, &[body]);
                Request::post(body).header("X-Hub-Signature", format!("sha1={}", hex::encode(mac)))
            }
            "paddle" => {
                let body = "{\"event_id\":\"evt_1\",\"notification_id\":\"ntf_1\"}";
                let h1 = self.hex(key, &[time, ":", body]);
                let old = "0".repeat(64);
                Request::post(body)
                    .header("Paddle-Signature", format!("ts={time};h1={old};h1={h1}"))
            }
            "sendgrid" => {
                let (body, signed) = (
                    "[{\"event\":\"dropped\"}]\r\n",
                    format!("{time}[{{\"event\":\"dropped\"}}]\r\n"),
                );
                let signature = p256(key).sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
                Request::post(body)
                    .header("X-Twilio-Email-Event-Webhook-Timestamp", time.as_str())
                    .header("X-Twilio-Email-Event-Webhook-Signature", STANDARD.encode(signature))
            }
            "discord" => {
                let signature = ed25519(key).sign(format!("{time}{json}").as_bytes());
                Request::post(json)
                    .header("X-Signature-Timestamp", time.as_str())
                    .header("X-Signature-Ed25519", hex::encode(signature))
            }
            "mailgun" => {
                let signature = self.hex(key, &[time, "e0b54771"]);
                Request::post(format!(
                    "{{\"signature\":{{\"token\":\"e0b54771\",\"timestamp\":\"{time}\",\
                     \"signature\":\"{signature}\"}},\"event-data\":{{\"event\":\"opened\"}}}}"
                ))
            }
            "zoom" => {
                let v0 = self.hex(key, &["v0:", time, ":", json]);
                Request::post(json)
                    .header("x-zm-request-timestamp", time.as_str())
                    .header("x-zm-signature", format!("v0={v0}"))
            }
            "dropbox" => Request::post(json).header("X-Dropbox-Signature", self.hex(key, &[json])),
            "monday" => {
                let claims =
                    format!("{{\"accountId\":1,\"aud\":\"{url}\",\"exp\":{}}}", second + 300);
                Request::post(json).header("Authorization", self.jwt("HS256", key, &claims))
            }
            "microsoft-graph" => {
                let state = self.secret(key);
                Request::post(format!(
                    "{{\"value\":[{{\"clientState\":\"{state}\",\"resource\":\"a\"}},\
                     {{\"clientState\":\"{state}\"}}]}}"
                ))
            }
            preset => panic!("{preset} has no sample"),
        }
    }

    pub(super) fn jwt(&self, alg: &str, key: u8, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let head = format!("{{\"alg\":\"{alg}\",\"typ\":\"JWT\"}}");
        let signed = format!("{}.{}", part(&head), part(claims));
        let mac = self.mac(hmac::HMAC_SHA256, key, &[&signed]);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    pub(super) fn now(&self, key: u8) -> Request {
        self.request(key, NOW)
    }
}

pub(super) fn sample_of(preset: &str) -> &'static Sample {
    SAMPLES.iter().find(|sample| sample.preset == preset).expect("a sample of this preset")
}

pub(super) fn sha256_hex(body: &str) -> String {
    hex::encode(digest(&SHA256, body.as_bytes()))
}
