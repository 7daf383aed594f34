//! The interface between connections and whatever answers their requests.

use crate::http::peer::Peer;
use crate::http::unread_body::UnreadBody;
use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use std::convert::Infallible;

/// Answers the requests of connections.
pub trait Handler: Send + Sync + 'static {
    /// The type of the body of an answer.
    type Body: Body<Data = Bytes, Error = Infallible> + Send + 'static;

    /// Answers one request of a peer.
    fn respond(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
    ) -> impl Future<Output = Answer<Self::Body>> + Send;
}

/// An answer, and the part of the request's body that was not read before it.
#[derive(Debug)]
pub struct Answer<B> {
    pub(crate) response: Response<B>,
    pub(crate) unread: UnreadBody,
}
