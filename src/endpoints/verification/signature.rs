//! Finds the signatures of a request.

use crate::endpoints::verification::keys::Encoding;
use crate::endpoints::verification::refusal::{Refusal, RefusalKind};
use crate::endpoints::verification::request::{DeliveryRequest, Field, HeaderFields};
use crate::endpoints::verification::rules::{SignatureHeaders, SignaturePlace};
use crate::endpoints::verification::time::TimePlace;
use std::borrow::Cow;

/// Bound on the signatures that one request can offer.
const MAX_SIGNATURES: usize = 16;

/// What the place of the signature says.
pub(super) struct Found<'a> {
    pub(super) signatures: Vec<Vec<u8>>,
    /// Which of the header fields it was.
    pub(super) header: usize,
    /// The item with the time.
    pub(super) time: Option<Cow<'a, str>>,
}

/// A header field that has to be there once, as text.
pub(super) fn required_header<'a>(
    request: &DeliveryRequest<'a>,
    name: &str,
) -> Result<&'a str, Refusal> {
    optional_header(request, name)?.ok_or_else(|| Refusal::with_part(RefusalKind::Missing, name))
}

/// A header field that may be missing, as text.
pub(super) fn optional_header<'a>(
    request: &DeliveryRequest<'a>,
    name: &str,
) -> Result<Option<&'a str>, Refusal> {
    let malformed = || Refusal::with_part(RefusalKind::Malformed, name);
    let headers: &'a dyn HeaderFields = request.headers;
    match headers.field(name) {
        Field::Missing => Ok(None),
        Field::Repeated => Err(Refusal::with_part(RefusalKind::Repeated, name)),
        Field::Once(value) => match std::str::from_utf8(value) {
            Ok(text) => Ok(Some(text.trim_ascii())),
            Err(_) => Err(malformed()),
        },
    }
}

/// The header field that belongs to the signature's, out of several.
pub(super) fn paired(names: &[String], header: usize) -> &str {
    names.get(header).or_else(|| names.first()).map_or("", String::as_str)
}

/// Finds and decodes the signatures.
pub(super) fn find<'a>(
    place: &SignaturePlace,
    encoding: Encoding,
    time: Option<&TimePlace>,
    request: &DeliveryRequest<'a>,
) -> Result<Found<'a>, Refusal> {
    let (header, name, texts, time) = match place {
        SignaturePlace::Body(path) => {
            let text = Cow::Owned(path.required(request)?);
            (0, path.as_str(), vec![text], None)
        }
        SignaturePlace::Headers(headers) => {
            let (index, name, value) = first_header(headers, request)?;
            let item =
                if let Some(TimePlace::Item(item)) = time { Some(item.as_str()) } else { None };
            let (texts, time) =
                split(headers, item, value).map_err(|kind| Refusal::with_part(kind, name))?;
            let texts = texts.into_iter().map(Cow::Borrowed).collect();
            (index, name, texts, time.map(Cow::Borrowed))
        }
    };
    let decoded = texts.iter().filter_map(|text| encoding.decode(text));
    let signatures: Vec<Vec<u8>> = decoded.filter(|bytes| !bytes.is_empty()).collect();
    if signatures.is_empty() {
        return Err(Refusal::with_part(RefusalKind::Malformed, name));
    }
    Ok(Found { signatures, header, time })
}

/// The first of the header fields that the request has.
fn first_header<'a, 'n>(
    headers: &'n SignatureHeaders,
    request: &DeliveryRequest<'a>,
) -> Result<(usize, &'n str, &'a str), Refusal> {
    for (index, name) in headers.names.iter().enumerate() {
        if let Some(value) = optional_header(request, name)? {
            return Ok((index, name, value));
        }
    }
    Err(Refusal::with_part(RefusalKind::Missing, paired(&headers.names, 0)))
}

type Split<'a> = (Vec<&'a str>, Option<&'a str>);

/// Splits a header field into its signatures and the item with the time.
fn split<'a>(
    headers: &SignatureHeaders,
    time: Option<&str>,
    value: &'a str,
) -> Result<Split<'a>, RefusalKind> {
    let Some(item) = &headers.item else {
        let texts = pieces(headers, value).filter_map(|text| text.strip_prefix(&headers.prefix));
        return Ok((bounded(texts)?, None));
    };
    let named = |name| {
        let pairs = pieces(headers, value).filter_map(|piece| piece.split_once('='));
        pairs.filter(move |(key, _)| *key == name).map(|(_, value)| value)
    };
    let mut times = time.into_iter().flat_map(named);
    let time = times.next();
    if times.next().is_some() {
        return Err(RefusalKind::Repeated);
    }
    let texts = named(item.as_str()).filter_map(|text| text.strip_prefix(&headers.prefix));
    Ok((bounded(texts)?, time))
}

/// The items of a header field, or its signatures if items have no name.
fn pieces<'a>(headers: &SignatureHeaders, value: &'a str) -> impl Iterator<Item = &'a str> {
    let (mut rest, separator) = (Some(value), headers.separator.as_deref());
    std::iter::from_fn(move || {
        let all = rest?;
        let split = separator.and_then(|separator| all.split_once(separator));
        rest = split.map(|(_, after)| after);
        Some(split.map_or(all, |(before, _)| before))
    })
    .map(move |piece| if separator.is_some() { piece.trim_ascii() } else { piece })
}

/// The signatures, if there are any and not too many.
fn bounded<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<&'a str>, RefusalKind> {
    let texts: Vec<&str> = texts.take(MAX_SIGNATURES + 1).collect();
    if texts.is_empty() || texts.len() > MAX_SIGNATURES {
        return Err(RefusalKind::Malformed);
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(item: Option<&str>, separator: Option<&str>, prefix: &str) -> SignatureHeaders {
        let text = |text: &str| text.to_owned();
        SignatureHeaders {
            names: vec![text("x")],
            item: item.map(text),
            separator: separator.map(text),
            prefix: prefix.to_owned(),
        }
    }

    #[test]
    fn a_header_field_is_split_into_its_signatures() {
        let whole = headers(None, None, "sha256=");
        assert_eq!(split(&whole, None, "sha256=ab,cd"), Ok((vec!["ab,cd"], None)));
        assert_eq!(split(&whole, None, "sha1=ab"), Err(RefusalKind::Malformed));
        let list = headers(None, Some(" "), "v1,");
        assert_eq!(split(&list, None, "v1,a v1a,b  v1,c"), Ok((vec!["a", "c"], None)));
        let items = headers(Some("v1"), Some(","), "");
        let value = "t=12, v1=a,v0=b ,v1=c==,x";
        assert_eq!(split(&items, Some("t"), value), Ok((vec!["a", "c=="], Some("12"))));
        assert_eq!(split(&items, Some("t"), "v1=a"), Ok((vec!["a"], None)));
        assert_eq!(split(&items, Some("t"), "t=1,t=2,v1=a"), Err(RefusalKind::Repeated));
        assert_eq!(split(&items, Some("t"), "t=1,v0=a"), Err(RefusalKind::Malformed));
        let many = "v1=a,".repeat(MAX_SIGNATURES + 1);
        assert_eq!(split(&items, None, &many), Err(RefusalKind::Malformed));
    }

    proptest! {
        #[test]
        fn no_header_field_panics(
            value in "\\PC{0,80}",
            item in proptest::option::of("[a-z]{1,2}"),
            separator in proptest::option::of("[,; ]|é"),
            prefix in "(v1,|sha256=|é)?",
        ) {
            let headers = headers(item.as_deref(), separator.as_deref(), &prefix);
            if let Ok((texts, _)) = split(&headers, Some("t"), &value) {
                prop_assert!((1..=MAX_SIGNATURES).contains(&texts.len()));
                for text in texts {
                    prop_assert!(value.contains(text));
                    let _ = Encoding::Hex.decode(text);
                    let _ = Encoding::Base64.decode(text);
                }
            }
        }
    }
}
