//! A request to an endpoint, before it is handled.

use crate::ids::RequestId;
use crate::ingress::delivery::address_path::AddressPath;
use crate::ingress::delivery::endpoints::Endpoints;
use hyper::http::request::Parts;
use std::net::IpAddr;
use std::time::SystemTime;

/// A request to an endpoint.
#[derive(Debug)]
pub(in crate::ingress) struct Delivery<'a> {
    pub(in crate::ingress) endpoints: &'a Endpoints,
    pub(in crate::ingress) path: AddressPath,
    pub(in crate::ingress) head: &'a Parts,
    /// `None`: a client over a Unix socket, which has no address.
    pub(in crate::ingress) client: Option<IpAddr>,
    /// The client as limits count it; `None`: not at all.
    pub(in crate::ingress) limited: Option<IpAddr>,
    pub(in crate::ingress) id: &'a RequestId,
    pub(in crate::ingress) received_at: SystemTime,
}
