//! The presets: descriptions of well-known senders, one row for each.
//!
//! A row says in the members of a description what a provider signs, with the address of the
//! provider's own page. What a provider's page leaves open is noted at the row.

use crate::endpoints::verification::preset::DeliveryId::{self, Body, Header, Signed};
use crate::endpoints::verification::preset::Value::{List, Text};
use crate::endpoints::verification::preset::{Answer, Condition, Handshake, Preset};

/// The preset of a name.
pub(super) fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// All presets.
pub static PRESETS: &[Preset] = &[
    Preset {
        name: "standard-webhooks",
        page: "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
        scheme: "hmac",
        members: &[
            ("signed", Text("{id}.{timestamp}.{body}")),
            ("headers", List(&["webhook-signature", "svix-signature"])),
            ("separator", Text(" ")),
            ("prefix", Text("v1,")),
            ("encoding", Text("base64")),
            ("secretEncoding", Text("base64")),
            ("timestampHeader", List(&["webhook-timestamp", "svix-timestamp"])),
            ("idHeader", List(&["webhook-id", "svix-id"])),
        ],
        delivery_id: Signed,
        secret_prefix: "whsec_",
        handshakes: &[],
    },
    Preset {
        name: "github",
        page: "https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries",
        scheme: "hmac",
        members: &[("header", Text("X-Hub-Signature-256")), ("prefix", Text("sha256="))],
        delivery_id: Header("X-GitHub-Delivery"),
        secret_prefix: "",
        handshakes: &[],
    },
    // Signing tokens of GitLab follow Standard Webhooks; this is the secret token.
    Preset {
        name: "gitlab",
        page: "https://docs.gitlab.com/user/project/integrations/webhooks/",
        scheme: "header",
        members: &[("name", Text("X-Gitlab-Token"))],
        delivery_id: Header("Idempotency-Key"),
        secret_prefix: "",
        handshakes: &[],
    },
    Preset {
        name: "stripe",
        page: "https://docs.stripe.com/webhooks#verify-manually",
        scheme: "hmac",
        members: &[
            ("signed", Text("{timestamp}.{body}")),
            ("header", Text("Stripe-Signature")),
            ("signatureItem", Text("v1")),
            ("timestampItem", Text("t")),
        ],
        delivery_id: Body("id"),
        secret_prefix: "",
        handshakes: &[],
    },
    // X-Shopify-Event-Id is that of an event in the shop, which deliveries of several topics and
    // subscriptions share: by it, the second of them would count as a repeat of the first.
    Preset {
        name: "shopify",
        page: "https://shopify.dev/docs/apps/build/webhooks/verify-deliveries",
        scheme: "hmac",
        members: &[("header", Text("X-Shopify-Hmac-SHA256")), ("encoding", Text("base64"))],
        delivery_id: Header("X-Shopify-Webhook-Id"),
        secret_prefix: "",
        handshakes: &[],
    },
    // Slash commands and interactions are forms without an event_id.
    Preset {
        name: "slack",
        page: "https://docs.slack.dev/authentication/verifying-requests-from-slack",
        scheme: "hmac",
        members: &[
            ("signed", Text("v0:{timestamp}:{body}")),
            ("header", Text("X-Slack-Signature")),
            ("prefix", Text("v0=")),
            ("timestampHeader", Text("X-Slack-Request-Timestamp")),
        ],
        delivery_id: Body("event_id"),
        secret_prefix: "",
        handshakes: &[Handshake {
            is_signed: true,
            method: "POST",
            conditions: &[Condition::BodyIs("type", "url_verification")],
            answer: Answer::BodyText("challenge"),
        }],
    },
    Preset {
        name: "meta",
        page: "https://developers.facebook.com/docs/graph-api/webhooks/getting-started",
        scheme: "hmac",
        members: &[("header", Text("X-Hub-Signature-256")), ("prefix", Text("sha256="))],
        delivery_id: DeliveryId::None,
        secret_prefix: "",
        handshakes: &[Handshake {
            is_signed: false,
            method: "GET",
            conditions: &[
                Condition::QueryIs("hub.mode", "subscribe"),
                Condition::QueryIsToken("hub.verify_token"),
            ],
            answer: Answer::QueryText("hub.challenge"),
        }],
    },
    // Its libraries accept the address with and without a port. What a rule for webhooks signs with
    // another key and SHA-256 is described by `hmac` with the same members.
    Preset {
        name: "twilio",
        page: "https://www.twilio.com/docs/usage/webhooks/webhooks-security",
        scheme: "hmac",
        members: &[
            ("signed", Text("{url}{form}")),
            ("urlForms", List(&["withoutPort", "withPort"])),
            ("bodyDigestQuery", Text("bodySHA256")),
            ("header", Text("X-Twilio-Signature")),
            ("encoding", Text("base64")),
            ("algorithm", Text("sha1")),
        ],
        delivery_id: Header("I-Twilio-Idempotency-Token"),
        secret_prefix: "",
        handshakes: &[],
    },
    Preset {
        name: "square",
        page: "https://developer.squareup.com/docs/webhooks/step3validate",
        scheme: "hmac",
        members: &[
            ("signed", Text("{url}{body}")),
            ("header", Text("x-square-hmacsha256-signature")),
            ("encoding", Text("base64")),
        ],
        delivery_id: Body("event_id"),
        secret_prefix: "",
        handshakes: &[],
    },
    // The page asks to decode some characters of the address before it is signed; the provider's
    // libraries take it as it is. Both are accepted.
    Preset {
        name: "hubspot",
        page: "https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation",
        scheme: "hmac",
        members: &[
            ("signed", Text("{method}{url}{body}{timestamp}")),
            ("urlForms", List(&["decoded", "asSent"])),
            ("header", Text("X-HubSpot-Signature-v3")),
            ("encoding", Text("base64")),
            ("timestampHeader", Text("X-HubSpot-Request-Timestamp")),
            ("timestampFormat", Text("milliseconds")),
        ],
        // A delivery has many events, and the ids of events are not unique.
        delivery_id: DeliveryId::None,
        secret_prefix: "",
        handshakes: &[],
    },
    Preset {
        name: "typeform",
        page: "https://www.typeform.com/developers/webhooks/secure-your-webhooks/",
        scheme: "hmac",
        members: &[
            ("header", Text("Typeform-Signature")),
            ("prefix", Text("sha256=")),
            ("encoding", Text("base64")),
        ],
        delivery_id: Body("event_id"),
        secret_prefix: "",
        handshakes: &[],
    },
    // The example of the page allows 3 minutes.
    Preset {
        name: "calendly",
        page: "https://developer.calendly.com/api-docs/overview/webhooks/webhook-signatures",
        scheme: "hmac",
        members: &[
            ("signed", Text("{timestamp}.{body}")),
            ("header", Text("Calendly-Webhook-Signature")),
            ("signatureItem", Text("v1")),
            ("timestampItem", Text("t")),
            ("tolerance", Text("3m")),
        ],
        delivery_id: DeliveryId::None,
        secret_prefix: "",
        handshakes: &[],
    },
    Preset {
        name: "linear",
        page: "https://linear.app/developers/webhooks#securing-webhooks",
        scheme: "hmac",
        members: &[
            ("header", Text("Linear-Signature")),
            ("timestampBody", Text("webhookTimestamp")),
            ("timestampFormat", Text("milliseconds")),
            ("tolerance", Text("1m")),
        ],
        delivery_id: Header("Linear-Delivery"),
        secret_prefix: "",
        handshakes: &[],
    },
    Preset {
        name: "zendesk",
        page: "https://developer.zendesk.com/documentation/webhooks/verifying/",
        scheme: "hmac",
        members: &[
            ("signed", Text("{timestamp}{body}")),
            ("header", Text("X-Zendesk-Webhook-Signature")),
            ("encoding", Text("base64")),
            ("timestampHeader", Text("X-Zendesk-Webhook-Signature-Timestamp")),
            ("timestampFormat", Text("RFC 3339")),
        ],
        delivery_id: Header("X-Zendesk-Webhook-Invocation-Id"),
        secret_prefix: "",
        handshakes: &[],
    },
    Preset {
        name: "intercom",
        page: "https://developers.intercom.com/docs/references/webhooks/webhook-models",
        scheme: "hmac",
        members: &[
            ("header", Text("X-Hub-Signature")),
            ("prefix", Text("sha1=")),
            ("algorithm", Text("sha1")),
        ],
        delivery_id: Body("id"),
        secret_prefix: "",
        handshakes: &[],
    },
    Preset {
        name: "paddle",
        page: "https://developer.paddle.com/webhooks/about/signature-verification",
        scheme: "hmac",
        members: &[
            ("signed", Text("{timestamp}:{body}")),
            ("header", Text("Paddle-Signature")),
            ("signatureItem", Text("h1")),
            ("separator", Text(";")),
            ("timestampItem", Text("ts")),
        ],
        delivery_id: Body("notification_id"),
        secret_prefix: "",
        handshakes: &[],
    },
    // The deliveries of the event webhook are lists of events without an id of their own.
    Preset {
        name: "sendgrid",
        page: "https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features",
        scheme: "ecdsa-p256",
        members: &[
            ("signed", Text("{timestamp}{body}")),
            ("header", Text("X-Twilio-Email-Event-Webhook-Signature")),
            ("encoding", Text("base64")),
            ("timestampHeader", Text("X-Twilio-Email-Event-Webhook-Timestamp")),
        ],
        delivery_id: DeliveryId::None,
        secret_prefix: "",
        handshakes: &[],
    },
    // The PING of interactions is of type 1, that of webhook events of type 0. An event is of type 1
    // too, and has an event.
    Preset {
        name: "discord",
        page: "https://docs.discord.com/developers/events/webhook-events",
        scheme: "ed25519",
        members: &[
            ("signed", Text("{timestamp}{body}")),
            ("header", Text("X-Signature-Ed25519")),
            ("timestampHeader", Text("X-Signature-Timestamp")),
        ],
        delivery_id: DeliveryId::None,
        secret_prefix: "",
        handshakes: &[
            Handshake {
                is_signed: true,
                method: "POST",
                conditions: &[Condition::BodyIs("type", "1"), Condition::BodyLacks("event")],
                answer: Answer::Json("{\"type\":1}"),
            },
            Handshake {
                is_signed: true,
                method: "POST",
                conditions: &[Condition::BodyIs("type", "0")],
                answer: Answer::Empty,
            },
        ],
    },
    // An event of a subaccount is signed by its key; that of the main account is for another member.
    // Only the time and the token are signed, so the token is the id: it cannot be used twice while
    // it is remembered. The provider tells receivers not to be strict about the time, and tries again
    // for 8 hours.
    Preset {
        name: "mailgun",
        page: "https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks",
        scheme: "hmac",
        members: &[
            ("signed", Text("{timestamp}{id}")),
            ("signatureBody", Text("signature.signature")),
            ("timestampBody", Text("signature.timestamp")),
            ("tolerance", Text("12h")),
        ],
        delivery_id: Body("signature.token"),
        secret_prefix: "",
        handshakes: &[],
    },
    Preset {
        name: "zoom",
        page: "https://developers.zoom.us/docs/api/webhooks/",
        scheme: "hmac",
        members: &[
            ("signed", Text("v0:{timestamp}:{body}")),
            ("header", Text("x-zm-signature")),
            ("prefix", Text("v0=")),
            ("timestampHeader", Text("x-zm-request-timestamp")),
        ],
        delivery_id: DeliveryId::None,
        secret_prefix: "",
        handshakes: &[Handshake {
            is_signed: true,
            method: "POST",
            conditions: &[Condition::BodyIs("event", "endpoint.url_validation")],
            answer: Answer::Proof {
                path: "payload.plainToken",
                plain: "plainToken",
                proof: "encryptedToken",
            },
        }],
    },
    Preset {
        name: "dropbox",
        page: "https://www.dropbox.com/developers/reference/webhooks",
        scheme: "hmac",
        members: &[("header", Text("X-Dropbox-Signature"))],
        delivery_id: DeliveryId::None,
        secret_prefix: "",
        handshakes: &[Handshake {
            is_signed: false,
            method: "GET",
            conditions: &[],
            answer: Answer::QueryText("challenge"),
        }],
    },
    // The token is signed, the body is not; it expires after minutes. The audience has to be the address: webhooks about the
    // life of an app have tokens without one, and so do those that users' browsers get, by the same
    // secret of the client. Only deliveries by the signing secret are accepted.
    Preset {
        name: "monday",
        page: "https://developer.monday.com/apps/docs/authorization-header",
        scheme: "jwt",
        members: &[("header", Text("Authorization")), ("audience", Text("{url}"))],
        delivery_id: DeliveryId::None,
        secret_prefix: "",
        handshakes: &[Handshake {
            is_signed: false,
            method: "POST",
            conditions: &[Condition::BodyIsOnly("challenge")],
            answer: Answer::BodyJson("challenge"),
        }],
    },
    // The secret is the clientState of the subscriptions; every notification of a delivery has it.
    Preset {
        name: "microsoft-graph",
        page: "https://learn.microsoft.com/en-us/graph/change-notifications-delivery-webhooks",
        scheme: "bodySecret",
        members: &[("path", Text("value.*.clientState"))],
        delivery_id: DeliveryId::None,
        secret_prefix: "",
        handshakes: &[Handshake {
            is_signed: false,
            method: "POST",
            conditions: &[],
            answer: Answer::QueryText("validationToken"),
        }],
    },
];
