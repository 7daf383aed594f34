//! Redis: connections, and what the server reports about itself.

pub(in crate::queue) mod acl;
pub(in crate::queue) mod address;
pub(in crate::queue) mod address_setting;
pub(in crate::queue) mod client;
pub(in crate::queue) mod cluster;
mod fred_client;
pub(in crate::queue) mod connection;
pub(in crate::queue) mod handshake;
pub(in crate::queue) mod health;
pub(in crate::queue) mod limits;
pub(in crate::queue) mod reason;
pub(in crate::queue) mod reconnect;
pub(in crate::queue) mod replicas;
pub(in crate::queue) mod server_config;
pub(in crate::queue) mod reply;
pub(in crate::queue) mod server_info;
pub(in crate::queue) mod transport;
