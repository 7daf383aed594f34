//! The client of a request: the peer of the connection, or the one that trusted proxies name.

use crate::http::forwarded::ForwardedField;
use crate::http::peer::Peer;
use crate::settings::{Networks, Section};
use hyper::HeaderMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The entry of `server.trusted_proxies` that stands for all peers over Unix sockets.
const UNIX: &str = "unix";

/// How the client of a request is found: `server.trusted_proxies`, `server.client_address_header`
/// and `server.proxy_protocol`.
#[derive(Debug, Clone, Default)]
pub struct ClientAddress {
    /// `None`: no proxy is trusted, and the client is the peer.
    proxies: Option<TrustedProxies>,
    /// Whether connections begin with a header of the PROXY protocol. The peer of a connection is
    /// then the one that the header names.
    proxy_protocol: bool,
}

#[derive(Debug, Clone)]
struct TrustedProxies {
    networks: Networks,
    /// Whether peers over Unix sockets are trusted.
    unix: bool,
    field: ForwardedField,
}

impl ClientAddress {
    pub fn read(section: &mut Section<'_>) -> Self {
        let texts: Vec<String> = section.value("trusted_proxies", Vec::new());
        let header: String = section.value("client_address_header", "X-Forwarded-For".to_owned());
        let proxy_protocol = section.value("proxy_protocol", false);
        let field = ForwardedField::from_name(&header).unwrap_or_else(|| {
            section.fault("client_address_header", "must be \"X-Forwarded-For\" or \"Forwarded\"");
            ForwardedField::XForwardedFor
        });
        if proxy_protocol && texts.is_empty() {
            let message = "needs trusted_proxies: connections of all other peers are closed";
            section.fault("proxy_protocol", message);
        }
        Self { proxies: TrustedProxies::read(section, &texts, field), proxy_protocol }
    }

    /// The client of a request.
    ///
    /// If the peer is a trusted proxy, the entries of the header field are read from the right, and
    /// the client is the first address that is not a trusted proxy. An entry that is malformed or
    /// hides its address ends the search. The client is then the last address found: the proxy that
    /// wrote that entry. The header field of any other peer is ignored.
    #[inline]
    pub fn of(&self, headers: &HeaderMap, peer: Peer) -> Peer {
        match &self.proxies {
            None => peer,
            Some(proxies) => proxies.client(headers, peer),
        }
    }

    /// The address by which limits count the deliveries of a client; `None`: by none. A peer with
    /// an internal address that is not trusted is most likely a proxy that is missing in
    /// `server.trusted_proxies`. Its address is that of all clients, so a limit would let one of
    /// them lock out the others. A peer that a trusted proxy names is no such proxy.
    pub fn for_limits(&self, client: Peer, peer: Peer) -> Option<IpAddr> {
        let is_known = self.proxy_protocol || self.trusts(peer);
        let is_counted = is_known || peer.ip().is_some_and(|address| !is_internal(address));
        client.ip().filter(|_| is_counted)
    }

    /// Whether any proxy is trusted.
    pub fn trusts_proxies(&self) -> bool {
        self.proxies.is_some()
    }

    /// Whether a peer is a trusted proxy.
    pub fn trusts(&self, peer: Peer) -> bool {
        self.proxies.as_ref().is_some_and(|proxies| proxies.contain(peer))
    }

    /// Whether connections begin with a header of the PROXY protocol.
    pub fn uses_proxy_protocol(&self) -> bool {
        self.proxy_protocol
    }

    /// Whether no peer of a Unix socket (`is_unix`), or of a TCP port, can be a trusted proxy.
    pub fn trusts_none(&self, is_unix: bool) -> bool {
        self.proxies.as_ref().is_none_or(
            |TrustedProxies { networks, unix, .. }| {
                if is_unix { !unix } else { networks.are_none() }
            },
        )
    }
}

impl TrustedProxies {
    /// The proxies of `server.trusted_proxies`; `None` if there are none.
    fn read(section: &mut Section<'_>, texts: &[String], field: ForwardedField) -> Option<Self> {
        let key = "trusted_proxies";
        if texts.is_empty() {
            return None;
        }
        let unix = texts.iter().any(|text| text == UNIX);
        match Networks::parse_except(texts, UNIX) {
            Ok(networks) => {
                if networks.include_everything() {
                    let message = "trusts every address: any caller can choose its client address";
                    section.warning(key, message);
                }
                Some(Self { networks, unix, field })
            }
            Err(message) => {
                section.fault(key, message);
                None
            }
        }
    }

    fn contain(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ip(address) => self.networks.contain(address),
            Peer::Unix => self.unix,
            Peer::Unnamed => false,
        }
    }

    fn client(&self, headers: &HeaderMap, peer: Peer) -> Peer {
        let mut client = peer;
        let mut addresses = self.field.addresses(headers);
        while self.contain(client)
            && let Some(Some(address)) = addresses.next()
        {
            client = Peer::Ip(address);
        }
        client
    }
}

/// Whether an address is of this host or of a private network: loopback, private (RFC 1918, and
/// `fc00::/7`), link-local, or shared by a provider (100.64.0.0/10).
fn is_internal(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            let is_own = address.is_loopback() || address.is_link_local();
            is_own || address.is_private() || is_shared || address == Ipv4Addr::UNSPECIFIED
        }
        IpAddr::V6(address) => {
            let is_own = address.is_loopback() || address.is_unicast_link_local();
            is_own || address.is_unique_local() || address == Ipv6Addr::UNSPECIFIED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Fault, SettingsReader};
    use hyper::header::{HeaderName, HeaderValue};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    const PROXIES: &str = r#"trusted_proxies = ["10.0.0.0/8", "2001:db8:ffff::/48"]"#;
    const FORWARDED: &str = "client_address_header = \"forwarded\"";

    fn read(toml: &str) -> (ClientAddress, Vec<Fault>, Vec<String>) {
        let toml = format!("[server]\n{toml}").parse().unwrap();
        let mut settings = SettingsReader::new(toml, std::iter::empty());
        let read = ClientAddress::read(&mut settings.section("server"));
        let warnings = settings.warnings();
        (read, settings.into_faults(), warnings)
    }

    fn settings(toml: &str) -> ClientAddress {
        let (read, faults, _) = read(toml);
        assert_eq!(faults, []);
        read
    }

    fn x_forwarded_for() -> ClientAddress {
        settings(PROXIES)
    }

    fn forwarded() -> ClientAddress {
        settings(&format!("{PROXIES}\n{FORWARDED}"))
    }

    fn ip(address: &str) -> Peer {
        Peer::Ip(address.parse().unwrap())
    }

    /// The client of a request from `peer` with the same lines in both header fields.
    fn client(settings: &ClientAddress, peer: &str, lines: &[&[u8]]) -> Peer {
        let mut headers = HeaderMap::new();
        for name in ["x-forwarded-for", "forwarded"].map(HeaderName::from_static) {
            for line in lines {
                headers.append(name.clone(), HeaderValue::from_bytes(line).unwrap());
            }
        }
        let peer = match peer {
            "unix" => Peer::Unix,
            "unnamed" => Peer::Unnamed,
            address => ip(address),
        };
        settings.of(&headers, peer)
    }

    fn assert_client(settings: &ClientAddress, peer: &str, lines: &[&str], expected: &str) {
        let bytes: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        assert_eq!(client(settings, peer, &bytes).to_string(), expected, "{lines:?}");
    }

    #[test]
    fn the_client_is_the_first_address_from_the_right_that_is_no_trusted_proxy() {
        for (lines, expected) in [
            (&[][..], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&["192.0.2.1"], "192.0.2.1"),
            (&["198.51.100.9, 192.0.2.1"], "192.0.2.1"),
            (&["198.51.100.9,192.0.2.1,10.1.1.1 ,\t10.2.2.2"], "192.0.2.1"),
            (&["198.51.100.9", "192.0.2.1, 10.1.1.1", "10.2.2.2"], "192.0.2.1"),
            (&["192.0.2.1, ", " , 10.1.1.1,,", ""], "192.0.2.1"),
            (&["2001:db8::1, 2001:db8:ffff::2"], "2001:db8::1"),
            (&["::ffff:192.0.2.1, ::ffff:10.0.0.2"], "192.0.2.1"),
            (&["[::ffff:192.0.2.1]:80"], "192.0.2.1"),
            // With ports and brackets.
            (&["192.0.2.1:4711, 10.1.1.1:80"], "192.0.2.1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["2001:db8::1:4711"], "2001:db8::1:4711"),
            // Only trusted proxies: the one furthest away.
            (&["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ] {
            assert_client(&x_forwarded_for(), "10.0.0.1", lines, expected);
        }
    }

    #[test]
    fn a_malformed_entry_ends_the_search_at_the_proxy_that_wrote_it() {
        for entry in [
            "unknown",
            "_hidden",
            "-",
            "192.0.2",
            "192.0.2.01",
            "192.0.2.256",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:123456",
            "192.0.2.1 192.0.2.2",
            "[192.0.2.1]",
            "[2001:db8::1",
            "[2001:db8::1]4711",
            "[2001:db8::1]:4711:1",
            "2001:db8::1]",
            "fe80::1%eth0",
            "2001:db8::/64",
            "\"192.0.2.1\"",
            "example.com",
            "caf\u{e9}",
        ] {
            let line = format!("192.0.2.9, {entry}");
            assert_client(&x_forwarded_for(), "10.0.0.1", &[&line], "10.0.0.1");
            let line = format!("192.0.2.9, {entry}, 10.1.1.1");
            assert_client(&x_forwarded_for(), "10.0.0.1", &[&line], "10.1.1.1");
        }
        let line = b"192.0.2.9, \xff\xfe, 10.1.1.1";
        assert_eq!(client(&x_forwarded_for(), "10.0.0.1", &[line]).to_string(), "10.1.1.1");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (lines, expected) in [
            (&["for=192.0.2.1"][..], "192.0.2.1"),
            (&["For=\"192.0.2.1:4711\";Proto=https;by=10.0.0.1"], "192.0.2.1"),
            (&["proto=https; FOR=\"[2001:db8::1]:4711\" ;host=\"a,b;c\""], "2001:db8::1"),
            (&["for=\"[2001:db8::1]\";;"], "2001:db8::1"),
            (&["for=192.0.2.1:_port, for=10.1.1.1"], "192.0.2.1"),
            (&["for=192.0.2.9, for=192.0.2.1;by=_x", "for=10.1.1.1, for=10.2.2.2"], "192.0.2.1"),
            (&["for=192.0.2.1, , for=\"[::ffff:10.1.1.1]\""], "192.0.2.1"),
            (&["for=192.0.2.1;host=\"x, y\";ext=\"for=9.9.9.9\", for=10.1.1.1"], "192.0.2.1"),
        ] {
            assert_client(&forwarded(), "10.0.0.1", lines, expected);
        }
        for element in [
            "for=unknown",
            "for=_hidden",
            "for=\"_hidden:80\"",
            "for=\"unknown\"",
            "for=",
            "for",
            "192.0.2.1",
            "proto=https",
            "for =192.0.2.1",
            "for= 192.0.2.1",
            "for=192.0.2.1;for=192.0.2.1",
            "for=192.0.2.1;x",
            "for=\"192.0.2.1",
            "for=192.0.2.1\"",
            "for=\"192.0.2.1\"x\"\"",
            "for=\"192\\.0.2.1\"",
            "for=192.0.2.1;x=\"\\\"\"",
        ] {
            let line = format!("for=192.0.2.9, {element}, for=10.1.1.1");
            assert_client(&forwarded(), "10.0.0.1", &[&line], "10.1.1.1");
        }
    }

    #[test]
    fn only_the_field_of_a_trusted_peer_counts() {
        for (peer, expected) in [
            ("10.0.0.1", "192.0.2.1"),
            ("::ffff:10.0.0.1", "192.0.2.1"),
            ("2001:db8:ffff::1", "192.0.2.1"),
            ("203.0.113.1", "203.0.113.1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            let lines = ["192.0.2.1, 10.1.1.1"];
            assert_client(&x_forwarded_for(), peer, &lines, expected);
            assert_client(&settings(""), peer, &lines, peer);
        }
        // Neither field is read in place of the other.
        assert_client(&x_forwarded_for(), "10.0.0.1", &["for=192.0.2.1"], "10.0.0.1");
        assert_client(&forwarded(), "10.0.0.1", &["192.0.2.1"], "10.0.0.1");
    }

    #[test]
    fn peers_over_unix_sockets_are_trusted_by_their_name() {
        let both = settings(r#"trusted_proxies = ["10.0.0.0/8", "unix"]"#);
        assert_client(&both, "unix", &["192.0.2.1, 10.1.1.1"], "192.0.2.1");
        assert_client(&both, "unix", &["10.1.1.1"], "10.1.1.1");
        assert_client(&both, "unix", &["192.0.2.1, unknown"], "unix");
        assert_client(&both, "unix", &["192.0.2.1, unix"], "unix");
        assert_client(&both, "unix", &[], "unix");
        let only = settings(r#"trusted_proxies = ["unix"]"#);
        assert_client(&only, "unix", &["192.0.2.9, 192.0.2.1"], "192.0.2.1");
        assert_client(&only, "127.0.0.1", &["192.0.2.1"], "127.0.0.1");
        assert_client(&x_forwarded_for(), "unix", &["192.0.2.1"], "unix");
        for (settings, expected) in
            [(&both, (false, false)), (&only, (false, true)), (&x_forwarded_for(), (true, false))]
        {
            assert_eq!((settings.trusts_none(true), settings.trusts_none(false)), expected);
        }
    }

    #[test]
    fn a_client_that_a_proxy_leaves_unnamed_names_nobody() {
        let everyone = settings(r#"trusted_proxies = ["0.0.0.0/0", "::/0", "unix"]"#);
        for settings in [everyone, x_forwarded_for(), forwarded()] {
            assert_client(&settings, "unnamed", &["192.0.2.1"], "unnamed");
            assert_client(&settings, "unnamed", &["for=192.0.2.1"], "unnamed");
            assert!(!settings.trusts(Peer::Unnamed));
        }
    }

    #[test]
    fn no_more_than_64_entries_are_read() {
        let proxies = |count: usize| vec!["10.1.1.1"; count].join(",");
        for (count, expected) in [(63, "192.0.2.1"), (64, "10.1.1.1"), (4000, "10.1.1.1")] {
            let line = format!("192.0.2.1,{}", proxies(count));
            assert_client(&x_forwarded_for(), "10.0.0.1", &[&line], expected);
        }
        let empty = format!("192.0.2.1,{}", ",".repeat(10_000));
        assert_client(&x_forwarded_for(), "10.0.0.1", &[&empty], "10.0.0.1");
        let pairs = format!("for=192.0.2.1;{}", "x=y;".repeat(10_000));
        assert_client(&forwarded(), "10.0.0.1", &[&pairs], "192.0.2.1");
        let quotes = "\"".repeat(10_001);
        assert_client(&forwarded(), "10.0.0.1", &["for=192.0.2.1", &quotes], "10.0.0.1");
    }

    #[test]
    fn wrong_settings_are_faults() {
        for (toml, key, words) in [
            ("trusted_proxies = [\"unix\", \"Unix\"]", "trusted_proxies", "number 2"),
            ("proxy_protocol = true", "proxy_protocol", "needs trusted_proxies"),
            ("trusted_proxies = [\"10.0.0.0/8\", \"10.0.0.1/8\"]", "trusted_proxies", "number 2"),
            ("trusted_proxies = [\"proxy\"]", "trusted_proxies", "192.0.2.0/24"),
            ("trusted_proxies = \"10.0.0.0/8\"", "trusted_proxies", ""),
            ("client_address_header = \"X-Real-IP\"", "client_address_header", "Forwarded"),
        ] {
            let (_, faults, _) = read(toml);
            assert_eq!(faults.len(), 1, "{toml}: {faults:?}");
            assert_eq!(faults[0].key, format!("server.{key}"));
            assert!(faults[0].message.contains(words), "{faults:?}");
        }
        for (network, is_warned) in
            [("0.0.0.0/0", true), ("::/0", true), ("10.0.0.0/8", false), ("::1", false)]
        {
            let (read, faults, warnings) =
                read(&format!("trusted_proxies = [\"192.0.2.1\", \"{network}\"]"));
            assert!(faults.is_empty() && read.trusts_proxies());
            assert_eq!(warnings.len(), usize::from(is_warned), "{network}: {warnings:?}");
        }
    }

    #[test]
    fn limits_do_not_count_an_internal_peer_that_is_not_trusted() {
        let client = ip("192.0.2.1");
        let counted = |peer: &str| x_forwarded_for().for_limits(client, ip(peer)).is_some();
        for peer in ["10.0.0.1", "203.0.113.1", "2001:db8:ffff::1", "2001:db8::1", "100.128.0.1"] {
            assert!(counted(peer), "{peer}");
        }
        for peer in [
            "127.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "::ffff:192.168.1.1",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(!counted(peer), "{peer}");
        }
        let peer = ip("10.0.0.1");
        assert_eq!(settings("").for_limits(peer, peer), None, "no proxy is trusted");
        assert_eq!(x_forwarded_for().for_limits(Peer::Unnamed, Peer::Unnamed), None, "no address");
        assert_eq!(settings("").for_limits(Peer::Unix, Peer::Unix), None);
        let unix = settings(r#"trusted_proxies = ["unix"]"#);
        assert_eq!(unix.for_limits(client, Peer::Unix), client.ip());
        assert_eq!(unix.for_limits(Peer::Unix, Peer::Unix), None, "no address");
        // A trusted proxy has named the peer.
        let named = settings(&format!("{PROXIES}\nproxy_protocol = true"));
        assert_eq!(named.for_limits(ip("192.168.1.1"), ip("192.168.1.1")), ip("192.168.1.1").ip());
    }

    /// Pieces of header fields, and nonsense.
    fn text() -> impl Strategy<Value = String> {
        let piece = select(vec![
            "192.0.2.1",
            "10.0.0.1",
            "2001:db8::1",
            "::ffff:192.0.2.9",
            "[",
            "]",
            ":80",
            ",",
            ", ",
            "\"",
            "\\",
            ";",
            "=",
            "for=",
            "For=\"",
            "proto=https",
            "_hidden",
            "unknown",
            " ",
            "\t",
            "é",
            "%",
        ]);
        vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// Whether an address is anywhere in a text.
    fn contains(text: &str, address: IpAddr) -> bool {
        let at: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let parts = at.iter().flat_map(|&begin| at.iter().map(move |&end| (begin, end)));
        parts.filter(|(begin, end)| begin < end && end - begin < 46).any(|(begin, end)| {
            let parsed = text[begin..end].parse::<IpAddr>();
            parsed.is_ok_and(|parsed| parsed.to_canonical() == address)
        })
    }

    proptest! {
        #[test]
        fn the_client_is_the_peer_or_in_the_field(lines in vec(text(), 0..4)) {
            let bytes: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
            for settings in [x_forwarded_for(), forwarded()] {
                let found = client(&settings, "10.9.9.9", &bytes);
                let is_peer = found.to_string() == "10.9.9.9";
                let found = found.ip().unwrap();
                prop_assert!(is_peer || lines.iter().any(|line| contains(line, found)), "{found}");
            }
        }

        /// A caller that reaches the first proxy can write what it likes: the proxy appends the
        /// address of the caller to it, in the same line or in another.
        #[test]
        fn nothing_that_a_caller_sends_changes_its_address(given in text(), is_in_line: bool) {
            for (settings, appended) in [
                (x_forwarded_for(), "198.51.100.7, 10.0.0.1"),
                (forwarded(), "for=\"198.51.100.7:80\";proto=https, for=10.0.0.1"),
            ] {
                let one_line = format!("{given}, {appended}");
                let lines =
                    if is_in_line { vec![one_line.as_str()] } else { vec![&given, appended] };
                let bytes: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
                prop_assert_eq!(client(&settings, "10.9.9.9", &bytes).to_string(), "198.51.100.7");
            }
        }
    }
}
