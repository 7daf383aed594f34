//! Parses `queue.redis`. Only hosts and ports are ever repeated, because the address may contain a
//! password.

use crate::files::tls_roots::{self, Authorities};
use crate::settings::Secret;
use fred::error::{Error, ErrorKind};
use fred::prelude::Config;
use fred::types::config::Server;
use std::time::Duration;

const SCHEMES: [&str; 6] =
    ["redis", "rediss", "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster"];

/// Checks an address. The error says what is wrong with it.
pub(in crate::queue) fn check(address: &Secret) -> Result<(), String> {
    let scheme = address.reveal().split_once("://").map(|(scheme, _)| scheme);
    if !scheme.is_some_and(|scheme| SCHEMES.contains(&scheme)) {
        return Err(
            "not an address that begins with redis://, rediss://, redis-sentinel:// or redis-cluster://"
                .to_owned(),
        );
    }
    if address.reveal().contains('#') {
        return Err("has a #, which in a password is written %23".to_owned());
    }
    let (_, is_tls) = parse(address.reveal()).map_err(|error| fault(address.reveal(), &error))?;
    if is_tls { tls_roots::check_authorities() } else { Ok(()) }
}

/// fred's configuration for an address. The certificate authorities are read here within `timeout`:
/// fred would look for them by itself, reject all because of one that it cannot read, and report
/// that like a malformed address.
pub(in crate::queue) async fn config(address: &Secret, timeout: Duration) -> Result<Config, Error> {
    let (mut config, is_tls) = parse(address.reveal())?;
    if is_tls {
        let authorities = Authorities::current(timeout).await;
        let authorities = authorities.map_err(|fault| Error::new(ErrorKind::Tls, fault))?;
        config.tls = Some(authorities.client.clone().into());
    }
    Ok(config)
}

/// The hosts and ports of an address, without its other parts.
pub(in crate::queue) fn servers(address: &Secret) -> String {
    let hosts = parse(address.reveal()).map(|(config, _)| config.server.hosts());
    hosts.unwrap_or_default().iter().map(host_and_port).collect::<Vec<_>>().join(", ")
}

pub(in crate::queue) fn host_and_port(server: &Server) -> String {
    format!("{}:{}", server.host, server.port)
}

/// Parses an address without setting up TLS, and returns whether it requests TLS.
fn parse(address: &str) -> Result<(Config, bool), Error> {
    match address.strip_prefix("rediss") {
        Some(rest) => Config::from_url(&format!("redis{rest}")).map(|config| (config, true)),
        None => Config::from_url(address).map(|config| (config, false)),
    }
}

/// A readable message for fred's error. fred does not report which number is invalid, so the parts
/// of the address are checked here.
fn fault(address: &str, error: &Error) -> String {
    let (before, query) = address.split_once('?').unwrap_or((address, ""));
    let authority = before.split("://").nth(1).unwrap_or_default();
    let (authority, path) = authority.split_once('/').unwrap_or((authority, ""));
    let is_cut_short = !authority.contains('@') && (path.contains('@') || query.contains('@'));
    let fault = match error.details() {
        _ if is_cut_short => {
            "has a / or ? before its @: in a password they are written %2F and %3F"
        }
        "InvalidPort" => {
            "has a port that is not a number up to 65535, or a password that is not percent-encoded"
        }
        "EmptyHost" | "Invalid or missing host." => "names no host",
        "InvalidIpv4Address" | "InvalidIpv6Address" | "InvalidDomainCharacter" | "IdnaError" => {
            "has a host that is neither a name nor an address"
        }
        "Invalid UTF-8 string." => "has a user or password that is not UTF-8 when decoded",
        details if details.contains("sentinel service name") => {
            "needs ?sentinelServiceName=, the name of the primary"
        }
        _ if !path.is_empty() && path.parse::<u8>().is_err() => {
            "has a database after the host that is not a number from 0 to 255"
        }
        _ if query.contains("node=") => "has a &node= that is not host:port",
        _ => "is not a valid address",
    };
    fault.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_own_message_which_repeats_nothing() {
        for (address, fault) in [
            ("http://pa55", "begins with redis://"),
            ("redis://:pa#55@host", "%23"),
            ("redis://:pa55/x@host", "%2F"),
            ("redis://:pa55?x@host", "%3F"),
            ("redis://host:65536", "up to 65535"),
            ("redis://host:pa55", "up to 65535"),
            ("redis://", "names no host"),
            ("redis://:6379", "names no host"),
            ("redis://[::1", "neither a name nor an address"),
            ("redis://a b", "neither a name nor an address"),
            ("redis://:%ff@host", "not UTF-8"),
            ("redis://host/256", "from 0 to 255"),
            ("redis://host/pa55", "from 0 to 255"),
            ("redis://host/0/1", "from 0 to 255"),
            ("redis-sentinel://host", "sentinelServiceName"),
            ("redis-cluster://host?node=pa55", "not host:port"),
            ("redis-cluster://host?node=host:port", "not host:port"),
            ("redis-sentinel://host/x?sentinelServiceName=a&node=b:1", "from 0 to 255"),
        ] {
            let message = check(&Secret::new(address.to_owned())).expect_err(address);
            assert!(message.contains(fault), "{address}: {message}");
            assert!(!message.contains("pa55"), "{address}: {message}");
        }
    }

    #[test]
    fn addresses_of_every_kind_are_accepted() {
        for address in [
            "redis://host",
            "redis://user:p%23@host:1/255",
            "redis-sentinel://a:1?sentinelServiceName=m&sentinelPassword=p@ss&node=b:2",
            "redis-cluster://a?node=b:2&node=c:3",
        ] {
            assert_eq!(check(&Secret::new(address.to_owned())), Ok(()), "{address}");
        }
        assert_eq!(servers(&Secret::new("rediss://:p@host:1".to_owned())), "host:1");
    }
}
