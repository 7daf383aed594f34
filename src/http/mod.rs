//! HTTP connections: accepting them, their time limits, TLS and their end; and fetching a document.
//! It knows nothing about webhooks.

pub mod acceptor;
pub mod activity;
pub mod client;
pub mod client_address;
pub mod closing;
pub mod connection;
pub mod connection_slots;
mod forwarded;
pub mod handler;
pub mod linger;
pub mod listener;
pub mod request_head;
pub mod tls;
pub mod unread_body;
