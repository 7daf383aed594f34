//! The head of a request: method, target, and the headers that are adopted.

use hookgate::ids::RequestId;
use hookgate::ingress::{Rejection, Route, WEBHOOK_PATH};
use hookgate::queue::TraceContext;
use hyper::{Method, Uri};

/// Lines: a method, a target, an `X-Request-Id`, a `traceparent`, a `tracestate`.
pub fn check(data: &[u8]) {
    let mut lines = data.splitn(5, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    if let (Ok(method), Ok(uri)) = (Method::from_bytes(line()), Uri::try_from(line())) {
        check_route(&method, uri.path());
    }
    let offered = line();
    let id = RequestId::from_header_or_new(Some(offered));
    assert!((1..=RequestId::MAX_BYTES).contains(&id.as_str().len()));
    assert!(id.as_str().bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{id:?}");
    let _ = TraceContext::new(Some(line()), Some(line()));
}

fn check_route(method: &Method, path: &str) {
    let expected = match (path == WEBHOOK_PATH, method == Method::POST) {
        (true, true) => Ok(Route::Webhook),
        (true, false) => Err(Rejection::MethodNotAllowed),
        (false, _) => Err(Rejection::NotFound),
    };
    assert_eq!(Route::from_request(method, path), expected);
}
