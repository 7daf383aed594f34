//! `hookgate verify`: says whether a delivery would be accepted, and why not. It connects to no
//! server, and prints no secret.

use crate::endpoints::verification::{
    DeliveryRequest, Explanation, Field, HandshakeAnswer, HeaderFields, Preview, TimeOffset,
    UnfitHandshake, Verification, Verified,
};
use anyhow::{Context, bail};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// A delivery as it was captured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CapturedRequest {
    pub method: String,
    /// Scheme, host, path and query, as the sender sees them.
    pub url: String,
    pub headers: CapturedHeaders,
    pub body: Vec<u8>,
    pub client: Option<IpAddr>,
}

/// Header fields with their names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CapturedHeaders(Vec<(String, Vec<u8>)>);

impl CapturedHeaders {
    /// Adds a field from a line `Name: value`.
    pub fn add(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let colon = line.iter().position(|byte| *byte == b':').context("it has no colon")?;
        let (name, value) = line.split_at(colon);
        let name = std::str::from_utf8(name).context("its name is not text")?.trim();
        let is_token = |byte: u8| byte.is_ascii_graphic() && byte != b':';
        if name.is_empty() || !name.bytes().all(is_token) {
            bail!("its name is not the name of a header field");
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii().to_vec();
        self.0.push((name.to_ascii_lowercase(), value));
        Ok(())
    }

    /// Replaces the fields of each name that others have.
    pub fn replace(&mut self, others: Self) {
        self.0.retain(|(name, _)| others.get(name).is_none());
        self.0.extend(others.0);
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_slice())
    }
}

impl HeaderFields for CapturedHeaders {
    fn field(&self, name: &str) -> Field<'_> {
        let mut found = self.0.iter().filter(|(given, _)| given == name);
        match (found.next(), found.next()) {
            (None, _) => Field::Missing,
            (Some((_, value)), None) => Field::Once(value),
            (Some(_), Some(_)) => Field::Repeated,
        }
    }
}

impl CapturedRequest {
    /// Reads a request of HTTP/1.1 as it is on the wire, with a body that is not chunked. Its address
    /// is that of the `Host` field, with https.
    pub fn parse(message: &[u8]) -> anyhow::Result<Self> {
        let (head, body) = split_head(message).context("it has no empty line after its head")?;
        let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        let first = std::str::from_utf8(lines.next().unwrap_or_default()).context("not text")?;
        let mut words = first.split(' ');
        let (Some(method), Some(target), Some(_), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            bail!("its first line is not METHOD TARGET VERSION");
        };
        let mut headers = CapturedHeaders::default();
        for (number, line) in lines.enumerate() {
            headers.add(line).with_context(|| format!("header field {}", number + 1))?;
        }
        if headers.get("transfer-encoding").is_some() {
            bail!("its body is chunked; give the body itself, and the rest by options");
        }
        let host = headers.get("host").map(String::from_utf8_lossy).unwrap_or_default();
        let url =
            if target.starts_with('/') { format!("https://{host}{target}") } else { target.into() };
        Ok(Self { method: method.to_owned(), url, headers, body: body.to_vec(), client: None })
    }

    fn delivery(&self) -> DeliveryRequest<'_> {
        DeliveryRequest {
            method: &self.method,
            url: &self.url,
            query: self.url.split_once('?').map_or("", |(_, query)| query),
            headers: &self.headers,
            body: &self.body,
            client: self.client,
        }
    }
}

/// The head of a message without the empty line after it, and its body.
fn split_head(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let ends = [&b"\r\n\r\n"[..], b"\n\n"];
    let found = ends.into_iter().filter_map(|end| {
        let at = message.windows(end.len()).position(|part| part == end)?;
        Some((at, at + end.len()))
    });
    let (head, body) = found.min()?;
    Some((message.get(..head)?, message.get(body..)?))
}

/// Reads a description from JSON, as it is in a document.
pub fn read_description(json: &[u8]) -> anyhow::Result<Verification> {
    let description: serde_json::Value =
        serde_json::from_slice(json).map_err(|error| anyhow::anyhow!(place_of(&error)))?;
    if !description.is_object() {
        bail!("the description is not an object");
    }
    let document = bson::to_raw_document_buf(&description).context("the description")?;
    Ok(Verification::from_document(&document)?)
}

/// Where JSON is faulty, without what is there, which can be a secret.
fn place_of(error: &serde_json::Error) -> String {
    format!("the description is not JSON: line {}, column {}", error.line(), error.column())
}

/// The result of a trial, as lines for people.
#[derive(Debug)]
pub struct Report {
    scheme: &'static str,
    explanation: Explanation,
    warnings: Vec<&'static str>,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Accepted {
        delivery_id: Option<String>,
        handshake: Option<HandshakeAnswer>,
    },
    /// A signed handshake that cannot be answered.
    UnfitHandshake,
    /// An unsigned handshake, which is answered before anything is verified.
    Handshake(HandshakeAnswer),
    /// Kind, part and time, as the access log has them.
    Refused(String),
}

impl Report {
    /// Tries a request.
    pub fn new(verification: &Verification, request: &CapturedRequest, at: SystemTime) -> Self {
        let delivery = request.delivery();
        let outcome = verification.unsigned_handshake(&delivery).map(Outcome::Handshake);
        let outcome = outcome.unwrap_or_else(|| match verification.verify(&delivery, at) {
            Ok(verified) => accepted(verification, &delivery, verified),
            Err(refusal) => Outcome::Refused(refusal.to_string()),
        });
        Self {
            scheme: verification.scheme(),
            explanation: verification.explain(&delivery, at),
            warnings: verification.warnings(),
            outcome,
        }
    }

    /// Whether the delivery would be accepted, or answered as a handshake.
    pub fn is_accepted(&self) -> bool {
        !matches!(self.outcome, Outcome::Refused(_) | Outcome::UnfitHandshake)
    }
}

fn accepted(
    verification: &Verification,
    delivery: &DeliveryRequest<'_>,
    verified: Verified,
) -> Outcome {
    match verification.signed_handshake(delivery, &verified).transpose() {
        Ok(handshake) => Outcome::Accepted { delivery_id: verified.delivery_id, handshake },
        Err(UnfitHandshake) => Outcome::UnfitHandshake,
    }
}

impl Report {
    /// Names and values. The values may contain text from outside.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let Explanation { places, found, signed, expected, time, hints } = &self.explanation;
        let mut lines = vec![("scheme", self.scheme.to_owned())];
        lines.extend(self.warnings.iter().map(|warning| ("warning", (*warning).to_owned())));
        lines.extend(places.iter().map(|place| ("looked for in", place.clone())));
        lines.extend(time.map(|time| ("time", time_line(time))));
        lines.extend(signed.iter().map(|preview| ("signed", preview_line(preview))));
        lines.extend(found.iter().map(|signature| ("found", signature.clone())));
        lines.extend(expected.iter().map(|signature| ("expected", signature.clone())));
        match &self.outcome {
            Outcome::Accepted { delivery_id, handshake } => {
                lines.extend(delivery_id.iter().map(|id| ("delivery id", id.clone())));
                lines.extend(handshake.iter().map(|answer| ("handshake", answer_line(answer))));
                lines.push(("result", "accepted".to_owned()));
            }
            Outcome::Handshake(answer) => {
                lines.push(("handshake", answer_line(answer)));
                lines.push(("result", "answered as a handshake, which is not signed".to_owned()));
            }
            Outcome::UnfitHandshake => {
                let result = "refused: the signature is right, but what the handshake asks to be \
                              sent back is missing or is not allowed";
                lines.push(("result", result.to_owned()));
            }
            Outcome::Refused(refusal) => {
                lines.push(("result", format!("refused: {refusal}")));
                lines.extend(hints.iter().map(|hint| ("hint", hint.clone())));
                lines.extend(self.last_hint().map(|hint| ("hint", hint.to_owned())));
            }
        }
        lines
    }

    /// What is left if nothing that was tried gives the signature.
    fn last_hint(&self) -> Option<&'static str> {
        let Explanation { found, signed, hints, .. } = &self.explanation;
        if found.is_empty() || signed.is_empty() || !hints.is_empty() {
            return None;
        }
        let Outcome::Refused(refusal) = &self.outcome else { return None };
        if refusal.starts_with("too_") {
            return Some("the signature is right, and only the time is not");
        }
        refusal.starts_with("wrong_signature").then_some(
            "no usual change of the secret, the encoding, the body or the address makes it right: \
             the secret may be that of another endpoint or environment, or the body another one",
        )
    }
}

fn time_line(TimeOffset { off_by, tolerance }: TimeOffset) -> String {
    let distance = humantime::format_duration(Duration::from_millis(off_by.unsigned_abs()));
    let direction = if off_by < 0 { "in the past" } else { "in the future" };
    let tolerance = humantime::format_duration(tolerance);
    format!("{distance} {direction}; the tolerance is {tolerance}")
}

fn preview_line(preview: &Preview) -> String {
    match &preview.ends {
        Some((first, last)) => format!("{} bytes: {first} … {last}", preview.bytes),
        None => format!("{} bytes, not shown: the secret is in them", preview.bytes),
    }
}

fn answer_line(answer: &HandshakeAnswer) -> String {
    match answer {
        HandshakeAnswer::Text(text) => format!("200 text/plain {text}"),
        HandshakeAnswer::Json(json) => format!("200 application/json {json}"),
        HandshakeAnswer::Empty => "204".to_owned(),
    }
}
