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
use crate::settings::Fault;
use crate::triggers::{DocumentSource, TriggerIndex, WorkflowCollection};
use serde::Serialize;
use std::collections::BTreeSet;
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
    redis: Option<Findings>,
    /// What `auth.jwt.jwks_url` yields. Absent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks: Option<Findings>,
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

    /// Checks Redis, the source of the documents and the URL of the JWK set, and adds the findings.
    pub async fn connect(&mut self, config: &Config) {
        let (documents, redis, jwks) = tokio::join!(
            Box::pin(check_documents(config)),
            Box::pin(queue::survey(&config.queue, config.server.body.max_body)),
            Box::pin(config.auth.survey())
        );
        self.ok = [Some(&documents), Some(&redis), jwks.as_ref()]
            .into_iter()
            .flatten()
            .all(Findings::are_good);
        self.jwks = jwks;
        self.redis = Some(redis);
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
        ];
        for (name, findings) in parts {
            if let Some(findings) = findings {
                lines.push(name.to_owned());
                lines.extend(findings.lines());
            }
        }
        lines
    }
}
