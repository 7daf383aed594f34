//! The configuration: a TOML file, overridden by the environment; every fault is found at once.

use crate::admin::AdminSettings;
use crate::admission::AdmissionSettings;
use crate::auth::{AuthSettings, UsersSettings};
use crate::ingress::ServerSettings;
use crate::mirror::mongo::MongoSettings;
use crate::queue::{IdempotencySettings, QueueSettings};
use crate::settings::{Fault, Given, Settings};
use crate::telemetry::TelemetrySettings;
use crate::triggers::TriggersSettings;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Everything that can be configured. Each part of the program reads its own section.
#[derive(Debug)]
pub struct Config {
    pub admin: AdminSettings,
    pub admission: AdmissionSettings,
    pub auth: AuthSettings,
    pub mongodb: MongoSettings,
    pub queue: QueueSettings,
    pub server: ServerSettings,
    pub telemetry: TelemetrySettings,
    pub triggers: TriggersSettings,
    pub users: UsersSettings,
    /// Tells what has changed when it is read again.
    pub given: Given,
    /// Keys that the environment sets.
    pub from_environment: BTreeSet<String>,
}

impl Config {
    /// Reads the file and the environment of the process.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| fault(path, &format!("cannot be read: {error}")))?;
        let table = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
            });
            fault(path, &format!("is not TOML: line {line}: {}", error.message()))
        })?;
        Self::read(Settings::new(table, environment()))
    }

    /// What is certain of a service that runs already: its file may have been edited since it started, for
    /// better or worse, its environment has not. Faults are its own affair.
    pub fn admin_of_environment() -> AdminSettings {
        let mut settings = Settings::new(toml::Table::new(), environment());
        AdminSettings::read(&mut settings.section("admin"))
    }

    /// Reads settings, wherever they come from.
    pub fn read(mut settings: Settings) -> Result<Self, Vec<Fault>> {
        let mut config = Self::read_sections(&mut settings);
        if config.admission.in_flight_bytes < config.server.body.max_body {
            let message = "is less than server.max_body, so that the largest body never fits";
            settings.section("limits").fault("in_flight_bytes", message);
        }
        config.given = settings.given().clone();
        config.from_environment.clone_from(settings.keys_from_environment());
        let faults = settings.into_faults();
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// Every key there is, with its default; `config/hookgate.toml` is held to it.
    pub fn known_keys() -> BTreeMap<String, Option<toml::Value>> {
        let mut settings = Settings::default();
        Self::read_sections(&mut settings);
        settings.known().clone()
    }

    fn read_sections(settings: &mut Settings) -> Self {
        let idempotency = IdempotencySettings::read(&mut settings.section("idempotency"));
        Self {
            server: ServerSettings::read(&mut settings.section("server")),
            admin: AdminSettings::read(&mut settings.section("admin")),
            auth: AuthSettings::read(&mut settings.section("auth")),
            mongodb: MongoSettings::read(&mut settings.section("mongodb")),
            triggers: TriggersSettings::read(&mut settings.section("triggers")),
            users: UsersSettings::read(&mut settings.section("users")),
            queue: QueueSettings::read(&mut settings.section("queue"), idempotency),
            admission: AdmissionSettings::read(&mut settings.section("limits")),
            telemetry: TelemetrySettings::read(&mut settings.section("telemetry")),
            given: Given::default(),
            from_environment: BTreeSet::new(),
        }
    }
}

fn environment() -> impl Iterator<Item = (String, String)> {
    // A variable that is not Unicode is not one of ours.
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn fault(path: &Path, message: &str) -> Vec<Fault> {
    vec![Fault { key: path.display().to_string(), message: message.to_owned() }]
}
