//! The header of the PROXY protocol, version 1 (a line) or 2 (binary), by which a proxy names the
//! client at the beginning of a connection.
//!
//! The end of a header is found here, because the parser cannot decide for every part of a line
//! whether it is incomplete or malformed. Only whole headers are parsed.

use crate::http::client_stream::ClientStream;
use crate::http::peer::Peer;
use ppp::{v1, v2};
use std::io;
use tokio::io::AsyncReadExt;

/// Maximum bytes of a header. In version 2 a proxy may append any number of other values.
const MAX_HEADER: usize = 4096;

/// Maximum bytes of a line of version 1.
const MAX_LINE: usize = 107;

/// Bytes of a header of version 2 before its addresses. The last two are the length of the rest.
const FIXED: usize = 16;

/// Bytes of the type and length of a value after the addresses of version 2.
const VALUE_HEAD: usize = 3;

/// The polynomial of CRC-32C, with its bits reversed.
const CRC32C_POLYNOMIAL: u32 = 0x82f6_3b78;

/// The first bytes of version 1.
const LINE_PREFIX: &[u8] = b"PROXY ";

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// The beginning of a header.
    Part,
    /// A header with this length.
    Header(usize),
    Invalid(&'static str),
}

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its bytes.
    pub length: usize,
    /// The client that it names; `None` if the proxy speaks for itself.
    pub client: Option<Peer>,
}

impl Header {
    /// Parses the header at the beginning of these bytes; `None` while it is incomplete.
    pub fn parse(received: &[u8]) -> io::Result<Option<Self>> {
        match start(received) {
            Start::Part => Ok(None),
            Start::Invalid(fault) => Err(invalid(fault)),
            Start::Header(length) => {
                let client = client(received.get(..length).unwrap_or_default())?;
                Ok(Some(Self { length, client }))
            }
        }
    }
}

/// Reads the header. Returns the stream after it, and the client that the proxy forwards; `None` if
/// the proxy speaks for itself. A client without an address on the internet is unnamed.
pub(crate) async fn read_header(
    mut stream: ClientStream,
) -> io::Result<(ClientStream, Option<Peer>)> {
    let mut received = Vec::with_capacity(FIXED + MAX_LINE);
    loop {
        if let Some(Header { length, client }) = Header::parse(&received)? {
            return Ok((stream.with_read_ahead(received, length), client));
        }
        match stream.read_buf(&mut received).await {
            Ok(0) | Err(_) if received.is_empty() => {
                return Err(io::ErrorKind::NotConnected.into());
            }
            Ok(0) => return Err(invalid("ends in the middle")),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether the connection was closed or reset without a byte, as load balancers check health.
pub(crate) fn is_unused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected
}

fn start(received: &[u8]) -> Start {
    if received.starts_with(v2::PROTOCOL_PREFIX) {
        let Some([.., high, low]) = received.get(..FIXED) else { return Start::Part };
        let length = FIXED + usize::from(u16::from_be_bytes([*high, *low]));
        return match received.len() {
            _ if length > MAX_HEADER => Start::Invalid("is longer than 4 KiB"),
            have if have < length => Start::Part,
            _ => Start::Header(length),
        };
    }
    if received.starts_with(LINE_PREFIX) {
        let line = received.get(..MAX_LINE).unwrap_or(received);
        return match line.windows(2).position(|pair| pair == b"\r\n") {
            Some(at) => Start::Header(at + 2),
            None if line.len() == MAX_LINE => Start::Invalid("is a line of more than 107 bytes"),
            None => Start::Part,
        };
    }
    let may_become = |prefix: &[u8]| prefix.starts_with(received);
    if may_become(v2::PROTOCOL_PREFIX) || may_become(LINE_PREFIX) {
        return Start::Part;
    }
    Start::Invalid("is missing: the connection begins with something else")
}

/// The client that a whole header names.
fn client(header: &[u8]) -> io::Result<Option<Peer>> {
    if header.starts_with(LINE_PREFIX) { client_of_line(header) } else { client_of_binary(header) }
}

fn client_of_line(line: &[u8]) -> io::Result<Option<Peer>> {
    // Whatever follows this word is ignored, as the specification asks.
    let unknown = line.strip_prefix(b"PROXY UNKNOWN");
    if unknown.is_some_and(|rest| rest.starts_with(b" ") || rest == b"\r\n") {
        return Ok(Some(Peer::Unnamed));
    }
    // The parser accepts ports with a sign.
    if line.contains(&b'+') {
        return Err(invalid("is malformed"));
    }
    let header = v1::Header::try_from(line).map_err(|_| invalid("is malformed"))?;
    Ok(Some(match header.addresses {
        v1::Addresses::Tcp4(pair) => Peer::from_ip(pair.source_address.into()),
        v1::Addresses::Tcp6(pair) => Peer::from_ip(pair.source_address.into()),
        v1::Addresses::Unknown => Peer::Unnamed,
    }))
}

fn client_of_binary(header: &[u8]) -> io::Result<Option<Peer>> {
    let header = v2::Header::try_from(header).map_err(|_| invalid("is malformed"))?;
    check_sum(&header)?;
    if header.command == v2::Command::Local {
        return Ok(None);
    }
    Ok(Some(match header.addresses {
        _ if header.protocol != v2::Protocol::Stream => Peer::Unnamed,
        v2::Addresses::IPv4(pair) => Peer::from_ip(pair.source_address.into()),
        v2::Addresses::IPv6(pair) => Peer::from_ip(pair.source_address.into()),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => Peer::Unnamed,
    }))
}

/// Compares the header with the checksum in it, if there is one. The values after the addresses are
/// looked at up to the first one that is malformed: no other value is used.
fn check_sum(header: &v2::Header<'_>) -> io::Result<()> {
    let is_sum = |value: &v2::TypeLengthValue<'_>| value.kind == u8::from(v2::Type::CRC32C);
    let mut end = header.len() - header.tlv_bytes().len();
    for value in header.tlvs().map_while(Result::ok) {
        end += VALUE_HEAD + value.value.len();
        if !is_sum(&value) {
            continue;
        }
        let Ok(expected) = <[u8; 4]>::try_from(&*value.value) else {
            return Err(invalid("has a checksum that is not 4 bytes long"));
        };
        // It was computed with zeros in its place.
        let (before, after) = header.as_bytes().split_at_checked(end).unwrap_or_default();
        let before = before.get(..end - expected.len()).unwrap_or_default();
        if crc32c(&[before, &[0; 4], after]) != u32::from_be_bytes(expected) {
            return Err(invalid("does not match its checksum"));
        }
    }
    Ok(())
}

/// The checksum CRC-32C, bit by bit: a header has at most 4 KiB.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let bit = |sum: u32, _| (sum >> 1) ^ (CRC32C_POLYNOMIAL & (sum & 1).wrapping_neg());
    let byte = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), bit);
    !parts.iter().copied().flatten().fold(!0, byte)
}

fn invalid(fault: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its PROXY protocol header {fault}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    /// A header of version 2 with these bytes for command, family and the rest.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[command, family], &length, rest].concat()
    }

    fn ipv4(source: [u8; 4]) -> Vec<u8> {
        [&source[..], &[10, 0, 0, 1], &[0x12, 0x34, 0, 80]].concat()
    }

    fn ipv6(source: &str) -> Vec<u8> {
        let octets = source.parse::<std::net::Ipv6Addr>().unwrap().octets();
        [&octets[..], &[0; 16], &[0x12, 0x34, 0, 80]].concat()
    }

    /// A header with the checksum of its bytes, in which these bits are flipped.
    fn with_checksum(flipped: u32) -> Vec<u8> {
        let values = |sum: u32| {
            let sum = sum.to_be_bytes();
            [&[4, 0, 1, 9, 3, 0, 4][..], &sum, &[4, 0, 2, 9, 9]].concat()
        };
        let header = |sum| binary(0x21, 0x11, &[&ipv4([192, 0, 2, 1])[..], &values(sum)].concat());
        header(crc32c(&[&header(0)]) ^ flipped)
    }

    #[test]
    fn the_checksum_is_crc_32c() {
        // The check value of the catalogue of CRC algorithms.
        assert_eq!(crc32c(&[b"1234", b"56789"]), 0xe306_9283);
    }

    #[tokio::test]
    async fn a_connection_that_is_reset_without_a_byte_is_unused() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let (caller, accepted) = tokio::join!(connecting, listener.accept());
        caller.unwrap().set_zero_linger().unwrap();
        let error = read_header(ClientStream::Tcp(accepted.unwrap().0)).await.unwrap_err();
        assert!(is_unused(&error), "{error}");
    }

    /// The client that is found, or the reason why there is none.
    type Found = Result<Option<String>, String>;

    /// Reads a header that arrives in these pieces, and what follows it.
    async fn read(pieces: &[&[u8]]) -> (Found, Vec<u8>) {
        let (near, mut far) = tokio::net::UnixStream::pair().unwrap();
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let sending = async move {
            for piece in pieces {
                // The reader may have refused the first pieces.
                let _ = tokio::io::AsyncWriteExt::write_all(&mut far, &piece).await;
                tokio::task::yield_now().await;
            }
        };
        let reading = async {
            let (mut stream, client) = match read_header(ClientStream::Unix(near)).await {
                Ok(read) => read,
                Err(error) => return (Err(error.to_string()), Vec::new()),
            };
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            (Ok(client.map(|client| client.to_string())), rest)
        };
        tokio::join!(reading, sending).0
    }

    fn valid() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let line = |text: &str| text.as_bytes().to_vec();
        let long = "f".repeat(88);
        vec![
            (line("PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n"), Some("192.0.2.1")),
            (line("PROXY TCP6 2001:db8::1 ::1 65535 0\r\n"), Some("2001:db8::1")),
            (line("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"), Some("192.0.2.1")),
            (line("PROXY UNKNOWN\r\n"), Some("unnamed")),
            (line(&format!("PROXY UNKNOWN {long}\r\n")[..]), Some("unnamed")),
            (line("PROXY UNKNOWN a b c d e f g h\r\n"), Some("unnamed")),
            (binary(0x21, 0x11, &ipv4([192, 0, 2, 1])), Some("192.0.2.1")),
            (binary(0x21, 0x21, &ipv6("2001:db8::1")), Some("2001:db8::1")),
            (binary(0x21, 0x21, &ipv6("::ffff:192.0.2.1")), Some("192.0.2.1")),
            // With more values after the addresses, and as long as a header may be.
            (
                binary(0x21, 0x11, &[&ipv4([192, 0, 2, 1])[..], &[4; 900]].concat()),
                Some("192.0.2.1"),
            ),
            (
                binary(0x21, 0x11, &[&ipv4([192, 0, 2, 1])[..], &[4; 4068]].concat()),
                Some("192.0.2.1"),
            ),
            // With a checksum, between other values.
            (with_checksum(0), Some("192.0.2.1")),
            // The proxy itself.
            (binary(0x20, 0x11, &ipv4([192, 0, 2, 1])), None),
            (binary(0x20, 0x00, &[]), None),
            // A client without an address.
            (binary(0x21, 0x00, &[1, 2, 3]), Some("unnamed")),
            (binary(0x21, 0x12, &ipv4([192, 0, 2, 1])), Some("unnamed")),
            (binary(0x21, 0x31, &[b'a'; 216]), Some("unnamed")),
        ]
    }

    fn malformed() -> Vec<Vec<u8>> {
        let lines = [
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711 80 90\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711 65536\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 04711 80\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711 +80\r\n",
            "PROXY TCP4 192.0.2.256 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 2001:db8::1 ::1 4711 80\r\n",
            "PROXY TCP6 192.0.2.1 10.0.0.1 4711 80\r\n",
            "PROXY  TCP4 192.0.2.1 10.0.0.1 4711 80\r\n",
            "PROXY TCP4  192.0.2.1 10.0.0.1 4711 80\r\n",
            "PROXY TCP4\r\n",
            "PROXY \r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY UDP4 192.0.2.1 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r \r\n",
            "proxy TCP4 192.0.2.1 10.0.0.1 4711 80\r\n",
            "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\n\0\r\nQUIX\n",
            "\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\n",
            // Ends in the middle.
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r",
            "PROXY TCP4 192.0.2.1",
            "P",
            "\r\n\r\n\0",
        ];
        let mut all: Vec<Vec<u8>> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        all.push([b"PROXY UNKNOWN ", "x".repeat(5000).as_bytes(), b"\r\n"].concat());
        all.push(b"PROXY TCP4 \xff\xfe 10.0.0.1 1 2\r\n".to_vec());
        let address = ipv4([192, 0, 2, 1]);
        all.extend([
            binary(0x11, 0x11, &address),
            binary(0x31, 0x11, &address),
            binary(0x22, 0x11, &address),
            binary(0x21, 0x41, &address),
            binary(0x21, 0x13, &address),
            // Too short for the addresses, and cut off.
            binary(0x21, 0x11, &address[..11]),
            binary(0x21, 0x21, &address),
            binary(0x21, 0x31, &[b'a'; 215]),
            binary(0x21, 0x11, &address)[..20].to_vec(),
            binary(0x21, 0x11, &address)[..13].to_vec(),
            // A wrong checksum, and one that is too short.
            with_checksum(1),
            binary(0x21, 0x11, &[&address[..], &[3, 0, 2, 0, 0]].concat()),
            // One byte longer than a header may be.
            binary(0x21, 0x11, &[&address[..], &[4; 4069]].concat()),
            binary(0x20, 0x00, &vec![0; 65_535]),
        ]);
        all
    }

    #[tokio::test]
    async fn a_header_names_the_client_and_the_rest_follows() {
        for (header, expected) in valid() {
            let both = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            let found = read(&[&both]).await;
            assert_eq!(found.0, Ok(expected.map(str::to_owned)), "{}", header.escape_ascii());
            assert_eq!(found.1, b"GET / HTTP/1.1\r\n\r\n", "{}", header.escape_ascii());
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        for header in malformed() {
            let (found, _) = read(&[&header]).await;
            let reason = found.expect_err(&header.escape_ascii().to_string());
            assert!(reason.starts_with("its PROXY protocol header "), "{reason}");
        }
        let error = read_header(ClientStream::Unix(tokio::net::UnixStream::pair().unwrap().0));
        assert!(is_unused(&error.await.unwrap_err()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_pieces_in_which_a_header_arrives_do_not_matter(
            (header, expected) in select(valid()),
            cuts in vec(any::<Index>(), 0..4),
        ) {
            let all = [&header[..], b"rest"].concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(all.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([all.len()]) {
                pieces.push(&all[from..cut]);
                from = cut;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let found = runtime.block_on(read(&pieces));
            prop_assert_eq!(found, (Ok(expected.map(str::to_owned)), b"rest".to_vec()));
        }

        #[test]
        fn no_bytes_are_read_beyond_a_bound_and_none_panic(
            prefix in select(vec![b"PROXY ".to_vec(), v2::PROTOCOL_PREFIX.to_vec(), Vec::new()]),
            bytes in vec(any::<u8>(), 0..200),
        ) {
            let all = [prefix, bytes].concat();
            if let Start::Header(length) = start(&all) {
                prop_assert!(length <= MAX_HEADER && length <= all.len());
                let _ = client(&all[..length]);
            }
        }
    }
}
