//! Which of our paths a request is for.

use super::rejection::Rejection;
use hyper::Method;

/// Where webhooks are sent.
pub const WEBHOOK_PATH: &str = "/api/webhook/workflow";

/// Where to ask what a webhook would start.
pub const PREVIEW_PATH: &str = "/api/webhook/workflow/preview";

/// What can be asked of the ingress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Webhook,
    Preview,
}

impl Route {
    pub fn of(method: &Method, path: &str) -> Result<Self, Rejection> {
        match (path, method) {
            (WEBHOOK_PATH, &Method::POST) => Ok(Self::Webhook),
            (PREVIEW_PATH, &Method::POST) => Ok(Self::Preview),
            (WEBHOOK_PATH | PREVIEW_PATH, _) => Err(Rejection::MethodNotAllowed),
            _ => Err(Rejection::NotFound),
        }
    }
}
