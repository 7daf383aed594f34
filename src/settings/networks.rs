//! Networks of client addresses: those that settings and documents name, and the one that limits
//! count.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network such as `192.0.2.0/24` or `2001:db8::/32`. A single address is a network too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    /// As IPv6; IPv4 is mapped.
    first: u128,
    /// Counted in IPv6.
    prefix: u32,
}

/// Length of the prefix that all mapped IPv4 addresses share. A network of IPv6 with a shorter one
/// contains no IPv4.
const MAPPED: u32 = 96;

/// That prefix.
const MAPPED_FIRST: u128 = 0xffff;

impl Network {
    /// Whether the network contains an address. IPv4 mapped into IPv6 is IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = as_ipv6(address);
        let is_ipv4 = address >> 32 == MAPPED_FIRST;
        (self.prefix >= MAPPED || !is_ipv4) && address & mask(self.prefix) == self.first
    }
}

impl Network {
    /// Whether the network contains all addresses of its family.
    pub fn is_everything(&self) -> bool {
        self.prefix == 0 || (self.prefix == MAPPED && self.first == MAPPED_FIRST << 32)
    }
}

impl FromStr for Network {
    type Err = String;

    /// The error says what is wrong, without the text itself.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let invalid =
            || "is not a network such as \"192.0.2.0/24\" or \"2001:db8::/32\"".to_owned();
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Some(bits), number).ok_or_else(invalid)?;
        if length > bits {
            return Err(format!("has a prefix longer than {bits} bits"));
        }
        let prefix = 128 - bits + length;
        let first = as_ipv6(address);
        if first & mask(prefix) != first {
            return Err("has bits after its prefix".to_owned());
        }
        Ok(Self { first, prefix })
    }
}

/// A list of networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// The error says which network is wrong, and how.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        if texts.is_empty() {
            return Err("is empty".to_owned());
        }
        Self::parse_except(texts, "")
    }

    /// Like [`Self::parse`], without the texts that are a word and no network. There may be none
    /// else.
    pub fn parse_except(texts: &[String], word: &str) -> Result<Self, String> {
        let numbered =
            texts.iter().enumerate().filter(|(_, text)| word.is_empty() || *text != word);
        let networks = numbered.map(|(index, text)| {
            text.parse().map_err(|error| format!("number {} {error}", index + 1))
        });
        networks.collect::<Result<_, _>>().map(Self)
    }

    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them contains all addresses of its family.
    pub fn include_everything(&self) -> bool {
        self.0.iter().any(Network::is_everything)
    }
}

/// The unit by which limits count clients: an IPv4 address, or an IPv6 network of 64 bits. One
/// customer usually has all 2^64 addresses of such a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientNetwork {
    V4(Ipv4Addr),
    /// The first 64 bits.
    V6([u16; 4]),
}

impl ClientNetwork {
    pub fn from_ip(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [first, second, third, fourth, ..] = address.segments();
                Self::V6([first, second, third, fourth])
            }
        }
    }
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn as_ipv6(address: IpAddr) -> u128 {
    let mapped = |address: Ipv4Addr| address.to_ipv6_mapped();
    let address: Ipv6Addr = match address {
        IpAddr::V4(address) => mapped(address),
        IpAddr::V6(address) => address,
    };
    address.to_bits()
}

/// The bits of a prefix.
fn mask(prefix: u32) -> u128 {
    u128::MAX.checked_shl(128 - prefix).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn networks_of_both_families_contain_their_addresses() {
        for (network, address, expected) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.0/24", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.0/120", "192.0.2.1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("2001:db8::1", "2001:db8::1", true),
            ("2001:db8::1/128", "2001:db8::2", false),
            ("::/0", "2001:db8::1", true),
            ("::1", "127.0.0.1", false),
        ] {
            assert_eq!(contains(network, address), expected, "{network} {address}");
        }
    }

    #[test]
    fn all_of_ipv6_is_not_all_of_ipv4() {
        assert!(!contains("::/0", "192.0.2.1"));
        assert!(!contains("::/0", "::ffff:192.0.2.1"));
        assert!(contains("::ffff:0:0/96", "192.0.2.1"));
    }

    #[test]
    fn a_network_of_all_addresses_of_a_family_is_recognized() {
        for (network, expected) in [
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("::ffff:0:0/96", true),
            ("0.0.0.0/1", false),
            ("::/96", false),
            ("::/1", false),
            ("10.0.0.0/8", false),
        ] {
            assert_eq!(network.parse::<Network>().unwrap().is_everything(), expected, "{network}");
        }
    }

    #[test]
    fn ipv6_addresses_are_counted_by_network_and_mapped_ones_as_ipv4() {
        let network = |address: &str| ClientNetwork::from_ip(address.parse().unwrap());
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("::ffff:192.0.2.1"), network("::ffff:192.0.2.2"));
    }

    #[test]
    fn a_malformed_network_is_refused() {
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.1/8",
            "10.0/16",
            "2001:db8::/129",
            "2001:db8::1/32",
            "fe80::1%eth0",
            "example.com",
            "10.0.0.0/8/8",
            " 10.0.0.1",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert!(Networks::parse(&[]).is_err());
        let wrong = Networks::parse(&["10.0.0.0/8".to_owned(), "10.0.0.1/8".to_owned()]);
        assert_eq!(wrong.unwrap_err(), "number 2 has bits after its prefix");
    }
}
