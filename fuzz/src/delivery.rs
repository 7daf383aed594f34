//! A description of a verification, and a delivery that is checked against it.

use hookgate::endpoints::verification::{
    DeliveryRequest, Field, HandshakeAnswer, HeaderFields, Verification,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Lines: a description in JSON, a method, a query, four header fields. The rest is the body.
pub fn check(data: &[u8]) {
    let mut lines = data.splitn(8, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let Some(verification) = verification(line()) else { return };
    let (method, query) = (text(line()), text(line()));
    let headers = Fields(std::array::from_fn(|_| field(line())));
    let url = format!("https://hooks.example.com/hook?{query}");
    let request = DeliveryRequest {
        method,
        url: &url,
        query,
        headers: &headers,
        body: line(),
        client: Some([192, 0, 2, 1].into()),
    };
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    check_request(&verification, &request, now);
}

/// A check in steps says the same as one at once, and little is echoed.
fn check_request(verification: &Verification, request: &DeliveryRequest<'_>, now: SystemTime) {
    let at_once = verification.verify(request, now);
    let in_steps = verification.begin(request, now).and_then(|mut checking| {
        while checking.advance(5) {}
        checking.finish()
    });
    assert_eq!(in_steps, at_once);
    check_explanation(verification, request, now, at_once.is_ok());
    let signed =
        at_once.ok().and_then(|verified| verification.signed_handshake(request, &verified)?.ok());
    for answer in verification.unsigned_handshake(request).into_iter().chain(signed) {
        if let HandshakeAnswer::Text(text) = answer {
            assert!((1..=512).contains(&text.len()), "{text}");
            assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{text}");
        }
    }
}

/// What is found and what is expected have a signature in common if it is accepted.
fn check_explanation(
    verification: &Verification,
    request: &DeliveryRequest<'_>,
    now: SystemTime,
    is_accepted: bool,
) {
    let explanation = verification.explain(request, now);
    let (found, expected) = (explanation.found, explanation.expected);
    if is_accepted {
        assert!(explanation.hints.is_empty(), "{:?}", explanation.hints);
        let is_right = found.iter().any(|signature| expected.contains(signature));
        assert!(is_right || found.is_empty() || expected.is_empty(), "{found:?} {expected:?}");
    }
}

fn verification(description: &[u8]) -> Option<Verification> {
    let description: serde_json::Value = serde_json::from_slice(description).ok()?;
    let document = bson::to_raw_document_buf(&description).ok()?;
    let again = Verification::from_document(&document);
    let verification = Verification::from_document(&document);
    assert_eq!(verification, again);
    verification.ok()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A name and a value, with a colon between them.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    (&line[..colon], line.get(colon + 1..).unwrap_or_default())
}

struct Fields<'a>([(&'a [u8], &'a [u8]); 4]);

impl HeaderFields for Fields<'_> {
    fn field(&self, name: &str) -> Field<'_> {
        let mut found =
            self.0.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name.as_bytes()));
        match (found.next(), found.next()) {
            (None, _) => Field::Missing,
            (Some((_, value)), None) => Field::Once(value),
            (Some(_), Some(_)) => Field::Repeated,
        }
    }
}
