//! The path of an endpoint: its prefix, an organization and a webhook id.

use crate::ids::{OrganizationId, WebhookId};
use crate::ingress::rejection::Rejection;
use hyper::Method;
use percent_encoding::percent_decode_str;

/// The last part of the path that reports what an address would start.
const PREVIEW: &str = "preview";

/// The methods that deliver, as the value of `Allow`.
pub(in crate::ingress) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What a request to an endpoint asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Deliver,
    Preview,
    /// HEAD: whether the address exists. Starts nothing.
    Probe,
    /// OPTIONS: which methods it has. Starts nothing.
    Options,
}

/// The address of an endpoint, as a path names it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::ingress) struct AddressPath {
    pub(super) organization: OrganizationId,
    pub(super) webhook: WebhookId,
    is_preview: bool,
}

impl AddressPath {
    /// Parses a path below a prefix; `None` if it is not the path of an address. Each part is
    /// decoded once.
    pub(in crate::ingress) fn parse(prefix: &str, path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix(prefix)?.strip_prefix('/')?.split('/');
        let (organization, webhook) = (parts.next()?, parts.next()?);
        let is_preview = match (parts.next(), parts.next()) {
            (None, _) => false,
            (Some(PREVIEW), None) => true,
            _ => return None,
        };
        Some(Self {
            organization: OrganizationId::new(&decode(organization)?).ok()?,
            webhook: WebhookId::new(&decode(webhook)?).ok()?,
            is_preview,
        })
    }

    pub(super) fn is_preview(&self) -> bool {
        self.is_preview
    }

    pub(super) fn action(&self, method: &Method) -> Result<Action, Rejection> {
        match (self.is_preview, method) {
            (true, &Method::POST) => Ok(Action::Preview),
            (true, _) => Err(Rejection::MethodNotAllowed),
            (
                false,
                &Method::GET | &Method::POST | &Method::PUT | &Method::PATCH | &Method::DELETE,
            ) => Ok(Action::Deliver),
            (false, &Method::HEAD) => Ok(Action::Probe),
            (false, &Method::OPTIONS) => Ok(Action::Options),
            (false, _) => Err(Rejection::DeliveryMethodNotAllowed),
        }
    }
}

/// Decodes a part of a path. `None` if it has an incomplete escape or is not UTF-8.
fn decode(part: &str) -> Option<String> {
    let is_complete = |rest: &str| {
        rest.get(..2).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    if !part.split('%').skip(1).all(is_complete) {
        return None;
    }
    percent_decode_str(part).decode_utf8().ok().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<(String, String, bool)> {
        let path = AddressPath::parse("/in", path)?;
        let text = (path.organization.as_str().to_owned(), path.webhook.as_str().to_owned());
        Some((text.0, text.1, path.is_preview))
    }

    fn found(organization: &str, webhook: &str, is_preview: bool) -> (String, String, bool) {
        (organization.to_owned(), webhook.to_owned(), is_preview)
    }

    #[test]
    fn each_part_is_decoded_once() {
        assert_eq!(parse("/in/o/w"), Some(found("o", "w", false)));
        assert_eq!(parse("/in/o/w/preview"), Some(found("o", "w", true)));
        assert_eq!(parse("/in/o/preview"), Some(found("o", "preview", false)));
        assert_eq!(parse("/in/a%2Fb/%C3%BC%20"), Some(found("a/b", "ü ", false)));
        assert_eq!(parse("/in/%2525/%2e%2E"), Some(found("%25", "..", false)));
        assert_eq!(parse("/in/o/a+b"), Some(found("o", "a+b", false)));
        let longest = "w".repeat(256);
        assert_eq!(parse(&format!("/in/o/{longest}")), Some(found("o", &longest, false)));
    }

    #[test]
    fn other_paths_are_no_addresses() {
        let long = format!("/in/o/{}", "w".repeat(257));
        let very_long = format!("/in/o/{}", "%41".repeat(10_000));
        for path in [
            "/in",
            "/in/",
            "/in/o",
            "/in/o/",
            "/in//w",
            "/inn/o/w",
            "/x/o/w",
            "/in/o/w/",
            "/in/o/w/x",
            "/in/o/w/preview/",
            "/in/o/w/preview/x",
            "/in/o/%",
            "/in/o/%4",
            "/in/o/%4g",
            "/in/o/%ff",
            "/in/o/%C3",
            "/in/%ed%a0%80/w",
            &long,
            &very_long,
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn the_method_decides_what_happens() {
        let action =
            |path: &str, method: Method| AddressPath::parse("/in", path).unwrap().action(&method);
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert_eq!(action("/in/o/w", method), Ok(Action::Deliver));
        }
        assert_eq!(action("/in/o/w", Method::HEAD), Ok(Action::Probe));
        assert_eq!(action("/in/o/w", Method::OPTIONS), Ok(Action::Options));
        let refused = Err(Rejection::DeliveryMethodNotAllowed);
        assert_eq!(action("/in/o/w", Method::TRACE), refused);
        assert_eq!(action("/in/o/w", Method::from_bytes(b"PURGE").unwrap()), refused);
        assert_eq!(action("/in/o/w/preview", Method::POST), Ok(Action::Preview));
        assert_eq!(action("/in/o/w/preview", Method::GET), Err(Rejection::MethodNotAllowed));
    }
}
