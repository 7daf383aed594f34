//! The header of the PROXY protocol at the beginning of a connection.

use hookgate::http::peer::Peer;
use hookgate::http::proxy_protocol::Header;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Maximum bytes of a header, and of a line.
const MAX_HEADER: usize = 4096;
const MAX_LINE: usize = 107;

/// What is found does not depend on where a read ends, nor on what follows, and the client is the
/// one that a second reader finds.
pub fn check(data: &[u8]) {
    let found = Header::parse(data).map_err(|error| error.to_string());
    if let Ok(Some(header)) = found {
        assert!((8..=MAX_HEADER).contains(&header.length) && header.length <= data.len());
        assert_eq!(header.client, client(&data[..header.length]), "{header:?}");
    }
    for end in 0..data.len().min(MAX_HEADER + 1) {
        match (Header::parse(&data[..end]).map_err(|error| error.to_string()), &found) {
            (Ok(None), _) => {}
            (part, whole) => assert_eq!(part, *whole, "it changes after {end} bytes"),
        }
    }
    let more = [data, b"GET / HTTP/1.1\r\n"].concat();
    if matches!(found, Ok(None)) {
        assert!(data.len() < MAX_HEADER, "a header is awaited without end");
    } else {
        assert_eq!(Header::parse(&more).map_err(|error| error.to_string()), found);
    }
}

/// The client of an accepted header.
fn client(header: &[u8]) -> Option<Peer> {
    match header.strip_prefix(SIGNATURE) {
        Some(rest) => client_of_binary(rest),
        None => Some(client_of_line(header)),
    }
}

fn client_of_binary(rest: &[u8]) -> Option<Peer> {
    assert_eq!(rest[0] >> 4, 2, "the version");
    assert_eq!(usize::from(u16::from_be_bytes([rest[2], rest[3]])), rest.len() - 4);
    let addresses = &rest[4..];
    match (rest[0] & 15, rest[1]) {
        (0, _) => None,
        (1, 0x11) => Some(ip(<[u8; 4]>::try_from(&addresses[..4]).expect("IPv4"))),
        (1, 0x21) => Some(ip(<[u8; 16]>::try_from(&addresses[..16]).expect("IPv6"))),
        (1, _) => Some(Peer::Unnamed),
        (command, _) => panic!("the command {command} is accepted"),
    }
}

fn client_of_line(line: &[u8]) -> Peer {
    assert!(line.len() <= MAX_LINE && line.ends_with(b"\r\n"), "{}", line.escape_ascii());
    let words: Vec<&[u8]> = line[..line.len() - 2].split(|byte| *byte == b' ').collect();
    assert_eq!(words[0], b"PROXY");
    if words[1] == b"UNKNOWN" {
        return Peer::Unnamed;
    }
    let [_, protocol, source, target, from, to] = words[..] else {
        panic!("a line of other words is accepted: {}", line.escape_ascii());
    };
    let text = |word| std::str::from_utf8(word).expect("a word of an address");
    for port in [from, to] {
        assert!(text(port).parse::<u16>().is_ok_and(|number| number.to_string() == text(port)));
    }
    match protocol {
        b"TCP4" => {
            assert!(text(target).parse::<Ipv4Addr>().is_ok());
            ip(text(source).parse::<Ipv4Addr>().expect("IPv4"))
        }
        b"TCP6" => {
            assert!(text(target).parse::<Ipv6Addr>().is_ok());
            ip(text(source).parse::<Ipv6Addr>().expect("IPv6"))
        }
        _ => panic!("another protocol is accepted: {}", line.escape_ascii()),
    }
}

/// IPv4 over IPv6 is IPv4.
fn ip(address: impl Into<IpAddr>) -> Peer {
    Peer::Ip(match address.into() {
        IpAddr::V6(address) => {
            address.to_ipv4_mapped().map_or_else(|| address.into(), IpAddr::from)
        }
        address @ IpAddr::V4(_) => address,
    })
}
