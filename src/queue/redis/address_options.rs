//! The options of an address of Redis. Clients of Redis ignore or reinterpret options that they do
//! not know, so each has its own set. Here every option is in one table or is refused by its name.

use form_urlencoded::parse;

/// What the options of an address say. Their values are decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `host:port` of further Sentinels or cluster nodes.
    pub(super) nodes: Vec<String>,
    pub(super) database: Option<String>,
    pub(super) service_name: Option<String>,
    pub(super) sentinel_user: Option<String>,
    pub(super) sentinel_password: Option<String>,
    /// One for each option that is ignored although it may matter.
    pub(super) warnings: Vec<String>,
}

/// The deployments of Redis that an address can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deployment {
    Server,
    Socket,
    Sentinel,
    Cluster,
}

/// How an option of the table is treated.
#[derive(Debug, Clone, Copy)]
enum OptionKind {
    Node,
    Database,
    ServiceName,
    SentinelUser,
    SentinelPassword,
    /// Ignored without a warning: it has no effect here.
    Redundant,
    /// Ignored with a warning that says what holds instead.
    Tuning(&'static str),
    /// Refused, with the place where this is configured.
    Elsewhere(&'static str),
}

// What holds instead of an option.
const OWN_LIMITS: &str = "queue.enqueue_timeout limits every call";
const OWN_CONNECTIONS: &str = "queue.connections sets the number of connections";
const OWN_NAME: &str = "connections have the name hookgate";
const BEFORE_HOST: &str = "is not supported: user and password are written before the @";
const SENTINEL_NAME: &str = "is not supported: the name of the primary is sentinelServiceName";
const BY_SCHEME: &str = "is not supported: the address begins with rediss:// for TLS";
const ALWAYS_CHECKED: &str = "is not supported: certificates are always checked";
const CA_FILE: &str = "is not supported: set ca_file in [queue.tls]";
const CERT_FILE: &str = "is not supported: set cert_file in [queue.tls]";
const KEY_FILE: &str = "is not supported: set key_file in [queue.tls]";

/// Every option that is known. The spellings are those of ioredis, redis-py, go-redis, lettuce and
/// fred.
const OPTIONS: &[(&str, OptionKind)] = &[
    ("node", OptionKind::Node),
    ("db", OptionKind::Database),
    ("sentinelServiceName", OptionKind::ServiceName),
    ("sentinelUsername", OptionKind::SentinelUser),
    ("sentinelPassword", OptionKind::SentinelPassword),
    // Every address of a name is tried, and every reply is understood.
    ("family", OptionKind::Redundant),
    ("protocol", OptionKind::Redundant),
    ("decode_responses", OptionKind::Redundant),
    // Names of the connection, limits and sizes.
    ("client_name", OptionKind::Tuning(OWN_NAME)),
    ("clientName", OptionKind::Tuning(OWN_NAME)),
    ("connectionName", OptionKind::Tuning(OWN_NAME)),
    ("timeout", OptionKind::Tuning(OWN_LIMITS)),
    ("connectTimeout", OptionKind::Tuning(OWN_LIMITS)),
    ("commandTimeout", OptionKind::Tuning(OWN_LIMITS)),
    ("dial_timeout", OptionKind::Tuning(OWN_LIMITS)),
    ("read_timeout", OptionKind::Tuning(OWN_LIMITS)),
    ("write_timeout", OptionKind::Tuning(OWN_LIMITS)),
    ("socket_timeout", OptionKind::Tuning(OWN_LIMITS)),
    ("socket_connect_timeout", OptionKind::Tuning(OWN_LIMITS)),
    ("maxRetriesPerRequest", OptionKind::Tuning(OWN_LIMITS)),
    ("max_retries", OptionKind::Tuning(OWN_LIMITS)),
    ("retry_on_timeout", OptionKind::Tuning(OWN_LIMITS)),
    ("pool_size", OptionKind::Tuning(OWN_CONNECTIONS)),
    ("max_connections", OptionKind::Tuning(OWN_CONNECTIONS)),
    // What is configured in another place.
    ("addr", OptionKind::Elsewhere("is not supported: a further host is &node=host:port")),
    ("username", OptionKind::Elsewhere(BEFORE_HOST)),
    ("password", OptionKind::Elsewhere(BEFORE_HOST)),
    ("database", OptionKind::Elsewhere("is not supported: the database is db")),
    ("keyPrefix", OptionKind::Elsewhere("is not supported: set queue.prefix")),
    ("sentinelMasterId", OptionKind::Elsewhere(SENTINEL_NAME)),
    ("master_name", OptionKind::Elsewhere(SENTINEL_NAME)),
    ("service_name", OptionKind::Elsewhere(SENTINEL_NAME)),
    ("tls", OptionKind::Elsewhere(BY_SCHEME)),
    ("ssl", OptionKind::Elsewhere(BY_SCHEME)),
    ("rejectUnauthorized", OptionKind::Elsewhere(ALWAYS_CHECKED)),
    ("ssl_cert_reqs", OptionKind::Elsewhere(ALWAYS_CHECKED)),
    ("ssl_check_hostname", OptionKind::Elsewhere(ALWAYS_CHECKED)),
    ("skip_verify", OptionKind::Elsewhere(ALWAYS_CHECKED)),
    ("verifyPeer", OptionKind::Elsewhere(ALWAYS_CHECKED)),
    ("ssl_ca_certs", OptionKind::Elsewhere(CA_FILE)),
    ("ssl_certfile", OptionKind::Elsewhere(CERT_FILE)),
    ("ssl_keyfile", OptionKind::Elsewhere(KEY_FILE)),
];

/// Reads the options of an address of this deployment. An error names the option, and never repeats
/// its value.
pub(super) fn read(query: &str, deployment: Deployment) -> Result<Options, String> {
    let mut options = Options::default();
    for (name, value) in parse(query.as_bytes()) {
        options.add(&name, &value, deployment)?;
    }
    Ok(options)
}

impl Options {
    fn add(&mut self, name: &str, value: &str, deployment: Deployment) -> Result<(), String> {
        let known = OPTIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let Some(&(name, kind)) = known else { return Err(unknown(name, value)) };
        let single = match kind {
            OptionKind::Redundant => return Ok(()),
            OptionKind::Tuning(instead) => {
                self.warnings.push(format!("{name} is ignored: {instead}"));
                return Ok(());
            }
            OptionKind::Elsewhere(fault) => return Err(format!("{name} {fault}")),
            _ if value.is_empty() => return Err(format!("{name} has no value")),
            OptionKind::Node if matches!(deployment, Deployment::Server | Deployment::Socket) => {
                return Err(format!("{name} needs redis-sentinel:// or redis-cluster://"));
            }
            OptionKind::Node => {
                self.nodes.push(value.to_owned());
                return Ok(());
            }
            OptionKind::Database => &mut self.database,
            _ if deployment != Deployment::Sentinel => {
                return Err(format!("{name} needs redis-sentinel://"));
            }
            OptionKind::ServiceName => &mut self.service_name,
            OptionKind::SentinelUser => &mut self.sentinel_user,
            OptionKind::SentinelPassword => &mut self.sentinel_password,
        };
        match single.replace(value.to_owned()) {
            Some(_) => Err(format!("{name} is given twice")),
            None => Ok(()),
        }
    }
}

/// The fault of an unknown option. The name is repeated only if it looks like one and has a value,
/// because it may be part of a password.
fn unknown(name: &str, value: &str) -> String {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let is_name = !name.is_empty() && name.len() <= 40 && name.bytes().all(is_of_name);
    if is_name && !value.is_empty() {
        format!("has an unknown option: {name}")
    } else {
        "has an unknown option".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_once_in_the_table() {
        let mut names: Vec<&str> = OPTIONS.iter().map(|&(name, _)| name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn values_are_decoded() {
        let query = "&node=a:1&sentinelServiceName=m&NODE=b%3A2&sentinelUsername=u&sentinelPassword=p%26%2B@&db=3";
        let expected = Options {
            nodes: vec!["a:1".to_owned(), "b:2".to_owned()],
            database: Some("3".to_owned()),
            service_name: Some("m".to_owned()),
            sentinel_user: Some("u".to_owned()),
            sentinel_password: Some("p&+@".to_owned()),
            warnings: Vec::new(),
        };
        assert_eq!(read(query, Deployment::Sentinel), Ok(expected));
    }

    #[test]
    fn ignored_options_are_named_in_a_warning() {
        let options = read("family=0&timeout=pa55&Pool_Size=3", Deployment::Server).unwrap();
        assert_eq!(
            options.warnings,
            [
                "timeout is ignored: queue.enqueue_timeout limits every call",
                "pool_size is ignored: queue.connections sets the number of connections",
            ]
        );
    }

    #[test]
    fn refused_options_are_named_without_their_values() {
        for (query, fault) in [
            ("dbs=pa55", "has an unknown option: dbs"),
            ("pa55/x@host", "has an unknown option"),
            ("=pa55", "has an unknown option"),
            ("db=1&pa55word", "has an unknown option"),
            ("db", "db has no value"),
            ("db=1&db=pa55", "db is given twice"),
            ("node=pa55", "node needs redis-sentinel:// or redis-cluster://"),
            ("sentinelPassword=pa55", "sentinelPassword needs redis-sentinel://"),
            ("password=pa55", "password is not supported: user and password are written before"),
            ("ssl_ca_certs=/pa55", "ssl_ca_certs is not supported: set ca_file"),
            ("skip_verify=true", "skip_verify is not supported: certificates are always checked"),
        ] {
            let found = read(query, Deployment::Server).unwrap_err();
            assert!(found.starts_with(fault), "{query}: {found}");
            assert!(!found.contains("pa55"), "{query}: {found}");
        }
        let of_cluster = read("sentinelServiceName=m", Deployment::Cluster).unwrap_err();
        assert_eq!(of_cluster, "sentinelServiceName needs redis-sentinel://");
    }
}
