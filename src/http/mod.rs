//! HTTP connections: accepting them, their time limits, TLS and their end; and fetching a document.
//! It knows nothing about webhooks.

pub mod acceptor;
pub mod activity;
mod certificate_expiry;
pub mod client;
pub mod client_address;
mod client_stream;
pub mod closing;
pub mod connection;
pub mod connection_slots;
mod forwarded;
pub mod handler;
pub mod linger;
pub mod listen;
pub mod listener;
mod opening;
pub mod peer;
pub(crate) mod proxied;
pub mod proxy_protocol;
pub mod request_head;
pub mod tls;
mod tls_files;
pub mod unread_body;
