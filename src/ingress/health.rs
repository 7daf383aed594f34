//! The health check on the port of callers (`server.health_path`): whether the process is ready,
//! and nothing else. It is for load balancers that cannot reach the admin port.

use crate::ids::RequestId;
use crate::ingress::answer_body::AnswerBody;
use crate::ingress::response;
use crate::process::lifecycle::Readiness;
use crate::settings::Section;
use hyper::header::{ALLOW, CACHE_CONTROL, HeaderValue};
use hyper::{Method, Response, StatusCode};

/// Below it are the paths of the API.
const API: &str = "/api";

/// The health check, if there is one.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    path: String,
    readiness: Readiness,
}

impl HealthCheck {
    pub fn new(path: String, readiness: Readiness) -> Self {
        Self { path, readiness }
    }

    pub(super) fn is_at(&self, path: &str) -> bool {
        path == self.path
    }

    pub(super) fn answer(&self, method: &Method, id: &RequestId) -> Response<AnswerBody> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = response::empty(StatusCode::METHOD_NOT_ALLOWED, id);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let (status, body) = if self.readiness.is_ready() {
            (StatusCode::OK, &br#"{"ready":true}"#[..])
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, &br#"{"ready":false}"#[..])
        };
        let mut response = response::with_json_body(status, id, AnswerBody::new(body.to_vec()));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Reads `health_path`; `None` if there is no health check.
pub(super) fn read_path(section: &mut Section<'_>) -> Option<String> {
    let path = section.value("health_path", String::new());
    let path = Some(path).filter(|path| !path.is_empty())?;
    if let Some(fault) = path_fault(&path) {
        section.fault("health_path", fault);
    }
    Some(path)
}

fn path_fault(path: &str) -> Option<&'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let is_api =
        path.strip_prefix(API).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !path.starts_with('/') {
        Some("does not begin with /")
    } else if is_api {
        Some("is below /api/, where the webhooks are")
    } else if !path.bytes().all(is_plain) || path.contains("//") {
        Some("is no plain path; write it like \"/healthz\"")
    } else if path.split('/').any(|part| matches!(part, "." | "..")) {
        Some("has a part . or .., which clients remove")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::lifecycle::Condition;

    #[test]
    fn only_a_plain_path_outside_of_the_api_is_accepted() {
        for path in ["/", "/healthz", "/a/b.c", "/apis", "/health/", "/API/x"] {
            assert_eq!(path_fault(path), None, "{path}");
        }
        let wrong =
            ["healthz", "/api", "/api/", "/api/health", "/a?b", "/a b", "/a//b", "/a/../b", "/%61"];
        for path in wrong {
            assert!(path_fault(path).is_some(), "{path}");
        }
    }

    #[test]
    fn it_says_whether_the_process_is_ready_and_no_more() {
        let readiness = Readiness::default();
        let part = readiness.part("redis");
        let health = HealthCheck::new("/healthz".to_owned(), readiness);
        assert!(health.is_at("/healthz") && !health.is_at("/healthz/") && !health.is_at("/"));
        let id = RequestId::from_header_or_new(None);
        for (condition, expected) in [
            (Condition::NotReady("secret".to_owned()), 503),
            (Condition::Degraded(vec!["secret".to_owned()]), 200),
            (Condition::Ready, 200),
        ] {
            part.set(condition);
            assert_eq!(health.answer(&Method::GET, &id).status(), expected);
            assert_eq!(health.answer(&Method::POST, &id).status(), 405);
        }
    }
}
