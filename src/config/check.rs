//! `hookgate check`: reports the faults of a configuration, and the state of the servers that it
//! names.

use crate::auth::{Callers, UserCollection};
use crate::config::Config;
use crate::config::memory_budget::MemoryBudget;
use crate::logging::printable::printable;
use crate::metrics::Metrics;
use crate::mirror::file;
use crate::mirror::mongo::Mongo;
use crate::process::findings::Findings;
use crate::queue;
use crate::queue::QueueSettings;
use crate::settings::Fault;
use crate::traces;
use crate::triggers::{DocumentSource, TriggerIndex, WorkflowCollection};
use futures_util::future::join_all;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The result of `hookgate check`. The member names are part of the interface for scripts and must
/// not change.
#[derive(Debug, Default, Serialize)]
pub struct CheckReport {
    config: String,
    ok: bool,
    /// Faults of the configuration.
    faults: Vec<Fault>,
    /// Warnings about a configuration without faults.
    warnings: Vec<String>,
    /// The keys that are set by the environment.
    from_environment: BTreeSet<String>,
    /// The memory that callers can make the process use, and the available memory.
    memory: Option<MemoryBudget>,
    triggers_file: Option<Findings>,
    mongodb: Option<Findings>,
    /// Absent with several queues.
    redis: Option<Findings>,
    /// By the names of the queues, if there are several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    queues: BTreeMap<String, Findings>,
    /// What `auth.jwt.jwks_url` yields. Absent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks: Option<Findings>,
    /// Whether the collector of traces accepts spans. Absent without `telemetry.otlp.endpoint`.
    #[serde(skip_serializing_if = "Option::is_none")]
    otlp: Option<Findings>,
}

impl CheckReport {
    /// Reports on a configuration without connecting to servers.
    pub fn new(path: &Path, config: &Result<Config, Vec<Fault>>) -> Self {
        let mut report = Self { config: path.display().to_string(), ..Self::default() };
        match config {
            Ok(config) => {
                report.ok = true;
                report.warnings = [config.warnings.clone(), config.auth.jwt.warnings()].concat();
                if config.triggers.source == DocumentSource::MongoDb {
                    report.warnings.extend(config.mongodb.warnings());
                }
                let memory = MemoryBudget::new(config);
                report.warnings.extend(memory.warning());
                report.memory = Some(memory);
                report.from_environment.clone_from(&config.from_environment);
            }
            Err(faults) => report.faults.clone_from(faults),
        }
        report
    }

    /// Checks Redis, the source of the documents, the URL of the JWK set and the collector of
    /// traces, and adds the findings.
    pub async fn connect(&mut self, config: &Config) {
        let (documents, mut queues, jwks, otlp) = tokio::join!(
            Box::pin(check_documents(config)),
            Box::pin(check_queues(config)),
            Box::pin(config.auth.survey()),
            Box::pin(traces::survey(&config.traces))
        );
        let servers = [Some(&documents), jwks.as_ref(), otlp.as_ref()].into_iter().flatten();
        self.ok = servers.chain(queues.values()).all(Findings::are_good);
        (self.jwks, self.otlp) = (jwks, otlp);
        if queues.len() == 1 {
            self.redis = queues.pop_first().map(|(_, findings)| findings);
        }
        self.queues = queues;
        match config.triggers.source {
            DocumentSource::File => self.triggers_file = Some(documents),
            DocumentSource::MongoDb => self.mongodb = Some(documents),
        }
    }

    /// Whether there are no faults.
    pub fn is_ok(&self) -> bool {
        self.ok
    }
}

/// The findings about each queue, by its name.
async fn check_queues(config: &Config) -> BTreeMap<String, Findings> {
    let survey = |settings: Arc<QueueSettings>| async move {
        let findings = queue::survey(&settings, config.server.body.max_body).await;
        (settings.name().to_owned(), findings)
    };
    join_all(config.queue.queues().into_iter().map(survey)).await.into_iter().collect()
}

async fn check_documents(config: &Config) -> Findings {
    // The views write into indexes that are never read.
    let metrics = Metrics::new("check", "check").expect("the buckets are constants");
    let staleness = config.triggers.max_staleness;
    let index = TriggerIndex::new(&config.triggers);
    let workflows = WorkflowCollection::new(&config.triggers, &index, Arc::clone(&metrics));
    let callers = Arc::new(Callers::new(staleness));
    let users = UserCollection::new(config.users.clone(), &callers, metrics);
    match config.triggers.source {
        DocumentSource::File => file::survey(&config.triggers.file, workflows, users),
        DocumentSource::MongoDb => {
            let workflows = (config.triggers.collection.as_str(), workflows);
            let users = (config.users.collection.as_str(), users);
            Box::pin(Mongo::new(config.mongodb.clone()).survey(workflows, users)).await
        }
    }
}

/// The report for people. Its lines may contain text from outside, so they are escaped.
impl fmt::Display for CheckReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.lines().iter().map(printable).collect();
        formatter.write_str(&lines.join("\n"))
    }
}

impl CheckReport {
    fn lines(&self) -> Vec<String> {
        let Self { config, faults, warnings, from_environment, .. } = self;
        if !faults.is_empty() {
            let plural = if faults.len() == 1 { "" } else { "s" };
            let heading = format!("{config}: {} fault{plural}", faults.len());
            let faults = faults.iter().map(|fault| format!("  {fault}"));
            return std::iter::once(heading).chain(faults).collect();
        }
        let mut lines = vec![format!("{config}: no faults")];
        lines.extend(warnings.iter().map(|warning| format!("  warning: {warning}")));
        lines.extend(
            from_environment.iter().map(|key| format!("  {key} is set by the environment")),
        );
        let parts = [
            ("triggers.file", &self.triggers_file),
            ("MongoDB", &self.mongodb),
            ("Redis", &self.redis),
            ("auth.jwt.jwks_url", &self.jwks),
            ("telemetry.otlp", &self.otlp),
        ];
        let parts = parts
            .into_iter()
            .filter_map(|(name, findings)| Some((name.to_owned(), findings.as_ref()?)));
        let queue = |(name, findings)| (format!("Redis ({name})"), findings);
        for (name, findings) in parts.chain(self.queues.iter().map(queue)) {
            lines.push(name);
            lines.extend(findings.lines());
        }
        lines
    }
}
