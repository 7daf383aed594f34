//! Redis: connections, and what the server reports about itself.

pub(in crate::queue) mod acl;
pub(in crate::queue) mod address;
mod address_options;
pub(in crate::queue) mod address_setting;
pub(in crate::queue) mod client;
mod client_name;
pub(in crate::queue) mod cluster;
pub(in crate::queue) mod connection;
mod fred_client;
pub(in crate::queue) mod handshake;
pub(in crate::queue) mod health;
pub(in crate::queue) mod job_counts;
pub(in crate::queue) mod limits;
pub(in crate::queue) mod reason;
pub(in crate::queue) mod reconnect;
pub(in crate::queue) mod replicas;
pub(in crate::queue) mod server_config;
pub(in crate::queue) mod reply;
mod sentinel;
pub(in crate::queue) mod server_info;
pub(in crate::queue) mod tls;
pub(in crate::queue) mod transport;
