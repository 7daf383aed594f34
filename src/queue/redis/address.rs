//! Parses `queue.redis`. Only hosts, ports, paths of sockets and names of options are ever repeated,
//! because the address may contain a password.
//!
//! fred's own parser is not used: it ignores unknown options, does not report which part is wrong,
//! cannot verify a certificate for an IPv6 address, and reads neither a database nor credentials
//! without a host for a Unix socket.

use crate::queue::redis::address_options::{self, Deployment, Options};
use crate::queue::redis::tls::RedisTls;
use crate::settings::Secret;
use fred::error::{Error, ErrorKind};
use fred::prelude::Config;
use fred::types::config::{ClusterDiscoveryPolicy, Server, ServerConfig};
use percent_encoding::percent_decode_str;
use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

/// Each scheme, the deployment that it names, and whether it requests TLS.
const SCHEMES: [(&str, Deployment, bool); 9] = [
    ("redis", Deployment::Server, false),
    ("rediss", Deployment::Server, true),
    ("valkey", Deployment::Server, false),
    ("valkeys", Deployment::Server, true),
    ("unix", Deployment::Socket, false),
    ("redis-sentinel", Deployment::Sentinel, false),
    ("rediss-sentinel", Deployment::Sentinel, true),
    ("redis-cluster", Deployment::Cluster, false),
    ("rediss-cluster", Deployment::Cluster, true),
];

/// Linux limits the path of a socket to this many bytes.
const LONGEST_SOCKET_PATH: usize = 107;

const SENTINEL_PORT: u16 = 26379;
const SERVER_PORT: u16 = 6379;

/// Checks an address. Returns warnings about it. The error says what is wrong with it.
pub(in crate::queue) fn check(address: &Secret) -> Result<Vec<String>, String> {
    parse(address.reveal()).map(|address| address.warnings)
}

/// Checks whether the TLS of an address can be used. The error says why not. An address that cannot
/// be parsed has none.
pub(in crate::queue) fn check_tls(address: &Secret, tls: &RedisTls) -> Result<(), String> {
    parse(address.reveal()).map_or(Ok(()), |address| tls.check(address.is_tls))
}

/// The nodes that an address names, if it is that of a cluster.
pub(in crate::queue) fn cluster_nodes(address: &Secret) -> Option<Vec<Server>> {
    let server = parse(address.reveal()).ok()?.config.server;
    server.is_clustered().then(|| server.hosts())
}

/// fred's configuration for an address. The files for TLS are read here within `timeout`.
pub(in crate::queue) async fn config(
    address: &Secret,
    tls: &RedisTls,
    timeout: Duration,
) -> Result<Config, Error> {
    let address = parse(address.reveal()).map_err(|fault| Error::new(ErrorKind::Config, fault))?;
    let mut config = address.config;
    if address.is_tls {
        let tls = tls.config(timeout).await;
        config.tls = Some(tls.map_err(|fault| Error::new(ErrorKind::Tls, fault))?);
    }
    Ok(config)
}

/// The hosts and ports of an address, or the path of its socket, without its other parts.
pub(in crate::queue) fn servers(address: &Secret) -> String {
    let hosts = parse(address.reveal()).map(|address| address.config.server.hosts());
    hosts.unwrap_or_default().iter().map(server_name).collect::<Vec<_>>().join(", ")
}

/// Whether Sentinels are asked for the primary.
pub(in crate::queue) fn is_behind_sentinel(address: &Secret) -> bool {
    let server = parse(address.reveal()).map(|address| address.config.server);
    matches!(server, Ok(ServerConfig::Sentinel { .. }))
}

/// The name of a server in logs and reports: `host:port`, or `unix:/path`.
pub(in crate::queue) fn server_name(server: &Server) -> String {
    let Server { host, port, .. } = server;
    if host.starts_with('/') {
        format!("unix:{host}")
    } else if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// A parsed address.
#[derive(Debug)]
struct Address {
    /// fred's configuration, without TLS.
    config: Config,
    is_tls: bool,
    warnings: Vec<String>,
}

/// Parses an address. The error says what is wrong with it.
fn parse(address: &str) -> Result<Address, String> {
    let (scheme, rest) = address.split_once("://").unwrap_or_default();
    let known = SCHEMES.iter().find(|(known, ..)| *known == scheme);
    let Some(&(_, deployment, is_tls)) = known else {
        return Err("not an address that begins with redis://, rediss://, valkey://, valkeys://, unix://, redis-sentinel:// or redis-cluster:// (rediss-sentinel://, rediss-cluster:// with TLS)".to_owned());
    };
    if address.contains('#') {
        return Err("has a #, which in a password is written %23".to_owned());
    }
    let parts = Parts::new(rest);
    let parsed = parts.parse(deployment);
    let (config, warnings) = parsed.map_err(|fault| {
        let hint = "has a / or ? before its @: in a password they are written %2F and %3F";
        if parts.is_cut_short() { hint.to_owned() } else { fault }
    })?;
    Ok(Address { config, is_tls, warnings })
}

/// The parts of an address after its scheme.
#[derive(Debug, Clone, Copy)]
struct Parts<'a> {
    /// What is before the last `@`.
    credentials: Option<&'a str>,
    host: &'a str,
    /// What follows the host, without the slash.
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn new(rest: &'a str) -> Self {
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = before.split_once('/').unwrap_or((before, ""));
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        Self { credentials, host, path, query }
    }

    /// Whether the host is probably a part of the credentials.
    fn is_cut_short(self) -> bool {
        self.credentials.is_none() && (self.path.contains('@') || self.query.contains('@'))
    }

    fn parse(self, deployment: Deployment) -> Result<(Config, Vec<String>), String> {
        let (username, password) = self.credentials()?;
        let options = address_options::read(self.query, deployment)?;
        let database = self.database(deployment, options.database.as_deref())?;
        let mut warnings = options.warnings.clone();
        if username.is_some() && password.is_none() {
            warnings.push("its user is ignored, because it has no password".to_owned());
        }
        let server = self.server(deployment, options)?;
        let config = Config { server, username, password, database, ..Config::default() };
        Ok((config, warnings))
    }

    /// User and password, decoded.
    fn credentials(self) -> Result<(Option<String>, Option<String>), String> {
        let (user, password) =
            self.credentials.map_or(("", ""), |both| both.split_once(':').unwrap_or((both, "")));
        let decode = |part: &str| match percent_decode_str(part).decode_utf8() {
            Ok(decoded) => Ok((!decoded.is_empty()).then(|| decoded.into_owned())),
            Err(_) => Err("has a user or password that is not UTF-8 when decoded".to_owned()),
        };
        Ok((decode(user)?, decode(password)?))
    }

    /// The database, which may be given after the host, as an option, or as both.
    fn database(self, deployment: Deployment, option: Option<&str>) -> Result<Option<u8>, String> {
        let number = |text: &str, place: &str| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse::<u8>().ok().filter(|_| is_number);
            number
                .ok_or_else(|| format!("has a database {place} that is not a number from 0 to 255"))
        };
        let in_option = option.map(|text| number(text, "in ?db=")).transpose()?;
        let in_path = match (deployment, self.path) {
            (Deployment::Socket, _) | (_, "") => None,
            (_, path) => Some(number(path, "after the host")?),
        };
        let database = in_path.or(in_option);
        if in_path.zip(in_option).is_some_and(|(path, option)| path != option) {
            return Err("has one database after the host and another in ?db=".to_owned());
        }
        if deployment == Deployment::Cluster && database.is_some_and(|database| database != 0) {
            return Err("names a database, and a cluster has only database 0".to_owned());
        }
        Ok(database)
    }

    fn server(self, deployment: Deployment, options: Options) -> Result<ServerConfig, String> {
        match deployment {
            Deployment::Server => {
                Ok(ServerConfig::Centralized { server: server(self.host, Some(SERVER_PORT))? })
            }
            Deployment::Socket => Ok(ServerConfig::Unix { path: self.socket()? }),
            Deployment::Sentinel => {
                let Some(service_name) = options.service_name else {
                    return Err("needs ?sentinelServiceName=, the name of the primary".to_owned());
                };
                Ok(ServerConfig::Sentinel {
                    hosts: self.hosts(SENTINEL_PORT, &options.nodes)?,
                    service_name,
                    username: options.sentinel_user,
                    password: options.sentinel_password,
                })
            }
            Deployment::Cluster => Ok(ServerConfig::Clustered {
                hosts: self.hosts(SERVER_PORT, &options.nodes)?,
                policy: ClusterDiscoveryPolicy::default(),
            }),
        }
    }

    /// The host of the address and those of its options.
    fn hosts(self, default_port: u16, nodes: &[String]) -> Result<Vec<Server>, String> {
        let first = server(self.host, Some(default_port));
        let others = nodes.iter().map(|node| {
            server(node, None).map_err(|_| "has a &node= that is not host:port".to_owned())
        });
        std::iter::once(first).chain(others).collect()
    }

    /// The path of a Unix socket, decoded.
    fn socket(self) -> Result<PathBuf, String> {
        if !self.host.is_empty() {
            let fault = "has a host: the path of a socket follows three slashes, unix:///path";
            return Err(fault.to_owned());
        }
        if self.path.is_empty() {
            return Err("names no socket: write it like unix:///run/redis/redis.sock".to_owned());
        }
        let path: Vec<u8> = std::iter::once(b'/').chain(percent_decode_str(self.path)).collect();
        if path.len() > LONGEST_SOCKET_PATH || path.contains(&0) {
            let fault = format!(
                "has a path that cannot be a socket's: one has at most {LONGEST_SOCKET_PATH} bytes"
            );
            return Err(fault);
        }
        Ok(PathBuf::from(OsString::from_vec(path)))
    }
}

/// Parses a host and its port, which is required if there is no default. The host of an IPv6
/// address is without its brackets: with them fred cannot verify a certificate for it.
fn server(text: &str, default_port: Option<u16>) -> Result<Server, String> {
    let no_host = || "has a host that is neither a name nor an address".to_owned();
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']').ok_or_else(no_host)?;
            host.parse::<Ipv6Addr>().map_err(|_| no_host())?;
            let port = if rest.is_empty() { Some("") } else { rest.strip_prefix(':') };
            (host, port.ok_or_else(no_host)?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    if host.is_empty() {
        return Err("names no host".to_owned());
    }
    let is_of_host =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if !host.bytes().all(is_of_host) {
        return Err(no_host());
    }
    let port = if port.is_empty() { default_port } else { port.parse().ok() };
    let port = port.ok_or(
        "has a port that is not a number up to 65535, or a password that is not percent-encoded",
    )?;
    Ok(Server::new(host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(address: &str) -> Result<Vec<String>, String> {
        check(&Secret::new(address.to_owned()))
    }

    fn config(address: &str) -> Config {
        parse(address).unwrap_or_else(|fault| panic!("{address}: {fault}")).config
    }

    #[test]
    fn every_fault_has_its_own_message_which_repeats_nothing() {
        for (address, fault) in [
            ("http://pa55", "begins with redis://"),
            ("valkey-cluster://pa55", "begins with redis://"),
            ("pa55", "begins with redis://"),
            ("redis://:pa#55@host", "%23"),
            ("redis://:pa55/x@host", "%2F"),
            ("redis://:pa55?x@host", "%3F"),
            ("redis://user:55?x@host", "%3F"),
            ("redis://host:65536", "up to 65535"),
            ("redis://host:pa55", "up to 65535"),
            ("redis://", "names no host"),
            ("redis://:6379", "names no host"),
            ("redis://[::1", "neither a name nor an address"),
            ("redis://[pa55]", "neither a name nor an address"),
            ("redis://[::1]pa55", "neither a name nor an address"),
            ("redis://a b", "neither a name nor an address"),
            ("redis://:%ff@host", "not UTF-8"),
            ("redis://host/256", "from 0 to 255"),
            ("redis://host/+1", "from 0 to 255"),
            ("redis://host/pa55", "from 0 to 255"),
            ("redis://host/0/1", "from 0 to 255"),
            ("redis://host?db=pa55", "in ?db= that is not a number from 0 to 255"),
            ("redis://host/1?db=2", "one database after the host and another in ?db="),
            ("redis://host?pa55word=1", "has an unknown option: pa55word"),
            ("redis-sentinel://host", "sentinelServiceName"),
            ("redis-cluster://host?node=pa55", "not host:port"),
            ("redis-cluster://host?node=host:port", "not host:port"),
            ("redis-cluster://host/3", "only database 0"),
            ("redis-cluster://host?db=3", "only database 0"),
            ("redis-sentinel://host/x?sentinelServiceName=a&node=b:1", "from 0 to 255"),
            ("unix://tmp/redis.sock", "three slashes"),
            ("unix://user:pa55@tmp/redis.sock", "three slashes"),
            ("unix://", "names no socket"),
            ("unix:///", "names no socket"),
            ("unix:///redis.sock?db=x", "from 0 to 255"),
            ("unix:///redis%00.sock", "at most 107 bytes"),
        ] {
            let message = checked(address).expect_err(address);
            assert!(message.contains(fault), "{address}: {message}");
            let is_named = address.contains("?pa55word");
            assert!(is_named || !message.contains("pa55"), "{address}: {message}");
        }
        let long = checked(&format!("unix:///{}", "x".repeat(107))).unwrap_err();
        assert!(long.contains("at most 107 bytes"), "{long}");
    }

    #[test]
    fn addresses_of_every_kind_are_accepted() {
        for (address, servers_of_it) in [
            ("redis://host", "host:6379"),
            ("redis://host:/", "host:6379"),
            ("redis://user:p%23@host:1/255", "host:1"),
            ("redis://:p@ss@host", "host:6379"),
            ("redis://[::1]:7/1?db=1", "[::1]:7"),
            ("valkey://host", "host:6379"),
            (
                "redis-sentinel://a:1?sentinelServiceName=m&sentinelPassword=p@ss&node=b:2",
                "a:1, b:2",
            ),
            ("redis-sentinel://a/3?sentinelServiceName=m&node=[::1]:2", "a:26379, [::1]:2"),
            ("redis-cluster://a?node=b:2&node=c:3", "a:6379, b:2, c:3"),
            ("redis-cluster://a/0", "a:6379"),
            ("unix:///run/redis%20a.sock?db=1", "unix:/run/redis a.sock"),
            ("unix://user:p%40@/run/redis.sock", "unix:/run/redis.sock"),
        ] {
            assert_eq!(checked(address), Ok(Vec::new()), "{address}");
            assert_eq!(servers(&Secret::new(address.to_owned())), servers_of_it);
        }
        for (address, is_tls) in [
            ("rediss://:p@host:1", true),
            ("valkeys://host", true),
            ("rediss-sentinel://host?sentinelServiceName=m", true),
            ("rediss-cluster://host", true),
            ("redis://rediss", false),
        ] {
            assert_eq!(parse(address).unwrap().is_tls, is_tls, "{address}");
        }
    }

    #[test]
    fn a_cluster_is_known_by_its_scheme_alone() {
        let nodes = |address: &str| cluster_nodes(&Secret::new(address.to_owned()));
        let node = |host: &str, port| Server::new(host.to_owned(), port);
        for scheme in ["redis-cluster", "rediss-cluster"] {
            let found = nodes(&format!("{scheme}://a?node=b:2"));
            assert_eq!(found, Some(vec![node("a", 6379), node("b", 2)]));
        }
        for address in ["redis://:-cluster://@host", "redis://host", "redis-cluster://"] {
            assert_eq!(nodes(address), None, "{address}");
        }
    }

    #[test]
    fn user_password_and_database_are_decoded() {
        let some = |text: &str| Some(text.to_owned());
        for (address, user, password, database) in [
            ("redis://host", None, None, None),
            ("redis://:p@host/0", None, some("p"), Some(0)),
            (
                "redis://us%3Aer:p%2F%3F%23%40%25%C3%A4@host/7",
                some("us:er"),
                some("p/?#@%ä"),
                Some(7),
            ),
            ("redis://u:p:q%zz@host?db=9", some("u"), some("p:q%zz"), Some(9)),
            ("unix://u:p%40@/a/b?db=2", some("u"), some("p@"), Some(2)),
        ] {
            let config = config(address);
            assert_eq!(
                (config.username, config.password, config.database),
                (user, password, database),
                "{address}"
            );
        }
        let warnings = checked("redis://user@host").unwrap();
        assert_eq!(warnings, ["its user is ignored, because it has no password"]);
        let address = "redis-sentinel://u:p@a?sentinelServiceName=m&sentinelUsername=su&sentinelPassword=s%2Bp";
        let ServerConfig::Sentinel { service_name, username, password, .. } =
            config(address).server
        else {
            panic!("Sentinel");
        };
        assert_eq!((service_name.as_str(), username, password), ("m", some("su"), some("s+p")));
    }
}
