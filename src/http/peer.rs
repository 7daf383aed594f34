//! The other end of a connection.

use std::fmt;
use std::net::IpAddr;

/// The other end of a connection, or the client that trusted proxies name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Ip(IpAddr),
    /// A process of this machine that connects through a Unix socket. It has no address.
    Unix,
    /// A client that a trusted proxy forwards without naming it. It has no address, and is no
    /// trusted proxy.
    Unnamed,
}

impl Peer {
    /// A peer with an address. IPv4 over an IPv6 socket is IPv4.
    pub fn from_ip(address: IpAddr) -> Self {
        Self::Ip(address.to_canonical())
    }

    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix | Self::Unnamed => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(formatter),
            Self::Unix => formatter.write_str("unix"),
            Self::Unnamed => formatter.write_str("unnamed"),
        }
    }
}
