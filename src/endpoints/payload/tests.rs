//! Bodies of every kind, and their bounds.

use super::*;
use crate::json::InvalidJsonKind;
use proptest::prelude::*;
use serde_json::{Value, json};

async fn convert(content_type: Option<&str>, body: &[u8]) -> Result<String, PayloadError> {
    let body = Bytes::copy_from_slice(body);
    let length = body.len();
    let plan = PayloadPlan::new(content_type.map(str::as_bytes), body)?;
    let bytes_at_most = plan.bytes_at_most();
    assert!(bytes_at_most <= LARGEST_FACTOR * length + 512, "{bytes_at_most} of {length}");
    let is_verbatim = matches!(plan.conversion, Conversion::None);
    let payload = plan.convert().await?;
    assert!(is_verbatim || payload.len() <= bytes_at_most, "{} of {bytes_at_most}", payload.len());
    Ok(String::from_utf8(payload.to_vec()).unwrap())
}

fn parts(parts: &[&str]) -> Vec<u8> {
    let parts = parts.iter().map(|part| ["--x-y\r\n", part, "\r\n"].concat());
    let parts = parts.collect::<Vec<_>>().concat();
    format!("preamble\r\n{parts}--x-y--\r\nepilogue").into_bytes()
}

const MULTIPART: Option<&str> = Some("multipart/form-data; boundary=\"x-y\"");

#[tokio::test]
async fn a_body_of_every_kind_becomes_json() {
    let form = Some("application/x-www-form-urlencoded");
    for (content_type, body, expected) in [
        (Some("application/json"), &b""[..], "null"),
        (form, b"", "null"),
        (None, b"", "null"),
        (Some("application/json"), b" {\"a\": 1.0,\"a\":1e400}\r\n", "{\"a\": 1.0,\"a\":1e400}"),
        (Some("application/x+json"), b"[ ]", "[ ]"),
        (Some("text/json"), b"\"a\"", "\"a\""),
        (Some("text/plain"), b"1", "\"1\""),
        (Some("text/plain"), b"a\"\\\n\x01\xc3\xa9", "\"a\\\"\\\\\\n\\u0001\u{e9}\""),
        (Some("text/plain; charset=iso-8859-1"), b"\xe9", "\"6Q==\""),
        (Some("text/plain; charset=iso-8859-1"), b"e", "\"e\""),
        (Some("application/octet-stream"), b"text", "\"dGV4dA==\""),
        (Some("application/xml"), b"<a/>", "\"<a/>\""),
        (None, b" 1e400 ", "1e400"),
        (None, b"{\"a\":", "\"{\\\"a\\\":\""),
        (None, b"\xff\xfe", "\"//4=\""),
        (form, b"a=1&b=%C3%A9+x&a=2&&c&=d&a=%ff", r#"{"a":["1","2","�"],"b":"é x","c":"","":"d"}"#),
        (form, b"&&&", "{}"),
        (form, b"payload=%7B%22a%22%3A1%7D", r#"{"payload":"{\"a\":1}"}"#),
    ] {
        let payload = convert(content_type, body).await;
        assert_eq!(payload.as_deref(), Ok(expected), "{}", body.escape_ascii());
    }
}

#[tokio::test]
async fn parts_become_members() {
    let body = parts(&[
        "Content-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--x-",
        "content-disposition: form-data; name=f; filename=\"\u{fc}.png\"\r\nContent-Type: image/png\r\n\r\n\u{1}",
        "Content-Disposition: form-data; name=\"a\"\r\n\r\n",
        "Content-Disposition: form-data; name=\"e\"; filename*=UTF-8''%C3%BC%01.txt\r\n\r\ntext",
        "Content-Disposition: form-data; name=\"q\\\"q\"; filename=\"\"\r\n\r\n",
    ]);
    let payload: Value = serde_json::from_str(&convert(MULTIPART, &body).await.unwrap()).unwrap();
    let expected = json!({
        "a": ["one\r\n--x-", ""],
        "f": { "name": "\u{fc}.png", "type": "image/png", "base64": "AQ==" },
        "e": { "name": "\u{fc}.txt", "type": null, "base64": "dGV4dA==" },
        "q\"q": { "name": "", "type": null, "base64": "" },
    });
    assert_eq!(payload, expected);
    let names = payload.as_object().unwrap().keys().count();
    assert_eq!(names, 4);
    let mut binary = parts(&["Content-Disposition: form-data; name=a\r\n\r\n??"]);
    let at = binary.windows(2).position(|two| two == b"??").unwrap();
    binary[at..at + 2].copy_from_slice(b"\xe9\xff");
    let expected = r#"{"a":{"name":null,"type":null,"base64":"6f8="}}"#;
    assert_eq!(convert(MULTIPART, &binary).await.as_deref(), Ok(expected));
    assert_eq!(convert(MULTIPART, b"--x-y--").await.as_deref(), Ok("{}"));
}

#[tokio::test]
async fn a_malformed_body_is_refused_by_its_kind() {
    let part = "Content-Disposition: form-data; name=\"a\"\r\n\r\none";
    let whole = parts(&[part]);
    let cut = whole.windows(7).position(|end| end == b"--x-y--").unwrap();
    let headers = "h: v\r\n".repeat(33);
    for (content_type, body, fault) in [
        (Some("multipart/form-data"), whole.clone(), MultipartFault::Boundary),
        (Some("multipart/form-data; boundary="), whole.clone(), MultipartFault::Boundary),
        (Some("multipart/form-data; boundary=z"), whole.clone(), MultipartFault::Incomplete),
        (MULTIPART, b"one".to_vec(), MultipartFault::Incomplete),
        (MULTIPART, whole[..cut].to_vec(), MultipartFault::Incomplete),
        (
            MULTIPART,
            b"--x-y\r\nContent-Disposition: form-data".to_vec(),
            MultipartFault::Incomplete,
        ),
        (MULTIPART, parts(&["Content-Disposition: form-data\r\n\r\none"]), MultipartFault::Name),
        (MULTIPART, parts(&["Content-Disposition form-data\r\n\r\none"]), MultipartFault::Header),
        (MULTIPART, parts(&[&format!("{headers}\r\none")]), MultipartFault::Header),
    ] {
        let error = convert(content_type, &body).await;
        assert_eq!(error, Err(PayloadError::InvalidMultipart(fault)), "{}", body.escape_ascii());
    }
    for (body, kind, offset) in
        [(&b"{\"a\":}"[..], InvalidJsonKind::Syntax, 5), (b"\"\xff\"", InvalidJsonKind::Utf8, 1)]
    {
        let error = convert(Some("application/json"), body).await;
        let expected = InvalidJson { kind, offset: Some(offset) };
        assert_eq!(error, Err(PayloadError::InvalidJson(expected)));
    }
}

/// The bodies that become largest for their size.
#[tokio::test]
async fn the_bound_holds_at_its_worst() {
    let form = Some("application/x-www-form-urlencoded");
    for (content_type, piece, following) in [
        (form, "\u{1}&", ""),
        (form, "a&", ""),
        (form, "&", ""),
        (form, "%01=%01&", ""),
        (Some("text/plain"), "\u{1}", ""),
        (Some("a/b"), "\u{1}", ""),
        (MULTIPART, "--x-y\r\nContent-Disposition:;name=;filename=\r\n\r\n\r\n", "--x-y--"),
        (MULTIPART, "--\n", "--x-y\r\n\r\n"),
    ] {
        let body = format!("{}{following}", piece.repeat(100_000));
        let _ = convert(content_type, body.as_bytes()).await;
    }
    let distinct: Vec<String> = (0..100_000).map(|number| format!("{number:x}")).collect();
    let payload = convert(form, distinct.join("&").as_bytes()).await.unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&payload).unwrap().as_object().unwrap().len(),
        100_000
    );
}

fn types() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![
        Just(None),
        Just(Some("application/x-www-form-urlencoded")),
        Just(Some("text/plain")),
        Just(Some("a/b")),
        Just(Some("multipart/form-data; boundary=b")),
    ]
}

proptest! {
    #[test]
    fn a_payload_is_valid_json(
        content_type in types(),
        body in "(--b(\r\n|--)?|Content-Disposition:;|(file)?name\\*?=[a\"%\\\\]{0,3}|\r\n\r\n|[a-c&=%\"\\x00\u{e9}]){0,20}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        if let Ok(payload) = runtime.block_on(convert(content_type, body.as_bytes())) {
            prop_assert!(json::validate(payload.as_bytes()).is_ok(), "{}", payload);
        }
    }
}
