//! The URL of a request as its sender sees it, for schemes that sign it.

use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::http::uri::Authority;

/// What the URLs of deliveries begin with.
#[derive(Debug, Clone)]
pub(super) enum Urls {
    /// `endpoints.public_url`: scheme and host.
    Public(String),
    /// The scheme of the port. The host is that of each request.
    OfPort(&'static str),
}

impl Urls {
    pub(super) fn new(public_url: Option<&str>, has_tls: bool) -> Self {
        match public_url {
            Some(url) => Self::Public(url.to_owned()),
            None => Self::OfPort(if has_tls { "https" } else { "http" }),
        }
    }

    /// The URL of a request. Forwarded header fields never count, since any caller can send them.
    pub(super) fn url(&self, head: &Parts) -> String {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        match self {
            Self::Public(url) => format!("{url}{target}"),
            Self::OfPort(scheme) => {
                let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
                // HTTP/2 has the host in the target.
                let host = head.uri.authority().map(Authority::as_str).or(host);
                format!("{scheme}://{}{target}", host.unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn head(target: &str, host: Option<&str>) -> Parts {
        let mut request = Request::builder().uri(target);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_url_is_that_of_the_sender() {
        let public = Urls::new(Some("https://hooks.example"), false);
        assert_eq!(
            public.url(&head("/in/o/w?a=%20b", Some("internal:2212"))),
            "https://hooks.example/in/o/w?a=%20b"
        );
        let port = Urls::new(None, false);
        assert_eq!(port.url(&head("/in/o/w", Some("h:2212"))), "http://h:2212/in/o/w");
        assert_eq!(port.url(&head("/in/o/w", None)), "http:///in/o/w");
        let tls = Urls::new(None, true);
        assert_eq!(
            tls.url(&head("https://h.example/in/o/w?x", None)),
            "https://h.example/in/o/w?x"
        );
    }
}
