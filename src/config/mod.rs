//! The configuration: a TOML file, overridden by the environment. All faults are reported at once.

pub mod check;
pub mod memory_budget;
pub mod reload;

use crate::admin::AdminSettings;
use crate::admission::AdmissionSettings;
use crate::auth::{AuthSettings, UsersSettings};
use crate::endpoints::EndpointsSettings;
use crate::endpoints::verification::{NamedVerification, read_named};
use crate::files::text_file::{Stamp, TextFile};
use crate::ingress::{ServerSettings, WEBHOOK_PATH};
use crate::logging::TelemetrySettings;
use crate::mirror::mongo::MongoSettings;
use crate::mirror::paths::is_within;
use crate::queue::{IdempotencySettings, QueueSettings, TemplateField, TemplateFields};
use crate::settings::{Fault, RawValues, Section, SettingsReader, line};
use crate::traces::TracesSettings;
use crate::triggers::{DocumentSource, KeptField, KeptFields, TriggersSettings};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// The whole configuration. Each part of the program reads its own section.
#[derive(Debug)]
pub struct Config {
    pub admin: AdminSettings,
    pub admission: AdmissionSettings,
    pub auth: AuthSettings,
    pub endpoints: EndpointsSettings,
    pub mongodb: MongoSettings,
    pub queue: QueueSettings,
    pub server: ServerSettings,
    pub telemetry: TelemetrySettings,
    pub traces: TracesSettings,
    pub triggers: TriggersSettings,
    pub users: UsersSettings,
    /// The values as given, to find what a reload changes.
    pub raw_values: RawValues,
    /// The keys that are set by the environment.
    pub from_environment: BTreeSet<String>,
    /// The version of the file that was read.
    pub stamp: Option<Stamp>,
    /// The files of secrets and keys that the configuration names.
    pub files: Vec<Stamp>,
    /// Warnings about values that are not faults.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the file and the environment of the process.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        ConfigFile::read(path)?.load()
    }

    /// Reads `[admin]` from the environment alone, to find the admin port of a running service. The
    /// file may have been edited after the service started; the environment has not changed. Faults
    /// are ignored, because the service itself reports them.
    pub fn admin_of_environment() -> AdminSettings {
        let mut settings = SettingsReader::of_process("").unwrap_or_default();
        AdminSettings::read(&mut settings.section("admin"))
    }

    /// Reads the verifications of `[endpoints]`, whatever else the file says.
    pub fn verifications(path: &Path) -> Result<BTreeMap<String, NamedVerification>, Vec<Fault>> {
        let mut settings = ConfigFile::read(path)?.parse()?;
        let verifications = read_named(&mut settings.section("endpoints"));
        let mut faults = settings.into_faults();
        faults.retain(|fault| fault.key.starts_with("endpoints.verification"));
        if faults.is_empty() { Ok(verifications) } else { Err(faults) }
    }

    /// Reads the configuration from any settings.
    pub fn read(mut settings: SettingsReader) -> Result<Self, Vec<Fault>> {
        let mut config = Self::read_sections(&mut settings);
        if config.bytes_of_queue() < config.server.body.max_body {
            let message = if config.queue.are_several() {
                "is less than twice server.max_body: of several queues each has half of it"
            } else {
                "is less than server.max_body; the largest body would never fit"
            };
            settings.section("limits").fault("in_flight_bytes", message);
        }
        config.check_documents(&mut settings);
        config.check_endpoints(&mut settings.section("endpoints"));
        config.check_health_path(&mut settings.section("server"));
        config.check_credentials_in_jobs(&mut settings.section("queue"));
        config.triggers.keep_fields(kept_fields(&config.queue.template_fields));
        config.triggers.keep_verifications(&config.endpoints);
        config.admission.unverified_share = config.endpoints.unverified_share;
        config.raw_values = settings.raw_values().clone();
        config.files = settings.files().to_vec();
        config.warnings = settings.warnings();
        config.from_environment.clone_from(settings.keys_from_environment());
        let faults = settings.into_faults();
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// The bytes that the requests of one queue may hold.
    fn bytes_of_queue(&self) -> usize {
        self.admission.bytes_of_queue(self.queue.count())
    }

    /// Checks what the sections about documents say together.
    fn check_documents(&self, settings: &mut SettingsReader) {
        let filters = [("triggers", &self.triggers.filter), ("users", &self.users.filter)];
        for (section, filter) in filters {
            if self.triggers.source == DocumentSource::File && filter.source_name().is_some() {
                let message = "needs triggers.source = \"mongodb\": only the database can filter";
                settings.section(section).fault("filter", message);
            }
        }
    }

    /// Checks what the section about endpoints says together with others.
    fn check_endpoints(&self, section: &mut Section<'_>) {
        let EndpointsSettings { path, verification_field, .. } = &self.endpoints;
        if is_prefix(path, WEBHOOK_PATH) || is_prefix(WEBHOOK_PATH, path) {
            let message = format!("has addresses in common with {WEBHOOK_PATH}");
            section.fault("path", message);
        }
        let is_limited = self.endpoints.failed_verifications_per_minute > 0;
        if self.endpoints.enabled && is_limited && !self.server.client_address.trusts_proxies() {
            let warning = "does not apply to peers with internal addresses; set \
                server.trusted_proxies if there is a proxy in front";
            section.warning("failed_verifications_per_minute", warning);
        }
        for (key, field) in self.triggers.node_fields() {
            if paths_overlap(verification_field, field) {
                let message = format!("is, holds or lies within {field}, the triggers.{key}");
                section.fault("verification_field", message);
            }
        }
    }

    /// Rejects a health check at an address of endpoints.
    fn check_health_path(&self, section: &mut Section<'_>) {
        let Self { server, endpoints, .. } = self;
        if let Some(path) = &server.health_path
            && is_prefix(&endpoints.path, path)
        {
            section.fault("health_path", "is endpoints.path, or below it");
        }
    }

    /// All settings that determine what the documents become. They identify a snapshot. A setting
    /// that earlier versions do not have is named only where it is not the default.
    pub fn source_names(&self) -> Vec<String> {
        let Self { triggers, users, mongodb, .. } = self;
        let names = [mongodb.database()].into_iter();
        let names = names.chain(triggers.source_names()).chain(users.source_names());
        let more = [triggers.additional_source_names(), users.additional_source_names()];
        names.map(str::to_owned).chain(more.concat()).collect()
    }

    /// Rejects keys of `[queue]` by which jobs would contain a credential of a caller, or a secret of
    /// an endpoint.
    fn check_credentials_in_jobs(&self, queue: &mut Section<'_>) {
        for name in self.queue.forwarded(&self.auth.credentials.headers) {
            let message = format!("{name} carries a credential, which no job may contain");
            queue.fault("forward_headers", message);
        }
        let TemplateFields { workflow, node } = &self.queue.template_fields;
        let nodes = self.triggers.nodes_field();
        let workflow = workflow.iter().map(|field| ("workflow", field, field.path.clone()));
        let node = node.iter().map(|field| ("node", field, format!("{nodes}.{}", field.path)));
        for (source, TemplateField { path, uses, .. }, full_path) in workflow.chain(node) {
            let Some(secrets) = self.secrets_at(path, &full_path) else { continue };
            for used_at in uses {
                let message = format!("{{{source}.{path}}} has {secrets}");
                queue.fault(&format!("data.{used_at}"), message);
            }
        }
    }

    /// The secrets in a field of a workflow or of a node, if it has some. `full_path` is its path in
    /// the document of the workflow.
    fn secrets_at(&self, path: &str, full_path: &str) -> Option<String> {
        let api_keys = self.users.api_key_field();
        if [path, full_path].into_iter().any(|path| paths_overlap(path, api_keys)) {
            return Some(format!("API keys: users.api_key_field is {api_keys:?}"));
        }
        let EndpointsSettings { enabled, verification_field, .. } = &self.endpoints;
        let verification = format!("{}.{verification_field}", self.triggers.nodes_field());
        let has_verifications = *enabled && paths_overlap(full_path, &verification);
        has_verifications.then(|| {
            format!("secrets of senders: endpoints.verification_field is {verification_field:?}")
        })
    }

    /// Logs the files of secrets and keys that were read, and all warnings.
    pub fn log(&self) {
        self.files.iter().for_each(Stamp::log);
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        self.auth.jwt.warn();
    }

    /// All keys with their defaults. A test compares `config/hookgate.toml` with them.
    pub fn known_keys() -> BTreeMap<String, Option<toml::Value>> {
        Self::defaults().known().clone()
    }

    /// Returns the bounds of the keys that have some. `docs/reference/configuration.md` shows them.
    pub fn bounds() -> BTreeMap<String, String> {
        Self::defaults().bounds().clone()
    }

    /// Reads every section of an empty configuration.
    fn defaults() -> SettingsReader {
        let mut settings = SettingsReader::default();
        Self::read_sections(&mut settings);
        settings
    }

    fn read_sections(settings: &mut SettingsReader) -> Self {
        let idempotency = IdempotencySettings::read(&mut settings.section("idempotency"));
        Self {
            server: ServerSettings::read(&mut settings.section("server")),
            admin: AdminSettings::read(&mut settings.section("admin")),
            auth: AuthSettings::read(&mut settings.section("auth")),
            endpoints: EndpointsSettings::read(&mut settings.section("endpoints")),
            mongodb: MongoSettings::read(&mut settings.section("mongodb")),
            triggers: TriggersSettings::read(&mut settings.section("triggers")),
            users: UsersSettings::read(&mut settings.section("users")),
            queue: QueueSettings::read(&mut settings.section("queue"), idempotency),
            admission: AdmissionSettings::read(&mut settings.section("limits")),
            telemetry: TelemetrySettings::read(&mut settings.section("telemetry")),
            traces: TracesSettings::read(&mut settings.section("telemetry.otlp")),
            raw_values: RawValues::default(),
            from_environment: BTreeSet::new(),
            stamp: None,
            files: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// The fields of documents that jobs contain.
fn kept_fields(TemplateFields { workflow, node }: &TemplateFields) -> KeptFields {
    let kept = |fields: &[TemplateField]| {
        let field = |TemplateField { path, is_in_text, .. }: &TemplateField| KeptField {
            path: path.clone(),
            is_in_text: *is_in_text,
        };
        fields.iter().map(field).collect()
    };
    KeptFields { workflow: kept(workflow), node: kept(node) }
}

/// Whether two dotted paths are equal, or one leads to a part of the other.
fn paths_overlap(first: &str, second: &str) -> bool {
    is_within(first, second) || is_within(second, first)
}

/// Whether a path of URLs is another one, or leads to it part by part.
fn is_prefix(path: &str, other: &str) -> bool {
    other.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A configuration file that was read and not yet parsed.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    pub stamp: Stamp,
    contents: String,
}

impl ConfigFile {
    pub fn read(path: &Path) -> Result<Self, Vec<Fault>> {
        let file = TextFile::read(path).map_err(|error| unreadable(path, &error))?;
        let stamp = file.stamp();
        let contents = String::from_utf8(file.into_text()).map_err(|error| {
            let line = line(error.as_bytes(), error.utf8_error().valid_up_to());
            fault(path, "is not valid UTF-8".to_owned(), Some(line))
        })?;
        Ok(Self { path: path.to_owned(), stamp, contents })
    }

    /// Parses the file, and reads the environment of the process.
    pub fn load(self) -> Result<Config, Vec<Fault>> {
        let mut config = Config::read(self.parse()?)?;
        config.stamp = Some(self.stamp);
        Ok(config)
    }

    fn parse(&self) -> Result<SettingsReader, Vec<Fault>> {
        let Self { path, contents, .. } = self;
        SettingsReader::of_process(contents).map_err(|error| {
            let line = error.span().map_or(1, |span| line(contents.as_bytes(), span.start));
            let hint = toml_hint(contents.lines().nth(line - 1).unwrap_or_default());
            fault(path, format!("is not TOML: {}{hint}", error.message()), Some(line))
        })
    }
}

/// Says how to write what is no value of TOML in a line that cannot be parsed.
fn toml_hint(line: &str) -> &'static str {
    let is_name = |text: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._".contains(&byte);
        !text.is_empty() && text.bytes().all(is_part)
    };
    let is_bare = |value: &str| {
        let name = value.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        name.is_some_and(|(name, _)| is_name(name))
    };
    let mut values = line.split('=').skip(1).map(str::trim_start);
    if values.clone().any(is_bare) {
        "; a placeholder is a string, with quotes around it"
    } else if values.any(|value| value.starts_with("null")) {
        "; TOML has no null"
    } else {
        ""
    }
}

/// The fault of a file that cannot be read.
pub fn unreadable(path: &Path, error: &io::Error) -> Vec<Fault> {
    fault(path, format!("cannot be read: {error}"), None)
}

fn fault(path: &Path, message: String, line: Option<usize>) -> Vec<Fault> {
    vec![Fault { key: path.display().to_string(), message, line }]
}
