//! The address of a client, from header fields that proxies and callers write.

use hookgate::http::client_address::ClientAddress;
use hookgate::http::peer::Peer;
use hookgate::settings::SettingsReader;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use std::net::IpAddr;

/// More lines than a head can have.
const MAX_LINES: usize = 200;

const FIELDS: [&str; 2] = ["X-Forwarded-For", "Forwarded"];

/// Each line is a line of both header fields. The address is the peer or in the field, and what
/// stands to the left of an address that a trusted proxy appended does not change it.
pub fn check(data: &[u8]) {
    let data: Vec<u8> = data.iter().map(|byte| allowed(*byte)).collect();
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    if lines.len() > MAX_LINES {
        return;
    }
    for (field, appended) in FIELDS.into_iter().zip(["192.0.2.7", "for=192.0.2.7"]) {
        let settings = settings(field);
        let found = client(&settings, field, &lines);
        assert!(found == peer() || contain(&lines, found), "{found}");
        let in_line = [&data, b", ".as_slice(), appended.as_bytes()].concat();
        let in_line: Vec<&[u8]> = in_line.split(|byte| *byte == b'\n').collect();
        let as_line = [lines.as_slice(), &[appended.as_bytes()]].concat();
        for lines in [in_line, as_line] {
            assert_eq!(client(&settings, field, &lines).to_string(), "192.0.2.7");
        }
    }
}

/// A header field has no control bytes: hyper refuses a head with some.
fn allowed(byte: u8) -> u8 {
    if byte.is_ascii_control() && !matches!(byte, b'\n' | b'\t') { b' ' } else { byte }
}

fn peer() -> IpAddr {
    [10, 0, 0, 1].into()
}

fn settings(field: &str) -> ClientAddress {
    let toml = format!(
        "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\nclient_address_header = \"{field}\""
    );
    let toml = toml.parse().expect("TOML");
    let mut settings = SettingsReader::new(toml, std::iter::empty());
    ClientAddress::read(&mut settings.section("server"))
}

fn client(settings: &ClientAddress, field: &str, lines: &[&[u8]]) -> IpAddr {
    let name: HeaderName = field.parse().expect("a name");
    let mut headers = HeaderMap::new();
    for value in lines {
        headers.append(name.clone(), HeaderValue::from_bytes(value).expect("allowed bytes"));
    }
    let client = settings.of(&headers, Peer::Ip(peer()));
    client.ip().expect("a peer with an address, and fields with addresses")
}

/// Whether an address is anywhere in the lines.
fn contain(lines: &[&[u8]], address: IpAddr) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
    let runs = lines.iter().flat_map(|line| line.split(move |byte| !is_part(byte)));
    runs.filter_map(|run| str::from_utf8(run).ok()).any(|run| {
        let without_port = run.rsplit_once(':').map(|(address, _)| address);
        let parsed = [Some(run), without_port].into_iter().flatten().map(str::parse::<IpAddr>);
        parsed.flatten().any(|parsed| parsed.to_canonical() == address)
    })
}
