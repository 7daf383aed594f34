//! A delivery of each preset, signed as the provider's page says.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mongodb::bson::DateTime;
use serde_json::{Value, json};

use super::deliveries::hex;

/// What is known of a preset's deliveries.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub preset: &'static str,
    /// The member with the secret or key, and the one with several.
    pub members: (&'static str, &'static str),
    /// The header fields without which a delivery is refused.
    pub needed: &'static [&'static str],
    pub signs_body: bool,
    /// The seconds by which the time may be off. `None`: there is no time.
    pub tolerance: Option<u64>,
    pub delivery_id: Option<&'static str>,
    /// The preset whose secrets sign.
    pub secrets_of: &'static str,
}

/// A signed delivery, except for its address: a POST.
#[derive(Debug, Clone)]
pub struct SignedDelivery {
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl SignedDelivery {
    fn new(body: impl Into<String>) -> Self {
        Self { headers: Vec::new(), body: body.into() }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

const SECRET: (&str, &str) = ("secret", "secrets");
const PUBLIC: (&str, &str) = ("publicKey", "publicKeys");

#[rustfmt::skip]
pub const SAMPLES: &[Sample] = &[
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
    Sample {
        preset,
        members: SECRET,
        needed,
        signs_body,
        tolerance,
        delivery_id,
        secrets_of: preset,
    }
}

/// Two pairs of keys that are configured, and one that is not.
static CURVES: LazyLock<Vec<EcdsaKeyPair>> = LazyLock::new(|| {
    let pair = |_| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key pair");
    (0..3).map(pair).collect()
});

pub fn ed25519(index: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[index + 1; 32]).expect("a seed")
}

pub fn p256(index: u8) -> &'static EcdsaKeyPair {
    &CURVES[usize::from(index)]
}

impl Sample {
    /// The presets with another signature. They sign with the secrets of this one.
    pub fn others(&self) -> impl Iterator<Item = Self> {
        // GitHub signs as Meta does.
        let rule = |preset: &'static str| if preset == "meta" { "github" } else { preset };
        let secrets_of = self.preset;
        let others = SAMPLES.iter().filter(move |other| rule(other.preset) != rule(secrets_of));
        others.map(move |other| Self { secrets_of, ..*other })
    }

    /// A verification by this preset with the keys of these numbers.
    pub fn verification(&self, keys: &[u8]) -> Value {
        let (one, several) = self.members;
        let keys: Vec<String> = keys.iter().map(|key| self.key(*key)).collect();
        match keys.as_slice() {
            [key] => json!({ "scheme": self.preset, (one): key }),
            keys => json!({ "scheme": self.preset, (several): keys }),
        }
    }

    /// The secret or public key of a number, as it is configured.
    pub fn key(&self, index: u8) -> String {
        match self.preset {
            "standard-webhooks" => format!("whsec_{}", STANDARD.encode(self.secret(index))),
            "sendgrid" => hex(p256(index).public_key().as_ref()),
            "discord" => hex(ed25519(index).public_key().as_ref()),
            _ => self.secret(index),
        }
    }

    fn secret(&self, index: u8) -> String {
        format!("{} secret number {index}", self.secrets_of)
    }

    fn mac(&self, algorithm: hmac::Algorithm, index: u8, parts: &[&str]) -> Vec<u8> {
        let key = hmac::Key::new(algorithm, self.secret(index).as_bytes());
        hmac::sign(&key, parts.concat().as_bytes()).as_ref().to_vec()
    }

    fn hex(&self, index: u8, parts: &[&str]) -> String {
        hex(self.mac(hmac::HMAC_SHA256, index, parts))
    }

    pub fn base64(&self, index: u8, parts: &[&str]) -> String {
        STANDARD.encode(self.mac(hmac::HMAC_SHA256, index, parts))
    }

    /// A delivery to an address, signed with the key of a number at a time.
    #[expect(clippy::too_many_lines, reason = "it is a table with a row for each preset")]
    pub fn delivery(&self, key: u8, second: u64, url: &str) -> SignedDelivery {
        let json = "{\"type\":\"x\",\"text\":\"ü\"}";
        let time = &second.to_string();
        match self.preset {
            "standard-webhooks" => SignedDelivery::new(json)
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
            "github" => SignedDelivery::new(json)
                .header("X-GitHub-Delivery", "72d3162e")
                .header("X-Hub-Signature-256", format!("sha256={}", self.hex(key, &[json]))),
            "gitlab" => SignedDelivery::new(json)
                .header("Idempotency-Key", "908a6d9e")
                .header("X-Gitlab-Token", self.secret(key)),
            "stripe" => {
                let body = "{\"id\":\"evt_1\",\"object\":\"event\",\"data\":{\"id\":\"ch_1\"}}";
                let v1 = self.hex(key, &[time, ".", body]);
                SignedDelivery::new(body)
                    .header("Stripe-Signature", format!("t={time},v1={v1},v0=00"))
            }
            "shopify" => SignedDelivery::new(json)
                .header("X-Shopify-Webhook-Id", "b54557e4")
                .header("X-Shopify-Hmac-Sha256", self.base64(key, &[json])),
            "slack" => {
                let body = "{\"type\":\"event_callback\",\"event_id\":\"Ev08MFMKH6\"}";
                let v0 = self.hex(key, &["v0:", time, ":", body]);
                SignedDelivery::new(body)
                    .header("X-Slack-Request-Timestamp", time.as_str())
                    .header("X-Slack-Signature", format!("v0={v0}"))
            }
            "meta" => SignedDelivery::new(json)
                .header("X-Hub-Signature-256", format!("sha256={}", self.hex(key, &[json]))),
            "twilio" => {
                let body = "To=%2B18005551212&From=%2B14158675310&Body=a+b";
                let signed = [url, "Bodya b", "From+14158675310", "To+18005551212"];
                let mac = self.mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key, &signed);
                SignedDelivery::new(body)
                    .header("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
                    .header("I-Twilio-Idempotency-Token", "token-1")
                    .header("X-Twilio-Signature", STANDARD.encode(mac))
            }
            "square" => {
                let body = "{\"event_id\":\"event-1\",\"type\":\"payment.updated\"}";
                SignedDelivery::new(body)
                    .header("x-square-hmacsha256-signature", self.base64(key, &[url, body]))
            }
            "hubspot" => {
                let (body, time) = ("[{\"eventId\":1}]", format!("{time}000"));
                SignedDelivery::new(body)
                    .header("X-HubSpot-Request-Timestamp", time.as_str())
                    .header("X-HubSpot-Signature-v3", self.base64(key, &["POST", url, body, &time]))
            }
            "typeform" => {
                let body = "{\"event_id\":\"LtWXD3crgy\",\"event_type\":\"form_response\"}";
                SignedDelivery::new(body)
                    .header("Typeform-Signature", format!("sha256={}", self.base64(key, &[body])))
            }
            "calendly" => {
                let v1 = self.hex(key, &[time, ".", json]);
                SignedDelivery::new(json)
                    .header("Calendly-Webhook-Signature", format!("t={time},v1={v1}"))
            }
            "linear" => {
                let body = format!("{{\"action\":\"create\",\"webhookTimestamp\":{time}000}}");
                let signature = self.hex(key, &[&body]);
                SignedDelivery::new(body)
                    .header("Linear-Delivery", "234d1a4e")
                    .header("Linear-Signature", signature)
            }
            "zendesk" => {
                let time = DateTime::from_millis(i64::try_from(second).expect("a time") * 1000);
                let time = time.try_to_rfc3339_string().expect("a year of four digits");
                SignedDelivery::new(json)
                    .header("X-Zendesk-Webhook-Invocation-Id", "8350205582")
                    .header("X-Zendesk-Webhook-Signature-Timestamp", time.as_str())
                    .header("X-Zendesk-Webhook-Signature", self.base64(key, &[&time, json]))
            }
            "intercom" => {
                let body = "{\"type\":\"notification_event\",\"id\":\"notif_1\"}";
                let mac = self.mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key, &[body]);
                SignedDelivery::new(body).header("X-Hub-Signature", format!("sha1={}", hex(mac)))
            }
            "paddle" => {
                let body = "{\"event_id\":\"evt_1\",\"notification_id\":\"ntf_1\"}";
                let h1 = self.hex(key, &[time, ":", body]);
                let old = "0".repeat(64);
                SignedDelivery::new(body)
                    .header("Paddle-Signature", format!("ts={time};h1={old};h1={h1}"))
            }
            "sendgrid" => {
                let (body, signed) = (
                    "[{\"event\":\"dropped\"}]\r\n",
                    format!("{time}[{{\"event\":\"dropped\"}}]\r\n"),
                );
                let signature = p256(key).sign(&SystemRandom::new(), signed.as_bytes());
                let signature = signature.expect("a signature");
                SignedDelivery::new(body)
                    .header("X-Twilio-Email-Event-Webhook-Timestamp", time.as_str())
                    .header("X-Twilio-Email-Event-Webhook-Signature", STANDARD.encode(signature))
            }
            "discord" => {
                let signature = ed25519(key).sign(format!("{time}{json}").as_bytes());
                SignedDelivery::new(json)
                    .header("X-Signature-Timestamp", time.as_str())
                    .header("X-Signature-Ed25519", hex(signature))
            }
            "mailgun" => {
                let signature = self.hex(key, &[time, "e0b54771"]);
                SignedDelivery::new(format!(
                    "{{\"signature\":{{\"token\":\"e0b54771\",\"timestamp\":\"{time}\",\
                     \"signature\":\"{signature}\"}},\"event-data\":{{\"event\":\"opened\"}}}}"
                ))
            }
            "zoom" => {
                let v0 = self.hex(key, &["v0:", time, ":", json]);
                SignedDelivery::new(json)
                    .header("x-zm-request-timestamp", time.as_str())
                    .header("x-zm-signature", format!("v0={v0}"))
            }
            "dropbox" => {
                SignedDelivery::new(json).header("X-Dropbox-Signature", self.hex(key, &[json]))
            }
            "monday" => {
                let claims =
                    format!("{{\"accountId\":1,\"aud\":\"{url}\",\"exp\":{}}}", second + 300);
                SignedDelivery::new(json).header("Authorization", self.jwt("HS256", key, &claims))
            }
            "microsoft-graph" => {
                let state = self.secret(key);
                SignedDelivery::new(format!(
                    "{{\"value\":[{{\"clientState\":\"{state}\",\"resource\":\"a\"}},\
                     {{\"clientState\":\"{state}\"}}]}}"
                ))
            }
            preset => panic!("{preset} has no sample"),
        }
    }

    pub fn jwt(&self, alg: &str, key: u8, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let head = format!("{{\"alg\":\"{alg}\",\"typ\":\"JWT\"}}");
        let signed = format!("{}.{}", part(&head), part(claims));
        let mac = self.mac(hmac::HMAC_SHA256, key, &[&signed]);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
    }
}

pub fn sample_of(preset: &str) -> &'static Sample {
    SAMPLES.iter().find(|sample| sample.preset == preset).expect("a sample of this preset")
}
