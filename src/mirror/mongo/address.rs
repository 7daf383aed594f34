//! Reading `mongodb.uri`: the address for the driver, warnings about ignored options, and faults.
//!
//! An address is often shared with programs that use MongoDB's drivers for other languages. The
//! Rust driver refuses a whole address because of one unknown option, or accepts an option and
//! fails when it connects. Messages repeat only the names of options, because an address may hold a
//! password.

use crate::files::tls_roots;
use crate::mirror::mongo::options;
use crate::mirror::mongo::options::OptionUse;
use crate::settings::Secret;
use futures_util::FutureExt;
use mongodb::error::ErrorKind;
use mongodb::options::{ClientOptions, ConnectionString, Tls};
use std::collections::BTreeSet;

/// An address that the driver accepts.
#[derive(Debug, Clone)]
pub(super) struct MongoUri {
    pub(super) uri: Secret,
    /// The options that are ignored.
    pub(super) warnings: Vec<String>,
}

impl MongoUri {
    /// Reads an address, or returns all its faults.
    pub(super) fn read(uri: &Secret) -> Result<Self, Vec<String>> {
        let parts = UriParts::split(uri.reveal()).map_err(|fault| vec![fault.to_owned()])?;
        let mut kept = Vec::new();
        let (mut warnings, mut faults) = (Vec::new(), Vec::new());
        for read in options::read(parts.options, parts.is_srv()) {
            match read {
                OptionUse::Keep(option) => kept.push(option),
                OptionUse::Ignore(Some(warning)) => warnings.push(warning),
                OptionUse::Ignore(None) => {}
                OptionUse::Refuse(fault) => faults.push(fault),
            }
        }
        faults.extend(repeated_option(&kept));
        if faults.is_empty() {
            faults.extend(parts.driver_fault(&kept));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self { uri: Secret::new(parts.with(&kept)), warnings })
    }
}

/// The fault of an option that is given twice. The driver refuses it too, without its name.
fn repeated_option(kept: &[String]) -> Option<String> {
    let mut names = BTreeSet::new();
    let mut given = kept.iter().map(|option| option.split('=').next().unwrap_or_default());
    let repeated = given.find(|name| !names.insert(name.to_ascii_lowercase()))?;
    Some(format!("has {repeated} more than once"))
}

/// The parts of an address.
struct UriParts<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    hosts: &'a str,
    database: &'a str,
    options: &'a str,
}

impl<'a> UriParts<'a> {
    fn split(uri: &'a str) -> Result<Self, &'static str> {
        let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
        if !["mongodb", "mongodb+srv"].contains(&scheme) {
            return Err("is not an address that begins with mongodb:// or mongodb+srv://");
        }
        let (before, options) = rest.split_once('?').unwrap_or((rest, ""));
        if !before.contains('@') && options.contains('@') {
            return Err("has a ? before its @: in a user or password, write %3F");
        }
        let (user, location) = match before.rsplit_once('@') {
            Some((user, location)) => (Some(user), location),
            None => (None, before),
        };
        let (hosts, database) = location.split_once('/').unwrap_or((location, ""));
        Ok(Self { scheme, user, hosts, database, options })
    }

    fn is_srv(&self) -> bool {
        self.scheme == "mongodb+srv"
    }

    /// The address with these options.
    fn with(&self, options: &[String]) -> String {
        let Self { scheme, user, hosts, database, .. } = self;
        let (user, at) = user.map_or(("", ""), |user| (user, "@"));
        let mark = if options.is_empty() { "" } else { "?" };
        format!("{scheme}://{user}{at}{hosts}/{database}{mark}{}", options.join("&"))
    }

    /// The part that the driver does not accept. The driver's own message may repeat a password, so
    /// the faulty part is found by parsing each part alone.
    fn driver_fault(&self, options: &[String]) -> Option<String> {
        let Self { scheme, user, hosts, database, .. } = self;
        let refuses = |uri: String| ConnectionString::parse(uri).is_err();
        if user.is_some_and(|user| refuses(format!("mongodb://{user}@host"))) {
            return Some("has no user, or a user or password in which a character of :/?#[]@% is not percent-encoded".to_owned());
        }
        if refuses(format!("{scheme}://{hosts}")) {
            let fault = if self.is_srv() {
                "must have exactly one host name, without a port, after mongodb+srv://"
            } else {
                "has a host that is not a valid name or address, or a port outside 1 to 65535"
            };
            return Some(fault.to_owned());
        }
        if refuses(format!("mongodb://host/{database}")) {
            return Some("has a database whose name contains a forbidden character".to_owned());
        }
        let unsupported = options.iter().find(|option| {
            // Some options need a user, some forbid a password, and some need mongodb+srv.
            let addresses = ["mongodb://u:p@host", "mongodb://u@host", "mongodb+srv://a.b.c"];
            addresses.iter().all(|address| refuses(format!("{address}/?{option}")))
        });
        if let Some(option) = unsupported {
            let name = option.split('=').next().unwrap_or_default();
            return Some(format!("has a value of {name} that is not supported"));
        }
        self.combination_fault(options)
    }

    /// The fault of parts that the driver accepts alone but not together.
    fn combination_fault(&self, options: &[String]) -> Option<String> {
        let Ok(parsed) = ConnectionString::parse(self.with(options)) else {
            return Some("has options that do not fit together or do not fit its user".to_owned());
        };
        if let Some(fault) = tls_fault(parsed.tls.as_ref()) {
            return Some(fault);
        }
        if self.is_srv() {
            // Parsing the options would look up the hosts.
            return None;
        }
        match ClientOptions::parse(parsed)
            .into_future()
            .now_or_never()?
            .err()
            .map(|error| *error.kind)
        {
            // At this point the message is about a combination of options and repeats no values.
            Some(ErrorKind::InvalidArgument { message, .. }) => {
                Some(format!("is refused by the driver: {message}"))
            }
            Some(_) => Some("is refused by the driver".to_owned()),
            None => None,
        }
    }
}

/// The fault of a file that TLS needs.
fn tls_fault(tls: Option<&Tls>) -> Option<String> {
    let Some(Tls::Enabled(tls)) = tls else { return None };
    let identity = tls.cert_key_file_path.as_ref().map(|file| tls_roots::check_identity(file));
    if let Some(Err(fault)) = identity {
        return Some(format!("tlsCertificateKeyFile: {fault}"));
    }
    match &tls.ca_file_path {
        Some(file) => {
            tls_roots::check_certificates(file).err().map(|fault| format!("tlsCAFile: {fault}"))
        }
        None if tls.allow_invalid_certificates == Some(true) => None,
        None => tls_roots::check_authorities().err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str) -> Result<MongoUri, Vec<String>> {
        MongoUri::read(&Secret::new(uri.to_owned()))
    }

    #[test]
    fn options_for_writers_do_not_reach_the_driver() {
        let uri = "mongodb://u:p%40@a:1,b:2/db?w=0&retryWrites=true&replicaSet=rs0&maxPoolSize=0&journal=false&&ssl=false";
        let address = read(uri).unwrap();
        assert_eq!(address.uri.reveal(), "mongodb://u:p%40@a:1,b:2/db?replicaSet=rs0&ssl=false");
        assert_eq!(address.warnings.len(), 1, "{:?}", address.warnings);
    }

    #[test]
    fn every_fault_is_reported_and_no_value_is_repeated() {
        for (uri, fault) in [
            ("http://pa55", "begins with mongodb://"),
            ("mongodb://user:pa?55@host", "%3F"),
            ("mongodb://user:pa/55@host", "percent-encoded"),
            ("mongodb://user:pa:55@host", "percent-encoded"),
            ("mongodb://@host", "no user"),
            ("mongodb://pa55:0", "1 to 65535"),
            ("mongodb://pa55:port", "1 to 65535"),
            ("mongodb://", "not a valid name"),
            ("mongodb+srv://host:1", "without a port"),
            ("mongodb+srv://a,b", "one host name"),
            ("mongodb://host/pa 55", "database"),
            ("mongodb://host/?replicaSet=a&REPLICASET=b", "replicaSet more than once"),
            ("mongodb://host/?authMechanism=GSSAPI", "authMechanism"),
            ("mongodb://host/?authMechanism=SCRAM-SHA-1", "do not fit"),
            ("mongodb://a,b/?directConnection=true", "directConnection=true"),
            ("mongodb://host/?serverMonitoringMode=pa55", "serverMonitoringMode"),
            ("mongodb://host/?tls=true&ssl=false", "do not fit"),
            ("mongodb://host/?tlsCAFile=/nowhere", "tlsCAFile: cannot read /nowhere"),
            ("mongodb://host/?tlsCertificateKeyFile=/nowhere", "tlsCertificateKeyFile: cannot"),
            ("mongodb://host/?srvMaxHosts=1", "srvMaxHosts"),
            ("mongodb+srv://host/?directConnection=true", "directConnection"),
        ] {
            let faults = read(uri).expect_err(uri).join("; ");
            assert!(faults.contains(fault), "{uri}: {faults}");
            assert!(!faults.contains("pa55"), "{uri}: {faults}");
        }
    }
}
