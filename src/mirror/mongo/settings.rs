//! The section `[mongodb]`.

use crate::mirror::mongo::address::MongoUri;
use crate::settings::{Secret, Section};
use mongodb::options::{ConnectionString, HostInfo};

/// The section `[mongodb]`.
#[derive(Debug, Clone)]
pub struct MongoSettings {
    pub(in crate::mirror::mongo) uri: Secret,
    pub(in crate::mirror::mongo) database: String,
    /// Warnings about options of the address that are ignored.
    ignored: Vec<String>,
}

impl MongoSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        let uri = section.secret("uri", Some("mongodb://127.0.0.1:27017/?replicaSet=rs0"));
        let address = match uri.as_ref().map(MongoUri::read) {
            Some(Ok(address)) => Some(address),
            Some(Err(faults)) => {
                for fault in faults {
                    section.fault("uri", fault);
                }
                None
            }
            None => None,
        };
        let empty = || MongoUri { uri: Secret::new(String::new()), warnings: Vec::new() };
        let MongoUri { uri, warnings: ignored } = address.unwrap_or_else(empty);
        let database: String = section.value("database", "tether".to_owned());
        if database.is_empty() {
            section.fault("database", "is empty");
        }
        Self { uri, database, ignored }
    }

    /// Logs the warnings.
    pub fn warn(&self) {
        for warning in self.warnings() {
            tracing::warn!("{warning}");
        }
    }

    /// Warnings about the settings.
    pub fn warnings(&self) -> Vec<String> {
        self.ignored.iter().map(|ignored| format!("mongodb.uri: {ignored}")).collect()
    }
}

impl MongoSettings {
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The hosts and ports of the address, or its mongodb+srv name, without user, password and
    /// options.
    pub fn servers(&self) -> Option<String> {
        match ConnectionString::parse(self.uri.reveal()).ok()?.host_info {
            HostInfo::HostIdentifiers(hosts) => {
                Some(hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            HostInfo::DnsRecord(name) => Some(name),
            _ => None,
        }
    }
}
