//! The paths of the ingress port and their methods.

use crate::ingress::rejection::Rejection;
use hyper::Method;

/// The path that accepts webhooks.
pub const WEBHOOK_PATH: &str = "/api/webhook/workflow";

/// The path that reports what a webhook would start.
pub const PREVIEW_PATH: &str = "/api/webhook/workflow/preview";

/// A request that the ingress port serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Webhook,
    Preview,
}

impl Route {
    pub fn from_request(method: &Method, path: &str) -> Result<Self, Rejection> {
        match (path, method) {
            (WEBHOOK_PATH, &Method::POST) => Ok(Self::Webhook),
            (PREVIEW_PATH, &Method::POST) => Ok(Self::Preview),
            (WEBHOOK_PATH | PREVIEW_PATH, _) => Err(Rejection::MethodNotAllowed),
            _ => Err(Rejection::NotFound),
        }
    }
}
