//! The configuration: a TOML file, overridden by the environment; every fault is found at once.

use crate::admin::AdminSettings;
use crate::admission::AdmissionSettings;
use crate::auth::{AuthSettings, UsersSettings};
use crate::ingress::ServerSettings;
use crate::mirror::mongo::MongoSettings;
use crate::queue::{IdempotencySettings, QueueSettings};
use crate::settings::{Fault, Given, Settings, line};
use crate::telemetry::TelemetrySettings;
use crate::text_file::{Stamp, TextFile};
use crate::triggers::TriggersSettings;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

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
    /// The file that it was read from.
    pub stamp: Option<Stamp>,
    /// The files of secrets and keys that it names.
    pub files: Vec<Stamp>,
    /// What is worth a look in it.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the file and the environment of the process.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        ConfigFile::read(path)?.load()
    }

    /// What is certain of a service that runs already: its file may have been edited since it started, for
    /// better or worse, its environment has not. Faults are its own affair.
    pub fn admin_of_environment() -> AdminSettings {
        let mut settings = Settings::of_process("").unwrap_or_default();
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
        config.files = settings.files().to_vec();
        config.warnings = settings.warnings();
        config.from_environment.clone_from(settings.keys_from_environment());
        let faults = settings.into_faults();
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// Says in the log which files of secrets and keys it was read from, and what is worth a look in it.
    pub fn log(&self) {
        self.files.iter().for_each(Stamp::log);
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        self.auth.jwt.warn();
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
            stamp: None,
            files: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// The file of a configuration, as it was read.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    pub stamp: Stamp,
    text: String,
}

impl ConfigFile {
    pub fn read(path: &Path) -> Result<Self, Vec<Fault>> {
        let file = TextFile::read(path).map_err(|error| unreadable(path, &error))?;
        let stamp = file.stamp();
        let text = String::from_utf8(file.into_text()).map_err(|error| {
            let line = line(error.as_bytes(), error.utf8_error().valid_up_to());
            fault(path, "is no text in UTF-8".to_owned(), Some(line))
        })?;
        Ok(Self { path: path.to_owned(), stamp, text })
    }

    /// Reads it and the environment of the process.
    pub fn load(self) -> Result<Config, Vec<Fault>> {
        let Self { path, stamp, text } = self;
        let settings = Settings::of_process(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| line(text.as_bytes(), span.start));
            fault(&path, format!("is not TOML: {}", error.message()), Some(line))
        })?;
        let mut config = Config::read(settings)?;
        config.stamp = Some(stamp);
        Ok(config)
    }
}

/// What is said of a file that cannot be read.
pub fn unreadable(path: &Path, error: &io::Error) -> Vec<Fault> {
    fault(path, format!("cannot be read: {error}"), None)
}

fn fault(path: &Path, message: String, line: Option<usize>) -> Vec<Fault> {
    vec![Fault { key: path.display().to_string(), message, line }]
}
