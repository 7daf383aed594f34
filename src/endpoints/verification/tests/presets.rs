//! What each preset accepts and refuses.

use super::samples::{SAMPLES, Sample, SampleRequests, sample_of, sha256_hex};
use super::{NOW, Request, at, verification};
use crate::endpoints::verification::{PRESETS, RefusalKind, Verification};
use serde_json::json;

fn of(sample: &Sample, keys: &[u8]) -> Verification {
    verification(&sample.verification(keys))
}

#[test]
fn every_preset_has_a_sample_and_a_page() {
    let presets: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    let samples: Vec<&str> = SAMPLES.iter().map(|sample| sample.preset).collect();
    assert_eq!(presets, samples);
    assert!(PRESETS.iter().all(|preset| preset.page.starts_with("https://")));
}

#[test]
fn a_delivery_is_accepted_with_its_id() {
    for sample in SAMPLES {
        let verified = sample.now(0).verify(&of(sample, &[0]));
        let verified = verified.unwrap_or_else(|refusal| panic!("{}: {refusal}", sample.preset));
        assert_eq!(verified.delivery_id.as_deref(), sample.delivery_id, "{}", sample.preset);
    }
}

#[test]
fn a_delivery_with_another_secret_is_refused() {
    for sample in SAMPLES {
        let kind = sample.now(2).refusal(&of(sample, &[0, 1]));
        let expected = [RefusalKind::WrongSignature, RefusalKind::WrongSecret];
        assert!(expected.contains(&kind), "{}: {kind:?}", sample.preset);
    }
}

#[test]
fn the_second_of_two_secrets_accepts_under_the_same_digest() {
    for sample in SAMPLES {
        let alone = sample.now(1).verify(&of(sample, &[1])).unwrap();
        let second = sample.now(1).verify(&of(sample, &[0, 1])).unwrap();
        assert_eq!(alone, super::Verified { key: 0, ..second.clone() }, "{}", sample.preset);
        let other = sample.now(0).verify(&of(sample, &[0, 1])).unwrap();
        assert_ne!(other.digest, second.digest, "{}", sample.preset);
    }
}

/// While a secret is rotated, some providers sign with the old one and the new one.
#[test]
fn the_last_secret_that_accepts_decides_the_digest() {
    let stripe = sample_of("stripe");
    let by = |keys: &[u8], request: &Request| request.verify(&of(stripe, keys)).unwrap();
    let signatures = [0, 1].map(|key| {
        let (_, value) = stripe.now(key).headers.0.remove(0);
        String::from_utf8(value).unwrap()
    });
    let both = signatures.join(",").replacen(&format!(",t={NOW}"), "", 1);
    let mut request = stripe.now(0);
    request.headers.0[0].1 = both.into_bytes();
    let before = by(&[0], &request).digest;
    let (new_first, old_first) = (by(&[1, 0], &request), by(&[0, 1], &request));
    assert_eq!((new_first.key, new_first.digest), (1, before));
    assert_eq!((old_first.key, old_first.digest), (1, by(&[1], &request).digest));
    assert_ne!(old_first.digest, before);
    // Equal secrets, given twice.
    for sample in SAMPLES {
        let twice = sample.now(0).verify(&of(sample, &[0, 0])).unwrap();
        assert_eq!(twice.key, 1, "{}", sample.preset);
        let once = sample.now(0).verify(&of(sample, &[0])).unwrap();
        assert_eq!(twice.digest, once.digest, "{}", sample.preset);
    }
}

#[test]
fn a_needed_header_field_is_there_once() {
    for sample in SAMPLES {
        let verification = of(sample, &[0]);
        for name in sample.needed {
            let request = sample.now(0);
            let missing = request.clone().without(name).refusal(&verification);
            assert_eq!(missing, RefusalKind::Missing, "{} {name}", sample.preset);
            let twice = request.twice(name).refusal(&verification);
            assert_eq!(twice, RefusalKind::Repeated, "{} {name}", sample.preset);
        }
    }
}

#[test]
fn the_header_field_of_the_id_may_be_missing_but_not_twice() {
    for (preset, name) in [
        ("github", "x-github-delivery"),
        ("gitlab", "idempotency-key"),
        ("shopify", "x-shopify-webhook-id"),
        ("twilio", "i-twilio-idempotency-token"),
        ("linear", "linear-delivery"),
        ("zendesk", "x-zendesk-webhook-invocation-id"),
    ] {
        let sample = sample_of(preset);
        let verification = of(sample, &[0]);
        let without = sample.now(0).without(name).verify(&verification).unwrap();
        assert_eq!(without.delivery_id, None, "{preset}");
        assert_eq!(sample.now(0).twice(name).refusal(&verification), RefusalKind::Repeated);
    }
}

#[test]
fn a_member_of_the_body_that_is_needed_is_there_once() {
    let mailgun = of(sample_of("mailgun"), &[0]);
    let body = String::from_utf8(sample_of("mailgun").now(0).body).unwrap();
    for name in ["token", "timestamp", "signature"] {
        let member = format!("\"{name}\":\"");
        let missing = body.replace(&member, "\"x\":\"");
        assert_eq!(Request::post(missing).refusal(&mailgun), RefusalKind::Missing, "{name}");
        let twice = body.replace(&member, &format!("\"{name}\":\"1\",{member}"));
        assert_eq!(Request::post(twice).refusal(&mailgun), RefusalKind::Repeated, "{name}");
    }
    assert_eq!(Request::post("no JSON").refusal(&mailgun), RefusalKind::Malformed);
}

#[test]
fn the_signature_of_another_preset_is_refused() {
    for sample in SAMPLES {
        let verification = of(sample, &[0]);
        for other in sample.others() {
            let result = other.now(0).verify(&verification);
            assert!(result.is_err(), "{} by {}", other.preset, sample.preset);
        }
    }
}

#[test]
fn a_body_that_was_changed_is_refused_where_it_is_signed() {
    for sample in SAMPLES {
        let mut request = sample.now(0);
        let end = request.body.len() - 1;
        request.body.insert(end, b' ');
        let result = request.verify(&of(sample, &[0]));
        assert_eq!(result.is_err(), sample.signs_body, "{}", sample.preset);
    }
}

#[test]
fn a_time_outside_the_tolerance_is_refused_in_both_directions() {
    for sample in SAMPLES {
        let verification = of(sample, &[0]);
        let Some(tolerance) = sample.tolerance else { continue };
        for second in [NOW - tolerance, NOW + tolerance] {
            let result = sample.request(0, second).verify(&verification);
            assert!(result.is_ok(), "{}: {result:?}", sample.preset);
        }
        let old = sample.request(0, NOW - tolerance - 1).refusal(&verification);
        assert_eq!(old, RefusalKind::TooOld, "{}", sample.preset);
        let early = sample.request(0, NOW + tolerance + 1).refusal(&verification);
        assert_eq!(early, RefusalKind::TooEarly, "{}", sample.preset);
    }
}

#[test]
fn a_wrong_signature_is_not_stale_whatever_its_time() {
    for sample in SAMPLES.iter().filter(|sample| sample.tolerance.is_some()) {
        let verification = of(sample, &[0]);
        for second in [NOW - 100_000, NOW + 100_000] {
            let right = sample.request(0, second).verify(&verification).unwrap_err();
            assert!(right.is_stale(), "{}: {right}", sample.preset);
            assert!(right.off_by.is_some(), "{}: {right}", sample.preset);
            let wrong = sample.request(1, second).verify(&verification).unwrap_err();
            assert_eq!(wrong.kind, RefusalKind::WrongSignature, "{}", sample.preset);
            assert!(!wrong.is_stale(), "{}: {wrong}", sample.preset);
        }
    }
}

#[test]
fn the_tolerance_and_the_id_of_a_preset_can_be_set() {
    let sample = sample_of("stripe");
    let given = json!({
        "scheme": "stripe", "secret": sample.key(0), "tolerance": "10m", "deliveryId": false,
    });
    let verified = sample.request(0, NOW - 600).verify(&verification(&given)).unwrap();
    assert_eq!(verified.delivery_id, None);
    let given = json!({
        "scheme": "stripe", "secret": sample.key(0), "deliveryId": {"body": "data.id"},
    });
    let verified = sample.now(0).verify(&verification(&given)).unwrap();
    assert_eq!(verified.delivery_id.as_deref(), Some("ch_1"));
}

#[test]
fn standard_webhooks_are_accepted_under_the_names_of_svix() {
    let sample = sample_of("standard-webhooks");
    let verification = of(sample, &[0]);
    let mut request = sample.now(0);
    for (name, _) in &mut request.headers.0 {
        *name = name.replace("Webhook", "Svix");
    }
    let verified = request.verify(&verification).unwrap();
    assert_eq!(verified.delivery_id.as_deref(), Some("msg_1"));
    // The names are not mixed.
    let mixed = request.without("svix-id").header("webhook-id", "msg_1");
    assert_eq!(mixed.refusal(&verification), RefusalKind::Missing);
}

#[test]
fn an_expired_token_is_refused() {
    let sample = sample_of("monday");
    let verification = of(sample, &[0]);
    let token = |alg: &str, claims: &str| {
        Request::post("{}").header("Authorization", sample.jwt(alg, 0, claims))
    };
    let url = Request::post("").url;
    let claims = |claims: String| format!("{{\"aud\":\"{url}\"{claims}}}");
    let valid = claims(format!(",\"exp\":{}", NOW - 300));
    assert!(token("HS256", &valid).verify(&verification).is_ok());
    let early = format!(",\"exp\":{},\"nbf\":{}", NOW + 900, NOW + 301);
    for (alg, claims, expected) in [
        ("HS256", claims(format!(",\"exp\":{}", NOW - 301)), RefusalKind::TooOld),
        ("HS256", claims(early), RefusalKind::TooEarly),
        ("HS256", claims(String::new()), RefusalKind::Missing),
        // A token for another address is not stale.
        ("HS256", "{\"aud\":\"x\",\"exp\":1}".to_owned(), RefusalKind::WrongAudience),
        ("HS256", "{\"exp\":\"soon\"}".to_owned(), RefusalKind::Malformed),
        ("HS256", "[]".to_owned(), RefusalKind::Malformed),
        ("HS512", "{}".to_owned(), RefusalKind::WrongSignature),
        ("none", "{}".to_owned(), RefusalKind::WrongSignature),
        ("HS256\",\"crit\":[\"b64\"],\"x\":\"", "{}".to_owned(), RefusalKind::Malformed),
    ] {
        assert_eq!(token(alg, &claims).refusal(&verification), expected, "{alg} {claims}");
    }
    for value in ["", "a.b", "a.b.c", "..", "Bearer x", "é.é.é"] {
        let request = Request::post("").header("Authorization", value);
        assert_eq!(request.refusal(&verification), RefusalKind::Malformed, "{value}");
    }
}

#[test]
fn a_token_is_for_the_address_of_the_request() {
    let sample = sample_of("monday");
    let verification = of(sample, &[0]);
    let with = |aud: &str| {
        let token = sample.jwt("HS256", 0, &format!("{{\"exp\":{NOW}{aud}}}"));
        let request = Request::post("{}").query("a=1").header("Authorization", token);
        request.verify(&verification).map_err(|refusal| (refusal.kind, refusal.part))
    };
    let url = Request::post("").url;
    for aud in [
        format!(",\"aud\":\"{url}\""),
        format!(",\"aud\":\"{url}?a=1\""),
        format!(",\"aud\":[\"x\",\"{url}\"]"),
    ] {
        assert!(with(&aud).is_ok(), "{aud}");
    }
    let aud = Some("aud".to_owned());
    for (claim, expected) in [
        ("", RefusalKind::Missing),
        // A browser gets such a token, signed with the secret of an app's client.
        (",\"dat\":{\"user_id\":1}", RefusalKind::Missing),
        (",\"aud\":\"https://example.com\"", RefusalKind::WrongAudience),
        (",\"aud\":\"{url}\"", RefusalKind::WrongAudience),
        (",\"aud\":[]", RefusalKind::WrongAudience),
    ] {
        assert_eq!(with(claim).map(|_| ()), Err((expected, aud.clone())), "{claim}");
    }
}

#[test]
fn an_address_is_signed_as_it_is_or_with_characters_decoded() {
    let sample = sample_of("hubspot");
    let verification = of(sample, &[0]);
    let encoded = "id=a%40b%3ac&text=%20%26";
    for query in [encoded, "id=a@b:c&text=%20%26"] {
        let url = Request::get(query).url;
        let time = format!("{NOW}000");
        let request = Request::post("[]")
            .query(encoded)
            .header("X-HubSpot-Request-Timestamp", time.as_str())
            .header("X-HubSpot-Signature-v3", sample.base64(0, &["POST", &url, "[]", &time]));
        assert!(request.verify(&verification).is_ok(), "{query}");
        let mut changed = request.clone();
        changed.body.push(b' ');
        assert_eq!(changed.refusal(&verification), RefusalKind::WrongSignature);
    }
}

#[test]
fn every_notification_has_to_have_the_secret() {
    let sample = sample_of("microsoft-graph");
    let (verification, state) = (of(sample, &[0, 1]), sample.key(0));
    let kind = |states: &[Option<&str>]| {
        let notifications: Vec<_> = states
            .iter()
            .map(|state| state.map_or_else(|| json!({}), |state| json!({ "clientState": state })))
            .collect();
        let body = json!({ "value": notifications }).to_string();
        Request::post(body).verify(&verification).map_err(|refusal| refusal.kind)
    };
    assert!(kind(&[Some(&state), Some(&state)]).is_ok());
    assert_eq!(kind(&[Some(&state), Some("x")]), Err(RefusalKind::WrongSecret));
    assert_eq!(kind(&[Some("x"), Some(&state)]), Err(RefusalKind::WrongSecret));
    assert_eq!(kind(&[Some(&state), Some(&sample.key(1))]), Err(RefusalKind::WrongSecret));
    assert_eq!(kind(&[Some(&state), None]), Err(RefusalKind::Missing));
    assert_eq!(kind(&[]), Err(RefusalKind::Missing));
    for body in ["{}", "[]", "null", "{\"value\":{}}", "{\"value\":[[]]}"] {
        assert_eq!(Request::post(body).refusal(&verification), RefusalKind::Missing, "{body}");
    }
    let twice = format!("{{\"value\":[{{\"clientState\":\"{state}\"}}],\"value\":[{{}}]}}");
    assert_eq!(Request::post(twice).refusal(&verification), RefusalKind::Missing);
}

#[test]
fn a_body_of_json_is_covered_by_its_digest_in_the_query() {
    use aws_lc_rs::hmac;
    use base64::Engine;
    let sample = sample_of("twilio");
    let verification = of(sample, &[0]);
    let signed = |request: Request| {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, sample.key(0).as_bytes());
        let mac = hmac::sign(&key, request.url.as_bytes());
        let mac = base64::engine::general_purpose::STANDARD.encode(mac);
        request.header("X-Twilio-Signature", mac)
    };
    let body = "{\"property\": \"value\"}";
    let query = format!("bodySHA256={}", sha256_hex(body));
    assert!(signed(Request::post(body).query(&query)).verify(&verification).is_ok());
    let other = signed(Request::post("{}").query(&query));
    assert_eq!(other.refusal(&verification), RefusalKind::WrongBodyDigest);
    let twice = signed(Request::post(body).query(&format!("{query}&{query}")));
    assert_eq!(twice.refusal(&verification), RefusalKind::Repeated);
    let malformed = signed(Request::post(body).query("bodySHA256=x"));
    assert_eq!(malformed.refusal(&verification), RefusalKind::Malformed);
    // The signature of an address says nothing about a body that is no form.
    assert_eq!(signed(Request::post(body)).refusal(&verification), RefusalKind::UnsignedBody);
    assert!(signed(Request::get("a=1")).verify(&verification).is_ok());
}

#[test]
fn a_check_in_steps_says_the_same() {
    for sample in SAMPLES {
        for key in [0, 2] {
            let (verification, request) = (of(sample, &[0, 1]), sample.now(key));
            let delivery = request.delivery();
            let at_once = verification.verify(&delivery, at(NOW));
            let in_steps = verification.begin(&delivery, at(NOW)).and_then(|mut checking| {
                while checking.advance(7) {}
                checking.finish()
            });
            assert_eq!(in_steps, at_once, "{}", sample.preset);
        }
    }
}

#[test]
fn a_check_can_move_between_threads() {
    fn assert_send<T: Send>(_: &T) {}
    let verification = of(&SAMPLES[0], &[0]);
    let request = SAMPLES[0].now(0);
    let delivery = request.delivery();
    assert_send(&delivery);
    assert_send(&verification.begin(&delivery, at(NOW)).unwrap());
    std::thread::scope(|scope| {
        let checking = verification.begin(&delivery, at(NOW)).unwrap();
        assert!(scope.spawn(move || checking.finish()).join().unwrap().is_ok());
    });
}

#[test]
fn no_secret_is_printed() {
    for sample in SAMPLES {
        let verification = of(sample, &[0, 1]);
        let request = sample.now(2);
        let refusal = request.verify(&verification).unwrap_err();
        let verified = sample.now(0).verify(&verification);
        let delivery = request.delivery();
        let checking = verification.begin(&delivery, at(NOW)).map(|_| ()).is_ok();
        let printed = format!(
            "{verification:?} {refusal:?} {refusal} {verified:?} {delivery:?} {checking} {:?}",
            verification.identity()
        );
        for key in [0, 1, 2] {
            let secret = sample.key(key);
            let bytes = secret.strip_prefix("whsec_").unwrap_or(&secret);
            assert!(!printed.contains(bytes), "{printed}");
            assert!(!printed.contains(&format!("{:?}", secret.as_bytes())), "{printed}");
        }
    }
}
