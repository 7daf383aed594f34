//! `hookgate check`: what a configuration comes to, and what is at the servers that it names.

use crate::auth::{Callers, UsersView};
use crate::config::Config;
use crate::findings::Findings;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::mirror::file;
use crate::mirror::mongo::Mongo;
use crate::printable::printable;
use crate::queue;
use crate::settings::Fault;
use crate::triggers::{Source, TriggerIndex, WorkflowsView};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// What was found. The names of its members are for scripts, and stay.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    config: String,
    ok: bool,
    /// Of the configuration.
    faults: Vec<Fault>,
    /// What is worth a look in a configuration without faults.
    warnings: Vec<String>,
    /// Keys that the environment sets.
    from_environment: BTreeSet<String>,
    /// What callers can make it take, and what there is.
    memory: Option<Memory>,
    triggers_file: Option<Findings>,
    mongodb: Option<Findings>,
    redis: Option<Findings>,
}

impl Report {
    /// Of a configuration alone.
    pub fn new(path: &Path, config: &Result<Config, Vec<Fault>>) -> Self {
        let mut report = Self { config: path.display().to_string(), ..Self::default() };
        match config {
            Ok(config) => {
                report.ok = true;
                report.warnings = [config.warnings.clone(), config.auth.jwt.warnings()].concat();
                if config.triggers.source == Source::MongoDb {
                    report.warnings.extend(config.mongodb.warnings());
                }
                let memory = Memory::new(config);
                report.warnings.extend(memory.warning());
                report.memory = Some(memory);
                report.from_environment.clone_from(&config.from_environment);
            }
            Err(faults) => report.faults.clone_from(faults),
        }
        report
    }

    /// Looks at Redis, and where documents come from.
    pub async fn connect(&mut self, config: &Config) {
        let (documents, redis) = tokio::join!(
            Box::pin(look_at_documents(config)),
            Box::pin(queue::survey(&config.queue, config.server.body.max_body))
        );
        self.ok = documents.are_good() && redis.are_good();
        self.redis = Some(redis);
        match config.triggers.source {
            Source::File => self.triggers_file = Some(documents),
            Source::MongoDb => self.mongodb = Some(documents),
        }
    }

    /// Whether nothing was found that would not work.
    pub fn is_ok(&self) -> bool {
        self.ok
    }
}

async fn look_at_documents(config: &Config) -> Findings {
    // Nobody looks into the indexes of these views.
    let metrics = Metrics::new("check", "check").expect("the buckets are constants");
    let staleness = config.triggers.max_staleness;
    let index = TriggerIndex::new(staleness);
    let mut workflows = WorkflowsView::new(&config.triggers, &index, Arc::clone(&metrics));
    let callers = Arc::new(Callers::new(staleness));
    let mut users = UsersView::new(config.users.clone(), &callers, metrics);
    match config.triggers.source {
        Source::File => file::survey(&config.triggers.file, &mut workflows, &mut users),
        Source::MongoDb => {
            let workflows = (config.triggers.collection.as_str(), &mut workflows);
            let users = (config.users.collection.as_str(), &mut users);
            Mongo::new(config.mongodb.clone()).survey(workflows, users).await
        }
    }
}

/// For people. What the lines say may come from outside.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.lines().iter().map(printable).collect();
        formatter.write_str(&lines.join("\n"))
    }
}

impl Report {
    fn lines(&self) -> Vec<String> {
        let Self { config, faults, warnings, from_environment, .. } = self;
        if !faults.is_empty() {
            let heading = format!("{config}: {} fault(s)", faults.len());
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
