//! What stands in `mongodb.uri`: what the driver is given of it, what is left out with a warning, and what is wrong with it.
//!
//! Addresses are written for MongoDB's drivers of other languages, and shared with them. The driver here refuses a whole
//! address for one option that it does not know, or accepts it and refuses it when it connects. Nothing of an address is
//! repeated but names of options: it may hold a password.

use super::options::{self, Use};
use crate::settings::Secret;
use crate::trust;
use futures_util::FutureExt;
use mongodb::error::ErrorKind;
use mongodb::options::{ClientOptions, ConnectionString, Tls};
use std::collections::BTreeSet;

/// An address that the driver accepts.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) uri: Secret,
    /// What of it is ignored.
    pub(super) warnings: Vec<String>,
}

impl Address {
    /// Reads an address, or says everything that is wrong with it.
    pub(super) fn read(uri: &Secret) -> Result<Self, Vec<String>> {
        let parts = Parts::split(uri.reveal()).map_err(|fault| vec![fault.to_owned()])?;
        let mut kept = Vec::new();
        let (mut warnings, mut faults) = (Vec::new(), Vec::new());
        for read in options::read(parts.options, parts.is_srv()) {
            match read {
                Use::Keep(option) => kept.push(option),
                Use::Ignore(Some(warning)) => warnings.push(warning),
                Use::Ignore(None) => {}
                Use::Refuse(fault) => faults.push(fault),
            }
        }
        faults.extend(twice(&kept));
        if faults.is_empty() {
            faults.extend(parts.fault_of_driver(&kept));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self { uri: Secret::new(parts.with(&kept)), warnings })
    }
}

/// Options that are given twice, of which the driver would take neither.
fn twice(kept: &[String]) -> Option<String> {
    let mut names = BTreeSet::new();
    let mut names_of = kept.iter().map(|option| option.split('=').next().unwrap_or_default());
    let again = names_of.find(|name| !names.insert(name.to_ascii_lowercase()))?;
    Some(format!("has {again} more than once"))
}

/// The parts of an address.
struct Parts<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    hosts: &'a str,
    database: &'a str,
    options: &'a str,
}

impl<'a> Parts<'a> {
    fn split(uri: &'a str) -> Result<Self, &'static str> {
        let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
        if !["mongodb", "mongodb+srv"].contains(&scheme) {
            return Err("not an address that begins with mongodb:// or mongodb+srv://");
        }
        let (before, options) = rest.split_once('?').unwrap_or((rest, ""));
        if !before.contains('@') && options.contains('@') {
            return Err("has a ? before its @: in a user or password it is written %3F");
        }
        let (user, place) = match before.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, before),
        };
        let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
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

    /// What the driver would not accept. Its own messages repeat what they are about; so each part is shown to it alone.
    fn fault_of_driver(&self, options: &[String]) -> Option<String> {
        let Self { scheme, user, hosts, database, .. } = self;
        let refuses = |uri: String| ConnectionString::parse(uri).is_err();
        if user.is_some_and(|user| refuses(format!("mongodb://{user}@host"))) {
            return Some("has a user or password in which a character of :/?#[]@% is not percent-encoded, or no user".to_owned());
        }
        if refuses(format!("{scheme}://{hosts}")) {
            let fault = if self.is_srv() {
                "mongodb+srv takes one name of a host, without a port"
            } else {
                "has a host that is no name or address with a port from 1 to 65535"
            };
            return Some(fault.to_owned());
        }
        if refuses(format!("mongodb://host/{database}")) {
            return Some("has a name of a database with a character that none may have".to_owned());
        }
        let blamed = options.iter().find(|option| {
            // Some options need a user, some forbid a password, and some belong to mongodb+srv.
            let probes = ["mongodb://u:p@host", "mongodb://u@host", "mongodb+srv://a.b.c"];
            probes.iter().all(|probe| refuses(format!("{probe}/?{option}")))
        });
        if let Some(option) = blamed {
            let name = option.split('=').next().unwrap_or_default();
            return Some(format!("has a value of {name} that is not supported"));
        }
        self.fault_of_whole(options)
    }

    fn fault_of_whole(&self, options: &[String]) -> Option<String> {
        let Ok(parsed) = ConnectionString::parse(self.with(options)) else {
            return Some("has options that do not fit together, or not to its user".to_owned());
        };
        if let Some(fault) = fault_of_tls(parsed.tls.as_ref()) {
            return Some(fault);
        }
        if self.is_srv() {
            // Its hosts would be looked up.
            return None;
        }
        match ClientOptions::parse(parsed)
            .into_future()
            .now_or_never()?
            .err()
            .map(|error| *error.kind)
        {
            // At this point it speaks of how options go together, and repeats nothing of them.
            Some(ErrorKind::InvalidArgument { message, .. }) => {
                Some(format!("is refused by the driver: {message}"))
            }
            Some(_) => Some("is refused by the driver".to_owned()),
            None => None,
        }
    }
}

/// What is wrong with the files that TLS needs.
fn fault_of_tls(tls: Option<&Tls>) -> Option<String> {
    let Some(Tls::Enabled(tls)) = tls else { return None };
    let identity = tls.cert_key_file_path.as_ref().map(|file| trust::check_identity(file));
    if let Some(Err(fault)) = identity {
        return Some(format!("tlsCertificateKeyFile: {fault}"));
    }
    match &tls.ca_file_path {
        Some(file) => {
            trust::check_certificates(file).err().map(|fault| format!("tlsCAFile: {fault}"))
        }
        None if tls.allow_invalid_certificates == Some(true) => None,
        None => trust::check_authorities().err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str) -> Result<Address, Vec<String>> {
        Address::read(&Secret::new(uri.to_owned()))
    }

    #[test]
    fn what_does_not_matter_to_a_reader_does_not_reach_the_driver() {
        let uri = "mongodb://u:p%40@a:1,b:2/db?w=0&retryWrites=true&replicaSet=rs0&maxPoolSize=0&journal=false&&ssl=false";
        let address = read(uri).unwrap();
        assert_eq!(address.uri.reveal(), "mongodb://u:p%40@a:1,b:2/db?replicaSet=rs0&ssl=false");
        assert_eq!(address.warnings.len(), 1, "{:?}", address.warnings);
    }

    #[test]
    fn every_fault_is_told_and_nothing_is_repeated() {
        for (uri, fault) in [
            ("http://pa55", "begins with mongodb://"),
            ("mongodb://user:pa?55@host", "%3F"),
            ("mongodb://user:pa/55@host", "percent-encoded"),
            ("mongodb://user:pa:55@host", "percent-encoded"),
            ("mongodb://@host", "no user"),
            ("mongodb://pa55:0", "1 to 65535"),
            ("mongodb://pa55:port", "1 to 65535"),
            ("mongodb://", "no name"),
            ("mongodb+srv://host:1", "without a port"),
            ("mongodb+srv://a,b", "one name"),
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
